"""Take the tensors of a forward pass by the names that `trace_steps` gives them."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..errors import NotApplicableError
from ..torch_calls import CallWatcher, running_layers
from .operations import function_name
from .trace_steps import nested_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Raised at the last tensor that was requested, to end the forward pass there."""


class _Catch:
    """The tensors caught so far; `end` is whether the pass goes on after the last one."""

    def __init__(self, names: Sequence[str], *, end: bool) -> None:
        self.found: dict[str, Tensor] = {}
        self._wanted = {name if _call(name) else f"{name}#1": name for name in names}
        self._calls: Counter[str] = Counter()
        self._end = end

    def see(self, base: str, out: Any) -> None:
        """Count a call of `base`, and keep its result if that is a tensor that was requested."""
        self._calls[base] += 1
        name = self._wanted.get(f"{base}#{self._calls[base]}")
        if name is None:
            return
        tensor = next(nested_tensors(out), None)
        if tensor is not None:
            self.found[name] = tensor
        if not self._end and len(self.found) == len(self._wanted):
            raise _Reached

    def hook(self, base: str) -> Callable[..., None]:
        """A forward hook for the module `base`."""
        return lambda _module, _args, out: self.see(base, out)


class _Functions(CallWatcher):
    """Shows the results of the functions in `bases` (`SCOPE:NAME`) to a `_Catch`."""

    def __init__(self, catch: _Catch, bases: set[str], scopes: list[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self._catch = catch
        self._bases = bases
        self._scopes = scopes

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Show the result if the function is one of `bases`."""
        base = f"{self._scopes[-1][0]}:{function_name(func)}"
        if base in self._bases and next(nested_tensors(out), None) is not None:
            self._catch.see(base, out)


def capture(
    module: nn.Module, x: Tensor, names: Sequence[str], *, to_end: bool
) -> tuple[dict[str, Tensor], Any]:
    """Run `module` on `x`; the tensors called `names`, and with `to_end` the module's own output.

    Raises `NotApplicableError` for a tensor that the pass does not compute.
    """
    catch = _Catch(names, end=to_end)
    bases = {base_name(name) for name in names}
    functions = {base for base in bases if ":" in base}
    out = None
    with contextlib.ExitStack() as stack:
        if functions:
            scopes = [("", module)]
            stack.enter_context(running_layers(module, scopes))
            stack.enter_context(_Functions(catch, functions, scopes))
        for base in bases - functions:
            handle = module.get_submodule(base).register_forward_hook(catch.hook(base))
            stack.callback(handle.remove)
        with contextlib.suppress(_Reached):
            out = module(x)
    missing = [name for name in names if name not in catch.found]
    if missing:
        raise NotApplicableError(f"layer {missing[0]!r} is never called in a forward pass")
    return catch.found, out


def base_name(name: str) -> str:
    """A name without the number of the call."""
    return name.rpartition("#")[0] if _call(name) else name


def _call(name: str) -> bool:
    return name.rpartition("#")[2].isdigit() and "#" in name
