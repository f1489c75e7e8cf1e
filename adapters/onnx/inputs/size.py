"""The input size of an ONNX file: found if it is open, changed if the graph allows it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from ...errors import InputError, PerimetryError
from ..files.protos import output_names
from ..session import Session, feed

if TYPE_CHECKING:
    from ...input_spec import InputSpec
    from .spec import ImageInput


SIZES = ((224, 224), (256, 256), (320, 320), (640, 640), (48, 320), (32, 320), (64, 64), (32, 128))
"""Sizes (height, width) to try in this order when the input size of a file is open."""


def fit_size(proto: onnx.ModelProto, image: ImageInput, spec: InputSpec) -> InputSpec:
    """Return `spec` with the first of `SIZES` at which the graph runs, if its size was guessed.

    Raises `InputError` when the graph runs at none of them.
    """
    open_sides = {"height", "width"}.intersection(spec.guessed)
    if not open_sides:
        return spec
    session = Session(proto, output_names(proto))
    tried: dict[tuple[int, int], str] = {}
    for height, width in SIZES:
        sides = {"height": height, "width": width}
        sized = replace(spec, **{k: v for k, v in sides.items() if k in open_sides})  # type: ignore[arg-type]
        if (sized.height, sized.width) in tried:
            continue
        blank = sized.blank().expand(image.dims[0] or 1, -1, -1, -1)
        try:
            session.run({image.name: feed(blank, sized)})
        except InputError as error:
            tried[sized.height, sized.width] = str(error)
            continue
        return sized
    sizes = ", ".join(f"{h} x {w}" for h, w in tried)
    raise InputError(
        f"the file leaves its input size open and runs at none of {sizes}; state it, such as "
        f"--input size=48x320 ({next(iter(tried.values()))})"
    )


def take_size(proto: onnx.ModelProto, image: ImageInput, spec: InputSpec) -> onnx.ModelProto:
    """Return `proto` with the input size of `spec`, if it differs and the graph runs at it.

    Exporters declare the size of their example, which many graphs do not depend on.
    """
    axes = (2, 3) if spec.layout == "NCHW" else (1, 2)
    wanted = dict(zip(axes, (spec.height, spec.width), strict=True))
    if all(image.dims[axis] in (None, size) for axis, size in wanted.items()):
        return proto
    copy = deepcopy(proto)
    del copy.graph.value_info[:]
    declared = next(i for i in copy.graph.input if i.name == image.name)
    for axis, size in wanted.items():
        declared.type.tensor_type.shape.dim[axis].dim_value = size
    for output in copy.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            if axis and len(output.type.tensor_type.shape.dim) > 2:
                dim.Clear()
    blank = spec.blank().expand(image.dims[0] or 1, -1, -1, -1)
    try:
        Session(copy, output_names(copy)).run({image.name: feed(blank, spec)})
    except PerimetryError:
        return proto
    return copy
