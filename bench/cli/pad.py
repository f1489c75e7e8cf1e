"""The command `perimetry pad`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from .groups import option_groups
from .options import ImageOptions, InputOptions, MachineOptions, report_errors

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
