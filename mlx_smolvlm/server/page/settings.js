// Settings of answers, kept in this browser: system prompt, temperature, longest answer.
import { server } from "./server.js";
import { $, local } from "./ui.js";

const DEFAULTS = { system: "", temperature: 0, max_tokens: 512 };

function read() {
  let kept = {};
  try {
    kept = JSON.parse(local.get("settings")) || {};
  } catch {} // not ours
  const values = { ...DEFAULTS };
  if (typeof kept.system === "string") values.system = kept.system;
  if (kept.temperature >= 0 && kept.temperature <= 2) values.temperature = kept.temperature;
  if (Number.isInteger(kept.max_tokens) && kept.max_tokens > 0) values.max_tokens = kept.max_tokens;
  return values;
}

export const settings = read();

/** The fields of a request that the settings make. */
export const answerFields = () => ({ temperature: settings.temperature, max_completion_tokens: settings.max_tokens });

function show() {
  const select = $("set-model");
  select.replaceChildren(...server.models.map(({ id }) => new Option(id)));
  select.value = server.model?.id;
  select.parentElement.hidden = select.length < 2;
  $("set-system").value = settings.system;
  $("set-temperature").value = settings.temperature;
  $("set-temperature-value").textContent = settings.temperature.toFixed(1);
  $("set-tokens").value = settings.max_tokens;
  const parts = [];
  if (settings.system) parts.push("System prompt");
  if (settings.temperature !== DEFAULTS.temperature) parts.push(`Temperature ${settings.temperature}`);
  if (settings.max_tokens !== DEFAULTS.max_tokens) parts.push(`At most ${settings.max_tokens} tokens`);
  $("settings-summary").textContent = parts.join(" · ");
}

function take() {
  settings.system = $("set-system").value.trim();
  settings.temperature = Number($("set-temperature").value);
  const tokens = $("set-tokens").valueAsNumber;
  if (Number.isInteger(tokens) && tokens > 0) settings.max_tokens = tokens;
  local.set("settings", JSON.stringify(settings));
  if (server.model) server.choose($("set-model").value);
}

export function startSettings() {
  $("settings-open").addEventListener("click", () => {
    if (server.model?.max_model_len) $("set-tokens").max = server.model.max_model_len;
    show();
    $("settings").showModal();
  });
  $("set-temperature").addEventListener("input", () => ($("set-temperature-value").textContent = Number($("set-temperature").value).toFixed(1)));
  $("settings").addEventListener("input", take);
  $("settings").addEventListener("close", show);
  $("set-reset").addEventListener("click", () => {
    Object.assign(settings, DEFAULTS);
    server.choose("");
    show();
    take();
  });
  show();
}
