"""Acceptance on a GPU: what its tests share, and when they are skipped.

They compare a device with the CPU. The environment names it: PERIMETRY_GPU_DEVICE is `cuda` by
default, and `cpu` in the rehearsal, in which the comparison is with the CPU itself. With
PERIMETRY_GPU_RESULTS, a file, every outcome is appended to it as a line of JSON as soon as it is
known, so that a run that is cut off leaves what it has found.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
DEVICE = os.environ.get("PERIMETRY_GPU_DEVICE", "cuda")
RESULTS = os.environ.get("PERIMETRY_GPU_RESULTS")


def why_skipped(item: pytest.Item) -> str | None:
    """The reason why a test cannot run on this machine, or in the rehearsal."""
    if DEVICE == "cpu":
        needs = item.get_closest_marker("needs_cuda")
        return f"the rehearsal has no CUDA: {needs.args[0]}" if needs else None
    if not torch.cuda.is_available():
        return "CUDA is missing: torch finds no GPU"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip those that cannot run."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            reason = why_skipped(item)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append the outcome of a test to the file of results."""
    decided = report.when == "call" or report.outcome != "passed"
    if RESULTS is None or not decided or FOLDER.name not in report.nodeid:
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    line = {
        "test": report.nodeid.rpartition("/")[2],
        "outcome": report.outcome,
        "seconds": round(report.duration, 3),
        "reason": reason[-2000:],
    }
    with Path(RESULTS).open("a") as stream:
        stream.write(json.dumps(line) + "\n")


@pytest.fixture(scope="session")
def device() -> str:
    """Name of the device that is compared with the CPU."""
    return DEVICE


@pytest.fixture
def capped(device):
    """Function (MiB) that limits what torch may take beyond what it has now; undone at the end."""

    def cap(mib: float) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        share = (torch.cuda.memory_reserved(device) + mib * 2**20) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)

    torch.cuda.init()
    yield cap
    torch.cuda.set_per_process_memory_fraction(1.0, device)
