"""The roofline: operations and bytes of passes, and the measured rates of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


MATRIX = {"cpu": 1536, "cuda": 8192}
"""Side of the matrices whose product is timed."""


COPIED_MIB = {"cpu": 256, "cuda": 2048}
"""Size of the copy that is timed: far beyond any cache."""


REPEATS = 5


@dataclass(frozen=True)
class WorkCount:
    """Floating-point operations, and bytes read and written."""

    operations: float
    bytes: float

    def times(self, factor: float) -> WorkCount:
        """The work of `factor` such jobs."""
        return WorkCount(self.operations * factor, self.bytes * factor)


@dataclass(frozen=True)
class DeviceRates:
    """Measured rates of a device, per second: operations of a float32 matmul, bytes of a copy."""

    operations: float
    bytes: float

    def roofline_s(self, work: WorkCount) -> float:
        """Seconds that `work` takes at least at these rates."""
        return max(work.operations / self.operations, work.bytes / self.bytes)

    def bound(self, work: WorkCount) -> str:
        """Name the rate that sets this bound: `operations` or `memory`."""
        busy = work.operations / self.operations > work.bytes / self.bytes
        return "operations" if busy else "memory"


def measured_rates(device: str) -> DeviceRates:
    """Measure the rates of `device`; the best of `REPEATS` counts."""
    import torch

    kind = device.partition(":")[0]
    side, size = MATRIX[kind], COPIED_MIB[kind] * 2**18
    a, b = torch.ones(side, side, device=device), torch.ones(side, side, device=device)
    source, target = torch.ones(size, device=device), torch.zeros(size, device=device)
    out = torch.empty(side, side, device=device)
    product = _best(lambda: torch.mm(a, b, out=out), device)
    copy = _best(lambda: target.copy_(source), device)
    return DeviceRates(2 * side**3 / product, 2 * source.nbytes / copy)


def _best(job: Callable[[], object], device: str) -> float:
    """Return the shortest seconds of `REPEATS` calls, after a warm-up."""
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    times = []
    for _ in range(REPEATS + 1):
        wait()
        begun = time.perf_counter()
        job()
        wait()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def count_work(job: Callable[[], object]) -> WorkCount:
    """Count the operations and bytes of one call of `job`.

    Operations are those of `torch.utils.flop_counter`: convolutions, matrix products, attention.
    """
    from torch.utils.flop_counter import FlopCounterMode

    traffic = _traffic()
    counter = FlopCounterMode(display=False)
    with counter, traffic:
        job()
    return WorkCount(float(counter.get_total_flops()), float(traffic.bytes))


def _traffic() -> Any:
    """Return a mode that adds up the bytes every operation reads and writes; views move none."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Traffic(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.bytes = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            del types
            out = func(*args, **(kwargs or {}))
            if not func.is_view:
                moved = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
                self.bytes += sum(t.numel() * t.element_size() for t in moved)
            return out

    return Traffic()
