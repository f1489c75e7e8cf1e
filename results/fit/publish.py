"""Write this folder: `python results/fit/publish.py [ROWS.csv]`.

ROWS.csv is what frontier.py wrote; it becomes frontier.csv, models by name, constructions in their
order. Then frontier.png and README.md are written.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]
from constructions import CONSTRUCTIONS  # noqa: E402
from frontier import PERIODS  # noqa: E402
from publishing import filled, one, reflow  # noqa: E402
from publishing import table as drawn  # noqa: E402

NETWORKS = ("lite0", "lite1", "lite2", "mobilenetv2")
TABLE = HERE / "frontier.csv"
MEASURED = {
    "imbalance": "imbalance",
    "of_original": "of original",
    "weakest": "weakest",
    "agreement": "agreement",
}
HALF, ENOUGH = 0.5, 0.95
"""The goal: at most so much of the original's imbalance, and at least so much agreement."""


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Models by name, constructions in their order.

    Raises `ValueError` unless every network has each construction once, all measured at one commit
    without changes: README.md.in names rows by their place.
    """
    every = pd.MultiIndex.from_product([NETWORKS, CONSTRUCTIONS])
    given = pd.MultiIndex.from_frame(table[["model", "construction"]])
    if faults := [*given[given.duplicated()], *every.symmetric_difference(given)]:
        raise ValueError(f"rows that are missing, unknown or there twice: {faults}")
    if table.commit.nunique() > 1 or table.commit.str.contains("changes").any():
        raise ValueError(f"rows of {', '.join(table.commit.unique())}; expected one commit")
    order = {label: place for place, label in enumerate(CONSTRUCTIONS)}
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
    found |= {column: one(table, column) for column in ("commit", "torch", "timm", "day")}
    numbered = table.assign(number=table.groupby("model").cumcount() + 1)
    original = table[table.construction == "original"].set_index("model")
    for row in numbered.itertuples():
        key = f"{row.model} {row.number}"
        found |= {f"{key} {column}": cell(row, column) for column in MEASURED}
        found |= {f"{key} {column} value": f"{getattr(row, column):.2f}" for column in MEASURED}
        variance = [getattr(row, period) for period in PERIODS]
        found |= {f"{key} short": f"{sum(variance[:2]):.2g}"}
        found |= {f"{key} long": f"{sum(variance[2:]):.2g}"}
        for period in (2, 4):
            share = getattr(row, f"by_period_{period}") / original[f"by_period_{period}"][row.model]
            found[f"{key} outlives {period}"] = f"{share:.2g}"
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
    return reflow(filled(HERE, parts(pd.read_csv(TABLE))))


def main() -> None:
    """Take the rows over where they are given, draw and write."""
    if len(sys.argv) > 1:
        ordered(pd.read_csv(sys.argv[1])).to_csv(TABLE, index=False)
    draw(pd.read_csv(TABLE))
    (HERE / "README.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
