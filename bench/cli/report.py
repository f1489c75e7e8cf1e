"""Commands about one model's records: `perimetry show`, `publish`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .groups import option_groups
from .options import Where, report_errors, warn_unreadable, width

if TYPE_CHECKING:
    from ..model_report.case import Case


app = typer.Typer()


@dataclass(frozen=True)
class ModelOptions:
    """One model variant among stored records."""

    place: Annotated[
        Path, typer.Argument(metavar="RECORD.json|DIR", help="Record, folder or packed file.")
    ]
    model: Annotated[
        str | None,
        typer.Argument(help="Reference of the model or a part of it.", show_default="the only one"),
    ] = None
    kernel_padding: Annotated[
        str | None, typer.Option(help="Kernel padding of the variant.", show_default="none")
    ] = None
    where: Where = None

    def open(self) -> Case:
        """The records of the model; unreadable ones are reported on standard error."""
        from ..model_report.case import open_case

        fill, where = self.kernel_padding, self.where or ()
        case, problems = open_case(self.place, self.model, fill=fill, where=where)
        warn_unreadable(problems)
        return case


@app.command()
@option_groups
def show(
    chosen: ModelOptions,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder to draw the maps into, all variants on one scale."),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="Name of a map to draw. Repeatable.", show_default="all"),
    ] = None,
    picture: Annotated[
        Literal["png", "svg", "pdf"], typer.Option(help="Format of the pictures.")
    ] = "png",
    dpi: Annotated[
        int, typer.Option(min=30, max=2400, help="Minimum resolution of PNG pictures.")
    ] = 110,
    form: Annotated[
        Literal["text", "card"],
        typer.Option("--format", help="A report for people, or a section of a model card."),
    ] = "text",
) -> None:
    """Print a report of one model: verdict, dead regions, what to do; then all figures."""
    from functools import partial

    from ..figures.maps import Pictures
    from ..model_report.case import draw_maps
    from ..model_report.publishing import card
    from ..model_report.report import report
    from ..output.text import clean, counted

    with report_errors():
        case = chosen.open()
        bold = partial(typer.style, bold=True)
        is_card = form == "card"
        text = card(case) if is_card else report(case, width=width(), heading=bold)
        typer.echo(text, nl=False)
        if maps is not None:
            drawn = draw_maps(case, Pictures(maps, map_ or (), picture, dpi))
            typer.echo(f"\nWritten: {counted(len(drawn), 'picture')} in {clean(str(maps))}")


@app.command()
@option_groups
def publish(
    chosen: ModelOptions,
    form: Annotated[
        Literal["hf-eval"],
        typer.Option("--format", help="Format: hf-eval, .eval_results of the Hugging Face hub."),
    ] = "hf-eval",
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
    revision: Annotated[str | None, typer.Option(help="Revision of the dataset.")] = None,
    source_url: Annotated[
        str | None, typer.Option(help="Address where the records can be looked up.")
    ] = None,
    source_name: Annotated[
        str | None, typer.Option(help="Text of the link to that address.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User or organisation on the hub.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File, such as .eval_results/perimetry.yaml.", show_default="print it"),
    ] = None,
) -> None:
    """Write the results of one model as another site reads them, such as the Hugging Face hub."""
    from ..model_report.publishing import Attribution, eval_results
    from ..output.files import write_text
    from ..output.text import clean

    del form
    with report_errors():
        case = chosen.open()
        source = Attribution(source_url, source_name, user)
        text = eval_results(case, dataset, metrics=metric or (), revision=revision, source=source)
        if out is None:
            typer.echo(text, nl=False)
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
        typer.echo(f"Written: {clean(str(out))}")
