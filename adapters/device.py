"""Which device a model runs on."""

from __future__ import annotations

import torch

from .errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` is the accelerator if there is one, else the CPU.

    Raises `InputError` when this machine does not have the device.
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
    """Copy `x` to `device` without waiting for the work that the device has not finished.

    A copy to a GPU goes through pinned memory. Call `arrived` before reading a copy from one.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def arrived(device: torch.device) -> None:
    """Wait until all copies to and from `device` are complete."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
