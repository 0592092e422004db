// The view Chat: opens chats, asks, and follows the answer.
import { Painter, asFailure, askPatiently, waiting } from "./answering.js";
import { chats, fresh, keep, keepEnded, keepFiles, keepNow, keepSoon, partialOf, stop, titleOf } from "./chats.js";
import { showComposer, startComposer } from "./composer.js";
import { append, faultOf, isNearEnd, redraw, scrollDown, showMessages, showWelcome, startConversation } from "./conversation.js";
import { closeHistory, showList, startHistory } from "./history.js";
import { addressOf, release } from "./media.js";
import { answerFields } from "./settings.js";
import { store } from "./store.js";
import { exportChat, requestMessages } from "./transcript.js";
import { $, announce, local } from "./ui.js";

export async function startChat() {
  startComposer(ask);
  startConversation(answer);
  startHistory({ onOpen: openChat, onNew: newChat });
  $("chat-new").addEventListener("click", newChat);
  $("chat-export").addEventListener("click", () => exportChat(chats.open));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !closeHistory() && !document.querySelector("dialog[open]")) stop();
    if (event.key.toLowerCase() === "o" && event.ctrlKey && event.shiftKey) {
      event.preventDefault();
      newChat();
    }
  });
  addEventListener("pagehide", keepNow);
  if (!(await store.isKept())) $("history-note").textContent = "This browser keeps nothing for pages here: chats are gone when the page is closed.";
  chats.all = await store.all().catch(() => []);
  const last = chats.all.find((one) => one.id === local.get("chat"));
  if (last && !chats.running && !chats.open.messages.length) await openChat(last);
  else showAll();
}

function showAll() {
  showMessages();
  showList();
  showComposer();
}

async function openChat(one) {
  closeHistory();
  if (one.id === chats.open.id && chats.open.messages.length) return;
  stop();
  for (const message of chats.open.messages) for (const media of message.media) release(media);
  chats.open = structuredClone(one);
  for (const message of chats.open.messages) {
    for (const media of message.media) media.blob ??= (await store.get("media", media.id).catch(() => null))?.blob;
    if (message.state === "streaming") Object.assign(message, { text: partialOf(one.id, message.text), state: "failed", failure: { kind: "reload" } });
  }
  local.set("chat", one.id);
  showAll();
}

function newChat() {
  stop();
  chats.open = fresh();
  local.remove("chat");
  showAll();
  closeHistory();
  $("chat-text").focus();
  announce("New chat");
}

/** Ask what was written. */
async function ask(message) {
  const chat = chats.open;
  keepFiles(message.media);
  const last = chat.messages.at(-1);
  chat.messages.push(message);
  chat.title ||= titleOf(message);
  local.set("chat", chat.id);
  if (last?.role === "model") redraw(last); // it is no longer the one to answer again
  append(message);
  $("chat-name").textContent = chat.title;
  showWelcome();
  await answer();
}

/** Answer the last message of the open chat. */
async function answer() {
  const chat = chats.open;
  const message = { role: "model", text: "", media: [], state: "streaming" };
  const mine = { controller: new AbortController(), chat, message };
  chats.running = mine;
  chat.messages.push(message);
  const note = waiting("Sending");
  append(message).append(note);
  const painter = new Painter(note);
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
      ...painter.notes("Reading"),
      onText: (soFar) => {
        message.text = soFar;
        const follows = isNearEnd();
        painter.show(soFar);
        if (follows) requestAnimationFrame(() => scrollDown(true));
        keepSoon(chat);
      },
    });
    Object.assign(message, { text, finish, cost, state: "done" });
  } catch (error) {
    const { kind, code, message: reason } = asFailure(error);
    Object.assign(message, { state: "failed", failure: { kind, code, message: reason } });
  }
  painter.end();
  if (chats.running === mine) chats.running = null;
  if (!keepEnded(chat)) return;
  showList();
  showComposer();
  if (chats.open !== chat) return;
  const follows = isNearEnd();
  redraw(message);
  if (follows) scrollDown(true);
  // The log reads out what was added to it.
  announce(message.state === "done" ? "The answer is complete." : faultOf(message));
}

/** Go on in Chat with what was asked elsewhere. */
export function adopt({ text, media, answer: given, cost, finish }) {
  stop();
  const chat = fresh();
  chat.messages = [{ role: "user", text, media: media.map((one) => ({ ...one })) }, { role: "model", text: given, media: [], state: "done", finish, cost }];
  chat.title = titleOf(chat.messages[0]);
  media.forEach(addressOf);
  keepFiles(media);
  chats.open = chat;
  local.set("chat", chat.id);
  keep(chat);
  showAll();
}
