// The view Live: frames of a camera, the screen or a video file, described as they come. At most one request is in
// flight; when it has ended, the newest frame is next.
import { asFailure, pause } from "./answering.js";
import { ask } from "./api.js";
import { addCaption, addNotice, clockOf, startCaptions } from "./captions.js";
import { attachment, sample } from "./media.js";
import { server } from "./server.js";
import { NoSource, Source } from "./source.js";
import { $, announce, button, el, local, seconds, setIcon } from "./ui.js";

const FRESH_MS = 250; // how long a new frame is waited for
const RATE_MS = 10000; // over which frames a second are counted
const MAX_FAULTS = 3; // in a row

const SOURCES = {
  camera: { icon: "camera", start: "Start camera", on: "Camera on", title: "The camera is off", text: "It starts when you press the button. Frames go to this server only, and are not stored." },
  screen: { icon: "screen", start: "Share screen", on: "Screen shared", title: "No screen is shared", text: "You choose a window, a tab or a screen. Frames go to this server only, and are not stored." },
  file: { icon: "film", start: "Choose a video", on: "Playing", title: "No video is playing", text: "Choose or drop a video file. It is played here, and single frames are sent: its size does not matter." },
};
const FAULTS = {
  insecure: ["The camera needs a secure address", () => `Browsers give cameras and screens only to pages from https or from this very machine. This page came from ${location.origin}.\nOpen it through a tunnel, or put a proxy with TLS before the server. Chat, Compare and video files work here all the same.`, () => el("code", { text: `ssh -L ${location.port || 8080}:localhost:${location.port || 80} ${location.hostname}` })],
  refused: ["The camera was refused", () => "The browser does not let this page use the camera. Allow it with the button beside the address, then start again. On a Mac, the browser needs it in the privacy settings of the system, too."],
  "screen-refused": ["No screen was chosen", () => "Nothing is shared. Start again to choose a window, a tab or a screen."],
  none: ["There is no camera", () => "This device has no camera that the browser can see. Plug one in, or describe the screen or a video file."],
  taken: ["The camera is in use", () => "Another program uses the camera, or it does not answer. Close that program, then start again."],
  "no-screen": ["This browser cannot share the screen", () => "Browsers on phones have no way to do so. Use the camera or a video file."],
  dark: ["The camera sends no picture", () => "It is open, but no frame has come. Is it covered, or used by another program?"],
  unreadable: ["The video cannot be played", () => "The browser cannot read this file. In Chat, the server reads it with FFmpeg, which knows more kinds."],
  failed: ["It could not be started", (reason) => reason],
};
const PROMPTS = { image: "What do you see?", video: "What happens in this video?", demo: "Which way does the shape move?" };
const FIELDS = ["interval", "window", "spacing", "detail", "tokens"];

let run = null; // what is on, from the press of the button to the stop
let file = null;

export function startLive() {
  startCaptions();
  readSettings();
  for (const radio of $("live-source").querySelectorAll("input")) radio.addEventListener("change", showIdle);
  $("live-start").addEventListener("click", () => (kind() === "file" && !file ? $("live-file").click() : start()));
  $("live-stop").addEventListener("click", () => stop());
  $("live-pause").addEventListener("click", togglePause);
  $("live-file").addEventListener("change", () => {
    const [chosen] = $("live-file").files;
    $("live-file").value = "";
    if (chosen) playFile(chosen);
  });
  $("live-device").addEventListener("change", () => run && start($("live-device").value));
  for (const name of [...FIELDS, "prompt"]) $(`live-${name}`).addEventListener("change", keepSettings);
  $("live-window").addEventListener("change", showPrompt);
  server.addEventListener("config", () => {
    // Its tiles are so small that one of them shows a colour, but no place.
    if (server.config.is_demo && !local.get("live")) $("live-detail").value = "high";
    showPrompt();
  });
  document.addEventListener("visibilitychange", () => {
    // Who shares the screen looks elsewhere; the browser shows all the time that it is shared.
    if (document.visibilityState === "hidden" && run && run.kind !== "screen") stop(run.kind === "camera" ? "The camera was turned off, as the page was hidden." : "The video was stopped, as the page was hidden.");
  });
  addEventListener("pagehide", () => stop());
  showIdle();
}

/** The view is left. */
export const leaveLive = () => stop();

const kind = () => $("live-source").querySelector(":checked").value;

// Settings

function readSettings() {
  let kept = {};
  try {
    kept = JSON.parse(local.get("live")) || {};
  } catch {} // not ours
  for (const name of FIELDS) {
    const select = $(`live-${name}`);
    if ([...select.options].some((option) => option.value === kept[name])) select.value = kept[name];
  }
  $("live-prompt").value = typeof kept.prompt === "string" && kept.prompt ? kept.prompt : PROMPTS.image;
  showPrompt();
}

function keepSettings() {
  local.set("live", JSON.stringify(Object.fromEntries([...FIELDS, "prompt"].map((name) => [name, $(`live-${name}`).value]))));
}

/** A question that was not changed follows the kind of what is asked about. */
function showPrompt() {
  const isVideo = numFrames() > 1;
  $("live-spacing-field").hidden = !isVideo;
  $("live-detail-field").hidden = isVideo; // a frame of a video is one tile in any case
  if (Object.values(PROMPTS).includes($("live-prompt").value.trim())) $("live-prompt").value = isVideo ? (server.config.is_demo ? PROMPTS.demo : PROMPTS.video) : PROMPTS.image;
}

const numFrames = () => Number($("live-window").value);
const interval_ms = () => Number($("live-interval").value) * 1000;
const spacing_s = () => Number($("live-spacing").value);

// What the stage shows

function showStage(state, { iconName, title = "", text = "", actions = [] } = {}) {
  $("stage").dataset.state = state;
  const message = $("stage-message");
  message.hidden = !title;
  if (iconName) setIcon(message, iconName);
  message.querySelector("h2").textContent = title;
  message.querySelector("p").textContent = text;
  message.querySelector(".stage-actions").replaceChildren(...actions);
}

function showIdle() {
  if (run) return;
  const { icon, start: label, title, text } = SOURCES[kind()];
  const isFaulty = kind() !== "file" && !navigator.mediaDevices?.getUserMedia;
  $("live-start").querySelector("span").textContent = kind() === "file" && file ? "Play again" : label;
  setIcon($("live-start"), kind() === "file" && file ? "play" : icon);
  $("live-start").disabled = isFaulty;
  showControls();
  if (isFaulty) return showFault("insecure");
  const actions = kind() === "file" ? [button("Choose another", () => $("live-file").click(), { kind: "small" }), button("Try the sample", useSample, { kind: "small" })] : [];
  if (kind() === "file" && !file) actions.shift();
  showStage("idle", { iconName: icon, title, text, actions });
}

function showFault(name, reason = "") {
  const [title, text, extra] = FAULTS[name] || FAULTS.failed;
  showStage("fault", { iconName: "alert", title, text: text(reason || "The browser did not say why."), actions: extra ? [extra()] : [] });
  announce(`${title}. ${text(reason)}`);
}

function showControls() {
  const isOn = Boolean(run);
  $("live-start").hidden = isOn;
  $("live-stop").hidden = !isOn;
  $("live-pause").hidden = !isOn || !run.isLive;
  for (const radio of $("live-source").querySelectorAll("input")) radio.disabled = isOn;
  $("lamp").hidden = !isOn || !run.isLive;
  if (isOn) {
    $("lamp").classList.toggle("paused", run.isPaused);
    $("lamp").querySelector("span").textContent = run.isPaused ? `${SOURCES[run.kind].on}, paused` : SOURCES[run.kind].on;
    $("live-pause").setAttribute("aria-pressed", run.isPaused);
    $("live-pause").querySelector("span").textContent = run.isPaused ? "Resume" : "Pause";
    setIcon($("live-pause"), run.isPaused ? "play" : "pause");
  } else {
    $("live-device").hidden = true;
    $("now").hidden = true;
  }
}

function showNow(text, isStreaming) {
  $("now").hidden = !text;
  $("now").textContent = text;
  $("now").classList.toggle("streaming", isStreaming);
}

function showMeters() {
  const { latency_s, first_s, times, dropped } = run;
  const now = performance.now();
  while (times.length && now - times[0].at > RATE_MS) times.shift();
  const span = times.length > 1 ? (times.at(-1).at - times[0].at) / 1000 : 0;
  const frames = times.slice(1).reduce((sum, one) => sum + one.frames, 0);
  $("m-latency").textContent = latency_s ? seconds(latency_s) : "–";
  $("m-first").textContent = first_s ? seconds(first_s) : "–";
  $("m-fps").textContent = span ? (frames / span).toFixed(1) : "–";
  $("m-dropped").textContent = dropped.toLocaleString("en");
}

// On and off

async function start(device) {
  const chosen = kind();
  const hadFocus = $("live-start") === document.activeElement;
  end();
  const mine = { kind: chosen, controller: new AbortController(), isLive: false, isPaused: false, dropped: 0, times: [], latency_s: 0, first_s: 0, faults: 0 };
  mine.source = new Source(chosen, (reason) => run === mine && sourceEnded(reason));
  run = mine;
  showControls();
  if (hadFocus) $("live-stop").focus();
  const waits = { camera: ["Waiting for the camera", "Allow it, if the browser asks."], screen: ["Waiting for your choice", "Choose what to share in the browser's window."], file: ["Opening the video", ""] };
  showStage("idle", { iconName: SOURCES[chosen].icon, title: waits[chosen][0], text: waits[chosen][1] });
  try {
    await mine.source.open(chosen === "file" ? file : typeof device === "string" ? device : "");
  } catch (error) {
    mine.source.close();
    if (run !== mine) return;
    run = null;
    showControls();
    if (error instanceof NoSource && error.kind === "unreadable") file = null;
    showIdle();
    showFault(error instanceof NoSource ? error.kind : "failed", error.message);
    $("live-start").focus();
    return;
  }
  if (run !== mine || !mine.source.isOpen) return mine.source.close(); // stopped meanwhile
  mine.isLive = true;
  mine.began_ms = performance.now();
  showStage("on");
  showControls();
  showMeters();
  announce(`${SOURCES[chosen].on}.`);
  if (chosen === "camera") showCameras(mine);
  follow(mine).catch((error) => run === mine && stop(error.message));
}

async function showCameras(mine) {
  const cameras = await mine.source.cameras().catch(() => []);
  if (run !== mine) return;
  $("live-device").hidden = cameras.length < 2;
  $("live-device").replaceChildren(...cameras.map((camera, index) => el("option", { value: camera.deviceId, text: camera.label || `Camera ${index + 1}` })));
  $("live-device").value = mine.source.deviceId;
}

/** End what is on, without a word. */
function end() {
  if (!run) return false;
  run.controller.abort();
  run.source.close();
  clearInterval(run.sampling);
  run = null;
  return true;
}

function stop(reason = "") {
  const hadFocus = [$("live-stop"), $("live-pause")].includes(document.activeElement);
  const was = run;
  if (!end()) return;
  showIdle();
  if (hadFocus) $("live-start").focus();
  if (reason) addNotice(reason);
  announce(reason || `${{ camera: "Camera off", screen: "Sharing ended", file: "Video stopped" }[was.kind]}.`);
}

function sourceEnded(reason) {
  const mine = run;
  if (reason === "unreadable") {
    file = null;
    stop();
    showIdle();
    showFault("unreadable");
  } else if (reason === "played") {
    mine.isPlayed = true; // the last frame is still described
    if (!mine.isAsking) stop();
  } else {
    stop(mine.kind === "screen" ? "Sharing was ended." : "The camera was disconnected.");
  }
}

function togglePause() {
  if (!run?.isLive) return;
  run.isPaused = !run.isPaused;
  run.source.pause(run.isPaused);
  showControls();
  announce(run.isPaused ? "Paused" : "Resumed");
}

/** Play a video file, and describe it. */
export function playFile(chosen) {
  const media = attachmentOf(chosen);
  if (!media) return;
  stop();
  file = media;
  $("live-source").querySelector('[value="file"]').checked = true;
  showIdle();
  start();
}

function attachmentOf(chosen) {
  const limit = server.config.max_video_bytes;
  server.config.max_video_bytes = 0; // the file itself is not sent
  const media = attachment(chosen);
  server.config.max_video_bytes = limit;
  return media && media.kind === "video" ? media.blob : null;
}

async function useSample() {
  try {
    playFile((await sample("clip.mp4")).blob);
  } catch (error) {
    asFailure(error);
    showFault("failed", error.message);
  }
}

// The loop

async function follow(mine) {
  const { signal } = mine.controller;
  mine.ring = [];
  sampleFrames(mine);
  let taken_ms = -Infinity;
  let seen = mine.source.count;
  while (!signal.aborted) {
    if (mine.isPlayed) return stop();
    const due_ms = Math.max(0, taken_ms + interval_ms() - performance.now());
    if (due_ms > 0) await pause(Math.min(due_ms, 100), signal);
    if (mine.isPaused) {
      await pause(50, signal);
      taken_ms = -Infinity;
      seen = mine.source.count;
      continue;
    }
    if (due_ms > 100) continue; // the interval may be changed meanwhile
    const frames = numFrames() > 1 ? await window_(mine, signal) : await newest(mine, seen, signal);
    if (!frames || signal.aborted) continue;
    if (numFrames() === 1) {
      // Those that were due while the last one was described.
      const passed = interval_ms() ? Math.floor((performance.now() - taken_ms) / interval_ms()) : mine.source.count - seen;
      if (Number.isFinite(passed)) mine.dropped += Math.max(0, passed - 1);
    }
    seen = mine.source.count;
    taken_ms = frames.at(-1).taken_ms;
    await describe(mine, frames, signal);
  }
}

/** The frame of now, once there is one that was not sent before. */
async function newest(mine, seen, signal) {
  const start = performance.now();
  while (mine.source.count === seen && performance.now() - start < FRESH_MS) await pause(5, signal);
  const frame = await mine.source.grab();
  if (!frame) await pause(50, signal);
  return frame && [frame];
}

/** The latest frames, once there are enough and the latest is new. */
async function window_(mine, signal) {
  const { ring } = mine;
  const wanted = numFrames();
  if (ring.length < wanted || ring.at(-1).isSent) {
    if (ring.length < wanted) showNow(`Collecting frames: ${ring.length} of ${wanted}`, false);
    await pause(30, signal);
    return mine.isPlayed && ring.length > 1 && !ring.at(-1).isSent ? ring.slice() : null;
  }
  const frames = ring.slice(-wanted);
  for (const frame of frames) frame.isSent = true;
  return frames;
}

/** Take frames at even distances, and keep the latest. */
function sampleFrames(mine) {
  let spacing = 0;
  let next_ms = 0;
  mine.sampling = setInterval(async () => {
    if (numFrames() === 1 || mine.isPaused || mine.isGrabbing) return;
    if (spacing !== spacing_s()) {
      spacing = spacing_s();
      mine.ring.length = 0; // frames of one window are evenly spaced
      next_ms = 0;
    }
    if (performance.now() < next_ms) return;
    next_ms = Math.max(next_ms + spacing * 1000, performance.now() + spacing * 500);
    mine.isGrabbing = true;
    const frame = await mine.source.grab().catch(() => null);
    mine.isGrabbing = false;
    if (frame) mine.ring.push(frame);
    while (mine.ring.length > numFrames()) if (!mine.ring.shift().isSent) mine.dropped += 1;
  }, 25);
}

async function describe(mine, frames, signal) {
  const text = $("live-prompt").value.trim() || PROMPTS.image;
  const request = { temperature: 0, max_completion_tokens: Number($("live-tokens").value) };
  let part;
  if (frames.length === 1) {
    part = { type: "image_url", image_url: { url: frames[0].url, detail: $("live-detail").value } };
  } else {
    const pictures = frames.map((frame) => frame.url.slice(frame.url.indexOf(",") + 1)).join(",");
    part = { type: "video_url", video_url: { url: `data:video/jpeg;base64,${pictures}` } };
    request.media_io_kwargs = { video: { fps: 1 / spacing_s() } };
  }
  request.messages = [{ role: "user", content: [part, { type: "text", text }] }];
  const last = frames.at(-1);
  const at = (frame) => frame.time_s ?? (frame.taken_ms - mine.began_ms) / 1000;
  mine.isAsking = true;
  try {
    const answer = await ask(request, { signal, onText: (soFar) => showNow(soFar, true) });
    if (signal.aborted) return;
    const now = performance.now();
    mine.latency_s = (now - last.taken_ms) / 1000;
    mine.first_s = answer.cost.first_token_s;
    mine.times.push({ at: now, frames: frames.length });
    mine.faults = 0;
    showNow(answer.text.trim(), false);
    addCaption({
      start_s: at(frames[0]),
      end_s: Math.max(at(last), mine.kind === "file" ? mine.source.time_s : (now - mine.began_ms) / 1000),
      clock: new Date(last.clock).toISOString(),
      text: answer.text.trim(),
      latency_s: mine.latency_s,
      first_token_s: mine.first_s,
      frames: frames.length,
      tokens: answer.cost.completion_tokens,
      finish_reason: answer.finish,
      source: mine.kind,
      question: text,
    });
    showMeters();
  } catch (error) {
    if (!signal.aborted) await afterFault(mine, asFailure(error), signal);
  } finally {
    mine.isAsking = false;
  }
}

/** What follows a request that failed: wait, or stop. */
async function afterFault(mine, failure, signal) {
  const kinds = { busy: "The server is busy. The newest frame is sent when there is a place.", loading: "The model is being loaded. It goes on when it is ready.", gone: "The server cannot be reached. It goes on when it is back." };
  if (failure.kind === "key") return stop("The server needs its API key. Enter it, then start again.");
  kinds.down = kinds.gone;
  if (failure.kind in kinds) {
    showNow(kinds[failure.kind], false);
    if (mine.told !== failure.kind) announce(kinds[failure.kind]);
    mine.told = failure.kind;
    if (failure.kind === "busy") return pause(1000 * Math.min(10, Math.max(1, failure.retryAfter)), signal);
    await pause(500, signal);
    while (!server.isReady) await pause(200, signal);
    return undefined;
  }
  mine.faults += 1;
  const text = failure.kind === "cut" ? `The connection broke during the answer at ${clockOf((performance.now() - mine.began_ms) / 1000)}.` : failure.message;
  if (failure.kind === "refused" || mine.faults >= MAX_FAULTS) {
    stop();
    return addNotice(text, false);
  }
  addNotice(text, false);
  return pause(1000 * mine.faults, signal);
}
