"""What the user chooses: `Settings` can change a number, `RunOptions` cannot.

Kernel padding `fit` is fitted on unlabelled images, never on the audited ones. By default they are
built in: dead leaves from a separate random stream. A folder of the user gives a seeded sample of
`FITTED` images, or all if there are fewer; the hash of their bytes is then part of the keys and
settings of the records of `fit` alone. A file with the same bytes as an audited one is an error,
whatever its name: the fit would have used the audit images (data leakage). Only whole files are
compared; keeping different pictures of one scene apart is up to the user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypedDict

from ...adapters.errors import InputError, PerimetryError
from ..records.hashing import FIT_KEY, file_sha256, images_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...adapters.model import Model, Precision
    from ...suites.base import Suite
    from ...suites.images import ImageSet


FIT_DEFAULT = "dead-leaves"


@dataclass(frozen=True)
class Settings:
    """Everything the user chooses that can change a number, except model, fill, suite, protocol.

    `images` is `dead-leaves`, `noise` or a folder; `count` the number of images; `draws` the number
    of bootstrap replicates; `members` the number of weight sets of an `@init` model; `size`
    (height, width); `precision` the float type of the passes; `recalibrate` re-estimates the norms
    of kernel-padded models; `options` are settings of single suites, by suite and field, such as
    `{"erf": {"unit": (0, 0)}}` (see `suites.settings`); `inputs` declares what ONNX files and
    modules leave open about their input and output, such as `{"range": "0..255", "output":
    "scores"}` (see `adapters.onnx.inputs.declaration`); `fit_images` is `dead-leaves` or a folder
    of unlabelled images that kernel padding `fit` is fitted on.

    With a `precision_goal` a model variant gets more than `count` images until the half width of
    the interval of `PRECISION_OF` is at most that, but not more than `most_images`. An `@init`
    model then gets a weight set for each image, unless `members` says otherwise. An interval at
    which one stops because it is narrow covers a little less often than it says.
    """

    images: str = "dead-leaves"
    count: int = 16
    seed: int = 0
    draws: int = 200
    target: str | None = None
    size: tuple[int, int] | None = None
    members: int | None = None
    precision: Precision = "float32"
    recalibrate: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    fit_images: str = FIT_DEFAULT
    precision_goal: float | None = None
    most_images: int = 256

    def __post_init__(self) -> None:
        self._check_goal()
        self._check_size()
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(
                f"the seed is {self.seed}; expected 0 to {LARGEST_SEED}: give another --seed"
            )

    def _check_size(self) -> None:
        """Raise `InputError` for a size that is no pair of whole numbers above 0."""
        given: Any = self.size
        pair = isinstance(given, tuple | list) and len(given) == 2
        whole = pair and all(isinstance(n, Integral) and int(n) > 0 for n in given)
        if given is not None and not whole:
            raise InputError(
                f"size {given!r} was given; expected (height, width), such as (64, 96)"
            )

    def _check_goal(self) -> None:
        """Raise `InputError` for a goal that no number of images reaches."""
        if self.precision_goal is None:
            return
        if not self.precision_goal > 0:
            raise InputError(
                f"the precision goal is {self.precision_goal:g}; expected a half width above 0, "
                "such as 0.05"
            )
        if self.most_images < self.count:
            raise InputError(
                f"at most {self.most_images} images may be taken for the precision goal, but it "
                f"begins with {self.count}: raise --most-images or lower --count"
            )

    @property
    def weight_sets(self) -> int | None:
        """The number of weight sets that an `@init` model is opened with; None for the default."""
        if self.members is None and self.precision_goal is not None:
            return self.most_images
        return self.members

    def open_images(self) -> ImageSet:
        """The images to audit on; with a precision goal all that it may take.

        Raises `InputError` for an empty folder, `UnknownNameError` for an unknown name.
        """
        from ...suites.images import open_images

        if self.precision_goal is None:
            return open_images(self.images, self.count, self.seed)
        return open_images(self.images, self.most_images, self.seed).shuffled()


PRECISION_OF = ("deadpixel", "energy")
"""The suite and protocol whose headline metric, `weakest`, a precision goal is about."""

GOAL_FIELDS = ("precision_goal", "count", "most_images")
"""Fields that are among a record's settings if there is a precision goal."""

LARGEST_SEED = 2**62


class SettingsFields(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments; `tests/test_settings.py` compares the two."""

    images: str
    count: int
    seed: int
    draws: int
    target: str | None
    size: tuple[int, int] | None
    members: int | None
    precision: Precision
    recalibrate: bool
    options: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, Any]
    fit_images: str
    precision_goal: float | None
    most_images: int


@dataclass(frozen=True)
class Toolkit:
    """How models are opened (as by `adapters.load.load`), and the suites by name."""

    load: Callable[..., Model]
    suites: Mapping[str, Suite]


def standard() -> Toolkit:
    """The adapters and suites of this package."""
    from ...adapters.load import load
    from ...suites.registry import SUITES

    return Toolkit(load, SUITES)


BATCH = {"cpu": 8, "cuda": 64}
"""Default batch size by kind of device."""

BENCH_IMAGES = {"cpu": 12, "cuda": 64}
"""Number of images that `perimetry bench` measures, by kind of device."""

LEAST_MEMORY_MIB = 256
"""The smallest limit on a worker's memory that is accepted."""


@dataclass(frozen=True)
class RunOptions:
    """How to run; nothing here changes a number beyond float noise.

    That is largest in small differences: 0.2 % of `perturbation`'s thresholds and comb.

    `device` is `auto`, `cpu`, `cuda` (every GPU) or a comma-separated list; `batch` the batch size
    (None: the default of the device). `workers` is the number of worker processes per device; on
    the CPU they share its cores. `time_limit_s` limits a model variant; `memory_limit_mib` limits a
    worker: on a GPU what torch allocates there (default: no limit; where several share it, equal
    parts of 90 %), on the CPU what it takes beyond its libraries (default: 90 % of the machine). A
    measurement that died or exceeded the time limit is repeated up to `retries` times before its
    record says *failed*; `retry_failed` measures failed records of earlier runs again. `engine` is
    one of `engines.base.ENGINES`; `address` that of the Ray cluster. `isolated` lets `rerun`
    measure in a worker process, so that a model that crashes costs only its records; `progress`
    shows a progress bar on standard error. `toolkit` is called in every worker process, so it must
    be a function of an importable module.
    """

    device: str = "auto"
    batch: int | None = None
    workers: int = 1
    time_limit_s: float | None = None
    memory_limit_mib: float | None = None
    retry_failed: bool = True
    retries: int = 0
    engine: str = "local"
    address: str | None = None
    isolated: bool = False
    progress: bool = False
    toolkit: Callable[[], Toolkit] = standard

    def __post_init__(self) -> None:
        limit = self.memory_limit_mib
        if limit is not None and not limit >= LEAST_MEMORY_MIB:
            raise InputError(
                f"the memory limit is {limit:g} MiB; expected at least {LEAST_MEMORY_MIB} MiB, "
                "without which no model can be opened: raise --memory-limit"
            )

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices. Raises `InputError` as `devices` does."""
        return devices(self.device)

    @property
    def device_kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.devices[0].partition(":")[0]

    def batch_on(self, device: str) -> int:
        """The batch size on `device`."""
        return self.batch or default_batch(device)


def devices(text: str) -> tuple[str, ...]:
    """Read `auto`, `cpu`, `cuda` (every GPU) or a comma-separated list as device names.

    Raises `InputError` for a device that this machine does not have, and for a mixture of kinds,
    whose numbers would not agree bit for bit.
    """
    import torch

    from ...adapters.device import pick_device

    names: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        device = pick_device(word)
        many = device.type == "cuda" and device.index is None
        count = torch.cuda.device_count() if many else 0
        names += [f"cuda:{i}" for i in range(count)] if many else [str(device)]
    if len({name.partition(":")[0] for name in names}) > 1:
        raise InputError(f"devices {text!r} are of different kinds; use one kind per run")
    return tuple(dict.fromkeys(names))


def default_batch(device: str) -> int:
    """Default batch size on `device`: what fits the caches of a CPU, what fills a GPU."""
    return BATCH["cpu" if device == "cpu" else "cuda"]


FITTED = 24

FIT_STREAM = 1_000_003


def open_fit_images(settings: Settings) -> ImageSet:
    """The images that kernel padding `fit` is fitted on. Raises `InputError`."""
    from ...suites.images import BUILT_IN, open_images

    name = settings.fit_images
    seed = settings.seed + (FIT_STREAM if name in BUILT_IN else 0)
    try:
        return open_images(name, FITTED, seed)
    except (PerimetryError, OSError) as error:
        raise InputError(f"images to fit on: {error}") from error


def fit_settings(settings: Settings) -> dict[str, str]:
    """The entry about the images of `fit` in the settings of its records.

    Raises `InputError` when one of them cannot be read, or is audited.
    """
    if settings.fit_images == FIT_DEFAULT:
        return {}
    found = open_fit_images(settings)
    if found.files:
        found.check()  # a broken file must not show after hours of measuring
        _check_unseen(found, settings)
    return {FIT_KEY: images_identity(found)}


def _check_unseen(found: ImageSet, settings: Settings) -> None:
    """Raise `InputError` when a file of `found` is among the audited images."""
    audited = settings.open_images()
    seen = {file_sha256(path) for path in audited.files}
    both = [path.name for path in found.files if file_sha256(path) in seen]
    if both:
        names = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise InputError(
            f"{len(both)} of the {found.count} images to fit on from {settings.fit_images!r} are "
            f"audited too ({names}), which would make the result look better than it is; expected "
            "a folder of other images"
        )
