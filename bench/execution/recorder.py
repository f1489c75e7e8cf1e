"""Writing the records of one model variant: what was found, what does not apply, what broke."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...adapters.errors import NotApplicableError
from ..records.environment import environment, peak_device_memory_mib, peak_memory_mib
from ..records.record import Failure, ImagesInfo, ModelInfo, Record, Timing, Value, to_json_value
from ..records.selection import takes_inputs
from .fit_images import open_fit_images

if TYPE_CHECKING:
    from ...adapters.model import Model
    from ...suites.base import Measurement
    from ...suites.images import ImageSet
    from .plan import Cell, Job
    from .settings import Settings


class Recorder:
    """Writes the records of one job."""

    def __init__(self, job: Job, settings: Settings, images: ImageSet, device: str) -> None:
        self.job = job
        self.notes: list[str] = []
        self.gradients_s = 0.0
        self._settings = settings
        self._images = images
        self._device = device
        self._model: Model | None = None
        self._images_info = _info(images)
        self._fit_info: ImagesInfo | None = None
        self._begun = time.perf_counter()
        self._load_s = 0.0

    def opened(self, model: Model) -> None:
        """Note that the model is open now."""
        self._model = model
        self._load_s = time.perf_counter() - self._begun
        self._images_info = _info(self._images, model)
        if self.job.fill == "fit":
            self._fit_info = _info(open_fit_images(self._settings), model)

    @property
    def model(self) -> Model:
        """The model of this job, once it is open."""
        if self._model is None:
            raise ValueError("the model is not open yet")
        return self._model

    def measured(self, cell: Cell, found: Measurement, seconds: float) -> Record:
        """The record of a measurement."""
        draws = {n: e.draws for n, e in found.metrics.items() if e.draws is not None}
        record = self._record(
            cell,
            status="ok",
            metrics={name: Value.of(estimate) for name, estimate in found.metrics.items()},
            tables=to_json_value(found.tables),
            map_names=sorted(found.maps),
            notes=list(dict.fromkeys([*self.model.notes, *self.notes, *found.notes])),
            measure_s=seconds,
        )
        return record.attach((dict(found.maps), draws))

    def broken(self, cell: Cell, error: Exception | Failure) -> Record:
        """A skipped record when `error` says that it does not apply, else a failed one."""
        if isinstance(error, NotApplicableError):
            return self._record(cell, status="skipped", reason=str(error))
        failure = error if isinstance(error, Failure) else Failure.of(error)
        return self._record(cell, status="failed", error=failure)

    def _record(self, cell: Cell, *, measure_s: float = 0.0, **fields: Any) -> Record:
        import torch

        return Record(
            key=cell.key,
            model=self._info(),
            inputs=to_json_value(self._settings.inputs) if takes_inputs(self.job.reference) else {},
            fill=self.job.fill,
            suite=cell.suite,
            protocol=cell.protocol,
            version=cell.version,
            settings=dict(cell.settings),
            seed=self._settings.seed,
            images=self._images_info if cell.random else None,
            fit_images=self._fit_info,
            environment=environment(torch.device(self._device)),
            timing=self._timing(measure_s),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )

    def _timing(self, measure_s: float) -> Timing:
        """Seconds and peaks; empty when the model was never open here."""
        if self._model is None:
            return Timing()
        return Timing(
            load_s=self._load_s,
            gradients_s=self.gradients_s,
            measure_s=measure_s,
            peak_memory_mib=peak_memory_mib(),
            peak_device_memory_mib=peak_device_memory_mib(self._device),
        )

    def _info(self) -> ModelInfo:
        if self._model is None:
            return ModelInfo(reference=self.job.reference)
        return ModelInfo.of(self.job.reference, self._model)


def _info(images: ImageSet, model: Model | None = None) -> ImagesInfo:
    """An image set, with its hash as `model` sees it."""
    sha256 = images.digest(model.spec) if model is not None else None
    return ImagesInfo(name=images.name, count=images.count, sha256=sha256)
