"""Commands that tell what was measured: `perimetry board`, `show`, `list`, `pack`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...adapters.errors import InputError
from .options import report_errors, warn_unreadable, width

if TYPE_CHECKING:
    from ..ranking.board import Board
    from ..records.archive import RecordArchive
    from ..records.store import Store


app = typer.Typer()


class Format(StrEnum):
    """Forms of a board."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    tex = "tex"


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    suites = "suites"
    metrics = "metrics"


Folder = Annotated[Path, typer.Argument(help="Folder with records.", metavar="DIR")]


@app.command()
def board(
    folder: Folder,
    sort: Annotated[
        str | None, typer.Option(help="Metric, such as deadpixel.imbalance or structure.weakest.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only records with KEY=VALUE, such as seed=0, count=16, images=noise."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Write one page that opens from disk instead.")
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(help="CSV with model,img_size,top1,... for the page, as timm publishes them."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Of the page.", show_default="the folder's name")
    ] = None,
    megabytes: Annotated[
        float, typer.Option(min=2, help="Size of the page, by coarser maps.", show_default=True)
    ] = 8,
) -> None:
    """Rank the models whose records are in DIR, or in a file that `pack` wrote."""
    from ..records.archive import open_records

    with report_errors():
        if page is None and join is not None:
            raise InputError("--join is for the page; give --html OUT too")
        store = open_records(folder)
        if page is None:
            show_board(store, sort, form, tuple(where or ()))
            return
        warn_unreadable(store.problems())
        ranked = _board(store, sort, tuple(where or ()))
        name = title or folder.resolve().name.partition(".")[0]
        size = _write_page(ranked, page, name, join, megabytes)
        typer.echo(f"Written: {page}, {len({row.model for row in ranked.rows})} models, {size} MB")


@app.command()
def pack(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="NAME.jsonl or NAME.jsonl.gz.", metavar="FILE")],
    tables: Annotated[
        bool, typer.Option(help="Keep layer tables and the like, which no board shows.")
    ] = True,
) -> None:
    """Write the records in DIR, without maps, to one sorted file for git; `board` reads it."""
    from ..records.archive import pack_records as pack_records
    from ..records.store import Store

    with report_errors():
        if not (folder / "records").is_dir():
            raise InputError(f"{str(folder)!r} holds no records; expected a folder of a run")
        count = pack_records(Store(folder), out, tables=tables)
        typer.echo(f"Written: {out}, {count} records")


@app.command()
def show(
    place: Annotated[
        Path, typer.Argument(metavar="RECORD.json|DIR", help="A record, or a folder with records.")
    ],
    model: Annotated[
        str | None,
        typer.Argument(help="Its reference, or enough of it.", show_default="the only one"),
    ] = None,
    kernel_padding: Annotated[
        str | None, typer.Option(help="The variant to tell.", show_default="none")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder to draw the model's maps into, as PNG.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only records with KEY=VALUE, such as seed=0.")
    ] = None,
) -> None:
    """Say in words what was found of one model."""
    from functools import partial

    from ..model_report.report import account, draw_maps, open_case
    from ..output.text import clean

    with report_errors():
        case, problems = open_case(place, model, fill=kernel_padding, where=where or ())
        warn_unreadable(problems)
        bold = partial(typer.style, bold=True)
        typer.echo(account(case, width=width(), heading=bold), nl=False)
        if maps is not None:
            typer.echo(f"\nDrawn: {len(draw_maps(case, maps))} pictures in {clean(str(maps))}")


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    pattern: Annotated[
        str, typer.Argument(help="Only names that match, such as 'timm:resnet*' or 'erf.*'.")
    ] = "*",
) -> None:
    """List models, suites with their protocols, or metrics with their definitions."""
    from . import listing

    lines = {"models": listing.models, "suites": listing.suites, "metrics": listing.metrics}
    with report_errors():
        typer.echo(lines[kind.value](pattern))


def show_board(
    store: Store | RecordArchive, sort: str | None, form: Format, where: tuple[str, ...]
) -> None:
    """Print the board of a store, and what is wrong with its files on standard error."""
    from ..ranking.tables import render_board

    warn_unreadable(store.problems())
    columns = width() if sys.stdout.isatty() else None
    typer.echo(render_board(_board(store, sort, where), form.value, width=columns), nl=False)


def _write_page(board: Board, out: Path, title: str, join: Path | None, megabytes: float) -> str:
    """Write the page; its size in megabytes."""
    from ..ranking.page import join as page_join
    from ..ranking.page import page
    from ..ranking.page.numbers import representative_records

    joined = page_join.join_table(join, representative_records(board)) if join else None
    largest = round(megabytes * page.MEGABYTE)
    size = page.write_page(board, out, title=title, joined=joined, largest=largest)
    return f"{size / page.MEGABYTE:.1f}"


def _board(store: Store | RecordArchive, sort: str | None, where: tuple[str, ...]) -> Board:
    from ..ranking.board import Board
    from ..records.selection import choose

    records = choose(store.records(), where)
    if not records:
        raise InputError(f"no record in {str(store.folder)!r} can be shown")
    return Board(records, sort=sort)
