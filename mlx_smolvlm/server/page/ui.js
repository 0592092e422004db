// Small helpers of all views: elements, icons, announcements, dialogs, files to save.

export const $ = (id) => document.getElementById(id);

/** An element. `props`: attributes; `text`, `on` ({event: listener}) and boolean attributes are understood. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "text") node.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function icon(name, more = "") {
  const [svg, use] = ["svg", "use"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  svg.setAttribute("class", `icon ${more}`.trim());
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function setIcon(button, name) {
  button.querySelector("use").setAttribute("href", `#i-${name}`);
}

export function iconButton(name, label, onClick, props = {}) {
  const button = el("button", { type: "button", class: "icon-button", "aria-label": label, title: label, ...props }, icon(name));
  button.addEventListener("click", onClick);
  return button;
}

export function button(label, onClick, { iconName, kind = "small" } = {}) {
  const node = el("button", { type: "button", class: `button ${kind}` }, iconName ? icon(iconName) : null, label);
  node.addEventListener("click", onClick);
  return node;
}

/** Tell screen readers something that others see. */
export function announce(text) {
  const node = $("announcer");
  node.textContent = "";
  setTimeout(() => (node.textContent = text), 60); // a change, even if the text is the same
}

/** A short notice that goes away by itself. */
export function toast(text, seconds = 6) {
  const node = el("div", { text });
  $("toasts").append(node);
  setTimeout(() => node.remove(), seconds * 1000);
}

/** A box that says what went wrong, and what can be done. */
export function fault(text, { mild = false, actions = [], tag = "div" } = {}) {
  return el(tag, { class: mild ? "fault mild" : "fault" }, icon(mild ? "clock" : "alert"), el("div", {}, el("span", { text }), ...(actions.length ? [el("br"), ...actions] : [])));
}

export function confirmed(title, text, yes) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

export async function copyText(text, node) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard outside of secure origins: an older way.
    const area = el("textarea", { class: "hidden-text", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return toast("The browser does not let this page copy.");
  }
  announce("Copied");
  if (node) {
    setIcon(node, "check");
    setTimeout(() => setIcon(node, "copy"), 1500);
  }
}

export function save(name, type, content) {
  const url = URL.createObjectURL(new Blob(Array.isArray(content) ? content : [content], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 30000);
}

/** A name for a file: what it is, and when. */
export const fileName = (what, ending) => `${what}-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.${ending}`;

export const seconds = (value) => (value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`);
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
export const megabytes = (bytes) => `${(bytes / 1048576).toFixed(bytes < 10485760 ? 1 : 0)} MB`;

/** What the browser keeps; nothing where it refuses to. */
export const local = keeper("localStorage");
export const session = keeper("sessionStorage");

function keeper(kind) {
  const memory = new Map();
  return {
    get(name) {
      try {
        return window[kind].getItem(`smolvlm.${name}`) ?? memory.get(name) ?? null;
      } catch {
        return memory.get(name) ?? null;
      }
    },
    set(name, value) {
      memory.set(name, value);
      try {
        window[kind].setItem(`smolvlm.${name}`, value);
      } catch {} // kept in memory
    },
    remove(name) {
      memory.delete(name);
      try {
        window[kind].removeItem(`smolvlm.${name}`);
      } catch {}
    },
  };
}

/** `textarea`s that grow with their text, where CSS cannot. */
export function autosize(area) {
  if (CSS.supports("field-sizing", "content")) return () => {};
  const fit = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  };
  area.addEventListener("input", fit);
  return fit;
}
