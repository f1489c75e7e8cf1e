"""Records of several scales: metrics of the target, and the same ones of every other resolution.

The metric `weakest` of the map at stride 8 is called `weakest@s8`, of one with strides 8 x 4
`weakest@s8x4`; maps are named likewise. The table `scales` has a row for each scale.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .record import Record, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.feature_grid import Grid


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
