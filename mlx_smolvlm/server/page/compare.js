// The view Compare: two images side by side, and one question about both.
import { Painter, asFailure, askPatiently, costList, failureBox, waiting } from "./answering.js";
import { attachment, filesOf, partOf, preview, release, sample } from "./media.js";
import { answerFields, settings } from "./settings.js";
import { $, announce, autosize, copyText, el, icon, iconButton, toast } from "./ui.js";

const NAMES = ["First image", "Second image"];
let images = [null, null];
let running = null;
let answered = null; // what Chat may go on with

export function startCompare(goOnInChat) {
  for (const index of [0, 1]) {
    const slot = $(`slot-${index}`);
    slot.addEventListener("dragover", () => slot.classList.add("over"));
    slot.addEventListener("dragleave", () => slot.classList.remove("over"));
    slot.addEventListener("drop", (event) => {
      slot.classList.remove("over");
      const files = filesOf(event.dataTransfer);
      if (!files.length) return;
      event.preventDefault();
      event.stopPropagation();
      document.dispatchEvent(new Event("dropended"));
      put(files, index);
    });
  }
  $("swap").addEventListener("click", () => {
    images.reverse();
    show();
    announce("The images are swapped.");
  });
  $("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  $("compare-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      compare();
    }
  });
  $("compare-text").addEventListener("input", showControls);
  $("compare-stop").addEventListener("click", () => running?.abort());
  $("compare-sample").addEventListener("click", useSamples);
  $("compare-clear").addEventListener("click", clear);
  $("compare-chat").addEventListener("click", () => answered && goOnInChat(answered));
  document.addEventListener("keydown", (event) => event.key === "Escape" && !document.querySelector("dialog[open]") && running?.abort());
  autosize($("compare-text"));
  show();
}

/** Put files into the slots, from `first` on, or into those that are empty. */
export function put(files, first = images[0] ? 1 : 0) {
  const added = [...files].map(attachment).filter(Boolean);
  const pictures = added.filter((media) => media.kind === "image");
  if (pictures.length < added.length) toast("Compare takes images. Ask about videos in Chat.");
  if (pictures.length > 2) toast("Compare takes two images; the first two are shown.");
  pictures.slice(0, 2).forEach((media, number) => {
    const place = pictures.length > 1 ? number : first;
    if (images[place]) release(images[place]);
    images[place] = media;
  });
  if (!pictures.length) return;
  show();
  announce(`${pictures.map((media) => media.name).join(", ")} added`);
}

function show() {
  images.forEach((media, index) => $(`slot-${index}`).replaceChildren(...(media ? filled(media, index) : [empty(index)])));
  showControls();
}

function empty(index) {
  const input = el("input", { type: "file", accept: "image/*,.heic,.heif", multiple: true, hidden: true, tabindex: "-1", "aria-label": NAMES[index] });
  input.addEventListener("change", () => put(input.files, index));
  const node = el("button", { type: "button", class: "empty", "aria-label": `${NAMES[index]}: choose a file` }, icon("image", "big"), el("b", { text: NAMES[index] }), el("small", { text: "Choose, drop or paste" }), input);
  node.addEventListener("click", (event) => event.target === input || input.click());
  return node;
}

function filled(media, index) {
  const remove = iconButton("close", `Remove the ${NAMES[index].toLowerCase()}`, () => {
    release(media);
    images[index] = null;
    show();
    $(`slot-${index}`).querySelector("button").focus();
  });
  remove.classList.add("remove");
  return [el("figure", { title: media.name }, preview(media)), el("span", { class: "label", text: NAMES[index].split(" ")[0] }), remove];
}

function showControls() {
  const isReady = images.every(Boolean) && $("compare-text").value.trim();
  const hadFocus = [$("compare-send"), $("compare-stop")].includes(document.activeElement);
  $("compare-send").disabled = !isReady;
  $("compare-send").hidden = Boolean(running);
  $("compare-stop").hidden = !running;
  $("swap").disabled = !images.some(Boolean) || Boolean(running);
  $("compare-clear").hidden = !images.some(Boolean) && !answered;
  $("compare-sample").hidden = images.some(Boolean);
  $("compare-chat").hidden = !answered || Boolean(running);
  if (hadFocus) (running ? $("compare-stop") : isReady ? $("compare-send") : $("compare-text")).focus();
}

function clear() {
  running?.abort();
  for (const media of images) if (media) release(media);
  images = [null, null];
  answered = null;
  $("compare-answer").replaceChildren();
  show();
  $("slot-0").querySelector("button").focus();
}

async function useSamples() {
  try {
    images = await Promise.all(["first.png", "second.png"].map(sample));
    $("compare-text").value = "What is different between the two pictures?";
    show();
    await compare();
  } catch (error) {
    $("compare-answer").replaceChildren(failureBox(asFailure(error), useSamples));
  }
}

async function compare() {
  const text = $("compare-text").value.trim();
  if (running || !text || !images.every(Boolean)) return;
  const mine = new AbortController();
  const media = [...images];
  running = mine;
  answered = null;
  const box = $("compare-answer");
  const note = waiting("Sending");
  const painter = new Painter(note);
  box.setAttribute("aria-busy", "true");
  box.replaceChildren(note);
  showControls();
  const end = (...more) => {
    box.replaceChildren(...[painter.end(), ...more].filter(Boolean));
    box.removeAttribute("aria-busy");
    if (running === mine) running = null;
    showControls();
  };
  try {
    const system = settings.system ? [{ role: "system", content: settings.system }] : [];
    const content = [...(await Promise.all(media.map(partOf))), { type: "text", text }];
    const result = await askPatiently(
      { messages: [...system, { role: "user", content }], ...answerFields() },
      { signal: mine.signal, ...painter.notes("Looking at both"), onText: (text) => painter.show(text) },
    );
    answered = { text, media, answer: result.text, cost: result.cost, finish: result.finish };
    const copy = iconButton("copy", "Copy the answer", () => copyText(result.text, copy));
    const foot = el("div", { class: "message-foot" }, el("div", { class: "actions" }, copy), costList(result.cost, media));
    end(...(result.finish === "length" ? [failureBox({ kind: "length" })] : []), ...(result.text ? [] : [el("p", { class: "note", text: "The model said nothing." })]), foot);
  } catch (error) {
    if (images.every((one) => one === null)) return end(); // cleared meanwhile
    end(failureBox(asFailure(error), compare));
  }
}
