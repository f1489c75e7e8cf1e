"""`shift`: the worst of the shifts within one stride cell, for classes and for maps.

A network of total stride P answers to an image as to its copy shifted by P, but for the border,
and, where its layers alias, otherwise to the shifts in between. `perturbation.shift_consistency`
compares random offsets (Zhang 2019); this suite asks for the worst. Forward passes alone.

Shifts
    By (a, b) pixels, 0 <= a, b < P, not both 0, P being the stride of the target along each axis
    (or the setting `cell`; 32 where there is no map): all of them, or a seeded sample of `shifts`,
    the same for all images. *Circular*: what leaves at one side comes in at the other. *Crop*: the
    pixels beyond the border come from a larger image. *Fraction*: the 15 shifts by quarters of a
    pixel below one, by the band-limited interpolation of the periodic image; its values may leave
    [0, 1].
Classes (models with logits)
    `same_circular`, `same_crop`, `same_fraction`: share of shifts that leave the arg-max of the
    logits as it is, mean over images. `worst_circular`, `worst_crop`, `worst_fraction`: share of
    images that keep their class under every one of them: with labels, accuracy under the worst
    shift is at most the share of correct images among those.
Maps (models with a map)
    f is the output of the most units, or the target. For shifts S by whole units of f within the
    cell (by one cell, where a unit of f is as large as the cell), and the three kinds as above:
    `error_circular`, `error_crop`, `error_fraction` are the sum of |f(S x) - S f(x)| over that of
    |f(x)|, over images, shifts, channels and units; of crops only the units that both have.
    `worst_error_circular` and `worst_error_crop`: the mean over images of each one's largest ratio.
    Fractional shifts move f by the same fraction, exactly so only if f is band-limited: their error
    is the aliasing of f.

Circular shifts by whole strides of a network of circular padding give 0, and so do those of any
network with adaptive polyphase sampling. Table `shifts`: the shifts that change most classes, or
else those of the largest error.

Samples are images, or, for several weight sets, weight sets. The intervals of shares are those of
Clopper and Pearson.

Cost, in forward passes an image: two times `shifts` + 1 and 16, for classes and for maps each.

Sources: Zhang, ICML 2019; worst shifts as in Chaman and Dokmanic, "Truly shift-invariant
convolutional neural networks", CVPR 2021 (arXiv 2011.14214), and Rojas-Gomez et al. (arXiv
2306.07470). The fractional shifts and the worst error of maps are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.errors import NotApplicableError, PerimetryError
from ..base import Context, Measurement, Metric, Suite, described, missing, require_at_least
from ..measuring.batching import Batching
from ..measuring.bootstrap import bootstrap
from ..measuring.forward import by_sample, gives_logits
from ..measuring.output_view import NO_LOGITS, at_output, map_of, named_units, why_no_map_nor_logits
from ..measuring.top_class import why_no_class
from .moves import QUARTERS, Circular, Cropped, Fractional, moves_within
from .responses import classes, distances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array
    from .moves import Move, Mover
    from .responses import Ratio

KINDS = {"circular": "circular shifts", "crop": "shifted crops", "fraction": "fractional shifts"}

DEFAULT_CELL = 32
"""Pixels of a cell where there is no map whose stride could be taken."""


def _share(name: str, definition: str) -> Metric:
    return Metric(name, definition, "share", "higher", high=1.0, even=1.0)


def _error(name: str, definition: str) -> Metric:
    return Metric(name, definition, "ratio", "lower", even=0.0)


_SAME = tuple(_share(f"same_{k}", f"{what} of the same class") for k, what in KINDS.items())
_WORST = tuple(
    _share(f"worst_{k}", f"images of one class under all {what}") for k, what in KINDS.items()
)
_ERRORS = tuple(_error(f"error_{k}", f"|f(Sx) - Sf(x)| / |f|, {w}") for k, w in KINDS.items())
_WORST_ERRORS = tuple(
    _error(f"worst_error_{k}", f"largest of it over {KINDS[k]}") for k in ("circular", "crop")
)

_METRICS = described(
    (*_WORST, *_SAME, *_ERRORS, *_WORST_ERRORS),
    {
        **{f"same_{k}": f"{what}, same class" for k, what in KINDS.items()},
        **{f"worst_{k}": f"class kept by all {what}" for k, what in KINDS.items()},
        **{f"error_{k}": f"error of the map, {what}" for k, what in KINDS.items()},
        **{f"worst_error_{k}": f"the same, worst of {KINDS[k]}" for k in ("circular", "crop")},
    },
    caveats={
        "worst_circular": "Of untrained weights it says little: their classes are nearly tied.",
        "worst_crop": "Crops differ in content at their edges too.",
        "error_circular": "Zero padding counts too: it does not move with the image.",
        "error_fraction": "A map that is not band-limited cannot be shifted by fractions exactly.",
    },
    verdicts={
        m.name: ("inconsistent", "consistent") for m in (*_WORST, *_SAME, *_ERRORS, *_WORST_ERRORS)
    },
    main=("worst_circular", "worst_crop", "error_circular"),
)


@dataclass(frozen=True)
class Shift(Suite):
    """The suite; its module's docstring is the definition and explains the settings."""

    shifts: int = 24
    cell: int | None = None
    name: ClassVar[str] = "shift"
    protocols: ClassVar[Mapping[str, str]] = {"worst": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "worst_circular"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "what the worst shift within a stride cell does"
    captions: ClassVar[Mapping[str, str]] = {"shifts": "The worst shifts, rows and columns"}
    setting_help: ClassVar[Mapping[str, str]] = {
        "shifts": "most shifts of a cell; a seeded sample of them if there are more",
        "cell": "side of the cell in pixels; None for the stride of the target",
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "shifts", "cell")

    def skip(self, model: Model, protocol: str) -> str | None:
        """A map or logits are needed."""
        del protocol
        return why_no_map_nor_logits(model)

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Shift the images, and compare."""
        del protocol, maps
        found = Measurement({})
        study = _Study(self, model, context, found)
        study.run_classes()
        study.run_maps()
        return found


@dataclass
class _Study:
    """One measurement; results go to `found`."""

    chosen: Shift
    model: Model
    context: Context
    found: Measurement
    cell: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        from ..architecture.receptive_field import target_stride

        own = self.chosen.cell
        if own is not None:
            self.cell = (own, own)
        elif self.model.why_not_spatial is None:
            self.cell = target_stride(self.model)
        else:
            self.cell = (DEFAULT_CELL, DEFAULT_CELL)
            self.found.notes.append(f"no map has a stride: shifts within {DEFAULT_CELL} pixels")
        self.batching = Batching(self.context.batch, self.model.device, self.found.notes)
        self.x = self.model.spec.prepare(self.context.images)
        self.members = min(self.model.members, len(self.x))

    def movers(self, moves: Sequence[Move]) -> dict[str, tuple[Mover | str, Sequence[Move]]]:
        """The three kinds of shift with their moves; a reason in place of one that fails."""
        return {
            "circular": (Circular(self.x), moves),
            "crop": (self.cropped, moves),
            "fraction": (Fractional(self.x), QUARTERS),
        }

    @cached_property
    def cropped(self) -> Mover | str:
        """Crops of images that are larger by a cell, or the reason why there are none."""
        spec, cell = self.model.spec, self.cell
        try:
            large = self.context.sized(spec.height + cell[0], spec.width + cell[1])
        except PerimetryError as error:
            return str(error)
        return Cropped(spec.prepare(large), cell)

    def run_classes(self) -> None:
        """Fill in the shares of shifts that keep the class."""
        reason = None if gives_logits(self.model) else NO_LOGITS
        moves = moves_within(self.cell, (1, 1), self.chosen.shifts, self.context.seed)
        for kind, (mover, own) in self.movers(moves).items() if reason is None else ():
            if isinstance(mover, str):
                self._missing((f"same_{kind}", f"worst_{kind}"), mover)
            else:
                self._classes(kind, mover, own)
        if reason is not None:
            self._missing([m.name for m in (*_SAME, *_WORST)], reason)

    def _missing(self, names: Sequence[str], reason: str) -> None:
        self.found.metrics |= {name: missing(reason) for name in names}

    def _classes(self, kind: str, mover: Mover, moves: Sequence[Move]) -> None:
        import torch

        kept: dict[int, Array] = {}
        fault: str | None = None
        for member, own in self._members():
            del member
            found = [classes(self.model, mover, i, moves, self.batching) for i in own]
            fault = fault or why_no_class(torch.cat([logits for logits, _ in found]))
            kept |= {i: same for i, (_, same) in zip(own, found, strict=True)}
        if fault is not None:
            self._missing((f"same_{kind}", f"worst_{kind}"), fault)
            return
        resamples = bootstrap(self._samples, self.context.draws, self.context.seed)
        for name, read in (("same", np.mean), ("worst", np.min)):
            values = by_sample({i: np.array(read(v)) for i, v in kept.items()}, self.members)
            self.found.metrics[f"{name}_{kind}"] = resamples.share(values)
        if kind == "circular":
            self._table(moves, np.mean([kept[i] for i in sorted(kept)], axis=0), "same_class")

    def _members(self) -> Any:
        """Each weight set, selected, with the indices of its images."""
        for member in range(self.members):
            self.model.select(member, self.x)
            yield member, list(range(member, len(self.x), self.members))

    @property
    def _samples(self) -> int:
        return self.members if self.members > 1 else len(self.x)

    def _table(self, moves: Sequence[Move], values: Array, name: str) -> None:
        order = np.argsort(values if name == "same_class" else -values, kind="stable")[:8]
        self.found.tables["shifts"] = [
            {"rows": moves[k][0], "columns": moves[k][1], name: float(values[k])} for k in order
        ]

    def run_maps(self) -> None:
        """Fill in the errors of the map."""
        names = [m.name for m in (*_ERRORS, *_WORST_ERRORS)]
        try:
            view = at_output(self.model)
            per_pixel = _per_pixel(view)
        except NotApplicableError as error:
            self._missing(names, str(error))
            return
        self.found.notes.append(f"maps are those of {named_units(view)}")
        step = tuple(max(1, round(1 / r)) for r in per_pixel)
        moves = moves_within(self.cell, (step[0], step[1]), self.chosen.shifts, self.context.seed)
        for kind, (mover, own) in self.movers(moves).items():
            metrics = [n for n in names if n.endswith(kind)]
            if isinstance(mover, str):
                self._missing(metrics, mover)
                continue
            try:
                self._maps(kind, mover, own, per_pixel)
            except NotApplicableError as error:
                self._missing(metrics, str(error))

    def _maps(self, kind: str, mover: Mover, moves: Sequence[Move], per_pixel: Ratio) -> None:
        sums: dict[int, Array] = {}
        for _, own in self._members():
            view = at_output(self.model)
            sums |= {i: distances(view, mover, i, moves, self.batching, per_pixel) for i in own}
        if not all(one[:, 1].any() for one in sums.values()):
            raise NotApplicableError("the output is 0 throughout, so an error has no relation")
        resamples = bootstrap(self._samples, self.context.draws, self.context.seed)
        totals = {
            i: one.sum(0) / (one[:, 1].sum() if self.members > 1 else 1) for i, one in sums.items()
        }
        error, size = (resamples.weights @ by_sample(totals, self.members)).T
        self.found.metrics[f"error_{kind}"] = resamples.estimate(
            error / size, low=0.0, positive=True
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = {i: one[:, 0] / one[:, 1] for i, one in sums.items()}
        if kind != "fraction":
            worst = by_sample({i: np.array(r.max()) for i, r in ratios.items()}, self.members)
            self.found.metrics[f"worst_error_{kind}"] = resamples.estimate(
                resamples.weights @ worst, low=0.0, positive=True
            )
        if kind == "circular" and "shifts" not in self.found.tables:
            mean = np.mean([np.nan_to_num(ratios[i]) for i in sorted(ratios)], axis=0)
            self._table(moves, mean, "error")


def _per_pixel(view: Model) -> Ratio:
    """Units of the map per pixel along (rows, columns).

    Raises `NotApplicableError` where neither is a whole number of times the other.
    """
    grid, spec = map_of(view), view.spec
    found = []
    for pixels, units in ((spec.height, grid.height), (spec.width, grid.width)):
        if pixels % units and units % pixels:
            raise NotApplicableError(
                f"the map has {units} units over {pixels} pixels, so it cannot be shifted by whole "
                "units: choose another --size"
            )
        found.append(units / pixels)
    return found[0], found[1]


SHIFT = Shift()
