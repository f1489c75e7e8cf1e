"""Measuring one model variant: open it once, take gradients once, then suite after suite.

An error becomes a failed record of the cells it affects, a suite that does not apply a skipped one;
the other cells go on. `audit` does this in its own process, `worker` in a process of its own.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ...adapters.device import free_unused, full_precision
from ...adapters.errors import NotApplicableError
from ...adapters.model import ModelOfScales
from ...adapters.target_rule import ALL_SCALES
from ...adapters.treatment import PaddingOptions
from ...suites.measuring.bootstrap import MIN_SAMPLES
from ...suites.settings import configure
from ..records.environment import reset_peaks
from .all_scales import FAULTS, Shared, label, probes_of, take_together, with_scales
from .recorder import NO_GRADIENTS_NEEDED, GradientPass, OpenedModel, Recorder
from .settings import PRECISION_OF, Settings, open_fit_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ...suites.base import Context, Estimate, Measurement, Probe
    from ...suites.images import ImageSet
    from ...suites.measuring.assumptions import Assumptions
    from ..records.record import Record
    from .plan import Cell, Job
    from .settings import Toolkit

    Keep = Callable[[Record], None]
    Planned = Mapping[str, Sequence[Probe]]  # probes by key of a cell


CALIBRATED_ON = 8
"""Fewer images may calibrate the norms of an `@init` model otherwise than more of them do."""


def _has_goal(cell: Cell) -> bool:
    return (cell.suite, cell.protocol) == PRECISION_OF


def _growth(reached: Estimate, goal: float, samples: int) -> float:
    """How many times as many images the goal takes, at most 4; 1 where it is reached."""
    if reached.value is None or _too_few(reached, samples):
        return 4.0
    half = reached.half_width or 0.0  # samples that all agree have no interval
    return 1.0 if half <= goal else min(max(1.1 * (half / goal) ** 2, 1.25), 4.0)


def _too_few(reached: Estimate, samples: int) -> bool:
    """Whether there is no interval for want of samples."""
    return reached.half_width is None and samples < MIN_SAMPLES


def _goal_missed(goal: float, reached: Estimate, count: int, members: int) -> str:
    """A note for records whose precision goal was not reached with `members` weight sets."""
    if reached.value is None:
        return f"the precision goal of {goal:g} cannot be judged: {reached.reason}"
    if _too_few(reached, members if members > 1 else count):
        more = f"--members, of {members}" if members > 1 else f"--most-images, of {count}"
        return (
            f"the precision goal of {goal:g} cannot be judged: there is no interval below "
            f"{MIN_SAMPLES} samples; raise {more}"
        )
    more = "--most-images"
    if members > 1:
        more = f"--members (the samples are the {members} weight sets) and {more}"
    return (
        f"the half width is {reached.half_width or 0:.3g} after {count} images, where the "
        f"precision goal is {goal:g}: raise {more}"
    )


def _require(assumed: Assumptions | None, probes: Sequence[Probe]) -> None:
    """Raise `NotApplicableError` if a measurement by `probes` rests on an output at fault."""
    if assumed is not None and (why := assumed.why_not(probes)) is not None:
        raise NotApplicableError(why)


class Workbench:
    """Opens models and images, and measures jobs one after another on one device.

    `on_stage(name, cells)` is called before each step with the cells that a crash would affect.
    """

    def __init__(
        self,
        toolkit: Toolkit,
        settings: Settings,
        *,
        device: str = "cpu",
        batch: int = 16,
        objects: Mapping[str, nn.Module | Model] | None = None,
        on_stage: Callable[[str, Sequence[Cell]], None] = lambda _name, _cells: None,
    ) -> None:
        self.toolkit = toolkit
        self.suites = configure(toolkit.suites, settings.options)
        self.settings = settings
        self.device = device
        self.batch = batch
        self.on_stage = on_stage
        self._objects = objects or {}
        self._all_images: ImageSet = settings.open_images()
        self._images = self._all_images.first(settings.count)
        self._opened: tuple[str, Model] | None = None
        self._exact: dict[tuple[str, str], Measurement] = {}
        self._shared: Shared = {}
        self._assumed: Assumptions | None = None

    @cached_property
    def _fit_images(self) -> ImageSet:
        """Opened for the first job that needs them; they keep their pixels for the next ones."""
        return open_fit_images(self.settings)

    def measure(self, job: Job, keep: Keep) -> None:
        """Measure every cell of `job`; `keep` gets each record as soon as it is made."""
        reset_peaks(self.device)
        self._use(self.settings.count)
        recorder = Recorder(job, self.settings, self._images, self.device)
        self.on_stage("opening the model", job.cells)
        begun = time.perf_counter()
        with full_precision(self.device):
            try:
                model = self._open(job)
                fitted = self._fit_images if job.fill == "fit" else None
                opened = OpenedModel.of(model, begun, self._images, fitted)
            except FAULTS as error:
                for cell in job.cells:
                    keep(recorder.unmeasured(cell, error))
                return
            recorder = replace(recorder, opened=opened)
            if self.settings.target == ALL_SCALES and isinstance(model, ModelOfScales):
                self._measure_scales(cast("Any", model), job, recorder, keep)
            else:
                self._measure_cells(model, job, recorder, keep)

    def _measure_scales(self, model: Any, job: Job, recorder: Recorder, keep: Keep) -> None:
        """Measure the target and the last map of every resolution; one record for each cell."""
        ours: dict[str, Record] = {}
        size = (model.spec.height, model.spec.width)
        views = {label(grid, size): model.at(grid) for grid in model.scales()}
        every = [model, *views.values()]
        probes = [probes_of(v, job.cells, self.suites, self.settings.seed) for v in every]
        if any(probes):
            self.on_stage("taking gradients at all scales", job.cells)
            images = self._images.load(model.spec)
            self._shared = take_together(model, every, probes, images, self.batch)
        self._measure_cells(model, job, recorder, lambda r: ours.update({r.key: r}))
        found: dict[str, dict[str, tuple[Grid, Record]]] = {key: {} for key in ours}
        for scale, view in views.items():

            def add(record: Record, scale: str = scale, grid: Grid = view.target) -> None:
                found[record.key][scale] = (grid, record)

            self._exact.clear()
            self._measure_cells(view, job, recorder, add, most=1)
        self._exact.clear()
        self._shared = {}
        for key, record in ours.items():
            keep(with_scales(record, found[key]) if record.status == "ok" else record)

    def _measure_cells(
        self, model: Model, job: Job, recorder: Recorder, keep: Keep, *, most: int | None = None
    ) -> None:
        """Measure the cells of one target; at most `most` images are passed to check the model."""
        self._assumed = assumed = self._assumptions(model, job, most)
        recorder = replace(recorder, notes=assumed.notes)
        cells, probes = self._sort(model, recorder, assumed, keep)
        for cell in (c for c in cells if not c.random):
            keep(self._finish(model, recorder, cell, NO_GRADIENTS_NEEDED))
        with_probes = [c for c in cells if probes[c.key]]
        recorder = self._with_gradients(model, recorder, with_probes, probes, keep)
        for cell in (c for c in cells if c.random and not probes[c.key]):
            keep(self._finish(model, recorder, cell, NO_GRADIENTS_NEEDED))

    def _open(self, job: Job) -> Model:
        """The model variant; the model without padding stays open for the next fill."""
        chosen = self.settings
        if self._opened is None or self._opened[0] != job.reference:
            self._opened = self._assumed = None  # frees the last model before the next is built
            self._exact.clear()
            free_unused(self.device)
            model = self.toolkit.load(
                self._objects.get(job.reference, job.reference),
                device=self.device,
                target=None if chosen.target == ALL_SCALES else chosen.target,
                size=chosen.size,
                seed=chosen.seed,
                members=chosen.weight_sets,
                precision=chosen.precision,
                inputs=chosen.inputs,
            )
            self._opened = (job.reference, model)
        model = self._opened[1]
        if job.fill == "none":
            return model
        images = self._fit_images.load(model.spec) if job.fill == "fit" else None
        return model.padded(job.fill, PaddingOptions(chosen.seed, chosen.recalibrate, images))

    def _assumptions(self, model: Model, job: Job, most: int | None) -> Assumptions:
        """Whether the model is a function of one image, where a suite takes images."""
        from ...suites.measuring.assumptions import Assumptions, check_assumptions

        if not any(cell.random for cell in job.cells):
            return Assumptions()
        self.on_stage("checking that two passes agree", job.cells)
        try:
            images = self._images.load(model.spec)
        except NotApplicableError:  # the suites that take images say why there are none
            return Assumptions()
        return check_assumptions(model, images[:most])

    def _sort(
        self, model: Model, recorder: Recorder, assumed: Assumptions, keep: Keep
    ) -> tuple[list[Cell], Planned]:
        """Record the cells that do not apply; return the others, and their probes by key."""
        cells, probes = [], {}
        for cell in recorder.job.cells:
            suite = self.suites[cell.suite]
            try:
                reason = suite.skip(model, cell.protocol)
                if reason is None:
                    probes[cell.key] = suite.probes(model, cell.protocol, self.settings.seed)
                    reason = assumed.why_not(probes[cell.key]) if cell.random else None
                if reason is not None:
                    keep(recorder.unmeasured(cell, NotApplicableError(reason)))
                    continue
                cells.append(cell)
            except FAULTS as error:
                keep(recorder.unmeasured(cell, error))
        return cells, probes

    def _with_gradients(
        self,
        model: Model,
        recorder: Recorder,
        cells: Sequence[Cell],
        probes: Planned,
        keep: Keep,
    ) -> Recorder:
        """Measure `cells` after one gradient pass for all; if that fails, after one pass each.

        Return the recorder of the images that were used.
        """
        if not cells:
            return recorder
        self.on_stage("taking gradients", cells)
        try:
            passes = self._enough_gradients(model, cells, probes)
        except FAULTS as error:
            if len(cells) == 1:
                keep(recorder.unmeasured(cells[0], error))
                return recorder
            for cell in sorted(cells, key=_has_goal, reverse=True):
                recorder = self._with_gradients(model, recorder, [cell], probes, keep)
            return recorder
        recorder = recorder.with_images(self._images)
        for cell, found in zip(cells, passes, strict=True):
            if found.refused is not None:
                keep(recorder.unmeasured(cell, found.refused, found))
            else:
                keep(self._finish(model, recorder, cell, found))
        return recorder

    def _enough_gradients(
        self, model: Model, cells: Sequence[Cell], probes: Planned
    ) -> list[GradientPass]:
        """The maps of each cell, from as many images as the precision goal takes."""
        goal, begun = self.settings.precision_goal, time.perf_counter()
        passes = self._gradients(model, cells, probes)
        place = next((i for i, cell in enumerate(cells) if _has_goal(cell)), None)
        if goal is None or place is None or passes[place].refused is not None:
            return passes
        notes: tuple[str, ...] = ()
        while True:
            measured = self._measure(model, cells[place], passes[place])
            reached = measured.metrics[self.suites[cells[place].suite].headline]
            samples = model.members if model.members > 1 else self._images.count
            growth = _growth(reached, goal, samples)
            if growth == 1:
                break
            hopeless = model.members > 1 and _too_few(reached, samples)
            all_used = self._images.count == self._all_images.count
            if reached.value is None or hopeless or all_used:
                notes = (_goal_missed(goal, reached, self._images.count, model.members),)
                break
            before = self._images.count
            self._use(math.ceil(growth * before))
            if before < CALIBRATED_ON or self.settings.recalibrate:
                self._check_again(model)
            passes = self._gradients(model, cells, probes)
            if passes[place].refused is not None:
                break
        seconds = time.perf_counter() - begun
        return [replace(p, seconds=seconds, notes=(*p.notes, *notes)) for p in passes]

    def _check_again(self, model: Model) -> None:
        """Check `model` on the images now in use, on which norms are estimated anew."""
        from ...suites.measuring.assumptions import check_assumptions

        if self._assumed is not None:
            self._assumed = check_assumptions(model, self._images.load(model.spec))

    def _later(self) -> Assumptions | None:
        """What is wrong with the model since it was checked; None where it was not."""
        return None if self._assumed is None else self._assumed.later()

    def _use(self, count: int) -> None:
        """Measure on the first `count` images from now on; the set in use keeps its pixels."""
        if self._images.count != min(count, self._all_images.count):
            self._images = self._all_images.first(count)

    def _gradients(
        self, model: Model, cells: Sequence[Cell], probes: Planned
    ) -> list[GradientPass]:
        """One pass for all probes of `cells`; the maps of each cell."""
        from ...suites.measuring.gradients import take_gradients

        begun = time.perf_counter()
        shared = self._shared.get(model.target.name) if model.target else None
        if shared is not None and self._images.count == min(
            self.settings.count, self._all_images.count
        ):
            found, seconds = shared
        else:
            once = list({probe.name: probe for c in cells for probe in probes[c.key]}.values())
            found = take_gradients(model, self._images.load(model.spec), once, batch=self.batch)
            seconds = time.perf_counter() - begun
        notes, later = tuple(found.notes), self._later()
        passes = []
        for cell in cells:
            try:
                _require(later, probes[cell.key])
                passes.append(GradientPass(found.of(probes[cell.key]), seconds, notes))
            except NotApplicableError as error:
                refused = error.with_traceback(None)  # which would keep the model as long as this
                passes.append(GradientPass({}, seconds, notes, refused))
        return passes

    def _finish(
        self, model: Model, recorder: Recorder, cell: Cell, gradients: GradientPass
    ) -> Record:
        """Let the suite measure; its record, whatever the outcome."""
        self.on_stage(f"measuring {cell.suite}:{cell.protocol}", [cell])
        begun = time.perf_counter()
        try:
            found = self._measure(model, cell, gradients)
            seconds = time.perf_counter() - begun
            if cell.random and gradients is NO_GRADIENTS_NEEDED:
                _require(self._later(), ())
            return recorder.measured(cell, found, seconds, gradients)
        except FAULTS as error:
            return recorder.unmeasured(cell, error, gradients)

    def _measure(self, model: Model, cell: Cell, gradients: GradientPass) -> Measurement:
        """What the suite finds; an exact result is reused where padding changed no layer."""
        place = (cell.suite, cell.protocol)
        unchanged = model.treatment is not None and not model.treatment.layers
        if unchanged and place in self._exact:
            return self._exact[place]
        context = self._context(model, cell)
        found = self.suites[cell.suite].measure(model, cell.protocol, gradients.maps, context)
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
