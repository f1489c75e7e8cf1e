"""Which device a model runs on, and with what arithmetic a GPU computes there."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import torch

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Failed to allocate memory for requested buffer",  # onnxruntime
    "unable to find an engine to execute this computation",  # cuDNN, without room for a workspace
)
"""Parts of error texts that mean a GPU's memory ran out, where the class does not say so."""


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` is the accelerator if there is one, else the CPU.

    A GPU is only looked up: the memory of a CUDA context is not taken before there is work for it.
    Raises `InputError` when this machine does not have the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda":
            _find_gpu(device)
        else:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({error}); expected 'cpu', 'cuda' or 'auto'"
        ) from error
    return device


def _find_gpu(device: torch.device) -> None:
    """Raise `RuntimeError` unless CUDA sees `device`."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise RuntimeError(f"CUDA finds {count} devices")


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


@contextlib.contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Compute in float32 and repeatably on a GPU; torch's settings come back at the end.

    By default torch lets convolutions round their factors to TF32 (10 bits) and choose kernels that
    add in any order. Here float32 stays float32, and kernels are deterministic where torch has one
    that is. Both cover passes forward and back that are made in this context. A CPU is not touched.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    with (
        warnings.catch_warnings(),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        # An operation without a deterministic kernel runs all the same; cuBLAS repeats itself on
        # one stream even without the workspace that torch asks for.
        warnings.filterwarnings("ignore", message=".*deterministic")
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            memory.fill_uninitialized_memory = filled
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether `error` or its cause says that a GPU's memory ran out: a smaller batch may pass."""
    if isinstance(error, torch.OutOfMemoryError) or any(t in str(error) for t in OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and ran_out_of_memory(error.__cause__)


def is_usable(device: torch.device | str) -> bool:
    """Whether `device` still answers.

    After a fault in a kernel CUDA refuses everything else in the same process.
    """
    place = torch.device(device)
    if place.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(place)
    except RuntimeError:
        return False
    return True


def free_unused(device: torch.device | str) -> None:
    """Give memory of a GPU that no tensor uses any more back to it; a CPU is not touched."""
    if torch.device(device).type == "cuda":
        import gc

        gc.collect()  # errors and their tracebacks are cycles that can keep tensors
        torch.cuda.empty_cache()
