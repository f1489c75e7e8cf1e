"""`position`: how much of a feature map is position instead of content.

Zero padding writes position into the features of convolutional networks, position embeddings into
those of transformers. Each image is rolled around by a random offset, so that its content has no
place, and passed forward; maps are those of every resolution on the way to the target.

Metrics of the target; the table `stages` has the first three for every resolution
    `row_r2`, `column_r2`: R^2 of a linear probe that reads the row, or column, of a unit off its
    features (ridge regression; see `probe`), trained on one half of the images and tested on the
    other; 1 minus squared error over variance, mean over test images, not below 0. 0: a linear
    probe finds no position, 1: it finds all.
    `position_share`: the share of the features' variance over the map that position explains,
    sum |E f(i) - E m|^2 over E sum |f(i) - m|^2: the sums are over units i and channels, m is the
    mean of f over the units of an image, and E is over images. The numerator is the mean product
    of different images, so that noise does not add to it (see `measuring.unbiased`).
Norms of units; of tokens before the final norm, at the last sum of the target's shape
    `outlier_share`: share of units whose norm over channels is above 3 times the median of the
    image. `bimodality`: Sarle's coefficient of the logarithms of the norms, mean over images: 1/3
    of a normal law, 1 of two values. The table `outliers` has the places that stand out most often.
Position embedding, weights alone
    `embedding_border`: mean norm over channels in the outermost ring over that of the other places.
    `embedding_largest`: largest norm over the median. Of a stored tensor with the shape of the
    target's tokens; missing where there is none.

Maps of more than 24 x 24 units are read at evenly spaced ones, of more than 256 channels every
k-th. The map `norms` is the mean over images of norms over their median.

Samples are images; for several weight sets, of which the first `weight_sets` are used, all images
are shown to each, and a sample is a weight set. At least four images are needed for the probe. Its
test images share a training half, so that the interval is a little too narrow where R^2 is between
0 and 1.

Cost: one forward pass an image for the maps, one operator by operator for the norms.

Sources: probe, Islam et al., "How much position information do convolutional neural networks
encode?" (arXiv 2001.08248), with rolled images, which are ours; norms, Darcet et al., "Vision
transformers need registers" (arXiv 2309.16588). The share of variance without noise is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.errors import NotApplicableError, PerimetryError
from ...adapters.model import ModelOfTokens
from ..base import (
    Context,
    Estimate,
    Measurement,
    Metric,
    Suite,
    described,
    missing,
    require_at_least,
)
from ..measuring.batching import Batching
from ..measuring.bootstrap import bootstrap
from ..measuring.unbiased import mean_square, pair_products
from .moments import coordinates, features, second_moments, within_map
from .probe import held_out_r2
from .tokens import (
    TOKENS,
    bimodality,
    border_over_interior,
    embedding_norms,
    embedding_shapes,
    outlying,
    unit_norms,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap

STREAM = 41

LEAST_IMAGES = 4

_PROBE = ("row_r2", "column_r2", "position_share")

_METRICS = described(
    (
        Metric("row_r2", "R^2 of the row by a linear probe", "share", "neither", high=1.0),
        Metric("column_r2", "R^2 of the column by a linear probe", "share", "neither", high=1.0),
        Metric("position_share", "variance that position explains", "share", "neither", high=1.0),
        Metric("outlier_share", "units of a norm above 3 medians", "share", "lower", high=1.0),
        Metric("bimodality", "Sarle's coefficient of log norms", "ratio", "neither"),
        Metric("embedding_border", "norm at the border over the rest", "ratio", "neither"),
        Metric("embedding_largest", "largest norm over the median", "ratio", "neither"),
    ),
    {
        "row_r2": "row read off the features, R²",
        "column_r2": "column read off the features, R²",
        "position_share": "variance explained by position",
        "outlier_share": "units whose norm stands out",
        "bimodality": "bimodality of the norms",
        "embedding_border": "position embedding, border",
        "embedding_largest": "position embedding, largest place",
    },
    caveats={
        "row_r2": "A probe of few images misses what one of many would find.",
        "position_share": "Few channels of a strong pattern weigh as much as many of a weak one.",
        "bimodality": "Heavy tails and few units raise it too.",
    },
    exact={"embedding_border": "always", "embedding_largest": "always"},
    main=("row_r2", "column_r2", "position_share", "outlier_share"),
)


@dataclass(frozen=True)
class Position(Suite):
    """The suite; its module's docstring is the definition and explains the setting."""

    weight_sets: int = 4
    name: ClassVar[str] = "position"
    protocols: ClassVar[Mapping[str, str]] = {"rolled": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "position_share"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how much of the features is position"
    captions: ClassVar[Mapping[str, str]] = {
        "stages": "Position in the last map of every resolution",
        "outliers": "Places whose norm stands out most often",
    }
    setting_help: ClassVar[Mapping[str, str]] = {
        "weight_sets": "most weight sets of an untrained model that are measured"
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "weight_sets")

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Pass the rolled images, and read position off their features."""
        del protocol, maps
        found = Measurement({})
        study = _Study(self, model, context, found)
        study.run()
        study.report()
        _read_embedding(model, found)
        return found


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
    """What is kept of the maps of one resolution, by weight set."""

    size: tuple[int, int]
    r2: list[Array] = field(default_factory=list)
    pairs: list[Array] = field(default_factory=list)


@dataclass
class _Study:
    """One measurement; `report` writes to `found`."""

    chosen: Position
    model: Model
    context: Context
    found: Measurement
    stages: dict[str, _Stage] = field(default_factory=dict)
    norms: list[list[Array]] = field(default_factory=list)

    def run(self) -> None:
        """Pass all images through every weight set."""
        model, context = self.model, self.context
        plain = model.spec.prepare(context.images)
        x = rolled(plain, context.seed)
        batching = Batching(context.batch, model.device, self.found.notes)
        self.members = min(model.members, self.chosen.weight_sets)
        for member in range(self.members):
            model.select(member, plain)
            parts = batching.run(len(x), lambda piece: self._features(x[piece]))
            for name in parts[0]:
                self._keep(name, np.concatenate([p[name][1] for p in parts]), parts[0][name][0])
            seen = [unit_norms(model, one.to(model.device)) for one in x.split(1)]
            self.norms.append([norms for norms, _ in seen])
        self.found.notes.append(f"norms of units are those of {seen[0][1]}")

    def _features(self, x: Tensor) -> dict[str, tuple[tuple[int, int], Array]]:
        stages = self.model.stages(x.to(self.model.device))
        return {n: ((m.shape[2], m.shape[3]), features(m)) for n, m in stages.items()}

    def _keep(self, name: str, units: Array, size: tuple[int, int]) -> None:
        if not np.isfinite(units).all():
            raise NotApplicableError(f"the feature map {name!a} is not finite on these images")
        stage = self.stages.setdefault(name, _Stage(size))
        stage.pairs.append(pair_products(within_map(units)))
        if len(units) >= LEAST_IMAGES:
            stage.r2.append(held_out_r2(second_moments(units, coordinates(*size))))

    @property
    def _resamples(self) -> Bootstrap:
        samples = self.members if self.model.members > 1 else len(self.context.images)
        return bootstrap(samples, self.context.draws, self.context.seed)

    def report(self) -> None:
        """Fill in metrics and tables."""
        rows: list[dict[str, Any]] = []
        for name, stage in self.stages.items():
            metrics = self._stage_metrics(stage)
            row: dict[str, Any] = {"stage": name, "units": stage.size}
            for key in _PROBE:
                row |= {key: metrics[key].value}
            rows.append({**row, "low": metrics["row_r2"].low, "high": metrics["row_r2"].high})
        self.found.metrics |= metrics  # of the target, the last stage
        self.found.tables["stages"] = rows
        self._report_norms()

    def _stage_metrics(self, stage: _Stage) -> dict[str, Estimate]:
        resamples, several = self._resamples, self.model.members > 1
        found = dict.fromkeys(
            _PROBE[:2],
            missing(f"the probe needs {LEAST_IMAGES} images: half train it, half test it"),
        )
        for axis, key in enumerate(_PROBE[:2]):
            if min(stage.size[axis], len(stage.r2)) == 0 or stage.size[axis] < 2:
                if stage.size[axis] < 2:
                    found[key] = missing("a map of one unit along this axis has no places")
                continue
            samples = (
                np.array([r2[:, axis].mean() for r2 in stage.r2])
                if several
                else stage.r2[0][:, axis]
            )
            found[key] = resamples.estimate(resamples.weights @ samples, low=0.0, high=1.0)
        found["position_share"] = self._share(stage, resamples)
        return found

    def _share(self, stage: _Stage, resamples: Bootstrap) -> Estimate:
        if any(not np.diag(pairs).sum() > 0 for pairs in stage.pairs):
            return missing("the features are the same at all units")
        if len(stage.pairs[0]) < 2:
            return missing("it compares different images: two are needed")
        if self.model.members == 1:
            (pairs,) = stage.pairs
            values = mean_square(pairs, resamples) / (resamples.weights @ np.diag(pairs))
        else:
            shares = [_off_diagonal(p) / np.diag(p).mean() for p in stage.pairs]
            values = resamples.weights @ np.array(shares)
        return resamples.estimate(values, low=0.0, high=1.0)

    def _report_norms(self) -> None:
        resamples, several = self._resamples, self.model.members > 1
        metrics = self.found.metrics
        if not all(np.median(n) > 0 for norms in self.norms for n in norms):
            reason = missing("the median norm of an image is 0")
            metrics |= {"outlier_share": reason, "bimodality": reason}
            return
        out = np.array([[outlying(n) for n in norms] for norms in self.norms])
        shares = out.mean((1, 2, 3)) if several else out[0].mean((1, 2))
        metrics["outlier_share"] = resamples.share(shares)
        found = [[bimodality(n) for n in norms] for norms in self.norms]
        peaks = np.array(found, dtype=np.float64)  # None becomes NaN
        metrics["bimodality"] = (
            missing("the norms of an image are all equal, or one is 0")
            if np.isnan(peaks).any()
            else resamples.estimate(
                resamples.weights @ (peaks.mean(1) if several else peaks[0]), low=0.0
            )
        )
        relative = np.array([[n / np.median(n) for n in norms] for norms in self.norms])
        self.found.maps["norms"] = relative.mean((0, 1))
        often = out.mean((0, 1))
        order = np.argsort(-often, axis=None, kind="stable")[:8]
        places = [np.unravel_index(k, often.shape) for k in order if often.flat[k] > 0]
        self.found.tables["outliers"] = [
            {"row": int(r), "column": int(c), "share_of_images": float(often[r, c])}
            for r, c in places
        ]


def _off_diagonal(pairs: Array) -> float:
    n = len(pairs)
    return float((pairs.sum() - np.trace(pairs)) / (n * (n - 1)))


def _read_embedding(model: Model, found: Measurement) -> None:
    """Fill in the metrics of the position embedding, or the reason why there are none."""
    names = ("embedding_border", "embedding_largest")
    try:
        norms, name = _embedding(model)
    except PerimetryError as error:
        found.metrics |= dict.fromkeys(names, missing(str(error)))
        return
    found.notes.append(f"the position embedding is {name!a}")
    border, median = border_over_interior(norms), float(np.median(norms))
    found.metrics[names[0]] = (
        missing("there is no place inside the border") if border is None else Estimate(border)
    )
    found.metrics[names[1]] = (
        Estimate(float(norms.max()) / median)
        if median > 0
        else missing("the median norm of the position embedding is 0")
    )
    found.maps["embedding"] = norms


def _embedding(model: Model) -> tuple[Array, str]:
    """Norms (rows, columns) of the position embedding and its name."""
    grid = model.target
    if grid is None or not isinstance(model, ModelOfTokens):
        raise NotApplicableError("the weights of the model cannot be read")
    stored = model.stored(embedding_shapes(grid)) if grid.kind in TOKENS else {}
    named = {n: t for n, t in stored.items() if "pos" in n.lower() or t.ndim == 3}
    if not named:
        raise NotApplicableError(
            "no stored tensor has the shape of a position embedding of the target's units"
        )
    name = next(iter(named))
    return embedding_norms(named[name], grid), name


POSITION = Position()
