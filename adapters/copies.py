"""Copies of a model: without its caches, and at another input size."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

from .errors import InputError, PerimetryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .feature_grid import Grid
    from .input_spec import InputSpec


LARGEST = 16_384
"""Pixels a side; a larger size is taken for a mistake."""

Size = tuple[int, int]

M = TypeVar("M")


def copy_without_caches(model: M) -> M:
    """A shallow copy of `model` that computes every `cached_property` again.

    A cache of a model is therefore always a `cached_property`: a copy can then not keep a value
    that belongs to the original, such as the sessions of another graph.
    """
    made = copy.copy(model)
    for name in list(vars(made)):
        if isinstance(getattr(type(made), name, None), cached_property):
            del made.__dict__[name]
    return made


class Resizable(Protocol):
    """The attributes of a model that the error message names."""

    reference: str
    spec: InputSpec
    target: Grid | None


def resize_images(attempt: Callable[[int, int], None], size: Size, model: Resizable) -> None:
    """Call `attempt(height, width)` to bring a copy of `model` to `size`.

    Raises `InputError` when the model refuses, and names sizes that it accepts: its own, and those
    nearby that are whole numbers of its strides.
    """
    if not all(0 < n <= LARGEST for n in size):
        raise InputError(
            f"input size {size[0]} x {size[1]}; expected 1 to {LARGEST} pixels per side"
        )
    try:
        attempt(*size)
    except PerimetryError as error:
        allowed = [s for s in _candidates(size, model.spec, model.target) if _takes(attempt, s)]
        shown = ", ".join(f"{h} x {w}" for h, w in allowed)
        raise InputError(
            f"{model.reference} refuses an input of {size[0]} x {size[1]} (height x width): "
            f"{error}; sizes nearby that it accepts: {shown or 'none'}"
        ) from error


def _candidates(size: Size, spec: InputSpec, target: Grid | None) -> list[Size]:
    """The model's own size, and `size` rounded to whole strides, down and up."""
    found = {(spec.height, spec.width)}
    if target is not None:
        stride = (round(spec.height / target.height), round(spec.width / target.width))
        for up in (0, 1):
            rows, columns = ((n // s + up) * s for n, s in zip(size, stride, strict=True))
            found.add((rows, columns))
    return sorted(s for s in found if s != size and all(0 < n <= LARGEST for n in s))


def _takes(attempt: Callable[[int, int], None], size: Size) -> bool:
    try:
        attempt(*size)
    except PerimetryError:
        return False
    return True
