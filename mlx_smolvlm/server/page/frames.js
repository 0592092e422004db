// Which frames are next: the newest one, or a window of the latest, evenly spaced.
import { pause } from "./answering.js";
import { numFrames, spacing_s } from "./choices.js";
import { showNow } from "./stage.js";

const FRESH_MS = 250; // how long a new frame is waited for

/** The frame of now, once there is one that was not sent before. */
export async function newest(mine, seen, signal) {
  const start = performance.now();
  while (mine.source.count === seen && performance.now() - start < FRESH_MS) await pause(5, signal);
  const frame = await mine.source.grab();
  if (!frame) await pause(50, signal);
  return frame && [frame];
}

/** The latest frames, once there are enough and the latest is new. */
export async function window_(mine, signal) {
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
export function sampleFrames(mine) {
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
