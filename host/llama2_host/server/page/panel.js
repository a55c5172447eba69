// The panel: what an answer's timings and the boards' counters say, as numbers and as a bar.
const $ = id => document.getElementById(id);
const KINDS = {beats: "beats", starved: "starved (DRAM)", fenced: "fenced", stalled: "stalled", busy: "other cycles of a command", cpu: "CPU and link"};
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

function parts(phase) {
  const {cycles, beats, starved, fenced, stalled} = phase;
  return {beats, starved, fenced, stalled, busy: Math.max(cycles - beats - starved - fenced - stalled, 0)};
}

function showPhases({phases, cycles, cpu_cycles}) {
  const bar = $("bar"), rows = [], sums = {beats: 0, starved: 0, fenced: 0, stalled: 0, busy: 0, cpu: cpu_cycles};
  bar.replaceChildren();
  for (const [name, phase] of Object.entries(phases)) {
    if (!phase.cycles) continue;
    for (const [kind, value] of Object.entries(parts(phase))) { sums[kind] += value; add(bar, kind, value / cycles, `${name}: ${KINDS[kind]}`); }
    rows.push(row([name, phase.cycles, phase.beats, phase.starved, phase.fenced, phase.stalled]));
  }
  add(bar, "cpu", cpu_cycles / cycles, KINDS.cpu);
  rows.push(row([KINDS.cpu, cpu_cycles, "", "", "", ""]));
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", Object.entries(sums).map(([kind, value]) => `${KINDS[kind]} ${number(100 * value / cycles, 1)} %`).join(", "));
  $("phases").tBodies[0].replaceChildren(...rows);
  bar.hidden = $("phases").hidden = false;
  $("no-bar").hidden = true;
  const key = document.querySelector(".key") ?? bar.insertAdjacentElement("afterend", document.createElement("ul"));
  key.className = "key";
  key.replaceChildren(...Object.keys(KINDS).map(kind => {
    const item = document.createElement("li"), box = document.createElement("b");
    box.className = kind;
    item.append(box, `${KINDS[kind]} ${number(100 * sums[kind] / cycles, 1)} %`);
    return item;
  }));
}

function add(bar, kind, share, title) {
  if (share <= 0) return;
  const piece = document.createElement("i");
  piece.className = kind; piece.title = title; piece.style.flexGrow = share;
  bar.append(piece);
}

function row([name, ...values]) {
  const line = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row"; head.textContent = name;
  line.append(head, ...values.map(value => { const cell = document.createElement("td"); cell.textContent = value === "" ? "" : number(value); return cell; }));
  return line;
}
