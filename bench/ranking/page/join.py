"""Accuracy and other numbers from a table: `perimetry board --join CSV`.

The file has a line for each set of weights with the columns `model` and, if there are several image
sizes, `img_size`; every other column of numbers can be plotted. timm's result files have this form
(`model,img_size,top1,top1_err,top5,top5_err,param_count,...`).

A record of `timm:NAME.TAG` or of a file takes the line of that name, and `timm:NAME` the line of
timm's default tag. A record without weights of its own (`timm:NAME@init`) takes the line of its
architecture with the highest `top1`. Lines of another image size are never taken.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....adapters.errors import InputError
from ....adapters.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...records.record import Record


KEYS = ("model", "img_size")


BEST = "top1"


Line = dict[str, str]


@dataclass(frozen=True)
class Joined:
    """Numbers by column, one for each model or None, and a note on how they were found."""

    columns: dict[str, list[float | None]]
    note: str


def join_table(path: Path, records: Sequence[Record]) -> Joined:
    """Numbers of the table at `path` for the models of `records`, one record per model.

    Raises `InputError` when the file has no column `model`, no column of numbers, or none of the
    models.
    """
    lines = _read(path)
    names = [name for name in lines[0] if name not in KEYS and any(_number(x[name]) for x in lines)]
    if not names:
        raise InputError(f"{str(path)!r} has no column of numbers except {' and '.join(KEYS)}")
    found = [_line_of(record, lines) for record in records]
    hits = sum(line is not None for line in found)
    if not hits:
        raise InputError(
            f"{str(path)!r} has none of the {len(records)} models at their image size; expected "
            f"names such as {records[0].model.reference!r}, but its first is {lines[0]['model']!r}"
        )
    columns = {n: [_number(line[n]) if line else None for line in found] for n in names}
    best = sum(line is not None and _untrained(r) for r, line in zip(records, found, strict=True))
    note = f"{path.name}: {hits} of {len(records)} models"
    note += f"; {best} without weights have the best number of their architecture" if best else ""
    return Joined(columns, note)


def _read(path: Path) -> list[Line]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restkey="", restval="")
            names, lines = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}; expected a CSV table") from error
    if "model" not in names or not lines:
        raise InputError(
            f"{str(path)!r} has no lines with a column `model`; expected columns such as "
            "model,img_size,top1"
        )
    return [{k: v for k, v in line.items() if k} for line in lines]


def _untrained(record: Record) -> bool:
    return Reference.parse_any(record.model.reference).untrained


def _line_of(record: Record, lines: Sequence[Line]) -> Line | None:
    """The line of a record's weights, or the best one of its architecture, at its image size."""
    reference = Reference.parse_any(record.model.reference)
    side = record.model.spec.get("height")
    of_size = [line for line in lines if side is None or _side(line) in (None, side)]
    if not reference.untrained:
        from ....adapters.load import with_tag

        name = reference.short
        known = {name, Path(name).name, Path(name).stem, with_tag(str(reference))}
        return next((line for line in of_size if line["model"] in known), None)
    if reference.runtime != "timm":
        return None
    own = [line for line in of_size if line["model"].partition(".")[0] == reference.name]
    return max(own, key=lambda line: _number(line.get(BEST, "")) or -math.inf, default=None)


def _side(line: Line) -> float | None:
    return _number(line.get("img_size", ""))


def _number(text: str) -> float | None:
    """`text` as a finite number, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
