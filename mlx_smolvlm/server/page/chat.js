// The view Chat: the list of chats, the conversation, and the composer.
import { Painter, asFailure, askPatiently, costList, failureBox, waiting } from "./answering.js";
import { addressOf, attachment, filesOf, gallery, partOf, preview, release, sample } from "./media.js";
import { render } from "./markdown.js";
import { server } from "./server.js";
import { answerFields, settings } from "./settings.js";
import { store } from "./store.js";
import { $, announce, autosize, button, confirmed, copyText, el, fileName, icon, iconButton, local, save, session, toast } from "./ui.js";

const SAVE_MS = 400; // how often an answer is kept while it grows
const NEAR_PX = 80;

let chats = [];
let chat = fresh();
let tray = [];
let running = null; // {controller, chat, message}
const fit = autosize($("chat-text"));

function fresh() {
  return { id: `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`, title: "", created: Date.now(), updated: Date.now(), messages: [] };
}

export async function startChat() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("chat-text").addEventListener("keydown", (event) => {
    const wantsLine = event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !wantsLine) {
      event.preventDefault();
      send();
    }
  });
  $("chat-text").addEventListener("input", showComposer);
  $("chat-text").addEventListener("paste", takePaste);
  $("attach").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    addFiles($("files").files);
    $("files").value = ""; // so that the same file can be chosen again
    $("chat-text").focus();
  });
  $("stop").addEventListener("click", stop);
  $("chat-new").addEventListener("click", newChat);
  $("chat-export").addEventListener("click", exportChat);
  $("history-open").addEventListener("click", () => showHistory(true));
  $("history-close").addEventListener("click", () => showHistory(false));
  $("history-clear").addEventListener("click", deleteAll);
  for (const node of document.querySelectorAll(".sample")) node.addEventListener("click", () => trySample(node.dataset.sample));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && $("history").classList.contains("open")) showHistory(false);
    else if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) stop();
    if (event.key.toLowerCase() === "o" && event.ctrlKey && event.shiftKey) {
      event.preventDefault();
      newChat();
    }
  });
  document.addEventListener("click", (event) => {
    const isOutside = !$("history").contains(event.target) && !$("history-open").contains(event.target);
    if (isOutside && $("history").classList.contains("open")) showHistory(false);
  });
  addEventListener("pagehide", keepNow);
  server.addEventListener("config", showWelcome);
  if (!(await store.isKept())) $("history-note").textContent = "This browser keeps nothing for pages here: chats are gone when the page is closed.";
  chats = (await store.all().catch(() => [])).sort((one, other) => other.updated - one.updated);
  const last = chats.find((one) => one.id === local.get("chat"));
  if (last && !running && !chat.messages.length) await openChat(last);
  else showAll();
}

// The list of chats

function showHistory(isOpen) {
  $("history").classList.toggle("open", isOpen);
  $("history-open").setAttribute("aria-expanded", isOpen);
  if (isOpen) $("history-close").focus();
  else $("history-open").focus();
}

function showList() {
  const list = [...chats].sort((one, other) => other.updated - one.updated);
  $("history-list").replaceChildren(
    ...list.map((one) => {
      const isCurrent = one.id === chat.id;
      const open = el(
        "button",
        { type: "button", class: "open", "aria-current": isCurrent ? "true" : null, on: { click: () => openChat(one) } },
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

async function openChat(one) {
  if ($("history").classList.contains("open")) showHistory(false);
  if (one.id === chat.id && chat.messages.length) return;
  stop();
  for (const message of chat.messages) for (const media of message.media) release(media);
  chat = structuredClone(one);
  for (const message of chat.messages) {
    for (const media of message.media) media.blob ??= (await store.get("media", media.id).catch(() => null))?.blob;
    if (message.state === "streaming") Object.assign(message, { text: partialOf(chat.id, message.text), state: "failed", failure: { kind: "reload" } });
  }
  local.set("chat", chat.id);
  showAll();
}

function newChat() {
  stop();
  chat = fresh();
  local.remove("chat");
  showAll();
  if ($("history").classList.contains("open")) showHistory(false);
  $("chat-text").focus();
  announce("New chat");
}

async function deleteChat(one) {
  if (!(await confirmed("Delete this chat?", `“${one.title || "Chat"}” and its files are removed from this browser.`, "Delete"))) return;
  if (running?.chat.id === one.id) stop();
  await forget(one);
  chats = chats.filter((other) => other.id !== one.id);
  if (one.id === chat.id) return newChat();
  showList();
  $("history-list").querySelector(".open")?.focus();
}

async function deleteAll() {
  if (!(await confirmed("Delete all chats?", "All chats and their files are removed from this browser. This cannot be undone.", "Delete all"))) return;
  stop();
  await store.clear("chats").catch(() => {});
  await store.clear("media").catch(() => {});
  chats = [];
  newChat();
}

async function forget(one) {
  await store.remove("chats", one.id).catch(() => {});
  for (const message of one.messages) for (const media of message.media) await store.remove("media", media.id).catch(() => {});
}

// What is kept

let saving = 0;
let isFullTold = false;

function keep(one = chat) {
  one.updated = Date.now();
  chats = [one, ...chats.filter((other) => other.id !== one.id)];
  const plain = { ...one, messages: one.messages.map((message) => ({ ...message, media: message.media.map(({ blob, ...rest }) => rest) })) };
  store.put("chats", plain).catch(tellFull);
}

function keepSoon(one) {
  saving ||= setTimeout(() => {
    saving = 0;
    keep(one);
  }, SAVE_MS);
}

function keepNow() {
  clearTimeout(saving);
  saving = 0;
  const last = chat.messages.at(-1);
  // What is put into a database while a page is left may be lost; this is not. The stream may have ended just before.
  if (last && last.state !== "done") session.set("partial", JSON.stringify({ id: chat.id, text: last.text }));
  if (running) keep(running.chat);
}

/** The answer of a chat as it was when the page was left. */
function partialOf(id, text) {
  try {
    const partial = JSON.parse(session.get("partial"));
    if (partial.id === id && partial.text.length > text.length) return partial.text;
  } catch {} // there is none
  return text;
}

function tellFull() {
  if (!isFullTold) toast("The browser has no more room to keep chats. Delete some, or export them.", 10);
  isFullTold = true;
}

// The conversation

function showAll() {
  $("messages").setAttribute("aria-live", "off"); // what was said before is not read out again
  $("messages").replaceChildren(...chat.messages.map(nodeOf));
  showWelcome();
  showList();
  showComposer();
  $("chat-name").textContent = chat.title || "New chat";
  scrollDown(true);
  setTimeout(() => $("messages").setAttribute("aria-live", "polite"), 100);
}

function showWelcome() {
  $("welcome").hidden = chat.messages.length > 0;
  $("messages").hidden = !chat.messages.length;
  $("chat-export").disabled = !chat.messages.length;
  const note = document.querySelector(".demo-note");
  note.hidden = !server.config.is_demo;
  note.textContent = "This is the demo model. It knows colored shapes, numbers up to 99 and shapes that move. Start the server with --model for one that knows the world.";
}

const nodes = new WeakMap();

function nodeOf(message) {
  const node = message.role === "user" ? userNode(message) : answerNode(message);
  nodes.set(message, node);
  return node;
}

function redraw(message) {
  const before = nodes.get(message);
  const node = nodeOf(message);
  before?.replaceWith(node);
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
  const isLast = message === chat.messages.at(-1);
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

function mediaBefore(message) {
  return chat.messages.slice(0, chat.messages.indexOf(message)).flatMap((one) => one.media);
}

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
    answer();
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

/** Remove all that comes after a message. */
function cutAfter(message) {
  const at = chat.messages.indexOf(message);
  for (const gone of chat.messages.splice(at + 1)) {
    nodes.get(gone)?.remove();
    for (const media of gone.media) {
      release(media);
      store.remove("media", media.id).catch(() => {});
    }
  }
  if (at === 0) $("chat-name").textContent = chat.title = titleOf(message);
}

function regenerate(message) {
  if (running) return;
  cutAfter(chat.messages[chat.messages.indexOf(message) - 1]);
  answer();
}

const isNearEnd = () => $("chat-scroll").scrollHeight - $("chat-scroll").scrollTop - $("chat-scroll").clientHeight < NEAR_PX;

function scrollDown(force = false) {
  if (force || isNearEnd()) $("chat-scroll").scrollTop = $("chat-scroll").scrollHeight;
}

// Asking

function titleOf(message) {
  return message.text.replace(/\s+/g, " ").slice(0, 80) || message.media[0]?.name || "Chat";
}

async function send() {
  const text = $("chat-text").value.trim();
  if (running || (!text && !tray.length)) return;
  const message = { role: "user", text, media: tray };
  tray = [];
  $("chat-text").value = "";
  fit();
  showTray();
  for (const media of message.media) store.put("media", { id: media.id, blob: media.blob }).catch(tellFull);
  const last = chat.messages.at(-1);
  chat.messages.push(message);
  chat.title ||= titleOf(message);
  local.set("chat", chat.id);
  if (last?.role === "model") redraw(last); // it is no longer the one to answer again
  $("messages").append(nodeOf(message));
  $("chat-name").textContent = chat.title;
  showWelcome();
  await answer();
}

async function answer() {
  const message = { role: "model", text: "", media: [], state: "streaming" };
  const mine = { controller: new AbortController(), chat, message };
  running = mine;
  chat.messages.push(message);
  const node = nodeOf(message);
  const note = waiting("Sending");
  node.append(note);
  $("messages").append(node);
  const body = el("div", { class: "answer" });
  let painter = null;
  keep(chat);
  showList();
  showComposer();
  showWelcome();
  scrollDown(true);
  if (document.activeElement === document.body) $("stop").focus(); // what was pressed is gone
  announce("The model is answering.");
  try {
    const request = { messages: await requestMessages(chat.messages.slice(0, -1)), ...answerFields() };
    const { text, finish, cost } = await askPatiently(request, {
      signal: mine.controller.signal,
      onWait: (wait) => note.say(wait || "Sending"),
      onAdmitted: () => note.say("Reading"),
      onProgress: (share) => note.say(share < 1 ? `Reading, ${Math.round(share * 100)}%` : "Thinking"),
      onText: (soFar) => {
        message.text = soFar;
        const follows = isNearEnd();
        if (!painter) {
          note.replaceWith(body);
          painter = new Painter(body);
        }
        painter.show(soFar);
        if (follows) requestAnimationFrame(() => scrollDown(true));
        keepSoon(mine.chat);
      },
    });
    Object.assign(message, { text, finish, cost, state: "done" });
  } catch (error) {
    const { kind, code, message: reason } = asFailure(error);
    Object.assign(message, { state: "failed", failure: { kind, code, message: reason } });
  }
  painter?.end(message.text);
  if (running === mine) running = null;
  clearTimeout(saving);
  saving = 0;
  if (!chats.some((one) => one.id === mine.chat.id)) return; // it was deleted meanwhile
  keep(mine.chat);
  showList();
  showComposer();
  if (chat !== mine.chat) return;
  const follows = isNearEnd();
  redraw(message);
  if (follows) scrollDown(true);
  // The log reads out what was added to it.
  announce(message.state === "done" ? "The answer is complete." : nodes.get(message).querySelector(".fault").textContent);
}

function stop() {
  running?.controller.abort();
}

/**
 * Messages in OpenAI's form, with the files as they were given. A question that got no answer is left out, as what was
 * wrong with it would be wrong for good.
 */
async function requestMessages(messages) {
  const made = settings.system ? [{ role: "system", content: settings.system }] : [];
  for (const [at, { role, text, media }] of messages.entries()) {
    if (role === "user" && at + 1 < messages.length && !messages[at + 1].text) continue;
    if (role === "model") {
      if (text) made.push({ role: "assistant", content: text });
      continue;
    }
    if (media.some((one) => !one.blob)) throw new Error("A file of this chat is no longer kept by the browser. Start a new chat with it.");
    const parts = await Promise.all(media.map(partOf));
    if (text) parts.push({ type: "text", text });
    made.push({ role: "user", content: media.length ? parts : text });
  }
  return made;
}

async function exportChat() {
  const exported = { format: "mlx-smolvlm chat", version: 1, title: chat.title, created: new Date(chat.created).toISOString(), model: server.model?.id ?? null, settings: { ...settings } };
  try {
    exported.messages = await requestMessages(chat.messages);
  } catch (error) {
    return toast(error.message);
  }
  exported.answers = chat.messages.filter((one) => one.role === "model" && one.text).map(({ finish, cost, state }) => ({ finish_reason: finish ?? null, is_complete: state === "done", ...cost }));
  save(fileName("chat", "json"), "application/json", JSON.stringify(exported, null, 2));
}

// The composer

function showComposer() {
  const isEmpty = !$("chat-text").value.trim() && !tray.length;
  const isAnswering = Boolean(running);
  const hadFocus = document.activeElement === $("stop") || document.activeElement === $("send");
  $("send").disabled = isEmpty;
  $("send").hidden = isAnswering;
  $("stop").hidden = !isAnswering;
  if (hadFocus) (isAnswering ? $("stop") : $("chat-text")).focus();
}

function takePaste(event) {
  const files = filesOf(event.clipboardData);
  if (!files.length) return;
  event.preventDefault();
  addFiles(files);
}

/** Attach files to the next message. */
export function addFiles(files) {
  const added = [...files].map(attachment).filter(Boolean);
  const all = [...tray, ...added];
  for (const [kind, limit] of [["image", server.config.max_images], ["video", server.config.max_videos]]) {
    if (limit && all.filter((media) => media.kind === kind).length > limit) return toast(`A message has at most ${limit} ${kind}s.`);
  }
  tray = all;
  showTray();
  if (added.length) announce(`${added.map((media) => media.name).join(", ")} attached`);
}

function showTray() {
  $("tray").hidden = !tray.length;
  $("tray").replaceChildren(
    ...tray.map((media) => {
      const remove = el("button", { type: "button", "aria-label": `Remove ${media.name}`, title: "Remove" }, icon("close"));
      remove.addEventListener("click", () => {
        tray = tray.filter((other) => other !== media);
        release(media);
        showTray();
        $("chat-text").focus();
      });
      const badge = media.kind === "video" ? el("span", { class: "badge" }, icon("film")) : null;
      return el("li", { title: media.name }, preview(media), badge, remove);
    }),
  );
  showComposer();
}

async function trySample(kind) {
  const [file, text] = kind === "video" ? ["clip.mp4", "Which way does the shape move?"] : ["picture.png", "Describe the picture."];
  try {
    const media = await sample(file);
    if (running || !media) return;
    tray = [media];
    $("chat-text").value = text;
    await send();
  } catch (error) {
    server.report(asFailure(error));
  }
}

/** Go on in Chat with what was asked elsewhere. */
export function adopt({ text, media, answer: given, cost, finish }) {
  if (running) stop();
  chat = fresh();
  chat.messages = [{ role: "user", text, media: media.map((one) => ({ ...one })) }, { role: "model", text: given, media: [], state: "done", finish, cost }];
  chat.title = titleOf(chat.messages[0]);
  for (const one of media) {
    addressOf(one);
    store.put("media", { id: one.id, blob: one.blob }).catch(tellFull);
  }
  local.set("chat", chat.id);
  keep(chat);
  showAll();
}
