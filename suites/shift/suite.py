"""`shift`: the worst of the shifts within one stride cell, for classes and for maps.

A network of total stride P responds to an image and to its copy shifted by P alike, except at the
border; shifts in between change its response where its layers alias.
`perturbation.shift_consistency` compares random offsets (Zhang 2019); this suite finds the worst.
It uses forward passes only.

Shifts
    By (a, b) pixels, 0 <= a, b < P, not both 0, P being the stride of the target along each axis
    (or the setting `cell`; 32 where there is no map): all of them, or a seeded sample of `shifts`,
    the same for all images. *Circular*: the image wraps around. *Crop*: the
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
    |f(x)|, over images, shifts, channels and units; of crops only the units that both have. Where
    the units do not fill the image (no padding), f does not wrap around, and only crops
    are measured.
    `worst_error_circular` and `worst_error_crop`: the mean over images of each one's largest ratio.
    Fractional shifts move f by the same fraction, exactly so only if f is band-limited: their error
    is the aliasing of f.

Circular shifts by whole strides of a network of circular padding give 0, and so do those of any
network with adaptive polyphase sampling. Table `shifts`: the shifts that change most classes, or
else those of the largest error.

Samples are images, or, for several weight sets, weight sets. The intervals of shares are those of
Clopper and Pearson.

Cost, in forward passes per image: 2 x (`shifts` + 1) + 16 for classes, and as many for maps.

Sources: Zhang, ICML 2019; worst shifts as in Chaman and Dokmanic, "Truly shift-invariant
convolutional neural networks", CVPR 2021 (arXiv 2011.14214), and Rojas-Gomez et al. (arXiv
2306.07470). The fractional shifts and the worst error of maps are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..base import Context, Measurement, Metric, Suite, described, require_at_least
from ..measuring.output_view import why_no_map_nor_logits
from .study import KINDS, ShiftStudy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array


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
        "worst_circular": "Untrained weights have nearly tied classes: it says little of them.",
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
    topic: ClassVar[str] = "Shifts"
    captions: ClassVar[Mapping[str, str]] = {"shifts": "The worst shifts, rows and columns"}
    setting_help: ClassVar[Mapping[str, str]] = {
        "shifts": "maximum number of shifts per cell; a seeded sample if there are more",
        "cell": "side of the cell in pixels; None for the stride of the target",
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "shifts", "cell")

    def skip(self, model: Model, protocol: str) -> str | None:
        """A map or logits are needed."""
        return why_no_map_nor_logits(model)

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Shift the images, and compare."""
        found = Measurement({})
        study = ShiftStudy(model, context, found, self.shifts, self.cell)
        study.run_classes()
        study.run_maps()
        return found


SHIFT = Shift()
