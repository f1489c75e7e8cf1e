"""Measure the constructions: `python results/fit/frontier.py ROWS.csv FIT TEST NAME=REF ...`.

FIT is a folder of the photographs that may be fitted on, TEST one of others, for measuring;
README.md says which. REF is what `perimetry run` takes, such as timm:mobilenetv2_100@FILE. A row
goes to ROWS.csv as soon as it is there, with the commit that it was measured at, and rows that are
there are not made again. `--minutes N` begins no row after N minutes. What lies in
the checkout and is not ignored, such as ROWS.csv, would be a change to the commit.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch.nn.functional as F

from perimetry.adapters.errors import InputError
from perimetry.adapters.reference import Reference
from perimetry.suites.base import Context, Estimate
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.images import open_images
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.findings import join_names
from perimetry.suites.measuring.gradients import gradient_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent)]
from constructions import CONSTRUCTIONS, CROPS, MOST, Subject, forward, subject  # noqa: E402
from publishing import made  # noqa: E402

DRAWS = 1000
PERIODS = [f"by_period_{period}" for period in (2, 4, 8, 16, 32)]


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
    """A row, without its name; `whole` is the original's imbalance."""
    found = evenness(case, variant)
    share = ratio(found["imbalance"], whole, len(case.centres))
    row = {**fidelity(case, variant), **named("imbalance", found["imbalance"])}
    row |= {**named("of_original", share), **named("weakest", found["weakest"])}
    return row | {period: found[period].value for period in PERIODS}


def extend(path: Path, name: str, reference: str, folders: Sequence[str], until: float) -> None:
    """Measure what the table at `path` has not, appending row by row."""
    done = held(path)
    todo = [label for label in CONSTRUCTIONS if (name, label) not in done]
    if not todo:
        return
    case = subject(name, reference, *folders)
    whole = evenness(case, case.model)["imbalance"]
    for label in todo:
        if time.monotonic() > until:
            return
        begun = time.monotonic()
        variant = CONSTRUCTIONS[label](case)
        fit_s = round(time.monotonic() - begun, 1)
        row = {"model": name, "construction": label, **measure(case, variant, whole)}
        row |= {"fit_s": fit_s, "photographs": len(case.centres), **made()}
        pd.DataFrame([row]).round(5).to_csv(path, mode="a", header=not path.exists(), index=False)


def held(path: Path) -> set[tuple[str, str]]:
    """Model and construction of the rows that are there."""
    if not path.exists():
        return set()
    rows = pd.read_csv(path)
    return set(zip(rows.model, rows.construction, strict=True))


def named_reference(text: str) -> tuple[str, str]:
    """NAME and REF of NAME=REF; a network at its initial state has no answers to keep."""
    name, _, reference = text.partition("=")
    if not name or not reference or Reference.parse(reference).weights == "init":
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=REF, with trained weights")
    return name, reference


def require_others(fit: str, test: str) -> None:
    """Raise `InputError` with the photographs of `test` that are in `fit`, too, byte for byte."""
    seen, shown = ({p.read_bytes(): p for p in open_images(f, MOST).files} for f in (fit, test))
    if both := sorted(shown[content].name for content in seen.keys() & shown.keys()):
        raise InputError(f"{join_names(both)} of {test!r} are in {fit!r}, too; expected others")


def main() -> None:
    """Measure every model that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, metavar="ROWS.csv")
    parser.add_argument("fit", metavar="FIT")
    parser.add_argument("test", metavar="TEST")
    parser.add_argument("models", nargs="+", metavar="NAME=REF", type=named_reference)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes
    require_others(given.fit, given.test)
    for name, reference in given.models:
        extend(given.rows, name, reference, (given.fit, given.test), until)


if __name__ == "__main__":
    main()
