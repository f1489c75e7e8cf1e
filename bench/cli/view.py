"""Commands that show what was measured: `perimetry board`, `show`, `list`, `pack`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ...adapters.errors import InputError, UnknownNameError, unknown
from .options import Where, option_groups, report_errors, warn_unreadable, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..ranking.board import Board
    from ..ranking.view import View
    from ..records.archive import RecordArchive
    from ..records.store import Store


app = typer.Typer()


class BoardFormat(StrEnum):
    """Formats of a leaderboard."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"
    tex = "tex"


class Ranking(StrEnum):
    """What a leaderboard ranks."""

    models = "models"
    variants = "variants"


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    suites = "suites"
    metrics = "metrics"


Folder = Annotated[Path, typer.Argument(help="Folder or packed file with records.", metavar="DIR")]


class Rows(StrEnum):
    """What a row of a leaderboard is."""

    variants = "variants"
    models = "models"


@dataclass(frozen=True)
class ViewOptions:
    """Rows and columns to show."""

    PANEL: ClassVar[str] = "Rows and columns"
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE|COLUMN<NUMBER",
            help="Show only what this is true of: model=PATTERN, family=NAME, input=224x224, "
            "precision=bfloat16 or a setting; or a number of the model as it is, such as "
            "'deadpixel.weakest<0.5' or 'model.parameters<5M'. Repeatable.",
        ),
    ] = None
    rows: Annotated[
        Rows, typer.Option(help="One row a variant (kernel padding), or one a model.")
    ] = Rows.variants
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
        return View(self.rows.value, columns, tuple(conditions), *fields)


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
        Ranking,
        typer.Option(help="What to rank: models as they are, or every variant (kernel padding)."),
    ] = Ranking.models,
    form: Annotated[
        BoardFormat, typer.Option("--format", help="Output format.")
    ] = BoardFormat.table,
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
        float,
        typer.Option(min=2, help="Maximum size of the page in MB; maps are made coarser to fit."),
    ] = 8,
) -> None:
    """Print the leaderboard of the models whose records are in DIR."""
    from ..records.archive import open_records
    from ..records.record import damaged_arrays
    from ..records.store import without_collection

    with report_errors(), without_collection():
        if page is None and join:
            raise InputError("--join was given without --html; expected --html OUT too")
        store = open_records(folder)
        if page is None:
            print_board(store, sort, form, tuple(view.where or ()), rank.value, view.view())
            return
        ranked = _board(store, sort, tuple(view.where or ()), rank.value)
        name = title or folder.resolve().name.partition(".")[0]
        size = _write_page(ranked, page, name, join or (), megabytes, view.view())
        typer.echo(f"Written: {page}, {len({row.model for row in ranked.shown})} models, {size} MB")
        warn_unreadable(damaged_arrays(ranked.records))


@app.command()
def pack(
    folder: Folder,
    out: Annotated[
        Path, typer.Argument(help="File to write: NAME.jsonl or NAME.jsonl.gz.", metavar="FILE")
    ],
    tables: Annotated[
        bool, typer.Option(help="Keep tables such as that of layers, which leaderboards omit.")
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


class ReportFormat(StrEnum):
    """Formats of a report on a model."""

    text = "text"
    card = "card"


class PictureFormat(StrEnum):
    """Formats of pictures."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


class Publication(StrEnum):
    """Places for results, by their formats."""

    hf_eval = "hf-eval"


@app.command()
def show(
    place: Annotated[
        Path,
        typer.Argument(metavar="RECORD.json|DIR", help="File of a record, or folder with records."),
    ],
    model: Annotated[
        str | None,
        typer.Argument(help="Reference of the model or a part of it.", show_default="the only one"),
    ] = None,
    kernel_padding: Annotated[
        str | None, typer.Option(help="Kernel padding of the variant.", show_default="none")
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder to draw the maps into, all variants on one scale."),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="Name of a map to draw. Repeatable.", show_default="all"),
    ] = None,
    picture: Annotated[
        PictureFormat, typer.Option(help="Format of the pictures.")
    ] = PictureFormat.png,
    dpi: Annotated[
        int, typer.Option(min=30, max=2400, help="Minimum resolution of PNG pictures.")
    ] = 110,
    form: Annotated[
        ReportFormat,
        typer.Option("--format", help="A report for people, or a section of a model card."),
    ] = ReportFormat.text,
    where: Where = None,
) -> None:
    """Print a report of one model: verdict, dead regions, what to do; then all figures."""
    from functools import partial

    from ..figures.maps import Pictures
    from ..model_report.card import card
    from ..model_report.case import draw_maps, open_case
    from ..model_report.report import report
    from ..output.text import clean

    with report_errors():
        case, problems = open_case(place, model, fill=kernel_padding, where=where or ())
        warn_unreadable(problems)
        bold = partial(typer.style, bold=True)
        is_card = form is ReportFormat.card
        text = card(case) if is_card else report(case, width=width(), heading=bold)
        typer.echo(text, nl=False)
        if maps is not None:
            drawn = draw_maps(case, Pictures(maps, map_ or (), picture.value, dpi))
            typer.echo(f"\nWritten: {len(drawn)} pictures in {clean(str(maps))}")


@app.command()
def publish(
    place: Annotated[
        Path, typer.Argument(metavar="RECORD.json|DIR", help="Record, folder or packed file.")
    ],
    model: Annotated[
        str | None,
        typer.Argument(help="Reference of the model or a part of it.", show_default="the only one"),
    ] = None,
    form: Annotated[
        Publication,
        typer.Option("--format", help="Format: hf-eval, .eval_results of the Hugging Face hub."),
    ] = Publication.hf_eval,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="ORG/NAME", help="Benchmark dataset on the hub that defines the tasks."
        ),
    ] = ...,  # type: ignore[assignment]
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric to publish. Repeatable.", show_default="each suite's headline"),
    ] = None,
    kernel_padding: Annotated[
        str | None, typer.Option(help="Kernel padding of the variant.", show_default="none")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of the dataset.")] = None,
    source_url: Annotated[
        str | None, typer.Option(help="Address where the records can be looked up.")
    ] = None,
    source_name: Annotated[str | None, typer.Option(help="Words for that address.")] = None,
    user: Annotated[str | None, typer.Option(help="User or organisation on the hub.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File, such as .eval_results/perimetry.yaml.", show_default="print it"),
    ] = None,
    where: Where = None,
) -> None:
    """Write the results of one model for another place, such as a model's page on a hub."""
    from ..model_report.case import open_case
    from ..model_report.publishing import Attribution, eval_results
    from ..output.files import write_text
    from ..output.text import clean

    del form
    with report_errors():
        case, problems = open_case(place, model, fill=kernel_padding, where=where or ())
        warn_unreadable(problems)
        source = Attribution(source_url, source_name, user)
        text = eval_results(case, dataset, metrics=metric or (), revision=revision, source=source)
        if out is None:
            typer.echo(text, nl=False)
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
        typer.echo(f"Written: {clean(str(out))}")


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="Kind of names to list.")],
    pattern: Annotated[
        str, typer.Argument(help="Pattern of names, such as 'timm:resnet*' or 'erf.*'.")
    ] = "*",
) -> None:
    """List models, suites with their protocols, or metrics with their definitions."""
    lines = {"models": list_models, "suites": list_suites, "metrics": list_metrics}
    with report_errors():
        typer.echo(lines[kind.value](pattern))


def print_board(
    store: Store | RecordArchive,
    sort: str | None,
    form: BoardFormat,
    where: tuple[str, ...],
    rank: str = Ranking.models.value,
    view: View | None = None,
) -> None:
    """Print the leaderboard of a store; unreadable files are reported on standard error."""
    from ..ranking.tables import render_board
    from ..records.record import damaged_arrays

    columns = width() if sys.stdout.isatty() else None
    board = _board(store, sort, where, rank)
    typer.echo(render_board(board, form.value, width=columns, view=view), nl=False)
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


def _board(
    store: Store | RecordArchive, sort: str | None, where: tuple[str, ...], rank: str
) -> Board:
    from ..ranking.board import Board
    from ..ranking.view import split_where
    from ..records.selection import choose

    found, problems = store.read(tables=False)
    warn_unreadable(problems)
    records = choose(found, split_where(where)[0])
    if not records:
        raise InputError(
            f"{str(store.folder)!r} contains no record to show; expected at least one that "
            "can be read and matches --where"
        )
    return Board(records, sort=sort, rank=rank)


def list_models(pattern: str = "*") -> str:
    """References of all timm architectures that match, one per line, and the other forms.

    Raises `UnknownNameError` with near names when none does.
    """
    from ...adapters import load
    from ...adapters.reference import FORMS, Reference

    found = load.list_models(pattern)
    if not found:
        wanted = str(replace(Reference.parse_any(pattern), runtime="timm"))
        raise UnknownNameError(unknown("model", wanted, load.list_models()))
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
    """Every metric: name, definition, unit, better direction, value on an even model."""
    from tabulate import tabulate

    from ...suites.registry import SUITES

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
        raise UnknownNameError(unknown("metric", pattern, known))
    heads = ("metric", "label in reports", "definition", "unit", "more even", "even")
    text: str = tabulate(rows, heads, disable_numparse=True)
    return f"{text}\n\n{SYMBOLS}"
