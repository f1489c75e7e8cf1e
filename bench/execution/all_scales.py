"""`--target all-scales`: the gradients of every scale, from one forward pass over the images."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ...suites.base import Probe, Suite
    from ...suites.measuring.gradients import GradientMaps
    from .plan import Cell


FAULTS = (Exception, SystemExit)
"""What a foreign module may raise: one that ends the process must not end the audit."""

Shared = dict[str, "tuple[GradientMaps, float]"]
"""Gradients at each target by its name, with the seconds that they took."""


def take_together(
    model: Any,
    views: Sequence[Model],
    probes: Sequence[Sequence[Probe]],
    images: Tensor,
    batch: int,
) -> Shared:
    """The gradients of `probes` at the target of each of `views`, which are `model` at its scales.

    The forward pass is shared; each probe of each scale has a backward pass of its own. Empty if
    the pass fails: each scale is then measured for itself, and says what is wrong with it.
    """
    from ...suites.measuring.gradients import gradients_of_scales

    wanted = {v.target.name: (v.target, p) for v, p in zip(views, probes, strict=True) if v.target}
    wanted = {name: pair for name, pair in wanted.items() if pair[1]}
    begun = time.perf_counter()
    try:
        found = gradients_of_scales(model, images, list(wanted.values()), batch=batch)
    except FAULTS:
        return {}
    seconds = (time.perf_counter() - begun) / max(len(wanted), 1)
    return {name: (maps, seconds) for name, maps in zip(wanted, found, strict=True)}


def probes_of(
    model: Model, cells: Sequence[Cell], suites: Mapping[str, Suite], seed: int
) -> list[Probe]:
    """The probes of all suites that apply to `model`; faults are left to the measurement."""
    found: dict[str, Probe] = {}
    for cell in cells:
        with contextlib.suppress(*FAULTS):
            if suites[cell.suite].skip(model, cell.protocol) is None:
                probes = suites[cell.suite].probes(model, cell.protocol, seed)
                found |= {probe.name: probe for probe in probes}
    return list(found.values())
