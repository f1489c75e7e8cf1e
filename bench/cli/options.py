"""What the commands share: options, and how errors and problems are reported."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from ...adapters.errors import NotMeasuredError, PerimetryError
from ..execution.settings import BATCH, RunOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..execution.rerun import RerunFields


FAILED = 1
"""Exit code when some record failed, or the command could not be carried out."""

UNMEASURED = 2
"""Exit code when a measurement failed, so that there is nothing to show or to compare."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells report it."""

WIDTH = 96
"""Number of columns where there is no terminal."""

BY_DEVICE = f"{BATCH['cpu']} on the CPU, {BATCH['cuda']} on a GPU"

Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]

Device = Annotated[
    str,
    typer.Option(help="Devices: auto, cpu, cuda (every GPU), or a list such as cuda:0,cuda:1."),
]

Folder = Annotated[Path, typer.Argument(help="Folder or packed file with records.", metavar="DIR")]

Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Use only records with this value, such as seed=0, count=16, images=noise or "
        "model=PATTERN. Repeatable.",
    ),
]

MeasuredInputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="KEY=VALUE",
        help="Declare the input of ONNX files that are measured now, such as range=0..255 or "
        "size=224 (docs/onnx.md has the keys). Repeatable.",
    ),
]


@dataclass(frozen=True)
class InputOptions:
    """What to audit of each model."""

    PANEL: ClassVar[str] = "Models"
    target: Annotated[
        str | None,
        typer.Option(
            help="Name of the layer to audit, or all-scales.",
            show_default="by the rule of docs/models.md",
        ),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="KEY=VALUE",
            help="Declare what an ONNX file does not say about its input: size, layout, range, "
            "dtype, channel_order, mean, std, image (which input is the image), fixed.NAME (value "
            "of another input). Repeatable.",
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option(
            help="Name of the output of ONNX files to audit.",
            show_default="first output that looks like logits",
        ),
    ] = None


@dataclass(frozen=True)
class ImageOptions:
    """The images to audit on."""

    PANEL: ClassVar[str] = "Measurement"
    images: Annotated[
        str, typer.Option(help="Images to audit on: dead-leaves, noise, or a folder.")
    ] = "dead-leaves"
    count: Annotated[int, typer.Option(min=1, help="Number of images.")] = 16
    seed: Seed = 0


@dataclass(frozen=True)
class MachineOptions:
    """Where to measure, and the limits."""

    PANEL: ClassVar[str] = "Machine"
    device: Device = "auto"
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batch size. Halved automatically when memory runs out.",
            show_default=BY_DEVICE,
        ),
    ] = None
    time_limit: Annotated[
        float, typer.Option(min=0, help="Time limit per model variant in seconds; 0 for none.")
    ] = 1800
    memory_limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Memory limit per worker in GiB (GPU memory if it uses a GPU).",
            show_default="90 % of the machine's; all of a GPU, or equal parts of 90 %",
        ),
    ] = None

    def run_options(self, **more: Any) -> RunOptions:
        """These options, and `more` fields of `RunOptions`."""
        memory = None if self.memory_limit is None else self.memory_limit * 1024
        return RunOptions(
            self.device,
            self.batch,
            time_limit_s=self.time_limit or None,
            memory_limit_mib=memory,
            **more,
        )


@dataclass(frozen=True)
class WorkerOptions:
    """Worker processes of a run: fields of `RunOptions`."""

    PANEL: ClassVar[str] = "Machine"
    workers: Annotated[
        int,
        typer.Option(min=1, help="Worker processes per device. On the CPU they share the cores."),
    ] = 1
    retries: Annotated[
        int,
        typer.Option(min=0, help="Number of retries after a crash or an exceeded time limit."),
    ] = 0
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="Measure on this machine (local) or on a Ray cluster (ray)."),
    ] = "local"
    address: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster.", show_default="RAY_ADDRESS, else a new local one"
        ),
    ] = None


@dataclass(frozen=True)
class StoredOptions:
    """Which stored records to use, and where their images are."""

    PANEL: ClassVar[str] = "Stored records"
    where: Where = None
    images: Annotated[
        str | None,
        typer.Option(help="Path to the images that the stored records were measured on."),
    ] = None
    fit_images: Annotated[
        str | None,
        typer.Option(help="Path to the images that kernel padding fit was fitted on."),
    ] = None

    def rerun_fields(
        self, machine: MachineOptions, workers: int = 1, inputs: Sequence[str] | None = None
    ) -> RerunFields:
        """Keyword arguments of `compare`, `check` and `reproduce`, to measure on `machine`.

        `inputs` are texts KEY=VALUE that declare the input of models that are measured now.
        """
        from ...adapters.load import parse_inputs

        return {
            "where": self.where or (),
            "images": self.images,
            "fit_images": self.fit_images,
            "run": machine.run_options(isolated=True, progress=True, workers=workers),
            "inputs": parse_inputs(inputs or ()),
        }


Workers = Annotated[
    int,
    typer.Option(
        min=1,
        help="Worker processes per device, each for one model after another. On the CPU they share "
        "the cores.",
        rich_help_panel=MachineOptions.PANEL,
    ),
]


@contextmanager
def report_errors(code: int = FAILED) -> Iterator[None]:
    """Turn an expected error into one line on standard error and an exit code.

    The code is `UNMEASURED` where a model could not be measured, else `code`.
    """
    from ..output.text import clean

    try:
        yield
    except KeyboardInterrupt:
        typer.echo("perimetry: interrupted; what was measured so far is kept", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        typer.echo("perimetry: the output was closed before all of it was written", err=True)
        raise typer.Exit(code) from None
    except NotMeasuredError as error:
        typer.echo(f"perimetry: {clean(str(error), 2000)}", err=True)
        raise typer.Exit(UNMEASURED) from error
    except (PerimetryError, OSError) as error:
        typer.echo(f"perimetry: {clean(str(error), 2000)}", err=True)
        raise typer.Exit(code) from error


def warn_unreadable(problems: Iterable[str]) -> None:
    """Report on standard error which files were skipped, and why."""
    from ..output.text import clean

    for problem in problems:
        typer.echo(f"perimetry: skipped: {clean(problem)}", err=True)


def names_of(texts: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """The comma-separated names in all of `texts`; repeated options add up."""
    return [name for text in texts for name in text.split(",")] if texts else list(default)


def width() -> int:
    """Number of columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns
