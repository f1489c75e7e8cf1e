"""One measurement of `shift`: shares of kept classes, and errors of the map."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError, PerimetryError
from ..base import MAPS_OF, Context, Measurement
from ..measuring.batching import Batching, weight_sets
from ..measuring.bootstrap import bootstrap
from ..measuring.forward import by_sample, gives_logits, why_no_class
from ..measuring.output_view import NO_LOGITS, at_output, map_of, named_units
from .moves import QUARTERS, Circular, Cropped, Fractional, classes, distances, moves_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...adapters.model import Model
    from ..base import Array
    from .moves import Move, Mover, Ratio

KINDS = {"circular": "circular shifts", "crop": "shifted crops", "fraction": "fractional shifts"}

DEFAULT_CELL = 32
"""Pixels of a cell where there is no map whose stride could be taken."""

UNWRAPPED = (
    "the units of the map do not fill the image (layers without padding, or a size that strides "
    "do not divide), so the map does not wrap around with it: error_crop can be measured"
)

NEARLY = 1e-6


@dataclass
class ShiftStudy:
    """One measurement; results go to `found`. `shifts` and `side` are settings of the suite."""

    model: Model
    context: Context
    found: Measurement
    shifts: int
    side: int | None
    cell: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        from ..architecture.receptive_field import target_stride

        if self.side is not None:
            height, width = self.model.spec.height, self.model.spec.width
            if self.side > min(height, width):
                raise NotApplicableError(
                    f"shift.cell of {self.side} pixels was set for images of {height} x {width}; "
                    f"expected at most {min(height, width)}"
                )
            self.cell = (self.side, self.side)
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
        moves = moves_within(self.cell, (1, 1), self.shifts, self.context.seed)
        for kind, (mover, own) in self.movers(moves).items() if reason is None else ():
            if isinstance(mover, str):
                self._missing((f"same_{kind}", f"worst_{kind}"), mover)
            else:
                self._classes(kind, mover, own)
        if reason is not None:
            self._missing(
                [f"{name}_{kind}" for name in ("same", "worst") for kind in KINDS], reason
            )

    def _missing(self, names: Sequence[str], reason: str) -> None:
        self.found.leave_out(names, reason)

    def _classes(self, kind: str, mover: Mover, moves: Sequence[Move]) -> None:
        import torch

        kept: dict[int, Array] = {}
        fault: str | None = None
        for own in weight_sets(self.model, self.x):
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
        names = [f"error_{kind}" for kind in KINDS]
        names += [f"worst_error_{kind}" for kind in KINDS if kind != "fraction"]
        try:
            view = at_output(self.model)
            per_pixel, fits = _per_pixel(view)
        except NotApplicableError as error:
            self._missing(names, str(error))
            return
        self.found.notes.append(f"{MAPS_OF}{named_units(view)}")
        step = tuple(max(1, round(1 / r)) for r in per_pixel)
        moves = moves_within(self.cell, (step[0], step[1]), self.shifts, self.context.seed)
        for kind, (mover, own) in self.movers(moves).items():
            metrics = [n for n in names if n.endswith(kind)]
            if isinstance(mover, str):
                self._missing(metrics, mover)
                continue
            if not fits and kind != "crop":
                self._missing(metrics, UNWRAPPED)
                continue
            try:
                self._maps(kind, mover, own, per_pixel)
            except NotApplicableError as error:
                self._missing(metrics, str(error))

    def _maps(self, kind: str, mover: Mover, moves: Sequence[Move], per_pixel: Ratio) -> None:
        sums: dict[int, Array] = {}
        for own in weight_sets(self.model, self.x):
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


def _per_pixel(view: Model) -> tuple[Ratio, bool]:
    """Units of the map per pixel along (rows, columns), and whether they fill the image.

    They do not where layers have no padding or round their grids: then the stride is that of the
    architecture. Raises `NotApplicableError` where no shift is one by whole units.
    """
    from ..architecture.receptive_field import total_stride, untraced

    grid, spec = map_of(view), view.spec
    sides = ((spec.height, grid.height), (spec.width, grid.width))
    if all(pixels % units == 0 or units % pixels == 0 for pixels, units in sides):
        return (grid.height / spec.height, grid.width / spec.width), True
    rows, columns = total_stride(view)
    if untraced(view) is None and all(_whole(s) or _whole(1 / s) for s in (rows, columns)):
        return (1 / rows, 1 / columns), False
    raise NotApplicableError(
        f"the map has {grid.height} x {grid.width} units over {spec.height} x {spec.width} pixels, "
        "so it cannot be shifted by whole units: choose another --size"
    )


def _whole(number: float) -> bool:
    return abs(number - round(number)) < NEARLY
