"""`--target all-scales`: gradients of every scale from one forward pass, and records of all scales.

The metric `weakest` of the map at stride 8 is called `weakest@s8`, of one with strides 8 x 4
`weakest@s8x4`; maps are named likewise. The table `scales` has a row for each scale.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

from ..records.parts import Value
from ..records.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ...adapters.feature_grid import Grid
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


_SCALE = re.compile(r"@(s[\d.]+(?:x[\d.]+)?)$")

SHOWN = {
    "receptive_field": "field",
    "luo_size": "ERF",
    "weakest": "weakest",
    "imbalance": "imbalance",
    "dead_share": "dead share",
    "silent_pixels": "silent pixels",
    "dead_region": "largest dead region",
}
"""The metrics that the table of scales has, and its heads."""


def split_scale(name: str) -> tuple[str, str | None]:
    """A metric's name without its scale, and the scale, such as `s8`; None for the target."""
    found = _SCALE.search(name)
    return (name[: found.start()], found[1]) if found else (name, None)


def label(grid: Grid, size: tuple[int, int]) -> str:
    """The label of a scale by its strides: `s8`, or `s8x4` where rows and columns differ.

    `size` is (height, width) of the image. Strides that are not whole are rounded to one digit.
    """
    rows, columns = (round(n / m, 1) for n, m in zip(size, (grid.height, grid.width), strict=True))
    return f"s{rows:g}" if rows == columns else f"s{rows:g}x{columns:g}"


def with_scales(record: Record, found: Mapping[str, tuple[Grid, Record]]) -> Record:
    """`record`, of the target, with the results of the same suite at other scales by label."""
    metrics, maps, draws = dict(record.metrics), dict(record.maps), dict(record.draws)
    rows = []
    for scale, (grid, other) in found.items():
        why = other.why
        empty = Value(value=None, reason=why or f"no value at scale {scale}")
        metrics |= {f"{n}@{scale}": other.metrics.get(n, empty) for n in record.metrics}
        maps |= {f"{n}@{scale}": values for n, values in other.maps.items()}
        draws |= {f"{n}@{scale}": values for n, values in other.draws.items()}
        rows.append(_row(scale, grid, other, why))
    changed = {
        "metrics": metrics,
        "map_names": sorted(maps),
        "tables": {**record.tables, "scales": rows},
    }
    return record.model_copy(update=changed).attach((maps, draws))


def _row(scale: str, grid: Grid, record: Record, why: str) -> dict[str, Any]:
    values = {head: record.metrics[n].value for n, head in SHOWN.items() if n in record.metrics}
    layer = {"scale": scale, "layer": grid.name, "units": [grid.height, grid.width]}
    return {**layer, **values, **({"reason": why} if why else {})}
