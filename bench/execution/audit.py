"""`audit`: one model in this process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records.hashing import model_identity, module_identity
from .black_box import black_box_suites, without_gradients
from .devices import default_batch
from .plan import DEFAULT_SUITES, make_jobs
from .settings import FIT_DEFAULT, Settings
from .toolkit import standard
from .workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from ...adapters.model import Model, Precision
    from ...adapters.treatment import Fill
    from ..records.record import Record
    from .toolkit import Toolkit


def audit(
    reference: str | Path | nn.Module | Model,
    suites: Sequence[str] = DEFAULT_SUITES,
    kernel_padding: Sequence[Fill] = ("none",),
    *,
    images: str = "dead-leaves",
    count: int = 16,
    seed: int = 0,
    device: str = "auto",
    batch: int | None = None,
    target: str | None = None,
    size: tuple[int, int] | None = None,
    draws: int = 200,
    members: int | None = None,
    precision: Precision = "float32",
    recalibrate: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    inputs: Mapping[str, Any] | None = None,
    fit_images: str = FIT_DEFAULT,
    name: str | None = None,
    toolkit: Toolkit | None = None,
) -> list[Record]:
    """Audit one model in this process: a record for each kernel padding, suite and protocol.

    `reference` is what `adapters.load.load` takes; `name` is what a module is called in records.
    `suites` are named as on the command line (`erf`, `erf:kim2023`, `erf:all`). `images`, `count`,
    `seed`, `draws`, `target`, `size`, `members`, `precision`, `recalibrate`, `options` (such as
    `{"erf": {"unit": (0, 0)}}`), `inputs` (of an ONNX file, such as
    `{"range": "0..255", "output": "scores"}`) are those of `plan.Settings`, and so is `fit_images`,
    a folder of unlabelled images for the kernel padding `fit`.
    A model whose gradients cannot be trusted gets records of the suites of `opaque.STAND_INS` too.
    A measurement that fails gives a failed record; only wrong names and settings raise, as
    subclasses of `PerimetryError`.

    >>> records = audit("timm:test_resnet@init", ("structure",))  # doctest: +SKIP
    >>> records[0].metrics["weakest"].value  # doctest: +SKIP
    """
    from ...adapters.device import pick_device

    toolkit = toolkit or standard()
    settings = Settings(
        images=images,
        count=count,
        seed=seed,
        draws=draws,
        target=target,
        size=size,
        members=members,
        precision=precision,
        recalibrate=recalibrate,
        options=options or {},
        inputs=inputs or {},
        fit_images=fit_images,
    )
    place = pick_device(device)
    text, objects, identities = _named(reference, name)
    plan = partial(
        make_jobs,
        [text],
        fills=kernel_padding,
        settings=settings,
        device=place.type,
        known=toolkit.suites,
        identities=identities,
    )
    batch = batch or default_batch(place.type)
    bench = Workbench(toolkit, settings, device=str(place), batch=batch, objects=objects)
    records: list[Record] = []
    jobs = plan(suites)
    for job in jobs:
        bench.measure(job, records.append)
    others = black_box_suites(jobs, toolkit.suites) if without_gradients(records) else []
    held = {record.key for record in records}
    for job in plan(others) if others else ():
        bench.measure(job.without(held), records.append)
    return records


def _named(
    reference: str | Path | nn.Module | Model, name: str | None
) -> tuple[str, dict[str, nn.Module | Model], dict[str, str]]:
    """The text that stands for `reference`; a module's own entry and hash by that text."""
    if isinstance(reference, str | Path):
        return str(reference), {}, {}
    from torch import nn

    if isinstance(reference, nn.Module):
        text = name or f"module:{type(reference).__name__}"
        return text, {text: reference}, {text: module_identity(reference)}
    text = name or reference.reference
    return text, {text: reference}, {text: model_identity(reference)}
