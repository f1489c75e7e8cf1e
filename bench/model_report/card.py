"""A section of a model card in Markdown: `perimetry show --format card`."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from ..output.damaged import try_or_none
from ..output.text import clean, code
from .provenance import images_line, repeat
from .reported import reported
from .summary import summary

if TYPE_CHECKING:
    from .case import Case
    from .reported import ReportedRecord


def card(case: Case) -> str:
    """The section: three lines, main metrics with intervals, how it was made, and the command."""
    found = reported(case.records, case.suites)
    padding = "" if case.fill == "none" else f", kernel padding {clean(case.fill, 20)}"
    rows = [row for one in found for row in _rows(one)]
    protocols = sorted({f"{o.record.suite}:{o.record.protocol} {o.record.version}" for o in found})
    parts = [
        f"## Visual field{padding}",
        "\n".join(f"- {_inert(line)}" for line in summary(case)),
        _table(rows),
        f"Measured with perimetry {metadata.version('perimetry')} as {code(case.reference)}; "
        f"protocols with versions: {', '.join(protocols)}; {_inert(images_line(case.records))}. "
        "Intervals are 95 %.",
    ]
    command = try_or_none(repeat, case.records, case.suites)
    parts += [f"```\n{clean(command, 4000)}\n```"] if command and "`" not in command else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(one: ReportedRecord) -> list[tuple[str, ...]]:
    """The main metrics of a record: name, words, value with interval, and the even value."""
    found: list[tuple[str, ...]] = []
    for name in one.names:
        metric = one.metric(name)
        if metric.main or name == one.headline:
            even = "" if metric.even is None else f"{metric.even:g}"
            unit = "" if metric.unit in ("ratio", "share", "") else f" {metric.unit}"
            found.append(
                (code(f"{one.column}.{name}"), one.label(name), one.text(name) + unit, even)
            )
    return found


def _table(rows: list[tuple[str, ...]]) -> str:
    from tabulate import tabulate

    heads = ("metric", "what", "value", "if even")
    align = ("left", "left", "right", "right")
    rows = [(row[0], *map(_inert, row[1:])) for row in rows]
    return tabulate(rows, heads, "pipe", disable_numparse=True, colalign=align) if rows else ""


def _inert(text: str) -> str:
    """`text` in which no Markdown is live."""
    shown = clean(text, 4000)
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#~" else char for char in shown)
