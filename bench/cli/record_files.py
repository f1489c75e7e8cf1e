"""Commands that write files of records: `perimetry pack`, `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ...adapters.errors import InputError
from .options import FAILED, Folder, report_errors

app = typer.Typer()


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
    from ..records.archive import pack_records
    from ..records.store import Store

    with report_errors():
        if not (folder / "records").is_dir():
            raise InputError(f"{str(folder)!r} contains no records; expected a folder of a run")
        count = pack_records(Store(folder), out, tables=tables)
        typer.echo(f"Written: {out}, {count} records")


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
