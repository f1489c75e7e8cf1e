"""The expected maps of a network, as it is and with layers padded, and what they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import NotApplicableError
from ..measuring.findings import join_names
from .propagate import energy_map
from .remarks import Approximation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from ..base import Array

MAPS_PER_PASS = 9
"""Number of maps that are computed in one pass."""

SAME_PASS = 1e-9
"""Largest relative difference of the maps of a network, computed alone and beside others."""

SAME_MAP = 1e-6
"""Largest difference of two maps of mean 1 that are taken for the same."""

NOT_INDEPENDENT = (
    "the expected sensitivity is an approximation: fixed mixtures of units that follow one another "
    "are taken as independent"
)
"""How a note on such mixtures begins."""

ASSUMED = "the expected sensitivity is a guess: it is assumed that "
"""How a note on what a network does not say begins."""


def expected_maps(
    skeleton: nn.Module, size: tuple[int, int, int], layers: Sequence[int]
) -> tuple[Array, list[str]]:
    """Maps (1 + layers, height, width), and notes on what they rest on.

    The first is that of the unchanged network, the others have the layer of each index padded
    alone. `size` is (channels, height, width). Raises `NotApplicableError` as `energy_map` does,
    and if the first is zero everywhere.
    """
    remarks: dict[Approximation, None] = {}
    alone = energy_map(skeleton, size, approximate=remarks).numpy()
    if not alone[0].any():
        raise NotApplicableError(
            "the expected sensitivity is zero everywhere: every path has a factor of 0"
        )
    step = MAPS_PER_PASS - 1
    chunks = (layers[i : i + step] for i in range(0, len(layers), step))
    found = np.concatenate([alone, *(_padded(skeleton, size, chunk, alone) for chunk in chunks)])
    return found, _notes([*remarks, *_guesses(skeleton, size, alone[0] / alone[0].mean())])


def _padded(
    skeleton: nn.Module, size: tuple[int, int, int], layers: Sequence[int], alone: Array
) -> Array:
    """Maps with each of `layers` padded, in one pass beside the unchanged one, or in one pass each.

    Where a network reorders its batch, as one that cuts images into parts, or takes one image at a
    time, the maps of one pass would mix: then the unchanged one is not the one computed `alone`.
    """
    try:
        first, *others = energy_map(skeleton, size, padded=[None, *layers]).numpy()
    except NotApplicableError:
        first = None
    if first is not None and np.allclose(first, alone[0], rtol=SAME_PASS, atol=0):
        return np.stack(others)
    return np.concatenate([energy_map(skeleton, size, padded=[n]).numpy() for n in layers])


def _guesses(
    skeleton: nn.Module, size: tuple[int, int, int], expected: Array
) -> list[Approximation]:
    """What the skeleton assumes of the network, where the map would be another without it."""
    found = []
    for text, other in getattr(skeleton, "alternatives", dict[str, Any])().items():
        energy = energy_map(other, size)[0].numpy()
        if not np.allclose(energy / energy.mean(), expected, rtol=SAME_MAP, atol=SAME_MAP):
            found.append(Approximation(text, assumed=True))
    return found


def _notes(remarks: Sequence[Approximation]) -> list[str]:
    """One note on all that is approximate, and one on each kind of what is assumed."""
    layers: dict[str, list[str]] = {}
    for one in remarks:
        if one.assumed:
            layers.setdefault(one.what, []).append(one.layer)
    first, *more = [one.text for one in remarks if not one.assumed] or [""]
    rest = f", and {len(more)} more" if more else ""
    return [
        *([f"{NOT_INDEPENDENT}: {first}{rest}"] if first else []),
        *(f"{ASSUMED}{what}{_in_layers(names)}" for what, names in layers.items()),
    ]


def _in_layers(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names if name]
    layers = "layers" if len(shown) > 1 else "layer"
    return f" in {layers} {join_names(shown)}" if shown else ""
