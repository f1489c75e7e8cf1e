"""The one interface of everything that can be audited, whatever its runtime.

Shapes are named (batch, channels, height, width). `images` are always (batch, 3, height, width)
float32 in [0, 1]; `x` is what `InputSpec.prepare` makes of them: (batch, spec.channels, height,
width), normalised, the tensor gradients are taken with respect to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .feature_grid import Grid
    from .input_spec import InputSpec
    from .padding_mode import PaddingMode
    from .treatment import Fill, Treatment


Precision = Literal["float32", "float64", "bfloat16"]
"""Float type of the passes: float64 where decisions at kinks must not depend on rounding, bfloat16
(gradient passes only, batch norms folded) where speed matters more than the third digit."""


@dataclass(frozen=True)
class Outputs:
    """What one pass gives: `target` (batch, channels, height, width) and `logits` (batch, classes).

    Each is None when it was not asked for or when the model has none.
    """

    target: Tensor | None = None
    logits: Tensor | None = None


class Model(Protocol):
    """Anything that can be audited.

    Capabilities are data: `why_no_gradients` and `why_not_spatial` are None when the
    model can do it, else the
    reason why not, which becomes the text of a skipped record.
    """

    reference: str
    """What the user typed, or a name for a module given in Python."""
    source: Mapping[str, str]
    """Where it came from: runtime, file, sha256 of file and tensors; strings only."""
    spec: InputSpec
    device: torch.device
    target: Grid | None
    why_not_spatial: str | None
    members: int
    """How many independent weight sets stand behind it: 1, or the number of seeds of `@init`."""
    treatment: Treatment | None
    notes: list[str]
    """What the reader of the record must know, such as a guessed input or a fallback."""

    @property
    def original(self) -> Model | None:
        """The untreated twin, when this model is kernel-padded."""

    @property
    def why_no_gradients(self) -> str | None:
        """None, or the reason; a property because some adapters measure it when first asked."""

    def select(self, member: int, x: Tensor) -> None:
        """Load weight set `member`; `x` (images, channels, height, width) calibrates norms.

        Give all images: the model takes as many as it needs.
        """

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`. Differentiable with respect to `x` when it requires a gradient.

        Without `logits` the pass stops at the target.
        """

    def skeleton(self) -> nn.Module:
        """A light copy that maps `x` to the target, for `structure`: shapes count, weights do not.

        On the CPU; convolution and linear weights are on the `meta` device, all other parameters
        are ones. Raises `NotApplicableError`.
        """

    def padded(
        self,
        fill: Fill,
        *,
        seed: int = 0,
        recalibrate: bool = False,
        images: Tensor | None = None,
    ) -> Model:
        """The kernel-padded twin (PROTOCOL 6); `self` is not touched.

        `images` (images, 3, height, width) in [0, 1], without labels, are for `fit` alone, which
        needs them. They should not be those that the twin is then audited on.

        `recalibrate` has the twin's norms give, on the images it is shown, outputs of the mean and
        variance that the original's have, channel by channel.
        """

    def resized(self, height: int, width: int) -> Model:
        """The same weights at another input size; `self` is not touched.

        Weight sets of `@init` models are to be selected anew. Raises `InputError`, naming sizes
        that the model takes, when it refuses this one.
        """

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The last spatial map at each resolution from the input to the target, by layer name.

        One pass over `x` without gradients. Maps are (batch, channels, height, width), in
        execution order, none larger than the one before; the last one is the target. Raises
        `NotApplicableError` without a target.
        """

    def filters(self) -> Mapping[str, Tensor]:
        """Learned kernels (out, in per group, rows, columns) of 2-D convolutions, by layer name.

        Copies, in float32 on the CPU.
        """

    def with_padding_mode(self, border: PaddingMode) -> Model:
        """A twin of the selected weight set whose layers continue their input beyond its border.

        The padding of convolutions (zeros) and of pools is exchanged for `border`; `self` is not
        touched. Layers that keep theirs, and why, are in the twin's `notes`. Raises `InputError`
        for an unknown border, `NotApplicableError` when no layer pads.
        """
