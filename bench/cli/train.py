"""The command `perimetry train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import FAILED, report_errors

if TYPE_CHECKING:
    from ..training.experiment import Experiment


app = typer.Typer()


class Mixed(StrEnum):
    """Float types of training; weights stay float32 in both."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for everything; a rerun goes on in it.")],
    network: Annotated[
        str,
        typer.Option(
            help="small-resnet, tiny-resnet, timm:NAME@init, timm:NAME[.TAG]; @FILE for weights."
        ),
    ] = "small-resnet",
    task: Annotated[
        str, typer.Option(help="Comma-separated: micro_object, classification.")
    ] = "micro_object,classification",
    kernel_padding: Annotated[
        str, typer.Option(help="Comma-separated twins: none, zero, fresh, box.")
    ] = "none,zero",
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder with a subfolder of images for each class, a folder with IDX files "
            "(MNIST, Fashion-MNIST), digits, or dead-leaves.",
            show_default="dead-leaves for micro_object, digits for classification",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="SIDE or HEIGHTxWIDTH of the images.", show_default="their own"),
    ] = None,
    train_count: Annotated[
        int | None, typer.Option("--train", min=1, help="At most so many training images.")
    ] = None,
    test_count: Annotated[
        int | None, typer.Option("--test", min=1, help="At most so many test images.")
    ] = None,
    box: Annotated[int, typer.Option(min=1, help="Side of the box in pixels.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many; four or more give intervals.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 16,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="Largest learning rate.")] = 0.03,
    precision: Annotated[
        Mixed, typer.Option(help="bfloat16 is mixed precision, for GPUs.")
    ] = Mixed.float32,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, or a name such as cuda:0.")
    ] = "auto",
    budget: Annotated[
        float | None, typer.Option(min=0, help="Minutes after which to stop, resumable.")
    ] = None,
    export: Annotated[
        int, typer.Option(min=0, help="Write the twins of so many seeds as ONNX files.")
    ] = 1,
) -> None:
    """Train twins with and without kernel padding, and say what difference it makes."""
    from ...adapters.input_spec import parse_size

    with report_errors(FAILED):
        from ..execution.plan import parse_fills
        from ..training.experiment import Experiment
        from ..training.trainer import Recipe

        experiment = Experiment(
            network=network,
            tasks=tuple(name.strip() for name in task.split(",")),
            fills=tuple(parse_fills(kernel_padding.split(","))),
            seeds=seeds,
            first_seed=seed,
            data=data,
            size=parse_size(size) if size else None,
            train=train_count,
            test=test_count,
            side=box,
            recipe=Recipe(epochs=epochs, batch=batch, rate=rate, precision=precision.value),
            export=export,
        )
        _carry_out(experiment, out, device, budget)


def _carry_out(experiment: Experiment, out: Path, device: str, minutes: float | None) -> None:
    """Train, draw, and print the summary."""
    from ..training.figures import draw_training
    from ..training.progress import TrainingProgress
    from ..training.report import training_summary
    from ..training.study import TrainingStudy
    from ..training.trainer import Clock

    study = TrainingStudy(experiment, out, device=device)
    clock = Clock(None if minutes is None else minutes * 60)
    with TrainingProgress(len(study.twins())) as progress:
        result = study.train(clock, progress.report)
    if result.records:
        draw_training(result.records, out / "pictures")
    typer.echo(training_summary(result))


@app.command("samples")
def samples_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.")],
) -> None:
    """Write the sample vendors' files that ship with the package: small trained twins as ONNX."""
    from ..samples import copy_samples

    with report_errors(FAILED):
        for path in copy_samples(folder):
            typer.echo(str(path))
