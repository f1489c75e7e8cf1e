"""Passes over a batch, as a module can take it: in which memory order, and how many images.

Channels-last order is faster, and most modules do not depend on the order. A module that reads
memory as it lies (`view`, `view_as_complex`, `as_strided`) fails in it, or computes another
function: modules of unknown origin are compared in both orders.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..device import ran_out_of_memory
from ..errors import NO_GRADIENTS
from .batch_norm_fix import contiguous_norm_gradients
from .checkpointing import without_checkpointing
from .derivative import STRAIGHT_THROUGH, gradient_fault
from .target import first_logits, laid_out, run_several
from .tensors import cast_module, copy_module, first_float, order_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..feature_grid import Grid
    from ..input_spec import InputSpec


SAME = 1e-3
"""Relative L2 difference that rounding in another order may cause."""

ONE_BY_ONE = "the module takes one image at a time; batches are split"

MOST_WEIGHTS = 2**28
"""Most parameters of a module whose gradients are checked in double precision."""

NOT_NARROW = "the module does not run in bfloat16: its gradients are in float32"

NO_GRADIENT = (
    f"{NO_GRADIENTS}no gradient reaches the input: the forward pass runs under no_grad, detaches a "
    "tensor, or leaves torch"
)

CUT_OFF = (
    f"{NO_GRADIENTS}the forward pass turns off `requires_grad` of its input, or of a tensor that "
    "is computed from it, which torch refuses where gradients are taken; remove that from it"
)

CHANGED_FLAG = "can only change requires_grad flags of leaf variables"
"""Part of what torch says about it."""

Answer = tuple[Tensor | None, Tensor | None]
"""The raw target and the logits; None for what was not requested or is not there."""


@dataclass
class ModulePasses:
    """How a module is given its batches; `one_by_one` if it takes single images only."""

    spec: InputSpec
    channels_last: bool = True
    one_by_one: bool = False
    _judged: bool = False
    _fault: str | None = None

    def cast(self, x: Tensor, module: nn.Module) -> Tensor:
        """A copy of `x` (batch, ...) in the module's type, place, layout and memory order.

        It is not a leaf, so that a module may change its input in place.
        """
        first = first_float(module, x)
        sent = x.to(first.device, first.dtype)
        if len(x) > 1 and self.channels_last:  # one image stays clear of the norms' strides
            sent = sent.contiguous(memory_format=torch.channels_last)
        if sent.data_ptr() == x.data_ptr():
            sent = sent.clone()
        return laid_out(sent, self.spec)

    def run(self, module: nn.Module, x: Tensor, grid: Grid | None, *, logits: bool) -> Answer:
        """Pass `x` (batch, ...) through `module`, to the target `grid` if there are no logits.

        Without `grid` there is no raw target.
        """
        raw, out = self.run_each(module, x, [grid] if grid is not None else [], logits=logits)
        return next(iter(raw), None), out

    def run_each(
        self, module: nn.Module, x: Tensor, grids: Sequence[Grid], *, logits: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        """The raw tensors of `grids` in one pass of `x` (batch, ...), and the logits if asked."""
        if not self.one_by_one or len(x) == 1:
            return self._run(module, self.cast(x, module), grids, logits=logits)
        parts = [self.run_each(module, one, grids, logits=logits) for one in x.split(1)]
        raw = [
            torch.cat([part[place] for part, _ in parts], grid.batch_axis)
            for place, grid in enumerate(grids)
        ]
        outs = [out for _, out in parts if out is not None]
        return raw, torch.cat(outs) if outs else None

    def _run(
        self, module: nn.Module, x: Tensor, grids: Sequence[Grid], *, logits: bool
    ) -> tuple[list[Tensor], Tensor | None]:
        with without_checkpointing():
            if not grids:
                return [], first_logits(module, module(x))
            raw, out = run_several(module, x, grids, to_end=logits)
        return raw, first_logits(module, out) if logits else None

    def settle_order(self, module: nn.Module, grid: Grid | None) -> None:
        """Put `module` in channels-last order if it then gives the same as in the usual one."""
        x = self.noise(2)
        with torch.no_grad():
            expected = self._all(module, x, grid, channels_last=False)
            order_kernels(module, torch.channels_last)
            found = self._all(module, x, grid, channels_last=True)
        same = len(found) == len(expected) and all(map(_close, found, expected))
        self.channels_last = bool(expected) and same
        if not self.channels_last:
            order_kernels(module, torch.contiguous_format)

    def _all(
        self, module: nn.Module, x: Tensor, grid: Grid | None, *, channels_last: bool
    ) -> list[Tensor]:
        """Target and logits; the target alone if the rest of the module fails; else nothing."""
        self.channels_last = channels_last
        for logits in (True, False):
            try:
                answer = self.run(module, x, grid, logits=logits)
            except Exception as error:  # a foreign forward may raise anything
                if ran_out_of_memory(error):
                    raise
                continue
            return [value for value in answer if value is not None]
        return []

    def runs(self, module: nn.Module, grid: Grid | None) -> bool:
        """Whether `module` runs, up to the target `grid` if there is one."""
        try:
            with torch.no_grad():
                self.run(module, self.noise(1), grid, logits=grid is None)
        except Exception as error:  # a foreign forward may raise anything
            if ran_out_of_memory(error):
                raise
            return False
        return True

    def why_no_gradients(
        self, module: nn.Module, grid: Grid | None, notes: list[str]
    ) -> str | None:
        """None if the target of `module`, else its logits, has a right gradient by the input.

        A note is added for one that passes straight through rounding.
        """
        x = self.noise(1).requires_grad_()
        try:
            with torch.enable_grad(), contiguous_norm_gradients(x):
                found = self.run(module, x, grid, logits=grid is None)
        except Exception as error:  # the suite that makes the same pass reports it
            return CUT_OFF if CHANGED_FLAG in str(error) else None
        values = [value for value in found if value is not None]
        if not any(v.requires_grad for v in values):
            return NO_GRADIENT if values else None
        fault = self._gradient_fault(module, grid)
        if fault == STRAIGHT_THROUGH:
            notes += [] if fault in notes else [fault]
        return None if fault in (None, STRAIGHT_THROUGH) else f"{NO_GRADIENTS}{fault}"

    def _gradient_fault(self, module: nn.Module, grid: Grid | None) -> str | None:
        """What is wrong with the gradients of the target, else of the logits; found once.

        See `derivative.gradient_fault`. A module that does not run in double precision, or is very
        large, is not judged.
        """
        if not self._judged:
            self._judged = True
            if sum(p.numel() for p in module.parameters()) <= MOST_WEIGHTS:
                with contextlib.suppress(Exception):  # a foreign forward may raise anything
                    self._fault = self._find_fault(module, grid)
        return self._fault

    def _find_fault(self, module: nn.Module, grid: Grid | None) -> str | None:
        double = cast_module(copy_module(module), torch.device("cpu"), torch.float64)
        random = torch.Generator().manual_seed(1)

        def f(x: Tensor) -> Tensor:
            with contiguous_norm_gradients(x):
                raw, out = self.run(double, x, grid, logits=grid is None)
            values = raw if raw is not None else out
            if values is None or values.dtype != torch.float64:
                raise ValueError("there is no output in double precision")
            signs = torch.randint(0, 2, values.shape, generator=random.manual_seed(1))
            return (values * (2 * signs - 1)).sum()

        with torch.enable_grad():
            return gradient_fault(f, self.noise(1).double())

    def noise(self, count: int) -> Tensor:
        """Normal noise (count, channels, height, width), the same in every call."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, *self.spec.shape, generator=generator)


def _close(a: Any, b: Any) -> bool:
    if a.shape != b.shape:
        return False
    return bool((a - b).double().norm() <= SAME * b.double().norm())
