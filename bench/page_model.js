// One model: its visual field first, then what makes it so, then every number and where it is from.

const SLIGHT = 0.01; // a variance below this, an imbalance of 0.1, does not fill a bar
let panel = null; // what is shown: model, words, maps, variant, map

async function openModel(i, push = true) {
  const [group, place] = data.places.words[i];
  const words = (await blockJson(`words-${group}`))[place];
  const maps = await mapsOf(i, words);
  const variant = words.fills[firstFill()] ? firstFill() : Object.keys(words.fills)[0];
  const suite = data.metrics[state.metric].suite.split(":")[0];
  const pictures = (maps[variant] || []).filter((map) => !isProfile(map));
  panel = { i, words, maps, variant, map: (pictures.find((map) => map.suite === suite) || pictures[0] || {}).key };
  state.open = i;
  if (push) history.replaceState(null, "", `#model=${encodeURIComponent(data.models.reference[i])}`);
  drawPanel();
  if (!$("panel").open) $("panel").showModal();
  $("panel").scrollTop = 0;
}

function closeModel() {
  const i = state.open;
  state.open = null;
  history.replaceState(null, "", location.pathname + location.search);
  const link = $("table").querySelector(`a[data-model="${i}"]`);
  if (link) link.focus();
}

function drawPanel() {
  $("panel").replaceChildren(panelHead(), el("div", { class: "sheet-body" }, lead(), stage(), wordsPart(), numbersPart(), originPart()));
}

function panelHead() {
  const { i } = panel;
  const facts = [data.models.family[i], data.models.input[i] && `${data.models.input[i]} pixels`, data.models.weights[i]].filter(Boolean);
  const step = (by, name, sign) => {
    const next = neighbour(i, by);
    return el("button", { class: "quiet", type: "button", "aria-label": name, disabled: next === null, onclick: () => openModel(next) }, sign);
  };
  return el("div", { class: "sheet-head" },
    el("div", {}, el("h2", { id: "panel-title", style: "margin:0" }, data.models.name[i]), el("p", {}, facts.join(" · "))),
    step(-1, "Previous model", "↑"), step(1, "Next model", "↓"),
    el("button", { class: "quiet", type: "button", "aria-label": "Close", autofocus: true, onclick: () => $("panel").close() }, "Close"));
}

// The ranking metric of this model in a sentence or two.
function lead() {
  const { i } = panel;
  const metric = data.metrics[state.metric];
  const [plain, padded] = [cell(state.metric, firstFill(), i), state.fill ? cell(state.metric, state.fill, i) : null];
  if (plain.v === null) return el("p", { class: "lead" }, `${metric.id} could not be measured: ${plain.why}.`);
  const shared = plain.rank === null ? 0 : everyModel().filter((k) => cell(state.metric, firstFill(), k).rank === plain.rank).length;
  const place = plain.rank === null ? "" : ` Rank ${plain.rank} of ${data.models.name.length}${shared > 1 ? `, shared by ${shared}` : ""}.`;
  const untouched = isUntouched(i);
  const after = untouched ? ` Kernel padding ${state.fill} finds nothing to grow here.` : "";
  const what = metric.name === "weakest" ? "The worst-served phase of the input gets " : `${metric.id} is `;
  const unit = metric.name === "weakest" ? " of the average sensitivity" : metric.unit && metric.unit !== "ratio" ? ` ${metric.unit}` : "";
  const moved = padded && padded.v !== null && !untouched;
  return el("p", { class: "lead" }, what, el("strong", {}, valueNode(plain)), `${unit}.${place}${after}`,
    moved ? ` With kernel padding ${state.fill}: ` : null, moved ? el("strong", {}, valueNode(padded)) : null, moved ? "." : null);
}

function segments(name, choices, current, pick) {
  const buttons = choices.map(([key, text]) => el("button", { type: "button", "aria-pressed": String(key === current), onclick: () => { pick(key); drawPanel(); refocus(name, key); }, "data-key": key }, text));
  return el("div", { class: "segments", role: "group", "aria-label": name, "data-name": name }, buttons);
}

function refocus(name, key) {
  for (const group of $("panel").querySelectorAll(".segments"))
    if (group.dataset.name === name) for (const button of group.children) if (button.dataset.key === key) button.focus();
}

const isProfile = (map) => map.name.endsWith("_profile");
const onVariant = (variant) => (variant === "change" ? state.fill : variant);

// The map asked for, of the variant or of the difference that kernel padding makes.
function currentMap(pick) {
  const { maps, variant } = panel;
  const after = (maps[onVariant(variant)] || []).find(pick);
  if (variant !== "change") return after || null;
  return differenceMap(after, (maps[firstFill()] || []).find(pick));
}

// Map and choice on the left; profile, periods and culprits on the right.
function stage() {
  const { words, maps } = panel;
  const fills = Object.keys(words.fills);
  const choices = fills.map((fill) => [fill, fillName(fill)]);
  if (state.fill && words.fills[state.fill] && maps[state.fill].length && fills.length > 1) choices.push(["change", "difference"]);
  const pictures = (maps[onVariant(panel.variant)] || []).filter((map) => !isProfile(map));
  const bar = el("div", { class: "bar" }, choices.length > 1 ? segments("Variant", choices, panel.variant, (key) => (panel.variant = key)) : null, mapMenu(pictures));
  return el("section", { "aria-label": "Visual field" }, bar, el("div", { class: "stage" }, field(pictures), el("div", { class: "profile" }, profile(), periods(), culprits())));
}

function mapMenu(pictures) {
  if (pictures.length < 2) return null;
  const pick = el("select", { "aria-label": "Which map", onchange: () => { panel.map = pick.value; drawPanel(); } },
    pictures.map((map) => option(map.key, `${map.what} (${map.suite})`, map.key === panel.map)));
  return el("label", { class: "soft" }, "Map ", pick);
}

function field(pictures) {
  const key = pictures.some((map) => map.key === panel.map) ? panel.map : (pictures[0] || {}).key;
  const map = currentMap((one) => one.key === key);
  if (!map) return el("div", { class: "field" }, el("p", { class: "soft" }, pictures.length ? "This map has no difference to show." : "These records hold no maps: they were packed without them. Render the page from the folder of the run to see them."));
  const side = Math.min(narrow.matches ? window.innerWidth - 28 : 560, 560);
  const coarse = map.of && String(map.of) !== String(map.shape) ? `Means over blocks: ${map.shape.join(" × ")} of ${map.of.join(" × ")} values. ` : map.of ? "" : "Means over blocks; finer maps would make this page too large. ";
  const note = `${map.what[0].toUpperCase()}${map.what.slice(1)}. ${coarse}${map.cell && !coarse ? `Light lines enclose stride cells of ${map.cell.join(" × ")} pixels.` : ""}`;
  return el("div", { class: "field" }, mapFigure(map, panel.i, side), el("figcaption", {}, note));
}

// The phase profile beside the map that is shown: one stride cell at full resolution.
function profile() {
  const shown = (panel.maps[onVariant(panel.variant)] || []).find((map) => map.key === panel.map) || {};
  const map = currentMap((one) => isProfile(one) && one.suite === shown.suite) || currentMap(isProfile);
  if (!map) return null;
  const found = extremes(map);
  const [rows, columns] = map.shape;
  const noisy = map.suite && map.suite !== "structure" ? " The least of a noisy profile is too low; the metric corrects for that." : "";
  const text = panel.variant === "change" ? "What kernel padding changes in each phase." : `Least at row ${found.row}, column ${found.column}: ${number(found.low)} of the average; most ${number(found.high)}.${noisy}`;
  return el("div", {}, el("h3", { style: "margin-top:0" }, `One stride cell, ${rows} × ${columns} pixels`), mapFigure(map, panel.i, 160), el("figcaption", {}, text));
}

// Variance of the profile by nested stride period, with and without kernel padding.
function periods() {
  const prefix = ["deadpixel", "structure"].find((suite) => cellOf(`${suite}.by_period_2`, firstFill()) !== null);
  if (!prefix) return null;
  const fills = isUntouched(panel.i) || !state.fill ? [firstFill()] : [firstFill(), state.fill];
  const rows = [2, 4, 8, 16, 32, 64].map((period) => ({ period, values: fills.map((fill) => cellOf(`${prefix}.by_period_${period}`, fill)) })).filter((row) => row.values.some((v) => v !== null));
  const most = Math.max(...rows.flatMap((row) => row.values.map((v) => v || 0)), SLIGHT);
  const lines = rows.flatMap((row) => row.values.map((value, k) => barLine(k ? "" : `period ${row.period}`, value, most, k > 0)));
  return el("div", {}, el("h3", {}, "Variance by stride period"), el("div", { class: "bars", role: "list" }, lines.flat()), el("figcaption", {}, `${prefix}.by_period: which stage causes the unevenness${fills.length > 1 ? `; below each, with padding ${state.fill}` : ""}.`));
}

function cellOf(id, fill) {
  const metric = metricIndex(id);
  return metric < 0 ? null : cell(metric, fill, panel.i).v;
}

function barLine(name, value, most, padded) {
  const width = `${Math.max(0, Math.min(100, (100 * (value || 0)) / most))}%`;
  return [el("span", { class: "name", title: name }, name), el("span", { class: `track${padded ? " padded" : ""}` }, el("i", { style: `width:${width}` })), el("span", { class: "number" }, number(value))];
}

function culprits() {
  const held = panel.words.fills[firstFill()];
  const rows = held ? held.culprits.filter((row) => row[2] > 0) : [];
  if (!rows.length) return null;
  const most = rows[0][2] || 1;
  const more = held.layers - rows.length;
  const lines = rows.slice(0, 6).map(([name, what, reduction]) => { const line = barLine(name, reduction, most, false); line[0].title = what; return line; });
  return el("div", {}, el("h3", {}, "Culprits"), el("div", { class: "bars" }, lines.flat()), el("figcaption", {}, `How much imbalance goes when that layer alone is padded${more > 0 ? `; ${plural(more, "more layer")} matter less` : ""}.`));
}

function wordsPart() {
  const held = panel.words.fills[onVariant(panel.variant)] || {};
  const parts = (held.words || []).map(([head, said]) => el("section", {}, el("h3", {}, head), el("ul", {}, said.map((text) => el("li", {}, text)))));
  const gaps = (held.gaps || []).length ? [el("section", {}, el("h3", {}, "Not measured"), el("ul", {}, held.gaps.map((text) => el("li", {}, text))))] : [];
  if (!parts.length && !gaps.length) return null;
  return el("section", {}, el("h2", {}, `What was found, ${fillName(onVariant(panel.variant))}`), el("div", { class: "words" }, parts, gaps));
}

function numbersPart() {
  const groups = d3.group(data.metrics.map((metric, k) => ({ ...metric, k })), (metric) => metric.suite);
  const heads = ["metric", fillName(firstFill()), ...(state.fill ? [fillName(state.fill), "difference"] : [])];
  const made = [...groups].map(([suite, metrics]) => el("details", { open: suite === data.metrics[state.metric].suite },
    el("summary", {}, `${suite}, ${plural(metrics.length, "metric")}`),
    el("div", { class: "wide" }, el("table", { class: "plain" }, el("thead", {}, el("tr", {}, heads.map((text, k) => el("th", { scope: "col", class: k ? "number" : "" }, text)))), el("tbody", {}, metrics.map(numberRow))))));
  return el("section", { class: "metrics" }, el("h2", {}, "Every number"), el("p", { class: "about" }, data.note), made);
}

function numberRow(metric) {
  const { i } = panel;
  const cells = [valueNode(cell(metric.k, firstFill(), i))];
  if (state.fill) cells.push(valueNode(cell(metric.k, state.fill, i)), valueNode({ ...change(metric.k, state.fill, i), why: undefined }, signed));
  const even = metric.even === null ? "" : ` Even: ${metric.even}.`;
  return el("tr", {}, el("th", { scope: "row" }, metric.name, el("small", { class: "hide-narrow" }, `${metric.definition}${metric.unit ? ` (${metric.unit})` : ""}.${even}`)), cells.map((node) => el("td", { class: "number" }, node)));
}

function originPart() {
  const { i, words } = panel;
  const held = words.fills[onVariant(panel.variant)] || {};
  return el("section", {}, el("h2", {}, "Where this comes from"),
    el("ul", { class: "notes" }, words.facts.map((text) => el("li", {}, text)), (held.notes || []).map((text) => el("li", {}, `Note: ${text}.`))),
    words.command ? [el("p", { class: "soft", style: "margin-top:10px" }, "To make these records again:"), el("pre", {}, words.command)] : null,
    el("button", { class: "quiet", type: "button", id: "download", onclick: () => download(i) }, "Download its records (JSON)"),
    data.tables ? null : el("p", { class: "soft" }, "Without layer tables, which would make this page too large; the folder of the run has them."));
}

async function download(i) {
  const [group, place] = data.places.records[i];
  const records = (await blockJson(`records-${group}`))[place];
  save(`${data.models.name[i].replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 80)}.json`, "application/json", JSON.stringify(records, null, 1));
}
