"""Whether rows that stand side by side were fed with the same kind of input.

Every model takes its input in its own form, and a mean and a standard deviation that a model
declares are part of it: they are no difference between rows. What makes rows hard to compare is
another size, another number or order of channels, another range of the values that reach the model
(0..255, or about 1 wide), other resizing and cropping of photographs, and a normalisation that was
guessed beside one that is declared, or other guesses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...adapters.input_spec import guessed_values
from ...suites.images import BUILT_IN
from ..output.files import try_or_none
from ..output.text import clean
from .selection import input_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .record import Record


WIDEST = 16.0
"""Distance of black and white after normalisation above which values are those of 0..255."""

MOST_GROUPS = 4

MOST_NAMES = 3

PIXEL_FIELDS = ("mean", "std", "value_range", "channel_order", "channels", "layout")
"""Guessed fields that may change the values of pixels in silence; of a size, the run shows it."""


def fed_differently(
    rows: Iterable[tuple[str, Record]], kinds: Sequence[str] | None = None
) -> list[str]:
    """One sentence that names the groups of rows with different inputs; none if all are alike.

    `rows` are names, each with one record of its row; `kinds` are keys of `KINDS`.
    """
    known = [(name, record) for name, record in rows if record.model.spec]
    clauses = [clause for kind in kinds or KINDS if (clause := _clause(kind, known))]
    return [f"Fed differently: {'; '.join(clauses)}."] if clauses else []


def _clause(kind: str, rows: Iterable[tuple[str, Record]]) -> str | None:
    """The groups of one kind, the largest first, each with its rows; None for one group."""
    groups: dict[str, list[str]] = {}
    for name, record in rows:
        label = try_or_none(KINDS[kind], record)
        if label is not None:
            groups.setdefault(label, []).append(name)
    if len(groups) < 2:
        return None
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    shown = [f"{label} ({_named(names)})" for label, names in ordered[:MOST_GROUPS]]
    rest = sum(len(names) for _, names in ordered[MOST_GROUPS:])
    more = [f"others ({rest} rows)"] if rest else []
    return f"{kind} {', '.join([*shown, *more])}"


def _named(names: list[str]) -> str:
    """The names of a small group, the number of a large one."""
    unique = list(dict.fromkeys(names))
    few = len(unique) <= MOST_NAMES
    return ", ".join(clean(name, 60) for name in unique) if few else f"{len(unique)} models"


def _channels(record: Record) -> str:
    spec = record.model.spec
    return str(spec.get("channel_order")) if spec.get("channels") == 3 else str(spec["channels"])


def _range(record: Record) -> str:
    """Which range the values that reach the model have, as far as means and ranges say."""
    spec = record.model.spec
    white, std = spec.get("value_range", 1.0), spec.get("std") or (1.0,)
    return "0..255" if white > WIDEST * min(map(abs, std)) else "0..1"


def _photographs(record: Record) -> str | None:
    """How photographs were resized and cropped; None for images that are drawn at any size."""
    spec = record.model.spec
    if record.images is None or record.images.name in BUILT_IN:
        return None
    return f"{spec.get('interpolation')} at crop {spec.get('crop_pct')}"


def _normalisation(record: Record) -> str:
    """The guesses that may change pixels, or that all of them are declared."""
    spec: Mapping[str, Any] = record.model.spec
    names = [name for name in spec.get("guessed") or () if name in PIXEL_FIELDS]
    guessed = guessed_values({**spec, "guessed": names})
    return f"guessed: {clean(', '.join(guessed), 200)}" if guessed else "declared"


KINDS: dict[str, Callable[[Record], str | None]] = {
    "size": input_size,
    "channels": _channels,
    "range": _range,
    "photographs": _photographs,
    "normalisation": _normalisation,
}
"""What is compared, and the group of a record; None where it does not apply."""
