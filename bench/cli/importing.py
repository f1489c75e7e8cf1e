"""The command that takes over what others have published: `perimetry import`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import FAILED, report_errors

app = typer.Typer()


class Source(StrEnum):
    """What can be imported."""

    openerf = "openerf"


@app.command("import")
def import_(
    source: Annotated[
        Source,
        typer.Argument(help="Source: openerf for OpenERF_NAME.npy of github.com/kmbmjn/OpenERF."),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder with the published files.")],
    out: Annotated[Path, typer.Option(help="Folder for the records, as of a run.")],
) -> None:
    """Make records of measurements that others have published."""
    del source  # there is one so far
    from ..output.files import StoreError
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
        typer.echo(f"Written: {out}, {count} records")
    if damaged:
        raise typer.Exit(FAILED)
