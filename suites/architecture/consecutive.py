"""Fixed mixtures of units that follow one another, which the expected energies take as independent.

The squared coefficients of two fixed linear functions in a row are not the product of each one's:
what a unit passes on by several units between adds up in amplitude. Random weights or activations
between them end this; moves, sums and norms do not. Pools of one input beside it are summed
exactly, see `mean_pool_mixes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .rule_table import is_energy, is_weight
from .span_table import MOVES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POOLS = frozenset({"avg_pool1d", "avg_pool2d", "dilated_avg_pool2d"})
FILTERS = frozenset({"conv1d", "conv2d", "conv_transpose2d"})
RESAMPLINGS = frozenset({"interpolate", "upsample", "grid_sample"})
KEEPS = MOVES | frozenset(
    """
    add iadd radd sub isub rsub mul imul rmul div truediv neg pad cat stack contiguous clone to
    batch_norm group_norm layer_norm instance_norm dropout
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions behind which what units share still adds up."""


def note_mixture(
    name: str, where: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> str | None:
    """Mark `out` if its units are mixed; the two functions in words if its input was marked."""
    x = args[0] if args else kwargs.get("input")
    inputs = [t for t in (x if isinstance(x, list | tuple) else args) if is_energy(t)]
    before = next((found for t in inputs if (found := getattr(t, "mixed_by", None))), None)
    reads, spreads = _mixes(name, args, kwargs) if is_energy(x) else (False, False)
    own = f"{name!r}{where}"
    mark = own if spreads else before if reads or name in KEEPS else None
    for t in out if isinstance(out, list | tuple) else [out]:
        if isinstance(t, Tensor) and is_energy(t):
            t.mixed_by = mark  # type: ignore[attr-defined]
    return f"{own} behind {before}" if reads and before else None


def _mixes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a unit of the result reads several units, and whether several read one."""
    if name == "cumsum":
        return True, True
    if name in RESAMPLINGS:
        nearest = "nearest" in str(
            _argument(args, kwargs, 2 if name == "grid_sample" else 3, "mode")
        )
        return not nearest, True
    if name in POOLS:
        kernel = _sides(_argument(args, kwargs, 1, "kernel_size"))
        stride = _sides(_argument(args, kwargs, 2, "stride")) or kernel
    elif name in FILTERS and not is_weight(weight := _argument(args, kwargs, 1, "weight")):
        kernel = tuple(weight.shape[2:])
        stride = _sides(_argument(args, kwargs, 3, "stride")) or (1,)
    else:
        return False, False
    over = any(kernel[i % len(kernel)] > stride[i % len(stride)] for i in (0, 1))
    several = max(kernel) > 1
    return (over, several) if name == "conv_transpose2d" else (several, over)


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)


def _sides(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)
