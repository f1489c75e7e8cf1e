"""Draws of metrics, kept to 16 bits: few enough to publish, the same in memory, folder and pack.

Draws are rounded to 65,536 steps between their smallest and their largest when a record gets them,
so that a board of records in memory, of their folder and of their packed file is the same to the
last digit. Rounding what is rounded changes nothing.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...suites.base import Array

STEPS = 65535


def round_draws(draws: Mapping[str, Array]) -> dict[str, Array]:
    """`draws` (draws,) by metric, as they are kept; draws that are not finite are left out."""
    return {
        name: _from_steps(*_to_steps(np.asarray(values, dtype=np.float64)))
        for name, values in draws.items()
        if np.isfinite(values).all() and np.size(values)
    }


def pack_draws(draws: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """`draws` as JSON: ends, and the steps between them in base64, two bytes each."""
    found = {}
    for name, values in sorted(round_draws(draws).items()):
        steps, low, high = _to_steps(values)
        data = base64.b64encode(steps.astype("<u2").tobytes()).decode()
        found[name] = {"low": low, "high": high, "steps": data}
    return found


def unpack_draws(packed: Any) -> dict[str, Array]:
    """What `pack_draws` packed. Raises `InputError` for anything else."""
    try:
        return {
            str(name): _from_steps(
                np.frombuffer(base64.b64decode(one["steps"], validate=True), dtype="<u2"),
                float(one["low"]),
                float(one["high"]),
            )
            for name, one in packed.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"packed draws cannot be read ({error}); pack the records again") from None


def _to_steps(values: Array) -> tuple[np.ndarray[Any, Any], float, float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(len(values), dtype=np.uint16), low, high
    return np.rint((values - low) / (high - low) * STEPS).astype(np.uint16), low, high


def _from_steps(steps: np.ndarray[Any, Any], low: float, high: float) -> Array:
    share = steps.astype(np.float64) / STEPS
    values: Array = np.where(steps == STEPS, high, low + share * (high - low))
    return values
