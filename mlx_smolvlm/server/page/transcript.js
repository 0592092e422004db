// A chat in OpenAI's form: as messages of a request, and as a file.
import { partOf } from "./media.js";
import { server } from "./server.js";
import { settings } from "./settings.js";
import { fileName, save, toast } from "./ui.js";

/**
 * Messages, with the files as they were given. A question that got no answer is left out, as what was wrong with it
 * would be wrong for good.
 */
export async function requestMessages(messages) {
  const made = settings.system ? [{ role: "system", content: settings.system }] : [];
  for (const [at, { role, text, media }] of messages.entries()) {
    if (role === "user" && at + 1 < messages.length && !messages[at + 1].text) continue;
    if (role === "model") {
      if (text) made.push({ role: "assistant", content: text });
      continue;
    }
    if (media.some((one) => !one.blob)) throw new Error("A file of this chat is no longer kept by the browser. Start a new chat with it.");
    const parts = await Promise.all(media.map(partOf));
    if (text) parts.push({ type: "text", text });
    made.push({ role: "user", content: media.length ? parts : text });
  }
  return made;
}

export async function exportChat(chat) {
  const exported = { format: "mlx-smolvlm chat", version: 1, title: chat.title, created: new Date(chat.created).toISOString(), model: server.model?.id ?? null, settings: { ...settings } };
  try {
    exported.messages = await requestMessages(chat.messages);
  } catch (error) {
    return toast(error.message);
  }
  exported.answers = chat.messages.filter((one) => one.role === "model" && one.text).map(({ finish, cost, state }) => ({ finish_reason: finish ?? null, is_complete: state === "done", ...cost }));
  save(fileName("chat", "json"), "application/json", JSON.stringify(exported, null, 2));
}
