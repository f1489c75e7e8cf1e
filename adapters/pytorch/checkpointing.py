"""Gradient checkpointing is left out of a pass: the function is called, and keeps what it computes.

`torch.utils.checkpoint` computes parts of a network a second time in the backward pass. Its
reentrant kind runs them under `no_grad`, where neither targets nor gradients by the input can be
taken; in the other kind the second computation is not seen by `structure`. The numbers are the
same without it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch.utils.checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Called:
    """In place of `CheckpointFunction`: its `apply` calls the function."""

    @staticmethod
    def apply(function: Callable[..., Any], _preserve: bool, *args: Any) -> Any:
        """Return `function(*args)`."""
        return function(*args)


def _nothing_before_or_after(*_: Any, **__: Any) -> Iterator[None]:
    """In place of what is done before and after the forward pass of the other kind."""
    yield


_PARTS = {
    "CheckpointFunction": _Called,
    "_checkpoint_without_reentrant_generator": _nothing_before_or_after,
    "_checkpoint_without_reentrant_generator_impl": _nothing_before_or_after,
}
"""What torch's `checkpoint` looks up when it is called, by name; not all versions have all."""


@contextlib.contextmanager
def without_checkpointing() -> Iterator[None]:
    """Within it, `torch.utils.checkpoint.checkpoint` calls its function and does nothing else."""
    place = vars(torch.utils.checkpoint)
    before = {name: place[name] for name in _PARTS if name in place}
    place.update({name: _PARTS[name] for name in before})
    try:
        yield
    finally:
        place.update(before)
