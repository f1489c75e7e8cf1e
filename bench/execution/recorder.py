"""Making the records of one model variant: measured, skipped or failed."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...adapters.errors import SAID_FIRST, NotApplicableError
from ..records.environment import environment, peak_device_memory_mib, peak_memory_mib
from ..records.parts import Failure, ImagesInfo, ModelInfo, Timing, Value, to_json_value
from ..records.record import Record, in_utf8
from ..records.references import takes_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ...suites.base import Array, Measurement
    from ...suites.images import ImageSet
    from .plan import Cell, Job
    from .settings import Settings


@dataclass(frozen=True)
class OpenedModel:
    """A model variant, how many seconds opening it took, and the image sets it was given."""

    model: Model
    seconds: float
    images: ImagesInfo
    fit_images: ImagesInfo | None

    @classmethod
    def of(
        cls, model: Model, begun: float, images: ImageSet, fit_images: ImageSet | None
    ) -> OpenedModel:
        """Describe `model`, which was opened since `begun` (of `time.perf_counter`)."""
        seconds = time.perf_counter() - begun
        fitted = _info(fit_images, model) if fit_images else None
        return cls(model, seconds, _info(images, model), fitted)


@dataclass(frozen=True)
class GradientPass:
    """The gradient maps of one cell, how many seconds their pass took, and its notes.

    `refused` says why there are no maps.
    """

    maps: Mapping[str, Array]
    seconds: float
    notes: tuple[str, ...] = ()
    refused: NotApplicableError | None = None


NO_GRADIENTS_NEEDED = GradientPass({}, 0.0)


@dataclass(frozen=True)
class Recorder:
    """Makes the records of one job; `opened` is None until, or when, the model cannot be opened.

    `notes` come first in every record.
    """

    job: Job
    settings: Settings
    images: ImageSet
    device: str
    opened: OpenedModel | None = None
    notes: tuple[str, ...] = ()

    def with_images(self, images: ImageSet) -> Recorder:
        """The same for records that are made from `images`."""
        if images.count == self.images.count or self.opened is None:
            return self
        info = _info(images, self.opened.model)
        return replace(self, images=images, opened=replace(self.opened, images=info))

    def measured(
        self, cell: Cell, found: Measurement, seconds: float, gradients: GradientPass
    ) -> Record:
        """The record of a measurement that took `seconds` after its gradient pass."""
        draws = {n: e.draws for n, e in found.metrics.items() if e.draws is not None}
        record = self._record(
            cell,
            self._timing(gradients.seconds, seconds),
            status="ok",
            metrics={name: Value.of(estimate) for name, estimate in found.metrics.items()},
            tables=to_json_value(found.tables),
            map_names=sorted(found.maps),
            notes=self._in_order([*gradients.notes, *found.notes]),
        )
        return record.attach((dict(found.maps), draws))

    def unmeasured(
        self,
        cell: Cell,
        error: BaseException | Failure,
        gradients: GradientPass = NO_GRADIENTS_NEEDED,
    ) -> Record:
        """A skipped record when `error` says that the suite does not apply, else a failed one."""
        timing = self._timing(gradients.seconds)
        notes = [note for note in self._in_order([]) if note.startswith(SAID_FIRST)]
        if isinstance(error, NotApplicableError):
            return self._record(cell, timing, status="skipped", reason=str(error), notes=notes)
        failure = error if isinstance(error, Failure) else Failure.of(error)
        return self._record(cell, timing, status="failed", error=failure, notes=notes)

    def _record(self, cell: Cell, timing: Timing, **fields: Any) -> Record:
        import torch

        reference, opened = self.job.reference, self.opened
        info = ModelInfo.of(reference, opened.model) if opened else ModelInfo(reference=reference)
        images = opened.images if opened else _info(self.images, None)
        made = Record(
            key=cell.key,
            model=info,
            inputs=to_json_value(self.settings.inputs) if takes_inputs(reference) else {},
            fill=self.job.fill,
            suite=cell.suite,
            protocol=cell.protocol,
            version=cell.version,
            settings=dict(cell.settings),
            seed=self.settings.seed,
            images=images if cell.random else None,
            fit_images=opened.fit_images if opened else None,
            environment=environment(torch.device(self.device)),
            timing=timing,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )
        return in_utf8(made)

    def _in_order(self, more: list[str]) -> list[str]:
        """Each note once; those that change what all numbers mean come first."""
        notes = [*self.notes, *(self.opened.model.notes if self.opened else ()), *more]
        return sorted(dict.fromkeys(notes), key=lambda note: not note.startswith(SAID_FIRST))

    def _timing(self, gradients_s: float, measure_s: float = 0.0) -> Timing:
        """Seconds and peaks; empty when the model was never open in this process."""
        if self.opened is None:
            return Timing()
        return Timing(
            load_s=self.opened.seconds,
            gradients_s=gradients_s,
            measure_s=measure_s,
            peak_memory_mib=peak_memory_mib(),
            peak_device_memory_mib=peak_device_memory_mib(self.device),
        )


def _info(images: ImageSet, model: Model | None) -> ImagesInfo:
    """An image set, with the hash of what `model` sees of it."""
    sha256 = images.digest(model.spec) if model is not None else None
    return ImagesInfo(name=images.name, count=images.count, sha256=sha256)
