"""How to run: devices, batch size, workers and limits; nothing here changes a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapters.errors import InputError
from .toolkit import Toolkit, standard

if TYPE_CHECKING:
    from collections.abc import Callable

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
