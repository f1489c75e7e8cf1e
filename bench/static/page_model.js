// One model: its visual field, the causes, every number, and how it was made.

let panel = null; // what is shown: model, words, maps, variant, map

async function openModel(i, push = true) {
  const words = await wordsOf(i);
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

// The texts of a model; on a page of very many records the first models alone have any.
async function wordsOf(i) {
  const place = data.places.words[i];
  if (place) return (await blockJson(`words-${place[0]}`))[place[1]];
  const shown = data.fills.filter((fill) => data.numbers.some((by) => at(by[fill].v, i) !== null));
  return { fills: Object.fromEntries(shown.map((fill) => [fill, {}])), facts: [data.left_out], command: null };
}

function closeModel() {
  const i = state.open;
  state.open = null;
  history.replaceState(null, "", location.pathname + location.search);
  const link = $("table").querySelector(`a[data-model="${i}"]`);
  if (link) link.focus();
}

function drawPanel() {
  $("panel").replaceChildren(
    panelHead(),
    el("div", { class: "sheet-body" }, lead(), defectLine(), stage(), wordsPart(), numbersPart(), originPart()),
  );
}

function panelHead() {
  const { i } = panel;
  const facts = [
    data.models.family[i],
    data.models.input[i] && `${data.models.input[i]} pixels`,
    ...sizeWords(i),
    data.models.weights[i],
  ].filter(Boolean);
  const step = (by, name, sign) => {
    const next = neighbour(i, by);
    return el(
      "button",
      { class: "quiet", type: "button", "aria-label": name, disabled: next === null, onclick: () => openModel(next) },
      sign,
    );
  };
  return el(
    "div",
    { class: "sheet-head" },
    el(
      "div",
      {},
      el("h2", { id: "panel-title", style: "margin:0" }, data.models.name[i]),
      el("p", {}, facts.join(" · ")),
    ),
    step(-1, "Previous model", "↑"),
    step(1, "Next model", "↓"),
    el(
      "button",
      { class: "quiet", type: "button", "aria-label": "Close", autofocus: true, onclick: () => $("panel").close() },
      "Close",
    ),
  );
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

// The ranking metric of this model in a sentence or two.
function lead() {
  const { i } = panel;
  const metric = data.metrics[state.metric];
  const [plain, padded] = [cell(state.metric, firstFill(), i), state.fill ? cell(state.metric, state.fill, i) : null];
  if (plain.v === null) return el("p", { class: "lead" }, `${metric.id} could not be measured: ${plain.why}.`);
  const to = plain.rankHigh > plain.rank ? ` to ${plain.rankHigh}` : "";
  const place = plain.rank === null ? "" : ` Rank ${plain.rank}${to} of ${data.places_ranked}.`;
  const untouched = isUntouched(i);
  const after = untouched ? ` Kernel padding ${state.fill} has no layer to pad here.` : "";
  const unit = ["ratio", "share", ""].includes(metric.unit) ? "" : ` ${metric.unit}`;
  const moved = padded && padded.v !== null && !untouched;
  return el(
    "p",
    { class: "lead" },
    `${sentence(metric.label || metric.id)}: `,
    el("strong", {}, valueNode(plain)),
    `${unit}.${place}${after}`,
    moved ? ` With kernel padding ${state.fill}: ` : null,
    moved ? el("strong", {}, valueNode(padded)) : null,
    moved ? "." : null,
  );
}

// The certain defects of the variant that is shown, above its maps.
function defectLine() {
  const text = defectsOf(panel.i, onVariant(panel.variant));
  return text ? el("p", { class: "defects" }, el("b", { class: "defect" }, "defects"), `${sentence(text)}.`) : null;
}

function segments(name, choices, current, pick) {
  const buttons = choices.map(([key, text]) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": String(key === current),
        onclick: () => {
          pick(key);
          drawPanel();
          refocus(name, key);
        },
        "data-key": key,
      },
      text,
    ),
  );
  return el("div", { class: "segments", role: "group", "aria-label": name, "data-name": name }, buttons);
}

function refocus(name, key) {
  for (const group of $("panel").querySelectorAll(".segments"))
    if (group.dataset.name === name)
      for (const button of group.children) if (button.dataset.key === key) button.focus();
}

const listed = (texts, attributes = {}) =>
  el(
    "ul",
    attributes,
    texts.map((text) => el("li", {}, text)),
  );

function wordsPart() {
  const { words = [], gaps = [] } = panel.words.fills[onVariant(panel.variant)] || {};
  if (!words.length && !gaps.length) return null;
  return el(
    "section",
    {},
    el("h2", {}, `Report, ${fillName(onVariant(panel.variant))}`),
    el(
      "div",
      { class: "words" },
      words.length ? listed(words.map(explained)) : null,
      gaps.length ? [el("h3", {}, "Not measured"), listed(gaps)] : null,
    ),
  );
}

function numbersPart() {
  const groups = d3.group(
    data.metrics.map((metric, k) => ({ ...metric, k })),
    (metric) => metric.suite,
  );
  const heads = ["metric", fillName(firstFill()), ...(state.fill ? [fillName(state.fill), "difference"] : [])];
  const made = [...groups].map(([suite, metrics]) =>
    el(
      "details",
      { open: suite === data.metrics[state.metric].suite },
      el("summary", {}, `${suite}, ${plural(metrics.length, "metric")}`),
      el(
        "div",
        { class: "wide" },
        el(
          "table",
          { class: "plain" },
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              heads.map((text, k) => el("th", { scope: "col", class: k ? "number" : "" }, text)),
            ),
          ),
          el("tbody", {}, metrics.map(numberRow)),
        ),
      ),
    ),
  );
  return el("section", { class: "metrics" }, el("h2", {}, "All figures"), el("p", { class: "about" }, data.note), made);
}

function numberRow(metric) {
  const { i } = panel;
  const cells = [valueNode(cell(metric.k, firstFill(), i))];
  if (state.fill)
    cells.push(
      valueNode(cell(metric.k, state.fill, i)),
      valueNode({ ...change(metric.k, state.fill, i), why: undefined }, signed),
    );
  const even = metric.even === null ? "" : ` Even: ${metric.even}.`;
  const label = metric.label ? `${sentence(metric.label)}: ` : "";
  const caveat = metric.caveat && metric.caveat !== data.note ? ` ${metric.caveat}` : "";
  return el(
    "tr",
    {},
    el(
      "th",
      { scope: "row" },
      metric.name,
      el(
        "small",
        { class: "hide-narrow" },
        `${label}${metric.definition}${metric.unit ? ` (${metric.unit})` : ""}.${even}${caveat}`,
      ),
    ),
    cells.map((node) => el("td", { class: "number" }, node)),
  );
}

function originPart() {
  const { i, words } = panel;
  const own = words.fills[onVariant(panel.variant)] || {};
  return el(
    "section",
    {},
    el("h2", {}, "Where this comes from"),
    el(
      "ul",
      { class: "notes" },
      words.facts.map((text) => el("li", {}, text)),
      (own.notes || []).map((text) => el("li", {}, `Note: ${text}.`)),
    ),
    words.command
      ? [
          el("p", { class: "soft", style: "margin-top:10px" }, "To make these records again:"),
          el("pre", {}, words.command),
        ]
      : null,
    data.places.records[i]
      ? el(
          "button",
          { class: "quiet", type: "button", id: "download", onclick: () => download(i) },
          "Download its records (JSON)",
        )
      : null,
    data.tables || !data.places.records[i]
      ? null
      : el(
          "p",
          { class: "soft" },
          "Without layer tables, which would make this page too large; the folder of the run has them.",
        ),
  );
}

async function download(i) {
  const [group, place] = data.places.records[i];
  const records = (await blockJson(`records-${group}`))[place];
  save(
    `${data.models.name[i].replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 80)}.json`,
    "application/json",
    JSON.stringify(records, null, 1),
  );
}
