// What the table shows, before any cell is drawn: rows, ties, further columns, filters.

// One row object for each model; what is sorted is a number or null.
function rowsOf(metric, fill) {
  const better = data.metrics[metric].better;
  const base = firstFill();
  const rows = everyModel().map((i) => {
    const [plain, padded] = [cell(metric, base, i), fill ? cell(metric, fill, i) : null];
    return {
      i,
      name: data.models.name[i],
      family: data.models.family[i],
      rank: plain.rank,
      rankHigh: plain.rankHigh,
      plain,
      padded,
      moved: fill ? change(metric, fill, i) : null,
      asis: plain.v,
      with: padded && padded.v,
      change: fill ? change(metric, fill, i).v : null,
      ...furtherCells(i),
    };
  });
  const up = better === "lower" ? 1 : -1;
  const order = (a, b) => nullsLast(a.asis, b.asis, (x, y) => up * (x - y)) || a.i - b.i;
  const byName = (a, b) => (a.rank === null ? order(a, b) : a.rankHigh - b.rankHigh || (a.name < b.name ? -1 : 1));
  rows.sort((a, b) => nullsLast(a.rank, b.rank, (x, y) => x - y) || byName(a, b));
  rows.forEach((row, place) => {
    const before = rows[place - 1];
    const tied = before && before.rank === row.rank && before.rankHigh === row.rankHigh;
    row.order = row.rank === null ? null : tied ? before.order : place;
  });
  return markTies(rows);
}

function nullsLast(a, b, compare) {
  if (a === null || b === null) return (a === null) - (b === null);
  return compare(a, b);
}

// Which rows share a rank, and the parity of their group, so that neighbouring groups look different.
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

// Whether `value` is within `> 0.9`, `<= 3`, `0.2..0.8`, or at least the number given.
function passes(wanted, value) {
  const text = String(wanted).trim().replace("−", "-").replace(",", ".");
  const span = text.match(/^(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)$/);
  const bound = text.match(/^(>=|<=|>|<|=)?\s*(-?[\d.]+(?:e-?\d+)?)$/i);
  if (!span && !bound) return true;
  if (value === null || value === undefined) return false;
  if (span) return value >= Number(span[1]) && value <= Number(span[2]);
  const limit = Number(bound[2]);
  return (
    { ">": value > limit, "<": value < limit, "<=": value <= limit, "=": value === limit }[bound[1]] ?? value >= limit
  );
}

const isUntouched = (i) => Boolean(state.fill) && data.untouched[state.fill].includes(i);

// Text as CSV holds it: what a spreadsheet could read as a formula is quoted.
const csvText = (value) => (/^[=+\-@\t\r]/.test(value) ? `'${value}` : value);
