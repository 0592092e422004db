// The list of chats beside the conversation.
import { chats, forget, forgetAll, stop } from "./chats.js";
import { $, confirmed, el, iconButton } from "./ui.js";

let actions; // {onOpen(chat), onNew()}

export function startHistory(given) {
  actions = given;
  $("history-open").addEventListener("click", () => showHistory(true));
  $("history-close").addEventListener("click", () => showHistory(false));
  $("history-clear").addEventListener("click", deleteAll);
  document.addEventListener("click", (event) => {
    const isOutside = !$("history").contains(event.target) && !$("history-open").contains(event.target);
    if (isOutside) closeHistory();
  });
}

function showHistory(isOpen) {
  $("history").classList.toggle("open", isOpen);
  $("history-open").setAttribute("aria-expanded", isOpen);
  if (isOpen) $("history-close").focus();
  else $("history-open").focus();
}

/** Close the list where it lies over the conversation; false if it does not. */
export function closeHistory() {
  const isOpen = $("history").classList.contains("open");
  if (isOpen) showHistory(false);
  return isOpen;
}

export function showList() {
  const list = [...chats.all].sort((one, other) => other.updated - one.updated);
  $("history-list").replaceChildren(
    ...list.map((one) => {
      const isCurrent = one.id === chats.open.id;
      const open = el(
        "button",
        { type: "button", class: "open", "aria-current": isCurrent ? "true" : null, on: { click: () => actions.onOpen(one) } },
        el("span", { text: one.title || "Chat" }),
        el("small", { text: dateOf(one.updated) }),
      );
      return el("li", { class: isCurrent ? "current" : "" }, open, iconButton("trash", `Delete ${one.title || "this chat"}`, () => deleteChat(one)));
    }),
  );
  $("history-clear").hidden = !list.length;
}

function dateOf(time) {
  const date = new Date(time);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : date.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}

async function deleteChat(one) {
  if (!(await confirmed("Delete this chat?", `“${one.title || "Chat"}” and its files are removed from this browser.`, "Delete"))) return;
  if (chats.running?.chat.id === one.id) stop();
  await forget(one);
  if (one.id === chats.open.id) return actions.onNew();
  showList();
  $("history-list").querySelector(".open")?.focus();
}

async function deleteAll() {
  if (!(await confirmed("Delete all chats?", "All chats and their files are removed from this browser. This cannot be undone.", "Delete all"))) return;
  stop();
  await forgetAll();
  actions.onNew();
}
