"""Write torch modules as ONNX files that state their own input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn

from .errors import InputError, NotApplicableError
from .onnx.inputs.spec import write_spec
from .pytorch.model import TorchModel

if TYPE_CHECKING:
    from .input_spec import InputSpec
    from .model import Model


def export_model(model: Model, path: str | Path) -> Path:
    """Write the selected weights of a torch or timm model as an ONNX file and return its path.

    Raises `InputError` for a model of another runtime, `NotApplicableError` when torch cannot
    export it.
    """
    if not isinstance(model, TorchModel):
        raise InputError(
            f"{model.reference!r} is not a torch model; give a module or a timm reference"
        )
    return export_onnx(model.module(), model.spec.blank(), path, spec=model.spec)


def export_onnx(
    module: nn.Module,
    example: Tensor,
    path: str | Path,
    *,
    spec: InputSpec | None = None,
    dynamo: bool = False,
) -> Path:
    """Export `module` to `path` with an open batch axis, and `spec` in the metadata.

    `example` is one input (batch, channels, height, width) of the module. `dynamo` selects torch's
    newer exporter. Raises `NotApplicableError` when torch cannot export the module.
    """
    path = Path(path)
    # With a single image the newer exporter would take the batch for a constant.
    two = example[:1].detach().expand(2, *example.shape[1:]).contiguous()
    part = path.with_name(path.name + ".part")
    try:
        _export(module, two, part, dynamo=dynamo)
        proto = onnx.load_model(part)
        if spec is not None:
            write_spec(proto, spec)
        part.write_bytes(proto.SerializeToString())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _export(module: nn.Module, x: Tensor, path: Path, *, dynamo: bool) -> None:
    settings: dict[str, Any] = {"dynamic_axes": {"image": {0: "batch"}, "logits": {0: "batch"}}}
    if dynamo:
        batch = {0: torch.export.Dim.DYNAMIC}
        settings = {"dynamic_shapes": (batch,), "external_data": False, "verbose": False}
    names = {"input_names": ["image"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        # Notices of the exporters to developers: deprecations and traced constants.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(module, (x,), str(path), dynamo=dynamo, **names, **settings)  # type: ignore[arg-type]
        except Exception as error:
            raise NotApplicableError(
                f"torch cannot export {type(module).__name__} to ONNX: {str(error)[:300]}"
            ) from error
