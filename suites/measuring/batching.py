"""Batches whose size is halved when memory runs out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch

from ...adapters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


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
            try:
                results.append(function(chunk))
            except torch.OutOfMemoryError:
                if chunk.stop - chunk.start == 1:
                    raise
                self._halve(chunk.stop - chunk.start)
            else:
                done = chunk.stop
        return results

    def _halve(self, size: int) -> None:
        self.size = size // 2
        self.notes.append(f"out of memory: batch lowered to {self.size}")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
