"""The difference of two fingerprints: at every stage, and in every output.

The *difference* of two models at a stage, or in an output, is |a - b| / |a|, over all images
together; in an output that is not of floats it is the share of its parts (see `fingerprint`) that
are not equal, of those with entries. Two models of one architecture (two states of a network, two
exports, float32 and int8) *diverge* at the first stage where it exceeds `DIVERGED`, or else in an
output.

Stages pair by shape: a quantised file has its rounded image as an additional stage. Outputs pair by
name, and those of other names by their order where they have the same shapes (a module and its
export).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..output.text import clean
from .compatibility import image_differences, incompatibilities
from .fingerprint import ALL, IMAGES, NO_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..records.record import Record

    Rows = list[dict[str, Any]]


DIVERGED = 1e-3
"""Relative difference above which two networks have diverged: far above float32 rounding."""


@dataclass(frozen=True)
class StageDifference:
    """The difference of two networks at one stage, or in one output.

    `first` and `second` are its names in them. An `exact` output is compared by equality. `why` is
    the reason of an infinite difference, if it is another than numbers that are not finite. `shift`
    is (rows, columns), where the second map is the first one but for a shift.
    """

    first: str
    second: str
    shape: tuple[int, ...]
    difference: float
    output: bool = False
    exact: bool = False
    why: str = ""
    shift: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """Its name among stages and outputs."""
        return f"output {self.first or self.second}" if self.output else self.first

    def exceeds(self, tolerance: float) -> bool:
        """Whether the difference is a change; any is one in what is compared by equality."""
        return not self.difference <= (0.0 if self.exact else tolerance)


def stage_differences(first: Record, second: Record) -> list[StageDifference] | str:
    """The difference at every stage, in order, then in every output; or why there is none."""
    for record in (first, second):
        if record.status != "ok" or not (_table(record, "stages") or _table(record, "outputs")):
            return record.why or "no fingerprint"
    different = incompatibilities(first, second)
    if different:
        return "; ".join(different)
    stages = _stages(first, second)
    return stages if isinstance(stages, str) else [*stages, *_outputs(first, second)]


def output_differences(first: Record, second: Record) -> list[StageDifference]:
    """The difference in every output, also of two architectures or of different preprocessing.

    The models need only have seen the same images; without these the list is empty.
    """
    looked = all(r.status == "ok" and _table(r, "outputs") for r in (first, second))
    return _outputs(first, second) if looked and not image_differences(first, second) else []


def _table(record: Record, name: str) -> Rows:
    return record.tables.get(name) or []


def _stages(first: Record, second: Record) -> list[StageDifference] | str:
    """The stages, paired by shape; or that they do not pair."""
    a, b = _by_shape(first), _by_shape(second)
    both = [shape for shape in a if shape in b]
    if len(both) < min(len(a), len(b)):
        shapes = " against ".join(
            ", ".join(" x ".join(map(str, shape)) for shape in one if shape not in both)
            for one in (a, b)
        )
        return f"their stages have different shapes ({shapes}): they are not of one architecture"
    return [
        StageDifference(
            str(a[shape][0]["stage"]),
            str(b[shape][0]["stage"]),
            shape,
            _difference(*_of_both(a[shape], b[shape])),
        )
        for shape in both
    ]


def _by_shape(record: Record) -> dict[tuple[int, ...], Rows]:
    """Rows of all images by stage; there is one stage at each resolution."""
    found: dict[tuple[int, ...], Rows] = {}
    for row in _table(record, "stages"):
        shape = tuple(int(row[name]) for name in ("channels", "height", "width"))
        found.setdefault(shape, []).append(row)
    return found


def _outputs(first: Record, second: Record) -> list[StageDifference]:
    """The outputs; what one of the two could not read is left out, see `unread`."""
    a, b = (_by_name(record) for record in (first, second))
    left_out = {str(row["output"]) for r in (first, second) for row in _table(r, "unread")}
    pairs = _paired(*({n: r for n, r in c.items() if not {n, ALL} & left_out} for c in (a, b)))
    return [_output(a.get(one, []), b.get(other, []), one, other) for one, other in pairs]


def _by_name(record: Record) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in _table(record, "outputs"):
        found.setdefault(str(row["output"]), []).append(row)
    return found


def _paired(a: Mapping[str, Rows], b: Mapping[str, Rows]) -> list[tuple[str, str]]:
    """Names of both; an empty one where the other has no such output."""
    rest = [name for name in b if name not in a]
    alone = [name for name in a if name not in b]
    matched = dict(zip(alone, rest, strict=False))
    if len(rest) != len(alone) or any(_form(a[n]) != _form(b[m]) for n, m in matched.items()):
        matched = {}
    found = [(name, name if name in b else matched.get(name, "")) for name in a]
    return [*found, *(("", name) for name in rest if name not in matched.values())]


def _form(rows: Rows) -> list[tuple[Any, ...]]:
    return [(row["image"], row["shape"], row["exact"]) for row in rows]


def _output(a: Rows, b: Rows, one: str, other: str) -> StageDifference:
    """The difference in one output; infinite where shape, type or what is not finite differs."""
    exact, row = bool((a or b)[0]["exact"]), (a or b)[0]
    shape = tuple(int(n) for n in str(row["shape"]).split(" x "))

    def found(difference: float, why: str = "") -> StageDifference:
        return StageDifference(one, other, shape, difference, True, exact, why)

    if not a or not b:
        return found(math.inf, f"only the {'second' if b else 'first'} has this output")
    a, b = _of_both(a, b)
    for old, new in zip(a, b, strict=True):
        if old["shape"] != new["shape"]:
            return found(math.inf, f"its shape is {old['shape']} and {new['shape']}")
        if old["exact"] != new["exact"]:
            return found(math.inf, "only one of the two is of floats")
        if old["not_finite"] != new["not_finite"]:
            return found(math.inf, "other values are not finite")
    return found(_unequal(a, b) if exact else _difference(a, b))


def _of_both(a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """The rows of the images that both have, in one order."""
    by_image = ({row["image"]: row for row in rows} for rows in (a, b))
    one, other = by_image
    both = sorted(one.keys() & other.keys())
    return [one[i] for i in both], [other[i] for i in both]


def _unequal(a: Rows, b: Rows) -> float:
    """The share of the parts of all images that are not equal, of those that have entries."""
    one, other = (np.array([row["sketch"] for row in rows], np.int64) for rows in (a, b))
    filled = (one != NO_ENTRIES) | (other != NO_ENTRIES)
    return float(np.mean((one != other)[filled])) if filled.any() else 0.0


def _difference(a: Rows, b: Rows) -> float:
    """|a - b| / |a| over the images of both; infinite where only a is 0, or one is not finite."""
    # records have `nan` and `inf` as text, which `float64` reads
    one, other = (np.array([row["sketch"] for row in rows], np.float64) for rows in (a, b))
    scale = float(np.linalg.norm(np.array([row["norm"] for row in a], np.float64)))
    distance = float(np.linalg.norm(other - one))
    if not (np.isfinite(scale) and np.isfinite(distance)):
        return math.inf
    if scale == 0:
        return 0.0 if distance == 0 else math.inf
    return distance / scale


def first_divergent_stage(found: Sequence[StageDifference]) -> StageDifference | None:
    """The first stage, or output, at which the two diverge."""
    return next((p for p in found if p.exceeds(DIVERGED)), None)


def unread(*records: Record) -> dict[str, str]:
    """The outputs that were not looked at in one of `records`, with the reason."""
    return {
        str(row["output"]): str(row["reason"])
        for record in reversed(records)
        for row in _table(record, "unread")
    }


def not_looked_at(*records: Record) -> list[str]:
    """A clause for each output that was not looked at, and one if there was no output at all."""
    found = [
        f"{name if name == ALL else f'output `{clean(name, 60)}`'} {clean(why, 200)}"
        for name, why in unread(*records).items()
    ]
    none = not all(_table(record, "outputs") for record in records)
    return found or (["no output was looked at"] if none else [])


def looked_at(found: Sequence[StageDifference]) -> str:
    """What was looked at: stages and outputs by name."""
    kinds = [
        _listed("stage", [p for p in found if not p.output]),
        _listed("output", [p for p in found if p.output]),
    ]
    return f"{' and '.join(text for text in kinds if text)}, of the first {IMAGES} images"


def _listed(kind: str, found: Sequence[StageDifference]) -> str:
    if not found:
        return ""
    names = ", ".join(f"`{clean(p.first or p.second, 60)}`" for p in found)
    return f"{len(found)} {kind}{'s' if len(found) > 1 else ''} ({names})"
