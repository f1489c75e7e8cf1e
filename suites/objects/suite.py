"""`objects`: how the response to a small object depends on its size and on its place in the grid.

A box is pasted on the images near their centre, at every size of `sizes` and at phases of the
stride cell, and the change of the output is compared with the change for the largest box: the
micro-object test of the suite `training` on whole, trained networks, without training or labels.
Only forward passes are used. Protocol `cutouts` pastes labelled pictures of things instead, for
classifiers.

Output
    y: the logits, or else the output of the most units (detectors, segmenters), or else the target;
    all numbers of an image as one vector.
Boxes
    Squares of s pixels; `sizes` are by default powers of 2 from 1 up to the stride P of the target
    (32 where there is no map), at least to 8 and at most to a quarter of the image. The upper left
    pixel is at a + p, a the first multiple of P from the centre on, p = (row, column) the phase, 0
    to P - 1 along each axis: all phases, or a seeded sample of `phases`. In each channel the colour
    is 0 or 1, whichever is farther from the mean of the pixels that any box may cover.
Response
    With d(s, p) the change of y by the box: for logits the projection d . d*, d* being the mean
    over phases of d by the largest box; for maps, where a box at another phase changes other units,
    the product |d| D, D being the mean over phases of |d| by the largest box. Over images,

        r(s, p) = sum of d . d* over the sum of |d*|^2, or sum of |d| D over the sum of D^2,

    the part of the largest box's effect that the small one has: 1 on average at the largest size,
    about s^2 over its square for a linear network, 0 where the box is not seen.
Metrics
    `half_size`: the size in pixels at which the mean of r over phases reaches 1/2 for good,
    interpolated in logarithms; at least the smallest of `sizes`. `smallest_size`: the smallest size
    from which on the least r of all phases is at least `answered`; the ends of its interval are
    those of the least r's interval. `phase_weakest` and `phase_spread`: least r over the mean, and
    standard deviation over the mean, at the largest size up to a quarter of the stride (or the
    smallest size); missing where the mean's interval contains 0. Phases are chosen on one half of
    the samples and read on the other, and sampling noise is removed from the spread (see
    `measuring.unbiased`). The table `response` has the curve, with the worst phase of each size,
    the map `response` is r, (sizes, phases).
Cut-outs (protocol `cutouts`, for classifiers)
    `cutouts` is a folder of pictures with transparency, subfolders included, such as those of the
    Debian package tuxpaint-stamps-default. The label of each is its file's name; `classes`, lines
    LABEL,CLASS, says which class of the model it is, otherwise names of ImageNet's classes do, for
    models of 1,000 logits. At most `cutouts_used` of them, a seeded sample, are pasted, each on one
    image. Sizes, of the longer visible side, are by default powers of 2 from 8 and half of the
    image; smaller ones lie whole strides further in, so that all are near the centre. With d the
    change of the logit of the label minus the mean of all logits,

        r(s, p) = sum of d(s, p) over the sum of its mean over phases at the largest size,

    sums being over cut-outs; missing where the largest are not shown to raise the score of their
    classes. Phases are compared at the largest size up to the stride. `named_right` is the share of
    cut-outs at the largest size, over phases, whose label is the top class; the table has it for
    every size.

Samples are images, at most `images` of them, or cut-outs; for several weight sets, weight sets,
each scaled to a mean denominator of 1.

Cost: phases x sizes + 1 forward passes per image or cut-out.

Source: ours; the question of Kim et al. 2023 (small objects at dead pixels), asked of one network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ...adapters.errors import InputError, NotApplicableError
from ..base import Context, Measurement, Metric, Suite, described, require_at_least
from ..measuring.bootstrap import bootstrap
from ..measuring.forward import gives_logits
from ..measuring.gradients import require
from ..measuring.output_view import NO_LOGITS, why_no_map_nor_logits
from .cutouts import digest_of, find_cutouts, with_cutout
from .layout import DEFAULT_STRIDE, Layout, box_layout, cutout_layout, with_boxes
from .responses import ObjectPasses, Scenes, report_responses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array

BOXES, CUTOUTS = "boxes", "cutouts"

_METRICS = described(
    (
        Metric("half_size", "size of half the largest response", "pixels", "lower"),
        Metric("smallest_size", "smallest size detected at all phases", "pixels", "lower"),
        Metric("phase_weakest", "least over mean response", "ratio", "higher", low=None, even=1.0),
        Metric("phase_spread", "deviation over phases over the mean", "ratio", "lower", even=0.0),
        Metric("named_right", "largest cut-outs classified correctly", "share", "higher", high=1.0),
    ),
    {
        "half_size": "size of half the response",
        "smallest_size": "smallest size detected at all phases",
        "phase_weakest": "response at the worst phase",
        "phase_spread": "variation over phases",
        "named_right": "cut-outs classified correctly",
    },
    caveats={
        "half_size": "It is relative to the largest object: compare at equal sizes only.",
        "smallest_size": "It holds for objects that stand out near the centre.",
        "phase_weakest": "Of a sample of phases: the worst of all may be worse.",
        "named_right": "Drawn and photographed cut-outs are unlike the photographs of training.",
    },
    main=("half_size", "smallest_size", "phase_weakest"),
)

_ONLY_CUTOUTS = {"protocol": CUTOUTS}


@dataclass(frozen=True)
class Objects(Suite):
    """The suite; its module's docstring is the definition and explains the settings."""

    sizes: tuple[int, ...] | None = None
    phases: int = 16
    images: int = field(default=8, metadata={"protocol": BOXES})
    answered: float = 0.1
    cutouts: str | None = field(default=None, metadata=_ONLY_CUTOUTS)
    classes: str | None = field(default=None, metadata=_ONLY_CUTOUTS)
    cutouts_used: int = field(default=32, metadata=_ONLY_CUTOUTS)
    cutouts_digest: str = field(default="", metadata=_ONLY_CUTOUTS)
    name: ClassVar[str] = "objects"
    protocols: ClassVar[Mapping[str, str]] = {BOXES: "1", CUTOUTS: "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "half_size"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how small an object may be, and where it is missed"
    topic: ClassVar[str] = "Small objects"
    captions: ClassVar[Mapping[str, str]] = {
        "response": "Response to an object by its size in pixels",
        "cutouts": "Cut-outs and their classes",
    }
    setting_help: ClassVar[Mapping[str, str]] = {
        "sizes": "sides of the objects in pixels; None for powers of 2",
        "phases": "maximum number of phases; a seeded sample if there are more",
        "images": "maximum number of images that boxes are pasted on",
        "answered": "share of the largest response at which an object counts as detected",
        "cutouts": "folder of pictures with transparency, named by what they show",
        "classes": "file of lines LABEL,CLASS; None for the names of ImageNet's classes",
        "cutouts_used": "maximum number of cut-outs; a seeded sample if there are more",
        "cutouts_digest": "SHA-256 of the cut-outs and their classes; filled in, or compared",
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "phases", "images", "cutouts_used")
        if not (0 < self.answered < 1):
            raise InputError(f"objects.answered = {self.answered}; expected between 0 and 1")
        if self.sizes is not None and (len(set(self.sizes)) < 2 or min(self.sizes) < 1):
            raise InputError(f"objects.sizes = {self.sizes}; expected two sizes or more, from 1 on")
        if self.cutouts is not None:
            self._check_cutouts(digest_of(self.cutouts, self.classes))

    def _check_cutouts(self, digest: str) -> None:
        """Keep `digest`, which makes records of changed pictures others; raise `InputError`."""
        if self.cutouts_digest not in ("", digest):
            raise InputError(
                f"objects.cutouts = {self.cutouts!r} has the digest {digest[:12]}, not "
                f"{self.cutouts_digest[:12]}: the pictures or classes have changed"
            )
        object.__setattr__(self, "cutouts_digest", digest)

    def skip(self, model: Model, protocol: str) -> str | None:
        """A map or logits are needed; for cut-outs a folder and logits."""
        if protocol == BOXES:
            return why_no_map_nor_logits(model)
        if self.cutouts is None:
            return "no cut-outs were given: set objects.cutouts to a folder of them"
        return None if gives_logits(model) else NO_LOGITS

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Paste the objects and compare the answers. Raises `InputError` if they do not fit."""
        found = Measurement({})
        if model.why_not_spatial is not None:
            found.notes.append(f"no map has a stride: phases within {DEFAULT_STRIDE} pixels")
        make = cutout_layout if protocol == CUTOUTS else box_layout
        layout = make(model, self.sizes, self.phases, context.seed)
        try:
            scenes = self._scenes(model, protocol, layout, context, found)
            seen = ObjectPasses(model, layout, scenes, context, found.notes).run()
            resamples = bootstrap(len(seen.sums), context.draws, context.seed)
            report_responses(self.answered, layout, seen, resamples, found)
        except NotApplicableError as error:
            found.leave_out(self.metrics, error)
        return found

    def _scenes(
        self, model: Model, protocol: str, layout: Layout, context: Context, found: Measurement
    ) -> Scenes:
        images = context.images
        if protocol == BOXES:
            count = min(self.images, len(images))
            return Scenes(count, lambda i: with_boxes(images[i], layout))
        x = model.spec.prepare(images[:1]).to(model.device)
        scores = require(model.run(x, target=False, logits=True).logits, "logits").shape[1]
        cutouts = find_cutouts(
            self.cutouts or "", self.classes, scores, self.cutouts_used, context.seed
        )
        found.notes.append(
            f"{len(cutouts)} cut-outs of {len({c.index for c in cutouts})} classes are pasted"
        )
        found.tables["cutouts"] = [
            {"file": c.path.name, "label": c.label, "class": c.index} for c in cutouts
        ]
        return Scenes(
            len(cutouts),
            lambda i: with_cutout(images[i % len(images)], cutouts[i], layout),
            tuple(c.index for c in cutouts),
        )


OBJECTS = Objects()
