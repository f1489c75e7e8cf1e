"""A forward pass in which each torch function is replaced by its energy rule.

Functions that only move entries or query shapes run unchanged; the rules are those of the files in
`rules`, registered in `rule_table.RULES`. The pass also records every convolution and pooling, and
the field of each tensor's units.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...adapters.errors import NotApplicableError, PerimetryError
from ...adapters.exported_operators import as_torch_function
from ...adapters.torch_calls import FunctionMode
from . import channel_runs as energy_runs
from .compact import (
    channel_runs,
    expand,
    pointwise,
)
from .constants import (
    ON_COMPACT_CONSTANTS,
    as_scales,
    on_cpu,
    run_natively,
    run_on_shapes,
    weighs_a_constant,
)
from .fixed_functions import follow
from .in_place import (
    copied,
    forget_change,
    is_stale,
    latest,
    mark_part,
    mark_view,
    replace_in_place,
    replace_whole,
    returns_its_argument,
    works_in_place,
    writable,
)
from .own_names import by_own_names
from .remarks import (
    Approximation,
    Remarks,
    chosen_by_image,
    in_layer,
    leaves_as_number,
    pass_on_gates,
)
from .replaced_calls import ReplacedCall, replaced
from .roots import note_squares, under_root
from .rule_table import (
    LIKE_ANOTHER,
    MOVES,
    RULES,
    history_of,
    is_energy,
    is_weight,
    with_history,
)
from .shares_of_sums import follow_shares
from .tags import CREATIONS, tag, tensors_in
from .uneven_weights import follow_moments
from .windows import History, Layer, LayerWindow, Pair, Upsampling
from .written_softmax import pass_on_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

METADATA = frozenset(
    """
    get set delete size dim stride numel nelement ndimension is_floating_point is_complex
    is_contiguous len hash repr is_tensor device has_names storage_offset element_size
    get_device data_ptr bool iter contains
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that read no entries (names without underscores)."""

LARGEST_WRITTEN = 1 << 22
"""Most entries of one variant that are stored each by itself, to be written to."""

SHAPE_ONLY = MOVES | CREATIONS | {"tril", "triu", "fold", "cumsum"}
"""Functions that apply to energies unchanged: they move, drop or add entries, or read a shape."""


_PASSES = count()


class EnergyTrace(FunctionMode):
    """Runs a forward pass in the energy domain and records its layers and fields.

    `padded[v]` is the index of the layer whose kernel is padded in entry v of the batch, or None.
    With `padded_outputs` the random kernels of transposed convolutions are grown to multiples of
    their strides.
    """

    def __init__(
        self,
        *,
        paths: bool = False,
        padded: Sequence[int | None] = (None,),
        padded_outputs: bool = False,
    ) -> None:
        super().__init__()
        self.number = next(_PASSES)
        self.paths = paths
        self.padded_outputs = padded_outputs
        self.upsamplings: list[Upsampling] = []
        self.padded = tuple(padded)
        self.layers: list[Layer] = []
        self.running: list[tuple[str, nn.Module]] = []  # layers, the innermost last
        self.remarks = Remarks()
        self.changed: list[Tensor] = []  # in place
        self.read_as_constants: list[Tensor] = []  # energies that are statistics, such as a norm's

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of `func` in the energy domain, with its history and fields.

        Raises `NotApplicableError` with the layer if the function has no rule.
        """
        func, args, kwargs = as_torch_function(func, args, kwargs)
        name = func.__name__.strip("_")
        if args and leaves_as_number(func.__name__, args[0]):
            raise NotApplicableError(self._no_rule(name, "it takes numbers out of the image"))
        func, args, kwargs = by_own_names(name, func, args, kwargs)
        if name in METADATA:
            return self._looked_at(name, func, args, kwargs)
        args, kwargs = latest((args, kwargs), tensors_in((args, kwargs)))
        if args and is_energy(args[0]) and returns_its_argument(name, args, kwargs):
            return args[0]
        in_place = works_in_place(func, args, kwargs)
        if in_place or name == "setitem":
            self.changed.append(args[0])
        if in_place and name in MOVES:
            func = getattr(Tensor, name)
        if name == "setitem":
            args = (writable(args[0], args[-1], LARGEST_WRITTEN * len(self.padded)), *args[1:])
            self.changed.append(args[0])
        if name == "copy" and is_energy(args[1]):
            return copied(self.call, args[0], args[1])
        if not self.paths:
            args = under_root(name, args)
        out = self._result(name, func, args, kwargs)
        if not self.paths:
            note_squares(self.call, name, func, args, kwargs, out)
        if not any(map(is_energy, tensors_in((args, out)))):
            return out
        if in_place and isinstance(out, Tensor):
            replace_whole(self.call, args[0], out, operator=func.__name__.startswith("__"))
        elif name == "setitem":
            replace_in_place(args[0], args[0])
        return out

    def _looked_at(self, name: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The result of a function that reads no entries; a tensor is a view of the argument."""
        args = latest(args, tensors_in(args))
        if name == "iter" and is_energy(args[0]):
            return iter(self.call(Tensor.unbind, args, {}))
        out = func(*args, **kwargs)
        if not isinstance(out, Tensor):
            return out
        if is_weight(args[0]) and not is_energy(args[0]):
            if getattr(func, "__self__", None) is Tensor.data:
                return args[0]
            return follow_moments(name, func, args, kwargs, self._random([args[0]], out))
        if any(channel_runs(t) is not None for t in tensors_in(args)):
            out = func(*map(expand, args), **kwargs)
        out = self._followed(func, out, args, kwargs, len(self.layers), list(args[:1]))
        out = self._tagged(name, func, out, args, kwargs)
        self._pass_on(name, tensors_in(args), [out])
        mark_view(name, args[0], [out])
        return out

    def _result(self, name: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The result of a function in the energy domain, and what is known of it."""
        call = replaced(name, args, kwargs, paths=self.paths)
        name, args, kwargs = call.name, call.args, call.kwargs
        tensors = tensors_in((args, kwargs))
        self._refuse_lost_entries(name, tensors)
        self._refuse_unfollowed(name, tensors)
        layer, energies = len(self.layers), [t for t in tensors if is_energy(t)]
        written = call.written if energies else None
        with self._naming(name, tensors):
            if written is not None:
                with self:
                    out = written(*args, **kwargs)
            else:
                out = self._apply(name, func, tensors, args, kwargs)
                out = self._followed(func, out, args, kwargs, layer, energies)
                out = self._tagged(name, func, out, args, kwargs)
        call.mark(out, paths=self.paths)
        if written is None:
            self._remember(call, tensors, out)
        return out

    def _remember(self, call: ReplacedCall, tensors: list[Tensor], out: Any) -> None:
        """Note on the result `out` of a call what it was made of, and what it rests on."""
        name, results = call.name, tensors_in(out)
        self._pass_on(name, tensors, results)
        made = call.args[0] if name == "setitem" else out
        pass_on_masks(name, tensors, tensors_in(made))
        if not self.paths:
            joined = follow_shares(name, results, tensors, call.args, call.kwargs)
            for what in (*call.assumed, *([joined] if joined else [])):
                self.assume(made, what)
        self.remarks.on_result(name, tensors, made, self.layer_name)
        if name == "getitem":
            mark_part(out, *call.args)
        mark_view(name, call.args[0] if call.args else None, results)

    @contextlib.contextmanager
    def _naming(self, name: str, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Say of an error inside which operation it came from, if that handles energies."""
        try:
            yield
        except NotApplicableError as error:
            if str(error).startswith("the operation"):
                raise
            raise NotApplicableError(self._no_rule(name, f"{error}")) from error
        except PerimetryError:
            raise
        except Exception as error:
            if not any(is_energy(t) or t.is_meta for t in tensors):
                raise
            raise NotApplicableError(self._no_rule(name, f"{error}")) from error

    def finished(self, target: Any) -> Any:
        """What the `target` is at the end of the pass, if it was changed in place."""
        found = latest(target, tensors_in(target))
        self._refuse_unfollowed("output", [t for t in tensors_in(found) if is_energy(t)])
        return found

    def let_go(self) -> None:
        """Let go of the tensors of the pass, which those that it changed would keep."""
        for t in self.changed:
            forget_change(t)
        self.changed.clear()

    def _tagged(self, name: str, func: Any, out: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        variants = len(self.padded)
        return tag(name, func, out, args, kwargs, paths=self.paths, variants=variants)

    def _followed(
        self,
        func: Any,
        out: Any,
        args: tuple[Any, ...],
        kwargs: Any,
        layer: int,
        energies: Sequence[Tensor],
    ) -> Any:
        """The result of `func`, exact behind other fixed functions; see `fixed_functions`."""
        if self.paths:
            return out
        padded = None
        if len(self.layers) > layer and layer in self.padded:
            share = len(out) // len(self.padded)
            start = self.padded.index(layer) * share
            padded = slice(start, start + share)
        out, pair = follow(func, args, kwargs, out, energies, self._where(), padded)
        if pair is not None:
            self.remarks.add(out, Approximation(pair))
        return out

    def _apply(
        self, name: str, func: Any, tensors: list[Tensor], args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if any(channel_runs(t) is not None for t in tensors):

            def call(*args: Any, **kwargs: Any) -> Any:
                return self._apply(name, func, tensors_in((args, kwargs)), args, kwargs)

            return energy_runs.apply_to_runs(name, call, args, kwargs)
        energy = any(is_energy(t) for t in tensors)
        rule = RULES.get(name)
        if rule is not None and (energy or weighs_a_constant(name, args)):
            if energy:
                out = rule(self, *args, **kwargs)
                self.remarks.on_gate(name, tensors, out, self.layer_name)
                return out
            return self._amplitude(rule, args, kwargs)
        if not energy and any(t.is_meta for t in tensors):
            out = run_on_shapes(name, func, args, kwargs)
            return follow_moments(name, func, args, kwargs, out)
        if not energy and name in ON_COMPACT_CONSTANTS and isinstance(args[0], Tensor):
            out = self._random(tensors, ON_COMPACT_CONSTANTS[name](func, *args, **kwargs))
            return follow_moments(name, func, args, kwargs, out)
        if energy and name not in SHAPE_ONLY:
            raise NotApplicableError(self._no_rule(name, "it is unknown to this suite"))
        args, kwargs = tuple(map(on_cpu, args)), {k: on_cpu(v) for k, v in kwargs.items()}
        out = run_natively(func, args, kwargs)
        out = out if energy else as_scales(name, args, out)
        if energy or name in CREATIONS or (name in LIKE_ANOTHER and not is_weight(args[0])):
            return out
        return follow_moments(name, func, args, kwargs, self._random(tensors, out))

    def _amplitude(self, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Apply random weights to a constant: the root of the resulting energy."""
        first, *rest = args
        out = rule(self, pointwise(torch.square, first.to(torch.float64)), *rest, **kwargs)
        return pointwise(torch.sqrt, out)

    def _refuse_lost_entries(self, name: str, tensors: list[Tensor]) -> None:
        """Raise if an energy that lost an entry would be used; softmax ignores its input."""
        if any(hasattr(t, "lost_entries") for t in tensors) and name not in {"softmax", "setitem"}:
            raise NotApplicableError(
                self._no_rule(
                    "setitem", "it writes into one of several channels that are stored once"
                )
            )

    def _refuse_unfollowed(self, name: str, tensors: list[Tensor]) -> None:
        """Raise if an argument was computed where the trace does not see it, or is out of date."""
        energies = [t for t in tensors if is_energy(t)]
        if any(history_of(t) is None for t in energies):
            why = "its input comes from code outside torch's functions, such as an extension"
        elif energies and not torch.is_grad_enabled():
            why = "it runs without gradients, as under no_grad or in a custom autograd function"
        elif any(getattr(t, "in_pass", self.number) != self.number for t in energies):
            why = "it reads a tensor of an earlier pass, which the network keeps"
        elif any(is_stale(name, t, written=t is tensors[0]) for t in tensors):
            why = "it reads what was changed in place through a view, or a view of what was"
        elif energies and (chooser := next(filter(None, map(chosen_by_image, tensors)), None)):
            why = f"it reads places or a choice by {chooser!r}, which depend on the image"
        else:
            return
        raise NotApplicableError(self._no_rule(name, why))

    def _random(self, tensors: list[Tensor], out: Any) -> Any:
        """Mark constants that are computed from random weights as random weights too."""
        if any(is_weight(t) for t in tensors):
            for t in tensors_in(out):
                t.random = True  # type: ignore[attr-defined]
        return out

    def _no_rule(self, name: str, detail: str) -> str:
        return f"the operation {name!r}{self._where()} has no energy rule: {detail.splitlines()[0]}"

    def assume(self, out: Tensor, what: str) -> None:
        """Note that `out` rests on `what`, which the network does not say."""
        self.remarks.add(out, Approximation(what, assumed=True, layer=self.layer_name))

    def _pass_on(self, name: str, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Note on the `results` the pass, and what is assumed of a stored matrix in `tensors`."""
        pass_on_gates(name, tensors, results)
        for out in filter(is_energy, results):
            out.in_pass = self.number  # type: ignore[attr-defined]
        for doubt in {t.doubt: None for t in tensors if hasattr(t, "doubt")}:
            for out in results:
                if is_energy(out):
                    self.assume(out, doubt)
                else:
                    out.doubt = doubt  # type: ignore[attr-defined]

    @property
    def layer_name(self) -> str:
        """The name of the layer that is running; empty for the network itself."""
        return self.running[-1][0] if self.running else ""

    def _where(self) -> str:
        return in_layer(self.layer_name)

    def coefficient(self, constant: Tensor | complex) -> Any:
        """The factor by which a constant multiplies an energy or a path count."""
        if isinstance(constant, Tensor):
            if self.paths or constant.is_meta:
                return constant.new_ones((1,) * constant.ndim, device="cpu", dtype=torch.float64)
            return constant.to(torch.float64) ** 2
        return 1.0 if self.paths else abs(constant) ** 2

    def record_layer(
        self,
        kind: str,
        x: Tensor,
        out: Tensor,
        windows: tuple[LayerWindow, LayerWindow],
        groups: int = 1,
    ) -> Tensor:
        """Record one convolution or pooling from `x` to `out` (..., height, width)."""
        origin, size, windows = self._origin(x, windows)
        sources = origin.windows if origin else ((), ())
        grid = (out.shape[-2], out.shape[-1])
        layer = Layer(self.layer_name, kind, windows, groups, size, grid, sources, len(self.layers))
        self.layers.append(layer)
        if origin is not None and x.shape[0] != len(self.padded):
            grid = _grid_of_parts(origin.grid, size, grid)
        return with_history(out, origin.after(windows, grid)) if origin else out

    def record_upsampling(self, kernel: Pair, stride: Pair, dilation: Pair) -> None:
        """Record one transposed convolution."""
        name = self.layer_name or "conv_transpose2d"
        self.upsamplings.append(Upsampling(name, kernel, stride, dilation))

    def _origin(
        self, x: Tensor, windows: tuple[LayerWindow, LayerWindow]
    ) -> tuple[History | None, Pair, tuple[LayerWindow, LayerWindow]]:
        """The history and size before a preceding padding, and windows that include it."""
        found, size = history_of(x), (x.shape[-2], x.shape[-1])
        if found is None or x.shape[0] != len(self.padded):  # windows of a map, not whole maps
            return found, size, windows
        if found.padded is None or found.grid != size:
            return found.regridded(size), size, windows
        before, pads = found.padded
        rows, columns = (
            _with_padding(w, n, p) for w, n, p in zip(windows, before.grid, pads, strict=True)
        )
        return before, before.grid, (rows, columns)

    def variant(self) -> int | None:
        """The batch entry in which the next layer is padded, or None."""
        index = len(self.layers)
        return self.padded.index(index) if index in self.padded else None


def _grid_of_parts(whole: Pair, before: Pair, after: Pair) -> Pair:
    """The grid of a map, `whole`, cut into parts of the size `before` that a layer made `after`."""
    if any(n % b for n, b in zip(whole, before, strict=True)):
        return after
    rows, columns = (n // b * a for n, b, a in zip(whole, before, after, strict=True))
    return rows, columns


def _with_padding(window: LayerWindow, size: int, pads: Pair) -> LayerWindow:
    before, after = pads
    total = max(0, (-(-size // window.stride) - 1) * window.stride + window.extent - size)
    same = total == before + after and before == total // 2 and window.before + window.after == 0
    return replace(
        window, before=window.before + before, after=window.after + after, same=same and total > 0
    )
