"""Fingerprints: sketches of the features and outputs of a few images, small enough to store.

For the first `IMAGES` images of the set, each stage (the last spatial map at each resolution, see
`Model.stages`) and every output of the model (see `Model.every_output`) becomes a count sketch:
every entry of the image's tensor times a random sign, summed by its place modulo `BUCKETS`. For
tensors a and b of one shape the squared distance of their sketches is unbiased for |a - b|^2
(Charikar, Chen & Farach-Colton 2002); over n images the relative standard error of the distance is
at most about 1 / sqrt(2 n BUCKETS), and equal tensors give equal sketches, bit for bit.

Outputs that are not floats (indices, labels, masks of truth values) are compared by equality: their
entries are divided among `BUCKETS` parts, and each part has a checksum. Entries of an output that
are not finite count as 0 in its sketch, and have a checksum of their own.

An output that is different in two equal passes, or that cannot be read, is not looked at: it is in
the table `unread` with the reason. `divergence` compares two fingerprints.

`Fingerprint` has the interface of a suite, so that it runs where suites run and gives a record; it
is not in the registry, since it has no metrics.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.every_output import EveryOutput
from ...suites.base import Context, Measurement, Metric, Suite
from ..execution.settings import Toolkit, standard
from ..records.manifest import CHECK
from ..records.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from ...adapters.model import Model
    from ...suites.base import Array
    from ..records.record import Record


IMAGES = 4


BUCKETS = 64


NO_ENTRIES = zlib.crc32(b"")
"""The checksum of a part without entries, as outputs of fewer than `BUCKETS` entries have."""


STREAM = 11


REPEATS = 1e-5
"""Relative difference of an output in two equal passes that is float noise."""


NAME = "fingerprint"


CELL = (NAME, "sketch")
"""Its suite and protocol, as records are found by."""


@dataclass(frozen=True)
class Fingerprint(Suite):
    """The suite; its module's docstring is the definition."""

    name: ClassVar[str] = NAME
    protocols: ClassVar[Mapping[str, str]] = {"sketch": "2"}
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
        """Sketch every stage and every output: a row for each image, of the table of its kind."""
        del protocol, maps
        x = model.spec.prepare(context.images)
        count, members = min(IMAGES, len(x)), min(model.members, len(x))
        found = _Rows(context.seed)
        for member in range(min(members, count)):
            model.select(member, x)
            for index in range(member, count, members):
                found.look(model, x[index : index + 1].to(model.device), index)
        return Measurement({}, tables=found.tables())


@dataclass(frozen=True)
class WithFingerprint:
    """Makes the toolkit of `base` with the fingerprint beside its suites; travels to workers."""

    base: Callable[[], Toolkit] = standard

    def __call__(self) -> Toolkit:
        """The toolkit."""
        toolkit = self.base()
        return Toolkit(toolkit.load, {**toolkit.suites, NAME: Fingerprint()})


class _Rows:
    """The rows of the images that were looked at, and the reasons of what was not."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.stages: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self.unread: dict[str, str] = {}

    def look(self, model: Model, x: Tensor, index: int) -> None:
        """Add the rows of one image `x` (1, channels, height, width), number `index` of the set."""
        stages = model.stages(x) if model.why_not_spatial is None else {}
        self.stages += [_stage(name, v, index, self.seed) for name, v in stages.items()]
        found = _every_output(model, x)
        self.unread.update(found.unread)
        rows = [_output(name, v, index, self.seed) for name, v in found.tensors.items()]
        if index == 0:
            again = _every_output(model, x).tensors
            self.unread |= {r["output"]: RANDOM for r in rows if _random(r, again, self.seed)}
        self.outputs += rows

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """The tables, in the order of the images."""
        outputs = [row for row in self.outputs if row["output"] not in self.unread]
        return {
            "stages": sorted(self.stages, key=lambda row: row["image"]),
            "outputs": sorted(outputs, key=lambda row: row["image"]),
            "unread": [{"output": n, "reason": why} for n, why in self.unread.items()],
        }


RANDOM = "is different in two equal passes"


ALL = "every output"
"""The name under which a pass that fails is listed."""


def _every_output(model: Model, x: Tensor) -> EveryOutput:
    """All outputs; a pass that fails behind the target has one reason for all of them."""
    try:
        return model.every_output(x)
    except Exception as error:  # a foreign forward may raise anything
        return EveryOutput(unread={ALL: f"failed: {type(error).__name__}: {error}"})


def _random(row: Mapping[str, Any], again: Mapping[str, Tensor], seed: int) -> bool:
    """Whether a second pass gives another output than that of `row`."""
    if row["output"] not in again:
        return True
    other = _output(row["output"], again[row["output"]], row["image"], seed)
    if any(row[name] != other[name] for name in ("shape", "exact", "not_finite")):
        return True
    distance = float(np.linalg.norm(np.subtract(row["sketch"], other["sketch"])))
    return distance > (0 if row["exact"] else REPEATS * row["norm"])


def _stage(name: str, value: Tensor, index: int, seed: int) -> dict[str, Any]:
    _, channels, height, width = value.shape
    return {
        "image": index,
        "stage": name,
        "channels": channels,
        "height": height,
        "width": width,
        "norm": float(value.double().norm()),
        "sketch": sketch(value, index, seed).tolist(),
    }


def _output(name: str, value: Tensor, index: int, seed: int) -> dict[str, Any]:
    """The row of one output of any shape; `exact` if it is compared by equality."""
    exact = not value.is_floating_point()
    finite = value.double().nan_to_num(0.0, 0.0, 0.0)
    broken = value[~value.isfinite()].double().nan_to_num(0.0, 1.0, -1.0)
    places = value.isfinite().logical_not().flatten().nonzero()
    parts = _checksums(value) if exact else sketch(finite.reshape(1, -1), index, seed).tolist()
    return {
        "image": index,
        "output": name,
        "shape": " x ".join(map(str, value.shape)) or "1",
        "exact": exact,
        "norm": float(finite.norm()),
        "not_finite": _checksum([places, broken]) if len(places) else 0,
        "sketch": parts,
    }


def _checksum(parts: Sequence[Tensor]) -> int:
    return zlib.crc32(b"".join(part.cpu().numpy().tobytes() for part in parts))


def _checksums(value: Tensor) -> list[int]:
    """A checksum for each of `BUCKETS` parts of integers, whatever their width."""
    flat = value.long().flatten().cpu().numpy()
    return [zlib.crc32(flat[place::BUCKETS].tobytes()) for place in range(BUCKETS)]


def sketch(value: Tensor, index: int, seed: int) -> Array:
    """Count sketch (buckets,) of `value` (1, ...), image `index` of the set."""
    from ...suites.measuring.gradients import random_signs

    signed = (value.double() * random_signs(value, [index], seed=seed, stream=STREAM)).flatten()
    flat: Array = signed.cpu().numpy()
    padded = np.concatenate([flat, np.zeros(-len(flat) % BUCKETS)])
    found: Array = padded.reshape(-1, BUCKETS).sum(0)
    return found


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
