// What Chat and Compare share: one question to the server, tried again while it is busy, and how its answer is shown.
import { Failure, ask } from "./api.js";
import { render } from "./markdown.js";
import { askForKey, server } from "./server.js";
import { button, count, el, fault, seconds } from "./ui.js";

const MAX_TRIES = 8;

/**
 * As `ask`, but waits while the server is busy or loading. `onWait(text)` tells for what; "" when it is over.
 */
export async function askPatiently(request, { signal, onWait, ...follow }) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await ask(request, { signal, maxBytes: server.config.max_body_bytes, ...follow });
    } catch (error) {
      const isLoading = error.kind === "loading";
      if (!isLoading && (error.kind !== "busy" || tries >= MAX_TRIES)) throw error;
      const wait = Math.min(30, Math.max(1, error.retryAfter || 2));
      for (let left = Math.ceil(wait); left > 0; left -= 1) {
        onWait(isLoading ? "The model is being loaded. Your question is sent when it is ready." : `The server is busy. Trying again in ${left} s.`);
        await pause(1000, signal);
      }
      onWait("");
    }
  }
}

export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new Failure("aborted", "Stopped."));
    };
    if (signal?.aborted) return stop();
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Three dots and what is waited for. */
export function waiting(text) {
  const label = el("span", { text });
  const node = el("p", { class: "waiting" }, el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i")), label);
  node.say = (next) => (label.textContent = next);
  return node;
}

/** Draw an answer as it grows, at most once a frame. `note`, of `waiting`, stands in its place until it begins. */
export class Painter {
  #note;
  #node = el("div", { class: "answer streaming" });
  #text = "";
  #due = 0;

  constructor(note) {
    this.#note = note;
  }

  /** What the note says on the way to the answer, as callbacks of `askPatiently`. */
  notes(reading) {
    const { say } = this.#note;
    return {
      onWait: (wait) => say(wait || "Sending"),
      onAdmitted: () => say(reading),
      onProgress: (share) => say(share < 1 ? `${reading}, ${Math.round(share * 100)}%` : "Thinking"),
    };
  }

  show(text) {
    if (!this.#text) this.#note.replaceWith(this.#node);
    this.#text = text;
    this.#due ||= requestAnimationFrame(() => this.#draw());
  }

  /** The finished element; null if there was no text. */
  end() {
    if (!this.#text) return null;
    cancelAnimationFrame(this.#due);
    this.#draw();
    this.#node.classList.remove("streaming");
    return this.#node;
  }

  #draw() {
    this.#due = 0;
    render(this.#node, this.#text);
  }
}

/** What an answer cost, as a list of figures. */
export function costList(cost, media = []) {
  const images = media.filter((one) => one.kind === "image").length;
  const videos = media.length - images;
  const figures = [];
  const add = (term, value, hint) => figures.push(el("div", { title: hint }, el("dt", { text: term }), el("dd", { text: value })));
  add("to first token", seconds(cost.first_token_s), "From sending the question to the first token of the answer");
  if (cost.tokens_per_second) add("tokens/s", cost.tokens_per_second.toFixed(cost.tokens_per_second < 10 ? 1 : 0), "Tokens of the answer a second");
  if (cost.completion_tokens !== null) add("out", count(cost.completion_tokens, "token"), "Tokens of the answer");
  if (cost.prompt_tokens !== null) add("in", count(cost.prompt_tokens, "token"), "Tokens of all that the model was asked");
  if (images || videos) {
    const names = [images && count(images, "image"), videos && count(videos, "video")].filter(Boolean).join(", ");
    add(cost.image_tokens === null ? "" : `(${count(cost.image_tokens, "token")})`, names, "Images and videos of the whole chat, and their tokens");
  }
  if (cost.cached_tokens !== null) add("cached", cost.cached_tokens.toLocaleString("en"), "Tokens that did not have to be read again");
  return el("dl", { class: "cost" }, ...figures);
}

/** A failure as people read it: {text, mild, advice}. */
export function explain(failure) {
  const texts = {
    aborted: ["Stopped.", true],
    gone: ["The server cannot be reached. The question was not answered.", false],
    cut: ["The connection broke: this answer is not complete.", false],
    busy: ["The server is busy: all its places are taken. Try again in a while.", true],
    key: ["The server needs its API key.", true],
    reload: ["The page was left before this answer was complete.", true],
    length: ["The answer reached the limit of max tokens, which the settings can raise.", true],
  };
  const kind = failure.kind;
  if (failure.code === "context_length_exceeded") return { text: `${sentence(failure.message)} Start a new chat, or send fewer images.`, mild: false };
  if (texts[kind]) return { text: texts[kind][0], mild: texts[kind][1] };
  return { text: sentence(failure.message || "The answer failed."), mild: false };
}

function sentence(text) {
  const plain = text.replace(/^messages\[\d+\]\.content\[\d+\]: /, ""); // the place in a request that people did not write
  const start = plain.charAt(0).toUpperCase() + plain.slice(1);
  return /[.!?]$/.test(start) ? start : `${start}.`;
}

/** The box for a failure. `again` is called by its button. */
export function failureBox(failure, again) {
  const { text, mild } = explain(failure);
  const actions = [];
  if (failure.kind === "key") actions.push(button("Enter the key", askForKey));
  if (again && failure.kind !== "length") actions.push(button("Try again", again));
  return fault(text, { mild, actions });
}

export function asFailure(error) {
  const failure = error instanceof Failure ? error : new Failure("failed", error.message || "The page failed.");
  server.report(failure);
  return failure;
}
