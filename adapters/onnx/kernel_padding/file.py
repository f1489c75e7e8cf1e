"""Write a kernel-padded copy of an ONNX file, with layers rescaled on unlabelled images.

A padded kernel is smoother, so its outputs are smaller than those that the next layers were trained
for. In execution order, weights and biases of every convolution that grew are scaled by one affine
map per channel, so that its outputs have the means and standard deviations, over images and units,
of the original's outputs. This replaces new statistics of norms, which exporters fold into
convolutions.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from onnx import numpy_helper

from ...errors import InputError, ModelFileError
from ..analysis.node_facts import Facts
from ..files.external_data import external_files
from ..files.protos import output_names, printable, set_items, store
from ..files.read import read_model
from ..files.write import check_destination, file_fault, write_model
from ..graph import operator_of
from ..inputs.fixed_inputs import fix_inputs, release_inputs
from ..inputs.outputs import example
from ..inputs.size import take_size
from ..inputs.spec import image_input
from ..opening import open_onnx
from ..session import Session, feed
from .rewrite import drop_unread, pad_graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from torch import Tensor

    from ...input_spec import InputSpec
    from ...model import Model
    from ...treatment import Fill, Treatment
    from ..inputs.spec import ImageInput
    from ..model import OnnxModel


PIECE = 8
"""Batch size of a file with an open batch axis."""

FILE_FILLS: tuple[Fill, ...] = ("box", "zero")
"""Fills that are useful in a file: `box` needs no training, `zero` keeps the function."""


@dataclass(frozen=True)
class PaddedFile:
    """A kernel-padded ONNX file: the opened model, the treatment, the files written and notes."""

    model: OnnxModel
    treatment: Treatment
    written: tuple[Path, ...]
    notes: tuple[str, ...]


def write_padded_file(
    model: OnnxModel, out: Path, fill: Fill, *, images: Tensor | None = None
) -> PaddedFile:
    """Write a kernel-padded copy of the ONNX file of `model` to `out`, and open it.

    `images` (n, channels, height, width), prepared, recalibrate the layers that grew. Opset,
    metadata, names, inputs and outputs stay. Weights that lie beside the original lie beside the
    copy, and so does a TOML declaration. onnxruntime compares the shapes of all outputs. Raises
    `InputError` for a fill or a destination that cannot be used, `ModelFileError` when the result
    is not valid.
    """
    path, spec, said = Path(model.reference), model.spec, model.declaration
    if fill not in FILE_FILLS:
        raise InputError(f"fill {fill!r} was given; expected one of {', '.join(FILE_FILLS)}")
    check_destination(path, out)
    raw, _ = read_model(path)
    ready = fix_inputs(raw, said.fixed)
    padded, image = pad_graph(ready, fill), image_input(ready, said.image)
    notes = []
    if images is not None:
        count = _recalibrate(ready, padded.proto, image, spec, images)
        notes.append(f"{count} layers recalibrated on {len(images)} images")
    check_shapes(ready, padded.proto, image, spec)
    if said.fixed:
        release_inputs(padded.proto, raw, said.fixed)
    fault = file_fault(path)
    beside = bool(external_files(path))
    written = [
        *write_model(padded.proto, out, beside=beside, faulty=fault is not None),
        *_copy_declaration(path, out),
    ]
    if fault is not None:
        notes.append(f"the ONNX checker refuses the original too: {printable(fault, 200)}")
    if _grew_quantised(padded.proto):
        notes.append("quantised weights that grew are stored as floats")
    opened = _open_padded(model, out, padded.treatment)
    return PaddedFile(opened, padded.treatment, tuple(written), tuple(notes))


def _open_padded(model: OnnxModel, out: Path, treatment: Treatment) -> OnnxModel:
    """Open the padded file `out` with the input and the target of its original."""
    said = model.declaration
    padded = open_onnx(
        out,
        device=str(model.device),
        spec=model.spec,
        inputs={"fixed": dict(said.fixed), **({"image": said.image} if said.image else {})},
        output=said.output,
        target=model.target.name if model.target else None,
    )
    padded.original, padded.treatment = cast("Model", model), treatment
    return padded


def feed_all(images: Tensor, image: ImageInput, spec: InputSpec) -> list[Mapping[str, Any]]:
    """Split `images` (n, channels, height, width) into whole batches of the size of the file."""
    size = image.dims[0] or PIECE
    pieces = [piece for piece in images.split(size) if image.dims[0] in (None, len(piece))]
    return [{image.name: feed(piece, spec)} for piece in pieces]


def _recalibrate(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    image: ImageInput,
    spec: InputSpec,
    images: Tensor,
) -> int:
    """Call `match_moments` on `after` at the input size of `spec`; return the number of layers."""
    old, new = (take_size(proto, image, spec) for proto in (before, after))
    count = match_moments(old, new, feed_all(images, image, spec))
    if new is not after:
        parts = [list(new.graph.node), list(new.graph.initializer)]
        for part, changed in zip((after.graph.node, after.graph.initializer), parts, strict=True):
            set_items(part, changed)
    drop_unread(after.graph)
    return count


def check_shapes(
    before: onnx.ModelProto, after: onnx.ModelProto, image: ImageInput, spec: InputSpec
) -> None:
    """Raise `ModelFileError` unless both graphs give outputs of the same shapes."""
    before, after = (take_size(proto, image, spec) for proto in (before, after))
    outputs = output_names(before)
    x = {image.name: feed(example(spec, image.dims[0] or 1), spec)}
    old, new = (Session(proto, outputs).run(x) for proto in (before, after))
    changed = [printable(n) for n in outputs if _shape(old[n]) != _shape(new[n])]
    if changed:
        raise ModelFileError(
            f"kernel padding changed the shapes of the outputs {', '.join(changed)}"
        )


def _shape(value: Any) -> Any:
    return getattr(value, "shape", type(value))


def _copy_declaration(path: Path, out: Path) -> list[Path]:
    """Copy the TOML declaration beside `path` to `out`, unless there is one."""
    source, copy = path.with_suffix(".toml"), out.with_suffix(".toml")
    if not source.is_file() or copy.exists():
        return []
    shutil.copyfile(source, copy)
    return [copy]


def _grew_quantised(padded: onnx.ModelProto) -> bool:
    grown = any(i.name.endswith("/padded_weight") for i in padded.graph.initializer)
    return grown and any(n.op_type == "DequantizeLinear" for n in padded.graph.node)


DEAD = 1e-6
"""A channel below this share of the layer's largest standard deviation is not scaled."""


def match_moments(
    before: onnx.ModelProto, after: onnx.ModelProto, feeds: Sequence[Mapping[str, Any]]
) -> int:
    """Rescale the grown convolutions of `after` in place and return their number.

    `feeds` are batches of images by input name. Convolutions with a fused activation or a computed
    bias are not scaled: their outputs are not an affine function of their constants.
    """
    constants, count = Facts(after).constants, 0
    for node in after.graph.node:
        grown = len(node.input) > 1 and node.input[1] == f"{node.output[0]}/padded_weight"
        bias = node.input[2] if len(node.input) > 2 else ""
        if not grown or operator_of(node) != "Conv" or (bias and bias not in constants):
            continue
        name = node.output[0]
        old, new = (_moments(Session(p, [name]), feeds, name) for p in (before, after))
        known = constants[bias].double().numpy() if bias else np.zeros(len(old[0]))
        _correct(after.graph, node, known, old, new)
        count += 1
    return count


def _moments(session: Session, feeds: Sequence[Mapping[str, Any]], name: str) -> tuple[Any, Any]:
    """Mean and standard deviation of each channel of a tensor (batch, channels, rows, columns)."""
    values = [np.asarray(session.run(dict(f))[name], dtype=np.float64) for f in feeds]
    numbers = np.concatenate(values)
    return numbers.mean((0, 2, 3)), numbers.std((0, 2, 3))


def _correct(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    bias: Any,
    old: tuple[Any, Any],
    new: tuple[Any, Any],
) -> None:
    """Scale `node` so that moments `new` become `old`; each is (mean, deviation) a channel."""
    weight = next(i for i in graph.initializer if i.name == node.input[1])
    taps = numpy_helper.to_array(weight)
    alive = (new[1] > DEAD * new[1].max()) & (old[1] > 0)
    scale = np.divide(old[1], new[1], out=np.ones_like(old[1]), where=alive)
    scaled = (taps * scale.reshape(-1, *[1] * (taps.ndim - 1))).astype(taps.dtype)
    weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
    name = f"{node.output[0]}/padded_bias"
    shift = ((bias - new[0]) * scale + old[0]).astype(taps.dtype)
    del node.input[2:]
    node.input.append(store(graph, name, shift))
