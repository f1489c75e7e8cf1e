"""Records of the maps that OpenERF publishes: `perimetry import openerf FOLDER`.

OpenERF (Kim et al. 2023; github.com/kmbmjn/OpenERF, MIT) publishes effective receptive fields of
pretrained timm models as `OpenERF_NAME.npy`, some with `OpenERF_NAME_metrics.json` beside them or
in another folder. A map is a mean over images, so its metrics are values without intervals; those
that need samples, or the geometric centre of the measured unit, are missing with the reason.
"""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import IMPORTED, InputError
from ...suites.erf.metrics import gaussian_metrics, moment_metrics, size_metrics
from ...suites.erf.protocols import PROTOCOLS
from ...suites.measuring.bootstrap import bootstrap
from ..output.files import StoreError, read_bounded
from .arrays import load_array
from .environment import environment
from .hashing import digest
from .parts import ImagesInfo, ModelInfo, Value
from .record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ...suites.base import Array, Estimate

PREFIX = "OpenERF_"

PROTOCOL = "kim2023"

IMAGES = ImagesInfo(name="OpenERF's subset of ImageNet's validation set", count=1000)

MOST_BYTES = 2**26
"""Bytes of one map's file."""

LEFT_OUT = "removed_by_request"
"""The folder of maps that OpenERF has withdrawn: they are never read."""

ORIGIN = (
    f"{IMPORTED}the map is OpenERF's, a mean over its images; it was not measured here; "
    "`perimetry verify --imported FOLDER` reads it again"
)


def openerf_records(folder: Path) -> Iterator[Record | StoreError]:
    """A record for each map below `folder`, or the error that its file is damaged.

    Raises `InputError` when there is none.
    """
    paths = sorted(p for p in folder.rglob(f"{PREFIX}*.npy") if LEFT_OUT not in p.parts)
    if not paths:
        raise InputError(
            f"{str(folder)!r} has no file {PREFIX}NAME.npy; expected a folder of OpenERF's maps, "
            "such as results_npy of a checkout"
        )
    for path in paths:
        try:
            yield _record(path)
        except StoreError as error:
            yield error


def _record(path: Path) -> Record:
    """The record of one map, of a model `ARCHITECTURE.TAG` of timm. Raises `StoreError`."""
    from ...adapters.names import family_of

    data = read_bounded(path, MOST_BYTES)
    mean = _map(data, path)
    name = path.stem.removeprefix(PREFIX)
    settings: dict[str, Any] = {"imported_from": "OpenERF"}
    source = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()}
    made = Record(
        key=digest([settings, source, PROTOCOL, name]),
        status="ok",
        model=ModelInfo(
            reference=f"timm:{name}",
            family=family_of(f"timm:{name}"),
            source=source,
            spec={"channels": 3, "height": mean.shape[0], "width": mean.shape[1]},
        ),
        fill="none",
        suite="erf",
        protocol=PROTOCOL,
        version=PROTOCOLS[PROTOCOL].version,
        settings=settings,
        seed=0,
        images=IMAGES,
        metrics={metric: Value.of(found) for metric, found in _metrics(mean).items()},
        map_names=["erf"],
        notes=[ORIGIN],
        environment=environment(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return made.attach(({"erf": mean}, {}))


def _map(data: bytes, path: Path) -> Array:
    """The map (height, width) in the bytes of an `.npy` file, scaled to sum 1."""
    try:
        found = load_array(io.BytesIO(data), MOST_BYTES)
    except (ValueError, EOFError) as error:
        raise StoreError(f"{path} is not an array of numbers: {error}; fetch it again") from error
    sound = found.ndim == 2 and min(found.shape) > 1 and np.isfinite(found).all()
    if not sound or found.min() < 0 or found.sum() <= 0:
        raise StoreError(
            f"{path} has shape {found.shape}; expected a map (height, width) of finite numbers "
            "from 0, not all 0: fetch it again"
        )
    mean: Array = found.astype(np.float64) / found.sum(dtype=np.float64)
    return mean


def _metrics(mean: Array) -> dict[str, Estimate]:
    """The metrics of `erf`, read off a map alone."""
    samples, alone = mean[None], bootstrap(1, 0, 0)
    found = gaussian_metrics(samples, alone) | moment_metrics(samples, alone, None)
    return found | size_metrics(samples, alone, None)
