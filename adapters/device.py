"""Which device a model runs on."""

from __future__ import annotations

import torch

from .errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes the accelerator when there is one.

    Raises `InputError` when the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({error}); take 'cpu', 'cuda' or 'auto'"
        ) from error
    return device


def send(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`x` on `device`, without waiting for what the device is still doing.

    To a GPU it goes by pinned memory. What comes back from one may be read after `arrived`.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def arrived(device: torch.device) -> None:
    """Wait until everything that was sent to and from `device` is there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
