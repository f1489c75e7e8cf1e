"""Write this folder from a finished run: `python results/timm-init/publish.py RUN_DIR`.

RUN_DIR is what the command in README.md was given as --out; records of other models or suites that
are published stay, without maps. Written: board.csv (a row per model and
variant, differences paired), records.jsonl.gz (packed records, without layer tables), README.md.
Without RUN_DIR the README alone is written again, from the other two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from perimetry.adapters.reference import Reference
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.join import join_table
from perimetry.bench.ranking.page.numbers import representative_records
from perimetry.bench.ranking.page.page import write_page
from perimetry.bench.ranking.view import board_frame
from perimetry.bench.records.archive import RecordArchive, pack_records
from perimetry.bench.records.store import Store

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]
from fan_in import parting  # noqa: E402
from publishing import (  # noqa: E402
    commits,
    complete,
    days,
    families,
    rank_correlation,
    read_board,
    reflow,
    require_one_target,
    run_records,
    year,
)

COMMANDS = """\
    perimetry run $(cat results/timm-init/models.txt) --count 8 --members 8 --out RUN_DIR
    perimetry run $(cat results/timm-init/models.txt) --count 8 --members 8 --out RUN_DIR \\
        --suite padding --set padding.exchange=reflect, --kernel-padding none,box
    python results/timm-init/publish.py RUN_DIR"""
REASONS = {
    "csatv2": "The stem of CSATv2 is a fixed transform, of cosines, whose matrix would come with a "
    "checkpoint: `structure` counts it as weights, as a note of its records says."
}
"""Why expectation and measurement of a family part, whatever its weights are drawn from."""
TITLE = "Architectures at their initial state"
PAGE_BYTES = 3_000_000


def _architecture(reference: str) -> str:
    """A model as timm names it."""
    return Reference.parse_any(reference).tagged_name


def table(store: Store) -> pd.DataFrame:
    """The board of the run, its models named as timm names them, with family, year and accuracy."""
    frame = board_frame(Board(store.records()))
    frame["model"] = frame.model.map(_architecture)
    known, accuracy = families(), published()
    sides, grown = {}, {}
    for record in store.records():
        name = _architecture(record.model.reference)
        if record.model.spec:
            sides[name] = record.model.spec["height"]
        if record.model.treatment:
            grown[name, record.fill] = len(record.model.treatment["layers"])
    frame.insert(1, "family", frame.model.map(known))
    frame.insert(2, "year", frame.family.map(year))
    frame.insert(3, "side", frame.model.map(sides))
    frame.insert(4, "top1", frame.model.map(accuracy))
    frame.insert(
        5, "grown", [grown.get(row, 0) for row in zip(frame.model, frame.fill, strict=True)]
    )
    empty = [column for column in frame if frame[column].isna().all()]
    return frame.drop(columns=empty).sort_values(["model", "fill"]).round(6)


def published() -> dict[str, float]:
    """Top-1 accuracy of each architecture with timm's default weights, from top1.csv."""
    rows = pd.read_csv(HERE / "top1.csv")
    return dict(zip(rows.model.str.partition(".")[0], rows.top1, strict=True))


def readme(frame: pd.DataFrame, packed: RecordArchive) -> str:
    """The findings, in words and tables, all of them computed."""
    records = packed.records()
    require_one_target(records)
    plain = frame[frame.fill == "none"].set_index("model")
    boxed = frame[frame.fill == "box"].set_index("model")
    grown = boxed[boxed.grown > 0]
    known = plain[plain["deadpixel.weakest"].notna()]
    versions = records[0].environment.libraries
    images = next(r.images.count for r in records if r.images)
    minutes = sum(r.timing.load_s + r.timing.measure_s for r in records) / 60
    return f"""\
# Measured at the initial state: {len(plain)} architectures of {plain.family.nunique()} families

The gradient suites and `padding` over timm's architectures of at most 5 GMACs, at their own input
size, with random weights ({records[0].model.members} seeds, averaged; an interval is over seeds),
as they are and with kernel padding `box`. What an architecture does before anything is
learned: compare with `results/timm-structure` (what it implies) and `results/trained` (what
training makes of it).{left(plain)}

{COMMANDS}

torch {versions["torch"]}, timm {versions["timm"]}, {days(records)},
{images} dead-leaves images, seed 0, CPU,
one thread a worker beside other work; {minutes:.0f} minutes of computing for {len(records)}
records, of {commits(records)}.
`board.csv` has every number, `records.jsonl.gz` the packed
records, `board.html` both on one page with plots (maps are not packed: a page that is made from the
folder of a run has them), `top1.csv` the accuracies that timm publishes for its default weights
(see `results/accuracy`), `models.txt` what is to be measured (see choose.py).

## Findings

{agreement(known)}
{apart(known, pd.read_csv(HERE / "fan_in.csv", index_col="model"))}
{treatment(known, grown)}
{fields(known, grown)}
{borders(plain)}{boxed_borders(plain, grown)}
{outside(known)}

## Models, by their least sensitive phase

{rows(known, boxed)}

`weakest`: sensitivity of the least sensitive stride phase, as a share of the mean, measured, with
its 95 % interval; `structure` the same, expected exactly. `ERF` is the side of the effective
receptive field of the central unit in pixels, R² how Gaussian it is (empty where the map is flat
and no Gaussian fits), top-1 as published for trained weights (empty where there are none). Fewer
dead pixels is not simply better: Kim et al. 2023 found that they help ordinary classification
training, and hurt where small perturbations matter.

{missing(plain)}
"""


def agreement(known: pd.DataFrame) -> str:
    """How the exact expectation predicts what is measured."""
    both = known[known["structure.weakest"].notna()]
    x, y = both["structure.weakest"], both["deadpixel.weakest"]
    held = (x >= both["deadpixel.weakest.low"]) & (x <= both["deadpixel.weakest.high"])
    return (
        f"- **The architecture decides.** The exact expectation over all weights (`structure`, no "
        f"images, no weights) and the measured gradient agree: rank correlation "
        f"{rank_correlation(x, y)}; {int(held.sum())} of {len(both)} expectations lie in the "
        f"measured 95 % interval, the median distance is {(x - y).abs().median():.3f}."
    )


def left(plain: pd.DataFrame) -> str:
    """How many of the chosen architectures were not measured yet."""
    chosen = {_architecture(line) for line in (HERE / "models.txt").read_text().split()}
    rest = len(chosen - set(plain.index))
    if not rest:
        return ""
    return (
        f" Of the {len(chosen)} that were chosen {rest} are not measured yet: each family's "
        "cheapest come first. The same command goes on with them."
    )


def apart(known: pd.DataFrame, redrawn: pd.DataFrame) -> str:
    """Where expectation and measurement part by more than twofold, by family, and why."""
    ratio = known["deadpixel.weakest"] / known["structure.weakest"]
    far = parting(known)
    below, above = far[far < 1], far[far > 1]
    return (
        f"- They part by more than twofold in {len(far)} of {int(ratio.notna().sum())}. Measured "
        f"lower: {by_family(below, known)}. Measured higher: {by_family(above, known)}. "
        f"`structure` assumes weights of variance 1/fan_in and independent branches, which the "
        f"initial state need not have: layers that start smaller let residual branches add "
        f"little, so that the stem's pattern comes through undiluted. "
        f"{drawn_anew(far, known, redrawn)} A tensor and its own mean pool, the token mixer of "
        f"PoolFormer and EfficientFormer, are reckoned with as what they are."
    )


def drawn_anew(far: pd.Series, known: pd.DataFrame, redrawn: pd.DataFrame) -> str:
    """What those that are `far` apart measure with weights of variance 1/fan_in."""
    expected = known["structure.weakest"].reindex(redrawn.index)
    held = (redrawn.low <= expected) & (expected <= redrawn.high)
    ratio = redrawn.weakest / expected
    others = ratio[~held]
    (members,), (commit,) = redrawn.members.unique(), redrawn.commit.unique()
    why = [REASONS[f] for f in sorted(set(known.family.reindex(others.index))) if f in REASONS]
    return (
        f"With weights drawn from 1/fan_in instead (`fan_in.py`, `fan_in.csv`: {members} seeds, "
        f"commit `{commit}`) these {len(redrawn)} measure {ratio.median():.2f} of what is "
        f"expected in the median, where it was {far.median():.2f}. In {int(held.sum())} the "
        f"expectation lies in the measured interval, in the others it does not: "
        f"{by_family(others, known)}.{''.join(f' {reason}' for reason in why)}"
    )


def by_family(ratio: pd.Series, known: pd.DataFrame) -> str:
    """Families with how many of their models part, and the median of measured over expected."""
    if ratio.empty:
        return "none"
    sizes = known.family.value_counts()
    groups = ratio.groupby(known.family.reindex(ratio.index))
    return ", ".join(
        f"{family} ({len(some)} of {sizes[family]}, {some.median():.2f} times)"
        for family, some in sorted(groups, key=lambda pair: pair[1].median())
    )


def treatment(known: pd.DataFrame, grown: pd.DataFrame) -> str:
    """What `box` does to the uneven ones whose kernels it grows."""
    uneven = known[known["deadpixel.weakest.high"] < 1]
    measured = grown.index[grown["deadpixel.weakest"].notna()]
    after = grown.loc[measured.intersection(uneven.index)]
    before = uneven.loc[after.index]
    gained = after["deadpixel.weakest.change.low"] > 0
    even_after = after["deadpixel.weakest.high"] >= 1
    return (
        f"- **{len(uneven)} of {len(known)} are shown to be uneven** (the interval of the worst "
        f"phase ends below 1). `box` grows kernels in {len(after)} of them: the least sensitive "
        f"phase gains in {int(gained.sum())} beyond its paired interval, the median goes from "
        f"{before['deadpixel.weakest'].median():.2f} to {after['deadpixel.weakest'].median():.2f}, "
        f"the median imbalance from {before['deadpixel.imbalance'].median():.3f} to "
        f"{after['deadpixel.imbalance'].median():.3f}; {int(even_after.sum())} are then no longer "
        f"shown to be uneven."
    )


def fields(known: pd.DataFrame, grown: pd.DataFrame) -> str:
    """Effective receptive fields: size, shape, and what `box` changes of those that it can."""
    size = known["erf.luo_size"] / known.side
    wider = grown["erf.luo_size.change.low"] > 0
    narrower = grown["erf.luo_size.change.high"] < 0
    least, most = size.idxmin(), size.idxmax()
    return (
        f"- Effective fields take from {size[least]:.0%} of the image's side ({least}) to "
        f"{size[most]:.0%} ({most}), in the median {size.median():.0%}. "
        f"{int((known['erf.r_squared.low'] > 0.9).sum())} of {int(size.notna().sum())} are close "
        f"to a Gaussian (R² above 0.9 throughout its interval), "
        f"{int((known['erf.r_squared.high'] < 0.5).sum())} are none (below 0.5). `box` widens "
        f"{int(wider.sum())} of {int(grown['erf.luo_size'].notna().sum())} fields beyond the "
        f"interval, where it grows kernels, and narrows {int(narrower.sum())}."
    )


def borders(plain: pd.DataFrame) -> str:
    """What a small stimulus does at the border, and what is left of that without zeros there."""
    seen = plain[plain["padding.border_drop"].notna()]
    drop, least = seen["padding.border_drop"], seen["padding.blind_weakest"]
    eased = seen["padding.exchange_reflect.high"] < 0
    worse = seen["padding.exchange_reflect.low"] > 0
    tried = seen["padding.exchange_reflect"].notna()
    unread = seen["padding.uneven_layers"] > 0
    return (
        f"- **Borders are served less** ({len(seen)} architectures, `padding`, 4 weight sets). A "
        f"small stimulus loses {drop.median():.0%} of its response between centre and border in "
        f"the median, more than none beyond the interval in "
        f"{int((seen['padding.border_drop.low'] > 0).sum())} and less than none in "
        f"{int((seen['padding.border_drop.high'] < 0).sum())}; the least served place gets "
        f"{least.median():.2f} of the mean response, from {least.min():.2f} ({least.idxmin()}) to "
        f"{least.max():.2f} ({least.idxmax()}). Reflected pixels in place of the network's own "
        f"padding lower the drop beyond the interval in {int(eased.sum())} of {int(tried.sum())} "
        f"that pad, and raise it in {int(worse.sum())}. Opposite sides, left and right or top and "
        f"bottom, are shown to differ in {int(sides_differ(seen).sum())}, by however little; "
        f"{int(unread.sum())} have strided layers that never read part of their padding. "
        f"{_rest(plain.drop(seen.index))}"
    )


def boxed_borders(plain: pd.DataFrame, grown: pd.DataFrame) -> str:
    """What `box` changes at the borders of those whose kernels it grows."""
    after = grown[grown["padding.border_drop"].notna()]
    before = plain.loc[after.index]
    sides = [int(sides_differ(side).sum()) for side in (after, before)]
    unread = [int((side["padding.uneven_layers"] > 0).sum()) for side in (after, before)]
    return (
        f"\n- **Borders with `box`** ({len(after)} of {len(grown)} architectures whose kernels it "
        f"grows): the drop between centre and border "
        f"{changed('border_drop', before, after)}; the share of the least served place "
        f"{changed('blind_weakest', before, after)}. Opposite sides are shown to differ in "
        f"{sides[0]} ({sides[1]} without it); {unread[0]} ({unread[1]}) have strided layers that "
        f"never read part of their padding. {_rest(grown.drop(after.index))}"
    )


def changed(metric: str, before: pd.DataFrame, after: pd.DataFrame) -> str:
    """How `metric` of `padding` changes in the median, and in how many models beyond doubt."""
    old, new = (side[f"padding.{metric}"].median() for side in (before, after))
    up = int((after[f"padding.{metric}.change.low"] > 0).sum())
    down = int((after[f"padding.{metric}.change.high"] < 0).sum())
    return (
        f"goes from {old:.2f} to {new:.2f} in the median, up in {up} and down in {down} beyond "
        f"the paired interval"
    )


def sides_differ(side: pd.DataFrame) -> pd.Series:
    """Whether opposite sides of the image are shown to be served unequally, by model."""
    return (side["padding.blind_left_right.low"] > 0) | (side["padding.blind_top_bottom.low"] > 0)


def _rest(without: pd.DataFrame) -> str:
    """A sentence on each kind of architecture `without` a measured border."""
    reasons = without["padding.border_drop.reason"].fillna("not measured")
    later = int((reasons == "not measured").sum())
    said = [f"Not measured by it: {n} ({r})." for n, r in reasons.items() if r != "not measured"]
    return " ".join([*([f"Open: {later}."] if later else []), *said])


def outside(known: pd.DataFrame) -> str:
    """Rank correlations with what is not measured here."""
    return (
        "- Rank correlation of the measured least sensitive phase with the published top-1 "
        f"accuracy: {rank_correlation(known['deadpixel.weakest'], known.top1)}; with the year: "
        f"{rank_correlation(known['deadpixel.weakest'], known.year)}; of the effective field's "
        f"size with accuracy: {rank_correlation(known['erf.luo_size'] / known.side, known.top1)}. "
        "Architectures, weights and recipes differ at once: none of this is a cause."
    )


def rows(known: pd.DataFrame, boxed: pd.DataFrame) -> str:
    """One row per model, without and with `box`."""
    found = []
    for name, row in known.sort_values("deadpixel.weakest").iterrows():
        after = boxed.loc[name]
        same = after["deadpixel.weakest"] == row["deadpixel.weakest"]
        found.append(
            (
                name,
                "" if pd.isna(row.year) else int(row.year),
                interval(row),
                row["structure.weakest"],
                row["deadpixel.imbalance"],
                "untouched" if same else interval(after),
                None if same else after["deadpixel.imbalance"],
                row["erf.luo_size"],
                None if pd.isna(row["erf.r_squared"]) else row["erf.r_squared"],
                None if pd.isna(row.top1) else row.top1,
            )
        )
    heads = ("model", "year", "weakest", "structure", "imbalance", "with `box`", "imbalance")
    formats = ("", "", "", ".3f", ".3f", "", ".3f", ".0f", ".2f", ".1f")
    heads = (*heads, "ERF", "R²", "top-1")
    return tabulate(found, heads, tablefmt="github", floatfmt=formats, missingval="")


def interval(row: pd.Series) -> str:
    """The least sensitive phase with its interval."""
    value, low, high = (row[f"deadpixel.weakest{end}"] for end in ("", ".low", ".high"))
    return "n/a" if pd.isna(value) else f"{value:.3f} ({low:.2f} to {high:.2f})"


def missing(plain: pd.DataFrame) -> str:
    """Those without a measured profile, and why."""
    rest = plain[plain["deadpixel.weakest"].isna()]
    if rest.empty:
        return ""
    found = [(name, why(row)) for name, row in rest.iterrows()]
    return "## Not measured\n\n" + tabulate(found, ("model", "reason"), tablefmt="github")


def why(row: pd.Series) -> str:
    """The reason why a row has no measured profile."""
    said = (row.get(f"deadpixel.{name}") for name in ("weakest.reason", "error"))
    return next((str(one)[:160] for one in said if isinstance(one, str)), "")


def render() -> str:
    """The README of what is published here."""
    return reflow(
        readme(
            read_board(HERE),
            RecordArchive(HERE / "records.jsonl.gz"),
        )
    )


def main() -> None:
    """Write board.csv and records.jsonl.gz where a run is given, and README.md from them."""
    if len(sys.argv) > 1:
        store = run_records(sys.argv[1])
        complete(store, HERE)
        table(store).to_csv(HERE / "board.csv", index=False)
        pack_records(store, HERE / "records.jsonl.gz", tables=False)
        board = Board(store.records())
        write_page(
            board,
            HERE / "board.html",
            title=TITLE,
            joined=join_table(HERE / "top1.csv", representative_records(board)),
            largest=PAGE_BYTES,
        )
    (HERE / "README.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
