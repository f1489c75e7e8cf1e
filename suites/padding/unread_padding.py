"""Uneven padding as the `padding` suite reports it: the layers, and the sizes that cure them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ...adapters.errors import NotApplicableError
from ..architecture.receptive_field import even_sizes, layer_table, target_stride, uneven_layers
from ..base import Estimate, Measurement, missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...adapters.model import Model
    from ..architecture.windows import Layer, Pair


def read_uneven(found: Measurement, model: Model) -> None:
    """Fill in `uneven_layers` and the table `uneven`, or the reason why there are none."""
    spec = model.spec
    try:
        layers = layer_table(
            model.skeleton(), torch.empty(1, spec.channels, spec.height, spec.width, device="meta")
        )
    except NotApplicableError as error:
        found.metrics["uneven_layers"] = missing(str(error))
        return
    faults = uneven_layers(layers)
    found.metrics["uneven_layers"] = Estimate(float(len(faults)))
    cures = _cures(layers, (spec.height, spec.width), target_stride(model))
    found.tables["uneven"] = [
        {"name": layer.name, "input": layer.input_size, "rows": rows, "columns": columns, **cures}
        for layer, (rows, columns) in faults
    ]


def _cures(layers: Sequence[Layer], size: Pair, total: Pair) -> dict[str, Any]:
    """Heights and widths next to `size`, below and above, at which no layer is uneven.

    Two strides to either side are searched; the whole network is even where both axes are.
    """
    rows, columns = even_sizes(layers, size, (2 * total[0], 2 * total[1]))
    return {"even_heights": _nearest(rows, size[0]), "even_widths": _nearest(columns, size[1])}


def _nearest(numbers: Sequence[int], size: int) -> tuple[int, ...]:
    below = [n for n in numbers if n <= size]
    above = [n for n in numbers if n > size]
    return (*below[-1:], *above[:1])
