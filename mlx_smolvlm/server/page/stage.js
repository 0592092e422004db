// What the stage of Live shows: what is on, what is seen, and what keeps it from beginning.
import { $, announce, el, seconds, setIcon } from "./ui.js";

const RATE_MS = 10000; // over which frames a second are counted

export const SOURCES = {
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

export function showStage(state, { iconName, title = "", text = "", actions = [] } = {}) {
  $("stage").dataset.state = state;
  const message = $("stage-message");
  message.hidden = !title;
  if (iconName) setIcon(message, iconName);
  message.querySelector("h2").textContent = title;
  message.querySelector("p").textContent = text;
  message.querySelector(".stage-actions").replaceChildren(...actions);
}

export function showFault(name, reason = "") {
  const [title, text, extra] = FAULTS[name] || FAULTS.failed;
  showStage("fault", { iconName: "alert", title, text: text(reason || "The browser did not say why."), actions: extra ? [extra()] : [] });
  announce(`${title}. ${text(reason)}`);
}

/** `run`: what is on, or null. */
export function showControls(run) {
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

export function showNow(text, isStreaming) {
  $("now").hidden = !text;
  $("now").textContent = text;
  $("now").classList.toggle("streaming", isStreaming);
}

export function showMeters({ latency_s, first_s, times, dropped }) {
  const now = performance.now();
  while (times.length && now - times[0].at > RATE_MS) times.shift();
  const span = times.length > 1 ? (times.at(-1).at - times[0].at) / 1000 : 0;
  const frames = times.slice(1).reduce((sum, one) => sum + one.frames, 0);
  $("m-latency").textContent = latency_s ? seconds(latency_s) : "–";
  $("m-first").textContent = first_s ? seconds(first_s) : "–";
  $("m-fps").textContent = span ? (frames / span).toFixed(1) : "–";
  $("m-dropped").textContent = dropped.toLocaleString("en");
}
