"""Kernel padding of a torch model: traced once, then applied to every weight set, or fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ...errors import InputError, NotApplicableError
from .rewrite import pad_module, pad_traced
from .trace import trace_uneven

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from ...treatment import Fill, Treatment
    from .trace import PaddingTrace


@dataclass(frozen=True)
class ModelPadding:
    """The kernel padding of a body without weights, which every weight set gets as well.

    `images` (images, 3, height, width) are those of the fill `fit`, None for other fills.
    """

    treatment: Treatment
    trace: PaddingTrace
    seed: int = 0
    images: Tensor | None = None

    def grow(self, module: nn.Module, member: int) -> None:
        """Pad `module`, the real weight set number `member`, in place."""
        pad_traced(module, self.trace, _at_first(self.treatment.fill), self.seed + member)

    def fit(
        self, module: nn.Module, run: Callable[[Tensor], Tensor], device: torch.device
    ) -> list[str]:
        """Optimise the grown taps of `module` for the fill `fit`; return notes on the layers.

        `run` maps images (images, 3, height, width) on `device` to the target. Other fills do
        nothing.
        """
        if self.images is None:
            return []
        from .fit import Fit

        grown = [layer.name for layer in self.treatment.layers]
        with torch.enable_grad():  # a pass without gradients may be the first to need the weights
            moved = Fit(module, grown, run, self.images.to(device), seed=self.seed).solve()
        kept = [name for name in grown if name not in moved]
        notes = [f"fitted on {len(self.images)} unlabelled images: {', '.join(moved) or 'none'}"]
        if kept:
            notes.append(f"new taps left at 0, the same function: {', '.join(kept)}")
        return notes


def pad_body(
    body: nn.Module, fill: Fill, x: Tensor, *, seed: int = 0, images: Tensor | None = None
) -> ModelPadding:
    """Pad `body`, which needs no weights, in place; `x` is an example of its input."""
    trace = trace_uneven(body, x)
    treatment = pad_module(body, _at_first(fill), x, seed=seed, trace=trace)
    return ModelPadding(replace(treatment, fill=fill), trace, seed, images)


def _at_first(fill: Fill) -> Fill:
    """Return the fill of the new taps before they are fitted."""
    return "zero" if fill == "fit" else fill


def check_fit_images(
    images: Tensor | None, *, trained: bool, why_not_spatial: str | None
) -> Tensor:
    """Return the images for `fit` if the model can be fitted.

    `why_not_spatial` is the reason why the model has no target. Raises `InputError` without images,
    `NotApplicableError` for models that cannot be fitted.
    """
    if images is None:
        raise InputError(
            "kernel padding 'fit' was given no images; expected images=..., (images, 3, "
            "height, width) in [0, 1], without labels, other than those that are audited"
        )
    if not trained:
        raise NotApplicableError(
            "kernel padding 'fit' needs trained weights; @init models have none: use box or fresh"
        )
    if why_not_spatial is not None:
        raise NotApplicableError(why_not_spatial)
    return images
