// Any number against any other, with their rank correlation, and one of them family by family.

const WHICH = [
  ["plain", "as it is"],
  ["padded", "with kernel padding"],
  ["change", "difference"],
];
const SMALL = 3; // so few points have no interval of their correlation
const WHISKERS = 150; // more points than this would drown in their intervals
let plotsDrawn = false;

// What can be plotted: `m3` a metric, `j:top1`, `c:memory`.
function plotChoices(select, current) {
  const groups = metricOptions(null).map((group) => {
    for (const one of group.children) one.value = `m${one.value}`;
    return group;
  });
  if (data.joined)
    groups.push(
      el(
        "optgroup",
        { label: "joined" },
        Object.keys(data.joined.columns).map((name) => option(`j:${name}`, name)),
      ),
    );
  const costs = Object.entries(data.costs);
  if (costs.length)
    groups.push(
      el(
        "optgroup",
        { label: "cost of measuring" },
        costs.map(([key, cost]) => option(`c:${key}`, cost.title)),
      ),
    );
  select.replaceChildren(...groups);
  select.value = current;
}

// Accuracy where a table has it, else its first number.
const joinedFirst = (names) => names.find((name) => /^top1\b/.test(name)) || names[0];

function startPlots() {
  const headline = `m${state.metric}`;
  const accuracy = data.joined && `j:${joinedFirst(Object.keys(data.joined.columns))}`;
  const [exact, measured] = [metricIndex("structure.weakest"), metricIndex("deadpixel.weakest")];
  const both = exact >= 0 && measured >= 0;
  plotChoices($("x-what"), accuracy ? headline : both ? `m${exact}` : headline);
  plotChoices($("y-what"), accuracy || (both ? `m${measured}` : headline));
  for (const axis of ["x", "y"]) {
    $(`${axis}-which`).replaceChildren(
      ...WHICH.filter(([key]) => key === "plain" || state.fill).map(([key, text]) => option(key, text)),
    );
    for (const part of ["what", "which"]) $(`${axis}-${part}`).addEventListener("change", drawPlots);
  }
  if (!accuracy && !both && state.fill) $("y-which").value = "padded";
  $("swap").addEventListener("click", swapAxes);
  $("labels").addEventListener("change", drawPlots);
  $("save-svg").addEventListener("click", () => save("plot.svg", "image/svg+xml", svgText()));
  $("save-png").addEventListener("click", savePng);
  plotsDrawn = true;
}

function swapAxes() {
  for (const part of ["what", "which"])
    [$(`x-${part}`).value, $(`y-${part}`).value] = [$(`y-${part}`).value, $(`x-${part}`).value];
  drawPlots();
}

// Value and interval of one model on an axis.
function onAxis(axis, i) {
  const [what, which] = [$(`${axis}-what`).value, $(`${axis}-which`).value];
  if (!what.startsWith("m")) return { v: further(what, i), low: null, high: null };
  const metric = Number(what.slice(1));
  if (which === "change") return change(metric, state.fill, i);
  return cell(metric, which === "padded" ? state.fill : firstFill(), i);
}

function axisName(axis) {
  const what = $(`${axis}-what`).value;
  if (!what.startsWith("m")) return furtherTitle(what);
  const which = { plain: "", padded: `, kernel padding ${state.fill}`, change: `, change by kernel padding ${state.fill}` }[
    $(`${axis}-which`).value
  ];
  return furtherTitle(what) + which;
}

function points() {
  return everyModel()
    .filter(chosen)
    .map((i) => ({ i, name: data.models.name[i], family: data.models.family[i], x: onAxis("x", i), y: onAxis("y", i) }))
    .filter((point) => point.x.v !== null && point.y.v !== null);
}

function ranksOf(values) {
  const order = d3.sort(d3.range(values.length), (k) => values[k]);
  const ranks = new Float64Array(values.length);
  for (let from = 0; from < order.length;) {
    let to = from;
    while (to + 1 < order.length && values[order[to + 1]] === values[order[from]]) to++;
    for (let k = from; k <= to; k++) ranks[order[k]] = (from + to) / 2;
    from = to + 1;
  }
  return ranks;
}

// Spearman's rank correlation, ties by mean ranks; null where one side does not vary.
function spearman(xs, ys) {
  const [a, b] = [ranksOf(xs), ranksOf(ys)];
  const [ma, mb] = [d3.mean(a), d3.mean(b)];
  const product = d3.sum(a, (_, k) => (a[k] - ma) * (b[k] - mb));
  const size = Math.sqrt(d3.sum(a, (v) => (v - ma) ** 2) * d3.sum(b, (v) => (v - mb) ** 2));
  return size > 0 ? product / size : null;
}

// 95 % interval by Fisher's z with the standard error of Bonett and Wright (2000).
function spearmanInterval(rho, n) {
  if (n <= SMALL || Math.abs(rho) >= 1) return null;
  const wide = 1.959964 * Math.sqrt((1 + rho ** 2 / 2) / (n - 3));
  return [-1, 1].map((side) => Math.tanh(Math.atanh(rho) + side * wide));
}

function tellCorrelation(found) {
  const rho = spearman(
    found.map((p) => p.x.v),
    found.map((p) => p.y.v),
  );
  const ends = rho === null ? null : spearmanInterval(rho, found.length);
  const text = rho === null ? "no rank correlation: one side does not vary" : `Spearman’s ρ = ${minus(rho.toFixed(3))}`;
  const span = ends ? ` (95 % ${minus(ends[0].toFixed(2))} to ${minus(ends[1].toFixed(2))})` : "";
  $("correlation").textContent = `${text}${span}, n = ${found.length.toLocaleString("en")}`;
}

// How a joined number came to its models, where one is shown.
function joinedNote() {
  const shown = ["x", "y"].some((axis) => $(`${axis}-what`).value.startsWith("j:"));
  return shown ? `; ${data.joined.note}` : "";
}

// Logarithmic where all is positive and spans more than two decades.
function kindOf(values) {
  const [low, high] = d3.extent(values);
  return low > 0 && high / low > 100 ? "log" : "linear";
}

function drawPlots() {
  if (!plotsDrawn) startPlots();
  const found = points();
  tellCorrelation(found);
  $("plot-count").textContent =
    `${found.length.toLocaleString("en")} of ${plural(data.models.name.length, "model")} have both` + joinedNote();
  drawScatter(found);
  drawStrip(found);
}

function evenOf(axis) {
  const what = $(`${axis}-what`).value;
  if (!what.startsWith("m")) return null;
  return $(`${axis}-which`).value === "change" ? 0 : data.metrics[Number(what.slice(1))].even;
}

function drawScatter(found) {
  const width = Math.min(920, $("view-plots").clientWidth - (narrow.matches ? 28 : 48));
  const [x, y] = ["x", "y"].map((axis) => ({
    type: kindOf(found.map((p) => p[axis].v)),
    label: axisName(axis),
    grid: true,
    nice: true,
  }));
  const whiskers = found.length > WHISKERS ? [] : ["x", "y"].map((axis) => whisker(found, axis));
  const evens = ["x", "y"].flatMap((axis) =>
    evenOf(axis) === null || { x, y }[axis].type === "log"
      ? []
      : [Plot[axis === "x" ? "ruleX" : "ruleY"]([evenOf(axis)], { stroke: "var(--even)", strokeDasharray: "2,3" })],
  );
  const place = { x: (p) => p.x.v, y: (p) => p.y.v };
  const plot = Plot.plot({
    width,
    height: Math.max(320, Math.round(width * 0.56)),
    marginLeft: 64,
    marginTop: 32,
    marginBottom: 44,
    x,
    y,
    style: { background: "none", fontSize: "12.5px" },
    ariaLabel: `${axisName("y")} against ${axisName("x")}`,
    ariaDescription: $("correlation").textContent,
    marks: [
      ...evens,
      ...whiskers,
      Plot.dot(found, {
        ...place,
        r: found.length > 300 ? 2.6 : 4,
        fill: "var(--accent)",
        fillOpacity: found.length > 300 ? 0.45 : 0.8,
      }),
      Plot.tip(
        found,
        Plot.pointer({
          ...place,
          title: (p) =>
            `${p.name}\n${p.family}\n${axisName("x")}: ${number(p.x.v)}\n${axisName("y")}: ${number(p.y.v)}`,
        }),
      ),
    ],
  });
  plot.addEventListener("click", () => plot.value && openModel(plot.value.i));
  $("scatter").replaceChildren(plot);
  nameDots(plot, found, place);
}

// Names beside the dots; where there is room only, dots at the edges of the cloud come first.
function nameDots(plot, found, place) {
  const wanted = $("labels").value;
  if (wanted === "none" || !found.length) return;
  const [x, y] = ["x", "y"].map((axis) => plot.scale(axis).apply);
  const [mx, my] = [d3.median(found, place.x), d3.median(found, place.y)].map((v, k) => [x, y][k](v));
  const dots = found.map((p) => ({ name: p.name, px: x(place.x(p)), py: y(place.y(p)) }));
  const far = (dot) => -Math.hypot(dot.px - mx, dot.py - my);
  const [, , width, height] = plot.getAttribute("viewBox").split(" ").map(Number);
  const taken = dots.map(({ px, py }) => [px - 4, py - 4, px + 4, py + 4]);
  const group = svg("g", { class: "names", "font-size": 11, fill: "var(--soft)" });
  for (const dot of d3.sort(dots, far)) {
    const wide = 6.2 * dot.name.length;
    const right = dot.px + 7 + wide < width;
    const left = right ? dot.px + 7 : dot.px - 7 - wide;
    const box = [left, dot.py - 6, left + wide, dot.py + 6];
    const overlaps = taken.some((b) => box[0] < b[2] && box[2] > b[0] && box[1] < b[3] && box[3] > b[1]);
    if (wanted === "some" && (overlaps || left < 0 || box[3] > height)) continue;
    taken.push(box);
    const at = { x: right ? dot.px + 7 : dot.px - 7, y: dot.py + 4, "text-anchor": right ? "start" : "end" };
    group.append(svg("text", at, dot.name));
  }
  plot.append(group);
}

// The plot as a file of its own: colours of the page in place of its variables, on its background.
function svgText() {
  const plot = $("scatter").querySelector("svg").cloneNode(true);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  plot.setAttribute("xmlns", SVG);
  plot.prepend(svg("rect", { width: "100%", height: "100%", fill: colour("--paper") }));
  plot.setAttribute("color", colour("--ink"));
  plot.setAttribute("font-family", "system-ui, sans-serif");
  return new XMLSerializer().serializeToString(plot).replace(/var\((--[\w-]+)[^)]*\)/g, (_, name) => colour(name));
}

// Three pixels for each of the screen's.
function savePng() {
  const plot = $("scatter").querySelector("svg");
  const [, , width, height] = plot.getAttribute("viewBox").split(" ").map(Number);
  const picture = new Image();
  picture.onload = () => {
    const canvas = el("canvas", { width: 3 * width, height: 3 * height });
    const drawing = canvas.getContext("2d");
    drawing.drawImage(picture, 0, 0, 3 * width, 3 * height);
    canvas.toBlob((blob) => save("plot.png", "image/png", blob));
  };
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText())}`;
}

function whisker(found, axis) {
  const ranged = found.filter((p) => p[axis].low !== null && p[axis].high !== null);
  const other = axis === "x" ? "y" : "x";
  const ends = { [`${axis}1`]: (p) => p[axis].low, [`${axis}2`]: (p) => p[axis].high, [other]: (p) => p[other].v };
  return Plot[axis === "x" ? "ruleY" : "ruleX"](ranged, { ...ends, stroke: "var(--faint)", strokeOpacity: 0.55 });
}

// The vertical number family by family, medians marked, in order of the medians.
function drawStrip(found) {
  const width = Math.min(920, $("view-plots").clientWidth - (narrow.matches ? 28 : 48));
  const families = new Set(found.map((p) => p.family));
  $("strip-about").textContent =
    `${axisName("y")}; a dot for each model, a bar at the median of each of ${plural(families.size, "famil").replace(/famils?$/, families.size === 1 ? "family" : "families")}.`;
  const base = { x: (p) => p.y.v, y: "family" };
  const plot = Plot.plot({
    width,
    height: 60 + 16 * families.size,
    marginLeft: 170,
    x: { label: axisName("y"), grid: true, nice: true, axis: "both", type: kindOf(found.map((p) => p.y.v)) },
    y: { label: null },
    style: { background: "none", fontSize: "12px" },
    ariaLabel: `${axisName("y")} by family`,
    marks: [
      Plot.dot(found, { ...base, r: 2.6, fill: "var(--accent)", fillOpacity: 0.5, sort: { y: "x", reduce: "median" } }),
      Plot.tickX(found, Plot.groupY({ x: "median" }, { ...base, stroke: "var(--ink)", strokeWidth: 2 })),
      Plot.tip(found, Plot.pointer({ ...base, title: (p) => `${p.name}\n${number(p.y.v)}` })),
    ],
  });
  plot.addEventListener("click", () => plot.value && openModel(plot.value.i));
  $("strip").replaceChildren(plot);
}
