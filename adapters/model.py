"""The interface that every audited model has, whatever its runtime.

Shapes are named (batch, channels, height, width). `images` are always (batch, 3, height, width)
float32 in [0, 1]; `x` is what `InputSpec.prepare` makes of them: (batch, spec.channels, height,
width), normalised, the tensor gradients are taken with respect to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch

from .treatment import PADDING_DEFAULTS, PaddingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from .blocks import Blocks
    from .every_output import EveryOutput
    from .feature_grid import Grid
    from .input_spec import InputSpec
    from .padding_mode import PaddingMode
    from .treatment import Fill, Treatment


Precision = Literal["float32", "float64", "bfloat16"]
"""Float type of the passes: float64 where the side of a kink must not depend on rounding, bfloat16
(gradient passes only, batch norms folded) where speed matters more than the third digit."""


@dataclass(frozen=True)
class Outputs:
    """The result of one pass.

    `target` is (batch, channels, height, width), `logits` (batch, classes); each is None when it
    was not requested or when the model has none.
    """

    target: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class NodeOutput:
    """What one node of a pass gives: the operator, or the kind of layer, and the tensor."""

    operator: str
    value: Tensor


class Model(Protocol):
    """Anything that can be audited.

    Capabilities are data: `why_no_gradients` and `why_not_spatial` are None when the model has
    gradients and a spatial target, else the reason why not, which a skipped record states.
    """

    reference: str
    """The reference that the user typed, or the name of a module given in Python."""
    source: Mapping[str, str]
    """Origin of the model: runtime, file, sha256 of file and tensors; strings only."""
    spec: InputSpec
    device: torch.device
    target: Grid | None
    why_not_spatial: str | None
    members: int
    """Number of independent weight sets: 1, or the number of seeds of an `@init` model."""
    treatment: Treatment | None
    notes: list[str]
    """Remarks for the reader of a record, such as a guessed input or a fallback."""

    @property
    def original(self) -> Model | None:
        """The model before kernel padding; None if this model is not kernel-padded."""

    @property
    def why_no_gradients(self) -> str | None:
        """None, or the reason; a property because some adapters measure it on first access."""

    def select(self, member: int, x: Tensor) -> None:
        """Load weight set `member`; `x` (images, channels, height, width) calibrates norms.

        Pass all images: the model uses as many as it needs.
        """

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`. Differentiable with respect to `x` when it requires a gradient.

        Without `logits` the pass stops at the target.
        """

    def skeleton(self) -> nn.Module:
        """Return a copy without weights that maps `x` to the target, for the suite `structure`.

        On the CPU; convolution and linear weights are on the `meta` device, all other parameters
        are ones. Raises `NotApplicableError`.
        """

    def padded(self, fill: Fill, options: PaddingOptions = PADDING_DEFAULTS) -> Model:
        """A kernel-padded copy of the model; `self` is not changed.

        Raises `InputError` for a fill or options that do not fit the model, `NotApplicableError`
        when it cannot be padded.
        """

    def resized(self, height: int, width: int) -> Model:
        """A copy with the same weights at another input size; `self` is not changed.

        Call `select` again for a copy of an `@init` model. Raises `InputError`, which names sizes
        that the model accepts, when it refuses this one.
        """

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The last spatial map at each resolution from the input to the target, by layer name.

        One pass over `x` without gradients. Maps are (batch, channels, height, width), in
        execution order, none larger than the one before; the last one is the target. Raises
        `NotApplicableError` without a target.
        """

    def every_output(self, x: Tensor) -> EveryOutput:
        """All outputs of one pass over the image `x` (1, channels, height, width), by name.

        Decoders, masks, boxes and further heads included, without gradients. A file with a fixed
        batch size gets the image as many times. What cannot be read has a reason instead.
        """

    def filters(self) -> Mapping[str, Tensor]:
        """Learned kernels (out, in per group, rows, columns) of 2-D convolutions, by layer name.

        Copies, in float32 on the CPU.
        """

    def with_padding_mode(self, mode: PaddingMode) -> Model:
        """A copy of the selected weight set whose layers pad by `mode` instead of zeros.

        This applies to convolutions and pools; `self` is not changed. The `notes` of the copy say
        which layers keep their padding and why. Raises `InputError` for an unknown mode,
        `NotApplicableError` when no layer pads.
        """

    def trace(self, x: Tensor, read: Callable[[str, Tensor], None]) -> None:
        """Call `read(step, output)` for every step of one pass over `x`, in execution order.

        A step is an operator; its name says which layer or node it belongs to.
        """

    def random_steps(self, x: Tensor) -> list[str]:
        """The steps of a pass over `x` that draw random numbers, by name."""


@runtime_checkable
class ModelOfTokens(Protocol):
    """A model whose stored tensors can be read, such as a position embedding."""

    def stored(self, shapes: Collection[tuple[int, ...]]) -> dict[str, Tensor]:
        """The stored tensors of one of `shapes`, by name: copies, in float32 on the CPU."""


@runtime_checkable
class ModelOfScales(Protocol):
    """A model that can be measured at maps on its way, as `--target all-scales` does."""

    def scales(self) -> list[Grid]:
        """The last map of every resolution on the way to the output, the finest first.

        See `target_rule.Way.scales`.
        """

    def blocks(self) -> Blocks:
        """The maps behind the blocks on the way to the target; see the module `blocks`.

        Raises `NotApplicableError` without a target.
        """

    def output_map(self) -> Grid | None:
        """The output that is a map with the most units; see `target_rule.Way.output_map`."""

    def run_each(self, x: Tensor, grids: Sequence[Grid], *, logits: bool = False) -> list[Outputs]:
        """One pass over `x` (batch, channels, height, width), for several targets.

        For each of `grids` what a model with that target gives, with gradients if `x` requires
        them.
        """

    def at(self, grid: Grid) -> Model:
        """The same model, weights included, with the target `grid`; `self` is not changed."""


@runtime_checkable
class ModelOfNodes(Protocol):
    """A model whose pass can be followed node by node."""

    def nodes(self, x: Tensor) -> dict[str, NodeOutput]:
        """Every tensor of floats of one pass over the image `x` (1, ...), in execution order."""

    def fed(self, x: Tensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of the nodes in `values`, if all that reads one of them reads its value.

        So every node works on given inputs, and what it gives is its own.
        """


@runtime_checkable
class QuantisableModel(ModelOfNodes, Protocol):
    """A model whose layers can be quantised one at a time."""

    def each_quantised(self, x: Tensor) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """For every layer, the outputs for the image `x` if it alone is in eight bits.

        Raises `NotApplicableError` where there are no such layers.
        """
