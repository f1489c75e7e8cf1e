"""Units of which the share of a sum depends on means and variances, which are not followed.

Of n units the largest is positive more often than one of them, and varies less: of 9 normal ones it
is in 998 of 1,000, and its variance is 0.36. So more of it passes a rectifier before or behind it
than the half that is counted, and a norm behind it divides by less than it counts. So does a layer
or group norm behind an activation, whose mean it takes off. A mean of activations keeps what these
are on average, and so is larger than one of units around 0: a norm behind it divides by more, and
what it multiplies grows. (Batch and instance norms leave out what is constant over the map.) So it
is of products that are summed over the places of a map, as keys times values are in linear
attention: two functions of one map go together, so that the sum grows with the places, and not with
their root. Where all paths pass the same of these the map is the same; where one of several does,
its share is wrong. So it is where a norm reads activations that are joined to other units, as it
divides both by the same, or takes off of both what these have on average.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ...adapters.torch_calls import MaxPool, MeanPool
from .mixtures import (
    ACTIVATIONS,
    ADAPTIVE,
    ADAPTIVE_MAXIMA,
    JOINS,
    LARGEST_OF_AXES,
    MATRIX_PRODUCTS,
    MAX_POOLS,
    MAXIMA_OF_UNITS,
    MEANS,
    NORMS,
    ODD,
    POOLS,
    PRODUCTS_OF_UNITS,
    QUOTIENTS,
    STACKS,
    summed_axes,
)
from .nonnegative import is_not_negative
from .remarks import is_statistic
from .rule_table import is_energy, is_weight
from .summed_places import summed_places, sums_places
from .windows import pool_windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

MEAN_TAKEN_OFF = frozenset({"layer_norm", "group_norm"})
"""Norms that take off the mean over the channels, and not that of each channel."""

OF_CHANNELS = frozenset({"batch_norm", "native_batch_norm", "instance_norm"})
"""Norms that take off the mean of each channel over the map."""

_MAXIMA = "maxima pass activations and vary as other units do, to which {!r} joins them"
_MEANS = "activations have no mean that a norm takes off, where {!r} joins them to others"
_AVERAGED = "means of activations are as small as means of units around 0, where {!r} joins them"
_CHOSEN = "{!r} keeps each as often, though an activation made one"
_NORMED = "activations and other units that are joined have like means and variances, for {!r}"
_PRODUCTS = "products summed over places are as small as independent ones, where {!r} joins them"

_MARK = "steps_passed"


class _Step(NamedTuple):
    """A maximum, mean or sum of so many `entries`, or a norm, and what is assumed of it."""

    assumed: str
    entries: int = 1


@dataclass(frozen=True)
class _Passed:
    """How often units passed which steps: `felt` ones change their share of a sum.

    `waiting` ones do so behind an activation or a norm, means behind a norm alone.
    `rectified`: an activation made the units, or they are not negative, and no random weights have
    mixed them since.
    `over_places` is what is assumed of a mean of them over the map, if they are not around 0 there:
    behind an activation or a product, of which random weights keep the mean, and batch norms not.
    `apart`: activations made some channels, or these wait, and not others, and no random weights
    have mixed them since.
    """

    felt: Counter[_Step] = field(default_factory=Counter)
    waiting: Counter[_Step] = field(default_factory=Counter)
    rectified: bool = False
    over_places: str = ""
    apart: bool = False

    @property
    def all(self) -> Counter[_Step]:
        """Those that are felt behind a norm."""
        return self.felt + self.waiting

    @property
    def maxima(self) -> Counter[_Step]:
        """The waiting ones that are maxima: the others are means or sums."""
        return Counter({s: n for s, n in self.waiting.items() if s.assumed == _MAXIMA})

    @property
    def kind(self) -> tuple[bool, frozenset[tuple[_Step, int]]]:
        """What a comparison or an activation of channels rests on."""
        return self.rectified, frozenset(self.maxima.items())


_NOTHING = _Passed()


def follow_shares(
    name: str,
    results: Sequence[Tensor],
    tensors: Sequence[Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> str | None:
    """Note on the `results` what they passed; what is assumed if only some terms did.

    `tensors` are those of the arguments.
    """
    energies = [t for t in tensors if is_energy(t)]
    results = [t for t in results if is_energy(t)]
    behind = [getattr(t, _MARK, _NOTHING) for t in energies]
    before = _together(behind)
    found = _through(name, before, tensors, results)
    if name in STACKS and len({one.kind for one in behind}) > 1:
        found = replace(found, apart=True)
    step = _step(name, energies, results, args, kwargs)
    if step is not None and step.entries > 1:
        found = _after(found, step, of_places=sums_places(energies, step.entries))
    if found != _NOTHING:
        for t in results:
            setattr(t, _MARK, found)
    products = PRODUCTS_OF_UNITS | MATRIX_PRODUCTS
    joins = name in JOINS | products | MAXIMA_OF_UNITS
    if name in products | MAXIMA_OF_UNITS and len(behind) > 1:  # sizes count at once
        behind = [_Passed(one.all) for one in behind]
    differ = _difference(behind) if joins else Counter()
    if before.apart and _activates(name, results):
        differ += before.maxima
    if before.apart and name in NORMS:
        differ[_Step(_NORMED)] += 1
    if before.apart and _compares_channels(name, energies, args, kwargs):
        differ[_Step(_CHOSEN)] += 1
    return min(differ).assumed.format(name) if differ else None


def _compares_channels(
    name: str, energies: Sequence[Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    """Whether the function keeps the largest of units along axes of which one is the second."""
    if name not in LARGEST_OF_AXES or len(energies) > 1:
        return False
    return 1 in (summed_axes(args, kwargs) or (1,))


def _difference(behind: Sequence[_Passed]) -> Counter[_Step]:
    """The steps that some units passed more often than others."""
    most, least = Counter[_Step](), behind[0].felt if behind else Counter[_Step]()
    for one in behind:
        most, least = most | one.felt, least & one.felt
    return most - least


def _through(
    name: str, passed: _Passed, tensors: Sequence[Tensor], results: Sequence[Tensor]
) -> _Passed:
    """What the results of a function passed that is no maximum."""
    if _activates(name, results):
        means = passed.waiting - passed.maxima
        return _Passed(passed.felt + passed.maxima, means, rectified=True, over_places=_AVERAGED)
    if name in NORMS or _divides(name, tensors):
        felt = passed.felt + passed.maxima if name in OF_CHANNELS else passed.all
        if name in MEAN_TAKEN_OFF and passed.rectified:
            felt[_Step(_MEANS)] += 1
        over_places = "" if name in OF_CHANNELS else passed.over_places
        return _Passed(felt, rectified=passed.rectified, over_places=over_places)
    if any(is_weight(t) for t in tensors):
        return replace(passed, rectified=False, apart=False)
    if name in PRODUCTS_OF_UNITS and all(map(is_energy, tensors)) and len(tensors) > 1:
        return replace(passed, over_places=_PRODUCTS)
    if any(map(is_not_negative, results)):
        return replace(passed, rectified=True, over_places=_AVERAGED)
    return passed


def _activates(name: str, results: Sequence[Tensor]) -> bool:
    """Whether the function is an activation that passes a half, or is written as one."""
    return name in ACTIVATIONS - ODD or any(hasattr(t, "rectified") for t in results)


def _together(behind: Sequence[_Passed]) -> _Passed:
    """What units passed that have these units behind them: of alike steps the most."""
    if not behind:
        return _NOTHING
    first, *others = behind
    for other in others:
        if other is not first:
            first = _Passed(
                first.felt | other.felt,
                first.waiting | other.waiting,
                first.rectified or other.rectified,
                first.over_places or other.over_places,
                first.apart or other.apart,
            )
    return first


def _after(passed: _Passed, step: _Step, *, of_places: bool) -> _Passed:
    """With one more step: a maximum of rectified units is felt at once, their mean behind norms.

    So is a mean over places of units that are not around 0 there.
    """
    if step.assumed == _MAXIMA and passed.rectified:
        return replace(passed, felt=passed.felt + Counter([step]))
    if step.assumed == _AVERAGED and not passed.rectified:
        if not (passed.over_places and of_places):
            return passed
        step = _Step(passed.over_places, step.entries)
    return replace(passed, waiting=passed.waiting + Counter([step]))


def _step(
    name: str,
    energies: Sequence[Tensor],
    results: Sequence[Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> _Step | None:
    """What a function of several units does with them: keep one, or return their mean or sum."""
    if name in MAXIMA_OF_UNITS and len(energies) > 1:
        return _Step(_MAXIMA, len(energies))
    if name in MATRIX_PRODUCTS and len(energies) > 1:
        return _Step(_PRODUCTS, summed_places(name, args))
    if name in MAX_POOLS | POOLS:
        pool = MaxPool if name in MAX_POOLS else MeanPool
        call = pool(*args, **kwargs)
        entries = prod(w.kernel for w in pool_windows(call, call.input.ndim - 2))
    elif name in LARGEST_OF_AXES | ADAPTIVE_MAXIMA | MEANS | ADAPTIVE and results:
        entries = energies[0].numel() // max(1, results[0].numel())
    else:
        return None
    maxima = name in MAX_POOLS | LARGEST_OF_AXES | ADAPTIVE_MAXIMA
    return _Step(_MAXIMA if maxima else _AVERAGED, entries)


def _divides(name: str, tensors: Sequence[Tensor]) -> bool:
    """Whether the function divides units by a norm of them, as norms that are written out do."""
    return name in PRODUCTS_OF_UNITS | QUOTIENTS and any(map(is_statistic, tensors))
