"""What `perimetry list` says."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from ...adapters.errors import UnknownNameError, unknown


def models(pattern: str = "*") -> str:
    """References of all timm architectures that match, one a line, and the other forms.

    Raises `UnknownNameError` with near names when none does, as `suites` and `metrics` do.
    """
    from ...adapters.load import list_models
    from ...adapters.reference import FORMS, Reference

    found = list_models(pattern)
    if not found:
        known = list_models()
        raise UnknownNameError(
            unknown("model", str(replace(Reference.parse_any(pattern), runtime="timm")), known)
        )
    return "\n".join([*found, f"{len(found)} architectures; a reference is {FORMS}"])


def suites(pattern: str = "*") -> str:
    """Suites with protocols (the default first), versions, headline metric and settings."""
    from ...suites.registry import SUITES
    from ...suites.settings import settings_of

    lines = []
    for name, suite in SUITES.items():
        if fnmatchcase(name, pattern):
            protocols = ", ".join(f"{p} (version {v})" for p, v in suite.protocols.items())
            lines.append(f"{name}: {protocols}; headline {suite.headline}")
            chosen = ", ".join(f"{k}={_text(v)}" for k, v in settings_of(suite).items())
            lines += [f"    settings: {chosen}"] if chosen else []
    if not lines:
        raise UnknownNameError(unknown("suite", pattern, SUITES))
    return "\n".join(lines)


def _text(value: object) -> str:
    """A setting's value as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def metrics(pattern: str = "*") -> str:
    """Every metric: name, definition, unit, which way is more even, value on an even model."""
    from tabulate import tabulate

    from ...suites.registry import SUITES

    rows = [
        (f"{suite.name}.{m.name}", m.definition, m.unit, m.better, "" if m.even is None else m.even)
        for suite in SUITES.values()
        for m in suite.metrics
        if fnmatchcase(f"{suite.name}.{m.name}", pattern)
    ]
    if not rows:
        known = [f"{suite.name}.{m.name}" for suite in SUITES.values() for m in suite.metrics]
        raise UnknownNameError(unknown("metric", pattern, known))
    heads = ("metric", "definition", "unit", "more even", "even")
    text: str = tabulate(rows, heads, disable_numparse=True)
    return text
