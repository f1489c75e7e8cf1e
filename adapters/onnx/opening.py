"""Open ONNX files, with notes on what was declared, guessed and chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..input_spec import InputSpec, guessed_note
from ..model import Precision
from ..target_rule import target_note
from .files.protos import printable, standard_opset
from .files.read import graph_tensors_digest, not_finite_tensors, read_model
from .inputs.declaration import read_beside, read_declaration
from .inputs.fixed_inputs import fix_inputs
from .inputs.outputs import like_logits, logits_output, without_post_processing
from .inputs.size import fit_size, take_size
from .inputs.spec import check_spec, describe_spec, image_input, read_spec
from .model import OnnxModel
from .session import providers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from .inputs.declaration import InputDeclaration
    from .inputs.spec import ImageInput


def open_onnx(
    path: str | Path,
    *,
    device: str = "auto",
    spec: InputSpec | None = None,
    target: str | None = None,
    output: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    precision: Precision = "float32",
) -> OnnxModel:
    """Open an ONNX file for auditing.

    `inputs` declares properties of the input that the file does not state, by the keys of
    `inputs.declaration`, such as `size` (height, width). A TOML file beside the model may declare
    them too; `inputs` overrides it. `spec` is the whole input and overrides both. `target` names a
    tensor or node as the feature map, `output` the output with the logits; `precision` is that of
    gradients. The model's `notes` say what was declared, what was guessed, and whether onnxruntime
    fell back to the CPU. Raises `ModelFileError` for files that cannot be read or run, `InputError`
    for files that do not take one image and declarations that do not fit, `UnknownNameError` for
    unknown keys, tensors and outputs.
    """
    if precision == "bfloat16":
        raise InputError(
            "precision bfloat16 was given; ONNX files are checked against onnxruntime in float32 "
            "or float64"
        )
    from ..device import pick_device

    place = pick_device(device)
    raw, digest = read_model(path)
    said = _declared(path, size, inputs)
    proto, left_out, image, stated = _with_input(raw, said, spec)
    wanted = output or said.output
    source = _source(Path(path), proto, digest, place)
    model = OnnxModel(
        proto,
        reference=str(path),
        source=source | ({"inputs": printable(json.dumps(inputs), 2000)} if inputs else {}),
        spec=stated,
        image=image,
        output=logits_output(proto, wanted),
        device=place,
        target=target,
        precision=precision,
        named_output=wanted,
    )
    model.declaration = said
    model.notes[:0] = opening_notes(model, said)
    model.notes += left_out + ([] if wanted else several_logits(proto))
    return model


def onnx_input(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> InputSpec:
    """Return the input that `open_onnx` would give the file, without its checks of gradients.

    Raises `ModelFileError`, `InputError` and `UnknownNameError` as `open_onnx` does.
    """
    return _with_input(read_model(path)[0], _declared(path, size, inputs), None)[3]


def _declared(
    path: str | Path, size: tuple[int, int] | None, inputs: Mapping[str, Any] | None
) -> InputDeclaration:
    given = {**({"size": list(size)} if size else {}), **(inputs or {})}
    return read_declaration(given).over(read_beside(path))


def _with_input(
    raw: onnx.ModelProto, said: InputDeclaration, spec: InputSpec | None
) -> tuple[onnx.ModelProto, list[str], ImageInput, InputSpec]:
    """The graph that takes the image alone, notes on what was left out, and its input."""
    proto = fix_inputs(raw, said.fixed, said.image)
    image = image_input(proto, said.image)
    proto, left_out = without_post_processing(proto, image.name)
    stated = spec or fit_size(proto, image, said.apply(read_spec(proto, image)))
    proto = take_size(proto, image, stated)
    image = image_input(proto, said.image)
    check_spec(stated, image)
    return proto, left_out, image, stated


def _source(
    path: Path, proto: onnx.ModelProto, digest: str, device: torch.device
) -> dict[str, str]:
    return {
        "runtime": "onnxruntime",
        "file": path.name,
        "sha256": digest,
        "tensors_sha256": graph_tensors_digest(proto),
        "opset": str(standard_opset(proto)),
        "producer": printable(f"{proto.producer_name} {proto.producer_version}".strip()),
        "library": printable(f"{proto.producer_name} {proto.producer_version}".strip()),
        "requested_provider": providers(device)[0],
    }


DEPENDENT = (
    "the output for an image depends on the other images of its batch: images are passed one by "
    "one, and the numbers hold for single images"
)

MOST_NAMES = 8


def opening_notes(model: OnnxModel, said: InputDeclaration) -> list[str]:
    """Return notes on input, target, provider and batch."""
    notes = not_finite_tensors(model.graph)
    notes += guessed_note(model.spec)
    stated = said.note()
    notes += [stated] if stated else []
    notes.append(f"input: {describe_spec(model.spec)}")
    notes += model.reach.notes()
    notes += target_note(model.target)
    source = model.source
    if source["provider"] != source["requested_provider"]:
        notes.append(
            f"{source['requested_provider']} was requested, but onnxruntime runs on "
            f"{source['provider']}"
        )
    if model._batch is not None and model.declares_any_batch:
        notes.insert(0, DEPENDENT)
    elif model._batch is not None:
        notes.append(
            f"the file requires a batch size of {model._batch}; images are split into such batches"
        )
    return notes


def several_logits(proto: onnx.ModelProto) -> list[str]:
    """Return a note that the logits were chosen, if several outputs have their form."""
    names = [repr(printable(name)) for name in like_logits(proto)]
    if len(names) < 2:
        return []
    others = " or ".join(names[1 : MOST_NAMES + 1])
    return [f"output {names[0]} is taken for the logits; {others} may be: name it as the output"]
