"""Batches whose size is halved when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from ...adapters.device import free_unused, ran_out_of_memory
from ...adapters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor

    from ...adapters.model import Model

T = TypeVar("T")


def weight_sets(model: Model, x: Tensor, count: int | None = None) -> Iterator[range]:
    """Select one weight set after the other; give the indices of its own among `count` images.

    Set k of K gets the images k, k + K, k + 2 K, ... `x` (images, channels, height, width) has all
    images, which calibrate norms; by default they are the `count` too.
    """
    count = len(x) if count is None else count
    members = min(model.members, count)
    for member in range(members):
        model.select(member, x)
        yield range(member, count, members)


@dataclass
class Batching:
    """Runs a function over consecutive slices of at most `size` inputs.

    Raises `InputError` for a size below 1. `notes` report each time the size is halved.
    """

    size: int
    device: torch.device
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"batch {self.size} was given; expected at least 1")

    def run(self, count: int, function: Callable[[slice], T]) -> list[T]:
        """The results of `function` for consecutive slices of `count` inputs."""
        results: list[T] = []
        done = 0
        while done < count:
            chunk = slice(done, min(count, done + self.size))
            if self._attempt(chunk, function, results):
                done = chunk.stop
            else:
                self._halve(chunk.stop - chunk.start)
        return results

    @staticmethod
    def _attempt(chunk: slice, function: Callable[[slice], T], results: list[T]) -> bool:
        """Append the result for `chunk`; False where a smaller one may fit into memory.

        The error ends here, and with it its traceback, which would keep the tensors of the attempt.
        """
        try:
            results.append(function(chunk))
        except Exception as error:
            if chunk.stop - chunk.start == 1 or not ran_out_of_memory(error):
                raise
            return False
        return True

    def _halve(self, size: int) -> None:
        self.size = size // 2
        self.notes.append(f"out of memory: batch lowered to {self.size}")
        free_unused(self.device)
