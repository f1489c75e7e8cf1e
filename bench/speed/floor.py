"""The physical floor: operations and bytes of passes, and the rates of this machine."""

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
class Work:
    """Floating-point operations, and bytes read and written."""

    operations: float
    bytes: float

    def times(self, factor: float) -> Work:
        """So many times the work."""
        return Work(self.operations * factor, self.bytes * factor)


@dataclass(frozen=True)
class Rates:
    """What a device does in a second, measured: operations of a float32 matmul, bytes of a copy."""

    operations: float
    bytes: float

    def floor_s(self, work: Work) -> float:
        """Seconds below which `work` cannot be done here."""
        return max(work.operations / self.operations, work.bytes / self.bytes)

    def bound(self, work: Work) -> str:
        """Which of the two rates sets that floor."""
        busy = work.operations / self.operations > work.bytes / self.bytes
        return "operations" if busy else "memory"


def rates(device: str) -> Rates:
    """Measure the rates of `device`: the best of a few."""
    import torch

    kind = device.partition(":")[0]
    side, size = MATRIX[kind], COPIED_MIB[kind] * 2**18
    a, b = torch.ones(side, side, device=device), torch.ones(side, side, device=device)
    source, target = torch.ones(size, device=device), torch.zeros(size, device=device)
    out = torch.empty(side, side, device=device)
    product = _best(lambda: torch.mm(a, b, out=out), device)
    copy = _best(lambda: target.copy_(source), device)
    return Rates(2 * side**3 / product, 2 * source.nbytes / copy)


def _best(job: Callable[[], object], device: str) -> float:
    """Shortest seconds of a few calls, after a warm-up."""
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


def work_of(job: Callable[[], object]) -> Work:
    """Count the operations and bytes of one call of `job`.

    Operations are those of `torch.utils.flop_counter`: convolutions, matrix products, attention.
    """
    from torch.utils.flop_counter import FlopCounterMode

    traffic = _traffic()
    counter = FlopCounterMode(display=False)
    with counter, traffic:
        job()
    return Work(float(counter.get_total_flops()), float(traffic.bytes))


def _traffic() -> Any:
    """A mode that adds up what every operation reads and writes; views move nothing."""
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
