"""Models for large sweeps: toys, tiny ONNX files and faults, planted by name.

Worker processes import this module by name, so it is not part of a test file. They import the ONNX
adapter with it, as they start: its import does not count towards the time limit of a job.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import toys

import perimetry.adapters.onnx.opening  # noqa: F401
from perimetry.adapters.load import load as load_real
from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.settings import RunOptions, Settings, Toolkit, standard
from perimetry.suites.structure import STRUCTURE, Structure

SETTINGS = Settings(images="noise", count=4)
HOG_BYTES = 1 << 40
LARGE_BYTES = 1 << 30


def load(reference, **settings):
    """ONNX files for real, the rest as toys. `hog` wants more memory than there is, `once` dies the
    first time."""
    if reference.endswith(".onnx"):
        return load_real(reference, **settings)
    if "hog" in reference:
        bytearray(HOG_BYTES)
    if "large" in reference:
        bytearray(LARGE_BYTES)
    if "once" in reference and not Path(os.environ["TOY_ONCE"]).exists():
        Path(os.environ["TOY_ONCE"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if "pause" in reference:
        time.sleep(0.2)
    return toys.load(reference, **settings)


@dataclass(frozen=True)
class Either(Structure):
    """The real suite for real models, the toys' for toys."""

    def measure(self, model, protocol, maps, context):
        if isinstance(model, toys.ToyModel):
            return toys.Exact().measure(model, protocol, maps, context)
        return STRUCTURE.measure(model, protocol, maps, context)


SUITES = {**toys.SUITES, "structure": Either()}


def toolkit() -> Toolkit:
    return Toolkit(load, SUITES)


def standard_toolkit() -> Toolkit:
    """The real toolkit, from this module: a worker imports the ONNX adapter as it starts."""
    return standard()


OPTIONS = RunOptions(device="cpu", toolkit=toolkit)


def jobs_of(references, suites=("structure",), fills=("none",)):
    return AuditPlan(references, suites, fills, SETTINGS, "cpu", SUITES).jobs()
