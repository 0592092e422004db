// The messages of the open chat: how they look, and what can be done with each.
import { costList, failureBox } from "./answering.js";
import { chats, stop, titleOf } from "./chats.js";
import { render } from "./markdown.js";
import { gallery, release } from "./media.js";
import { server } from "./server.js";
import { store } from "./store.js";
import { $, button, copyText, el, iconButton } from "./ui.js";

const NEAR_PX = 80;
const nodes = new WeakMap();
let onAsked; // (): the last message is to be answered

export function startConversation(given) {
  onAsked = given;
  server.addEventListener("config", showWelcome);
}

export function showMessages() {
  $("messages").setAttribute("aria-live", "off"); // what was said before is not read out again
  $("messages").replaceChildren(...chats.open.messages.map(nodeOf));
  showWelcome();
  $("chat-name").textContent = chats.open.title || "New chat";
  scrollDown(true);
  setTimeout(() => $("messages").setAttribute("aria-live", "polite"), 100);
}

export function showWelcome() {
  const { messages } = chats.open;
  $("welcome").hidden = messages.length > 0;
  $("messages").hidden = !messages.length;
  $("chat-export").disabled = !messages.length;
  const note = document.querySelector(".demo-note");
  note.hidden = !server.config.is_demo;
  note.textContent = "This is the demo model. It knows colored shapes, numbers up to 99 and shapes that move. Start the server with --model for one that knows the world.";
}

/** Draw a message at the end. */
export function append(message) {
  const node = nodeOf(message);
  $("messages").append(node);
  return node;
}

export function redraw(message) {
  const before = nodes.get(message);
  const node = nodeOf(message);
  before?.replaceWith(node);
  return node;
}

function nodeOf(message) {
  const node = message.role === "user" ? userNode(message) : answerNode(message);
  nodes.set(message, node);
  return node;
}

function userNode(message) {
  const actions = el(
    "div",
    { class: "actions" },
    iconButton("copy", "Copy the question", (event) => copyText(message.text, event.currentTarget)),
    iconButton("edit", "Edit the question", () => edit(message)),
  );
  return el(
    "li",
    { class: "message user" },
    el("h3", { class: "hidden-text", text: "You" }),
    message.media.length ? gallery(message.media) : null,
    message.text ? el("div", { class: "bubble", text: message.text }) : null,
    el("div", { class: "message-foot" }, actions),
  );
}

function answerNode(message) {
  const body = el("div", { class: "answer" });
  render(body, message.text);
  const isLast = message === chats.open.messages.at(-1);
  const node = el("li", { class: "message model" }, el("h3", { class: "hidden-text", text: "Answer" }), message.text ? body : null);
  if (message.state === "streaming") {
    node.setAttribute("aria-busy", "true");
    return node;
  }
  if (message.state === "failed") node.append(failureBox(message.failure, isLast ? () => regenerate(message) : null));
  else if (message.finish === "length") node.append(failureBox({ kind: "length" }));
  else if (!message.text) node.append(el("p", { class: "note", text: "The model said nothing." }));
  const actions = el("div", { class: "actions" });
  if (message.text) actions.append(iconButton("copy", "Copy the answer", (event) => copyText(message.text, event.currentTarget)));
  if (isLast && message.state !== "failed") actions.append(iconButton("redo", "Answer again", () => regenerate(message)));
  const foot = el("div", { class: "message-foot" }, actions);
  if (message.cost) foot.append(costList(message.cost, mediaBefore(message)));
  if (actions.childElementCount || message.cost) node.append(foot);
  return node;
}

const earlier = (message) => chats.open.messages.slice(0, chats.open.messages.indexOf(message));
const mediaBefore = (message) => earlier(message).flatMap((one) => one.media);

function edit(message) {
  const area = el("textarea", { rows: "2", "aria-label": "Edited question" });
  area.value = message.text;
  const cancel = () => {
    redraw(message).querySelector('[aria-label^="Edit"]').focus();
  };
  const form = el("form", { class: "edit" }, area, el("div", {}, button("Cancel", cancel), el("button", { class: "button small primary", text: "Send" })));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = area.value.trim();
    if (!text && !message.media.length) return;
    stop();
    message.text = text;
    cutAfter(message);
    redraw(message);
    onAsked();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  const node = nodes.get(message);
  node.querySelector(".bubble")?.remove();
  node.querySelector(".message-foot").replaceWith(form);
  area.focus();
}

function regenerate(message) {
  if (chats.running) return;
  cutAfter(earlier(message).at(-1));
  onAsked();
}

/** Remove all that comes after a message. */
function cutAfter(message) {
  const { open } = chats;
  const at = open.messages.indexOf(message);
  for (const gone of open.messages.splice(at + 1)) {
    nodes.get(gone)?.remove();
    for (const media of gone.media) {
      release(media);
      store.remove("media", media.id).catch(() => {});
    }
  }
  if (at === 0) $("chat-name").textContent = open.title = titleOf(message);
}

export const isNearEnd = () => $("chat-scroll").scrollHeight - $("chat-scroll").scrollTop - $("chat-scroll").clientHeight < NEAR_PX;

export function scrollDown(force = false) {
  if (force || isNearEnd()) $("chat-scroll").scrollTop = $("chat-scroll").scrollHeight;
}

export const faultOf = (message) => nodes.get(message).querySelector(".fault").textContent;
