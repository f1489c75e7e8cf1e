"""The environment of a measurement: versions, commit, device, precision, threads."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch


STACK = ("torch", "timm", "onnxruntime-gpu", "onnxruntime", "numpy", "scipy")
"""Libraries whose version can change a number; they are part of a record's key."""

LIBRARIES = ("perimetry", *STACK, "onnx")


class Git(BaseModel):
    """The commit of the checkout the package runs from; `dirty` when files differ from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    commit: str
    dirty: bool


class Environment(BaseModel):
    """The machine and the libraries behind one record."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    python: str
    platform: str
    libraries: dict[str, str]
    git: Git | None = None
    device: str
    device_name: str
    driver: str | None = None
    precision: dict[str, str]
    threads: dict[str, str]

    @property
    def stamp(self) -> str:
        """The commit in short, and whether there were changes; '' outside a checkout."""
        if self.git is None:
            return ""
        return self.git.commit[:12] + (" with changes" if self.git.dirty else "")


def versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Installed versions by distribution name; what is not installed is left out."""
    found = {name: _version(name) for name in names}
    return {name: version for name, version in found.items() if version is not None}


@cache
def _version(name: str) -> str | None:
    """One distribution's version; finding it takes milliseconds, and a sweep asks for thousands."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment(device: torch.device | None = None) -> Environment:
    """Describe this process; `device` is where the model runs, None where that was never known.

    The precision is the one in force at the time of the call (`adapters.device.full_precision`).
    """
    import torch

    found = _machine(device or torch.device("cpu"))
    precision = {
        "float32_matmul": torch.get_float32_matmul_precision(),
        "cudnn_tf32": str(torch.backends.cudnn.allow_tf32),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }
    threads = {
        "torch": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
    }
    return found.model_copy(update={"precision": precision, "threads": threads})


@cache
def _machine(device: torch.device) -> Environment:
    """What stays the same in a process; finding it takes longer than a small measurement."""
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        libraries=versions(),
        git=checkout(Path(__file__).resolve().parents[2]),
        device=device.type,
        device_name=_device_name(device),
        driver=_driver(device),
        precision={},
        threads={},
    )


def checkout(root: Path) -> Git | None:
    """The git state of `root` if that is the top of a checkout, else None.

    A package installed into a virtual environment inside another repository is not a checkout of
    that repository.
    """
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return None if commit is None or status is None else Git(commit=commit, dirty=bool(status))


def _git(root: Path, *arguments: str) -> str | None:
    """What git says, or None where there is no git or no commit."""
    git = shutil.which("git")
    if git is None:
        return None
    # `git status` would otherwise rewrite the index of the checkout.
    done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
        [git, "--no-optional-locks", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _device_name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor()) or platform.machine()


def _driver(device: torch.device) -> str | None:
    """The accelerator driver and runtime, where there is one."""
    import torch

    if device.type != "cuda":
        return None
    path = Path("/proc/driver/nvidia/version")
    text = path.read_text(errors="replace").splitlines()[0] if path.exists() else "unknown driver"
    return f"{text}; CUDA {torch.version.cuda}"


def reset_peaks(device: str) -> None:
    """Start new peaks of memory: this process's, where the system can (Linux), and the device's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        import torch

        torch.cuda.init()  # torch has no statistics of a device before
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_memory_mib(device: str) -> float | None:
    """Peak of what torch allocated on `device` in MiB since the last reset; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20


def peak_memory_mib() -> float | None:
    """Peak resident set of this process in MiB since the last reset; None where unknown."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None
