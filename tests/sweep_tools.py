"""Models for large sweeps: toys, tiny ONNX files, and what goes wrong, planted by name.

Worker processes import this module by name, which is why it is no part of a test file.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import toys

from perimetry.adapters.load import load as load_real
from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.run_options import RunOptions
from perimetry.bench.execution.settings import Settings
from perimetry.bench.execution.toolkit import Toolkit
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


OPTIONS = RunOptions(device="cpu", toolkit=toolkit)


def jobs_of(references, suites=("structure",), fills=("none",)):
    return AuditPlan(references, suites, fills, SETTINGS, "cpu", SUITES).jobs()
