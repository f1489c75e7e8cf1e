"""The expected sensitivity map against gradients of networks with real random weights.

`structure` predicts, without sampling, what `deadpixel` measures on average over independent
weights; both are run as an audit runs them. A profile of few weight sets is noisy, so the
correlation of the two has a bound below 1, and the imbalance a tolerance of a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perimetry.bench.execution.audit import audit

from .check import ReferenceCheck

GROUP = "Expected sensitivity against gradients of random weights"


SOURCE = "two independent routes"


CORRELATION = 0.95


IMBALANCE = 0.25
"""Largest difference of the two imbalances, as a share of the predicted one."""


def checks(*, quick: bool) -> Iterator[ReferenceCheck]:
    """Compare phase profiles and imbalances on architectures with odd kernels."""
    for name in ("test_resnet",) if quick else ("resnet18", "mobilenetv3_small_100"):
        yield from compare(name)


def compare(name: str) -> Iterator[ReferenceCheck]:
    """Compare the phase profile and the imbalance that `structure` expects with measured ones."""
    found = {
        record.suite: record
        for record in audit(
            f"timm:{name}@init", ("structure", "deadpixel"), ("none",), count=16, device="cpu"
        )
    }
    expected, measured = (found[suite] for suite in ("structure", "deadpixel"))
    profiles = [
        np.asarray(r.maps["phase_profile"], dtype=np.float64).ravel() for r in (expected, measured)
    ]
    how = "audit(...)"
    what = f"{name}: correlation of the P x P phase profiles, 8 weight sets"
    ours = float(np.corrcoef(profiles[0], profiles[1])[0, 1])
    yield ReferenceCheck(GROUP, what, SOURCE, CORRELATION, ours, how, relation=">=")
    predicted, estimate = (r.metrics["imbalance"].value for r in (expected, measured))
    if predicted is None or estimate is None:
        raise ValueError(f"{name} has no imbalance to compare")
    what = f"{name}: imbalance, predicted (reference) and measured"
    slack = IMBALANCE * predicted
    yield ReferenceCheck(GROUP, what, SOURCE, predicted, estimate, how, tolerance=slack)
