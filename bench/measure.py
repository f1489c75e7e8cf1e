"""Measuring one model variant: open it once, take gradients once, then suite after suite.

Whatever breaks becomes a failed record of the cells it touched, and what does not apply a skipped
one; the other cells go on. `audit` does it in this process, `worker` in one of its own.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters.errors import NotApplicableError
from ..suites.settings import configure
from .clerk import Clerk
from .devices import default_batch
from .environment import reset_peaks
from .fitting import FIT_DEFAULT, images_to_fit
from .identity import model_identity, module_identity
from .opaque import lack_gradients, stand_ins
from .plan import DEFAULT_SUITES, Settings, make_jobs
from .toolkit import standard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from ..adapters.model import Fill, Model, Precision
    from ..suites.gradients import GradientMaps
    from ..suites.images import ImageSet
    from ..suites.suite import Array, Context, Measurement, Probe
    from .plan import Cell, Job
    from .record import Record
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
    from ..adapters.device import pick_device

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
    others = stand_ins(jobs, toolkit.suites) if lack_gradients(records) else []
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


def no_stage(_name: str, _cells: Sequence[Cell]) -> None:
    """Take no notice of a stage."""


class Workbench:
    """Opens models and images, and measures jobs one after another on one device.

    `stage(name, cells)` is told what is about to be done and which cells a crash would cost.
    """

    def __init__(
        self,
        toolkit: Toolkit,
        settings: Settings,
        *,
        device: str = "cpu",
        batch: int = 16,
        objects: Mapping[str, nn.Module | Model] | None = None,
        stage: Callable[[str, Sequence[Cell]], None] = no_stage,
    ) -> None:
        from ..suites.images import open_images

        self.toolkit = toolkit
        self.suites = configure(toolkit.suites, settings.options)
        self.settings = settings
        self.device = device
        self.batch = batch
        self.stage = stage
        self._objects = objects or {}
        self._images: ImageSet = open_images(settings.images, settings.count, settings.seed)
        self._opened: tuple[str, Model] | None = None
        self._exact: dict[tuple[str, str], Measurement] = {}

    def measure(self, job: Job, keep: Callable[[Record], None]) -> None:
        """Measure every cell of `job`; `keep` gets each record as soon as it is there."""
        reset_peaks(self.device)
        clerk = Clerk(job, self.settings, self._images, self.device)
        self.stage("opening the model", job.cells)
        try:
            clerk.opened(self._open(job))
        except Exception as error:
            for cell in job.cells:
                keep(clerk.broken(cell, error))
            return
        cells, probes = self._sort(clerk, keep)
        for cell in (c for c in cells if not probes[c.key]):
            keep(self._finish(clerk, cell, {}))
        self._with_gradients(clerk, [c for c in cells if probes[c.key]], probes, keep)

    def _open(self, job: Job) -> Model:
        """The model variant; the untreated model stays open for the next fill."""
        if self._opened is None or self._opened[0] != job.reference:
            self._opened = None  # frees the last model before the next one is built
            self._exact.clear()
            model = self.toolkit.load(
                self._objects.get(job.reference, job.reference),
                device=self.device,
                target=self.settings.target,
                size=self.settings.size,
                seed=self.settings.seed,
                members=self.settings.members,
                precision=self.settings.precision,
                inputs=self.settings.inputs,
            )
            self._opened = (job.reference, model)
        model = self._opened[1]
        if job.fill == "none":
            return model
        chosen = self.settings
        if job.fill == "fit":
            images = images_to_fit(chosen).load(model.spec)
            return model.padded(
                "fit", seed=chosen.seed, recalibrate=chosen.recalibrate, images=images
            )
        return model.padded(job.fill, seed=chosen.seed, recalibrate=chosen.recalibrate)

    def _sort(
        self, clerk: Clerk, keep: Callable[[Record], None]
    ) -> tuple[list[Cell], dict[str, Sequence[Probe]]]:
        """Record the cells that do not apply; give the others, and their probes by key."""
        cells, probes = [], {}
        for cell in clerk.job.cells:
            suite = self.suites[cell.suite]
            try:
                reason = suite.skip(clerk.model, cell.protocol)
                if reason is not None:
                    keep(clerk.broken(cell, NotApplicableError(reason)))
                    continue
                probes[cell.key] = suite.probes(clerk.model, cell.protocol, self.settings.seed)
                cells.append(cell)
            except Exception as error:
                keep(clerk.broken(cell, error))
        return cells, probes

    def _with_gradients(
        self,
        clerk: Clerk,
        cells: Sequence[Cell],
        probes: Mapping[str, Sequence[Probe]],
        keep: Callable[[Record], None],
    ) -> None:
        """One pass for all `cells`; where that breaks, one pass for each."""
        if not cells:
            return
        self.stage("taking gradients", cells)
        try:
            found = self._gradients(clerk, [p for c in cells for p in probes[c.key]])
        except Exception as error:
            if len(cells) == 1:
                keep(clerk.broken(cells[0], error))
                return
            for cell in cells:
                self._with_gradients(clerk, [cell], probes, keep)
            return
        for cell in cells:
            try:
                own = found.of(probes[cell.key])
            except NotApplicableError as error:
                keep(clerk.broken(cell, error))
                continue
            keep(self._finish(clerk, cell, own))

    def _gradients(self, clerk: Clerk, probes: Sequence[Probe]) -> GradientMaps:
        from ..suites.gradients import take_gradients

        begun = time.perf_counter()
        once = list({probe.name: probe for probe in probes}.values())
        images = self._images.load(clerk.model.spec)
        found = take_gradients(clerk.model, images, once, batch=self.batch)
        clerk.gradients_s = time.perf_counter() - begun
        clerk.notes = list(found.notes)
        return found

    def _finish(self, clerk: Clerk, cell: Cell, maps: Mapping[str, Array]) -> Record:
        """Let the suite measure; its record, whatever comes of it."""
        self.stage(f"measuring {cell.suite}:{cell.protocol}", [cell])
        begun = time.perf_counter()
        try:
            measurement = self._measure(clerk.model, cell, maps)
            return clerk.measured(cell, measurement, time.perf_counter() - begun)
        except Exception as error:
            return clerk.broken(cell, error)

    def _measure(self, model: Model, cell: Cell, maps: Mapping[str, Array]) -> Measurement:
        """What the suite finds; an exact one finds in an untouched twin what the original has."""
        place = (cell.suite, cell.protocol)
        untouched = model.treatment is not None and not model.treatment.layers
        if untouched and place in self._exact:
            return self._exact[place]
        context = self._context(model, cell)
        found = self.suites[cell.suite].measure(model, cell.protocol, maps, context)
        if model.treatment is None and not cell.random:
            self._exact[place] = found
        return found

    def _context(self, model: Model, cell: Cell) -> Context:
        """What the suite may look at; exact suites get no images."""
        import torch

        from ..suites.suite import Context

        blank = torch.empty(0, 3, model.spec.height, model.spec.width)
        images = self._images.load(model.spec) if cell.random else blank

        def sized(height: int, width: int) -> Tensor:
            return self._images.load(replace(model.spec, height=height, width=width))

        return Context(images, self.settings.seed, self.batch, self.settings.draws, sized)
