"""The command line: `perimetry run`, `pad`, `board`, `show`, `list`, `demo`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..adapters.errors import InputError, PerimetryError
from .cli_trust import app as trust
from .devices import BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .board import Board
    from .pack import Packed
    from .plan import Job, Settings
    from .record import Record
    from .runner import Options
    from .store import Store

FAILED = 1
"""Exit code when some record failed, or the command could not be carried out."""

app = typer.Typer(
    help="Visual-field tests for vision models: receptive fields and dead pixels, ranked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Format(StrEnum):
    """Forms of a board."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


class Float(StrEnum):
    """Float types of a pass."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    suites = "suites"
    metrics = "metrics"


class NewFill(StrEnum):
    """Fills for a file that is written."""

    box = "box"
    zero = "zero"


Folder = Annotated[Path, typer.Argument(help="Folder with records.", metavar="DIR")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="KEY=VALUE",
        help="What an ONNX file leaves to guess: size, layout, range, dtype, channel_order, mean, "
        "std, image (which input), fixed.NAME (value of another one).",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(help="Output of ONNX files to audit.", show_default="the first like logits"),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda (every GPU), or names such as cuda:0,cuda:1.")
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perimetry {metadata.version('perimetry')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    del version


@app.command()
def run(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="REF...",
            help="timm:NAME[.TAG], timm:NAME@init, timm:NAME@FILE, PATH.onnx; wildcards in NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the records; a rerun goes on in it.")],
    suite: Annotated[
        str, typer.Option(help="Comma-separated; SUITE:PROTOCOL or SUITE:all for others.")
    ] = "structure,erf,deadpixel",
    kernel_padding: Annotated[
        str, typer.Option(help="Comma-separated fills: none, zero, box, fresh.")
    ] = "none,box",
    images: Annotated[str, typer.Option(help="dead-leaves, noise, or a folder.")] = "dead-leaves",
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 16,
    seed: Seed = 0,
    members: Annotated[
        int | None, typer.Option(min=1, help="Seeds behind an @init model.", show_default="8")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Layer to audit.", show_default="last spatial feature map")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input SIDE or HEIGHTxWIDTH.", show_default="the model's own")
    ] = None,
    inputs: Inputs = None,
    output: Output = None,
    device: Device = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images a pass; halves out of memory.",
            show_default=f"{BATCH['cpu']} on the CPU, {BATCH['cuda']} on a GPU",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0, help="Seconds a model variant may take; 0 for no limit.")
    ] = 1800,
    precision: Annotated[
        Float, typer.Option(help="Float type of gradients; bfloat16 is faster and coarser.")
    ] = Float.float32,
    recalibrate: Annotated[
        bool,
        typer.Option("--recalibrate", help="Re-estimate norms of treated models on the images."),
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SUITE.FIELD=VALUE", help="See `perimetry list suites`."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes a device; on the CPU they share cores.")
    ] = 1,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out models that match this pattern.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Only models of this timm family, such as regnet.")
    ] = None,
    shard: Annotated[str, typer.Option(help="I/N: the I-th of N shares of the models.")] = "1/1",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many models.", show_default="all")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured, and how long.")
    ] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not try failed records again.")
    ] = False,
) -> None:
    """Audit models, with and without kernel padding, and print the board."""
    from ..adapters.onnx_statement import parse_pairs, read_statement
    from ..suites.settings import parse_options
    from .plan import Choice, Settings, expand_references, parse_shard

    with _told():
        from .devices import devices

        settings = Settings(
            images=images,
            count=count,
            seed=seed,
            target=target,
            size=_size(size),
            members=members,
            precision=precision.value,
            recalibrate=recalibrate,
            options=parse_options(setting or ()),
            inputs=parse_pairs(inputs or (), output),
        )
        read_statement(settings.inputs)  # a slip must not cost every file its records
        options = _options(devices(device), batch, time_limit, retry_failed=not keep_failed)
        options = replace(options, workers=workers)
        choice = Choice(tuple(exclude or ()), family, parse_shard(shard), limit)
        names = expand_references(references, choice)
        if not names:
            raise InputError("no model is left: --exclude, --family or --shard took them all")
        suites, fills = suite.split(","), kernel_padding.split(",")
        if dry_run:
            typer.echo(_forecast(names, suites, fills, settings, options, out))
            return
        store, failed = _run(names, suites, fills, settings, options, out)
        _show(store, None, Format.table, ())
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def pad(
    path: Annotated[Path, typer.Argument(metavar="PATH.onnx", help="The file to treat.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    fill: Annotated[NewFill, typer.Option(help="What the new taps hold.")] = NewFill.box,
    images: Annotated[str, typer.Option(help="dead-leaves, noise, or a folder.")] = "dead-leaves",
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 16,
    seed: Seed = 0,
    inputs: Inputs = None,
    output: Output = None,
    target: Annotated[
        str | None, typer.Option(help="Layer to audit.", show_default="last spatial feature map")
    ] = None,
    forward_only: Annotated[
        bool, typer.Option("--forward-only", help="Measure without gradients.")
    ] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Rescale the layers that grew, on the images.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write the kernel-padded twin of an ONNX file, and say what that did to it."""
    from ..adapters.onnx_statement import parse_pairs

    with _told():
        from .treat import pad_file

        report = pad_file(
            path,
            out,
            fill.value,
            images=images,
            count=count,
            seed=seed,
            inputs=parse_pairs(inputs or (), output),
            target=target,
            forward_only=forward_only,
            recalibrate=recalibrate,
            device=device,
        )
        typer.echo(report.text())


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
) -> None:
    """Rank the models whose records are in DIR, or in a file that `pack` wrote."""
    from .pack import open_records

    with _told():
        _show(open_records(folder), sort, form, tuple(where or ()))


@app.command()
def pack(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="NAME.jsonl or NAME.jsonl.gz.", metavar="FILE")],
    tables: Annotated[
        bool, typer.Option(help="Keep layer tables and the like, which no board shows.")
    ] = True,
) -> None:
    """Write the records in DIR, without maps, to one sorted file for git; `board` reads it."""
    from .pack import pack as pack_records
    from .store import Store

    with _told():
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
    import shutil
    from functools import partial

    from .show import account, draw, open_case
    from .text import clean

    with _told():
        case, problems = open_case(place, model, fill=kernel_padding, where=where or ())
        for problem in problems:
            typer.echo(f"perimetry: left out: {clean(problem)}", err=True)
        bold = partial(typer.style, bold=True)
        width = shutil.get_terminal_size((96, 24)).columns
        typer.echo(account(case, width=width, heading=bold), nl=False)
        if maps is not None:
            typer.echo(f"\nDrawn: {len(draw(case, maps))} pictures in {clean(str(maps))}")


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
    with _told():
        typer.echo(lines[kind.value](pattern))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for records, board and pictures.")] = Path(
        "perimetry-demo"
    ),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Audit nine real architectures from their initial state; needs no network and no data."""
    from . import demo as one
    from .devices import devices

    with _told():
        references = one.references(out, seed=seed)
        options = _options(devices(device), None, one.TIME_LIMIT_S, retry_failed=True)
        settings = one.settings(seed)
        store, failed = _run(references, one.SUITES, one.FILLS, settings, options, out)
        written = one.publish(store)
        _show(store, None, Format.table, ())
        typer.echo(f"Written: {', '.join(map(str, written))}")
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def validate(
    out: Annotated[
        Path | None, typer.Option(help="Markdown file to write.", show_default="print it")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes minutes.")] = False,
) -> None:
    """Put every published or exact reference beside this installation's own number."""
    from . import validation
    from .store import write_text

    checks = validation.validate(quick=quick)
    text = validation.render(checks)
    if out is None:
        typer.echo(text)
    else:
        write_text(out, text)
        typer.echo(f"Written: {out}")
    if any(check.verdict == "differs" for check in checks):
        raise typer.Exit(FAILED)


app.add_typer(trust)


def main() -> None:
    """Run the command line.

    OpenMP's threads are told to sleep while they wait, here and in the workers, unless the user
    says otherwise: spinning, they take a shared machine's cores from one another.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()


@contextmanager
def _told() -> Iterator[None]:
    """Turn an expected error into one line on standard error and an exit code."""
    from .text import clean

    try:
        yield
    except (PerimetryError, OSError) as error:
        typer.echo(f"perimetry: {clean(str(error), 2000)}", err=True)
        raise typer.Exit(FAILED) from error


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    from ..adapters.timm import parse_size

    return parse_size(text)


def _options(
    found: tuple[str, ...], batch: int | None, limit_s: float, *, retry_failed: bool
) -> Options:
    from .devices import default_batch
    from .runner import Options

    return Options(
        found,
        batch or default_batch(found[0]),
        time_limit_s=limit_s or None,
        retry_failed=retry_failed,
    )


def _run(
    references: list[str],
    suites: list[str],
    fills: list[str],
    settings: Settings,
    options: Options,
    out: Path,
) -> tuple[Store, int]:
    """Make what is missing in `out`; the store, and how many of the records asked for failed."""
    from .opaque import lack_gradients, remarks, stand_ins
    from .progress import Progress
    from .runner import missing_jobs
    from .runner import run as run_jobs
    from .store import Store
    from .toolkit import standard

    jobs = _jobs(references, suites, fills, settings, options)
    store = Store(out)

    def make(round_of: list[Job]) -> None:
        todo, _ = missing_jobs(round_of, store, retry_failed=options.retry_failed)
        with Progress(sum(len(job.cells) for job in todo)) as progress:
            summary = run_jobs(round_of, store, settings, options, report=progress.report)
        typer.echo(summary.text(), err=True)

    def records() -> list[Record]:
        return list(store.find([cell.key for job in jobs for cell in job.cells]).values())

    make(jobs)
    blind, others = lack_gradients(records()), stand_ins(jobs, standard().suites)
    if blind and others:
        second = _jobs(blind, others, fills, settings, options)
        make(second)
        jobs += second
    for remark in remarks(records()):
        typer.echo(f"perimetry: {remark}", err=True)
    return store, sum(record.status == "failed" for record in records())


def _jobs(
    references: list[str],
    suites: list[str],
    fills: list[str],
    settings: Settings,
    options: Options,
) -> list[Job]:
    from .plan import make_jobs
    from .toolkit import standard

    device = options.devices[0].partition(":")[0]
    known = standard().suites
    return make_jobs(references, suites, fills, settings, device=device, known=known)


def _forecast(
    references: list[str],
    suites: list[str],
    fills: list[str],
    settings: Settings,
    options: Options,
    out: Path,
) -> str:
    """What a run would do: records to make, and the time, where the folder has some to go by."""
    from .runner import forecast
    from .store import Store

    jobs = _jobs(references, suites, fills, settings, options)
    return forecast(jobs, Store(out) if out.exists() else None, options)


def _show(store: Store | Packed, sort: str | None, form: Format, where: tuple[str, ...]) -> None:
    """Print the board of a store, and what is wrong with its files on standard error."""
    import shutil

    from .render import render
    from .text import clean

    for problem in store.problems():
        typer.echo(f"perimetry: left out: {clean(problem)}", err=True)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    typer.echo(render(_board(store, sort, where), form.value, width=width), nl=False)


def _board(store: Store | Packed, sort: str | None, where: tuple[str, ...]) -> Board:
    from .board import Board, choose

    records = choose(store.records(), where)
    if not records:
        raise InputError(f"no record in {str(store.folder)!r} can be shown")
    return Board(records, sort=sort)
