// Where a question is written: its text, and the files that go with it.
import { asFailure } from "./answering.js";
import { chats, stop } from "./chats.js";
import { attachment, filesOf, preview, release, sample } from "./media.js";
import { server } from "./server.js";
import { $, announce, autosize, el, icon, toast } from "./ui.js";

let tray = [];
let onSend; // (message) => promise
const fit = autosize($("chat-text"));

export function startComposer(given) {
  onSend = given;
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
  for (const node of document.querySelectorAll(".sample")) node.addEventListener("click", () => trySample(node.dataset.sample));
}

async function send() {
  const text = $("chat-text").value.trim();
  if (chats.running || (!text && !tray.length)) return;
  const message = { role: "user", text, media: tray };
  tray = [];
  $("chat-text").value = "";
  fit();
  showTray();
  await onSend(message);
}

export function showComposer() {
  const isEmpty = !$("chat-text").value.trim() && !tray.length;
  const isAnswering = Boolean(chats.running);
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
    if (chats.running || !media) return;
    tray = [media];
    $("chat-text").value = text;
    await send();
  } catch (error) {
    server.report(asFailure(error));
  }
}
