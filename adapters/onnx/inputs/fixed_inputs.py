"""Files with several inputs: one is the image, the others get a value and become constants."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from ...errors import InputError, check_name
from ..files.protos import printable, set_items

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


LARGEST = 2**20
"""Maximum number of elements of an input that is not the image."""


def fix_inputs(
    proto: onnx.ModelProto, fixed: Mapping[str, Any], image: str | None = None
) -> onnx.ModelProto:
    """Return a copy of `proto` whose inputs in `fixed` are constants; `proto` itself if none is.

    Numbers are repeated to the declared shape, in which open axes count as 1. Raises
    `UnknownNameError` for an input or image that is not in the file, `InputError` for a value that
    does not fit.
    """
    inputs = {i.name: i for i in free_inputs(proto)}
    if image is not None:
        check_name("input", image, inputs)
    if not fixed:
        return proto
    constants = [
        constant_tensor(inputs[check_name("input", n, inputs)], v) for n, v in fixed.items()
    ]
    copy = deepcopy(proto)
    _set_inputs(copy, [i for i in copy.graph.input if i.name not in fixed])
    copy.graph.initializer.extend(constants)
    return copy


def release_inputs(
    proto: onnx.ModelProto, original: onnx.ModelProto, fixed: Mapping[str, Any]
) -> None:
    """Undo `fix_inputs` in `proto`: its inputs are those of `original` again."""
    kept = [i for i in proto.graph.initializer if i.name not in fixed]
    set_items(proto.graph.initializer, kept)
    stored = {i.name for i in kept}
    before = {i.name for i in original.graph.initializer}
    _set_inputs(
        proto, [i for i in original.graph.input if i.name not in before or i.name in stored]
    )


def _set_inputs(proto: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto]) -> None:
    kept = list(inputs)
    set_items(proto.graph.input, kept)


def free_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that have no value in the file."""
    stored = {i.name for i in proto.graph.initializer}
    return [i for i in proto.graph.input if i.name not in stored]


def constant_tensor(value: onnx.ValueInfoProto, given: Any) -> onnx.TensorProto:
    """Make the constant for the input `value`. Raises `InputError` for numbers that do not fit."""
    kind = value.type.tensor_type
    shape = [d.dim_value if d.dim_value > 0 else 1 for d in kind.shape.dim]
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        array = _fitted(np.asarray(given, dtype=dtype), kind, shape)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"input fixed.{printable(value.name)} = {printable(repr(given), 120)} cannot be used "
            f"({printable(str(error), 120)}); expected {describe(value)}"
        ) from error
    return numpy_helper.from_array(np.ascontiguousarray(array), value.name)


def _fitted(numbers: Any, kind: Any, shape: Sequence[int]) -> Any:
    """Return `numbers` as they are if they fit the declared shape, else repeated to `shape`."""
    if max(numbers.size, math.prod(shape)) > LARGEST:
        raise ValueError(f"more than {LARGEST} numbers")
    fits = numbers.ndim == len(shape) and all(
        d.dim_value <= 0 or d.dim_value == n
        for d, n in zip(kind.shape.dim, numbers.shape, strict=True)
    )
    return numbers if fits else np.broadcast_to(numbers, shape)


def describe(value: onnx.ValueInfoProto) -> str:
    """Describe type and shape of an input for a message."""
    kind = value.type.tensor_type
    try:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    except ValueError:
        name = f"type {kind.elem_type}"
    dims = [str(d.dim_value) if d.dim_value > 0 else "any" for d in kind.shape.dim]
    return f"{name} of shape [{', '.join(dims)}]"


def ask_for(inputs: Sequence[onnx.ValueInfoProto], image: str) -> str:
    """Return the message for inputs beside `image` that have no value."""
    others = [i for i in inputs if i.name != image]
    listed = "; ".join(f"{printable(i.name)!r}, {describe(i)}" for i in others[:8])
    example = printable(others[0].name)
    return (
        f"the file takes {len(inputs)} inputs; beside the image {printable(image)!r}: {listed}. "
        f"Give each a value, such as --input fixed.{example}=1, or in the table [fixed] of a TOML "
        "file beside the model; --input image=NAME says which one takes the image"
    )
