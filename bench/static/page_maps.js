// Maps on canvases: one lightness-monotone colour map for magnitudes, a diverging one with symmetric
// limits for differences. Every value is a square of whole screen pixels.

const THUMB_TOP = 2; // thumbnails all run from 0 to twice the mean, so that they compare
let colours = {};
let thumbBytes = null;

function readColours() {
  for (const [name, text] of Object.entries(data.colours)) colours[name] = bytesOf(text);
}

// Paint `values(k)` in 0..255, k counting row by row.
function paint(canvas, rows, columns, values, table) {
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  for (let k = 0; k < rows * columns; k++) {
    const colour = 3 * Math.max(0, Math.min(255, Math.round(values(k))));
    image.data.set([table[colour], table[colour + 1], table[colour + 2], 255], 4 * k);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Lay a canvas out so that a value is a whole number of screen pixels, about `side` wide.
function whole(canvas, side) {
  const screen = window.devicePixelRatio || 1;
  const longer = Math.max(canvas.width, canvas.height);
  const dots = Math.max(1, Math.floor((side * screen) / longer)); // screen pixels for each value
  canvas.style.width = `${(canvas.width * dots) / screen}px`;
  canvas.style.height = `${(canvas.height * dots) / screen}px`;
  return dots / screen;
}

function thumbOf(i, fill, kind) {
  return (data.thumbs[i][fill] || []).find((thumb) => thumb[0] === kind) || null;
}

// The thumbnails of a model, named for those who do not see them.
function thumbs(i, fill, kinds) {
  const found = kinds.map((kind) => thumbOf(i, fill, kind)).filter((thumb) => thumb !== null);
  if (!found.length) return el("span", { class: "soft", title: "these records have no maps" }, "–");
  return el(
    "span",
    { class: "thumbs" },
    found.map((thumb) => thumbCanvas(i, thumb)),
  );
}

function thumbCanvas(i, [kind, rows, columns, top, from]) {
  const what = kind === "whole" ? "sensitivity map" : "one stride cell";
  const canvas = el("canvas", { role: "img", title: what, "aria-label": `${what} of ${data.models.name[i]}` });
  paint(canvas, rows, columns, (k) => (thumbBytes[from + k] * top) / THUMB_TOP, colours.magnitude);
  whole(canvas, 32);
  return canvas;
}

// Every map of a model's panel, by kernel padding: those of its group, else the thumbnails.
async function mapsOf(i, words) {
  const [group, offset] = data.places.maps[i] || [null, 0];
  const found = {};
  for (const fill of Object.keys(words.fills)) {
    const facts = words.fills[fill].maps || [];
    const bytes = facts.length ? await block(`maps-${group}`) : thumbBytes;
    found[fill] = facts.length
      ? facts.map((map) => ({ ...map, bytes, from: offset + map.at, key: `${map.suite}:${map.protocol} ${map.name}` }))
      : (data.thumbs[i][fill] || []).map(asMap);
  }
  return withCommonScale(found);
}

// A thumbnail as a map of the panel.
function asMap([kind, rows, columns, top, from]) {
  const profile = kind === "profile";
  return {
    key: kind,
    name: profile ? "phase_profile" : "sensitivity",
    shape: [rows, columns],
    of: null,
    low: 0,
    high: top,
    label: "times the mean",
    signed: false,
    mean: true,
    bytes: thumbBytes,
    from,
    cell: null,
    what: profile ? "sensitivity of each phase" : "sensitivity",
    axes: profile ? [`row mod ${rows}`, `column mod ${columns}`] : ["row (block)", "column (block)"],
  };
}

const levelValue = (map, k) => map.low + (map.bytes[map.from + k] / 255) * (map.high - map.low);

// The map of treated less untreated; both are in units of their means.
function differenceMap(after, before) {
  if (!after || !before || !after.mean || !before.mean || String(after.shape) !== String(before.shape)) return null;
  const size = after.shape[0] * after.shape[1];
  const values = Float64Array.from({ length: size }, (_, k) => levelValue(after, k) - levelValue(before, k));
  const end = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  return { ...after, values, low: -end, high: end, signed: true, label: "change, in means of either map" };
}

const valueAt = (map, k) => (map.values ? map.values[k] : levelValue(map, k));

// Magnitudes run from 0 to twice the mean or, where some variant goes further, to its largest value,
// so that the variants of a model compare with each other and with the thumbnails.
function withCommonScale(maps) {
  const all = Object.values(maps).flat();
  for (const map of all)
    if (map.mean)
      map.end = Math.max(THUMB_TOP, ...all.filter((other) => other.key === map.key).map((other) => other.high));
  return maps;
}

const lowEnd = (map) => (map.end && !map.values ? 0 : map.low);
const highEnd = (map) => (map.end && !map.values ? map.end : map.high);

function paintMap(canvas, map) {
  const [rows, columns] = map.shape;
  const share = (k) => (255 * (valueAt(map, k) - lowEnd(map))) / (highEnd(map) - lowEnd(map) || 1);
  paint(canvas, rows, columns, share, map.signed ? colours.signed : colours.magnitude);
}

// Least and largest of a map, and where the least is.
function extremes(map) {
  let [low, high, where] = [Infinity, -Infinity, 0];
  for (let k = 0; k < map.shape[0] * map.shape[1]; k++) {
    const value = valueAt(map, k);
    if (value < low) [low, where] = [value, k];
    if (value > high) high = value;
  }
  return { low, high, row: Math.floor(where / map.shape[1]), column: where % map.shape[1] };
}

// A map with its colour bar, readout and, where it has one, the stride grid.
function mapFigure(map, i, side) {
  const canvas = el("canvas", { role: "img", tabindex: "0", "aria-label": describeMap(map, i) });
  paintMap(canvas, map);
  const dot = whole(canvas, side);
  const readout = el("div", { class: "readout", "aria-live": "off" }, "");
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(map.shape[1] - 1, Math.max(0, Math.floor((event.clientX - box.left) / dot)));
    const row = Math.min(map.shape[0] - 1, Math.max(0, Math.floor((event.clientY - box.top) / dot)));
    readout.textContent = `${map.axes[0]} ${row}, ${map.axes[1]} ${column}: ${number(valueAt(map, row * map.shape[1] + column))}`;
  });
  canvas.addEventListener("pointerleave", () => (readout.textContent = ""));
  return el("figure", {}, el("div", { class: "picture" }, canvas, grid(map)), scaleBar(map), readout);
}

function describeMap(map, i) {
  const found = extremes(map);
  return `${map.what} of ${data.models.name[i]}: from ${number(found.low)} to ${number(found.high)}, ${map.label}`;
}

function scaleBar(map) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  paint(canvas, 1, 256, (k) => k, map.signed ? colours.signed : colours.magnitude);
  return el(
    "div",
    { class: "scale" },
    el("span", {}, number(lowEnd(map))),
    canvas,
    el("span", {}, number(highEnd(map))),
    el("span", {}, map.label),
  );
}

// Light lines between stride cells, where the map has every pixel.
function grid(map) {
  if (!map.cell || !map.of || String(map.of) !== String(map.shape)) return null;
  const [rows, columns] = map.shape;
  const lines = [];
  for (let y = map.cell[0]; map.cell[0] > 1 && y < rows; y += map.cell[0])
    lines.push(svg("line", { x1: 0, x2: columns, y1: y, y2: y, "vector-effect": "non-scaling-stroke" }));
  for (let x = map.cell[1]; map.cell[1] > 1 && x < columns; x += map.cell[1])
    lines.push(svg("line", { x1: x, x2: x, y1: 0, y2: rows, "vector-effect": "non-scaling-stroke" }));
  return svg(
    "svg",
    { viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none", class: "stride-grid", "aria-hidden": "true" },
    lines,
  );
}
