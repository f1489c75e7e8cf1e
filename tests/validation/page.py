"""Every published or exact reference beside the number this package finds, as one page.

Our values are never written down: each is computed by the public functions that audits use. A row
*agrees* when it lies within its tolerance of the reference. Where implementations differ by
construction, a row may *differ, explained*: the explanation predicts what the value must be, and
the prediction is checked like a reference. A goal that is known to be missed *falls short*.
Everything else *differs*.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata

from tabulate import tabulate

from . import (
    before_after,
    differences,
    estimates,
    fields,
    known,
    monte_carlo,
    outputs,
    published,
)
from .check import VERDICTS, ReferenceCheck, value_text

PARTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(known, fields, published, monte_carlo, estimates, outputs),
        *(differences, before_after),
    )
}
"""What can be computed alone."""


def run_validation(
    parts: Iterable[str] = tuple(PARTS), *, quick: bool = False
) -> list[ReferenceCheck]:
    """Compute the checks of `parts`; `quick` leaves out those that take more than a few seconds."""
    return [check for name in parts for check in PARTS[name].checks(quick=quick)]


def before_and_after() -> str:
    """The section that sets the headline's estimator beside the one before."""
    rows, notes = before_after.table()
    parts = [before_after.INTRODUCTION, _table(before_after.HEADS, rows)]
    return "\n\n".join([*parts, *(f"- {note}" for note in notes)])


INTRODUCTION = """\
# Validation

Every published or exact reference that we know, beside the number this package finds. The page is
written by `python tests/write_validation.py` in a checkout; do not edit it. Each value under *ours*
is computed by the public functions that audits use, named in the last column.

*Agrees*: within the given tolerance. *Differs, explained*: the implementations differ by
construction; the note below the table gives the reason and the value that follows from it, and ours
is that value. *Falls short*: a goal of ours is missed, by as much as the row says. *Differs*: none
of these.
"""


def render_validation(
    checks: Sequence[ReferenceCheck], *, comparison: str = "", page: str = ""
) -> str:
    """Write `checks` as Markdown: a summary, then a table and its notes for each group.

    `comparison` is the section of `before_and_after`. What is in `page` and not computed again
    stays as it is.
    """
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    for group in dict.fromkeys(check.group for check in checks):
        sections[group] = "\n\n".join(_section([c for c in checks if c.group == group]))
    if comparison:
        sections[before_after.TITLE] = comparison
    tallies = {name: _verdicts(text) for name, text in sections.items()}
    rows = [_tally(name, found) for name, found in tallies.items() if found]
    rows.append(_tally("**all**", sum(tallies.values(), Counter())))
    parts = [INTRODUCTION, _stack(), _table(["group", "checks", *VERDICTS], rows)]
    parts += [f"## {name}\n\n{text.strip()}" for name, text in sections.items()]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _verdicts(section: str) -> Counter[str]:
    """How often each verdict is in the table of a section."""
    lines = (line for line in section.splitlines() if line.startswith("| "))
    rows = ([cell.strip(" *") for cell in re.split(r"(?<!\\)\|", line)] for line in lines)
    return Counter(row[5] for row in rows if len(row) == 9 and row[5] in VERDICTS)


def _tally(name: str, found: Counter[str]) -> list[str]:
    return [name, str(found.total()), *(str(found[verdict]) for verdict in VERDICTS)]


def _section(checks: Sequence[ReferenceCheck]) -> list[str]:
    heads = ["what", "reference", "ours", "tolerance", "verdict", "source", "computed by"]
    notes = [f"- {c.what}: {c.because}" for c in checks if c.verdict == "differs, explained"]
    notes += [f"- {c.what}: {c.shortfall}" for c in checks if c.verdict == "falls short"]
    return [_table(heads, map(_row, checks)), *(["\n".join(notes)] if notes else [])]


def _row(check: ReferenceCheck) -> list[str]:
    sign = {"=": "", ">=": "at least ", "<=": "at most "}[check.relation]
    verdict = check.verdict if check.verdict == "agrees" else f"**{check.verdict}**"
    return [
        check.what,
        sign + value_text(check.reference),
        value_text(check.ours),
        value_text(check.tolerance) if check.tolerance else "exact",
        verdict,
        check.source,
        f"`{check.how}`",
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    safe = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(safe, heads, tablefmt="github", disable_numparse=True)


def _stack() -> str:
    """The libraries that the numbers were made with."""
    names = ("perimetry", "torch", "timm", "numpy", "scipy")
    return f"Made with {', '.join(f'{n} {metadata.version(n)}' for n in names)}."
