// What the server is doing: loading, ready, gone. Shown at the top of the page; views ask `server.state`.
import { Failure, asked, call, keyGiven } from "./api.js";
import { $, announce, local, session } from "./ui.js";

const OFTEN_MS = 1000;
const SELDOM_MS = 15000;
const TEXTS = {
  loading: ["Loading the model", "The model is being loaded. The first time, it is also downloaded, which can take minutes.", ""],
  closing: ["Shutting down", "The server is shutting down.", ""],
  dead: ["Engine ended", "The engine of the server has ended. Restart the server; its log says why.", "error"],
  gone: ["Not reachable", "The server cannot be reached. Is it still running? Trying again by itself.", "error"],
  offline: ["Offline", "This device is offline. The page goes on when the connection is back.", "error"],
};

class Server extends EventTarget {
  state = "checking";
  models = [];
  model = null;
  config = { is_demo: false };
  #timer = 0;
  #failures = 0;

  start() {
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.check());
    addEventListener("online", () => this.check());
    addEventListener("offline", () => this.check());
    call("page/config.json").then((response) => response.json()).then((config) => {
      this.config = config;
      this.dispatchEvent(new Event("config"));
    }, () => {});
    return this.check();
  }

  get isReady() {
    return this.state === "ok";
  }

  /** Look whether the server is there, now and again. */
  async check() {
    clearTimeout(this.#timer);
    let state;
    try {
      const response = await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(8000) });
      state = (await response.json().catch(() => ({}))).status || (response.ok ? "ok" : "gone");
    } catch {
      state = navigator.onLine || isHere() ? "gone" : "offline";
    }
    this.#failures = state === "gone" ? this.#failures + 1 : 0;
    this.#set(state);
    const often = Math.min(OFTEN_MS * 2 ** Math.max(0, this.#failures - 4), 10000);
    this.#timer = setTimeout(() => this.check(), state === "ok" || document.visibilityState === "hidden" ? SELDOM_MS : often);
    return state;
  }

  /** A request found that the server is gone, or that a key is needed. */
  report(failure) {
    if (["gone", "cut", "down"].includes(failure.kind)) this.check();
    if (failure.kind === "key") askForKey();
  }

  async loadModel() {
    try {
      this.models = (await (await call("v1/models")).json()).data;
      this.choose(local.get("model"));
    } catch (error) {
      if (error instanceof Failure) this.report(error);
    }
  }

  /** Ask this model from now on, or the first one. */
  choose(id) {
    local.set("model", id);
    this.model = this.models.find((model) => model.id === id) || this.models[0];
    asked.model = this.models[1] && this.model.id;
    this.#show();
    this.dispatchEvent(new Event("model"));
  }

  #set(state) {
    const before = this.state;
    this.state = state;
    if (state !== before) {
      this.#show();
      if (state in TEXTS) announce(TEXTS[state][1]);
      else if (before !== "checking") announce("The server is ready.");
      this.dispatchEvent(new Event("state"));
      if (state === "ok") this.loadModel();
    }
  }

  #show() {
    const badge = $("server");
    badge.dataset.state = this.state;
    const name = this.model?.id || "Ready";
    const text = this.state === "ok" ? name.split("/").pop() : TEXTS[this.state]?.[0] || "Connecting";
    $("server-text").textContent = text;
    badge.title = this.state === "ok" && this.model ? `${name}, context of ${this.model.max_model_len} tokens` : text;
    const banner = $("banner");
    const [, message, kind] = TEXTS[this.state] || [];
    banner.hidden = !message;
    banner.dataset.kind = kind || "wait";
    banner.querySelector("p").textContent = message || "";
  }
}

/** Whether the page comes from this very device, which no network is needed for. */
const isHere = () => ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) || location.hostname.endsWith(".localhost");

export function askForKey() {
  const dialog = $("key");
  if (dialog.open) return;
  $("key-text").textContent = keyGiven() ? "The server did not accept this key." : "This server answers only with its API key.";
  $("key-value").value = "";
  dialog.returnValue = "";
  dialog.showModal();
}

$("key-cancel").addEventListener("click", () => $("key").close());
$("key").addEventListener("close", () => {
  const value = $("key-value").value.trim();
  $("key-value").value = "";
  if ($("key").returnValue !== "save" || !value) return;
  session.set("key", value);
  server.loadModel().then(() => server.model && announce("The key is accepted."));
});

export const server = new Server();
