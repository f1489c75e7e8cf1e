"""One measurement of `position`: passes over rolled images, and what is read off their maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import NotApplicableError
from ..base import Context, Estimate, Measurement, missing
from ..measuring.batching import Batching
from ..measuring.bootstrap import bootstrap
from ..measuring.unbiased import mean_square, pair_products
from .probe import coordinates, features, held_out_r2, second_moments, within_map
from .stages import bimodality, chosen_stages, maps_of_grids, outlying, unit_norms

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap

STREAM = 41

LEAST_IMAGES = 4

TOGETHER = 6
"""Stages whose features are kept at a time, which bounds the memory."""

NO_NORMS = "the median norm of an image is 0"


def rolled(x: Tensor, seed: int) -> Tensor:
    """Each of `x` (images, channels, height, width) rolled around by its own random offset."""
    import torch

    pieces = []
    for index, image in enumerate(x):
        rng = np.random.default_rng([seed, STREAM, index])
        offset = tuple(int(rng.integers(n)) for n in image.shape[1:])
        pieces.append(image.roll(offset, (1, 2)))
    return torch.stack(pieces)


@dataclass
class _Stage:
    """What is kept of the maps of one stage, a list item for each weight set.

    `norms` are (images, rows, columns).
    """

    grid: Grid
    r2: list[Array] = field(default_factory=list)
    pairs: list[Array] = field(default_factory=list)
    norms: list[Array] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        return self.grid.height, self.grid.width

    def keep(self, units: Array, norms: Array) -> None:
        """Add the images of one weight set: units (images, units, channels) and norms."""
        if not np.isfinite(units).all():
            name = self.grid.name
            raise NotApplicableError(f"the feature map {name!a} is not finite on these images")
        self.norms.append(norms)
        self.pairs.append(pair_products(within_map(units)))
        if len(units) >= LEAST_IMAGES:
            self.r2.append(held_out_r2(second_moments(units, coordinates(*self.size))))

    @property
    def outlying(self) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Units that stand out (weight sets, images, rows, columns); None if a median is 0."""
        if not all(np.median(n) > 0 for norms in self.norms for n in norms):
            return None
        return np.array([[outlying(n) for n in norms] for norms in self.norms])


@dataclass
class PositionStudy:
    """One measurement; `report` writes to `found`."""

    model: Model
    context: Context
    found: Measurement
    weight_sets: int
    most: int

    def __post_init__(self) -> None:
        grids, self.unnormed = chosen_stages(self.model, self.most)
        self.stages = [_Stage(grid) for grid in grids]
        self.members = min(self.model.members, self.weight_sets)

    def run(self) -> None:
        """Pass all images through every weight set."""
        plain = self.model.spec.prepare(self.context.images)
        x = rolled(plain, self.context.seed)
        batching = Batching(self.context.batch, self.model.device, self.found.notes)
        for member in range(self.members):
            self.model.select(member, plain)
            for first in range(0, len(self.stages), TOGETHER):
                self._pass(x, self.stages[first : first + TOGETHER], batching)
        self.found.notes.append(f"norms of units are those of {self.unnormed.name!a}")

    def _pass(self, x: Tensor, stages: list[_Stage], batching: Batching) -> None:
        grids = [stage.grid for stage in stages]

        def read(piece: slice) -> list[tuple[Array, Array]]:
            maps = maps_of_grids(self.model, x[piece], grids)
            return [(features(one), unit_norms(one)) for one in maps]

        parts = batching.run(len(x), read)
        for stage, pairs in zip(stages, zip(*parts, strict=True), strict=True):
            units, norms = (np.concatenate(one) for one in zip(*pairs, strict=True))
            stage.keep(units, norms)

    @property
    def _resamples(self) -> Bootstrap:
        samples = self.members if self.several else len(self.context.images)
        return bootstrap(samples, self.context.draws, self.context.seed)

    @property
    def several(self) -> bool:
        """Whether weight sets are the samples."""
        return self.model.members > 1

    def report(self) -> None:
        """Fill in metrics and tables."""
        rows: list[dict[str, Any]] = []
        for stage in self.stages:
            metrics = self._of_stage(stage)
            row: dict[str, Any] = {"stage": stage.grid.name, "units": stage.size}
            row |= {key: metrics[key].value for key in metrics}
            rows.append({**row, "low": metrics["row_r2"].low, "high": metrics["row_r2"].high})
            if stage.grid == self.unnormed:
                self._report_norms(stage, metrics["outlier_share"])
        self.found.metrics |= {k: m for k, m in metrics.items() if k != "outlier_share"}
        self.found.tables["stages"] = rows

    def _of_stage(self, stage: _Stage) -> dict[str, Estimate]:
        resamples = self._resamples
        found = {
            key: self._r2(stage, k, resamples) for k, key in enumerate(("row_r2", "column_r2"))
        }
        found["position_share"] = self._share(stage, resamples)
        out = stage.outlying
        found["outlier_share"] = (
            missing(NO_NORMS)
            if out is None
            else resamples.share(out.mean((1, 2, 3)) if self.several else out[0].mean((1, 2)))
        )
        return found

    def _r2(self, stage: _Stage, axis: int, resamples: Bootstrap) -> Estimate:
        if stage.size[axis] < 2:
            return missing("a map of one unit along this axis has no places")
        if not stage.r2:
            return missing(f"the probe needs {LEAST_IMAGES} images: half train it, half test it")
        samples = (
            np.array([r2[:, axis].mean() for r2 in stage.r2])
            if self.several
            else stage.r2[0][:, axis]
        )
        return resamples.estimate(resamples.weights @ samples, low=0.0, high=1.0)

    def _share(self, stage: _Stage, resamples: Bootstrap) -> Estimate:
        if any(not np.diag(pairs).sum() > 0 for pairs in stage.pairs):
            return missing("the features are the same at all units")
        if len(stage.pairs[0]) < 2:
            return missing("it compares different images: two are needed")
        if not self.several:
            (pairs,) = stage.pairs
            values = mean_square(pairs, resamples) / (resamples.weights @ np.diag(pairs))
        else:
            shares = [_off_diagonal(p) / np.diag(p).mean() for p in stage.pairs]
            values = resamples.weights @ np.array(shares)
        return resamples.estimate(values, low=0.0, high=1.0)

    def _report_norms(self, stage: _Stage, share: Estimate) -> None:
        metrics, out = self.found.metrics, stage.outlying
        metrics["outlier_share"] = share
        if out is None:
            metrics["bimodality"] = missing(NO_NORMS)
            return
        metrics["bimodality"] = self._bimodality(stage)
        relative = np.array([[n / np.median(n) for n in norms] for norms in stage.norms])
        self.found.maps["norms"] = relative.mean((0, 1))
        often = out.mean((0, 1))
        order = np.argsort(-often, axis=None, kind="stable")[:8]
        places = [np.unravel_index(k, often.shape) for k in order if often.flat[k] > 0]
        self.found.tables["outliers"] = [
            {"row": int(r), "column": int(c), "share_of_images": float(often[r, c])}
            for r, c in places
        ]

    def _bimodality(self, stage: _Stage) -> Estimate:
        found = [[bimodality(n) for n in norms] for norms in stage.norms]
        peaks = np.array(found, dtype=np.float64)  # None becomes NaN
        if np.isnan(peaks).any():
            return missing("the norms of an image are all equal, or one is 0")
        resamples = self._resamples
        samples = peaks.mean(1) if self.several else peaks[0]
        return resamples.estimate(resamples.weights @ samples, low=0.0)


def _off_diagonal(pairs: Array) -> float:
    n = len(pairs)
    return float((pairs.sum() - np.trace(pairs)) / (n * (n - 1)))
