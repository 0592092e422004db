// Before the first paint, so that the theme does not flash. "auto" follows the system.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = "auto";
    try {
      chosen = localStorage.getItem("smolvlm.theme") || "auto";
    } catch {} // storage may be refused
    const root = document.documentElement;
    root.dataset.theme = chosen === "auto" ? (dark.matches ? "dark" : "light") : chosen;
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("themechange", apply);
}
