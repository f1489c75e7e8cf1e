"""The fill `fit`: kernel padding of trained weights without labels and without training.

The method is ours. The kernels grow as with `zero`, which keeps the function. Then the taps w of
all layers down to an output stride of `PERIOD` are optimised together so that the input's phase
profile A of that period is even on unlabelled images, while the target changes as little as
possible:

    minimise    sum_layers tr(G (w' - w) C (w' - w)^T)
    subject to  A_p(w') = 1 for all phases p of PERIOD x PERIOD

w (outputs, D) are the taps of a group, D = inputs x rows x columns of the grown kernel. C (D, D) is
the second moment of the input patches. G (outputs, outputs) is the second moment of the gradients
J^T v at the layer's output, v random signs over the target: to first order, and with C and G taken
as independent (K-FAC, Martens & Grosse 2015), the objective is the squared change of the target. A
is the profile of `deadpixel`'s energy map: squared gradients of v . target, over their moving mean.

Natural images have little variance in most directions of a patch. There C is small and a change of
the taps costs almost nothing: the fill uses this freedom, so the function is nearly preserved.
Ridges of `RIDGE` and `RIDGE` / 10 of the mean diagonals of C and G account for sampling noise.

Solution. With N the derivatives of A's contrasts e with respect to w (by a second backward pass)
each of `STEPS` steps solves the problem with linear constraints in closed form, for H = G x C:

    w' = w0 + H^-1 N^T (N H^-1 N^T)^-1 (N (w - w0) - e(w))

Layers whose weight is computed in forward, or whose patches have more than `WIDEST` entries, and
all deeper ones keep the fill `zero`. Biases and norms are not changed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...torch_calls import Convolution, FunctionMode, running_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


PERIOD = 4

RIDGE = 0.01

SOFT = 1e-3

STEPS = 3

WIDEST = 4096

BATCH = 4

SLOPE_IMAGES = 16
"""Number of images for the derivatives N; the profile itself is that of all images."""


@dataclass
class FittedConvolution:
    """A grown convolution: its taps (out, in, rows, columns), and sums over its input and gradient.

    `inputs` is C (groups, D, D), `outputs` is G (groups, o, o), float64.
    """

    start: Tensor
    taps: Tensor
    groups: int = 1
    inputs: Tensor | float = 0.0
    outputs: Tensor | float = 0.0

    def grouped(self, taps: Tensor) -> Tensor:
        """View (out, in, rows, columns) as (groups, o, D), float64."""
        return taps.double().reshape(self.groups, taps.shape[0] // self.groups, -1)


class _Watch(FunctionMode):
    """Calls the grown convolutions of `sites` with their taps; records inputs and outputs."""

    def __init__(
        self, sites: Mapping[str, FittedConvolution], stack: list[tuple[str, nn.Module]]
    ) -> None:
        super().__init__()
        self.sites = sites
        self.stack = stack
        self.seen: list[tuple[FittedConvolution, Tensor, Tensor, Mapping[str, Any]]] = []

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the call with the taps of its site, if it is one of a grown convolution."""
        site = self.sites.get(self.stack[-1][0]) if self.stack and func is F.conv2d else None
        given = Convolution(*args, **kwargs) if site is not None else None
        if site is None or given is None or given.weight.shape != site.taps.shape:
            return func(*args, **kwargs)
        site.groups = given.groups
        window = {
            "stride": given.stride,
            "padding": given.padding,
            "dilation": given.dilation,
        }
        out = F.conv2d(given.input, site.taps, given.bias, groups=given.groups, **window)
        self.seen.append((site, given.input, out, window))
        return out


@dataclass
class Fit:
    """The problem for the grown convolutions `names` of `module`.

    `run` maps a chunk of `images` (images, channels, height, width) to the target. With `strength`
    1 the goal is an even profile, with 0.5 half of its contrasts.
    """

    module: nn.Module
    names: Sequence[str]
    run: Callable[[Tensor], Tensor]
    images: Tensor
    strength: float = 1.0
    seed: int = 0
    period: int = 1
    sites: dict[str, FittedConvolution] = field(default_factory=dict)

    def solve(self) -> list[str]:
        """Move the taps in place and return the names of the layers that were moved."""
        self._choose()
        if not self.sites:
            return []
        goal: Tensor | None = None
        for step in range(STEPS):
            level, slopes = self._measure(moments=step == 0)
            goal = (1 - self.strength) * level if goal is None else goal
            self._move(level - goal, slopes)
        for name, site in self.sites.items():
            _store(self.module.get_submodule(name), site.taps.detach())
        return list(self.sites)

    def _pass(self, start: int, images: int) -> tuple[_Watch, Tensor, Tensor]:
        """Make a forward pass; return the recorded calls, the images and v . target."""
        stack: list[tuple[str, nn.Module]] = []
        x = self.images[start : start + images].clone().requires_grad_()
        watch = _Watch(self.sites, stack)
        running = running_layers(self.module, stack, root_name=type(self.module).__name__)
        with torch.enable_grad(), running, watch:
            target = self.run(x)
        signs = _signs(target, range(start, start + len(x)), self.seed)
        return watch, x, (target * signs).sum()

    def _choose(self) -> None:
        """Keep the layers whose output stride is within the period and that can be solved.

        The period is lowered to the largest of these strides; no layer could even out more.
        """
        for name, module in self.module.named_modules():
            owned = isinstance(module, nn.Conv2d) and "weight" in module._parameters
            if name in self.names and owned:
                self.sites[name] = _site(module)
        if not self.sites:
            return
        watch, x, _ = self._pass(0, 1)
        strides = {id(s): round(x.shape[-1] / out.shape[-1]) for s, _, out, _ in watch.seen}
        self.sites = {
            name: site
            for name, site in self.sites.items()
            if strides.get(id(site), PERIOD + 1) <= PERIOD and site.taps[0].numel() <= WIDEST
        }
        self.period = max((strides[id(site)] for site in self.sites.values()), default=1)

    def _measure(self, *, moments: bool) -> tuple[Tensor, list[Tensor]]:
        """Contrasts e (k,) over all images, and their derivatives N (k, out, in, ...) by layer."""
        level = self.images.new_zeros(self.period**2 - 1, dtype=torch.float64)
        slopes = [level.new_zeros(len(level), *site.taps.shape) for site in self.sites.values()]
        share = min(len(self.images), SLOPE_IMAGES)
        for start in range(0, len(self.images), BATCH):
            steep = start < share
            watch, x, scalar = self._pass(start, BATCH)
            wanted = [x, *(out for _, _, out, _ in watch.seen)]
            found = torch.autograd.grad(scalar, wanted, retain_graph=steep)
            if moments:
                for (site, seen, _, window), gradient in zip(watch.seen, found[1:], strict=True):
                    _add(site, seen.detach(), gradient, window)
            pixels = _again(scalar, x, watch, found) if steep else found[0]
            e = unevenness(pixels.square().sum(1), self.period)
            level += e.detach() * (len(x) / len(self.images))
            if steep:
                self._descend(e, slopes, len(x) / share)
        return level, slopes

    def _descend(self, e: Tensor, slopes: Sequence[Tensor], weight: float) -> None:
        """Add `weight` times the derivatives of `e` (k,) with respect to the taps to `slopes`."""
        taps = [site.taps for site in self.sites.values()]
        for k, one in enumerate(e):
            moved = torch.autograd.grad(one, taps, retain_graph=k + 1 < len(e))
            for slope, move in zip(slopes, moved, strict=True):
                slope[k] += weight * move

    def _move(self, excess: Tensor, slopes: list[Tensor]) -> None:
        """One step towards `excess` 0 with linear constraints, measured from the first taps."""
        sites = list(self.sites.values())
        pulls = [_solved(site, slope) for site, slope in zip(sites, slopes, strict=True)]
        gram: Tensor | float = 0.0
        gone: Tensor | float = 0.0
        for site, slope, pull in zip(sites, slopes, pulls, strict=True):
            gram = gram + torch.einsum("aoirc,boirc->ab", slope, pull)
            gone = gone + torch.einsum(
                "aoirc,oirc->a", slope, (site.taps.detach() - site.start).double()
            )
        gram = _ridged(torch.as_tensor(gram)[None], SOFT)[0]
        weights = torch.linalg.solve(gram, gone - excess)
        for site, pull in zip(sites, pulls, strict=True):
            moved = site.start + torch.tensordot(weights, pull, 1).to(site.start)
            site.taps = moved.requires_grad_()


def _again(scalar: Tensor, x: Tensor, watch: _Watch, found: Sequence[Tensor]) -> Tensor:
    """Return the gradient at `x` as a function of the taps.

    If all paths lead through the last fitted layer, it is computed from there with a constant
    gradient at that layer's output, so that the second backward pass ends there too. (This leaves
    out curvature, which networks of ReLUs do not have.)
    """
    last = watch.seen[-1][2]
    (short,) = torch.autograd.grad(last, x, found[-1], retain_graph=True, create_graph=True)
    if torch.allclose(short, found[0], rtol=1e-3, atol=1e-3 * float(found[0].abs().max())):
        return short
    (whole,) = torch.autograd.grad(scalar, x, create_graph=True)
    return whole


def _signs(like: Tensor, indices: Sequence[int], seed: int) -> Tensor:
    """Return random signs of the shape of `like` (images, ...), with a generator per image."""
    rows = []
    for index in indices:
        generator = torch.Generator().manual_seed(1_000_003 * seed + index)
        rows.append(torch.randint(0, 2, like.shape[1:], generator=generator) * 2 - 1)
    return torch.stack(rows).to(like)


def _site(module: nn.Module) -> FittedConvolution:
    """The grown taps of a module that was padded with `zero`."""
    taps = _taps(module).detach().clone()
    return FittedConvolution(taps, taps.clone().requires_grad_())


def _taps(module: nn.Module) -> Tensor:
    """Return the weight joined with the new columns and rows of the fill `zero`."""
    weight: Tensor = module.get_parameter("weight")
    columns = getattr(module, "weight_columns", None)
    rows = getattr(module, "weight_rows", None)
    if columns is not None:
        weight = torch.cat((weight, columns), 3)
    return weight if rows is None else torch.cat((weight, rows), 2)


def _store(module: nn.Module, taps: Tensor) -> None:
    """Write grown taps back to where `_taps` reads them."""
    weight = module.get_parameter("weight")
    height, width = weight.shape[2:]
    with torch.no_grad():
        weight.copy_(taps[:, :, :height, :width])
        if hasattr(module, "weight_columns"):
            module.get_parameter("weight_columns").copy_(taps[:, :, :height, width:])
        if hasattr(module, "weight_rows"):
            module.get_parameter("weight_rows").copy_(taps[:, :, height:])


def _add(site: FittedConvolution, x: Tensor, gradient: Tensor, window: Mapping[str, Any]) -> None:
    """Add the second moments of patches and gradients of one call."""
    rows, columns = site.taps.shape[2:]
    for image, pulled in zip(x, gradient, strict=True):
        units = pulled[0].numel()
        patches = F.unfold(image[None], (rows, columns), **window)[0]
        patches = patches.view(site.groups, -1, units)
        signals = pulled.reshape(site.groups, -1, units)
        site.inputs = site.inputs + (patches @ patches.mT).double()
        site.outputs = site.outputs + (signals @ signals.mT).double()


def _solved(site: FittedConvolution, slopes: Tensor) -> Tensor:
    """H^-1 N = G^-1 N C^-1 of one layer, for N (k, out, in, rows, columns)."""
    inputs = _ridged(torch.as_tensor(site.inputs), RIDGE)
    outputs = _ridged(torch.as_tensor(site.outputs), RIDGE / 10)
    found = []
    for slope in slopes:
        left = torch.linalg.solve(outputs, site.grouped(slope))
        found.append(torch.linalg.solve(inputs, left.mT).mT.reshape(slope.shape))
    return torch.stack(found)


def _ridged(moment: Tensor, share: float) -> Tensor:
    """`moment` (groups, n, n) plus `share` of the mean of its diagonals."""
    level = moment.diagonal(dim1=1, dim2=2).mean()
    unit = torch.eye(moment.shape[1], dtype=moment.dtype, device=moment.device)
    return moment + share * level * unit


def contrasts(period: int) -> Tensor:
    """Return orthonormal contrasts (period^2 - 1, period, period), all zero for an even profile."""
    places = torch.arange(period, dtype=torch.float64)
    angle = 2 * torch.pi / period * places[:, None] * places
    hartley = (angle.cos() + angle.sin()) / period**0.5
    pairs = list(itertools.product(range(period), repeat=2))[1:]
    return torch.stack([hartley[a][:, None] * hartley[b] for a, b in pairs])


def unevenness(energy: Tensor, period: int) -> Tensor:
    """Return contrasts (period^2 - 1,) of the mean phase profile of `energy`.

    `energy` is (images, height, width). The formula is that of `suites.measuring.phases`, but
    differentiable: each image is divided by its moving mean over a centred period x period box.
    Cells within an eighth of the border are left out.
    """
    trend = F.avg_pool2d(energy.detach()[:, None], period, 1)
    trend = F.avg_pool2d(trend, 2, 1) if period % 2 == 0 else trend
    trend = F.pad(trend, (period // 2,) * 4, value=1.0)[:, 0]
    rows, columns = (_whole_cells(size, period) for size in energy.shape[1:])
    tiny = torch.finfo(energy.dtype).tiny
    ratio = (energy / trend.clamp(min=tiny))[:, rows, columns]
    cells = ratio.unflatten(2, (-1, period)).unflatten(1, (-1, period))
    profile = cells.mean((0, 1, 3))
    profile = profile / profile.detach().mean()
    found: Tensor = torch.tensordot(contrasts(period).to(profile), profile, 2)
    return found


def _whole_cells(size: int, period: int) -> slice:
    margin = -(-max(period, size / 8) // period) * period
    return slice(int(margin), int((size - margin) // period * period))
