"""From what the user typed to a `Model`: one branch a runtime."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .input_spec import InputSpec
    from .model import Model, Precision


FORMS = "timm:NAME[.TAG], timm:NAME@init, timm:NAME@FILE, or PATH.onnx"


def load(
    reference: str | nn.Module | Model,
    *,
    device: str = "auto",
    target: str | None = None,
    size: tuple[int, int] | None = None,
    spec: InputSpec | None = None,
    seed: int = 0,
    members: int | None = None,
    precision: Precision = "float32",
    inputs: Mapping[str, Any] | None = None,
) -> Model:
    """Open a model for auditing; one that is open already is given back as it is.

    `target` names the layer to audit (default: the last spatial feature map). `size` (height,
    width) overrides that of the model's input, `spec` the whole input of a module or an ONNX file.
    `inputs` state what an ONNX file leaves to guess of its input and output (see
    `onnx.inputs.declaration`).
    `seed` and `members` are the first seed and the number of seeds of an `@init` model.
    `precision` is the float type of the passes.
    Raises subclasses of `PerimetryError`.
    """
    if isinstance(reference, nn.Module):
        from .pytorch.model import wrap

        return wrap(
            reference, spec=spec, device=device, target=target, precision=precision, size=size
        )
    if not isinstance(reference, str):
        return reference
    if reference.endswith(".onnx"):
        from .onnx.opening import open_onnx

        return open_onnx(
            reference,
            device=device,
            spec=spec,
            target=target,
            inputs=inputs,
            size=size,
            precision=precision,
        )
    if not reference.startswith("timm:"):
        raise UnknownNameError(_unknown_form(reference))
    if spec is not None:
        raise InputError("timm models state their own input; use `size`, not `spec`")
    from .timm import open_timm

    name, at, state = reference.removeprefix("timm:").partition("@")
    return open_timm(
        name,
        state if at else None,
        device=device,
        target=target,
        size=size,
        seed=seed,
        members=members,
        precision=precision,
    )


def _unknown_form(reference: str) -> str:
    """What is wrong with a reference of no known form, and what may have been meant."""
    said = f"model {reference!r} is not of a known form; expected {FORMS}"
    name = reference.partition("@")[0].partition(".")[0]
    return f"{said}; did you mean timm:{reference}?" if list_models(name) else said


def list_models(pattern: str = "*", family: str | None = None) -> list[str]:
    """References of all timm architectures that match a shell `pattern`, such as `timm:resnet*`.

    `family` is the module of timm that defines them, such as `resnet`, `regnet` or `convnext`.
    """
    from .timm import known_models

    names = [f"timm:{name}" for name in known_models(family)]
    return [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"timm:{pattern}")]


def expand_wildcards(reference: str) -> list[str]:
    """Expand wildcards in a timm reference; anything else, an existing path included, stays."""
    name, at, state = reference.partition("@")
    if not any(c in name for c in "*?[") or Path(reference).exists():
        return [reference]
    found = [n + at + state for n in list_models(name)]
    if not found:
        raise UnknownNameError(f"no model matches {reference!r}; try `perimetry list models`")
    return found
