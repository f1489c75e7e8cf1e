"""Make a model of any `torch.nn.Module`, with notes on what was guessed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..device import pick_device
from ..errors import InputError
from ..input_spec import InputSpec, guessed_note
from ..model import Precision
from .channels import pick_spec
from .inputs import fix_module_inputs
from .model import TorchModel
from .tensors import cast_module, copy_module, frozen_copy
from .weights import check_initialised, module_tensors_digest, not_finite_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    spec: InputSpec | None = None,
    device: str = "auto",
    target: str | None = None,
    precision: Precision = "float32",
    size: tuple[int, int] | None = None,
    image: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    declare: Callable[[InputSpec], InputSpec] = lambda spec: spec,
) -> TorchModel:
    """Make a `Model` of any module; the module itself is not changed.

    Without `spec` the input is guessed: `size` (height, width) or 224 x 224, ImageNet's mean and
    standard deviation, channels that the first layer takes; `declare` states parts of it. `image`
    is the input of `forward` that takes the image, `fixed` has values for the others by name. Half-
    precision weights are audited in float32, and a compiled module is audited as its original.
    Raises `InputError` when the module refuses that input, cannot be copied, is or contains
    a TorchScript module, or has weights without values or shapes.
    """
    module = getattr(module, "_orig_mod", module)
    for layer, one in module.named_modules():
        if isinstance(one, torch.jit.ScriptModule):
            where = f"layer {layer!r} of {type(module).__name__}" if layer else type(one).__name__
            raise InputError(
                f"{where} is a TorchScript module, whose layers cannot be traced; give the "
                "original nn.Module, or export it to ONNX"
            )
    check_initialised(module)
    frozen = frozen_copy(module)
    digest = module_tensors_digest(frozen)
    single = torch.float64 if precision == "float64" else torch.float32
    frozen = cast_module(frozen, torch.device("cpu"), single)
    fix_module_inputs(frozen, image, fixed or {})
    model = TorchModel(
        frozen,
        lambda _member: copy_module(frozen),
        reference=name or f"module:{type(module).__name__}",
        spec=spec or pick_spec(frozen, size, declare),
        device=pick_device(device),
        source={"runtime": "torch", "tensors_sha256": digest, "library": library_of(module)},
        target=target,
        precision=precision,
        known=False,
    )
    model.notes[:0] = not_finite_weights(frozen)
    model.notes += guessed_note(model.spec)
    return model


def library_of(module: nn.Module) -> str:
    """The package that defines the class of `module`, with its version; torch for one's own."""
    package = type(module).__module__.partition(".")[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"torch {torch.__version__}"
