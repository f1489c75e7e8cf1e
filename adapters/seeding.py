"""Seeded initial weights.

Initialisers of torch and timm draw from torch's global generator, which all threads share.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Within it, what is drawn from torch's global generator of the CPU depends on `seed` alone.

    One thread at a time may be within; the state of the generator is restored afterwards.
    """
    with _ONE_AT_A_TIME:
        before = torch.default_generator.get_state()
        # `torch.manual_seed` would also seed every GPU, whose state is not restored
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)
