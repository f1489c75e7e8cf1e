// The ranking: a row for each model, with and without kernel padding, and their difference.

let table = null;
const narrow = window.matchMedia("(max-width: 760px)");
const middling = window.matchMedia("(max-width: 1080px)");

function headed(title, hint) {
  return () => el("span", { title: hint || title }, title);
}

const filterWords = (words) => ({ elementAttributes: { "aria-label": words } });

// A column of the CSV alone: `read` gives its value for a row.
const hidden = (title, read) => ({
  title,
  field: `csv:${title}`,
  visible: false,
  download: true,
  accessorDownload: (_value, row) => read(row),
});

const endsOf = (title, cell) =>
  data.intervals ? ["low", "high"].map((end) => hidden(`${title}.${end}`, (row) => cell(row)[end])) : [];

const figures = {
  sorter: numeric,
  hozAlign: "right",
  cssClass: "right",
  headerHozAlign: "right",
  headerSortStartingDir: "desc",
  headerFilter: "input",
  headerFilterPlaceholder: "> 0.9",
  headerFilterParams: filterWords("keep numbers of this column: > 0.9, <= 3, 0.2..0.8"),
  headerFilterFunc: (wanted, value) => passes(wanted, value),
};

function columns() {
  const metric = data.metrics[state.metric];
  const small = narrow.matches;
  const base = firstFill();
  const ranks = ["", ...everyModel().map((i) => rankText(cell(state.metric, base, i)))];
  const found = [
    {
      title: "Rank",
      field: "order",
      width: Math.max(small ? 52 : 76, 28 + 9 * Math.max(...ranks.map((text) => text.length))),
      sorter: numeric,
      formatter: rankCell,
      titleFormatter: headed(small ? "#" : "Rank", "rank by " + metric.id),
      titleDownload: "rank",
      accessorDownload: (_value, row) => row.rank,
      cssClass: "right",
      headerHozAlign: "right",
    },
    data.thumbs.some((fills) => Object.values(fills).some((shown) => shown.length)) && {
      title: "Field",
      field: "i",
      width: small ? 48 : 92,
      headerSort: false,
      download: false,
      formatter: (c) => thumbs(c.getValue(), base, small ? ["profile"] : ["whole", "profile"]),
      titleFormatter: headed(
        small ? "" : "Field",
        "the sensitivity map, and one stride cell of it; 0 to twice the mean",
      ),
    },
    {
      title: "Model",
      field: "name",
      minWidth: small ? 110 : 250,
      widthGrow: 3,
      formatter: nameCell,
      titleFormatter: headed("Model"),
      titleDownload: "model",
      accessorDownload: csvText,
      headerFilter: "input",
      headerFilterParams: filterWords("keep names that contain this"),
    },
    hidden("family", (row) => csvText(row.family)),
    hidden("defects", (row) => csvText(defectsOf(row.i, base) || "")),
    {
      ...figures,
      title: "As it is",
      field: "asis",
      width: small ? 112 : 178,
      formatter: (c) => (small ? smallCell(c) : valueNode(c.getData().plain, number, lopsided.plain)),
      titleFormatter: headed(small ? metric.name : fillName(base), metricHint(metric)),
      titleDownload: metric.id,
    },
    ...endsOf(metric.id, (row) => row.plain),
  ].filter(Boolean);
  if (state.fill) {
    const key = `${metric.id}[${state.fill}]`;
    found.push({
      ...figures,
      title: "With",
      field: "with",
      width: 178,
      visible: !small,
      download: true,
      titleDownload: key,
      formatter: paddedCell,
      titleFormatter: headed(
        fillName(state.fill),
        `${metric.id} with kernel padding ${state.fill}. Kernel padding: ${data.words["kernel padding"]}`,
      ),
    });
    if (data.ranked === "variants") found.push(hidden(`rank[${state.fill}]`, (row) => row.padded.rank));
    found.push(...endsOf(key, (row) => row.padded), {
      ...figures,
      title: "Difference",
      field: "change",
      width: 172,
      visible: !small,
      download: true,
      titleDownload: `${key}.change`,
      formatter: changeCell,
      titleFormatter: headed("difference", `${metric.id} with less without kernel padding ${state.fill}, paired`),
    });
  }
  const further = state.columns.map((key) => ({ ...furtherColumn(key), visible: !small, download: true }));
  const drawn = {
    title: "Drawn",
    field: "drawn",
    download: false,
    minWidth: 190,
    widthGrow: 3,
    headerSort: false,
    formatter: drawnCell,
    titleFormatter: axisTitle,
    cssClass: "wide",
  };
  const all = [...found, drawn, ...further];
  const taken = d3.sum(all, (column) => (column.visible === false ? 0 : column.width || column.minWidth));
  const hasRoom = !small && !middling.matches && taken <= $("table").clientWidth;
  return hasRoom ? all : [...found, ...further];
}

const hintOf = (key) => (key.startsWith("m") ? metricHint(data.metrics[Number(key.slice(1))]) : furtherTitle(key));

function furtherColumn(key) {
  const title = furtherTitle(key);
  if (isText(key))
    return {
      title: "",
      field: key,
      width: 130,
      sorter: "string",
      headerFilter: "input",
      headerFilterParams: filterWords("keep names that contain this"),
      titleFormatter: headed(title),
      titleDownload: title,
      accessorDownload: csvText,
      formatter: (c) => el("span", {}, c.getValue()),
    };
  const text = ["c:parameters", "c:macs"].includes(key) ? shortCount : number;
  const counts = key.startsWith("m") && data.metrics[Number(key.slice(1))].counts;
  return {
    ...figures,
    title: "",
    field: key,
    width: 128,
    headerWordWrap: true,
    titleFormatter: headed(title.replace(/^.*\./, ""), hintOf(key)),
    titleDownload: title,
    formatter: (c) => (c.getValue() === null ? missing("no number") : el("span", {}, text(c.getValue(), counts))),
  };
}

// On a wide screen there is room for family, input and sizes below a name.
function rowHeight() {
  const height = narrow.matches ? 46 : 62;
  document.documentElement.style.setProperty("--row", `${height}px`);
  return height;
}

function makeTable() {
  const rows = rowsOf(state.metric, state.fill);
  makeDomain(rows);
  table = new Tabulator($("table"), {
    data: rows,
    columns: columns(),
    layout: "fitColumns",
    height: "100%",
    rowHeight: rowHeight(),
    nestedFieldSeparator: false,
    index: "i",
    initialSort: [{ column: "order", dir: state.down ? "desc" : "asc" }],
    placeholder: "No model matches: widen the search or the filters.",
    columnHeaderSortMulti: false,
    headerSortClickElement: "header",
  });
  table.on("rowClick", (event, row) => {
    if (!event.target.closest("a")) openModel(row.getData().i);
  });
  table.on("dataFiltered", (_filters, rows) => showCount(rows.length));
  table.on("tableBuilt", () => {
    table.setFilter((row) => chosen(row.i));
    headersByKey();
  });
  $("table").addEventListener("keydown", walk);
}

// Other cells for a new metric, kernel padding or set of columns; rows are ordered by the new rank.
function remakeTable() {
  const rows = rowsOf(state.metric, state.fill);
  makeDomain(rows);
  table.setColumns(columns());
  table.replaceData(rows).then(() => {
    table.setSort("order", state.down ? "desc" : "asc");
    headersByKey();
  });
  tellMetric();
}

function showCount(shown) {
  const all = data.models.name.length;
  $("count").textContent =
    shown === all ? plural(all, "model") : `${shown.toLocaleString("en")} of ${plural(all, "model")}`;
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
  return place < 0 ? null : (shown[place + step] ?? null);
}
