"""Weights of a module: their hash, the scales and norms of initial states, and several sets."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import NOT_FINITE, InputError
from .tensors import copy_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


def module_tensors_digest(module: nn.Module) -> str:
    """Sha256 over names, types, shapes and bytes of all entries of the state dict.

    Quantised tensors count by their integers, scales and zero points. Other entries (extra states)
    count by their contents. Raises `InputError` for weights that have no values yet.
    """
    check_initialised(module)
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(_bytes(f"{name}:{value.dtype}:{tuple(value.shape)};"))
            _add_tensor(digest, value.detach())
        else:
            digest.update(_bytes(f"{name}:{type(value).__qualname__};"))
            _add_object(digest, value)
    return digest.hexdigest()


def _bytes(text: str) -> bytes:
    """A text as bytes; names of tensors in a file may have halves of surrogate pairs."""
    return text.encode(errors="surrogatepass")


def not_finite_weights(module: nn.Module) -> list[str]:
    """A note that names the tensors of `module` with values that are NaN or infinite, or none."""
    found = [
        f"{int((~value.isfinite()).sum())} of {value.numel()} values of {name}"
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor)
        and (value.is_floating_point() or value.is_complex())
        and not bool(value.isfinite().all())
    ]
    return [f"{NOT_FINITE}{', '.join(found[:MOST_NAMES])}"] if found else []


MOST_NAMES = 4


def check_initialised(module: nn.Module) -> None:
    """Raise `InputError` for weights of lazy modules and for tensors on the meta device."""
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise InputError(
                f"{name} of {type(module).__name__} belongs to a lazy module and has no shape "
                "yet; expected initialised weights; call the module once on an input of its size"
            )
        _check_values(name, value, module)


def _check_values(name: str, value: Tensor, module: nn.Module) -> None:
    if value.is_meta:
        raise InputError(
            f"{name} of {type(module).__name__} is on the meta device and has no numbers; load "
            "weights with load_state_dict(..., assign=True), or call to_empty() and initialise"
        )


def _add_tensor(digest: Any, value: Tensor) -> None:
    """Add the bytes of `value` to `digest`; of quantised and sparse tensors, those of its parts."""
    if value.is_quantized:
        digest.update(str(value.qscheme()).encode())
        if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            digest.update(f"{value.q_scale()!r}:{value.q_zero_point()};".encode())
        else:
            digest.update(f"{value.q_per_channel_axis()};".encode())
            _add_tensor(digest, value.q_per_channel_scales())
            _add_tensor(digest, value.q_per_channel_zero_points())
        value = value.int_repr()
    if value.layout != torch.strided:
        value = value.to_dense()
    # Complex conjugates and negatives may be views without bytes of their own.
    value = value.cpu().resolve_conj().resolve_neg().contiguous()
    digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())


def _add_object(digest: Any, value: object) -> None:
    """Add an entry of a state dict that is not a tensor; objects count by their class alone.

    The `repr` of an object may be its address, which differs from run to run.
    """
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}:{tuple(value.shape)};".encode())
        _add_tensor(digest, value.detach())
    elif isinstance(value, dict):
        for key, item in value.items():
            _add_object(digest, key)
            _add_object(digest, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _add_object(digest, item)
    elif isinstance(value, str | bytes | bool | int | float | complex | torch.dtype | None):
        digest.update(f"{value!r};".encode())
    else:
        digest.update(f"{type(value).__qualname__};".encode())


def set_scales_to_one(module: nn.Module) -> None:
    """Set norm and layer scales to 1, so that zero-initialised residual branches take part.

    A scale is a parameter with at most one axis, not a bias, whose entries are all the same.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
                continue
            for name, p in layer.named_parameters(recurse=False):
                if p.ndim <= 1 and "bias" not in name and bool((p == p.flatten()[0]).all()):
                    p.fill_(1.0)


def calibrate_norms(module: nn.Module, x: Tensor) -> None:
    """Set the running statistics of every batch norm to those of `x` (batch, ...), in one pass."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        with torch.no_grad():
            module(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum


def match_norms(module: nn.Module, original: nn.Module, x: Tensor) -> None:
    """Change the batch norms of `module` so that their outputs have the moments of `original`.

    Mean and variance of every channel, over `x` (batch, ...) and its units, become equal by a
    change of the running statistics, norm after norm in one pass. Norms behind unpadded layers do
    not change. (Re-estimated statistics would change them too, if the images are unlike the
    training data.)
    """
    before = dict(original.named_modules())
    wanted: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, norm: nn.Module, seen: Tensor) -> None:
        del norm
        wanted[name] = _moments(seen)

    def match(name: str, norm: nn.Module, seen: Tensor) -> None:
        _match(norm, before[name], wanted[name], _moments(seen))

    _visit_norms(original, x, note)
    _visit_norms(module, x, match)


def _visit_norms(
    module: nn.Module, x: Tensor, visit: Callable[[str, nn.Module, Tensor], None]
) -> None:
    """Call `visit` with the name, the norm and its input for every batch norm in a pass."""
    handles = [
        norm.register_forward_pre_hook(lambda norm, seen, name=name: visit(name, norm, seen[0]))
        for name, norm in module.named_modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of `x` (batch, channels, ...)."""
    values = x.double().movedim(1, 0).flatten(1)
    return values.mean(1), values.var(1, correction=0)


def _match(norm: Any, before: Any, old: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor]) -> None:
    """Set the statistics of `norm` so that moments `new` give the output that `old` gave `before`.

    A channel that is constant before or now is shifted, but not scaled.
    """
    alive = (old[1] > 0) & (new[1] > 0)
    share = torch.where(alive, new[1] / old[1].where(alive, torch.ones_like(old[1])), 1.0)
    norm.running_mean.copy_(new[0] + share.sqrt() * (before.running_mean.double() - old[0]))
    variance = share * (before.running_var.double() + before.eps) - norm.eps
    norm.running_var.copy_(variance.clamp(min=0))


KEPT_BYTES = 2**30
"""Built and calibrated weight sets stay in memory as long as they take at most this many bytes."""


class WeightSets:
    """`count` weight sets, of which `live` is the selected one; None before the first selection."""

    def __init__(self, count: int, live: nn.Module | None = None) -> None:
        self.count = count
        self.live = live
        self._kept: dict[int, tuple[nn.Module, Tensor]] = {}

    def select(
        self,
        member: int,
        x: Tensor,
        make: Callable[[int], nn.Module],
        calibrate: Callable[[nn.Module], None],
    ) -> None:
        """Select weight set `member`, calibrated on `x` (images, ...).

        `make(member)` builds a set; it is called, and the set is calibrated, only if none is kept.
        """
        kept = self._kept.get(member)
        if kept is not None and _same(kept[1], x):
            self.live = kept[0]
            return
        if self.live is None or self.count > 1:
            self.live = kept[0] if kept is not None else make(member)
        calibrate(self.live)
        if _size(self.live) * (len(self._kept) + 1) > KEPT_BYTES:
            self._kept.clear()
        self._kept[member] = (self.live, x)

    def copy(self, *, own: bool) -> WeightSets:
        """Return weight sets that start with the selected one; with `own`, with a copy of it."""
        return WeightSets(
            self.count, copy_module(self.live) if own and self.live is not None else self.live
        )


def _size(module: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.nbytes for p in module.parameters())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)
