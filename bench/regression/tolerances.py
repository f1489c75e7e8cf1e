"""Tolerances: how large a change of each metric may be, from a TOML file.

    fingerprint = 0.001            # relative difference of features, stage by stage; "off"
    maps = 0.02                    # relative difference of stored maps; "off"
    noise_factor = 3               # times the measured noise floor

    [metrics."deadpixel.*"]        # SUITE.METRIC or SUITE:PROTOCOL.METRIC, with wildcards
    absolute = 0.02
    relative = 0.05
    direction = "any"              # or "worse": only changes away from even

    [metrics."erf:kim2023.rawL1"]
    ignore = true

A change is within tolerance unless it is larger than the absolute bound AND than the relative one
times the baseline's value. The entries that match a metric are applied in the order of the
file, field by field, after those of `DEFAULTS`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...adapters.errors import InputError, UnknownNameError, check_name
from ..ranking.names import unknown_column

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


Direction = Literal["any", "worse"]

OFF = float("inf")


@dataclass(frozen=True)
class Bounds:
    """How much a metric may change."""

    absolute: float = 0.01
    relative: float = 0.02
    direction: Direction = "any"
    ignore: bool = False

    def limit(self, value: float) -> float:
        """The largest change that is still within tolerance, from `value`."""
        return max(self.absolute, self.relative * abs(value))


DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "*": {},
    "*.by_period_*": {"absolute": 0.002, "relative": 0.05},
    "*.raw*": {"absolute": 0.0, "relative": 0.05},
    "*.ratio": {"absolute": 0.05, "relative": 0.05},
    "*.offset*": {"absolute": 0.05},
    "*.detect_*": {"absolute": 0.0, "relative": 0.1},
    "structure.*": {"absolute": 1e-6, "relative": 1e-6},
    "structure.receptive_field*": {"absolute": 0.0, "relative": 0.0},
}
"""Estimates may change by 0.01 or by 2 %, offsets by a twentieth of a pixel, exact values by
rounding alone."""


@dataclass(frozen=True)
class Tolerances:
    """Bounds by pattern, of which later ones take precedence; and those of maps and features."""

    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    maps: float = 0.02
    fingerprint: float = 1e-3
    noise_factor: float = 3.0

    def bounds(self, column: str) -> Bounds:
        """The bounds of a metric, such as `deadpixel.weakest`."""
        found = Bounds()
        for pattern, values in [*DEFAULTS.items(), *self.metrics.items()]:
            if fnmatchcase(column, pattern):
                found = replace(found, **values)
        return found


def check_patterns(tolerances: Tolerances, columns: Collection[str], place: str) -> None:
    """Raise `UnknownNameError` for a pattern that matches none of the metrics `columns`.

    Nor any default metric of the suites: one file of tolerances may serve several baselines.
    """
    from ...suites.registry import SUITES

    known = {f"{suite.name}.{metric.name}" for suite in SUITES.values() for metric in suite.metrics}
    for pattern in tolerances.metrics:
        if not any(fnmatchcase(column, pattern) for column in (*columns, *known)):
            raise UnknownNameError(
                f"the tolerance of {pattern!r} matches no metric of {place!r}: "
                f"{unknown_column('metric', pattern, sorted(columns))}; correct or remove its table"
            )


def read_tolerances(path: Path) -> Tolerances:
    """Read a TOML file. Raises `InputError`, `UnknownNameError` for an unknown field."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"tolerances {str(path)!r} cannot be read as TOML: {error}") from error
    for name in content:
        check_name("tolerance", name, [f.name for f in fields(Tolerances)])
    metrics = content.pop("metrics", {})
    if not isinstance(metrics, dict):
        raise InputError('tolerances: metrics must be tables such as [metrics."deadpixel.*"]')
    chosen = {
        name: _number(name, value, off=name != "noise_factor") for name, value in content.items()
    }
    return Tolerances({p: _entry(p, values) for p, values in metrics.items()}, **chosen)


def _entry(pattern: str, values: Any) -> dict[str, Any]:
    """The fields of one metric's table."""
    if not isinstance(values, dict):
        raise InputError(
            f"tolerances: {pattern!r} is {values!r}; expected a table with absolute and relative"
        )
    found: dict[str, Any] = {}
    for name, value in values.items():
        check_name(f"field of {pattern!r}", name, [f.name for f in fields(Bounds)])
        found[name] = _field(f"{pattern}.{name}", name, value)
    return found


def _field(where: str, name: str, value: Any) -> Any:
    if name in ("absolute", "relative"):
        return _number(where, value)
    if name == "ignore" and not isinstance(value, bool):
        raise InputError(f"tolerances: {where} is {value!r}; expected true or false")
    if name == "direction" and value not in get_args(Direction):
        raise InputError(f"tolerances: {where} is {value!r}; expected any or worse")
    return value


def _number(where: str, value: Any, *, off: bool = False) -> float:
    if off and value == "off":
        return OFF
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InputError(f"tolerances: {where} is {value!r}; expected a number of at least 0")
    return float(value)
