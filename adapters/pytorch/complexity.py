"""The parameters of a module, and the MACs of one image, without weights where possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from ..complexity import Complexity, count_macs
from .target import laid_out
from .tensors import copy_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..input_spec import InputSpec
    from .passes import ModulePasses


def module_complexity(
    shell: nn.Module, spec: InputSpec, passes: ModulePasses, module: Callable[[], nn.Module]
) -> Complexity:
    """The complexity at the size of `spec`; `module` makes the one with weights, if it is needed.

    Parameters are those of `shell`, which may be on the `meta` device. MACs are counted on a copy
    of it there, or in one of the `passes` of the module with weights if it cannot be moved.
    """
    parameters = sum(p.numel() for p in shell.parameters())
    if any(isinstance(m, nn.RNNBase) for m in shell.modules()):
        return Complexity(parameters)  # torch does not count recurrent layers
    single = spec.blank() if spec.channels in (1, 3) else passes.noise(1)
    try:
        # weights on meta are not copied first; tracing leaves doubles
        memo = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in shell.parameters()}
        light = copy_module(shell, memo).to("meta").float().eval()
        macs = count_macs(lambda: light(laid_out(single.to("meta"), spec)))
    except Exception:  # some modules cannot be moved there
        macs = None
    return Complexity(
        parameters, macs or count_macs(lambda: passes.run(module(), single, None, logits=True))
    )
