"""Models and suites that do what a test wants: crash, hang, refuse, or give planted numbers.

Worker processes import this module by name, which is why it is no part of a test file.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from perimetry.adapters.errors import NotApplicableError, UnknownNameError
from perimetry.adapters.every_output import EveryOutput
from perimetry.adapters.feature_grid import Grid
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.model import Outputs
from perimetry.adapters.treatment import PaddedLayer, Treatment
from perimetry.bench.execution.settings import Toolkit
from perimetry.suites.base import Context, Estimate, Measurement, Metric, Probe, Suite, missing


@dataclass
class ToyModel:
    """A linear model: 4 x 4 units, each the sum over its patch times `gain`."""

    reference: str
    gain: float = 1.0
    fill: str = "none"
    side: int = 16
    source: dict[str, str] = field(default_factory=lambda: {"runtime": "toy"})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    why_no_gradients: str | None = None
    why_not_spatial: str | None = None
    members: int = 1
    original: Any = None
    treatment: Treatment | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def spec(self):
        return InputSpec(self.side, self.side)

    @property
    def target(self):
        return Grid("toy", "NCHW", 3, 4, 4)

    def select(self, member, x):
        return None

    def run(self, x, *, target=True, logits=False):
        units = torch.nn.functional.avg_pool2d(x, self.side // 4) * self.gain
        return Outputs(units, units.flatten(1) if logits else None)

    def every_output(self, x):
        return EveryOutput({"output": self.run(x).target})

    def skeleton(self):
        raise NotApplicableError("a toy has no skeleton")

    def padded(self, fill, options=None):
        if "even" in self.reference:
            raise NotApplicableError("no strided layer with an odd kernel")
        layer = PaddedLayer("pool", "pool", (4, 4), (3, 3), (4, 4))
        variant = ToyModel(self.reference, self.gain / 2, fill, treatment=Treatment(fill, (layer,)))
        variant.original = self
        return variant


def load(reference, **_settings):
    """`toy:NAME`: what the name contains says what happens; `once-PATH` crashes the first time."""
    if "unknown" in reference:
        raise UnknownNameError(f"unknown model {reference!r}; did you mean toy:even?")
    if "refuse" in reference:
        raise NotApplicableError("a toy that refuses")
    if "segfault" in reference:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in reference:
        time.sleep(3600)
    if "noise" in reference:
        os.write(1, b"last words")
        os._exit(3)
    return ToyModel(reference, gain=float(len(reference)))


def _no_space(_descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True)
class Exact(Suite):
    """A suite that looks at no images and says what the name of the model plants in it."""

    name: ClassVar[str] = "structure"
    protocols: ClassVar[dict[str, str]] = {"expected": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("weakest", "w", "ratio", "higher", even=1.0),)
    headline: ClassVar[str] = "weakest"
    random: ClassVar[bool] = False

    def skip(self, model, protocol):
        return None

    def probes(self, model, protocol, seed):
        return ()

    def measure(self, model, protocol, maps, context):
        assert len(context.images) == 0
        return Measurement({"weakest": Estimate(0.5 if model.fill == "none" else 1.0)})


@dataclass(frozen=True)
class Gradient(Suite):
    """A suite of two protocols on the shared gradient; it breaks where the model's name says so."""

    name: ClassVar[str] = "deadpixel"
    protocols: ClassVar[dict[str, str]] = {"energy": "1", "kim2023": "2"}
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("weakest", "w", "ratio", "higher", even=1.0),
        Metric("by_period_2", "p", "variance", "lower"),
    )
    headline: ClassVar[str] = "weakest"
    random: ClassVar[bool] = True

    def skip(self, model, protocol):
        return "a toy without logits" if "headless" in model.reference else None

    def probes(self, model, protocol, seed):
        return (Probe("sum", lambda out, _: out.target.sum(), lambda g: g.square().sum(1)),)

    def measure(self, model, protocol, maps, context: Context):
        name = model.reference
        if "measure-kill" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "measure-error" in name:
            raise RuntimeError("planted error")
        if "slow" in name:
            time.sleep(0.3)
        stop = Path(os.environ.get("TOY_STOP", "nowhere"))
        while name.endswith("slow-3") and stop.exists():
            time.sleep(0.05)
        if "full-disk" in name:
            os.fsync = _no_space
        log = os.environ.get("TOY_LOG")
        if log:
            with Path(log).open("a") as stream:
                stream.write(f"{name} {model.fill} {protocol}\n")
        value = float(maps["sum"].mean())
        draws = np.random.default_rng(context.seed).normal(value, value / 100, context.draws)
        return Measurement(
            {
                "weakest": Estimate(value, value * 0.9, value * 1.1, draws=draws),
                "by_period_2": missing("the period is not a multiple of 2"),
            },
            {"sensitivity": maps["sum"].mean(0)},
            {"culprits": [{"layer": "stem", "share": np.float32(0.5), "worst": float("inf")}]},
            ["a note"],
        )


@dataclass(frozen=True)
class Faithful(Exact):
    """Stands for `fidelity`."""

    name: ClassVar[str] = "fidelity"
    protocols: ClassVar[dict[str, str]] = {"forward": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("top1_agreement", "t", "share", "higher"),)
    random: ClassVar[bool] = True

    def measure(self, model, protocol, maps, context):
        return Measurement({"top1_agreement": Estimate(1.0)})


SUITES = {"structure": Exact(), "deadpixel": Gradient(), "fidelity": Faithful()}


def toolkit() -> Toolkit:
    return Toolkit(load, SUITES)
