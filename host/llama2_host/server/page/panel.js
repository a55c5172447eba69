// The panel: what an answer's timings and the boards' counters say, as numbers and as a bar.
const $ = id => document.getElementById(id);
const PHASES = {embed: "embedding", s1_qkv: "Q, K and V", s2_attend: "attention", s3_store: "K/V to DRAM", s4_output: "output", s5_gate_up: "gate and up",
  s5_down: "down", classify: "logits", other: "other", cpu: "CPU and link"};
// Of all cycles; they overlap, since DRAM reads run ahead and two columns take two beats a cycle.
const KINDS = {beats: "beats taken from DRAM", starved: "starved: ready, no beat there", fenced: "fenced: waiting for earlier results", stalled: "stalled: results not taken"};
const number = (value, digits = 0) => value === null || value === undefined ? "-" : value.toLocaleString("en", {maximumFractionDigits: digits});
const PLACES = {device: "a board", simulator: "simulated SoC", golden: "integer model, no hardware"};
let clock = 0, last = null;

export function showToken(count, timings, seconds) {
  // The cycle counter has 32 bits and wraps.
  const cycles = last !== null && count > 1 ? (timings.cycles - last + 2 ** 32) % 2 ** 32 : 0;
  last = timings.cycles;
  if (clock && cycles) { $("rate").textContent = number(clock / cycles, 1); $("cycles").textContent = number(cycles); }
  else if (!clock) $("rate").textContent = number(count / seconds, 1);
}

export function showAnswer({timings, usage}) {
  $("rate").textContent = number(timings.tokens_per_s ?? timings.predicted_per_second, 1);
  $("roofline").textContent = timings.roofline_percent === null ? "-" : `${number(timings.roofline_percent, 1)} %`;
  $("bytes").textContent = number(timings.bytes_per_token);
  $("cycles").textContent = number(timings.cycles_per_token);
  $("cached").textContent = `${usage.prompt_tokens_details.cached_tokens} of ${usage.prompt_tokens}`;
}

export function showBoards(boards) {
  clock = boards.find(board => board.ready)?.clock_hz ?? 0;
  $("rate-of").textContent = clock ? `at ${clock / 1e6} MHz` : "of this computer";
  $("where").textContent = boards.map(({name, kind, ready, clock_hz}) => [
    name === kind ? "" : `${name}: `, ready ? PLACES[kind] ?? kind : "does not answer", ready && clock_hz ? `, ${clock_hz / 1e6} MHz` : ""].join("")).join(" · ");
  const shown = boards.find(board => board.last)?.last;
  if (shown) showPhases(shown);
}

function showPhases({phases, cycles, cpu_cycles}) {
  const found = Object.entries(phases).filter(([, phase]) => phase.cycles);
  const shares = [...found.map(([name, phase]) => [name, phase.cycles / cycles]), ["cpu", cpu_cycles / cycles]];
  const percent = share => `${number(100 * share, 1)} %`;
  $("bar").setAttribute("aria-label", shares.map(([name, share]) => `${PHASES[name]} ${percent(share)}`).join(", "));
  $("bar").replaceChildren(...shares.map(([name, share]) => {
    const piece = document.createElement("i");
    piece.className = name; piece.title = `${PHASES[name]} ${percent(share)}`; piece.style.flexGrow = share;
    return piece;
  }));
  $("shares").replaceChildren(...shares.map(([name, share]) => entry(name, `${PHASES[name]} ${percent(share)}`)));
  $("meters").replaceChildren(...Object.entries(KINDS).map(([kind, text]) => {
    const share = found.reduce((sum, [, phase]) => sum + phase[kind], 0) / cycles;
    return meter(kind, text, share, percent(share));
  }));
  $("phases").tBodies[0].replaceChildren(
    ...found.map(([name, phase]) => row([PHASES[name], phase.cycles, phase.beats, phase.starved, phase.fenced, phase.stalled])),
    row([PHASES.cpu, cpu_cycles, "", "", "", ""]));
  for (const id of ["bar", "shares", "meters", "counters"]) $(id).hidden = false;
  $("no-bar").hidden = true;
}

function entry(name, text) {
  const item = document.createElement("li"), box = document.createElement("b");
  box.className = name;
  item.append(box, text);
  return item;
}

function meter(kind, text, share, percent) {
  const item = document.createElement("li"), what = document.createElement("span"), value = document.createElement("span"), track = document.createElement("div"),
    level = document.createElement("i");
  what.textContent = text; value.textContent = percent;
  level.className = kind; level.style.width = `${Math.min(100 * share, 100)}%`;
  track.append(level);
  item.append(what, value, track);
  return item;
}

function row([name, ...values]) {
  const line = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row"; head.textContent = name;
  line.append(head, ...values.map(value => { const cell = document.createElement("td"); cell.textContent = value === "" ? "" : number(value); return cell; }));
  return line;
}
