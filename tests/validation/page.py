"""Every published or exact reference beside the number this package finds, as one page.

Our values are never written down: each is computed by the public functions that audits use. A row
*agrees* when it lies within its tolerance of the reference. Where implementations differ by
construction, a row may *differ, explained*: the explanation predicts what the value must be, and
the prediction is checked like a reference. Everything else *differs*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import metadata

from tabulate import tabulate

from . import estimates, fields, known, monte_carlo, published
from .check import VERDICTS, ReferenceCheck, value_text


def run_validation(*, quick: bool = False) -> list[ReferenceCheck]:
    """Compute every check; `quick` leaves out those that take more than a few seconds."""
    groups = (known, fields, published, monte_carlo, estimates)
    return [check for group in groups for check in group.checks(quick=quick)]


INTRODUCTION = """\
# Validation

Every published or exact reference that we know, beside the number this package finds. The page is
written by `python tests/write_validation.py` in a checkout; do not edit it. Each value under *ours*
is computed by the public functions that audits use, named in the last column.

*Agrees*: within the given tolerance. *Differs, explained*: the implementations differ by
construction; the note below the table gives the reason and the value that follows from it, and ours
is that value. *Differs*: neither.
"""


def render_validation(checks: Sequence[ReferenceCheck]) -> str:
    """Write `checks` as Markdown: a summary, then a table and its notes for each group."""
    groups = list(dict.fromkeys(check.group for check in checks))
    rows = [_tally(group, [c for c in checks if c.group == group]) for group in groups]
    rows.append(_tally("**all**", checks))
    parts = [INTRODUCTION, _stack(), _table(["group", "checks", *VERDICTS], rows)]
    for group in groups:
        parts += [f"## {group}", *_section([c for c in checks if c.group == group])]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _tally(name: str, checks: Sequence[ReferenceCheck]) -> list[str]:
    found = Counter(check.verdict for check in checks)
    return [name, str(len(checks)), *(str(found[verdict]) for verdict in VERDICTS)]


def _section(checks: Sequence[ReferenceCheck]) -> list[str]:
    heads = ["what", "reference", "ours", "tolerance", "verdict", "source", "computed by"]
    notes = [f"- {c.what}: {c.because}" for c in checks if c.verdict == "differs, explained"]
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
