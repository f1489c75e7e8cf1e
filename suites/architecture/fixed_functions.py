"""Fixed linear functions that follow one another, whose amplitudes add before they are squared.

The squared coefficients of two fixed mixtures of units in a row (mean pools, interpolations, fixed
filters, running sums) are not the product of each one's: what a unit passes on by several units
between adds up in amplitude, and so does what a filter reads of several copies of a unit, such as
reflected borders. So an energy behind such a function carries a `Chain`: the tensor that
it is computed from, and the functions since then. Where the next mixture reads it, the coefficients
of the whole chain are squared and applied to that tensor. Random weights and activations end a
chain. Sums do not end what units share, but the chain is no longer known; only a note can say so.
Pools of one input beside it are summed exactly, see `mean_pool_mixes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...adapters.torch_calls import (
    Convolution,
    Interpolation,
    MeanPool,
    Padding,
    TransposedConvolution,
    each_axis,
)
from .compact import annotate, compress, pointwise, widen
from .rule_table import LIKE_ANOTHER, MOVES, history_of, is_energy, is_weight
from .squared_coefficients import squared_coefficients
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Function = Callable[[Tensor], Tensor]

POOLS = frozenset({"avg_pool1d", "avg_pool2d", "dilated_avg_pool2d"})
FILTERS: dict[str, Callable[..., Convolution | TransposedConvolution]] = {
    "conv1d": Convolution,
    "conv2d": Convolution,
    "conv_transpose2d": TransposedConvolution,
}
RESAMPLINGS = frozenset({"interpolate", "upsample", "grid_sample"})
MIXTURES = POOLS | FILTERS.keys() | RESAMPLINGS | {"cumsum", "adaptive_avg_pool2d", "mean", "sum"}
PRODUCTS = frozenset({"matmul", "mm", "bmm", "linear", "fold"})
"""Mixtures by a fixed matrix, whose coefficients are not looked into."""
COPIES = frozenset(
    """
    expand gather take_along_dim pad repeat_interleave repeat tile index_select getitem
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that may copy units, as padding with reflected ones does."""
FOLLOWED = COPIES | frozenset(
    """
    permute transpose swapaxes swapdims movedim moveaxis roll flip narrow flatten contiguous
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Moves that a chain follows: those that do not name the number of images or channels."""
FACTORS = frozenset(
    """
    add iadd radd sub isub mul imul rmul div truediv neg contiguous clone to type type_as float
    double half bfloat16 cpu cuda positive batch_norm group_norm layer_norm instance_norm dropout
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that multiply the energies of all units by one number, or may do so."""
KEEPS = (
    MOVES
    | FACTORS
    | frozenset(
        """
    rsub pad cat stack where masked_fill tril triu lerp addcmul einsum
    """.split()  # noqa: SIM905 - easier to read than a column of names
    )
)
"""Functions behind which what units share still adds up."""


@dataclass(frozen=True)
class Chain:
    """A tensor as the result of fixed linear `steps`, one after another, of `origin`.

    `origin` has the axes (batch, channels, *units) or (batch, *units, channels); every step treats
    all channels alike. `factor` (batch,) multiplies the energy besides. The slices `approximate` of
    the batch were computed otherwise, by the product of the rules. `mixture` is the last function
    that mixed units, in words. Without `steps` the tensor is no longer such a result, but its units
    still share what that function mixed.
    """

    origin: Tensor
    factor: Tensor
    mixture: str
    steps: tuple[Function, ...] = ()
    approximate: tuple[slice, ...] = ()

    def energy(self, product: Tensor) -> Tensor | None:
        """The energies that `product`, of the rules alone, approximates; None if out of reach."""
        units = product.shape[2:]
        for axis in dict.fromkeys((1, self.origin.ndim - 1)):
            small = compress(self.origin, [axis]).movedim(axis, 1)
            squares = squared_coefficients(self._run, axis, small.shape[2:], units)
            if squares is not None:
                inputs = small.flatten(2).flatten(0, 1).to(torch.float64)
                outputs = torch.sparse.mm(squares, inputs.T).T.reshape(*small.shape[:2], *units)
                return self._exact(widen(outputs, product.shape), product)
        return None

    def _run(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def _exact(self, energies: Tensor, product: Tensor) -> Tensor:
        """`energies` times the factor; of entries that are approximate the `product`."""
        shape = (-1, *(1,) * (product.ndim - 1))
        scaled = pointwise(torch.mul, energies, self.factor.view(shape))
        if not self.approximate:
            return scaled
        rules = torch.zeros(len(product), dtype=torch.bool)
        for part in self.approximate:
            rules[part] = True
        return pointwise(torch.where, rules.view(shape), product, scaled)


def follow(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    out: Any,
    where: str,
    padded: slice | None = None,
) -> tuple[Any, str | None]:
    """Note on the result `out` of a function which chain it continues; return it, and a pair.

    `out` is replaced where squares of two mixtures do not multiply. The pair is of two mixtures, in
    words, whose common coefficients are not known; `where` says in which layer the later one is.
    `padded` is the slice of the batch in which the function has another kernel.
    """
    name = func.__name__.strip("_")
    x = args[0] if args else None
    inputs = [t for t in (x if isinstance(x, list | tuple) else args) if is_energy(t)]
    inputs = inputs[:1] if name in LIKE_ANOTHER else inputs
    x = inputs[0] if name in PRODUCTS and inputs else x
    before: Chain | None = next((c for t in inputs if (c := getattr(t, "chain", None))), None)
    if not (isinstance(x, Tensor) and is_energy(x) and is_energy(out)):
        ended = before and _ended(before, name)
        for t in out if isinstance(out, list | tuple) else [out]:
            _mark(t, ended)
        return out, None
    reads, spreads = _mixes(name, args, kwargs)
    spreads = spreads or (name in COPIES and _copies(name, args, kwargs, x, out))
    if before is None and not spreads:
        return out, None
    own, pair = f"{name!r}{where}", None
    known = before.steps if before is not None else ()
    start = before or Chain(x, torch.ones(len(x), dtype=torch.float64), own)
    chain = None
    if len(inputs) == 1 and (known or before is None):
        chain = _continued(start, name, func, args, kwargs, out)
    if chain is not None and padded is not None:
        chain = replace(chain, approximate=(*chain.approximate, padded))
    if reads and before is not None:
        exact = chain.energy(out) if chain is not None else None
        if exact is None:
            chain, pair = None, f"{own} behind {before.mixture}"
        else:
            out = annotate(exact, out)
    if chain is None:
        chain = replace(start, steps=()) if spreads or reads else _ended(start, name)
    _mark(out, replace(chain, mixture=own) if chain is not None and spreads else chain)
    return out, pair


def _ended(chain: Chain, name: str) -> Chain | None:
    """The chain behind a function that does not continue it."""
    return replace(chain, steps=()) if name in KEEPS else None


def _mark(t: Any, chain: Chain | None) -> None:
    if isinstance(t, Tensor) and is_energy(t):
        t.chain = chain  # type: ignore[attr-defined]


def _continued(
    chain: Chain, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
) -> Chain | None:
    """`chain` behind one more function of one energy; None if that is no fixed function."""
    step: Function | None = None
    if name in FILTERS:
        step = _filter_step(name, func, args, kwargs)
    elif name == "grid_sample":
        step = _sampling_step(func, args, kwargs)
    elif name in MIXTURES | FOLLOWED:
        step = lambda t: func(t, *args[1:], **kwargs)  # noqa: E731
    elif name in FACTORS and (factor := _factor(args, out)) is not None:
        return replace(chain, factor=chain.factor * factor)
    return None if step is None else replace(chain, steps=(*chain.steps, step))


def _filter_step(
    name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Function | None:
    """A convolution with one fixed filter for every channel."""
    call = FILTERS[name](*args, **kwargs)
    weight = call.weight
    if is_weight(weight) or hasattr(weight, "tap_energy") or weight.shape[1] != 1:
        return None
    if bool((weight != weight[:1]).any()) or call.groups != len(weight):
        return None
    one = weight[:1].to(torch.float64)

    def step(t: Tensor) -> Tensor:
        filters = one.expand(t.shape[1], *one.shape[1:])
        own = replace(call, input=t, weight=filters, bias=None, groups=t.shape[1])
        out: Tensor = func(**vars(own))
        return out

    return step


def _sampling_step(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Function:
    """`grid_sample` at the places of the first image, which are those of all."""
    grid = _argument(args, kwargs, 1, "grid")
    options = {k: v for k, v in kwargs.items() if k not in ("input", "grid")}

    def step(t: Tensor) -> Tensor:
        places = grid[:1].to(torch.float64).expand(len(t), -1, -1, -1)
        out: Tensor = func(t, places, *args[2:], **options)
        return out

    return step


def _factor(args: Sequence[Any], out: Tensor) -> Tensor | None:
    """The number (batch,) by which a function multiplied the energies of all units, if any."""
    x = next(t for t in args if is_energy(t))
    if x.shape != out.shape:
        return None
    have, found = compress(x.detach(), [1]), compress(out.detach(), [1])
    factor = found.flatten(1).mean(1) / have.flatten(1).mean(1)
    scaled = have * factor.view(-1, *(1,) * (have.ndim - 1))
    same = bool(factor.isfinite().all()) and bool(torch.isclose(scaled, found, rtol=1e-9).all())
    return factor.to(torch.float64) if same else None


def _mixes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a unit of the result reads several units, and whether several read one."""
    if name == "cumsum":
        return True, True
    if name in PRODUCTS:
        tensors = tensors_in((args, kwargs))
        fixed = sum(map(is_energy, tensors)) == 1 and not any(map(is_weight, tensors))
        return fixed, fixed
    if name in ("mean", "sum"):
        return _over_units(args, kwargs), False
    if name == "adaptive_avg_pool2d":
        sides = each_axis(_argument(args, kwargs, 1, "output_size"), 2)
        have = args[0].shape[-2:]
        uneven = any(n is not None and h % n for h, n in zip(have, sides, strict=True))
        return True, uneven
    if name in RESAMPLINGS:
        if name == "grid_sample":
            mode = _argument(args, kwargs, 2, "mode") or "bilinear"
        else:
            mode = Interpolation(*args, **kwargs).mode
        return "nearest" not in mode, True
    axes = 1 if name.endswith("1d") else 2
    if name in POOLS:
        call = MeanPool(*args, **kwargs)
        kernel, stride = call.kernel_size, call.stride or call.kernel_size
    elif name in FILTERS and not is_weight((filters := FILTERS[name](*args, **kwargs)).weight):
        kernel, stride = tuple(filters.weight.shape[2:]), filters.stride
    else:
        return False, False
    kernels, strides = each_axis(kernel, axes), each_axis(stride, axes)
    over = any(k > s for k, s in zip(kernels, strides, strict=True))
    several = max(kernels) > 1
    return (over, several) if name == "conv_transpose2d" else (several, over)


def _copies(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor, out: Tensor
) -> bool:
    """Whether a move gives more units than it reads, other than zeros around them."""
    if name == "pad" and Padding(*args, **kwargs).mode == "constant":
        return False
    found, more = history_of(x), out.numel() * len(x) > x.numel() * len(out)
    chosen = [t for t in tensors_in((args[1:], kwargs)) if not t.is_meta and t.dtype != torch.bool]
    lists = args[1] if name == "getitem" and isinstance(args[1], tuple) else args[1:]
    chosen += [torch.tensor(places) for places in lists if name == "getitem" and _is_list(places)]
    more = more or name == "pad" or any(t.unique().numel() < t.numel() for t in chosen)
    channels = (1,) if found is not None and x.shape[2:] == found.grid else (1, -1)
    return more and out.ndim == x.ndim and any(out.shape[c] == x.shape[c] for c in channels)


def _is_list(index: Any) -> bool:
    """Whether an index is a list of places."""
    return isinstance(index, list) and all(type(i) is int for i in index)


def _over_units(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a mean is over more than the channels, taken as the axis 1."""
    axes = _argument(args, kwargs, 1, "dim")
    return axes is None or any(a % args[0].ndim > 1 for a in each_axis(axes, 1))


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)
