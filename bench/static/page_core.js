// Elements, packed blocks, numbers and the state of the page. Texts of models and records become
// text nodes only; no file of the page writes markup.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

// An element with attributes and children; strings become text.
function el(tag, attributes = {}, ...children) {
  return withParts(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return withParts(document.createElementNS(SVG, tag), attributes, children);
}

function withParts(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

const opened = new Map();

// The bytes of a packed block of the page, unpacked once.
function block(name) {
  if (!opened.has(name)) {
    const stream = new Blob([bytesOf($(name).textContent)]).stream();
    const plain = stream.pipeThrough(new DecompressionStream("deflate"));
    opened.set(
      name,
      new Response(plain).arrayBuffer().then((buffer) => new Uint8Array(buffer)),
    );
  }
  return opened.get(name);
}

async function blockText(name) {
  return new TextDecoder().decode(await block(name));
}

async function blockJson(name) {
  return JSON.parse(await blockText(name));
}

let data; // written by ranking/page/numbers.py and page.py
const state = { metric: 0, fill: null, search: "", family: "", columns: [], open: null, down: false };

// Three decimals under 10, one above; tiny numbers in scientific notation; as `column_number` does.
// Counts are whole.
function number(value, counts = false) {
  if (value === null || value === undefined) return "n/a";
  if (counts) return minus(value.toFixed(0));
  if (Math.abs(value) < 1e-12) return "0";
  if (Math.abs(value) < 0.0005) return minus(value.toExponential(0));
  if (Math.abs(value) >= 1e6) return minus(value.toExponential(2));
  return minus(value.toFixed(Math.abs(value) < 10 ? 3 : 1));
}

function signed(value, counts = false) {
  return value === null || value === undefined ? "" : (value > 0 ? "+" : "") + number(value, counts);
}

const minus = (text) => text.replace("-", "−");

// Half of an interval, the wider side.
function half(value, low, high) {
  return low === null || high === null ? null : Math.max(value - low, high - value);
}

const fillName = (fill) => (fill === "none" ? "as it is" : `kernel padding ${fill}`);

const at = (column, i) => (column ? (column[i] ?? null) : null);

// An end of an interval, null where the command asked for numbers alone.
const endAt = (column, i) => (data.intervals ? at(column, i) : null);

// Value (and whether it counts things), interval, rank and reason of a metric for one model and kernel padding.
function cell(metric, fill, i) {
  const columns = data.numbers[metric][fill];
  if (!columns) return { v: null, low: null, high: null, rank: null, rankHigh: null, why: "not measured" };
  const why = columns.why[i];
  return {
    v: at(columns.v, i),
    counts: data.metrics[metric].counts,
    low: endAt(columns.low, i),
    high: endAt(columns.high, i),
    rank: at(columns.rank, i),
    rankHigh: at(columns.rank_high, i),
    why: why === undefined ? "not measured" : data.reasons[why],
  };
}

// Treated less untreated.
function change(metric, fill, i) {
  const columns = data.numbers[metric][fill];
  if (!columns || fill === "none") return { v: null, low: null, high: null };
  const { counts } = data.metrics[metric];
  return { v: at(columns.change, i), counts, low: endAt(columns.changeLow, i), high: endAt(columns.changeHigh, i) };
}

// The certain defects of model `i`, such as dead regions, in one text; null without any.
const defectsOf = (i, fill) => at(data.defects[fill], i);

const metricIndex = (id) => data.metrics.findIndex((metric) => metric.id === id);
const treated = () => data.fills.filter((fill) => fill !== "none");
const firstFill = () => data.fills[0];
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

function option(value, text, selected = false) {
  return el("option", { value, selected }, text);
}

// Options in a group for each suite.
function metricOptions(selected) {
  const groups = new Map();
  data.metrics.forEach((metric, i) => {
    if (!groups.has(metric.suite)) groups.set(metric.suite, el("optgroup", { label: metric.suite }));
    const shown = option(String(i), metric.id, i === selected);
    shown.title = metricHint(metric);
    groups.get(metric.suite).append(shown);
  });
  return [...groups.values()];
}

// Whether a column has intervals with different sides: then all of it shows both ends.
const anyLopsided = (cells) => cells.some((one) => one && half(one.v, one.low, one.high) && isLopsided(one));

function missing(why) {
  return el("span", { class: "missing", title: why }, "n/a");
}

// Whether the ends of an interval are at different distances from its value, or at 0 or 1, where a range may end.
const isLopsided = ({ v, low, high }) =>
  low === 0 || high === 1 || Math.min(v - low, high - v) < 0.8 * half(v, low, high);

// `text` with the words of the glossary explained, each where it first stands: point at it, or focus it.
function explained(text) {
  const left = new Set(Object.keys(data.words));
  const pattern = new RegExp(`\\b(${[...left].sort((a, b) => b.length - a.length).join("|")})s?\\b`, "gi");
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    const word = [...left].find((one) => one.toLowerCase() === found[1].toLowerCase());
    if (word === undefined) continue;
    left.delete(word);
    parts.push(text.slice(from, found.index), el("abbr", { title: data.words[word], tabindex: 0 }, found[0]));
    from = found.index + found[0].length;
  }
  return [...parts, text.slice(from)];
}

// What a metric says of itself, for the hints of heads, menus and rows.
function metricHint(metric) {
  const unit = metric.unit && !["ratio", "share"].includes(metric.unit) ? ` (${metric.unit})` : "";
  const words = metric.even === null ? "ranks first" : "is more even";
  const best = { lower: ` Lower ${words}.`, higher: ` Higher ${words}.`, neither: "" }[metric.better];
  const even = metric.even === null ? "" : ` ${metric.even} on an even model.`;
  const label = metric.label ? `${metric.label}: ` : "";
  const caveat = metric.caveat && metric.caveat !== data.note ? ` ${metric.caveat}` : "";
  return `${metric.id}: ${label}${metric.definition}${unit}.${even}${best}${caveat}`;
}

// A large whole number with three digits: 4.09 G, 25.6 M.
function shortCount(count) {
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ])
    if (count >= size) return `${Number((count / size).toPrecision(3))}\u00a0${unit}`;
  return String(count);
}

// Parameters and MACs of model `i`, as far as they are known and have no column of their own in `columns`.
function sizeWords(i, columns = []) {
  const words = { parameters: "parameters", macs: "MACs" };
  return Object.keys(words)
    .filter((key) => !columns.includes(`c:${key}`) && data.costs[key] && at(data.costs[key].v, i) !== null)
    .map((key) => `${shortCount(data.costs[key].v[i])}\u00a0${words[key]}`);
}

// ± half of an interval, in as many decimals as its value has; or both ends where it is lopsided.
function intervalText(value, ends = isLopsided(value)) {
  const wide = half(value.v, value.low, value.high);
  if (!ends) {
    const aligned = Math.abs(value.v) >= 10 && wide >= 0.1;
    return ` ±${aligned ? minus(wide.toFixed(1)) : number(wide)}`;
  }
  const places = Math.abs(value.v) < 10 ? 3 : 1;
  return ` (${minus(value.low.toFixed(places))} to ${minus(value.high.toFixed(places))})`;
}

// The number with its interval beside it, or n/a with the reason.
function valueNode(value, text = number, ends = undefined) {
  if (value.v === null) return value.why === undefined ? el("span") : missing(value.why);
  const shown = half(value.v, value.low, value.high) ? el("small", {}, intervalText(value, ends)) : null;
  return el("span", { class: "value" }, text(value.v, value.counts), shown);
}

function save(name, type, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Whether model `i` matches the search and the family chosen.
function chosen(i) {
  const { name, family, reference } = data.models;
  if (state.family && family[i] !== state.family) return false;
  const words = `${name[i]} ${family[i]} ${reference[i]}`.toLowerCase();
  return state.search
    .toLowerCase()
    .split(/\s+/)
    .every((word) => words.includes(word));
}

const everyModel = () => data.models.name.map((_, i) => i);
