// The cells of the ranking: rank, name, numbers, and intervals drawn on one scale.

let domain = null; // horizontal scale of the drawn intervals
let lopsided = {}; // which columns show both ends of their intervals

const rankText = ({ rank, rankHigh }) => (rank === null ? "" : rankHigh > rank ? `${rank}–${rankHigh}` : String(rank));

function rankCell(c) {
  const row = c.getData();
  if (row.rank === null) return el("span", { class: "rank", title: row.plain.why }, "–");
  const shared = row.rankHigh > row.rank;
  const label = rankText(row);
  const hint = shared ? `rank ${row.rank} to ${row.rankHigh}: the samples do not show more` : `rank ${row.rank}`;
  return el(
    "span",
    { class: `rank${shared ? " tied" : ""}${row.odd ? " odd" : ""}`, title: hint, "aria-label": hint },
    label,
  );
}

function nameCell(c) {
  const { i, name, family } = c.getData();
  const link = el(
    "a",
    {
      href: `#model=${i}`,
      "data-model": i,
      onclick: (event) => {
        event.preventDefault();
        openModel(i);
      },
    },
    name,
  );
  const own = Object.entries({ family, input: data.models.input[i] }).filter(([key]) => !state.columns.includes(key));
  const facts = [...own.map(([, words]) => words), ...sizeWords(i, state.columns)].filter(Boolean);
  return el(
    "span",
    { class: "model" },
    link,
    el("span", { class: "facts" }, defectMark(i, firstFill()), el("small", {}, facts.join(" · "))),
  );
}

// What is certainly wrong with a variant, by the words before the colon of each clause.
function defectMark(i, fill) {
  const text = defectsOf(i, fill);
  if (!text) return null;
  const kinds = new Set(text.split("; ").map((clause) => clause.split(/[:\s]/)[0]));
  return el("b", { class: "defect", title: text, "aria-label": `defects: ${text}` }, [...kinds].join(", "));
}

function paddedCell(c) {
  const { i, padded } = c.getData();
  return isUntouched(i)
    ? el("span", { class: "soft", title: `kernel padding ${state.fill} has no layer to pad` }, "untouched")
    : el(
        "span",
        { class: "value" },
        valueNode(padded, number, lopsided.padded),
        rankWords(padded),
        " ",
        defectMark(i, state.fill),
      );
}

// The rank of a variant with kernel padding, where variants are ranked.
function rankWords({ rank, rankHigh }) {
  if (rank === null) return null;
  return el("small", {}, ` rank ${rank}${rankHigh > rank ? `–${rankHigh}` : ""}`);
}

function changeCell(c) {
  const { i, moved } = c.getData();
  return moved.v === null || isUntouched(i) ? el("span") : valueNode(moved, signed, lopsided.moved);
}

// Every value and what is even is on the scale; of intervals, a few very wide ones must not squeeze the rest.
function makeDomain(rows) {
  lopsided = Object.fromEntries(
    ["plain", "padded", "moved"].map((part) => [part, anyLopsided(rows.map((row) => row[part]))]),
  );
  const even = data.metrics[state.metric].even;
  const cells = rows.flatMap((row) => [row.plain, row.padded].filter(Boolean));
  const whiskers = cells.flatMap((c) => [c.low, c.high]).filter((v) => v !== null);
  const most = [0.01, 0.99].map((share) => d3.quantile(whiskers, share));
  const [low = 0, high = 1] = d3.extent([...cells.map((c) => c.v), ...most, even].filter((v) => v !== null));
  const ends = low === high ? [low - 0.5, high + 0.5] : [low, high];
  domain = d3.scaleLinear(ends, [4, 96]).nice(4).clamp(true);
}

const percent = (value) => `${domain(value)}%`;

// On a narrow screen: the number, and the interval drawn under it; both ends in words have no room.
function smallCell(c) {
  const { plain } = c.getData();
  const shown = isLopsided(plain) ? { ...plain, low: null } : plain;
  return el("span", { class: "stack" }, valueNode(shown), drawn(c.getData(), 16, 2));
}

const drawnCell = (c) => drawn(c.getData(), 46, 4);

// As it is, with padding, their whiskers, and what an even model has, `height` pixels high.
function drawn({ i, plain, ...others }, height, gap) {
  const padded = isUntouched(i) ? null : others.padded;
  const even = data.metrics[state.metric].even;
  const middle = height / 2;
  const both = padded && padded.v !== null && plain.v !== null;
  const image = svg("svg", { class: "drawn", style: `height:${height}px`, "aria-hidden": "true" });
  if (even !== null)
    image.append(svg("line", { class: "even", x1: percent(even), x2: percent(even), y1: 0, y2: height }));
  if (both)
    image.append(svg("line", { class: "link", x1: percent(plain.v), x2: percent(padded.v), y1: middle, y2: middle }));
  mark(image, padded, "padded", both ? middle + gap : middle, gap);
  mark(image, plain, "asis", both ? middle - gap : middle, gap);
  return image;
}

function mark(image, value, kind, y, radius) {
  if (!value || value.v === null) return;
  if (value.low !== null && value.high !== null)
    image.append(
      svg("line", { class: "whisker", x1: percent(value.low), x2: percent(value.high), y1: y, y2: y }),
      ...beyond(value, y),
    );
  image.append(svg("circle", { class: kind, cx: percent(value.v), cy: y, r: Math.max(2.6, radius) }));
}

// Arrow heads where an interval goes on beyond the scale.
function beyond({ low, high }, y) {
  const [first, last] = domain.domain();
  const heads = [
    ["‹", low < first, "start", 0],
    ["›", high > last, "end", 100],
  ];
  return heads
    .filter(([, past]) => past)
    .map(([text, , anchor, x]) => svg("text", { class: "beyond", x: `${x}%`, y: y + 4, "text-anchor": anchor }, text));
}

function axisTitle() {
  const even = data.metrics[state.metric].even;
  const image = svg("svg", {
    class: "axis",
    "aria-label": `as it is: ring; with kernel padding: dot${data.intervals ? "; whiskers: 95 % intervals" : ""}`,
  });
  for (const tick of domain.ticks(4))
    image.append(svg("text", { x: percent(tick), y: 12, "text-anchor": "middle" }, minus(String(tick))));
  const legend = `○ as it is${state.fill ? `   ● ${state.fill}` : ""}${even === null ? "" : `   ┆ even, ${even}`}`;
  image.append(svg("text", { x: "50%", y: 27, "text-anchor": "middle" }, legend));
  return image;
}
