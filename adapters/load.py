"""Open a model by its reference, and other functions on references; one branch for each runtime."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from .created import Opening
from .errors import InputError, ModelFileError
from .names import parse_known
from .reference import Reference, other_runtimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from .input_spec import InputSpec
    from .model import Model, Precision
    from .onnx.kernel_padding.file import PaddedFile
    from .treatment import Fill


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
    """Open a model for auditing; an opened model is returned unchanged.

    `target` names the layer to audit (default: by the rule of docs/models.md). `size` (height,
    width) overrides the size of the model's input, `spec` the whole input of a module or an ONNX
    file. `inputs` declares the input of a module, and input and output of an ONNX file that does
    not state them (see `onnx.inputs.declaration`). `seed` and `members` are the first seed and the
    number of seeds of an `@init` model. `precision` is the float type of the passes. Raises
    subclasses of `PerimetryError`.
    """
    own = partial(_open_module, device=device, target=target, spec=spec, precision=precision)
    if isinstance(reference, nn.Module):
        return own(reference, None, size, inputs)
    if not isinstance(reference, str):
        return reference
    parsed = parse_known(reference)
    how = Opening(device, target, size, seed, members, precision)
    other = other_runtimes().get(parsed.runtime)
    if other is not None:
        opened: Model = other.load()(parsed.name, **asdict(how), inputs=inputs)
        return opened
    if parsed.runtime == "py":
        from .own_code import build_own

        built = build_own(parsed.name, seed)
        return own(built.module, reference, size or built.size, inputs)
    if parsed.runtime == "pt2":
        from .exported import open_exported

        program = open_exported(Path(reference))
        return own(program.module, reference, size or program.size, inputs)
    if parsed.runtime == "onnx":
        from .onnx.opening import open_onnx

        _refuse_foreign(parsed.file)
        given: dict[str, Any] = {"target": target, "size": size, "precision": precision}
        return open_onnx(reference, device=device, spec=spec, inputs=inputs, **given)
    if spec is not None:
        raise InputError(
            f"`spec` was given for {reference!r}, whose library defines its input; use `size` "
            "instead"
        )
    return _open_of_library(parsed, how)


def _refuse_foreign(file: Path | None) -> None:
    """Raise `ModelFileError` for an ONNX file that has the content of something else."""
    from .checkpoint.damage import foreign_content

    found = None
    with suppress(OSError):  # there is no such file, which the reader says
        found = foreign_content(file) if file is not None else None
    if found is not None:
        raise ModelFileError(f"{file} cannot be read: {found}; expected an ONNX file")


def _open_of_library(parsed: Reference, how: Opening) -> Model:
    """Open a model that timm, torchvision or transformers builds."""
    if parsed.runtime == "torchvision":
        from .torchvision import open_torchvision

        return open_torchvision(parsed.name, parsed.variant, parsed.weights, how)
    if parsed.runtime == "hf":
        from .huggingface import open_hf

        return open_hf(parsed.name, parsed.weights, how)
    from .timm import open_timm

    return open_timm(parsed.tagged_name, parsed.weights, how)


def _open_module(
    module: nn.Module,
    name: str | None,
    size: tuple[int, int] | None,
    inputs: Mapping[str, Any] | None,
    **options: Any,
) -> Model:
    """Open a module with what `inputs` declare; `name` is its reference."""
    from .onnx.inputs.declaration import read_declaration
    from .pytorch.model import wrap

    said = read_declaration(inputs or {})
    declared: dict[str, Any] = {"image": said.image, "fixed": said.fixed, "declare": said.apply}
    return wrap(module, name=name, size=size, **declared, **options)


def input_of(
    reference: str | nn.Module | Model,
    *,
    size: tuple[int, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> InputSpec | None:
    """The input that `load` would give the model, without weights and checks; None if unknown.

    Raises subclasses of `PerimetryError` for what cannot be opened.
    """
    if isinstance(reference, nn.Module):
        from .onnx.inputs.declaration import read_declaration
        from .pytorch.channels import module_input

        said = read_declaration(inputs or {})
        return module_input(reference, size, said.image, said.fixed, said.apply)
    if not isinstance(reference, str):
        return reference.spec
    parsed = parse_known(reference)
    if parsed.runtime == "onnx":
        from .onnx.opening import onnx_input

        return onnx_input(reference, size=size, inputs=inputs)
    if parsed.runtime == "timm" and parsed.weights in (None, "init"):
        from .timm import timm_input

        return timm_input(parsed.tagged_name, size)
    return None


def files_of(reference: str) -> list[Path]:
    """The files that decide what the model of `reference` computes; some may not exist.

    The ONNX file or the weights file, external data beside it, and the TOML declaration of an ONNX
    file. Empty where the reference names no file.
    """
    from .onnx.files.external_data import external_files

    parsed = Reference.parse_any(reference)
    found = _named_files(parsed)
    if parsed.runtime == "onnx" and found:
        found += [*external_files(found[0]), found[0].with_suffix(".toml")]
    return list(dict.fromkeys(found))


def _named_files(parsed: Reference) -> list[Path]:
    """The files that a reference itself names, and those that may lie beside them."""
    if parsed.runtime == "hf":  # a folder: configuration, processor and weights
        folder = Path(parsed.name).expanduser()
        local = parsed.name.startswith((".", "/", "~"))
        names = ("*.json", *(() if parsed.untrained else ("*.safetensors",)))
        return sorted(p for n in names for p in folder.glob(n)) if local else []
    path = parsed.file
    if path is None or not path.name:  # `.` and `/` have no name that a suffix could be added to
        return []
    return [path, Path(f"{path}.data"), path.with_suffix(".data")]


QUICK_BYTES = 2**26
"""Bytes of a file that are hashed, and looked through, in a fraction of a second."""


def is_quick_to_identify(reference: str) -> bool:
    """Whether no code runs and little is read to find what decides the model of `reference`."""
    from .onnx.files.external_data import names_external

    parsed = Reference.parse_any(reference)
    if parsed.runtime == "py":
        return False
    try:
        small = sum(p.stat().st_size for p in _named_files(parsed) if p.is_file()) <= QUICK_BYTES
    except (OSError, ValueError):
        return True  # nothing of it can be read
    if parsed.runtime != "onnx" or parsed.file is None or not small:
        return small
    return not names_external(parsed.file)


def own_module(reference: str, seed: int) -> tuple[nn.Module, tuple[int, int] | None] | None:
    """The module of a `py:` reference and the size that it states; None for other references.

    Raises subclasses of `PerimetryError`.
    """
    from .own_code import build_own

    parsed = Reference.parse_any(reference)
    if parsed.runtime != "py":
        return None
    built = build_own(parsed.name, seed)
    return built.module, built.size


LIBRARIES = {"torchvision": "torchvision", "hf": "transformers"}
"""Distributions whose version decides what a reference means, beside those in every key."""


def library_version(reference: str) -> str:
    """Name and version of the library that builds the model of `reference`; '' for timm and files.

    (timm, torch and onnxruntime are in the key of every record.)
    """
    runtime = Reference.parse_any(reference).runtime
    other = other_runtimes().get(runtime)
    if other is not None and other.dist is not None:
        return f"{other.dist.name} {other.dist.version}"
    name = LIBRARIES.get(runtime)
    with suppress(PackageNotFoundError):
        return f"{name} {version(name)}" if name else ""
    return f"{name} missing"


def parse_inputs(texts: Iterable[str], output: str | None = None) -> dict[str, Any]:
    """Parse `KEY=VALUE` texts about the input of ONNX files into the `inputs` that `load` takes.

    `output` names the output with the logits. Raises `InputError` and `UnknownNameError` for keys
    and values that `onnx.inputs.declaration` does not know.
    """
    from .onnx.inputs.declaration import parse_pairs, read_declaration

    inputs = parse_pairs(texts, output)
    read_declaration(inputs)
    return inputs


def pad_onnx(
    model: Model, out: str | Path, fill: Fill, *, images: Tensor | None = None
) -> PaddedFile:
    """Write a kernel-padded copy of the ONNX file of `model` to `out`, and open it.

    `fill` is `box` or `zero`. `images` (n, channels, height, width), prepared, recalibrate the
    layers that grew. Raises subclasses of `PerimetryError` when the file cannot be padded.
    """
    from .onnx.kernel_padding.file import write_padded_file
    from .onnx.model import OnnxModel

    if not isinstance(model, OnnxModel):
        raise InputError(f"{model.reference!r} is not an ONNX file; give a PATH.onnx")
    return write_padded_file(model, Path(out), fill, images=images)


def tensors_digest(module: nn.Module) -> str:
    """Sha256 of a module's tensors: their names, types, shapes and bytes.

    Raises `InputError` for tensors without bytes.
    """
    from .pytorch.weights import module_tensors_digest

    return module_tensors_digest(module)
