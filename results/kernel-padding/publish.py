"""Write README.md of this folder: `python results/kernel-padding/publish.py [FOLDER]`.

FOLDER is what zoo.py wrote its tables into; they are copied here first.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import by_family, one, reflow, table  # noqa: E402

TABLES = ("zoo.csv", "zoo-numbers.csv")
EXACT = 1e-6
"""How far, relative, an output may move by rounding alone."""


def readme(zoo: pd.DataFrame, numbers: pd.DataFrame) -> str:
    """The counts, in words and tables, all of them computed."""
    made = pd.concat([zoo, numbers])
    return f"""\
# Which timm models take kernel padding

Every architecture of timm {one(made, "timm")} ({zoo.model.nunique():,}), every fill, without
weights: is there a strided kernel whose size is not divisible by its stride, does it grow, do the
output shapes stay?

    python results/kernel-padding/zoo.py FOLDER
    python results/kernel-padding/publish.py FOLDER

torch {one(made, "torch")}, {one(made, "day")}, one CPU thread, of commit `{one(made, "commit")}`.

{fills(zoo)}

{failures(zoo)} {left(zoo)}

{why_nothing_grew(zoo)}

- `zoo.csv`: a row per model and fill; shapes on torch's `meta` device (`built`), no numbers. `left`
  counts the strided reads that stay as they are, `reasons` says why.
- `zoo-numbers.csv`: the smallest model of each of {numbers.family.nunique()} families with real
  weights and real numbers. {outputs(numbers)}
"""


def fills(zoo: pd.DataFrame) -> str:
    """One row a fill: of how many models a kernel grows."""
    uneven = zoo[zoo.status != "even"]
    rows = [
        (f"`{fill}`", str((some.status == "padded").sum()), str((some.status == "left").sum()))
        for fill, some in uneven[uneven.fill.notna()].groupby("fill")
    ]
    even = str((zoo.status == "even").sum())
    text = table(("fill", "a kernel grows", "none grows"), rows)
    return f"{text}\n\nThe other {even} have no strided kernel to grow: they are even as they are."


def failures(zoo: pd.DataFrame) -> str:
    """Which models could not be padded at all."""
    failed = zoo[zoo.status.str.startswith("failed")]
    if failed.empty:
        return "No model fails, and no output shape changes."
    named = ", ".join(f"{r.model} ({r.status})" for r in failed.itertuples())
    return f"{failed.model.nunique()} models fail: {named}."


def left(zoo: pd.DataFrame) -> str:
    """In how many models some reads stay with `box`, by reason and family."""
    some = zoo[(zoo.fill == "box") & (zoo.status == "padded") & (zoo.left > 0)]
    return (
        f"With `box` some strided read stays as it is in {len(some)} of the padded models: "
        f"{by_reason(some)}."
    )


def why_nothing_grew(zoo: pd.DataFrame) -> str:
    """Of which models no kernel grows, by fill, reason and family."""
    said = []
    for fill, some in zoo[zoo.status == "left"].groupby("fill"):
        said.append(f"No kernel grows with `{fill}` in {len(some)}: {by_reason(some)}.")
    return " ".join(said)


def by_reason(frame: pd.DataFrame) -> str:
    """Each reason with how many models of which families have it, the most frequent first."""
    rows = frame.assign(reason=frame.reasons.str.split(" | ", regex=False)).explode("reason")
    rows["reason"] = rows.reason.str.partition(": ")[2]
    rows = rows.drop_duplicates(["model", "reason"])
    counted = rows.groupby("reason").size().sort_values(ascending=False, kind="stable")
    return "; ".join(
        f"{reason} ({by_family(rows[rows.reason == reason])})" for reason in counted.index
    )


def outputs(numbers: pd.DataFrame) -> str:
    """What real numbers showed."""
    ran = numbers[numbers.status == "ran"]
    zero = ran[ran.fill == "zero"]
    wrong = numbers[~numbers.status.isin(("ran", "left"))]
    if not wrong.empty:
        named = ", ".join(f"{r.model} ({r.fill}: {r.status})" for r in wrong.itertuples())
        return f"Wrong: {named}."
    exact = int((zero.difference <= EXACT).sum())
    return (
        f"Of the {ran.model.nunique()} that grow, `zero` gives the same output in {exact} of "
        f"{len(zero)} (`difference` is the largest, relative: at most "
        f"{zero.difference.max():.1e}), the other fills a finite one of the same shape in all."
    )


def render() -> str:
    """The README of what is published here."""
    return reflow(readme(*(pd.read_csv(HERE / name) for name in TABLES)))


def main() -> None:
    """Copy the tables where a folder is given, and write README.md from them."""
    if len(sys.argv) > 1:
        for name in TABLES:
            shutil.copy(Path(sys.argv[1]) / name, HERE / name)
    (HERE / "README.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
