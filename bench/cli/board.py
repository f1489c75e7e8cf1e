"""The command `perimetry board`, and the leaderboard that others print."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from ...adapters.errors import InputError
from .groups import option_groups
from .options import Folder, report_errors, warn_unreadable, width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..ranking.board import Board
    from ..ranking.view import View
    from ..records.archive import RecordArchive
    from ..records.store import Store


app = typer.Typer()


@dataclass(frozen=True)
class ViewOptions:
    """Rows and columns to show."""

    PANEL: ClassVar[str] = "Rows and columns"
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|COLUMN<NUMBER",
            help="Show only records with this value of model (a pattern), family, input (224x224), "
            "precision or a setting; or only models whose number as they are is below or above a "
            "limit, such as 'deadpixel.weakest<0.5' or 'model.parameters<5M'. Repeatable.",
        ),
    ] = None
    rows: Annotated[
        Literal["variants", "models"],
        typer.Option(help="One row per variant (kernel padding), or one per model."),
    ] = "variants"
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns, with commas between: metrics, model.parameters, model.macs, rank, "
            "defects, change, family, input, library, target, precision.",
            show_default="the main ones",
        ),
    ] = None
    top: Annotated[
        int | None, typer.Option(min=1, help="Number of models (or ranked variants) to show.")
    ] = None
    worst_first: Annotated[
        bool, typer.Option("--worst-first", help="Show the last of the ranking first.")
    ] = False
    intervals: Annotated[bool, typer.Option(help="Show the interval of every estimate.")] = True

    def view(self) -> View:
        """The rows and columns, without the conditions on records."""
        from ..ranking.view import View, split_where

        columns = None if self.columns is None else tuple(self.columns.split(","))
        _, conditions = split_where(self.where or ())
        fields = (self.top, self.worst_first, self.intervals)
        return View(self.rows, columns, tuple(conditions), *fields)


MEGABYTES = 8
"""Size of a page, if none is given."""


@app.command()
@option_groups
def board(
    folder: Folder,
    view: ViewOptions,
    sort: Annotated[
        str | None,
        typer.Option(help="Rank by this metric, such as deadpixel.imbalance or structure.weakest."),
    ] = None,
    rank: Annotated[
        Literal["models", "variants"],
        typer.Option(help="What to rank: models as they are, or every variant (kernel padding)."),
    ] = "models",
    form: Annotated[
        Literal["table", "md", "csv", "json", "tex"],
        typer.Option("--format", help="Output format."),
    ] = "table",
    page: Annotated[
        Path | None, typer.Option("--html", help="Write an HTML page instead of a table.")
    ] = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV file with accuracies for the page: model,img_size,top1,... as timm publishes "
            "for each test set. Repeatable."
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Page title.", show_default="name of the folder")
    ] = None,
    megabytes: Annotated[
        float | None,
        typer.Option(
            min=2,
            help="Maximum size of the page in MB; maps are made coarser to fit.",
            show_default=str(MEGABYTES),
        ),
    ] = None,
) -> None:
    """Print the leaderboard of the models whose records are in DIR."""
    from ..output.text import counted
    from ..ranking.view import shown_groups
    from ..records.archive import open_records
    from ..records.record import damaged_arrays

    with report_errors():
        _check_form(page, {"--join": join, "--title": title, "--megabytes": megabytes}, form)
        store = open_records(folder)
        ranked = ranked_board(store, sort, view.where or (), rank)
        if not shown_groups(ranked, view.view()):
            limits = " ".join(f"--where {text!r}" for text in view.where or ())
            raise InputError(f"no model of {str(store.folder)!r} meets {limits}")
        if page is None:
            print_board(ranked, form, view.view())
            return
        name = title or folder.resolve().name.partition(".")[0]
        size = _write_page(ranked, page, name, join or (), megabytes or MEGABYTES, view.view())
        models = counted(len({row.model for row in ranked.shown}), "model")
        typer.echo(f"Written: {page}, {models}, {size} MB")
        warn_unreadable(damaged_arrays(ranked.records))


def _check_form(page: Path | None, of_page: Mapping[str, object], form: str) -> None:
    """Raise `InputError` for options of a page without one, or a form of tables with one."""
    given = [name for name, value in of_page.items() if value]
    if page is None and given:
        raise InputError(f"{given[0]} was given without --html; expected --html OUT too")
    if page is not None and form != "table":
        raise InputError(f"--format {form} and --html {page} were given; expected one of the two")


def print_board(board: Board, form: str = "table", view: View | None = None) -> None:
    """Print a leaderboard; damaged files of arrays are reported on standard error."""
    from ..ranking.tables import render_board
    from ..records.record import damaged_arrays

    columns = width() if sys.stdout.isatty() else None
    typer.echo(render_board(board, form, width=columns, view=view), nl=False)
    warn_unreadable(damaged_arrays(board.records))


def _write_page(
    board: Board, out: Path, title: str, join: Sequence[Path], megabytes: float, view: View
) -> str:
    """Write the page, and print what was joined; the page's size in megabytes."""
    from ..output.text import clean
    from ..ranking.page import page
    from ..ranking.page.join import join_tables
    from ..ranking.page.numbers import representative_records
    from ..ranking.view import shown_groups

    board.shown = [row for rows in shown_groups(board, view) for row in rows]
    joined = join_tables(join, representative_records(board)) if join else None
    for table in joined.tables if joined else ():
        typer.echo(f"Joined: {clean(table.text, 2000)}")
    largest = round(megabytes * page.MEGABYTE)
    size = page.write_page(board, out, title=title, joined=joined, largest=largest, view=view)
    return f"{size / page.MEGABYTE:.1f}"


def ranked_board(
    store: Store | RecordArchive,
    sort: str | None = None,
    where: Sequence[str] = (),
    rank: str = "models",
    first: Sequence[str] = (),
) -> Board:
    """The leaderboard of a store; unreadable files are reported on standard error.

    `first` are the suites by whose headlines it is ranked by default.
    """
    from ..ranking.board import Board
    from ..ranking.view import split_where
    from ..records.selection import choose

    found, problems = store.read(tables=False)
    warn_unreadable(problems)
    if not found:
        raise InputError(
            f"{str(store.folder)!r} contains no record to show; expected at least one that can be "
            "read"
        )
    records = choose(found, split_where(where)[0])
    return Board(records, sort=sort, rank=rank, first=first)
