// Calls of the server. Addresses are relative, so that the page works below a path of a proxy, too.
import { megabytes, session } from "./ui.js";

/**
 * What went wrong. `kind`: "aborted" by us, "gone" (no connection), "down" (the server ends, or its engine has), "cut"
 * (a stream without its end), "busy" (worth another try), "loading", "key", "refused" (the request is at fault) or
 * "failed" (the server is).
 */
export class Failure extends Error {
  constructor(kind, message, { code = "", retryAfter = 0 } = {}) {
    super(message);
    this.kind = kind;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** Fields of every question. */
export const asked = {};

const KINDS = { server_busy: "busy", queue_timeout: "busy", model_loading: "loading", server_closing: "down", engine_dead: "down" };

function failureOf(status, body, retryAfter = 0) {
  const error = typeof body?.error === "object" && body.error ? body.error : {};
  const code = error.code || "";
  const message = error.message || (typeof body?.error === "string" ? body.error : `The server answered with status ${status}.`);
  let kind = KINDS[code];
  if (!kind) {
    if (status === 401) kind = "key";
    else if (status === 429 || (status === 503 && retryAfter)) kind = "busy";
    else kind = status >= 500 || !status ? "failed" : "refused";
  }
  return new Failure(kind, message, { code, retryAfter });
}

function headers(more = {}) {
  const key = session.get("key");
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

/** Send a request; the response is one with status 200. */
export async function call(path, { body, signal, method = body === undefined ? "GET" : "POST" } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      body,
      signal,
      headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
      cache: "no-store",
      credentials: "same-origin",
    });
  } catch (error) {
    throw broken(error, signal, "gone");
  }
  if (response.ok) return response;
  let problem = null;
  try {
    problem = await response.json();
  } catch {} // a proxy's page, perhaps
  throw failureOf(response.status, problem, Number(response.headers.get("Retry-After")) || 0);
}

function broken(error, signal, kind) {
  if (error instanceof Failure) return error;
  if (signal?.aborted) return new Failure("aborted", "Stopped.");
  return kind === "gone"
    ? new Failure("gone", "The server cannot be reached.")
    : new Failure("cut", "The connection broke before the answer was complete.");
}

/** The events of a response: the JSON of each `data:`. Ends at `[DONE]`; a stream that ends without it is an error. */
export async function* events(response, signal) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      let part;
      try {
        part = await reader.read();
      } catch (error) {
        throw broken(error, signal, "cut");
      }
      if (part.done) throw broken(null, signal, "cut");
      rest += decoder.decode(part.value, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue; // a comment, or the end of an event
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        let value;
        try {
          value = JSON.parse(data);
        } catch {
          throw new Failure("cut", "The server sent something that is no answer.");
        }
        if (value.error) throw failureOf(0, value);
        yield value;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Ask, and follow the answer.
 * A request of more than `maxBytes` is not sent, as its upload would be cut off without a word.
 * `onText(text)` gets the text so far, `onProgress(share)` how much of the prompt is read, `onAdmitted()` comes when the
 * server has begun. Resolves to {text, finish, cost}.
 */
export async function ask(request, { signal, maxBytes = Infinity, onText = () => {}, onProgress = () => {}, onAdmitted = () => {} } = {}) {
  const body = JSON.stringify({ ...asked, ...request, stream: true, stream_options: { include_usage: true }, return_progress: true });
  if (body.length > maxBytes) {
    const [have, most] = [body.length, maxBytes].map(megabytes);
    throw new Failure("refused", `The files and texts of this question, with those before it, have ${have} as they are sent; the server takes at most ${most}. Start a new chat, or send fewer files.`);
  }
  const start = performance.now();
  const response = await call("v1/chat/completions", { body, signal });
  onAdmitted();
  let text = "";
  let finish = null;
  let usage = null;
  let timings = null;
  let model = null;
  let first = 0;
  for await (const chunk of events(response, signal)) {
    model ??= chunk.model;
    const choice = chunk.choices?.[0];
    if (chunk.prompt_progress) onProgress(share(chunk.prompt_progress));
    if (choice?.delta?.content) {
      first ||= performance.now();
      text += choice.delta.content;
      onText(text);
    }
    finish = choice?.finish_reason || finish;
    usage = chunk.usage || usage;
    timings = chunk.timings || timings;
  }
  return { text, finish, model, cost: costOf({ usage, timings, start, first: first || performance.now() }) };
}

const share = ({ processed = 0, total = 0, cache = 0 }) => (total > cache ? Math.min(1, (processed - cache) / (total - cache)) : 1);

function costOf({ usage, timings, start, first }) {
  const end = performance.now();
  const details = usage?.prompt_tokens_details || {};
  const out = usage?.completion_tokens ?? null;
  const rate = timings?.predicted_per_second || (out > 1 && end > first ? ((out - 1) * 1000) / (end - first) : null);
  return {
    prompt_tokens: usage?.prompt_tokens ?? null,
    completion_tokens: out,
    image_tokens: details.image_tokens ?? null,
    cached_tokens: details.cached_tokens ?? null,
    first_token_s: (first - start) / 1000,
    total_s: (end - start) / 1000,
    tokens_per_second: rate,
  };
}

export function keyGiven() {
  return Boolean(session.get("key"));
}
