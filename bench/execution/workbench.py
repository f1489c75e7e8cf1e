"""Measuring one model variant: open it once, take gradients once, then suite after suite.

Whatever breaks becomes a failed record of the cells it touched, and what does not apply a skipped
one; the other cells go on. `audit` does it in this process, `worker` in one of its own.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ...adapters.errors import NotApplicableError
from ...suites.settings import configure
from ..records.environment import reset_peaks
from .fit_images import open_fit_images
from .recorder import Recorder
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from ...adapters.model import Model
    from ...suites.base import Array, Context, Measurement, Probe
    from ...suites.images import ImageSet
    from ...suites.measuring.gradients import GradientMaps
    from ..records.record import Record
    from .plan import Cell, Job
    from .toolkit import Toolkit


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
        from ...suites.images import open_images

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
        clerk = Recorder(job, self.settings, self._images, self.device)
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
            images = open_fit_images(chosen).load(model.spec)
            return model.padded(
                "fit", seed=chosen.seed, recalibrate=chosen.recalibrate, images=images
            )
        return model.padded(job.fill, seed=chosen.seed, recalibrate=chosen.recalibrate)

    def _sort(
        self, clerk: Recorder, keep: Callable[[Record], None]
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
        clerk: Recorder,
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

    def _gradients(self, clerk: Recorder, probes: Sequence[Probe]) -> GradientMaps:
        from ...suites.measuring.gradients import take_gradients

        begun = time.perf_counter()
        once = list({probe.name: probe for probe in probes}.values())
        images = self._images.load(clerk.model.spec)
        found = take_gradients(clerk.model, images, once, batch=self.batch)
        clerk.gradients_s = time.perf_counter() - begun
        clerk.notes = list(found.notes)
        return found

    def _finish(self, clerk: Recorder, cell: Cell, maps: Mapping[str, Array]) -> Record:
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

        from ...suites.base import Context

        blank = torch.empty(0, 3, model.spec.height, model.spec.width)
        images = self._images.load(model.spec) if cell.random else blank

        def sized(height: int, width: int) -> Tensor:
            return self._images.load(replace(model.spec, height=height, width=width))

        return Context(images, self.settings.seed, self.batch, self.settings.draws, sized)
