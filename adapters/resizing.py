"""Another input size: what is asked of a model, and what it takes when it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .errors import InputError, PerimetryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .feature_grid import Grid
    from .input_spec import InputSpec


LARGEST = 16_384
"""Pixels per side beyond which a size is taken for a slip."""


Size = tuple[int, int]


class Resizable(Protocol):
    """What the error text needs to know of a model."""

    reference: str
    spec: InputSpec
    target: Grid | None


def resize_images(attempt: Callable[[int, int], None], size: Size, model: Resizable) -> None:
    """Let `attempt(height, width)` bring a twin of `model` to `size`.

    Raises `InputError` naming sizes that the model takes when it refuses: the one it has, and the
    nearest whole numbers of its strides.
    """
    if not all(0 < n <= LARGEST for n in size):
        raise InputError(f"input size {size[0]} x {size[1]}; expected 1 to {LARGEST} pixels a side")
    try:
        attempt(*size)
    except PerimetryError as error:
        allowed = [s for s in _candidates(size, model.spec, model.target) if _takes(attempt, s)]
        shown = ", ".join(f"{h} x {w}" for h, w in allowed)
        raise InputError(
            f"{model.reference} refuses an input of {size[0]} x {size[1]} (height x width); of the "
            f"sizes near it, and its own, it takes {shown or 'none'} ({error})"
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
