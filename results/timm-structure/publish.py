"""Write this folder from a finished run: `python results/timm-structure/publish.py RUN_DIR`.

RUN_DIR is what the command in README.md was given as --out. Written: board.csv (a row per model and
variant), records.jsonl.gz (packed records, without layer tables), board.html (all on one page),
README.md. Without RUN_DIR the README alone is written again, from the other files.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd
from tabulate import tabulate

from perimetry.adapters.reference import Reference
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.records.archive import RecordArchive, pack_records
from perimetry.bench.records.store import Store
from perimetry.suites.architecture.expected_maps import ASSUMED, NOT_INDEPENDENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import (  # noqa: E402
    by_family,
    commits,
    days,
    rank_correlation,
    read_board,
    reflow,
    run_records,
    year,
)
from publishing import families as families_of_timm  # noqa: E402

WHAT = "'timm:*@init' --suite structure --kernel-padding none,zero"
COMMAND = f"perimetry run {WHAT} --workers 2 --out RUN_DIR"
TITLE = "What timm's architectures imply"
PAGE_BYTES = 3_000_000
"""What the page may weigh: maps are made coarser until it fits."""
EVEN = 0.95
"""A model counts as even when its least sensitive phase gets this share of the average or more."""
MIDDLE = 2021
"""The year in which families of attention began to fill timm."""
LAYERS = re.compile(r" in layers? '.*$")
FUNCTION = re.compile(r"'\w+'")
"""In a note: the layers in which something is assumed, and the function that makes it."""
METRICS = (
    *("weakest", "imbalance", "ratio", "by_period_2", "relL1", "path_ratio"),
    *("receptive_field", "coverage", "uneven_layers"),
)


def table(store: Store) -> pd.DataFrame:
    """One row per model and fill: family, status, reason, metrics, worst culprit, seconds."""
    family = families_of_timm()
    rows = []
    for record in store.records():
        name = Reference.parse_any(record.model.reference).tagged_name
        culprits = record.tables.get("culprits", [])
        row = {
            "model": name,
            "family": family[name],
            "year": year(family[name]),
            "fill": record.fill,
            "status": record.status,
            "input": f"{record.model.spec.get('height')}x{record.model.spec.get('width')}",
            "stride": stride(record),
        }
        row |= {m: value(record, m) for m in METRICS}
        row["culprit"] = culprits[0]["name"] if culprits else None
        row["grown"] = len((record.model.treatment or {}).get("layers", []))
        row["reason"] = reason(record)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["model", "fill"]).reset_index(drop=True)


def value(record, metric):
    """A metric's value, or None."""
    held = record.metrics.get(metric)
    return None if held is None or held.value is None else round(held.value, 6)


def stride(record):
    """Total stride from input to target, rows."""
    target = record.model.target
    return round(record.model.spec["height"] / target["height"]) if target else None


def reason(record):
    """Why there is no number, or ''."""
    if record.status == "failed":
        return record.error.message
    held = record.metrics.get("weakest")
    return record.reason or (held.reason if held is not None and held.reason else "")


def readme(frame: pd.DataFrame, store: RecordArchive) -> str:
    """The findings, in words and tables, all of them computed."""
    plain = frame[frame.fill == "none"].set_index("model")
    treated = frame[frame.fill == "zero"].set_index("model")
    known = plain[plain.weakest.notna()]
    even = known[known.weakest >= EVEN]
    uneven = known[known.weakest < EVEN]
    cured = treated.loc[uneven.index]
    left = cured[cured.weakest < EVEN]
    records = store.records()
    rough, guessed = noted(records, NOT_INDEPENDENT), noted(records, ASSUMED)
    versions = records[0].environment.libraries
    seconds = sum(r.timing.load_s + r.timing.measure_s for r in records)
    return f"""\
# What timm's architectures imply: structure of the whole zoo

Every architecture of timm {versions["timm"]} ({len(plain)}), at its own input size, as it is
and with kernel
padding `zero` (every tap, the new ones too, free to learn): the expected sensitivity of the
input over all
random weights: no weights, no data, no noise. It is exact, but for the
{len({*rough, *guessed})} below.

    {COMMAND}
    python results/timm-structure/publish.py RUN_DIR

torch {versions["torch"]}, timm {versions["timm"]}, {days(records)}, one thread a process
on a shared machine, {seconds / 60:.0f} minutes of computing for {len(frame)} records,
of {commits(records)}. `board.csv`
has every number, `records.jsonl.gz` the packed records; `board.html` has both on one page that
opens from disk, with ranking, maps and plots.

## Findings

- {len(known)} of {len(plain)} architectures have a phase profile; the other
  {len(plain) - len(known)} are listed below.
- **{len(even)} are even** (the least sensitive phase gets {EVEN:.0%} of the average or more),
  **{len(uneven)} are
  not**. Among the uneven ones the median least sensitive phase gets
{uneven.weakest.median():.2f} of the average,
  the least {uneven.weakest.min():.3f} ({uneven.weakest.idxmin()}).
- Kernel padding takes {len(uneven) - len(left)} of the {len(uneven)} uneven ones above
  {EVEN:.0%};
  {len(left)} stay below: {by_family(left)}.
- {share_of_period(uneven)} of the uneven ones owe more than half of their variance to period 2.
{by_year(known)}
- In {len(rough)} architectures the map is an approximation, and a note of the record says where:
  fixed mixtures of units that follow one another (a pool behind attention or behind a max-pool
  whose windows overlap, two resamplings in a row) are taken as independent. By family:
  {by_family(plain.loc[rough])}.
- In {len(guessed)} something is assumed that the network does not say, and a note says what (the
  table below counts). By family: {by_family(plain.loc[guessed])}.
- {int((plain.uneven_layers > 0).sum())} architectures have strided layers that never read the
  last rows or
  columns of their padding at their own input size ("Mind the Pad").

## Families, the most uneven first

{families(plain, treated)}

`weakest` is the median over the family's models; `even` counts models at {EVEN:.0%} or more.

## The ten whose least sensitive phase gets least

{worst(known, treated)}

## What is assumed, by number of architectures

{assumptions(records, len(plain))}

{missing_table(plain)}
The year of a family is that of the first paper that its module in timm names. How these numbers
go with accuracy: see the set of measured architectures, `results/timm-init`.
"""


def noted(records: Sequence[Record], beginning: str) -> list[str]:
    """The architectures of whose records a note begins like this."""
    return [
        Reference.parse_any(record.model.reference).tagged_name
        for record in records
        if record.fill == "none" and any(note.startswith(beginning) for note in record.notes)
    ]


def by_year(known: pd.DataFrame) -> str:
    """How evenness went with the years, one value a family."""
    dated = known.groupby("family")[["weakest", "year"]].median().dropna()
    early, late = dated[dated.year < MIDDLE], dated[dated.year >= MIDDLE]
    return (
        f"- Year: of {len(dated)} families whose paper has a date, the {len(early)} before "
        f"{MIDDLE} have a median least sensitive phase of {early.weakest.median():.2f}, the "
        f"{len(late)} since then {late.weakest.median():.2f}; rank correlation with the year "
        f"{rank_correlation(dated.year, dated.weakest)}."
    )


def assumptions(records: Sequence[Record], count: int) -> str:
    """One row an assumption that the notes tell, whichever function makes it, the most first."""
    models = defaultdict(set)
    for record in records:
        if record.fill == "none":
            for note in record.notes:
                if note.startswith(ASSUMED):
                    what = LAYERS.sub("", note.removeprefix(ASSUMED))
                    models[FUNCTION.sub("a function", what)].add(record.model.reference)
    rows = sorted(((what, len(found)) for what, found in models.items()), key=lambda r: (-r[1], r))
    return tabulate(rows, headers=("assumed", f"architectures, of {count}"), tablefmt="github")


def share_of_period(uneven: pd.DataFrame) -> str:
    """Share of models whose variance comes mostly from period 2."""
    shares = uneven.by_period_2 / uneven.imbalance**2
    return f"{(shares > 0.5).mean():.0%}"


def families(plain: pd.DataFrame, treated: pd.DataFrame) -> str:
    """One row a family, by median `weakest`."""
    groups = defaultdict(list)
    for name, row in plain[plain.weakest.notna()].iterrows():
        groups[row.family].append(name)
    rows = []
    for family, names in groups.items():
        after = [treated.weakest.get(n) for n in names]
        rows.append(
            (
                family,
                int(dated) if (dated := plain.year[names[0]]) == dated else "",
                len(names),
                sum(plain.weakest[n] >= EVEN for n in names),
                round(median(plain.weakest[n] for n in names), 3),
                round(median(plain.imbalance[n] for n in names), 3),
                round(median(a for a in after if a is not None and a == a), 3),
            )
        )
    heads = ("family", "year", "models", "even", "weakest", "imbalance", "weakest with `zero`")
    return tabulate(sorted(rows, key=lambda row: row[4:]), heads, tablefmt="github", missingval="")


def worst(known: pd.DataFrame, treated: pd.DataFrame) -> str:
    """The ten smallest values, one a family."""
    first = known.sort_values("weakest").groupby("family", sort=False).head(1).head(10)
    rows = [
        (name, row.family, row.weakest, treated.weakest.get(name), row.culprit or "")
        for name, row in first.iterrows()
    ]
    heads = ("model (the worst of its family)", "family", "weakest", "with `zero`", "first culprit")
    return tabulate(rows, heads, tablefmt="github", floatfmt=".3f")


def missing_table(plain: pd.DataFrame) -> str:
    """Those without a profile, by reason."""
    rest = plain[plain.weakest.isna()]
    if rest.empty:
        return ""
    rows = [
        (why[:160], len(names), ", ".join(sorted(names)[:4]) + (" ..." if len(names) > 4 else ""))
        for why, names in rest.groupby("reason").groups.items()
    ]
    text = tabulate(rows, ("reason", "models", "such as"), tablefmt="github")
    return f"## Not measured\n\n{text}\n"


def main() -> None:
    """Write board.csv and records.jsonl.gz where a run is given, and README.md from them."""
    if len(sys.argv) > 1:
        store = run_records(sys.argv[1])
        table(store).to_csv(HERE / "board.csv", index=False)
        pack_records(store, HERE / "records.jsonl.gz", tables=False)
        write_page(Board(store.records()), HERE / "board.html", title=TITLE, largest=PAGE_BYTES)
    (HERE / "README.md").write_text(render(), encoding="utf-8")


def render() -> str:
    """The README of what is published here."""
    return reflow(readme(read_board(HERE), RecordArchive(HERE / "records.jsonl.gz")))


if __name__ == "__main__":
    main()
