"""Make this folder: `python results/fit/publish.py FIT_FOLDER TEST_FOLDER NAME=REF ...`.

FIT_FOLDER holds the photographs that may be fitted on, TEST_FOLDER others, for measuring; README.md
says which. REF is what `perimetry run` takes, such as mobilenetv2=timm:mobilenetv2_100@FILE.
A row goes to frontier.csv as soon as it is there, and rows that are there are not made again; then
frontier.png and the table in README.md are written. `--minutes N` begins no row after N minutes.
Without arguments the picture and the table are written again from frontier.csv.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch.nn.functional as F

from perimetry.suites.base import Context, Estimate
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.gradients import gradient_maps

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]
from constructions import CONSTRUCTIONS, CROPS, Subject, forward, subject  # noqa: E402
from publishing import filled, reflow  # noqa: E402
from publishing import table as drawn  # noqa: E402

TABLE = HERE / "frontier.csv"
MEASURED = {
    "imbalance": "imbalance",
    "of_original": "of original",
    "weakest": "weakest",
    "agreement": "agreement",
}
PERIODS = [f"by_period_{period}" for period in (2, 4, 8, 16, 32)]
DRAWS = 1000
HALF, ENOUGH = 0.5, 0.95
"""The goal: at most so much of the original's imbalance, and at least so much agreement."""


def evenness(case: Subject, variant) -> dict[str, Estimate]:
    """Dead-pixel metrics on the central crops, with draws that pair with another variant's."""
    probes = DEADPIXEL.probes(variant, "energy", 0)
    maps = gradient_maps(variant, case.centres, probes, batch=9).maps
    context = Context(case.centres, 0, 9, DRAWS, None)
    return DEADPIXEL.measure(variant, "energy", maps, context).metrics


def fidelity(case: Subject, variant) -> dict[str, float]:
    """Agreement with the original, its interval over photographs, and cosine of the targets.

    The original agrees with itself: that is exact.
    """
    if variant is case.model:
        return {**named("agreement", Estimate(1.0)), "cosine": 1.0}
    logits, target = forward(variant, case.shown)
    same = (logits.argmax(1) == case.logits.argmax(1)).double().view(CROPS + 1, -1).mean(0)
    agreement = bootstrap(len(same), DRAWS, 0).share(same.numpy())
    cosine = F.cosine_similarity(target.flatten(1), case.target.flatten(1)).mean()
    return {**named("agreement", agreement), "cosine": float(cosine)}


def ratio(treated: Estimate, original: Estimate, count: int) -> Estimate:
    """`treated` over `original`, paired draw by draw over the same `count` photographs."""
    draws = np.asarray(treated.draws) / np.asarray(original.draws)
    value = treated.value / original.value
    return bootstrap(count, 1, 0).from_draws(value, draws, low=0.0, positive=True)


def named(name: str, found: Estimate) -> dict[str, float]:
    """Value and interval as columns of the table; no ends where it is exact."""
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def measure(case: Subject, variant, whole: Estimate) -> dict[str, float]:
    """A row; `weights` is the original's imbalance."""
    found = evenness(case, variant)
    share = ratio(found["imbalance"], whole, len(case.centres))
    row = {**fidelity(case, variant), **named("imbalance", found["imbalance"])}
    row |= {**named("of_original", share), **named("weakest", found["weakest"])}
    return row | {period: found[period].value for period in PERIODS}


def rows_of(name: str, reference: str, folders: tuple[str, str], until: float) -> None:
    """Measure what is not in the table yet, appending row by row."""
    done = read_table()
    held = set(zip(done.get("model", []), done.get("construction", []), strict=True))
    todo = [label for label in CONSTRUCTIONS if (name, label) not in held]
    if not todo:
        return
    case = subject(name, reference, *folders)
    whole = evenness(case, case.model)["imbalance"]
    for label in todo:
        if time.monotonic() > until:
            return
        begun = time.monotonic()
        variant = CONSTRUCTIONS[label](case)
        made = time.monotonic() - begun
        row = {"model": name, "construction": label, **measure(case, variant, whole)}
        row |= {"fit_s": round(made, 1), "photographs": len(case.centres)}
        pd.DataFrame([row]).round(5).to_csv(TABLE, mode="a", header=not TABLE.exists(), index=False)


def read_table() -> pd.DataFrame:
    """The rows that are there, models by name, constructions in their order."""
    if not TABLE.exists():
        return pd.DataFrame()
    order = {label: place for place, label in enumerate(CONSTRUCTIONS)}
    table = pd.read_csv(TABLE)
    places = table["construction"].map(order)
    return table.assign(place=places).sort_values(["model", "place"]).drop(columns="place")


def goal(row) -> str:
    """Whether the goal is reached: by the values, or by their intervals, too."""
    if not (row.of_original <= HALF and row.agreement >= ENOUGH):
        return ""
    return "yes, surely" if row.of_original_high <= HALF and row.agreement_low >= ENOUGH else "yes"


def draw(table: pd.DataFrame) -> None:
    """Imbalance over the original's against agreement, a panel for each model."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups = list(table.groupby("model", sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 4.4), sharey=True)
    for axis, (name, rows) in zip(np.atleast_1d(axes), groups, strict=True):
        axis.axvspan(0, HALF, color="0.93")
        axis.axhline(ENOUGH, color="0.6", lw=0.8, ls="--")
        for number, row in enumerate(rows.itertuples(), 1):
            panel_point(axis, number, row)
        axis.set(title=name, xlabel="imbalance, of the original's", ylim=(None, 1.04))
        axis.set_xlim(0, None)
    np.atleast_1d(axes)[0].set_ylabel("top-1 agreement with the original")
    figure.tight_layout()
    figure.savefig(HERE / "frontier.png", dpi=110, metadata={"Software": None})


def panel_point(axis, number: int, row) -> None:
    """One construction, with both intervals and its number in the table."""
    x, y = row.of_original, row.agreement
    spread_x = [[x - row.of_original_low], [row.of_original_high - x]]
    spread_y = [[y - row.agreement_low], [row.agreement_high - y]]
    shade = "tab:red" if row.construction.startswith("fit") else "tab:blue"
    axis.errorbar(x, y, spread_y, spread_x, fmt="o", color=shade, ms=4, lw=0.8)
    axis.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", size=8)


def cell(row, column: str) -> str:
    """A value, with its interval where it has one."""
    value, low, high = (getattr(row, f"{column}{end}") for end in ("", "_low", "_high"))
    return f"{value:.3g}" if math.isnan(low) else f"{value:.3g} ({low:.3g} to {high:.3g})"


def table_text(table: pd.DataFrame) -> str:
    """The table of README.md."""
    rows = []
    for _, own in table.groupby("model", sort=False):
        for number, row in enumerate(own.itertuples(), 1):
            cells = (cell(row, column) for column in MEASURED)
            rows.append(
                (row.model, number, row.construction, *cells, f"{row.cosine:.3f}", goal(row))
            )
    heads = ("model", "no.", "construction", *MEASURED.values(), "cosine", "goal")
    return drawn(heads, rows)


def parts(table: pd.DataFrame) -> dict[str, str]:
    """What README.md.in names: "MODEL NUMBER COLUMN" with its interval, "... value" without."""
    found = {"table": table_text(table)}
    numbered = table.assign(number=table.groupby("model").cumcount() + 1)
    original = table[table.construction == "original"].set_index("model")
    for row in numbered.itertuples():
        key = f"{row.model} {row.number}"
        found |= {f"{key} {column}": cell(row, column) for column in MEASURED}
        found |= {f"{key} {column} value": f"{getattr(row, column):.2f}" for column in MEASURED}
        variance = [getattr(row, period) for period in PERIODS]
        found |= {f"{key} short": f"{sum(variance[:2]):.2g}"}
        found |= {f"{key} long": f"{sum(variance[2:]):.2g}"}
        found |= {f"{key} outlives 2": f"{variance[0] / original.by_period_2[row.model]:.2g}"}
    return found | extremes(numbered)


def extremes(numbered: pd.DataFrame) -> dict[str, str]:
    """The least and the largest value of some constructions over all models."""
    found = {}
    for numbers in ((7,), (8,), (9, 10)):
        own = numbered[numbered.number.isin(numbers)]
        key = " ".join(map(str, numbers))
        for column in MEASURED:
            found[f"lowest {key} {column}"] = f"{own[column].min():.2f}"
            found[f"highest {key} {column}"] = f"{own[column].max():.2f}"
    return found


def render() -> str:
    """README.md from its template and frontier.csv."""
    return reflow(filled(HERE, parts(read_table())))


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FIT TEST NAME=REF")
    parser.add_argument("--minutes", type=float, default=1e9)
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    fit_test, models = tuple(given.folders[:2]), given.folders[2:]
    for text in models:
        name, _, reference = text.partition("=")
        rows_of(name, reference, fit_test, until)
    draw(read_table())
    (HERE / "README.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
