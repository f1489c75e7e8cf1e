// A model's visual field: its maps, one stride cell, and what causes the unevenness.

const SLIGHT = 0.01; // a variance below this, an imbalance of 0.1, does not fill a bar

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
  if (state.fill && words.fills[state.fill] && maps[state.fill].length && fills.length > 1)
    choices.push(["change", "difference"]);
  const pictures = (maps[onVariant(panel.variant)] || []).filter((map) => !isProfile(map));
  const bar = el(
    "div",
    { class: "bar" },
    choices.length > 1 ? segments("Variant", choices, panel.variant, (key) => (panel.variant = key)) : null,
    mapMenu(pictures),
  );
  return el(
    "section",
    { "aria-label": "Visual field" },
    bar,
    el("div", { class: "stage" }, field(pictures), el("div", { class: "profile" }, profile(), periods(), culprits())),
  );
}

function mapMenu(pictures) {
  if (pictures.length < 2) return null;
  const pick = el(
    "select",
    {
      "aria-label": "Which map",
      onchange: () => {
        panel.map = pick.value;
        drawPanel();
      },
    },
    pictures.map((map) => option(map.key, `${map.what} (${map.suite})`, map.key === panel.map)),
  );
  return el("label", { class: "soft" }, "Map ", pick);
}

function field(pictures) {
  const key = pictures.some((map) => map.key === panel.map) ? panel.map : (pictures[0] || {}).key;
  const map = currentMap((one) => one.key === key);
  if (!map)
    return el(
      "div",
      { class: "field" },
      el(
        "p",
        { class: "soft" },
        pictures.length
          ? "This map has no difference to show."
          : "These records have no maps, because they were packed without them. Make the page from the folder of the run to see the maps.",
      ),
    );
  const side = Math.min(narrow.matches ? window.innerWidth - 28 : 560, 560);
  const coarse =
    map.of && String(map.of) !== String(map.shape)
      ? `Means over blocks: ${map.shape.join(" × ")} of ${map.of.join(" × ")} values. `
      : map.of
        ? ""
        : "Means over blocks: finer maps would make this page too large. ";
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
  const noisy =
    { deadpixel: " What the samples do not show is shrunk away.", structure: "" }[map.suite] ??
    (map.suite ? " Noise makes this minimum too low; the metric corrects for that." : "");
  const text =
    panel.variant === "change"
      ? "The change in each phase through kernel padding."
      : `Least at row ${found.row}, column ${found.column}: ${number(found.low)} of the average; most ${number(found.high)}.${noisy}`;
  return el(
    "div",
    {},
    el("h3", { style: "margin-top:0" }, `One stride cell, ${rows} × ${columns} pixels`),
    mapFigure(map, panel.i, 160),
    el("figcaption", {}, text),
  );
}

// Variance of the profile by nested stride period, with and without kernel padding.
function periods() {
  const prefix = ["deadpixel", "structure"].find((suite) => cellOf(`${suite}.by_period_2`, firstFill()) !== null);
  if (!prefix) return null;
  const fills = isUntouched(panel.i) || !state.fill ? [firstFill()] : [firstFill(), state.fill];
  const rows = [2, 4, 8, 16, 32, 64]
    .map((period) => ({ period, values: fills.map((fill) => cellOf(`${prefix}.by_period_${period}`, fill)) }))
    .filter((row) => row.values.some((v) => v !== null));
  const most = Math.max(...rows.flatMap((row) => row.values.map((v) => v || 0)), SLIGHT);
  const lines = rows.flatMap((row) =>
    row.values.map((value, k) => barLine(k ? "" : `period ${row.period}`, value, most, k > 0)),
  );
  return el(
    "div",
    {},
    el("h3", {}, "Variance by stride period"),
    el("div", { class: "bars", role: "list" }, lines.flat()),
    el(
      "figcaption",
      {},
      `${prefix}.by_period: which stage causes the unevenness${fills.length > 1 ? `; below each, with kernel padding ${state.fill}` : ""}.`,
    ),
  );
}

function cellOf(id, fill) {
  const metric = metricIndex(id);
  return metric < 0 ? null : cell(metric, fill, panel.i).v;
}

function barLine(name, value, most, padded) {
  const width = `${Math.max(0, Math.min(100, (100 * (value || 0)) / most))}%`;
  return [
    el("span", { class: "name", title: name }, name),
    el("span", { class: `track${padded ? " padded" : ""}` }, el("i", { style: `width:${width}` })),
    el("span", { class: "number" }, number(value)),
  ];
}

function culprits() {
  const own = panel.words.fills[firstFill()];
  const rows = own ? (own.culprits || []).filter((row) => row[2] > 0) : [];
  if (!rows.length) return null;
  const most = rows[0][2] || 1;
  const more = own.layers - rows.length;
  const lines = rows.slice(0, 6).map(([name, what, reduction]) => {
    const line = barLine(name, reduction, most, false);
    line[0].title = what;
    return line;
  });
  return el(
    "div",
    {},
    el("h3", {}, "Layers at fault"),
    el("div", { class: "bars" }, lines.flat()),
    el(
      "figcaption",
      {},
      `The imbalance that padding the kernel of this layer alone removes${more > 0 ? `; ${plural(more, "more layer")} with less` : ""}.`,
    ),
  );
}
