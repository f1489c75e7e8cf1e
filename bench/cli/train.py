"""The commands `perimetry pad`, `train` and `samples`, which write networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from .groups import option_groups
from .options import ImageOptions, InputOptions, MachineOptions, report_errors

if TYPE_CHECKING:
    from ..training.experiment import Experiment, TrainingRun


app = typer.Typer()


@app.command()
@option_groups
def pad(
    path: Annotated[Path, typer.Argument(metavar="PATH.onnx", help="ONNX file to pad.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="ONNX file to write.")],
    images: ImageOptions,
    inputs: InputOptions,
    machine: MachineOptions,
    kernel_padding: Annotated[
        Literal["box", "zero"],
        typer.Option(help="How to fill the new taps: box (spread each old tap evenly) or zero."),
    ] = "box",
    forward_only: Annotated[
        bool, typer.Option("--forward-only", help="Measure without gradients.")
    ] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Rescale the padded layers on the images.")
    ] = False,
) -> None:
    """Write a kernel-padded copy of an ONNX file and report the changes."""
    from ...adapters.load import parse_inputs

    with report_errors():
        from ..execution.engines.process import call_bounded
        from ..pad_file import pad_file

        work = partial(
            pad_file,
            path,
            out,
            kernel_padding,
            **vars(images),
            target=inputs.target,
            inputs=parse_inputs(inputs.inputs or (), inputs.output),
            recalibrate=recalibrate,
            forward_only=forward_only,
            device=machine.device,
            batch=machine.batch,
        )
        typer.echo(call_bounded(work, machine.run_options()).text())


@dataclass(frozen=True)
class DataOptions:
    """Images to train and test on."""

    PANEL: ClassVar[str] = "Data"
    task: Annotated[
        str, typer.Option(help="Comma-separated tasks: micro_object, classification.")
    ] = "micro_object,classification"
    data: Annotated[
        str | None,
        typer.Option(
            help="Images: a folder with a subfolder for each class, a folder with IDX files "
            "(MNIST, Fashion-MNIST), digits, or dead-leaves.",
            show_default="dead-leaves for micro_object, digits for classification",
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(help="Image size: SIDE or HEIGHTxWIDTH.", show_default="that of the data"),
    ] = None
    train_count: Annotated[
        int | None, typer.Option("--train", min=1, help="Maximum number of training images.")
    ] = None
    test_count: Annotated[
        int | None, typer.Option("--test", min=1, help="Maximum number of test images.")
    ] = None
    box: Annotated[int, typer.Option(min=1, help="Side of the box of micro_object in pixels.")] = 3


@dataclass(frozen=True)
class RecipeOptions:
    """How to train."""

    PANEL: ClassVar[str] = "Training"
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of seeds; four or more give confidence intervals.")
    ] = 5
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 16
    batch: Annotated[int, typer.Option(min=2, help="Batch size.")] = 32
    rate: Annotated[float, typer.Option(min=0, help="Maximum learning rate.")] = 0.03
    precision: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="Float type; bfloat16 is mixed precision for GPUs."),
    ] = "float32"


@app.command()
@option_groups
def train(
    out: Annotated[Path, typer.Option(help="Output folder. An interrupted run resumes from it.")],
    data: DataOptions,
    recipe: RecipeOptions,
    network: Annotated[
        str,
        typer.Option(
            help="Network: small-resnet, tiny-resnet, timm:NAME@init or timm:NAME[.TAG]; add @FILE "
            "for weights."
        ),
    ] = "small-resnet",
    kernel_padding: Annotated[
        str, typer.Option(help="Comma-separated kernel paddings: none, zero, fresh, box, kim2023.")
    ] = "none,zero",
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda, or a name such as cuda:0.")
    ] = "auto",
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Time limit in minutes. The same command resumes afterwards."),
    ] = None,
    export: Annotated[
        int, typer.Option(min=0, help="Number of seeds whose networks are written as ONNX files.")
    ] = 1,
) -> None:
    """Train networks with and without kernel padding and report the difference."""
    from ...adapters.input_spec import parse_size

    with report_errors():
        from ..execution.plan import parse_fills
        from ..training.experiment import Experiment, Recipe

        experiment = Experiment(
            network=network,
            tasks=tuple(name.strip() for name in data.task.split(",")),
            fills=tuple(parse_fills(kernel_padding.split(","))),
            seeds=recipe.seeds,
            first_seed=recipe.seed,
            data=data.data,
            size=parse_size(data.size) if data.size else None,
            train=data.train_count,
            test=data.test_count,
            side=data.box,
            recipe=Recipe(recipe.epochs, recipe.batch, recipe.rate, precision=recipe.precision),
            export=export,
        )
        _carry_out(experiment, out, device, budget)


def _carry_out(experiment: Experiment, out: Path, device: str, minutes: float | None) -> None:
    """Train with a progress bar, or plain lines; draw, and print the summary."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    from ..execution.cost import ProgressBar
    from ..training.figures import draw_training
    from ..training.report import training_summary
    from ..training.study import TrainingStudy
    from ..training.trainer import Clock

    study = TrainingStudy(experiment, out, device=device)
    clock = Clock(None if minutes is None else minutes * 60)
    total = len(study.runs())
    seen: list[TrainingRun] = []
    count = TextColumn("{task.completed:.1f}/{task.total:.0f} runs,")
    text = TextColumn("left; {task.description}", markup=False)
    columns = (BarColumn(bar_width=24), count, TimeRemainingColumn(), text)
    with ProgressBar(total, columns) as progress:

        def report(run: TrainingRun, share: float) -> None:
            begins = run not in seen
            seen.extend([run] if begins else [])
            done = len(seen) - 1 + share
            progress.bars.update(progress.task, completed=done, description=run.label)
            if begins:
                progress.line(f"{progress.times(done / total if done >= 1 else 0)}  {run.label}")

        result = study.train(clock, report)
    if result.records:
        draw_training(result.records, out / "pictures")
    typer.echo(training_summary(result))


@app.command("samples")
def samples_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write the files to.")],
) -> None:
    """Write the sample ONNX files: small networks trained with and without kernel padding."""
    from ..demo import copy_samples

    with report_errors():
        for path in copy_samples(folder):
            typer.echo(str(path))
