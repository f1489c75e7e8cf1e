"""Forward passes over an image with different batch mates, by which `assumptions` are checked."""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.model import Model, Outputs


class PairedPasses:
    """Passes over batches of two: an image, and a mate that is bright and noisy, or dark."""

    def __init__(self, model: Model, images: Tensor) -> None:
        self.model = model
        x = model.spec.prepare(images)
        model.select(0, x)
        noise = np.random.default_rng(0).random(images[:1].shape, dtype=np.float32)
        bright, dark = (torch.from_numpy(part) for part in (noise, 0.1 * noise))
        one, bright, dark = (model.spec.prepare(i) for i in (images[:1], bright, dark))
        self.inputs = {
            "together": torch.cat([one, bright]).to(model.device),
            "other mate": torch.cat([one, dark]).to(model.device),
            "other place": torch.cat([dark, one]).to(model.device),
            "both dark": torch.cat([dark, dark]).to(model.device),
            "three": torch.cat([one, bright, dark]).to(model.device),
        }
        self.pairs: list[Tensor] = []

    def others(self, images: Tensor) -> list[Outputs]:
        """One pass over each pair of the images but the first."""
        found = []
        for place in range(1, len(images), 2):
            x = self.model.spec.prepare(images[place : place + 2]).to(self.model.device)
            found.append(self._passed(x, logits=True))
            self.pairs.append(x)
        return found

    def run(self, name: str, *, logits: bool = True) -> Outputs:
        """One pass over the batch `name`; without `logits` it stops at the target."""
        return self._passed(self.inputs[name], logits=logits)

    def _passed(self, x: Tensor, *, logits: bool) -> Outputs:
        return self.model.run(x, target=self.model.why_not_spatial is None, logits=logits)

    def rounding(self, pair: str, place: int, name: str) -> float:
        """How far the last bit of the input moves output `name` for the image at `place`."""
        x = self.inputs[pair]
        next_to = torch.nextafter(x, torch.full_like(x, torch.inf))
        plain, moved = (getattr(self._passed(i, logits=True), name)[place] for i in (x, next_to))
        return relative_distance(plain, moved)

    @cached_property
    def random_steps(self) -> list[str]:
        """The steps that draw random numbers; none of a model that cannot be traced."""
        try:
            return self.model.random_steps(self.inputs["together"][:1])
        except Exception:  # two passes are compared all the same
            return []

    @cached_property
    def generators(self) -> list[str]:
        """The generators of random numbers, other than torch's, that a pass draws from."""
        before = _generators()
        self.run("together")
        return [name for name, state in _generators().items() if state != before[name]]

    @cached_property
    def quantised(self) -> bool:
        """Whether a step rounds to few bits; False of a model that cannot be traced."""
        steps: list[str] = []
        try:
            self.model.trace(self.inputs["together"][:1], lambda step, _: steps.append(step))
        except Exception:  # then nothing is tolerated
            return False
        return any("quantize" in step.lower() or "qlinear" in step.lower() for step in steps)

    def sums(self, name: str, place: int = 0) -> list[tuple[str, float]]:
        """A weighted sum of what every step gives for image `place`, with the step's name."""
        found: list[tuple[str, float]] = []

        def read(step: str, output: Tensor) -> None:
            counted = not (output.is_complex() or output.dtype == torch.bool)
            if counted and len(output.shape) and len(output) == 2:
                flat = output[place].detach().double().flatten()
                weights = torch.linspace(1, 2, len(flat), dtype=flat.dtype, device=flat.device)
                found.append((step, float(flat @ weights)))

        self.model.trace(self.inputs[name], read)
        return found


def _generators() -> dict[str, Any]:
    """The states of the global generators of random numbers other than torch's."""
    kind, *state = np.random.get_state()  # noqa: NPY002 - that of networks that use it
    return {
        "a generator of Python's random": random.getstate(),
        "a generator of NumPy": (
            kind,
            *(s.tobytes() if hasattr(s, "tobytes") else s for s in state),
        ),
    }


def finite_outputs(first: Outputs, second: Outputs) -> list[tuple[str, Tensor, Tensor]]:
    """The outputs that both passes have, if they are finite."""
    found = [("target", first.target, second.target), ("logits", first.logits, second.logits)]
    return [
        (name, a, b)
        for name, a, b in found
        if a is not None and b is not None and bool(a.isfinite().all() and b.isfinite().all())
    ]


def relative_distance(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over that of the larger; infinite for tensors of different shapes."""
    if a.shape != b.shape:
        return float("inf")
    longer = max(float(a.double().norm()), float(b.double().norm()))
    return float((a.double() - b.double()).norm()) / longer if longer else 0.0
