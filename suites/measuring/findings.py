"""Clauses about a measured model that several suites give: its phases, its strided layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..base import Array, Measured

MOST_NAMED = 4

LEAST_REDUCTION = 0.005
"""A layer whose padding takes less off the imbalance is not suggested for padding."""

LEAST_SHARE = 0.05
"""Layers and periods that cause a smaller share of the unevenness are not named."""


LEAST_PHASE = "least_phase"
"""Name of the table with the place of the smallest phase, which packed records keep."""


def least_phase(profile: Array) -> list[dict[str, int]]:
    """The table with the place of the smallest phase of `profile` (phase rows, phase columns)."""
    row, column = np.unravel_index(int(profile.argmin()), profile.shape)
    rows, columns = profile.shape
    return [{"row": int(row), "column": int(column), "rows": rows, "columns": columns}]


def least_sensitive_phase(found: Measured, name: str = "phase_profile") -> list[str]:
    """The place of the smallest phase, counted from 0, in a clause.

    Records made before they had the table have it in the map `name`.
    """
    known = [least_phase(np.asarray(found.maps[name]))] if name in found.maps else []
    return [
        f"the least sensitive phase is row {place['row']}, column {place['column']} of every "
        f"{place['rows']} x {place['columns']} pixels"
        for (place,) in ([found.tables[LEAST_PHASE]] if LEAST_PHASE in found.tables else known)
    ]


def period_shares(found: Measured) -> list[str]:
    """The stride periods that cause the variance over the phases, largest first, in a clause.

    A period that its interval does not separate from 0 causes nothing. Raises `KeyError` where
    `found` has no `imbalance`.
    """
    imbalance = found.metrics["imbalance"].value
    shares = {}
    for name, one in found.metrics.items():
        shown = one.value is not None and (one.low is None or one.low > 0)
        if name.startswith("by_period_") and shown and imbalance:
            shares[name.removeprefix("by_period_")] = min(1.0, one.value / imbalance**2)
    named = [
        f"stride period {period} causes {percent(share)}"
        for period, share in sorted(shares.items(), key=lambda item: -item[1])
        if share >= LEAST_SHARE
    ]
    return [f"{join_names(named)} of the variance over the phases"] if named else []


def layer_name(row: Mapping[str, Any]) -> str:
    """The name in a row of a table of layers; a call that no layer makes has the network's."""
    return str(row["name"] or f"the network's own {row['kind']}")


def layers_at_fault(found: Measured) -> list[str]:
    """Strided layers by the share of the imbalance that padding each alone would remove."""
    named = []
    for row in found.tables.get("culprits", []):
        share = row["reduction"] / (row["imbalance_padded"] + row["reduction"])
        if share >= LEAST_SHARE:
            named.append(f"{layer_name(row)} ({percent(share)} of the imbalance)")
    return [f"layers at fault: {join_names(named)}"] if named else []


def worst_layer(found: Measured) -> list[str]:
    """What padding the kernel of the worst layer alone would do, in a clause."""
    return [
        f"padding the kernel of {layer_name(row)} alone takes the imbalance from "
        f"{row['imbalance_padded'] + row['reduction']:.3f} to {row['imbalance_padded']:.3f}"
        for row in found.tables.get("culprits", [])[:1]
        if row["reduction"] > LEAST_REDUCTION
    ]


def even_input_sizes(found: Measured, size: tuple[int, int]) -> list[str]:
    """The heights and widths nearest to `size` that leave no padding unread, in a clause."""
    if not found.tables.get("uneven"):
        return []
    parts = []
    for axis, side in zip(("height", "width"), size, strict=True):
        sizes = sorted(row["size"] for row in found.tables["even_sizes"] if row["axis"] == axis)
        near = [*[n for n in sizes if n <= side][-1:], *[n for n in sizes if n > side][:1]]
        if not near:
            return []
        parts.append(f"{axis} {' or '.join(map(str, near))}")
    return [f"an input of {' and '.join(parts)} leaves no padding unread"]


def join_names(names: Sequence[Any], most: int = MOST_NAMED) -> str:
    """`a, b and c`; of more than `most` the first, and how many others there are."""
    shown = [str(name) for name in names]
    if len(shown) > most:
        return f"{', '.join(shown[:most])} and {len(shown) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f} %"
