// The chats of this browser: the open one, the one that is being answered, and what is kept of all of them.
import { store } from "./store.js";
import { session, toast } from "./ui.js";

const SAVE_MS = 400; // how often an answer is kept while it grows

/** `running`: the answer that is being made, {controller, chat, message}, or null. */
export const chats = { all: [], open: fresh(), running: null };

export function fresh() {
  return { id: `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`, title: "", created: Date.now(), updated: Date.now(), messages: [] };
}

export function titleOf(message) {
  return message.text.replace(/\s+/g, " ").slice(0, 80) || message.media[0]?.name || "Chat";
}

export function stop() {
  chats.running?.controller.abort();
}

let saving = 0;
let isFullTold = false;

export function keep(one) {
  one.updated = Date.now();
  chats.all = [one, ...chats.all.filter((other) => other.id !== one.id)];
  const plain = { ...one, messages: one.messages.map((message) => ({ ...message, media: message.media.map(({ blob, ...rest }) => rest) })) };
  store.put("chats", plain).catch(tellFull);
}

export function keepSoon(one) {
  saving ||= setTimeout(() => {
    saving = 0;
    keep(one);
  }, SAVE_MS);
}

/** Keep a chat whose answer has ended; false if it was deleted meanwhile. */
export function keepEnded(one) {
  clearTimeout(saving);
  saving = 0;
  if (!chats.all.some((other) => other.id === one.id)) return false;
  keep(one);
  return true;
}

/** Keep what there is when the page is left. */
export function keepNow() {
  clearTimeout(saving);
  saving = 0;
  const last = chats.open.messages.at(-1);
  // What is put into a database while a page is left may be lost; this is not. The stream may have ended just before.
  if (last && last.state !== "done") session.set("partial", JSON.stringify({ id: chats.open.id, text: last.text }));
  if (chats.running) keep(chats.running.chat);
}

export function keepFiles(list) {
  for (const { id, blob } of list) store.put("media", { id, blob }).catch(tellFull);
}

/** The answer of a chat as it was when the page was left. */
export function partialOf(id, text) {
  try {
    const partial = JSON.parse(session.get("partial"));
    if (partial.id === id && partial.text.length > text.length) return partial.text;
  } catch {} // there is none
  return text;
}

export async function forget(one) {
  await store.remove("chats", one.id).catch(() => {});
  for (const message of one.messages) for (const media of message.media) await store.remove("media", media.id).catch(() => {});
  chats.all = chats.all.filter((other) => other.id !== one.id);
}

export async function forgetAll() {
  await store.clear("chats").catch(() => {});
  await store.clear("media").catch(() => {});
  chats.all = [];
}

function tellFull() {
  if (!isFullTold) toast("The browser has no more room to keep chats. Delete some, or export them.", 10);
  isFullTold = true;
}
