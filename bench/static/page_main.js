// Start: libraries, data, tools, views, theme.

const LIBRARIES = 3;
const THEMES = { auto: ["◐", "light"], light: ["○", "dark"], dark: ["●", "auto"] };

async function loadLibraries() {
  const texts = await Promise.all(d3Range(LIBRARIES).map((n) => blockText(`library-${n}`)));
  for (const text of texts) {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
  }
}

const d3Range = (n) => Array.from({ length: n }, (_, k) => k);

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  const [sign, next] = THEMES[name];
  $("theme").textContent = sign;
  $("theme").setAttribute("aria-label", `Colours: ${name === "auto" ? "as the system" : name}; switch to ${next}`);
  $("theme").title = `Colours: ${name === "auto" ? "as the system" : name}`;
  $("theme").onclick = () => {
    setTheme(next);
    remember(next);
  };
}

// Pages opened from disk may have no storage.
function remember(theme) {
  try {
    localStorage.setItem("perimetry-theme", theme);
  } catch {
    /* then it is not remembered */
  }
}

function remembered() {
  try {
    return localStorage.getItem("perimetry-theme");
  } catch {
    return null;
  }
}

function fillTools() {
  const counts = d3.rollup(
    data.models.family,
    (list) => list.length,
    (name) => name,
  );
  const families = d3.sort([...counts], (entry) => entry[0]);
  $("family").replaceChildren(
    option(
      "",
      `All ${plural(families.length, "famil").replace(/famils?$/, families.length === 1 ? "family" : "families")}`,
    ),
    ...families.map(([name, n]) => option(name, `${name} (${n})`)),
  );
  $("metric").replaceChildren(...metricOptions(state.metric));
  $("fill").replaceChildren(...treated().map((fill) => option(fill, fill)));
  $("fill-label").hidden = treated().length < 2;
  fillColumns();
}

function fillColumns() {
  const box = (key, text) => {
    const input = el("input", {
      type: "checkbox",
      value: key,
      checked: state.columns.includes(key),
      onchange: () => {
        pickColumn(key, input.checked);
      },
    });
    return el("label", { title: hintOf(key) }, input, el("span", {}, text));
  };
  const parts = [el("h3", {}, "model"), ...["family", "input", "weights"].map((key) => box(key, furtherTitle(key)))];
  if (data.joined)
    parts.push(el("h3", {}, "joined"), ...Object.keys(data.joined.columns).map((name) => box(`j:${name}`, name)));
  parts.push(
    el("h3", {}, "cost of measuring"),
    ...Object.keys(data.costs).map((key) => box(`c:${key}`, data.costs[key].title)),
  );
  for (const [suite, metrics] of d3.group(
    data.metrics.map((m, k) => ({ ...m, k })),
    (m) => m.suite,
  ))
    parts.push(el("h3", {}, suite), ...metrics.map((m) => box(`m${m.k}`, m.name)));
  $("column-list").replaceChildren(...parts);
}

function pickColumn(key, wanted) {
  state.columns = wanted ? [...state.columns, key] : state.columns.filter((one) => one !== key);
  remakeTable();
}

// The metric's definition, direction and even value, and the note on dead pixels.
function tellMetric() {
  const metric = data.metrics[state.metric];
  const best = { lower: "lowest first", higher: "highest first", neither: "in no order of merit" }[metric.better];
  const even = metric.even === null ? "" : ` It is ${metric.even} on an even model.`;
  const warned = ["structure", "deadpixel", "perturbation"].some((suite) => metric.suite.startsWith(suite));
  $("about").replaceChildren(
    el("strong", {}, metric.id),
    ...explained(`: ${metric.label ? `${metric.label}; ` : ""}${metric.definition}; ${best}.${even} `),
    metric.caveat && metric.caveat !== data.note ? `${metric.caveat} ` : "",
    warned ? el("em", {}, data.note) : "",
    state.down ? el("strong", {}, " Shown from the last rank; press Rank to turn the order.") : "",
  );
}

function listen() {
  const refilter = () => {
    table.refreshFilter();
    if (!$("view-plots").hidden) drawPlots();
  };
  $("search").addEventListener("input", () => {
    state.search = $("search").value;
    refilter();
  });
  $("family").addEventListener("change", () => {
    state.family = $("family").value;
    refilter();
  });
  $("metric").addEventListener("change", () => {
    state.metric = Number($("metric").value);
    state.down = false;
    remakeTable();
  });
  $("fill").addEventListener("change", () => {
    state.fill = $("fill").value;
    remakeTable();
  });
  $("filters").addEventListener("click", showFilters);
  $("csv").addEventListener("click", () => table.download("csv", "board.csv"));
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("panel").addEventListener("close", closeModel);
  $("panel").addEventListener("click", (event) => {
    if (event.target === $("panel")) $("panel").close();
  });
  document.addEventListener("click", (event) => {
    if (!$("columns").contains(event.target)) $("columns").open = false;
  });
  for (const media of [narrow, middling]) media.addEventListener("change", remakeTable);
  window.addEventListener("hashchange", followHash);
}

function showFilters() {
  const on = document.body.classList.toggle("show-filters");
  $("filters").setAttribute("aria-pressed", String(on));
  if (!on) table.clearHeaderFilter();
  table.redraw();
}

function startViews() {
  const tabs = ["ranking", "plots", "guide"];
  const show = (name) => {
    for (const one of tabs) {
      $(`view-${one}`).hidden = one !== name;
      $(`tab-${one}`).setAttribute("aria-selected", String(one === name));
      $(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    }
    if (name === "plots") drawPlots();
    if (name === "ranking") table.redraw();
  };
  tabs.forEach((name, place) => {
    $(`tab-${name}`).addEventListener("click", () => show(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(place + step + tabs.length) % tabs.length];
      show(next);
      $(`tab-${next}`).focus();
    });
  });
}

function followHash() {
  const wanted = location.hash.match(/^#model=(.+)$/);
  if (!wanted) return;
  let reference;
  try {
    reference = decodeURIComponent(wanted[1]);
  } catch {
    return;
  }
  const i = data.models.reference.indexOf(reference);
  if (i >= 0 && i !== state.open) openModel(i, false);
}

function fillGuide() {
  const licences = $("licences").content.textContent;
  $("guide").replaceChildren(
    el("h2", {}, "How to read this"),
    el(
      "dl",
      {},
      el("dt", {}, "Rank"),
      el(
        "dd",
        {},
        `${data.ranked === "models" ? "Models are ranked as they are" : "Every variant is ranked"}, by the metric chosen. ` +
          "A rank such as 2–5 means that the samples do not show more: over the whole page, the chance that two equal rows get different ranks is at most 5 %. Those of one rank are ordered by name. Exact numbers share a rank if their printed digits agree.",
      ),
      el("dt", {}, "Defects"),
      el(
        "dd",
        {},
        "A coloured word beside a model marks a certain defect, such as a dead region of the image. Point at it, or open the model, to see where it is. The rank does not count it.",
      ),
      el("dt", {}, "Field"),
      el(
        "dd",
        {},
        "Left: the sensitivity map, which shows how strongly the target depends on each pixel of the input. Right: the average over all stride cells, in which the pattern of the strided layers appears. Both range from 0 (dark) to twice the mean (bright); lightness is proportional to the value. Differences range from blue to red, with white at 0.",
      ),
      el("dt", {}, "Kernel padding"),
      el(
        "dd",
        {},
        "Strided kernels are enlarged to the next multiple of their stride, so that every phase of the input is read equally often. Differences are the value with kernel padding minus the value without it, paired on the same images if there are any.",
      ),
      el("dt", {}, "n/a"),
      el(
        "dd",
        {},
        "The number could not be measured. Point at it to see the reason. A missing number is never shown as 0.",
      ),
      el("dt", {}, "Filters"),
      el(
        "dd",
        {},
        "Type > 0.9, <= 3 or 0.2..0.8 under a column of numbers; a number alone means at least that number.",
      ),
    ),
    el("p", { style: "margin-top:14px" }, data.note),
    el("h2", {}, "Words"),
    el(
      "dl",
      {},
      Object.entries(data.words).flatMap(([word, text]) => [el("dt", {}, word), el("dd", {}, text)]),
    ),
    el("h2", {}, "Metrics"),
    el(
      "dl",
      {},
      data.metrics.flatMap((metric) => [
        el("dt", {}, metric.id),
        el("dd", {}, metricHint(metric).slice(metric.id.length + 2)),
      ]),
    ),
    el("h2", {}, "How these numbers were made"),
    el(
      "ul",
      {},
      data.caption.map((text) => el("li", {}, text)),
      data.left_out ? el("li", {}, data.left_out) : null,
      data.joined ? data.joined.tables.map((text) => el("li", {}, `Joined: ${text}.`)) : null,
      el("li", {}, `Made with ${data.made}. Every model’s panel offers its records.`),
    ),
    el("details", {}, el("summary", {}, "Licences of the libraries in this page"), el("pre", {}, licences)),
  );
}

// The key of a further column that the command asked for; null where the page has it anyway.
function columnKey(name) {
  const metric = metricIndex(name);
  if (metric >= 0) return `m${metric}`;
  const cost = name.replace("model.", "");
  if (data.costs[cost]) return `c:${cost}`;
  return ["family", "input", "weights"].includes(name) ? name : null;
}

async function start() {
  setTheme(remembered() in THEMES ? remembered() : "auto");
  await loadLibraries();
  data = { ...(await blockJson("data")), ...(await blockJson("details")) };
  thumbBytes = await block("thumbs");
  readColours();
  state.metric = Math.max(0, metricIndex(data.sort));
  state.fill = treated()[0] || null;
  state.down = data.worst_first;
  state.columns = data.columns.map(columnKey).filter((key) => key !== null && key !== `m${state.metric}`);
  $("sub").textContent = [
    plural(data.models.name.length, "model"),
    ...data.caption.filter((text) => text.startsWith("Images")).map((text) => text.slice(8, -1)),
    data.made,
  ].join(" · ");
  fillTools();
  makeTable();
  tellMetric();
  listen();
  startViews();
  fillGuide();
  followHash();
  document.documentElement.dataset.ready = "yes";
}

start().catch((error) => {
  $("about").textContent = `This page could not be drawn: ${error.message}. It needs a browser of 2023 or later.`;
  throw error;
});
