"""Padding modes that replace zero padding: rules for every runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .errors import InputError, NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Mapping


PaddingMode = Literal["reflect", "replicate", "circular"]
"""Padding modes that replace zero padding, by torch's names."""

PADDING_MODES: tuple[PaddingMode, ...] = ("reflect", "replicate", "circular")

NO_PADDING = "no layer before the target pads its input; choose a target behind a layer that pads"

MEAN = "a mean under kernel padding, whose divisor follows its zero padding"


def too_small(border: PaddingMode, most: tuple[int, int], size: tuple[int, int]) -> str | None:
    """Return why an input of `size` cannot be padded by `most` (rows, columns), or None."""
    room = {"reflect": 1, "replicate": -(2**31), "circular": 0}[border]
    if all(n + room <= s for n, s in zip(most, size, strict=True)):
        return None
    return (
        f"its input of {size[0]} x {size[1]} is too small to continue by {most[0]} x {most[1]} "
        f"({border})"
    )


def check_padding_mode(border: str) -> None:
    """Raise `InputError` unless `border` is one of `PADDING_MODES`."""
    if border not in PADDING_MODES:
        raise InputError(
            f"unknown padding mode {border!r}; expected one of {', '.join(PADDING_MODES)}"
        )


def notes(border: PaddingMode, exchanged: list[str], left: Mapping[str, str]) -> list[str]:
    """Return a note on the changed layers, and one with the reason for each other layer.

    Raises `NotApplicableError` when no layer was changed.
    """
    kept = [
        f"{border} padding: {name} keeps its padding: {reason}" for name, reason in left.items()
    ]
    if not exchanged:
        raise NotApplicableError("; ".join(kept) or NO_PADDING)
    return [
        f"{border} padding in {len(exchanged)} layer{'' if len(exchanged) == 1 else 's'}",
        *kept,
    ]
