"""A GPU that is pretended: tensors stay in the CPU's memory, but belong to `cuda:0`.

Where CUDA would refuse a step, so does this: tensors of two devices in one operation, numpy arrays
of a tensor on the GPU. Faults of that kind then show on machines without a GPU. Nothing is said
about kernels, memory or speed.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")

COPIES = {
    "to",
    "copy_",
    "cpu",
    "cuda",
    "__set__",
    "type_as",
    "new_tensor",
    "set_",
    "_has_compatible_shallow_copy_type",
    "gradient",
}
"""Operations that may read tensors of two devices."""

INDEXED = {"__getitem__", "__setitem__", "index_put_", "index_put"}
"""Operations on a GPU's tensor whose indices may lie on the CPU."""


def leaves(value):
    """Everything in lists, tuples and dictionaries; torch's own walk takes a third of the time."""
    if isinstance(value, (list, tuple)):
        return [x for part in value for x in leaves(part)]
    if isinstance(value, dict):
        return [x for part in value.values() for x in leaves(part)]
    return [value]


def tensors_of(value):
    return [x for x in leaves(value) if isinstance(x, Tensor)]


class PretendedGPU(TorchFunctionMode):
    """Follows which storages belong to the GPU; a result belongs where its inputs do."""

    def __init__(self) -> None:
        super().__init__()
        self._owned: dict[int, StorageWeakRef] = {}

    def owns(self, x: Tensor) -> bool:
        return not x.is_meta and x.untyped_storage()._cdata in self._owned

    def take(self, value):
        """Every tensor in `value` belongs to the GPU from now on."""
        for x in tensors_of(value):
            if not x.is_meta:
                storage = x.untyped_storage()
                self._owned[storage._cdata] = StorageWeakRef(storage)
        return value

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name == "__get__":
            return self._property(func, args)
        if name in {"numpy", "__array__", "data_ptr"} and self.owns(args[0]):
            if name == "data_ptr":
                return func(*args, **kwargs)
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name in {"device", "_parse_to"}:  # a name; `nn.Module.to`, which moves tensor by tensor
            return func(*args, **kwargs)
        if name == "pin_memory":
            return args[0].clone()
        wanted = self._wanted(name, args, kwargs)
        self._check(name, args, kwargs)
        out = func(*map(on_cpu, args), **{key: on_cpu(value) for key, value in kwargs.items()})
        return self._place(name, args, kwargs, wanted, out)

    def _property(self, func, args):
        name = getattr(getattr(func, "__self__", None), "__name__", "")
        if name == "device" and self.owns(args[0]):
            return GPU
        if name == "is_cuda":
            return self.owns(args[0])
        if name == "is_cpu":
            return not self.owns(args[0])
        return func(*args)

    def _wanted(self, name, args, kwargs):
        """The device that a call asks for, if any."""
        asked = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]
        words = [kwargs["device"]] if isinstance(kwargs.get("device"), str) else []
        if name == "to":
            words += [x for x in args[1:] if isinstance(x, str)]
            asked += [GPU if self.owns(x) else CPU for x in args[1:] if isinstance(x, Tensor)]
        asked += [torch.device(word) for word in words]
        if name in {"cpu", "cuda"}:
            return torch.device(name)
        return asked[0] if asked else None

    def _check(self, name, args, kwargs):
        if name in COPIES:
            return
        if name in INDEXED and self.owns(args[0]):
            args = (args[0], *args[2:])
        found = [x for x in tensors_of((args, kwargs)) if not x.is_meta]
        ours = [x for x in found if self.owns(x)]
        others = [x for x in found if x.ndim and not self.owns(x)]
        if ours and others:
            raise RuntimeError(
                f"{name}: Expected all tensors to be on the same device, but found at least two "
                f"devices, cuda:0 and cpu! {[tuple(x.shape) for x in (*ours, *others)]}"
            )

    def _place(self, name, args, kwargs, wanted, out):
        if name == "__set__":  # x.data = y
            return self.take(args[0]) if self.owns(args[1]) else out
        if name in {"copy_", "backward", "backward_"}:
            return out
        ours = any(self.owns(x) for x in tensors_of((args, kwargs)))
        if wanted is None:
            return self.take(out) if ours else out
        if wanted.type == "cuda":
            if any(x is out for x in args):  # a copy, not the CPU's own tensor
                out = out if self.owns(out) else out.clone()
            elif not ours and isinstance(out, Tensor) and args and isinstance(args[0], Tensor):
                out = out.clone() if _shares(out, args[0]) else out
            return self.take(out)
        return out.clone() if ours and isinstance(out, Tensor) and self.owns(out) else out


def on_cpu(value):
    """`value`, the CPU if it is the GPU."""
    if isinstance(value, torch.device):
        return CPU if value.type == "cuda" else value
    return CPU if isinstance(value, str) and value.startswith("cuda") else value


def _shares(a: Tensor, b: Tensor) -> bool:
    if a.is_meta or b.is_meta:
        return False
    return a.untyped_storage()._cdata == b.untyped_storage()._cdata


@contextlib.contextmanager
def pretended_gpu(monkeypatch):
    """Torch says that there is one GPU; operations follow the rules of devices."""
    mode, grad = PretendedGPU(), torch.autograd.grad

    def gradient(outputs, inputs, *args, **kwargs):
        found = grad(outputs, inputs, *args, **kwargs)
        for x, g in zip([inputs] if isinstance(inputs, Tensor) else inputs, found, strict=True):
            if g is not None and mode.owns(x):
                mode.take(g)
        return found

    for name, value in {
        "is_available": True,
        "device_count": 1,
        "init": None,
        "synchronize": None,
        "empty_cache": None,
        "current_device": 0,
        "reset_peak_memory_stats": None,
        "max_memory_allocated": 2**20,
        "get_device_name": "a pretended GPU",
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_a, value=value, **_k: value)
    monkeypatch.setattr(torch.autograd, "grad", gradient)
    with mode:
        yield mode
