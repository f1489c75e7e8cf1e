"""The commands `perimetry list`, `pack` and `import`: names, and files of records."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...adapters.errors import InputError, UnknownNameError, check_name, unknown
from ..ranking.names import unknown_column
from .options import FAILED, Folder, report_errors

app = typer.Typer()


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="Kind of names to list.", metavar="models|suites|metrics")
    ],
    pattern: Annotated[
        str, typer.Argument(help="Pattern of names, such as 'timm:resnet*' or 'erf.*'.")
    ] = "*",
) -> None:
    """List models, suites with their protocols, or metrics with their definitions."""
    lines = {"models": list_models, "suites": list_suites, "metrics": list_metrics}
    with report_errors():
        typer.echo(lines[check_name("kind of names", kind, lines)](pattern))


def list_models(pattern: str = "*") -> str:
    """References of all timm architectures that match, one per line, and the other forms.

    Raises `UnknownNameError` with near names when none does.
    """
    from ...adapters.names import list_models as known
    from ...adapters.reference import FORMS, Reference

    found = known(pattern)
    if not found:
        wanted = str(replace(Reference.parse_any(pattern), runtime="timm"))
        raise UnknownNameError(unknown("model", wanted, known()))
    return "\n".join([*found, f"{len(found)} architectures; a reference is {FORMS}"])


def list_suites(pattern: str = "*") -> str:
    """Suites with protocols (the default first), versions, headline, settings explained."""
    from ...suites.registry import SUITES
    from ...suites.settings import settings_of

    lines = []
    for name, suite in SUITES.items():
        if fnmatchcase(name, pattern):
            protocols = ", ".join(f"{p} (version {v})" for p, v in suite.protocols.items())
            lines.append(f"{name}: {protocols}; headline {suite.headline}")
            for field, value in settings_of(suite).items():
                setting = f"{name}.{field}={_text(value)}"
                lines.append(f"    {setting:<36}  {suite.setting_help.get(field, '')}".rstrip())
    if not lines:
        raise UnknownNameError(unknown("suite", pattern, SUITES))
    return "\n".join(lines)


def _text(value: object) -> str:
    """The value of a setting in the form that `--set` takes."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


SYMBOLS = """\
A: phase profile, the sensitivity of each stride phase over their mean; 1 everywhere if even.
phase: (row mod P, column mod P) of a pixel, P being the stride of the target in pixels.
map: sensitivity of the target to each pixel, (height, width). t, f, p: the number after @ or _.
border: the outermost ring of units; centre: those a quarter of the side or more from the border.
docs/metrics.md has every formula, its source and when the number misleads."""
"""The symbols in definitions of metrics."""


def list_metrics(pattern: str = "*") -> str:
    """Every metric: name, definition, unit, what ranks first, value on an even model."""
    from ...suites.registry import SUITES
    from ..output.layout import tabulated

    rows = [
        (
            f"{suite.name}.{m.name}",
            m.label,
            m.definition,
            m.unit,
            m.better,
            "" if m.even is None else m.even,
        )
        for suite in SUITES.values()
        for m in suite.metrics
        if fnmatchcase(f"{suite.name}.{m.name}", pattern)
    ]
    if not rows:
        known = [f"{suite.name}.{m.name}" for suite in SUITES.values() for m in suite.metrics]
        raise UnknownNameError(unknown_column("metric", pattern, known))
    heads = ("metric", "label in reports", "definition", "unit", "ranks first", "even")
    return f"{tabulated(heads, rows)}\n\n{SYMBOLS}"


@app.command()
def pack(
    folder: Folder,
    out: Annotated[
        Path, typer.Argument(help="File to write: NAME.jsonl or NAME.jsonl.gz.", metavar="FILE")
    ],
    tables: Annotated[
        bool,
        typer.Option(help="Keep tables that leaderboards do not need, such as that of layers."),
    ] = True,
) -> None:
    """Write the records in DIR, without maps, to one sorted file for git."""
    from ..output.text import counted
    from ..records.archive import open_records, pack_records
    from ..records.store import Store

    with report_errors():
        store = open_records(folder)
        if not isinstance(store, Store):
            raise InputError(f"{str(store.folder)!r} is packed already; expected a folder of a run")
        count = pack_records(store, out, tables=tables)
        typer.echo(f"Written: {out}, {counted(count, 'record')}")


@app.command("import")
def import_(
    source: Annotated[
        Literal["openerf"],
        typer.Argument(help="Source: openerf for OpenERF_NAME.npy of github.com/kmbmjn/OpenERF."),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder with the published files.")],
    out: Annotated[
        Path, typer.Option(help="Output folder for the records, as of `perimetry run`.")
    ],
) -> None:
    """Make records of measurements that others have published."""
    del source  # there is one so far
    from ..output.files import StoreError
    from ..output.text import counted
    from ..records.openerf import openerf_records
    from ..records.store import Store

    with report_errors():
        records, damaged = Store(out), 0
        count = 0
        for found in openerf_records(folder):
            if isinstance(found, StoreError):
                typer.echo(f"Not imported: {found}", err=True)
                damaged += 1
            else:
                records.put(found)
                count += 1
        typer.echo(f"Written: {out}, {counted(count, 'record')}")
    if damaged:
        raise typer.Exit(FAILED)
