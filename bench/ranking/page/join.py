"""Accuracy and other numbers from tables: `perimetry board --join CSV`, several times if need be.

A file has a line for each set of weights with the columns `model` and, if there are several image
sizes, `img_size`; every other column of numbers can be plotted. timm's result files have this form
(`model,img_size,top1,top1_err,top5,top5_err,param_count,...`).

A record of `timm:NAME.TAG` or of a file takes the line of that name, and `timm:NAME` the line of
timm's default tag. A record without weights of its own (`timm:NAME@init`) takes the line of its
architecture with the highest `top1`. Lines of another image size are never taken. Which models have
a line, and why others have none, is said of each table.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....adapters.errors import InputError
from ....adapters.reference import Reference
from ...output.numbers import join_with_and

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...records.record import Record


KEYS = ("model", "img_size")


BEST = "top1"


Line = dict[str, str]


@dataclass(frozen=True)
class Match:
    """One table: its name, a note on how its lines were found, and why models have none."""

    name: str
    note: str
    unmatched: dict[str, str]

    @property
    def text(self) -> str:
        """The note, and the reasons with the models of each, the most frequent first."""
        groups: dict[str, list[str]] = {}
        for model, reason in self.unmatched.items():
            groups.setdefault(reason, []).append(model)
        ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
        why = [f"{reason}: {join_with_and(names, 3)}" for reason, names in ordered]
        return f"{self.note}. Without a line: {'; '.join(why)}" if why else self.note


@dataclass(frozen=True)
class Joined:
    """Numbers by column, one for each model or None, and what was matched in each table."""

    columns: dict[str, list[float | None]]
    tables: tuple[Match, ...]

    @property
    def note(self) -> str:
        """How the numbers were found, in a line."""
        return "; ".join(table.note for table in self.tables)


def join_tables(paths: Sequence[Path], records: Sequence[Record]) -> Joined:
    """Numbers of the tables at `paths` for the models of `records`, one record per model.

    Columns that several tables have are named `COLUMN (TABLE)`. Raises `InputError` as
    `join_table`.
    """
    found = [join_table(path, records) for path in paths]
    times = Counter(name for one in found for name in one.columns)
    columns = {
        name if times[name] == 1 else f"{name} ({path.stem})": values
        for path, one in zip(paths, found, strict=True)
        for name, values in one.columns.items()
    }
    return Joined(columns, tuple(table for one in found for table in one.tables))


def join_table(path: Path, records: Sequence[Record]) -> Joined:
    """Numbers of the table at `path` for the models of `records`, one record per model.

    Raises `InputError` when the file has no column `model`, no column of numbers, or none of the
    models.
    """
    lines = _read(path)
    names = [name for name in lines[0] if name not in KEYS and any(_number(x[name]) for x in lines)]
    if not names:
        raise InputError(f"{str(path)!r} has no column of numbers except {' and '.join(KEYS)}")
    both = [_line_of(record, lines) for record in records]
    found = [line if isinstance(line, dict) else None for line in both]
    hits = sum(line is not None for line in found)
    if not hits:
        raise InputError(
            f"{str(path)!r} has none of the {len(records)} models at their image size; expected "
            f"names such as {records[0].model.reference!r}, but its first is {lines[0]['model']!r}"
        )
    columns = {n: [_number(line[n]) if line else None for line in found] for n in names}
    best = sum(line is not None and _untrained(r) for r, line in zip(records, found, strict=True))
    used = len({id(line) for line in found if line is not None})
    note = f"{path.name}: {hits} of {len(records)} models, {used} of {len(lines)} lines"
    note += f"; {best} without weights have the best number of their architecture" if best else ""
    unmatched = {
        record.model.reference: why
        for record, why in zip(records, both, strict=True)
        if isinstance(why, str)
    }
    return Joined(columns, (Match(path.name, note, unmatched),))


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


def _line_of(record: Record, lines: Sequence[Line]) -> Line | str:
    """The line of a record's weights, or the best one of its architecture, at its image size.

    The reason where there is none.
    """
    reference = Reference.parse_any(record.model.reference)
    side = record.model.spec.get("height")
    if not reference.untrained:
        from ....adapters.names import with_tag

        name = reference.short
        known = {name, Path(name).name, Path(name).stem, with_tag(str(reference))}
        own = [line for line in lines if line["model"] in known]
    elif reference.runtime == "timm":
        own = [line for line in lines if line["model"].partition(".")[0] == reference.name]
    else:
        return "no weights of its own, and not an architecture of timm"
    fitting = [line for line in own if side is None or _side(line) in (None, side)]
    if fitting and reference.untrained:
        return max(fitting, key=lambda line: _number(line.get(BEST, "")) or -math.inf)
    if fitting:
        return fitting[0]
    sides = sorted({f"{_side(line):g}" for line in own})
    return (
        f"no line at its size {side}, only at {', '.join(sides)}" if own else "no line of its name"
    )


def _side(line: Line) -> float | None:
    return _number(line.get("img_size", ""))


def _number(text: str) -> float | None:
    """`text` as a finite number, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
