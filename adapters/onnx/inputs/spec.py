"""The input spec of an ONNX file: read from its graph and metadata, and guessed otherwise.

Files written by `export_onnx` state everything under metadata keys `perimetry.FIELD` (JSON).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import onnx

from ...errors import InputError, ModelFileError
from ...input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from ..files.protos import attribute, metadata, printable, set_items
from .fixed_inputs import ask_for, describe, free_inputs
from .head import read_head, stored_constants

if TYPE_CHECKING:
    from collections.abc import Sequence


PREFIX = "perimetry."

DEFAULT_SIZE = 224

LARGEST = 16_384
"""Maximum pixels per side; a larger declared input means a damaged file."""

IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}

DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
}


@dataclass(frozen=True)
class ImageInput:
    """The graph input for the image; None stands for an open size."""

    name: str
    dtype: str
    dims: tuple[int | None, int | None, int | None, int | None]


def image_input(proto: onnx.ModelProto, name: str | None = None) -> ImageInput:
    """Return the image input of the file: the named one, or the only one that can be an image.

    Raises `InputError` when there is none, or when another input has no value.
    """
    inputs = free_inputs(proto)
    named = [i for i in inputs if i.name == name]
    likely = named or [i for i in inputs if _image_like(i)] or inputs
    if len(likely) != 1:
        names = ", ".join(f"{printable(i.name)!r} ({describe(i)})" for i in likely[:8]) or "none"
        raise InputError(
            f"{len(likely)} inputs of the file can be the image: {names}; expected one, or the "
            "name: --input image=NAME"
        )
    if len(inputs) > 1:
        raise InputError(ask_for(inputs, likely[0].name))
    kind = inputs[0].type.tensor_type
    dims = tuple(_size(d) for d in kind.shape.dim)
    shown = printable(inputs[0].name)
    if len(dims) != 4 or any(d is not None and not 0 < d <= LARGEST for d in dims):
        raise InputError(
            f"input {shown!r} has shape {list(dims)}; expected an image batch: four axes, sizes 1 "
            f"to {LARGEST}"
        )
    if kind.elem_type not in DTYPES:
        given = describe(inputs[0]).partition(" of ")[0].upper() if kind.elem_type else "no type"
        raise InputError(f"input {shown!r} is of {given}; expected one of {list(DTYPES.values())}")
    return ImageInput(inputs[0].name, DTYPES[kind.elem_type], dims)


def _image_like(value: onnx.ValueInfoProto) -> bool:
    """Whether an input has four axes, one of which may be the channels of an image."""
    kind = value.type.tensor_type
    dims = [_size(d) for d in kind.shape.dim]
    return (
        len(dims) == 4
        and kind.elem_type in DTYPES
        and not {dims[1], dims[3]}.isdisjoint({1, 3, None})
    )


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    """A declared size; exporters also write open sizes as 0 or -1."""
    return dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None


def read_spec(proto: onnx.ModelProto, image: ImageInput) -> InputSpec:
    """Return the spec in the file's metadata if it has one, else a guess with its guessed fields.

    Raises `InputError` for images of neither one nor three channels.
    """
    stated = _stated(proto)
    if stated is not None:
        return stated
    layout, known_layout = _layout(proto, image)
    _, channels, height, width = (
        image.dims if layout == "NCHW" else (image.dims[0], image.dims[3], *image.dims[1:3])
    )
    stored_channels = channels or _first_channels(proto)
    channels = stored_channels or 3
    if channels not in (1, 3):
        raise InputError(
            f"the input of the file has {channels} channels; expected 1 (grey) or 3 (colour)"
        )
    guessed = ["mean", "std", "value_range", "interpolation", "crop_pct"]
    guessed += ["channel_order"] * (channels == 3)
    guessed += ["layout"] * (not known_layout) + ["channels"] * (stored_channels is None)
    guessed += [n for n, size in (("height", height), ("width", width)) if size is None]
    return InputSpec(
        height=height or DEFAULT_SIZE,
        width=width or DEFAULT_SIZE,
        channels=channels,
        layout=layout,
        dtype=image.dtype,  # type: ignore[arg-type]
        guessed=tuple(guessed),
        **_range(proto, image, channels),
    )


def _range(proto: onnx.ModelProto, image: ImageInput, channels: int) -> dict[str, Any]:
    """Normalisation: none for bytes or where the graph normalises by itself, else ImageNet's."""
    bare = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    if image.dtype == "uint8":
        return {**bare, "value_range": 255.0}
    white = read_head(proto, image.name).value_range
    if white is not None:
        return {**bare, "value_range": white}
    return dict(IMAGENET) if channels == 3 else bare


def _layout(proto: onnx.ModelProto, image: ImageInput) -> tuple[Any, bool]:
    """The layout, and whether anything says so.

    NHWC when only the last axis can be channels, or when the graph starts by moving it; NCHW when
    only the first can be, or when a convolution reads the image.
    """
    first, last = (image.dims[axis] in (1, 3) for axis in (1, 3))
    if first or last:
        return ("NCHW" if first else "NHWC"), first != last
    head = read_head(proto, image.name)
    if head.axes == (0, 3, 1, 2):
        return "NHWC", True
    return "NCHW", head.reader == "Conv" and head.axes == (0, 1, 2, 3)


def _first_channels(proto: onnx.ModelProto) -> int | None:
    """Input channels of the first convolution whose weight is stored."""
    stored = stored_constants(proto)
    for node in proto.graph.node:
        if node.op_type == "Conv" and node.input[1] in stored:
            group = attribute(node, "group", 1)
            return int(stored[node.input[1]].dims[1] * group)
    return None


def describe_spec(spec: InputSpec) -> str:
    """One line: size, layout, type, channels, range and normalisation."""
    mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (spec.mean, spec.std))
    colour = spec.channel_order if spec.channels == 3 else "grey"
    return (
        f"{spec.height} x {spec.width} (height x width), {spec.layout}, {spec.dtype}, {colour}, "
        f"0..{spec.value_range:g}, mean {mean}, std {std}"
    )


def check_spec(spec: InputSpec, image: ImageInput) -> None:
    """Raise `InputError` when `spec` contradicts the sizes or the type that the file declares."""
    wanted: Sequence[int | None] = (None, spec.channels, spec.height, spec.width)
    if spec.layout == "NHWC":
        wanted = (None, spec.height, spec.width, spec.channels)
    pairs = zip(image.dims, wanted, strict=True)
    if any(None not in pair and pair[0] != pair[1] for pair in pairs) or spec.dtype != image.dtype:
        raise InputError(
            f"the input was given as {list(wanted)} {spec.dtype} ({spec.layout}), but the file "
            f"declares {list(image.dims)} {image.dtype}"
        )


def write_spec(proto: onnx.ModelProto, spec: InputSpec) -> None:
    """Write every field of `spec` to the file's metadata, so that nothing has to be guessed."""
    kept = [p for p in proto.metadata_props if not p.key.startswith(PREFIX)]
    stated = {k: v for k, v in asdict(spec).items() if k != "guessed"}
    entries = [
        onnx.StringStringEntryProto(key=PREFIX + k, value=json.dumps(v)) for k, v in stated.items()
    ]
    set_items(proto.metadata_props, [*kept, *entries])


def _stated(proto: onnx.ModelProto) -> InputSpec | None:
    """Return the spec in the metadata, or None. Raises `ModelFileError` if it is damaged."""
    raw = {k.removeprefix(PREFIX): v for k, v in metadata(proto).items() if k.startswith(PREFIX)}
    if not raw:
        return None
    try:
        values: dict[str, Any] = {
            f.name: json.loads(raw[f.name]) for f in fields(InputSpec) if f.name in raw
        }
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        spec = InputSpec(**values)
        _check_stated(spec)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"the file's own input statement ({PREFIX}*) is damaged: {printable(str(error))}"
        ) from error
    return spec


def _check_stated(spec: InputSpec) -> None:
    """Raise `ValueError` unless `spec` can describe an image."""
    numbers = (*spec.mean, *spec.std, spec.value_range, spec.crop_pct)
    if not all(isinstance(n, int | float) for n in numbers) or 0 in spec.std:
        raise ValueError(f"mean {spec.mean}, std {spec.std}")
    if len(spec.mean) != spec.channels or len(spec.std) != spec.channels:
        raise ValueError(f"{spec.channels} channels, mean {spec.mean}, std {spec.std}")
    if not 0 < spec.height <= LARGEST or not 0 < spec.width <= LARGEST:
        raise ValueError(f"{spec.height} x {spec.width}")
    if spec.layout not in ("NCHW", "NHWC") or spec.dtype not in DTYPES.values():
        raise ValueError(f"layout {spec.layout!r}, type {spec.dtype!r}")
    if spec.channel_order not in ("RGB", "BGR") or not isinstance(spec.interpolation, str):
        raise ValueError(f"order {spec.channel_order!r}, interpolation {spec.interpolation!r}")
