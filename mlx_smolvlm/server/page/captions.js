// Captions: kept in order, shown as a log, saved as JSON, WebVTT or SRT.
import { $, confirmed, el, fault, fileName, save, seconds } from "./ui.js";

const MAX_KEPT = 20000;
const MAX_SHOWN = 300;
const SHORTEST_S = 0.5; // of a cue, or players skip it
const NEAR_PX = 60;

let captions = []; // {start_s, end_s, clock, text, latency_s, first_token_s, frames, tokens, source}
let shown = null; // {node, caption, repeats} of the last entry

export function startCaptions() {
  for (const node of $("exports").querySelectorAll("[data-export]")) node.addEventListener("click", () => exportAs(node.dataset.export));
  $("captions-clear").addEventListener("click", async () => {
    if (!(await confirmed("Delete the captions?", "They are not kept anywhere else.", "Delete"))) return;
    captions = [];
    shown = null;
    $("captions").replaceChildren();
    showState();
  });
  showState();
}

function showState() {
  const isEmpty = !captions.length;
  $("captions-empty").hidden = !isEmpty || $("captions").childElementCount > 0;
  for (const node of $("exports").querySelectorAll("button")) node.disabled = isEmpty;
}

/** Add a caption; one that says the same as the last is shown as its going on. */
export function addCaption(caption) {
  captions.push(caption);
  if (captions.length > MAX_KEPT) captions.shift();
  const list = $("captions");
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_PX;
  if (shown && shown.caption.text === caption.text && shown.caption.source === caption.source) {
    shown.repeats += 1;
    shown.node.querySelector("small").textContent = `until ${clockOf(caption.start_s)} · ${shown.repeats} times · ${seconds(caption.latency_s)}`;
  } else {
    const node = el(
      "li",
      {},
      el("time", { datetime: `PT${caption.start_s.toFixed(1)}S`, title: new Date(caption.clock).toLocaleTimeString(), text: clockOf(caption.start_s) }),
      el("span", { text: caption.text || "(no words)" }),
      el("small", { text: `${seconds(caption.latency_s)}${caption.frames > 1 ? ` · ${caption.frames} frames` : ""}` }),
    );
    append(node);
    shown = { node, caption, repeats: 1 };
  }
  showState();
  if (follows) list.scrollTop = list.scrollHeight;
}

/** Add a line that is no caption: something went wrong, or began anew. */
export function addNotice(text, mild = true) {
  append(fault(text, { mild, tag: "li" }));
  shown = null;
  showState();
  $("captions").scrollTop = $("captions").scrollHeight;
}

function append(node) {
  $("captions").append(node);
  if ($("captions").childElementCount > MAX_SHOWN) $("captions").firstElementChild.remove();
}

export const clockOf = (time_s) => {
  const whole = Math.max(0, Math.floor(time_s));
  const pad = (number) => String(number).padStart(2, "0");
  return `${whole >= 3600 ? `${Math.floor(whole / 3600)}:` : ""}${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)}`;
};

function stamp(time_s, point) {
  const milliseconds = Math.max(0, Math.round(time_s * 1000));
  const pad = (number, digits = 2) => String(number).padStart(digits, "0");
  return `${pad(Math.floor(milliseconds / 3600000))}:${pad(Math.floor(milliseconds / 60000) % 60)}:${pad(Math.floor(milliseconds / 1000) % 60)}${point}${pad(milliseconds % 1000, 3)}`;
}

/** Captions as cues: equal ones in turn are one, and each lasts until the next begins. */
export function cues(list) {
  const made = [];
  for (const { start_s, end_s, text } of list) {
    const plain = text.replace(/\s*\n\s*/g, "\n").trim();
    const last = made.at(-1);
    if (last && last.text === plain) last.end_s = end_s;
    else if (plain) {
      if (last) last.end_s = Math.max(last.start_s + 0.001, start_s);
      made.push({ start_s, end_s: Math.max(end_s, start_s + SHORTEST_S), text: plain });
    }
  }
  return made;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export const asVtt = (list) => `WEBVTT\n\n${cues(list).map((cue) => `${stamp(cue.start_s, ".")} --> ${stamp(cue.end_s, ".")}\n${escaped(cue.text)}\n`).join("\n")}`;

// "-->" within a text would end a cue in some players
export const asSrt = (list) => cues(list).map((cue, index) => `${index + 1}\n${stamp(cue.start_s, ",")} --> ${stamp(cue.end_s, ",")}\n${cue.text.replaceAll("-->", "→")}\n`).join("\n");

function exportAs(kind) {
  if (kind === "json") save(fileName("captions", "json"), "application/json", JSON.stringify({ format: "mlx-smolvlm captions", version: 1, captions }, null, 2));
  else if (kind === "vtt") save(fileName("captions", "vtt"), "text/vtt", asVtt(captions));
  else save(fileName("captions", "srt"), "application/x-subrip", asSrt(captions));
}
