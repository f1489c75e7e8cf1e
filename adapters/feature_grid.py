"""Layouts in which a tensor is a grid of units: NCHW, NHWC or tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor


STRIDE_TOLERANCE = 0.25

PREFIXES = (0, 1, 2, 4, 5)
"""Numbers of class and register tokens that may precede the tokens of a map."""


class TargetChoice(Enum):
    """How a map was chosen as the target."""

    RULE = auto()
    """By `target_rule`, or because the model itself gives it as its features."""

    DETOUR = auto()
    """By the rule, and other paths go around it."""

    BRANCH = auto()
    """By the rule, and a part of the output does not depend on it."""

    NAMED = auto()
    """By the user, who named it."""

    SCALE = auto()
    """As the last map of a resolution, measured beside the target by the rule."""

    OUTPUT = auto()
    """As the output with the most units, for suites about dense outputs."""


@dataclass(frozen=True)
class Grid:
    """The layout by which a target tensor is read as (batch, channels, height, width).

    `kind` is NCHW, NHWC, NLC (batch, tokens, channels), NCL or LNC; `prefix` tokens (class,
    register) come first and are dropped. `height` and `width` count units. `reason` is a sentence
    that says why this tensor was taken, for readers; code asks `choice`, which is None before a
    tensor is taken. A choice is no part of the text of a grid, which enters the keys of records.
    """

    name: str
    kind: Literal["NCHW", "NHWC", "NLC", "NCL", "LNC"]
    channels: int
    height: int
    width: int
    prefix: int = 0
    reason: str = field(default="", compare=False)
    choice: TargetChoice | None = field(default=None, compare=False, repr=False)

    @property
    def batch_axis(self) -> int:
        """The axis of the images in the raw tensor."""
        return int(self.kind == "LNC")

    def chosen_like(self, other: Grid) -> Grid:
        """Return this grid as a target that was chosen as `other` was, for the same reason."""
        return replace(self, reason=other.reason, choice=other.choice)

    def read(self, raw: Tensor) -> Tensor:
        """View `raw` as (batch, channels, height, width); differentiable."""
        if self.kind == "NCHW":
            return raw
        if self.kind == "NHWC":
            return raw.permute(0, 3, 1, 2)
        order = {"NLC": (0, 1, 2), "NCL": (0, 2, 1), "LNC": (1, 0, 2)}[self.kind]
        tokens = raw.permute(order)[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(tokens), -1, self.height, self.width)


def find_grid(
    name: str, raw: Tensor, input_size: tuple[int, int], prefix: int | None = None
) -> Grid | None:
    """Return the grid that a tensor's shape describes, or None when it is not a grid of units.

    `raw` is (batch, ...); `input_size` is (height, width) in pixels. A grid has at least two units
    along one axis, and about the same stride along both. Token tensors may begin with `prefix`
    tokens that are not units; None tries 0, 1, 2, 4 and 5.
    """
    if not raw.is_floating_point():
        return None
    return grid_of_shape(name, tuple(raw.shape), input_size, prefix)


def grid_of_shape(
    name: str, shape: tuple[int, ...], input_size: tuple[int, int], prefix: int | None = None
) -> Grid | None:
    """`find_grid` for the shape of a tensor of floats."""
    if len(shape) == 4:
        if _is_grid(shape[2:], input_size):
            return Grid(name, "NCHW", shape[1], *shape[2:])
        if _is_grid(shape[1:3], input_size):
            return Grid(name, "NHWC", shape[3], *shape[1:3])
        return None
    if len(shape) != 3:
        return None
    for kind, tokens, channels in (("NLC", shape[1], shape[2]), ("NCL", shape[2], shape[1])):
        for skip in PREFIXES if prefix is None else (prefix,):
            size = _token_size(tokens - skip, input_size)
            if size is not None:
                return Grid(name, kind, channels, *size, prefix=skip)  # type: ignore[arg-type]
    return None


def _is_grid(size: tuple[int, ...], input_size: tuple[int, int]) -> bool:
    """Whether `size` units cover `input_size` pixels with strides that differ by a quarter at most.

    Unpadded networks lose the same number of units along both axes, so strides may differ a little.
    """
    (h, w), (height, width) = size, input_size
    if h * w < 2 or h > height or w > width:
        return False
    rows, columns = height / h, width / w
    return abs(rows - columns) <= STRIDE_TOLERANCE * max(rows, columns)


def _token_size(tokens: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the (height, width) of a grid of `tokens` units over `input_size`, or None."""
    if tokens < 4:
        return None
    height, width = input_size
    h = round((tokens * height / width) ** 0.5)
    if h < 1 or tokens % h or h > height:
        return None
    w = tokens // h
    return (h, w) if abs(h * width / height - w) < 1 else None


T = TypeVar("T")


class StageCollector(Generic[T]):
    """Collects the last grid at each resolution, from the input down to the target.

    A grid larger than an earlier one is not collected: it is a matrix of attention weights or an
    upsampled map.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], T] = {}
        self._smallest = float("inf")

    def add(self, grid: Grid, thing: T) -> None:
        """Add the next `grid` in execution order."""
        if grid.height * grid.width <= self._smallest:
            self._smallest = grid.height * grid.width
            self._kept[grid.height, grid.width] = thing

    def end(self, target: Grid, thing: T) -> list[T]:
        """Return the collected items in order, with `target` in the last place."""
        self._kept.pop((target.height, target.width), None)
        return [*self._kept.values(), thing]


SPLIT = {"NCHW": "NCHrWc", "NHWC": "NHrWcC"}
"""Axes of a map whose rows and columns are split into blocks of r x c units."""

JOINED = {"NCHW": slice(1, 4), "NHWC": slice(3, 6)}
"""The axes of a transposed map that become channels."""


def has_blocks_as_channels(
    grid: Grid, split: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]
) -> bool:
    """Whether a tensor of `shape` is the map `grid` with blocks of its units as channels.

    The map was viewed with the shape `split`, its axes were put in this `order` and joined.
    """
    axes = SPLIT.get(grid.kind, "")
    if len(axes) != len(split) or len(order) != len(axes):
        return False
    size = dict(zip(axes, split, strict=True))
    block = size["r"] * size["c"]
    whole = (size["H"] * size["r"], size["W"] * size["c"]) == (grid.height, grid.width)
    turned = [axes[k] for k in order]
    del turned[JOINED[grid.kind]]
    size["C"] *= block
    joined = tuple(size[axis] for axis in grid.kind)
    return block > 1 and whole and turned == list("NHW") and shape == joined
