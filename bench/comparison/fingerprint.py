"""Fingerprints: sketches of the features of a few images, stage by stage, small enough to store.

For the first `IMAGES` images of the set, each stage (the last spatial map at each resolution, see
`Model.stages`) and the logits become a count sketch: every entry of the image's tensor times a
random sign, summed by its place modulo `BUCKETS`. For tensors a and b of one shape the squared
distance of their sketches is unbiased for |a - b|^2 (Charikar, Chen & Farach-Colton 2002); over n
images the relative standard error of the distance is at most about 1 / sqrt(2 n BUCKETS), and equal
tensors give equal sketches, bit for bit.

The *difference* of two models at a stage is |a - b| / |a|, over all images together. Two models of
one architecture (two states of a network, two exports, float32 and int8) *diverge* at the first
stage where it exceeds `DIVERGED`.

`Fingerprint` has the interface of a suite, so that it runs where suites run and gives a record; it
is not in the registry, since it has no metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...suites.base import Context, Measurement, Metric, Suite
from ..execution.toolkit import Toolkit, standard
from ..records.store import Store
from .compatibility import incompatibilities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ...adapters.model import Model
    from ...suites.base import Array
    from ..records.record import Record


IMAGES = 4


BUCKETS = 64


STREAM = 11


DIVERGED = 1e-3
"""Relative difference above which two networks have diverged: far above float32 rounding."""


LOGITS = "logits"


NAME = "fingerprint"


CELL = (NAME, "sketch")
"""Its suite and protocol, as records are found by."""


@dataclass(frozen=True)
class Fingerprint(Suite):
    """The suite; its module's docstring is the definition."""

    name: ClassVar[str] = NAME
    protocols: ClassVar[Mapping[str, str]] = {"sketch": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = ()
    headline: ClassVar[str] = ""
    random: ClassVar[bool] = True

    def skip(self, model: Model, protocol: str) -> str | None:
        """Fingerprints apply to every model."""
        del model, protocol
        return None

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Sketch every stage and the logits, a row of the table for each image and stage."""
        del protocol, maps
        x = model.spec.prepare(context.images)
        count, members = min(IMAGES, len(x)), min(model.members, len(x))
        rows: list[dict[str, Any]] = []
        for member in range(min(members, count)):
            model.select(member, x)
            for index in range(member, count, members):
                rows += _rows(model, x[index : index + 1], index, context.seed)
        return Measurement({}, tables={"stages": sorted(rows, key=lambda row: row["image"])})


@dataclass(frozen=True)
class WithFingerprint:
    """Makes the toolkit of `base` with the fingerprint beside its suites; travels to workers."""

    base: Callable[[], Toolkit] = standard

    def __call__(self) -> Toolkit:
        """The toolkit."""
        toolkit = self.base()
        return Toolkit(toolkit.load, {**toolkit.suites, NAME: Fingerprint()})


def _rows(model: Model, x: Tensor, index: int, seed: int) -> list[dict[str, Any]]:
    """Rows of one image `x` (1, channels, height, width), number `index` of the set."""
    from ...suites.measuring.forward import gives_logits

    x = x.to(model.device)
    stages = dict(model.stages(x)) if model.why_not_spatial is None else {}
    if gives_logits(model):
        logits = model.run(x, target=False, logits=True).logits
        if logits is not None:
            stages[LOGITS] = logits[:, :, None, None]
    return [_row(name, value, index, seed) for name, value in stages.items()]


def _row(name: str, value: Tensor, index: int, seed: int) -> dict[str, Any]:
    _, channels, height, width = value.shape
    sketched = sketch(value, index, seed)
    return {
        "image": index,
        "stage": name,
        "channels": channels,
        "height": height,
        "width": width,
        "norm": float(value.double().norm()),
        "sketch": sketched.tolist(),
    }


def sketch(value: Tensor, index: int, seed: int) -> Array:
    """Count sketch (buckets,) of `value` (1, ...), image `index` of the set."""
    from ...suites.measuring.gradients import random_signs

    signed = (value.double() * random_signs(value, [index], seed=seed, stream=STREAM)).flatten()
    flat: Array = signed.cpu().numpy()
    padded = np.concatenate([flat, np.zeros(-len(flat) % BUCKETS)])
    found: Array = padded.reshape(-1, BUCKETS).sum(0)
    return found


@dataclass(frozen=True)
class StageDifference:
    """The difference of two networks at one stage; `first` and `second` are its names in them."""

    first: str
    second: str
    shape: tuple[int, int, int]
    difference: float


def stage_differences(first: Record, second: Record) -> list[StageDifference] | str:
    """The difference at every stage, in order, relative to `first`; or why there is none.

    Stages pair by shape. Two models are of one architecture when all stages of the one with fewer
    stages pair: a quantised file has its rounded image as an additional stage.
    """
    for record in (first, second):
        if record.status != "ok" or not record.tables.get("stages"):
            return record.reason or (record.error.message if record.error else "no fingerprint")
    different = incompatibilities(first, second)
    if different:
        return "; ".join(different)
    a, b = _by_shape(first), _by_shape(second)
    both = [shape for shape in a if shape in b]
    if len(both) < min(len(a), len(b)):
        return "their stages have different shapes: they are not of one architecture"
    return [
        StageDifference(_name(a[shape]), _name(b[shape]), shape, _difference(a[shape], b[shape]))
        for shape in both
    ]


def first_divergent_stage(
    found: Sequence[StageDifference], tolerance: float = DIVERGED
) -> StageDifference | None:
    """The first stage whose difference exceeds `tolerance`."""
    return next((p for p in found if not p.difference <= tolerance), None)


Shape = tuple[int, int, int]


Rows = list[dict[str, Any]]


def _by_shape(record: Record) -> dict[Shape, Rows]:
    """Rows of all images by stage; there is one stage at each resolution, and the logits."""
    found: dict[Shape, Rows] = {}
    for row in record.tables["stages"]:
        shape = (int(row["channels"]), int(row["height"]), int(row["width"]))
        found.setdefault(shape, []).append(row)
    return found


def _name(rows: Rows) -> str:
    return str(rows[0]["stage"])


def _difference(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> float:
    """|a - b| / |a| over the images of both; infinite where only a is 0, or one is not finite."""
    a = {row["image"]: row for row in rows}
    b = {row["image"]: row for row in others}
    both = sorted(a.keys() & b.keys())
    # records have `nan` and `inf` as text, which `float64` reads
    one, other = (np.array([rows[i]["sketch"] for i in both], np.float64) for rows in (a, b))
    scale = float(np.linalg.norm(np.array([a[i]["norm"] for i in both], np.float64)))
    distance = float(np.linalg.norm(other - one))
    if not (np.isfinite(scale) and np.isfinite(distance)):
        return float("inf")
    if scale == 0:
        return 0.0 if distance == 0 else float("inf")
    return distance / scale


CHECK = "check"


def beside(baseline: Path) -> Path:
    """The folder of noise floor and fingerprints of a baseline: `DIR/check`, or `FILE.check`."""
    return baseline / CHECK if baseline.is_dir() else baseline.with_suffix(f".{CHECK}")


def read_fingerprints(baseline: Path) -> tuple[dict[tuple[str, str], Record], list[str]]:
    """Fingerprints beside a baseline by (reference, fill), and a sentence per unreadable file."""
    folder = beside(baseline)
    if not (folder / "records").is_dir():
        return {}, []
    records, problems = Store(folder).read()
    found = sorted(records, key=lambda r: r.created)
    return {(r.model.reference, r.fill): r for r in found if r.suite == NAME}, problems
