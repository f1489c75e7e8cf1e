"""Any `torch.nn.Module` as a `Model`.

The forward pass stops at the target. Weights are frozen, gradients are taken with respect to the
input only. On the CPU, batch and instance norm return wrong input gradients at batch 1 when the
incoming gradient is strided (seen with torch 2.13 and 2.15); `contiguous_norm_gradients` guards
every pass against it.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import InputError, NotApplicableError, PerimetryError, UnknownNameError
from .model import UNTOUCHED, Fill, Grid, InputSpec, Outputs, Precision, Treatment, find_grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FEATURES = "forward_features"
"""Name of the target that timm models (and any module with the same two methods) offer."""

_NORMS = (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; `auto` takes the accelerator when there is one.

    Raises `InputError` when the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here ({error}); take 'cpu', 'cuda' or 'auto'"
        ) from error
    return device


class _ContiguousNormGradients(TorchFunctionMode):
    """Makes the gradient that reaches a norm's backward contiguous."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        if func in _NORMS and out.requires_grad:
            out.register_hook(lambda gradient: gradient.contiguous())
        return out


def contiguous_norm_gradients(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Guard one pass over `x` (batch, ...) where torch's norm gradients can be wrong."""
    at_risk = x.requires_grad and x.shape[0] == 1 and x.device.type == "cpu"
    return _ContiguousNormGradients() if at_risk else contextlib.nullcontext()


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the hook at the target to end the forward pass there."""


def find_target(module: nn.Module, x: Tensor, prefix: int | None = None) -> Grid | None:
    """Find the last spatial feature map of `module` by one pass over `x`.

    `forward_features` wins where the module has it; else the last module call, in order of
    completion, whose output is a grid of units.
    """
    size = (x.shape[2], x.shape[3])
    if callable(getattr(module, FEATURES, None)):
        raw = module.forward_features(x)  # type: ignore[operator]
        grid = find_grid(FEATURES, raw, size, prefix) if isinstance(raw, Tensor) else None
        if grid is not None:
            return grid
    found: list[Grid] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            grid = find_grid(name, out, size, prefix) if isinstance(out, Tensor) else None
            if grid is not None:
                found.append(grid)

        return hook

    with _hooks({m: note(name) for name, m in module.named_modules()}):
        module(x)
    return found[-1] if found else None


def named_target(module: nn.Module, x: Tensor, name: str, prefix: int | None = None) -> Grid:
    """The grid that the layer called `name` gives for `x`.

    Raises `UnknownNameError` when there is no such layer, `NotApplicableError` when its output is
    no grid.
    """
    if name == FEATURES and hasattr(module, FEATURES):
        raw = module.forward_features(x)  # type: ignore[operator]
    else:
        layers = dict(module.named_modules())
        if name not in layers:
            raise UnknownNameError(unknown("layer", name, layers))
        raw, _ = _run_to(module, x, name, to_end=False)
    grid = find_grid(name, raw, (x.shape[2], x.shape[3]), prefix)
    if grid is None:
        raise NotApplicableError(
            f"layer {name!r} gives a tensor of shape {tuple(raw.shape)}, which is no grid of units "
            f"over a {x.shape[2]} x {x.shape[3]} input; name another layer as the target"
        )
    return grid


def unknown(kind: str, name: str, known: Any) -> str:
    """The text for an unknown name: what was given, the near ones, how many there are."""
    import difflib

    names = [n for n in known if n]
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    near += [n for n in names if name in n and n not in near][: 5 - len(near)]
    hint = f"did you mean {', '.join(near)}?" if near else f"{len(names)} are known"
    return f"unknown {kind} {name!r}; {hint}"


@contextlib.contextmanager
def _hooks(hooks: Mapping[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """Register forward hooks and remove them again, whatever happens."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run_to(module: nn.Module, x: Tensor, name: str, *, to_end: bool) -> tuple[Tensor, Any]:
    """Run `module` and give the last output of the layer `name`, and the output if `to_end`."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, out: Any) -> None:
        seen.append(out)
        if not to_end:
            raise _Reached

    out = None
    with _hooks({module.get_submodule(name): hook}), contextlib.suppress(_Reached):
        out = module(x)
    if not seen:
        raise NotApplicableError(f"layer {name!r} is never called in a forward pass")
    return seen[-1], out


def _logits(out: Any) -> Tensor | None:
    """The first (batch, classes) tensor of a module's output, or None."""
    if isinstance(out, Tensor):
        return out if out.ndim == 2 else None
    values = out.values() if isinstance(out, dict) else out if isinstance(out, tuple | list) else ()
    return next((v for v in values if isinstance(v, Tensor) and v.ndim == 2), None)


class Skeleton(nn.Module):
    """A network up to its target, as `structure` walks it; layer names are those of `body`."""

    def __init__(self, body: nn.Module, grid: Grid) -> None:
        super().__init__()
        self.body = body
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (batch, channels, height, width) to the target, of the same axes."""
        return self.grid.read(run_target(self.body, x, self.grid))


def run_target(module: nn.Module, x: Tensor, grid: Grid) -> Tensor:
    """The raw target tensor of one pass, stopped there."""
    if grid.name == FEATURES:
        raw: Tensor = module.forward_features(x)  # type: ignore[operator]
        return raw
    return _run_to(module, x, grid.name, to_end=False)[0]


def light_copy(module: nn.Module) -> nn.Module:
    """Copy `module` without its weights: matrices and kernels on `meta`, all else filled.

    Parameters with two axes or more that belong to a convolution or a linear layer keep only their
    shape; the other parameters become ones, so that no zero-initialised scale hides a branch.
    Buffers are kept where they are real (fixed filters, indices) and become zeros where not.
    """
    weights = {
        id(p)
        for layer in module.modules()
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear)
        for p in layer.parameters(recurse=False)
    }
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        device = "meta" if id(parameter) in weights else "cpu"
        light = torch.ones(parameter.shape, device=device)
        memo[id(parameter)] = nn.Parameter(light, requires_grad=False)
    for buffer in module.buffers():
        if buffer.is_meta:
            memo[id(buffer)] = torch.zeros(buffer.shape, dtype=buffer.dtype)
        else:
            memo[id(buffer)] = buffer.detach().cpu()
    return copy.deepcopy(module, memo)


def tensors_digest(module: nn.Module) -> str:
    """Sha256 over names, types, shapes and bytes of all entries of the state dict."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def set_scales_to_one(module: nn.Module) -> None:
    """Set norm and layer scales to 1, so that zero-initialised residual branches do not hide.

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


class TorchModel:
    """A torch module and everything a suite asks of it; see `adapters.model.Model`.

    `shell` may live on the `meta` device: it gives shapes and the skeleton. `build(member)` gives
    the real module, on the CPU, when numbers are first wanted; it must not share state with others.
    """

    def __init__(
        self,
        shell: nn.Module,
        build: Callable[[int], nn.Module],
        *,
        reference: str,
        spec: InputSpec,
        device: torch.device,
        source: Mapping[str, str],
        target: str | None = None,
        prefix: int | None = None,
        members: int = 1,
        calibrated: bool = False,
        precision: Precision = "float32",
    ) -> None:
        self.reference = reference
        self.spec = spec
        self.device = device
        self.source = source
        self.members = members
        self.gradients: str | None = None
        self.original: TorchModel | None = None
        self.treatment: Treatment | None = None
        self.notes: list[str] = []
        self._shell = shell
        self._build = build
        self._calibrated = calibrated
        self._dtype: torch.dtype | None = torch.float64 if precision == "float64" else None
        self._seed = 0
        self._live: nn.Module | None = None
        self.target = self._locate(target, prefix)
        self.spatial = None if self.target else "no layer gives a grid of units for this input size"

    def _locate(self, name: str | None, prefix: int | None) -> Grid | None:
        """Find the target on the shell; on the real module where the shell cannot run."""
        first = next(iter(self._shell.parameters()), torch.empty(0))
        modules: list[Callable[[], nn.Module]] = [lambda: self._build(0)]
        if first.is_meta:
            modules.insert(0, lambda: self._shell)
        failure: Exception | None = None
        for make in modules:
            module = make()
            x = self._example(module)
            try:
                with torch.no_grad():
                    if name is None:
                        return find_target(module, x, prefix)
                    return named_target(module, x, name, prefix)
            except PerimetryError:
                raise
            except Exception as error:  # a foreign forward may raise anything
                failure = error
        raise InputError(
            f"{self.reference} refuses an input of {self.spec.channels} x {self.spec.height} x "
            f"{self.spec.width} (channels x height x width): {failure}; give the size it was made "
            "for"
        ) from failure

    def _example(self, module: nn.Module) -> Tensor:
        """Two blank inputs of the size, type and device of `module`."""
        first = next(iter(module.parameters()), torch.empty(0))
        shape = (2, self.spec.channels, self.spec.height, self.spec.width)
        return self._feed(torch.zeros(shape, dtype=first.dtype, device=first.device))

    def _feed(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) if self.spec.layout == "NHWC" else x

    def module(self) -> nn.Module:
        """The real module, on the device, frozen; its first weight set if none was selected."""
        if self._live is None:
            self._live = self._prepare(0)
        return self._live

    def _prepare(self, member: int) -> nn.Module:
        module = self._build(member)
        if self.treatment is not None:
            from .padding import pad_module

            pad_module(module, self.treatment.fill, self._example(module), seed=self._seed + member)
        module = module.eval().requires_grad_(False).to(self.device, self._dtype)
        return module.to(memory_format=torch.channels_last)

    def select(self, member: int, x: Tensor) -> None:
        """Load weight set `member` (0 to `members` - 1); `x` calibrates norms of `@init` models."""
        if not 0 <= member < self.members:
            raise InputError(f"weight set {member} of {self.members} was asked for")
        if self.members > 1 or self._live is None:
            self._live = self._prepare(member)
        if self._calibrated:
            calibrate_norms(self._live, self._cast(x))

    def _cast(self, x: Tensor) -> Tensor:
        """Bring `x` to the module's device and type; batches in channels-last order, as it is."""
        first = next(iter(self.module().parameters()), x)
        x = x.to(first.device, first.dtype)
        if len(x) > 1:  # a batch of one stays clear of the norms' strides, see above
            x = x.contiguous(memory_format=torch.channels_last)
        return self._feed(x)

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`; see `Model.run`. Raises `NotApplicableError` without a target."""
        if target and self.target is None:
            raise NotApplicableError(self.spatial or "")
        with torch.set_grad_enabled(x.requires_grad), contiguous_norm_gradients(x):
            raw, out = self._pass(self._cast(x), target=target, logits=logits)
        grid = self.target.read(raw) if self.target and raw is not None else None
        return Outputs(grid, _logits(out))

    def _pass(self, x: Tensor, *, target: bool, logits: bool) -> tuple[Tensor | None, Any]:
        module = self.module()
        if not target or self.target is None:
            return None, module(x)
        if not logits:
            return run_target(module, x, self.target), None
        if self.target.name == FEATURES:
            raw: Tensor = module.forward_features(x)  # type: ignore[operator]
            return raw, module.forward_head(raw)  # type: ignore[operator]
        return _run_to(module, x, self.target.name, to_end=True)

    def skeleton(self) -> nn.Module:
        """A light copy that maps `x` to the target; see `Model.skeleton`."""
        if self.target is None:
            raise NotApplicableError(self.spatial or "")
        body = light_copy(self._shell).eval().requires_grad_(False)
        if self.treatment is not None:
            from .padding import pad_module

            pad_module(body, self.treatment.fill, self._example(self._shell), seed=self._seed)
        return Skeleton(body, self.target)

    def padded(self, fill: Fill, *, seed: int = 0) -> TorchModel:
        """The kernel-padded twin; `self` is not touched."""
        from .padding import pad_module

        twin = copy.copy(self)
        twin.original = self
        twin._live = None
        twin._seed = seed
        probe = light_copy(self._shell).eval().requires_grad_(False)
        twin.treatment = pad_module(probe, fill, self._example(self._shell), seed=seed)
        twin.notes = list(self.notes)
        if not twin.treatment.layers:
            twin.notes.append(UNTOUCHED)
        return twin


def wrap(
    module: nn.Module,
    *,
    name: str | None = None,
    spec: InputSpec | None = None,
    device: str = "auto",
    target: str | None = None,
    precision: Precision = "float32",
) -> TorchModel:
    """Make a `Model` of any module; the module itself is never touched.

    Without `spec` the input is guessed: 224 x 224, ImageNet's mean and standard deviation, channels
    of the first convolution. Raises `InputError` when the module refuses that input.
    """
    frozen = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    model = TorchModel(
        frozen,
        lambda _member: copy.deepcopy(frozen),
        reference=name or f"module:{type(module).__name__}",
        spec=spec or guess_spec(frozen),
        device=pick_device(device),
        source={"runtime": "torch", "tensors_sha256": tensors_digest(frozen)},
        target=target,
        precision=precision,
    )
    if model.spec.guessed:
        model.notes.append(f"input guessed: {', '.join(model.spec.guessed)}")
    return model


def guess_spec(module: nn.Module) -> InputSpec:
    """ImageNet's usual input, with the channels of the first convolution; all marked as guessed."""
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else 3
    spec = InputSpec(224, 224, guessed=("height", "width", "mean", "std"))
    if channels == 3:
        return replace(spec, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return replace(spec, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)
