"""The sensitivity that a model's architecture leads one to expect, for suites that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ...adapters.errors import PerimetryError
from ..measuring import phases
from .propagate import energy_map
from .receptive_field import total_stride, untraced

if TYPE_CHECKING:
    from ...adapters.model import Model
    from ..base import Array

_KNOWN: WeakKeyDictionary[Model, Array | str] = WeakKeyDictionary()


def expected_map(model: Model) -> Array | str:
    """Expected sensitivity (height, width), or the reason why there is none.

    Computed once for a model, and forgotten with it.
    """
    if model not in _KNOWN:
        try:
            maps = energy_map(model.skeleton(), model.spec.shape)
            _KNOWN[model] = maps[0].numpy()
        except PerimetryError as error:
            _KNOWN[model] = str(error)
    return _KNOWN[model]


def expected_profile(model: Model, period: phases.Pair) -> Array | str:
    """Phase profile (phase rows, phase columns) of `expected_map`, or the reason for none."""
    found = expected_map(model)
    if isinstance(found, str):
        return found
    try:
        profile: Array = phases.phase_profile(found[None], period)[0]
    except PerimetryError as error:
        return str(error)
    return profile


def phase_stride(model: Model, notes: list[str]) -> tuple[float, float] | str:
    """The stride with which the model's sensitivity repeats, or the reason why it does not.

    It is the target's, but where a map of larger stride is resized on the way; see
    `phases.repeating_stride`. `notes` says so, and where the network cannot be traced.
    """
    stride, expected = total_stride(model), expected_map(model)
    why = untraced(model)
    if why is not None:
        rows, columns = stride
        notes.append(f"stride {rows:.6g} x {columns:.6g} is pixels over units of the target: {why}")
    if isinstance(expected, str):
        return stride
    return phases.repeating_stride(expected, stride, notes)
