// What people choose in Live: the question, how often it is asked, and of how many frames. Kept in this browser.
import { server } from "./server.js";
import { $, local } from "./ui.js";

const PROMPTS = { image: "What do you see?", video: "What happens in this video?", demo: "Which way does the shape move?" };
const FIELDS = ["interval", "window", "spacing", "detail", "tokens"];

/** Show what was chosen before, and keep what is chosen from now on. */
export function startChoices() {
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
  for (const name of [...FIELDS, "prompt"]) $(`live-${name}`).addEventListener("change", keep);
  $("live-window").addEventListener("change", showPrompt);
  server.addEventListener("config", () => {
    // Its tiles are so small that one of them shows a colour, but no place.
    if (server.config.is_demo && !local.get("live")) $("live-detail").value = "high";
    showPrompt();
  });
}

function keep() {
  local.set("live", JSON.stringify(Object.fromEntries([...FIELDS, "prompt"].map((name) => [name, $(`live-${name}`).value]))));
}

/** A question that was not changed follows the kind of what is asked about. */
function showPrompt() {
  const isVideo = numFrames() > 1;
  $("live-spacing-field").hidden = !isVideo;
  $("live-detail-field").hidden = isVideo; // a frame of a video is one tile in any case
  if (Object.values(PROMPTS).includes($("live-prompt").value.trim())) $("live-prompt").value = isVideo ? (server.config.is_demo ? PROMPTS.demo : PROMPTS.video) : PROMPTS.image;
}

export const numFrames = () => Number($("live-window").value);
export const interval_ms = () => Number($("live-interval").value) * 1000;
export const spacing_s = () => Number($("live-spacing").value);
export const question = () => $("live-prompt").value.trim() || PROMPTS.image;

/** The request about frames: one as an image, several as a video. */
export function requestOf(frames, text) {
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
  return request;
}
