// The ranking: a row for each model, with and without kernel padding, and what lies between them.

let table = null;
let domain = null; // horizontal scale of the drawn intervals
const narrow = window.matchMedia("(max-width: 760px)");
const middling = window.matchMedia("(max-width: 1080px)");

// One row object for each model; what is sorted is a number or null.
function rowsOf(metric, fill) {
  const better = data.metrics[metric].better;
  const base = firstFill();
  const rows = everyModel().map((i) => {
    const [plain, padded] = [cell(metric, base, i), fill ? cell(metric, fill, i) : null];
    return {
      i, name: data.models.name[i], family: data.models.family[i], rank: plain.rank, plain, padded,
      moved: fill ? change(metric, fill, i) : null, asis: plain.v, with: padded && padded.v,
      change: fill ? change(metric, fill, i).v : null, ...furtherCells(i),
    };
  });
  const up = better === "lower" ? 1 : -1;
  const order = (a, b) => nullsLast(a.asis, b.asis, (x, y) => up * (x - y)) || a.i - b.i;
  rows.sort((a, b) => nullsLast(a.rank, b.rank, (x, y) => x - y) || order(a, b));
  rows.forEach((row, place) => (row.order = row.rank === null ? null : place));
  return markTies(rows);
}

function nullsLast(a, b, compare) {
  if (a === null || b === null) return (a === null) - (b === null);
  return compare(a, b);
}

// Which rows share a rank, and the parity of their group, so that neighbours are told apart.
function markTies(rows) {
  const sizes = new Map();
  for (const row of rows) if (row.rank !== null) sizes.set(row.rank, (sizes.get(row.rank) || 0) + 1);
  const parity = new Map([...sizes.keys()].map((rank, place) => [rank, place % 2 === 1]));
  for (const row of rows) Object.assign(row, { ties: sizes.get(row.rank) || 0, odd: parity.get(row.rank) });
  return rows;
}

// Columns that a reader may add: `m3` a metric, `j:top1` a joined number, `c:memory` a cost.
function furtherCells(i) {
  return Object.fromEntries(state.columns.map((key) => [key, further(key, i)]));
}

function further(key, i) {
  if (key.startsWith("m")) return cell(Number(key.slice(1)), firstFill(), i).v;
  if (key.startsWith("j:")) return data.joined.columns[key.slice(2)][i];
  if (key.startsWith("c:")) return data.costs[key.slice(2)].v[i];
  return { family: data.models.family, input: data.models.input, weights: data.models.weights }[key][i];
}

function furtherTitle(key) {
  if (key.startsWith("m")) return data.metrics[Number(key.slice(1))].id;
  if (key.startsWith("j:")) return key.slice(2);
  if (key.startsWith("c:")) return data.costs[key.slice(2)].title;
  return { family: "Family", input: "Input", weights: "Weights" }[key];
}

const isText = (key) => ["family", "input", "weights"].includes(key);

function numeric(a, b, _rowA, _rowB, _column, direction) {
  if (a === null || b === null) {
    if (a === b) return 0;
    const last = a === null ? 1 : -1;
    return direction === "asc" ? last : -last;
  }
  return a - b;
}

// `> 0.9`, `<= 3`, `0.2..0.8` or a number, which means at least that.
function passes(wanted, value) {
  const text = String(wanted).trim().replace("−", "-").replace(",", ".");
  const span = text.match(/^(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)$/);
  const bound = text.match(/^(>=|<=|>|<|=)?\s*(-?[\d.]+(?:e-?\d+)?)$/i);
  if (!span && !bound) return true;
  if (value === null || value === undefined) return false;
  if (span) return value >= Number(span[1]) && value <= Number(span[2]);
  const limit = Number(bound[2]);
  return { ">": value > limit, "<": value < limit, "<=": value <= limit, "=": value === limit }[bound[1]] ?? value >= limit;
}

function headed(title, hint) {
  return () => el("span", { title: hint || title }, title);
}

const figures = {
  sorter: numeric, hozAlign: "right", cssClass: "right", headerHozAlign: "right", headerSortStartingDir: "desc",
  headerFilter: "input", headerFilterPlaceholder: "> 0.9", headerFilterFunc: (wanted, value) => passes(wanted, value),
};

function columns() {
  const metric = data.metrics[state.metric];
  const small = narrow.matches;
  const base = firstFill();
  const found = [
    { title: "Rank", field: "order", width: small ? 52 : 76, sorter: numeric, formatter: rankCell, titleFormatter: headed(small ? "#" : "Rank", "rank by " + metric.id), cssClass: "right", headerHozAlign: "right" },
    { title: "Field", field: "i", width: small ? 48 : 92, headerSort: false, formatter: (c) => thumbs(c.getValue(), base, small ? ["profile"] : ["whole", "profile"]), titleFormatter: headed(small ? "" : "Field", "the sensitivity map, and one stride cell of it; 0 to twice the mean") },
    { title: "Model", field: "name", minWidth: small ? 110 : 200, widthGrow: 3, formatter: nameCell, titleFormatter: headed("Model"), headerFilter: "input" },
    { ...figures, title: "As it is", field: "asis", width: small ? 112 : 128, formatter: (c) => (small ? smallCell(c) : valueNode(c.getData().plain)), titleFormatter: headed(small ? metric.name : fillName(base), metric.id) },
  ];
  if (state.fill && !small) {
    found.push({ ...figures, title: "With", field: "with", width: 128, formatter: paddedCell, titleFormatter: headed(fillName(state.fill), `${metric.id} with kernel padding ${state.fill}`) });
    found.push({ ...figures, title: "Difference", field: "change", width: 132, formatter: changeCell, titleFormatter: headed("difference", "with less without kernel padding, paired") });
  }
  if (!small && !middling.matches) found.push({ title: "Drawn", field: "drawn", minWidth: 190, widthGrow: 3, headerSort: false, formatter: drawnCell, titleFormatter: axisTitle, cssClass: "wide" });
  if (!small) found.push(...state.columns.map(furtherColumn));
  return found;
}

function furtherColumn(key) {
  const title = furtherTitle(key);
  if (isText(key)) return { title: "", field: key, width: 130, sorter: "string", headerFilter: "input", titleFormatter: headed(title), formatter: (c) => el("span", {}, c.getValue()) };
  return { ...figures, title: "", field: key, width: 128, titleFormatter: headed(title.replace(/^.*\./, ""), title), formatter: (c) => (c.getValue() === null ? missing("no number") : el("span", {}, number(c.getValue()))) };
}

function rankCell(c) {
  const row = c.getData();
  if (row.rank === null) return el("span", { class: "rank", title: row.plain.why }, "–");
  const shared = row.ties > 1;
  const told = shared ? `rank ${row.rank}, shared by ${row.ties} models that their intervals do not separate` : `rank ${row.rank}`;
  return el("span", { class: `rank${shared ? " tied" : ""}${row.odd ? " odd" : ""}`, title: told, "aria-label": told }, String(row.rank), shared ? el("small", {}, "=") : null);
}

function nameCell(c) {
  const { i, name, family } = c.getData();
  const link = el("a", { href: `#model=${i}`, "data-model": i, onclick: (event) => { event.preventDefault(); openModel(i); } }, name);
  const facts = [family, data.models.input[i]].filter(Boolean);
  return el("span", { class: "model" }, link, el("small", {}, facts.join(" · ")));
}

const isUntouched = (i) => Boolean(state.fill) && data.untouched[state.fill].includes(i);

function paddedCell(c) {
  const { i, padded } = c.getData();
  return isUntouched(i) ? el("span", { class: "soft", title: `kernel padding ${state.fill} finds nothing to grow` }, "untouched") : valueNode(padded);
}

function changeCell(c) {
  const { i, moved } = c.getData();
  return moved.v === null || isUntouched(i) ? el("span") : valueNode(moved, signed);
}

// Robust ends for the drawn intervals: a few outliers must not squeeze the rest.
function makeDomain(rows) {
  const even = data.metrics[state.metric].even;
  const values = rows.flatMap((row) => [row.plain, row.padded].filter(Boolean).flatMap((c) => [c.v, c.low, c.high])).filter((v) => v !== null).sort(d3.ascending);
  if (even !== null) values.push(even);
  const [low, high] = [d3.quantile(values.sort(d3.ascending), 0.01) ?? 0, d3.quantile(values, 0.99) ?? 1];
  const ends = low === high ? [low - 0.5, high + 0.5] : [low, high];
  domain = d3.scaleLinear(ends, [4, 96]).nice(4).clamp(true);
}

const percent = (value) => `${domain(value)}%`;

// On a narrow screen: the number, and the interval drawn under it.
function smallCell(c) {
  return el("span", { class: "stack" }, valueNode(c.getData().plain), drawn(c.getData(), 16, 2));
}

const drawnCell = (c) => drawn(c.getData(), 46, 4);

// As it is, with padding, their whiskers, and what an even model has, `height` pixels high.
function drawn({ i, plain, ...others }, height, gap) {
  const padded = isUntouched(i) ? null : others.padded;
  const even = data.metrics[state.metric].even;
  const middle = height / 2;
  const both = padded && padded.v !== null && plain.v !== null;
  const image = svg("svg", { class: "drawn", style: `height:${height}px`, "aria-hidden": "true" });
  if (even !== null) image.append(svg("line", { class: "even", x1: percent(even), x2: percent(even), y1: 0, y2: height }));
  if (both) image.append(svg("line", { class: "link", x1: percent(plain.v), x2: percent(padded.v), y1: middle, y2: middle }));
  mark(image, padded, "padded", both ? middle + gap : middle, gap);
  mark(image, plain, "asis", both ? middle - gap : middle, gap);
  return image;
}

function mark(image, held, kind, y, radius) {
  if (!held || held.v === null) return;
  if (held.low !== null && held.high !== null) image.append(svg("line", { class: "whisker", x1: percent(held.low), x2: percent(held.high), y1: y, y2: y }));
  image.append(svg("circle", { class: kind, cx: percent(held.v), cy: y, r: Math.max(2.6, radius) }));
}

function axisTitle() {
  const even = data.metrics[state.metric].even;
  const image = svg("svg", { class: "axis", "aria-label": "as it is: ring; with kernel padding: dot; whiskers: 95 % intervals" });
  for (const tick of domain.ticks(4)) image.append(svg("text", { x: percent(tick), y: 12, "text-anchor": "middle" }, minus(String(tick))));
  const legend = `○ as it is${state.fill ? `   ● ${state.fill}` : ""}${even === null ? "" : `   ┆ even, ${even}`}`;
  image.append(svg("text", { x: "50%", y: 27, "text-anchor": "middle" }, legend));
  return image;
}

function makeTable() {
  const rows = rowsOf(state.metric, state.fill);
  makeDomain(rows);
  table = new Tabulator($("table"), {
    data: rows, columns: columns(), layout: "fitColumns", height: "100%", rowHeight: 46, nestedFieldSeparator: false,
    index: "i", initialSort: [{ column: "order", dir: "asc" }], placeholder: "No model is left: widen the search or the filters.",
    columnHeaderSortMulti: false, headerSortClickElement: "header",
  });
  table.on("rowClick", (event, row) => { if (!event.target.closest("a")) openModel(row.getData().i); });
  table.on("dataFiltered", (_filters, rows) => told(rows.length));
  table.on("tableBuilt", () => { table.setFilter((row) => chosen(row.i)); headersByKey(); });
  $("table").addEventListener("keydown", walk);
}

// New metric, kernel padding or columns: other cells, the same order rule.
function remakeTable() {
  const rows = rowsOf(state.metric, state.fill);
  makeDomain(rows);
  table.setColumns(columns());
  table.replaceData(rows).then(() => { table.setSort("order", "asc"); headersByKey(); });
  tellMetric();
}

function told(shown) {
  const all = data.models.name.length;
  $("count").textContent = shown === all ? plural(all, "model") : `${shown.toLocaleString("en")} of ${plural(all, "model")}`;
}

// Column heads sort by Enter and Space as by a click.
function headersByKey() {
  for (const head of $("table").querySelectorAll(".tabulator-col.tabulator-sortable")) {
    head.tabIndex = 0;
    head.onkeydown = (event) => {
      if (event.target !== head || !["Enter", " "].includes(event.key)) return;
      event.preventDefault();
      head.querySelector(".tabulator-col-content").click();
    };
  }
}

// Arrow keys walk from model to model.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const link = event.target.closest("a[data-model]");
  if (!step || !link) return;
  event.preventDefault();
  const next = neighbour(Number(link.dataset.model), step);
  if (next === null) return;
  table.scrollToRow(next, "nearest", false).then(() => $("table").querySelector(`a[data-model="${next}"]`)?.focus());
}

// The model before or after `i` in the order shown, or null at the end.
function neighbour(i, step) {
  const shown = table.getRows("active").map((row) => row.getData().i);
  const place = shown.indexOf(i);
  return place < 0 ? null : shown[place + step] ?? null;
}

// What the table shows, as CSV; text that a spreadsheet could take for a formula is quoted.
function toCsv() {
  const metric = data.metrics[state.metric].id;
  const heads = ["rank", "model", "family", metric, `${metric}.low`, `${metric}.high`];
  if (state.fill) heads.push(...["", ".low", ".high", ".change"].map((end) => `${metric}[${state.fill}]${end}`));
  heads.push(...state.columns.map(furtherTitle));
  const lines = table.getRows("active").map((row) => csvLine(row.getData()));
  return [heads, ...lines].map((line) => line.map(csvCell).join(",")).join("\n") + "\n";
}

function csvLine(row) {
  const ends = (held) => [held.v, held.low, held.high];
  const padded = state.fill ? [...ends(row.padded), row.change] : [];
  return [row.rank, row.name, row.family, ...ends(row.plain), ...padded, ...state.columns.map((key) => row[key])];
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
