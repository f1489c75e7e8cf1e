"""The head of a graph: what it does to the values of the image before its first layer.

The head is the chain of nodes from the image on, each of which is the only reader of the one
before (`Shape` and `Size` do not count): Sub, Add, Mul and Div with stored numbers, Neg, Cast,
Transpose, Identity, and the rounding of quantised files. Any other node ends it. All of it together
is `scale * x + shift`, entry by entry, whatever the order of its nodes, and `value_range` says what
this shows about the image that the file expects:

- A cast to whole numbers, or `scale` below 1/16, such as 1/255: values 0..255, and no other
  normalisation.
- `scale` above 16, such as 255, with a cast behind it or none: values 0..1, and no other
  normalisation.
- The value that becomes 0, `-shift / scale`, is a mean if it is at least 0 in every channel. Then
  the graph normalises by itself: values 0..255 if some mean is above 1, else 0..1.
- Else, such as for one Mul by 1.7 or one Div by 0.229, nothing: a layer may do that too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from ..files.protos import attribute
from .outputs import FLOATING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


ARITHMETIC = ("Sub", "Add", "Mul", "Div")

UNCHANGED = ("Identity", "QuantizeLinear", "DequantizeLinear")
"""Operators that leave the values as they are, up to rounding."""

LONGEST = 64
"""Maximum number of nodes of a head."""

BYTES = 1 / 16
"""Scale below which an image is of 0..255, as its inverse is that above which it is of 0..1."""


@dataclass(frozen=True)
class Head:
    """`scale * x + shift`, in the axes (batch, ...) of the image in the order `axes`.

    `cast` is the value of white that a cast to whole numbers shows, as that keeps 0..255 only;
    `reader` is the operator of the node behind the head, or None where several read its result.
    """

    scale: Array
    shift: Array
    axes: tuple[int, ...] = (0, 1, 2, 3)
    cast: float | None = None
    reader: str | None = None

    @property
    def value_range(self) -> float | None:
        """255 or 1 if the head shows that this is white and that it needs no normalisation."""
        factor = float(np.abs(self.scale).max())
        if self.cast is not None:
            return self.cast
        if factor < BYTES:
            return 255.0
        if factor > 1 / BYTES:
            return 1.0
        mean = -self.shift / self.scale
        if not self.shift.any() or mean.min() < 0 or mean.max() > 255:
            return None
        return 255.0 if mean.max() > 1 else 1.0


def read_head(proto: onnx.ModelProto, image: str) -> Head:
    """Follow the head of the graph from the input `image`."""
    stored = stored_constants(proto)
    makers = {name: node for node in proto.graph.node for name in node.output}
    head, name = Head(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1))), image
    for _ in range(LONGEST):
        users = [
            n for n in proto.graph.node if name in n.input and n.op_type not in ("Shape", "Size")
        ]
        if len(users) != 1:
            return head
        node = users[0]
        known = [_constant(other, stored, makers) for other in node.input if other != name]
        longer = _after(head, node, name, known)
        if longer is None:
            return replace(head, reader=node.op_type)
        head, name = longer, node.output[0]
    return head


def _after(head: Head, node: onnx.NodeProto, name: str, known: list[Array | None]) -> Head | None:
    """`head` with one more node, or None if the node is not of the head."""
    if node.op_type in UNCHANGED and node.input[0] == name:
        return head
    if node.op_type == "Cast":
        to = attribute(node, "to")
        return head if to in FLOATING or head.cast else replace(head, cast=_white_of_bytes(head))
    if node.op_type == "Transpose":
        return _transposed(head, node)
    if node.op_type == "Neg":
        return replace(head, scale=-head.scale, shift=-head.shift)
    if node.op_type not in ARITHMETIC or len(known) != 1 or known[0] is None:
        return None
    return _computed(head, node.op_type, known[0], image_first=node.input[0] == name)


def _white_of_bytes(head: Head) -> float | None:
    """The value of white if `head` makes 0..255 of the image: 255 without scale, 1 with 255."""
    factor = float(np.abs(head.scale).max())
    if factor > 1 / BYTES:
        return 1.0
    return 255.0 if factor >= BYTES else None


def _transposed(head: Head, node: onnx.NodeProto) -> Head | None:
    order = attribute(node, "perm", [3, 2, 1, 0])
    if sorted(order) != [0, 1, 2, 3]:
        return None
    return replace(
        head,
        scale=head.scale.transpose(order),
        shift=head.shift.transpose(order),
        axes=tuple(head.axes[axis] for axis in order),
    )


@np.errstate(over="ignore", invalid="ignore")  # the numbers of a damaged file are of any size
def _computed(head: Head, operator: str, other: Array, *, image_first: bool) -> Head | None:
    """`head` after arithmetic with the numbers `other`, or None if that is not linear."""
    if other.ndim > 4 or not np.isfinite(other).all():
        return None
    other = other.reshape((1,) * (4 - other.ndim) + other.shape)
    scale, shift = head.scale, head.shift
    try:
        if operator == "Add":
            shift = shift + other
        elif operator == "Sub":
            sign = 1 if image_first else -1
            scale, shift = sign * scale, sign * (shift - other)
        else:
            if not other.all() or (operator == "Div" and not image_first):
                return None
            factor = 1 / other if operator == "Div" else other
            scale, shift = scale * factor, shift * factor
        np.broadcast_shapes(scale.shape, shift.shape)
    except ValueError:  # shapes that do not fit; onnxruntime refuses such a graph
        return None
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    return replace(head, scale=scale, shift=shift)


def _constant(
    name: str,
    stored: Mapping[str, TensorProto],
    makers: Mapping[str, onnx.NodeProto],
    depth: int = 4,
) -> Array | None:
    """The numbers of a tensor that does not depend on the image, or None."""
    if name in stored:
        return np.asarray(numpy_helper.to_array(stored[name]), dtype=np.float64)
    node = makers.get(name)
    if node is None or not depth:
        return None
    values = [_constant(i, stored, makers, depth - 1) for i in node.input if i]
    first, *rest = values or [None]
    if first is None:
        return None
    if node.op_type in ("Cast", "Identity"):
        return first
    if node.op_type == "Unsqueeze":
        listed = attribute(node, "axes")
        axes = listed if rest == [] else None if rest[0] is None else rest[0].astype(int).tolist()
        return None if axes is None else np.expand_dims(first, tuple(axes))
    if node.op_type == "DequantizeLinear" and rest and rest[0] is not None:
        zero = rest[1] if len(rest) > 1 and rest[1] is not None else 0.0
        return (first - zero) * rest[0] if rest[0].size == 1 else None
    return None


def stored_constants(proto: onnx.ModelProto) -> dict[str, TensorProto]:
    """The stored tensors by name: initialisers and Constant nodes."""
    stored = {i.name: i for i in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Constant" or not node.attribute:
            continue
        value = node.attribute[0]
        if value.name == "value":
            stored[node.output[0]] = value.t
        elif value.name in ("value_float", "value_floats"):
            numbers = np.float32(value.f) if value.name == "value_float" else list(value.floats)
            stored[node.output[0]] = numpy_helper.from_array(np.asarray(numbers, np.float32))
    return stored
