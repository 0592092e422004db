// Where Live gets its frames: a camera, the screen, or a video file that is played in the page.
import { dataUrl } from "./media.js";
import { $ } from "./ui.js";

const LONGEST_PX = 512;
const QUALITY = 0.85;
const FIRST_FRAME_MS = 15000;
const canvas = document.createElement("canvas");

/** Why there are no frames. `kind` names a text of the view. */
export class NoSource extends Error {
  constructor(kind, message = "") {
    super(message || kind);
    this.kind = kind;
  }
}

const KINDS = { NotAllowedError: "refused", SecurityError: "refused", NotFoundError: "none", OverconstrainedError: "none", DevicesNotFoundError: "none", NotReadableError: "taken", AbortError: "taken" };

export class Source {
  #video = $("live-video");
  #stream = null;
  #address = null;
  #count = 0;
  #counting = 0;

  constructor(kind, onEnd) {
    this.kind = kind;
    this.onEnd = onEnd;
    this.isOpen = false;
  }

  /** Begin. `what`: a device's id or a `File`. Raises NoSource. */
  async open(what) {
    try {
      if (this.kind === "file") this.#openFile(what);
      else this.#stream = await this.#ask(what);
    } catch (error) {
      if (error instanceof NoSource) throw error;
      throw new NoSource(this.kind === "screen" && error.name === "NotAllowedError" ? "screen-refused" : KINDS[error.name] || "failed", error.message);
    }
    this.isOpen = true;
    if (this.#stream) {
      this.#stream.getVideoTracks()[0].addEventListener("ended", () => this.isOpen && this.onEnd("ended"));
      this.#video.srcObject = this.#stream;
    }
    this.#video.onended = () => this.onEnd("played");
    this.#video.onerror = () => this.isOpen && this.onEnd("unreadable");
    try {
      await this.#video.play();
    } catch (error) {
      if (this.isOpen) throw new NoSource(this.kind === "file" ? "unreadable" : "failed", error.message);
    }
    await this.#firstFrame();
    this.#countFrames();
  }

  async #ask(device) {
    const devices = navigator.mediaDevices;
    if (!devices?.getUserMedia) throw new NoSource("insecure");
    if (this.kind === "screen") {
      if (!devices.getDisplayMedia) throw new NoSource("no-screen");
      return devices.getDisplayMedia({ video: { frameRate: { max: 15 } }, audio: false });
    }
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
    return devices.getUserMedia({ audio: false, video: device ? { ...size, deviceId: { exact: device } } : { ...size, facingMode: "environment" } });
  }

  #openFile(file) {
    this.#address = URL.createObjectURL(file);
    this.#video.src = this.#address;
    this.#video.loop = false;
  }

  /** Wait for a picture; at time 0, cameras show black. */
  #firstFrame() {
    const start = performance.now();
    return new Promise((resolve, reject) => {
      const look = () => {
        if (!this.isOpen) return resolve();
        if (this.#video.videoWidth && this.#video.readyState >= 2 && this.#video.currentTime > 0) return resolve();
        if (performance.now() - start > FIRST_FRAME_MS) return reject(new NoSource("dark"));
        setTimeout(look, 20);
      };
      look();
    });
  }

  #countFrames() {
    if (!this.#video.requestVideoFrameCallback) return;
    const next = () => {
      this.#counting = this.#video.requestVideoFrameCallback((_, frame) => {
        this.#count = frame.presentedFrames;
        next();
      });
    };
    next();
  }

  /** Frames so far, as far as the browser tells; 0 otherwise. */
  get count() {
    return this.#count;
  }

  /** Seconds into a video file; null for what is live. */
  get time_s() {
    return this.kind === "file" ? this.#video.currentTime : null;
  }

  /** The picture of now as {url, time_s, taken_ms, clock}, its longest side at most 512 pixels; null while there is none. */
  async grab() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width || this.#video.readyState < 2) return null;
    const scale = Math.min(1, LONGEST_PX / Math.max(width, height));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = canvas.getContext("2d", { alpha: false });
    context.imageSmoothingQuality = "high";
    const frame = { time_s: this.time_s, taken_ms: performance.now(), clock: Date.now() };
    context.drawImage(this.#video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    return blob && { ...frame, url: await dataUrl(blob) };
  }

  pause(isPaused) {
    if (this.kind !== "file") return;
    if (isPaused) this.#video.pause();
    else this.#video.play().catch(() => {});
  }

  /** Name and id of each camera; empty before the first permission. */
  async cameras() {
    if (!navigator.mediaDevices?.enumerateDevices) return [];
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput" && device.deviceId);
  }

  get deviceId() {
    return this.#stream?.getVideoTracks()[0]?.getSettings().deviceId || "";
  }

  close() {
    this.isOpen = false;
    if (this.#counting) this.#video.cancelVideoFrameCallback(this.#counting);
    for (const track of this.#stream?.getTracks() || []) track.stop();
    this.#video.onended = this.#video.onerror = null;
    this.#video.pause();
    this.#video.srcObject = null;
    this.#video.removeAttribute("src");
    this.#video.load();
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#stream = this.#address = null;
  }
}
