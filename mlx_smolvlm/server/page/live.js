// The view Live: frames of a camera, the screen or a video file, described as they come. At most one request is in
// flight; when it has ended, the newest frame is next.
import { asFailure, pause } from "./answering.js";
import { ask } from "./api.js";
import { addCaption, addNotice, clockOf, startCaptions } from "./captions.js";
import { interval_ms, numFrames, question, requestOf, startChoices } from "./choices.js";
import { newest, sampleFrames, window_ } from "./frames.js";
import { attachment, sample } from "./media.js";
import { server } from "./server.js";
import { NoSource, Source } from "./source.js";
import { SOURCES, showControls, showFault, showMeters, showNow, showStage } from "./stage.js";
import { $, announce, button, el, setIcon } from "./ui.js";

const MAX_FAULTS = 3; // in a row

let run = null; // what is on, from the press of the button to the stop
let file = null;

export function startLive() {
  startCaptions();
  startChoices();
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

function showIdle() {
  if (run) return;
  const { icon, start: label, title, text } = SOURCES[kind()];
  const isFaulty = kind() !== "file" && !navigator.mediaDevices?.getUserMedia;
  $("live-start").querySelector("span").textContent = kind() === "file" && file ? "Play again" : label;
  setIcon($("live-start"), kind() === "file" && file ? "play" : icon);
  $("live-start").disabled = isFaulty;
  showControls(run);
  if (isFaulty) return showFault("insecure");
  const actions = kind() === "file" ? [button("Choose another", () => $("live-file").click(), { kind: "small" }), button("Try the sample", useSample, { kind: "small" })] : [];
  if (kind() === "file" && !file) actions.shift();
  showStage("idle", { iconName: icon, title, text, actions });
}

// On and off

async function start(device) {
  const chosen = kind();
  const hadFocus = $("live-start") === document.activeElement;
  end();
  const mine = { kind: chosen, controller: new AbortController(), isLive: false, isPaused: false, dropped: 0, times: [], latency_s: 0, first_s: 0, faults: 0 };
  mine.source = new Source(chosen, (reason) => run === mine && sourceEnded(reason));
  run = mine;
  showControls(run);
  if (hadFocus) $("live-stop").focus();
  const waits = { camera: ["Waiting for the camera", "Allow it, if the browser asks."], screen: ["Waiting for your choice", "Choose what to share in the browser's window."], file: ["Opening the video", ""] };
  showStage("idle", { iconName: SOURCES[chosen].icon, title: waits[chosen][0], text: waits[chosen][1] });
  try {
    await mine.source.open(chosen === "file" ? file : typeof device === "string" ? device : "");
  } catch (error) {
    mine.source.close();
    if (run !== mine) return;
    run = null;
    showControls(run);
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
  showControls(run);
  showMeters(run);
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
  showControls(run);
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

async function describe(mine, frames, signal) {
  const text = question();
  const last = frames.at(-1);
  const at = (frame) => frame.time_s ?? (frame.taken_ms - mine.began_ms) / 1000;
  mine.isAsking = true;
  try {
    const answer = await ask(requestOf(frames, text), { signal, onText: (soFar) => showNow(soFar, true) });
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
    showMeters(mine);
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
