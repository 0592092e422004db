// Files that people give: what they are, how they look, and how they are sent (as they are, byte for byte).
import { el, icon, iconButton, megabytes, toast } from "./ui.js";
import { server } from "./server.js";

const IMAGE_TYPES = { avif: "avif", bmp: "bmp", gif: "gif", heic: "heic", heif: "heif", jfif: "jpeg", jpeg: "jpeg", jpg: "jpeg", png: "png", tif: "tiff", tiff: "tiff", webp: "webp" };
const VIDEO_TYPES = { avi: "x-msvideo", m4v: "mp4", mkv: "x-matroska", mov: "quicktime", mp4: "mp4", mpeg: "mpeg", mpg: "mpeg", ts: "mp2t", webm: "webm" };

/** Read a `File` as {id, kind, name, type, size, blob}; null, with a notice, for what the server would not take. */
export function attachment(file) {
  const ending = file.name.toLowerCase().split(".").pop();
  // Browsers know no type of some files, and call .ts a text.
  const type = /^(image|video)\//.test(file.type) ? file.type : ending in IMAGE_TYPES ? `image/${IMAGE_TYPES[ending]}` : ending in VIDEO_TYPES ? `video/${VIDEO_TYPES[ending]}` : "";
  const kind = type.split("/")[0];
  const name = file.name || (kind === "video" ? "video" : "image");
  if (!kind) return refuse(`${name} is neither an image nor a video.`);
  if (type === "image/svg+xml") return refuse(`${name} is a drawing (SVG). Send it as PNG or JPEG.`);
  if (!file.size) return refuse(`${name} is empty.`);
  const most = server.config[kind === "video" ? "max_video_bytes" : "max_image_bytes"];
  if (most && file.size > most) {
    const advice = kind === "video" ? " The view Live plays video files of any size here, and sends single frames." : "";
    return refuse(`${name} has ${megabytes(file.size)}; the server takes at most ${megabytes(most)}.${advice}`);
  }
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, kind, name, type, size: file.size, blob: file };
}

function refuse(text) {
  toast(text, 9);
  return null;
}

/** The files of a drop or of a paste. */
export function filesOf(transfer) {
  const files = [...(transfer?.files || [])];
  if (files.length || !transfer?.items) return files;
  return [...transfer.items].filter((item) => item.kind === "file").map((item) => item.getAsFile()).filter(Boolean);
}

const addresses = new Map();

/** An address of a file for this page, until `release`. */
export function addressOf(media) {
  if (!addresses.has(media.id)) addresses.set(media.id, URL.createObjectURL(media.blob));
  return addresses.get(media.id);
}

export function release(media) {
  if (addresses.has(media.id)) URL.revokeObjectURL(addresses.get(media.id));
  addresses.delete(media.id);
}

/** A preview; the file's name where the browser cannot show it, as with HEIC in most. */
export function preview(media, { controls = false } = {}) {
  if (!media.blob) return noPreview({ ...media, name: `${media.name} is no longer kept` });
  const isVideo = media.kind === "video";
  const node = el(isVideo ? "video" : "img", isVideo ? { preload: "metadata", playsinline: true, controls, "aria-label": media.name } : { alt: media.name, decoding: "async" });
  if (isVideo) node.muted = true;
  node.addEventListener("error", () => (node.closest(".opener") || node).replaceWith(noPreview(media)), { once: true });
  node.src = addressOf(media);
  return node;
}

function noPreview(media) {
  const title = `${media.name}: the browser cannot show it, the server can still read it`;
  return el("div", { class: "no-preview", title: media.blob ? title : media.name }, icon(media.kind === "video" ? "film" : "file"), el("span", { text: media.name }));
}

/** Pictures and videos of a message. Pictures open large. */
export function gallery(list) {
  const nodes = list.map((media) => {
    if (media.kind === "video" || !media.blob) return preview(media, { controls: true });
    return el("button", { type: "button", class: "opener", "aria-label": `Enlarge ${media.name}`, on: { click: () => enlarge(media) } }, preview(media));
  });
  return el("div", { class: list.length > 1 ? "media many" : "media" }, ...nodes);
}

function enlarge(media) {
  const close = iconButton("close", "Close", () => dialog.close());
  const dialog = el("dialog", { class: "viewer", "aria-label": media.name }, el("img", { src: addressOf(media), alt: media.name }), close);
  dialog.addEventListener("click", (event) => event.target === close || dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** The part of a request that holds a file, unchanged. */
export async function partOf(media) {
  const url = await dataUrl(media.blob, media.type);
  return media.kind === "video" ? { type: "video_url", video_url: { url } } : { type: "image_url", image_url: { url } };
}

export function dataUrl(blob, type = blob.type) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:${type};base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
    reader.onerror = () => reject(new Error("A file cannot be read any more. Was it moved or changed?"));
    reader.readAsDataURL(blob);
  });
}

/** A sample of the server, as if it had been chosen. */
export async function sample(name) {
  const response = await fetch(`page/samples/${name}`);
  if (!response.ok) throw new Error(`The sample ${name} cannot be read.`);
  const blob = await response.blob();
  return attachment(new File([blob], name, { type: blob.type }));
}
