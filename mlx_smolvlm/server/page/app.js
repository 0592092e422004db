// Starts the page: views by address, theme, drops, and what all views share.
import { adopt, startChat } from "./chat.js";
import { put, startCompare } from "./compare.js";
import { addFiles } from "./composer.js";
import { leaveLive, playFile, startLive } from "./live.js";
import { filesOf } from "./media.js";
import { server } from "./server.js";
import { startSettings } from "./settings.js";
import { $, local, setIcon } from "./ui.js";

const VIEWS = ["chat", "live", "compare"];
const TITLES = { chat: "Chat", live: "Live", compare: "Compare" };
const THEMES = { auto: ["auto", "Theme: as the system"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };

let view = "chat";

function showView() {
  const wanted = location.hash.slice(1);
  if (wanted && !VIEWS.includes(wanted)) return; // a link within the page
  const next = wanted || "chat";
  if (next !== view && view === "live") leaveLive();
  view = next;
  for (const name of VIEWS) $(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll(".views a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${TITLES[view]} · SmolVLM`;
  if (view === "chat" && matchMedia("(pointer: fine)").matches) $("chat-text").focus({ preventScroll: true });
}

function showTheme() {
  const theme = local.get("theme") in THEMES ? local.get("theme") : "auto";
  const [iconName, label] = THEMES[theme];
  setIcon($("theme"), iconName);
  $("theme").setAttribute("aria-label", label);
  $("theme").title = label;
  return theme;
}

function startTheme() {
  $("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    local.set("theme", names[(names.indexOf(showTheme()) + 1) % names.length]);
    showTheme();
    dispatchEvent(new Event("themechange"));
  });
  showTheme();
}

/** Files may be dropped anywhere; what is open takes them. */
function startDrops() {
  let depth = 0;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const over = (isOver) => {
    depth = isOver ? depth : 0;
    $("drop").hidden = !isOver || view === "compare"; // whose places show it themselves
    $("drop").querySelector("span").textContent = view === "live" ? "Drop a video" : "Drop images or videos";
  };
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    depth += 1;
    over(true);
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (hasFiles(event) && (depth -= 1) <= 0) over(false);
  });
  document.addEventListener("dropended", () => over(false));
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // or the browser would open the file
    over(false);
    if (!document.querySelector("dialog[open]")) take(filesOf(event.dataTransfer));
  });
  addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (!files.length || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    take(files);
  });
}

function take(files) {
  if (!files.length) return;
  if (view === "compare") put(files);
  else if (view === "live") playFile(files[0]);
  else {
    addFiles(files);
    $("chat-text").focus();
  }
}

startTheme();
startSettings();
startDrops();
startLive();
startCompare((answered) => {
  adopt(answered);
  location.hash = "chat";
});
addEventListener("hashchange", showView);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
showView();
server.start();
await startChat();
document.documentElement.dataset.ready = "";
