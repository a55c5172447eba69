// The chat and its panel. What the model or the server says is text everywhere: only textContent is ever set.
import {stream} from "/page/stream.js";
import {showAnswer, showBoards, showToken} from "/page/panel.js";

const $ = id => document.getElementById(id);
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];
const KEPT = "llama2-conversation", SETTINGS = "llama2-settings";
// A tab has its own conversation; a new tab begins with a copy of the last one that was kept.
let messages = read(sessionStorage, KEPT) ?? read(localStorage, KEPT) ?? [];
let running = null;

function read(storage, name) {
  try { return JSON.parse(storage.getItem(name)); } catch { return null; }
}

function keep(storage, name, value) {
  try { storage.setItem(name, JSON.stringify(value)); } catch { /* storage is full or forbidden: the page still works */ }
}

function headers() {
  const key = $("key").value.trim();
  return {"Content-Type": "application/json", ...(key ? {"Authorization": `Bearer ${key}`} : {})};
}

function addMessage({role, content}) {
  const item = document.createElement("li"), who = document.createElement("div"), text = document.createElement("div");
  item.className = role === "user" ? "user" : "assistant";
  who.className = "who"; who.textContent = role === "user" ? "You" : "Model";
  text.className = "text"; text.textContent = content;
  item.append(who, text);
  $("messages").append(item);
  return text;
}

function redraw() {
  $("messages").replaceChildren();
  messages.forEach(addMessage);
}

function fail(message) {
  $("failure").hidden = !message;
  $("failure").textContent = message ?? "";
}

function request() {
  const system = $("system").disabled ? "" : $("system").value.trim();
  const body = {messages: [...(system ? [{role: "system", content: system}] : []), ...messages], stream: true,
                stream_options: {include_usage: true}, timings_per_token: true};
  for (const name of NUMBERS) if ($(name).value !== "") body[name] = Number($(name).value);
  return body;
}

async function send(event) {
  event?.preventDefault();
  const prompt = $("prompt").value;
  if (running || !prompt.trim()) return;
  fail();
  messages.push({role: "user", content: prompt});
  addMessage(messages.at(-1));
  const text = addMessage({role: "assistant", content: ""});
  $("prompt").value = "";
  running = new AbortController();
  $("send").disabled = true; $("stop").disabled = false;
  const began = performance.now();
  let said = "", failed = null, count = 0;
  try {
    for await (const chunk of stream("/v1/chat/completions", request(), headers(), running.signal)) {
      const more = chunk.choices[0]?.delta?.content;
      if (more) { said += more; text.textContent = said; text.scrollIntoView({block: "nearest"}); }
      if (chunk.timings?.cycles !== undefined) showToken(++count, chunk.timings, (performance.now() - began) / 1000);
      if (chunk.usage) showAnswer(chunk);
    }
  } catch (error) {
    if (error.name !== "AbortError") failed = error.message;
  }
  if (said) messages.push({role: "assistant", content: said});
  else { messages.pop(); redraw(); $("prompt").value ||= prompt; }
  running = null;
  $("send").disabled = false; $("stop").disabled = true;
  keep(sessionStorage, KEPT, messages); keep(localStorage, KEPT, messages);
  fail(failed);
  await look();
  $("prompt").focus();
}

async function look() {
  try {
    const answer = await fetch("/boards", {headers: headers()});
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error.message);
    showBoards(found.boards);
  } catch (error) { $("where").textContent = error.message; }
}

async function begin() {
  const settings = read(localStorage, SETTINGS) ?? {};
  try {
    const [props, models] = await Promise.all(["/props", "/v1/models"].map(async path => {
      const answer = await fetch(path, {headers: headers()}), found = await answer.json();
      if (!answer.ok) throw new Error(found.error.message);
      return found;
    }));
    const defaults = props.default_generation_settings.params;
    for (const name of NUMBERS) if (!$(name).value) $(name).value = settings[name] ?? defaults[name] ?? "";
    if (!$("max_tokens").value) $("max_tokens").value = 200;
    $("system").disabled = !props.system_prompt;
    $("system-label").textContent = props.system_prompt ? "System prompt" : "System prompt (this model's template has none)";
    const {id, meta} = models.data[0];
    const rows = {Model: id, Template: props.template, Layers: meta.n_layer, Dimension: meta.n_embd, Vocabulary: meta.n_vocab, Context: meta.n_ctx};
    $("about").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => {
      const term = document.createElement("dt"), detail = document.createElement("dd");
      term.textContent = name; detail.textContent = value;
      return [term, detail];
    }));
    fail();
  } catch (error) { fail(error.message); }
  if (settings.system && !$("system").value) $("system").value = settings.system;
  await look();
}

$("form").addEventListener("submit", send);
$("prompt").addEventListener("keydown", event => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event); });
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", event => { if (event.key === "Escape") running?.abort(); });
$("reset").addEventListener("click", () => {
  running?.abort();
  messages = [];
  keep(sessionStorage, KEPT, messages); keep(localStorage, KEPT, messages);
  redraw(); fail(); $("prompt").focus();
});
$("key").addEventListener("change", () => { sessionStorage.setItem("llama2-key", $("key").value); begin(); });
for (const name of [...NUMBERS, "system"]) $(name).addEventListener("change", () =>
  keep(localStorage, SETTINGS, Object.fromEntries([...NUMBERS, "system"].map(name => [name, $(name).value]))));
$("key").value = sessionStorage.getItem("llama2-key") ?? "";
redraw();
begin();
