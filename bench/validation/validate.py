"""`perimetry validate`: every published or exact reference beside the number this package finds.

Nothing that stands under *ours* is written down anywhere: each value is computed by the public
functions that audits use. A row *agrees* when it lies within its tolerance of the reference. Where
implementations differ by construction, a row may *differ, explained*: then the explanation
predicts what the value must be instead, and the prediction is checked like a reference. Whatever
else differs is said to differ.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .check import VERDICTS, value_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .check import ReferenceCheck


def run_validation(*, quick: bool = False) -> list[ReferenceCheck]:
    """Compute every check; `quick` leaves out what takes more than a few seconds."""
    from . import estimates as validation_estimates
    from . import fields as validation_fields
    from . import known as validation_known
    from . import monte_carlo as validation_monte_carlo
    from . import published as validation_published

    checks = [*validation_known.checks(quick=quick), *validation_fields.checks(quick=quick)]
    checks += validation_published.checks(quick=quick)
    checks += validation_monte_carlo.checks(quick=quick)
    checks += validation_estimates.checks(quick=quick)
    return checks


INTRODUCTION = """\
# Validation

Every published or exact reference that we know beside the number this package finds. Written by
`perimetry validate --out docs/validation.md`; do not edit it. Nothing under *ours* is written down
in the package: each value comes out of the public functions that audits use, named in the last
column.

*Agrees*: within the tolerance given. *Differs, explained*: implementations differ by construction;
the note below the table says why, and what the value must then be, and it is that. *Differs*:
neither.
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
    from tabulate import tabulate

    safe = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    text: str = tabulate(safe, heads, tablefmt="github", disable_numparse=True)
    return text


def _stack() -> str:
    """The libraries that the numbers were made with."""
    from importlib import metadata

    names = ("perimetry", "torch", "timm", "numpy", "scipy")
    return f"Made with {', '.join(f'{n} {metadata.version(n)}' for n in names)}."
