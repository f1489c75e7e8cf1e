"""Does evenness go with accuracy? Write this folder: `python results/accuracy/publish.py`.

Reads accuracy.csv (see gather.py) and the boards of results/timm-structure and results/timm-init.
Written: correlations.csv and README.md. Definitions:

- An architecture's accuracy is that of its best weights among those that were trained on
  ImageNet-1k alone, without a teacher or pretraining (`plain`, by the tag of the weights).
- `rank`: Spearman's rank correlation over architectures.
- `given`: partial rank correlation, given parameters, input size and year of the family's paper:
  all are ranked, the three and a constant are regressed out of both, the rest is correlated.
- `within`: ranks less the mean rank of the family, families of three and more.
- `equal`: as `given`, with ImageNet top-1 as a fourth variable: does the other test set gain or
  lose at equal accuracy on ImageNet?
- Intervals are percentiles of 400 draws of whole families with replacement.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tabulate import tabulate

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from publishing import families, read_board, reflow, year  # noqa: E402

DRAWS = 400
TEST_SETS = {
    "imagenet": "ImageNet",
    "real": "ReaL",
    "v2": "V2",
    "sketch": "Sketch",
    "a": "ImageNet-A",
    "r": "ImageNet-R",
}
MEASURES = {
    "structure.weakest": "least sensitive phase, expected",
    "structure.imbalance": "imbalance, expected",
    "deadpixel.weakest": "least sensitive phase, measured",
    "erf.size": "side of the effective field over the image's",
}
OTHER_DATA = re.compile(
    r"in12k|in21k|in22k|laion|openai|jft|yfcc|ig1b|ssl|dist|clip|mim|mae|seer|dino|webli|merged"
    r"|(^|_)ap_|adv"
)
"""Tags of weights that saw other images, another task, a teacher or adversarial examples."""
FEWEST_FAMILIES = 10
"""Families of three and more that a correlation within families needs."""
CONTROLS = ("params", "img_size", "year")


def plain(weights: str) -> bool:
    """Whether weights `ARCHITECTURE.TAG` were trained on the labels of ImageNet-1k alone."""
    architecture, _, tag = weights.partition(".")
    taught = "distilled" in architecture
    return "in1k" in tag and OTHER_DATA.search(tag) is None and not taught


def table() -> pd.DataFrame:
    """One row an architecture: accuracy of its best plain weights, and what was measured of it."""
    weights = pd.read_csv(HERE / "accuracy.csv")
    weights = weights[weights.model.map(plain)].sort_values("imagenet", ascending=False)
    weights["model"] = weights.model.str.partition(".")[0]
    frame = weights.drop_duplicates("model").set_index("model")
    known = families()
    frame["family"] = [known.get(name) for name in frame.index]
    frame = frame[frame.family.notna()]
    frame["year"] = frame.family.map(year).astype(float)
    return frame.join(measured(), how="inner").sort_index()


def measured() -> pd.DataFrame:
    """The columns of MEASURES by architecture, from the published boards, as they are."""
    expected = _plain_rows("timm-structure")[["weakest", "imbalance"]].add_prefix("structure.")
    initial = _plain_rows("timm-init")
    sizes = initial["erf.luo_size"] / initial["side"]
    return expected.join(initial[["deadpixel.weakest"]]).join(sizes.rename("erf.size"))


def _plain_rows(published: str) -> pd.DataFrame:
    """The rows without kernel padding of a published board, by model."""
    frame = read_board(HERE.parent / published)
    return frame[frame.fill == "none"].set_index("model")


def correlation(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> float:
    """Rank correlation of x and y (n,) given the columns of `given` (n, k), NaN if one is flat."""
    known = np.column_stack([np.ones(len(x)), *(rankdata(g) for g in given.T)])
    pair = np.column_stack([rankdata(x), rankdata(y)])
    left = pair - known @ np.linalg.lstsq(known, pair, rcond=None)[0]
    norms = np.linalg.norm(left, axis=0)
    return float(left[:, 0] @ left[:, 1] / norms.prod()) if norms.min() > 1e-9 else np.nan


def within(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> float:
    """Correlation of the ranks of x and y (n,) less the mean rank of their group (n,)."""
    ranks = pd.DataFrame({"x": rankdata(x), "y": rankdata(y)})
    left = ranks - ranks.groupby(group).transform("mean")
    return float(left.x.corr(left.y))


def kinds(frame: pd.DataFrame, measure: str, test: str) -> dict[str, float]:
    """The four correlations of one measure with one test set."""
    frame = frame.dropna(subset=[measure, test, *CONTROLS])
    x, y = frame[measure].to_numpy(), frame[test].to_numpy()
    controls = frame[list(CONTROLS)].to_numpy()
    found = {
        "rank": correlation(x, y, controls[:, :0]),
        "given": correlation(x, y, controls),
    }
    many = frame[frame.groupby("family")[test].transform("size") >= 3]
    enough = many.family.nunique() >= FEWEST_FAMILIES
    found["within"] = (
        within(*(many[c].to_numpy() for c in (measure, test, "family"))) if enough else np.nan
    )
    if test != "imagenet":
        found["equal"] = correlation(x, y, np.column_stack([controls, frame["imagenet"]]))
    return found


def correlations(frame: pd.DataFrame, draws: int = DRAWS) -> pd.DataFrame:
    """One row a measure, test set and kind: value, interval, architectures and families."""
    rng = np.random.default_rng(0)
    rows = []
    for measure in MEASURES:
        used = frame.dropna(subset=[measure, *CONTROLS, *TEST_SETS])
        groups = [group for _, group in used.groupby("family")]
        drawn = [_redrawn(groups, rng) for _ in range(draws)]
        for test in TEST_SETS:
            spread = pd.DataFrame([kinds(one, measure, test) for one in drawn])
            for kind, value in kinds(used, measure, test).items():
                row = {"measure": measure, "test": test, "kind": kind, "value": value}
                if draws:
                    row["low"], row["high"] = spread[kind].quantile([0.025, 0.975])
                rows.append(row | {"models": len(used), "families": len(groups)})
    return pd.DataFrame(rows).dropna(subset=["value"]).round(4).reset_index(drop=True)


def _redrawn(groups: list[pd.DataFrame], rng: np.random.Generator) -> pd.DataFrame:
    """As many families as there are, drawn with replacement; each draw is a family of its own."""
    drawn = rng.integers(0, len(groups), len(groups))
    return pd.concat([groups[g].assign(family=i) for i, g in enumerate(drawn)])


def readme(found: pd.DataFrame) -> str:
    """The findings, in words and tables, all of them computed."""
    first = found[found.measure == "structure.weakest"].iloc[0]
    return f"""\
# Does evenness go with accuracy?

Rank correlations of what this suite says of architectures with the accuracy that timm publishes
for their weights: {first.models} architectures of {first.families} families with weights that
were trained on the labels of ImageNet-1k alone, without a teacher or pretraining, and with an
expected profile (`results/timm-structure`). Measured numbers (`results/timm-init`) are there for
fewer. Intervals (95 %) are over draws of whole families, since members of a family are no
independent witnesses.

    python results/accuracy/gather.py FOLDER
    python results/accuracy/publish.py

`accuracy.csv`: top-1 of timm's `results/` tables (huggingface/pytorch-image-models, Apache 2.0,
commit aa4b585; ImageNet, ReaL, V2 matched frequency, Sketch, ImageNet-A, ImageNet-R), at the input
size that is best on ImageNet. Which weights are plain is read from their tags. The year is that of
the first paper that the family's module in timm names.

## Findings

{answer(found)}
- What follows: {follows(found)} How even a network is, no accuracy table tells, and nobody has to
  pay for it with accuracy, as far as these weights can tell. What does not follow: that evenness is
  without effect. Architectures, recipes and budgets differ at once;
  the weights of a trained network are not those of its initial state; and none of the test sets
  holds objects as small as a stride.

## The least sensitive phase, expected

{rows(found, "structure.weakest")}

## Imbalance, expected (more is less even)

{rows(found, "structure.imbalance")}

## The least sensitive phase, measured at the initial state

{rows(found, "deadpixel.weakest")}

## Side of the effective receptive field over that of the image, at the initial state

{rows(found, "erf.size")}

`rank`: Spearman; `given`: partial, given parameters, input size and year; `within`: inside families
of three and more, if there are ten; `equal`: as `given`, and at equal ImageNet top-1. In brackets
the interval. Bold where the interval excludes 0; {len(found)} intervals were looked at, of which
about {0.05 * len(found):.0f} would exclude 0 by chance alone.
"""


def answer(found: pd.DataFrame) -> str:
    """The answer to the question in the title."""
    picked = found[found.measure == "structure.weakest"].set_index(["test", "kind"])
    away = found[(found.low > 0) | (found.high < 0)]
    shown = "; ".join(
        f"{MEASURES[measure]} (`{kind}`), {_ends(some.value)}"
        for (measure, kind), some in away.groupby(["measure", "kind"], sort=False)
    )
    return (
        f"- **{_verdict(picked)}** The expected least sensitive phase and ImageNet top-1: "
        f"{_interval(picked.loc['imagenet', 'rank'])}; given size, resolution and year: "
        f"{_interval(picked.loc['imagenet', 'given'])}; within families: "
        f"{_interval(picked.loc['imagenet', 'within'])}.\n"
        f"- Intervals that exclude 0: {len(away)} of {len(found)}{': ' + shown if shown else ''}."
    )


def _ends(values: pd.Series) -> str:
    """On how many test sets, and from which value to which."""
    if len(values) == 1:
        return f"1 test set, {values.iloc[0]:+.2f}"
    return f"{len(values)} test sets, {values.min():+.2f} to {values.max():+.2f}"


def follows(found: pd.DataFrame) -> str:
    """What the measures of evenness say together, with size, resolution and year and without.

    Raises `ValueError` when they say anything else, so that the sentence is written anew.
    """
    evenness = found[found.measure != "erf.size"]
    away = evenness[(evenness.low > 0) | (evenness.high < 0)]
    alone = evenness[evenness.kind.isin(["rank", "within"])]
    more = away.value * np.where(away.measure.str.endswith("imbalance"), -1, 1)
    if away.empty or (more < 0).any() or not away.index.isin(alone.index).all():
        raise ValueError("the correlations are others than these words say; expected new words")
    return (
        "given size, resolution and year, no correlation of evenness with accuracy is shown. "
        f"Without them, {len(away)} of {len(alone)} intervals exclude 0, and in all of these the "
        f"more even architectures are the more accurate ones, by at most {more.max():.2f}."
    )


def _verdict(picked: pd.DataFrame) -> str:
    """Yes, no or mixed, for ImageNet."""
    three = picked.loc["imagenet"]
    shown = three[(three.low > 0) | (three.high < 0)]
    if shown.empty:
        return "No: none of the three correlations with ImageNet top-1 is shown to differ from 0."
    names = ", ".join(f"`{kind}`" for kind in shown.index)
    return (
        f"In part: {len(shown)} of three correlations with ImageNet top-1 ({names}) is shown to "
        f"differ from 0, by {shown.value.abs().max():.2f}."
    )


def rows(found: pd.DataFrame, measure: str) -> str:
    """The table of one measure: a row a test set, a column a kind."""
    picked = found[found.measure == measure]
    cells = {(r.test, r.kind): _cell(r) for r in picked.itertuples()}
    lines = [
        (label, *(cells.get((test, kind), "") for kind in ("rank", "given", "within", "equal")))
        for test, label in TEST_SETS.items()
    ]
    head = f"{picked.models.iloc[0]} architectures, {picked.families.iloc[0]} families"
    return tabulate(lines, (head, "rank", "given", "within", "equal"), tablefmt="github")


def _cell(row) -> str:
    """A value with its interval, bold where it excludes 0."""
    return f"**{_interval(row)}**" if row.low > 0 or row.high < 0 else _interval(row)


def _interval(row) -> str:
    """A value with its interval."""
    return f"{row.value:+.2f} ({row.low:+.2f} to {row.high:+.2f})"


def render() -> str:
    """The README of what is published here."""
    return reflow(readme(pd.read_csv(HERE / "correlations.csv")))


def main() -> None:
    """Write correlations.csv and README.md."""
    correlations(table()).to_csv(HERE / "correlations.csv", index=False)
    (HERE / "README.md").write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
