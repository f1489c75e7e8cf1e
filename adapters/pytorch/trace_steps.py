"""The steps of one forward pass of a module, for the rule of `adapters.target_rule`.

A tensor is named by the module whose output it is, else by the function that computed it within a
module's forward: `layer4`, `pool#2` (the second call), `features:relu`, `:add#3`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..readings import Step
from ..target_rule import Way
from ..torch_calls import CallWatcher, running_layers
from .operations import function_name, is_wide, kind_of, order_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


DECIDING = (torch.bool, torch.int64, torch.int32)
"""Types of tensors that select or count; no gradient passes through them."""


def nested_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a nested argument or result, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from nested_tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from nested_tensors(one)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from nested_tensors(list(vars(value).values()))
    elif hasattr(value, "tensors") and isinstance(value.tensors, Tensor):
        yield value.tensors


@dataclass
class Recording:
    """The steps of a pass as far as it has come; `kept` keeps every tensor from being freed.

    With `cut`, a tensor without the gradient of its source does not depend on it, but what is
    `detached` may choose by its values. `stored` are parameters and buffers, `left` is the last
    step whose numbers left torch. `foreign` says that a tensor was met that no function gave; one
    with a gradient depends on the last step.
    """

    cut: bool = True
    stored: set[int] = field(default_factory=set)
    left: int | None = None
    foreign: bool = False
    steps: list[Step] = field(default_factory=list)
    where: dict[int, int] = field(default_factory=dict)
    decided: set[int] = field(default_factory=set)
    constant: set[int] = field(default_factory=set)
    detached: set[int] = field(default_factory=set)
    kept: list[Tensor] = field(default_factory=list)
    modules: dict[int, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, tensor: Tensor, step: Step) -> None:
        """Append the step that computed `tensor`."""
        self.kept.append(tensor)
        self.where[id(tensor)] = len(self.steps)
        self.steps.append(step)

    def positions(self, value: Any) -> tuple[int | None, ...]:
        """The steps of all tensors in `value`, None for those that depend on no image."""
        return tuple(self._position(t) for t in nested_tensors(value))

    def _position(self, tensor: Tensor) -> int | None:
        known = id(tensor) in self.where or id(tensor) in self.constant
        if known or id(tensor) in self.stored:
            return self.where.get(id(tensor))
        self.foreign |= id(tensor) not in self.decided
        if tensor.requires_grad:
            return len(self.steps) - 1
        return self.left

    def note(self, scope: str, function: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Record the results of one call of a function within the forward of module `scope`."""
        name = function_name(function)
        arguments = self.positions(args[:1] if name in SHAPED_AS else (args, kwargs))
        results = list(nested_tensors(out))
        if name in LEAVING and not self.cut:
            self.left = next((a for a in arguments if a is not None), self.left)
        chosen = any(id(t) in self.decided for t in nested_tensors((args, kwargs)))
        live = any(a is not None for a in arguments)
        read = live or any(id(t) in self.detached for t in nested_tensors((args, kwargs)))
        label = self._label(scope, name) if results else ""  # `capture` counts every call too
        if name == "setitem" and live:
            results, name = [args[0]], "cat"
        for number, result in enumerate(results):
            if result.dtype in DECIDING:
                if read or chosen:
                    self.kept.append(result)
                    self.decided.add(id(result))
                    self.where.pop(id(result), None)
            elif live and not (self.cut and name in CUTTING):
                chosen |= number > 0 and kind_of(name, arguments) == "recurrent"
                self.add(result, _step(label, name, arguments, args, kwargs, result, chosen))
            else:  # seen, and without a gradient of the image
                self.kept.append(result)
                self.constant.add(id(result))
                self.detached |= {id(result)} if read else set()

    def _label(self, scope: str, name: str) -> str:
        self.calls[f"{scope}:{name}"] += 1
        return f"{scope}:{name}#{self.calls[f'{scope}:{name}']}"

    def reached(self, name: str) -> bool:
        """Whether the module or function `name`, as `named` gives it, has returned."""
        base, _, call = name.partition("#")
        return self.calls[base] >= int(call or 1)

    def finished(self, name: str, inputs: Any, out: Any, *, root: bool) -> None:
        """Name the results of a module; those of unseen code depend on all of its inputs."""
        self.calls[name] += 1
        before = self.positions(inputs)
        for result in nested_tensors(out):
            if id(result) not in self.where and any(a is not None for a in before):
                if result.dtype in DECIDING or id(result) in self.constant:
                    continue
                self.add(result, Step(name, "other", before, tuple(result.shape)))
            place = self.where.get(id(result))
            if place is not None and place not in before and isinstance(out, Tensor) and not root:
                self.modules[place].append((name, self.calls[name]))

    def named(self) -> tuple[list[Step], dict[str, int]]:
        """The steps under the names by which `capture` finds them again; the step of every name.

        A step has the name of the outermost module whose output it is. Numbers of calls are left
        out where there was one.
        """
        places = {self._short(s.name): i for i, s in enumerate(self.steps)}
        steps = [replace(s, name=self._short(s.name)) for s in self.steps]
        for place, names in self.modules.items():
            shown = [self._short(f"{name}#{call}") for name, call in names]
            places.update(dict.fromkeys(shown, place))
            steps[place] = replace(steps[place], name=shown[-1])
        return steps, places

    def _short(self, name: str) -> str:
        base, _, call = name.rpartition("#")
        return base if call == "1" and self.calls[base] == 1 else name


CUTTING = {"detach", "data", "grad"}
"""Functions whose result passes no gradient on."""

SHAPED_AS = {"view_as", "reshape_as", "expand_as", "type_as"}
"""Functions that read no more of their second tensor than its shape or type."""

LEAVING = {"numpy", "array", "tolist"}
"""Functions by which numbers leave torch; tensors that no function has made may have them."""


def _step(
    label: str,
    name: str,
    arguments: tuple[int | None, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Tensor,
    chosen: bool,
) -> Step:
    kind = kind_of(name, arguments)
    if name in ("grid_sample", "roi_align"):
        arguments, chosen = arguments[:1], True
        kind = "select"
    return Step(
        label,
        kind,
        arguments,
        tuple(result.shape),
        order=order_of(name, args, kwargs) if kind == "permute" else (),
        wide=is_wide(kind, args),
        selected=chosen,
        floating=result.is_floating_point(),
    )


class _Recorder(CallWatcher):
    """Notes every function of torch that is called while it is active."""

    def __init__(self, recording: Recording, scopes: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.recording = recording
        self.scopes = scopes

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Note the call if it gives tensors or takes numbers out of torch."""
        if isinstance(out, Tensor | tuple | list) or function_name(func) in ("setitem", *LEAVING):
            self.recording.note(self.scopes[-1][0], func, args, kwargs, out)


@dataclass(frozen=True)
class Trace:
    """A recorded pass: its way, its result, the step of every name, how often each was called."""

    way: Way
    out: Any
    places: Mapping[str, int]
    calls: Mapping[str, int]
    foreign: bool = False


def trace_way(
    module: nn.Module,
    x: Tensor,
    size: tuple[int, int],
    prefix: int | None = None,
    run: Callable[[Tensor], Any] | None = None,
    until: str | None = None,
) -> Trace:
    """Record one pass of `module` (or `run`, a method of it) over `x`.

    Where no gradient leads to the output, as behind `detach`, the numbers are followed alone. What
    is computed outside torch's functions, as in a custom autograd function or under
    `torch.func.vmap`, is known to depend on the image by its gradient, in a second pass.

    A pass that breaks behind the module or function `until` is recorded as far as it came.

    `size` is (height, width) in pixels.
    """
    found = _record(module, x, size, prefix, run, until, cut=True)
    if found.foreign:
        with torch.enable_grad():
            x = x.detach().requires_grad_().clone()
            found = _record(module, x, size, prefix, run, until, cut=True)
    if found.way.outputs or until is not None:
        return found
    whole = _record(module, x, size, prefix, run, until, cut=False)
    return whole if whole.way.outputs else found


def _record(
    module: nn.Module,
    x: Tensor,
    size: tuple[int, int],
    prefix: int | None,
    run: Callable[[Tensor], Any] | None,
    until: str | None,
    *,
    cut: bool,
) -> Trace:
    stored = {id(t) for t in (*module.parameters(), *module.buffers())}
    recording = Recording(cut, stored)
    scopes: list[tuple[str, nn.Module]] = [("", module)]
    recording.add(x, Step("image", "other", (), tuple(x.shape)))
    handles = [
        one.register_forward_hook(_finisher(recording, name), with_kwargs=True)
        for name, one in module.named_modules()
    ]
    out = None
    try:
        with running_layers(module, scopes), _Recorder(recording, scopes):
            out = (run or module)(x)
    except Exception:
        if until is None or not recording.reached(until):
            raise
    finally:
        for handle in handles:
            handle.remove()
    outputs = [p for p in recording.positions(out) if p is not None]
    steps, places = recording.named()
    way = Way(steps, tuple(dict.fromkeys(outputs)), size, len(x), prefix)
    return Trace(way, out, places, recording.calls, recording.foreign)


def _finisher(recording: Recording, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        recording.finished(name, (args, kwargs), out, root=not name)

    return hook
