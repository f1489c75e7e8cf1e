"""Slow, literal formulas, each written a second time for the tests of the fast ones."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from scipy.stats import norm
from torch import nn
from torch.overrides import TorchFunctionMode


def moving_mean(row, period):
    """Mean over a centred box of `period` entries at each place; the ends count half if even."""
    out = np.full(len(row), np.nan)
    reach = period // 2
    for i in range(reach, len(row) - reach):
        window = np.array(row[i - reach : i + reach + 1], dtype=np.float64)
        if period % 2 == 0:
            window[[0, -1]] /= 2
        out[i] = window.sum() / period
    return out


def phase_profile(sensitivity, period):
    """Definition of the profile, pixel by pixel, of one map (height, width)."""
    height, width = sensitivity.shape
    trend = np.apply_along_axis(moving_mean, 0, sensitivity, period[0])
    trend = np.apply_along_axis(moving_mean, 1, trend, period[1])
    sums, counts = np.zeros(period), np.zeros(period)
    for i, j in itertools.product(range(height), range(width)):
        if whole_cell(i, height, period[0]) and whole_cell(j, width, period[1]):
            sums[i % period[0], j % period[1]] += sensitivity[i, j] / trend[i, j]
            counts[i % period[0], j % period[1]] += 1
    profile = sums / counts
    return profile / profile.mean()


def whole_cell(place, size, period):
    """Whether `place` lies in a cell that keeps a cell and an eighth away from both borders."""
    first, last = place // period * period, place // period * period + period
    margin = max(period, size / 8)
    return first >= margin and size - last >= margin


def share_of_period(profile, period, before):
    """Variance of the profile folded to `period`, less that folded to `before`."""

    def folded(p):
        cells = np.zeros((p, p))
        counts = np.zeros((p, p))
        for (i, j), value in np.ndenumerate(profile):
            cells[i % p, j % p] += value
            counts[i % p, j % p] += 1
        return (cells / counts).var()

    return folded(period) - folded(before)


def relative_difference(sensitivity, order):
    """Mean absolute difference along both axes over the mean, entry by entry."""
    height, width = sensitivity.shape
    taps = {1: (-1, 1), 2: (1, -2, 1)}[order]
    vertical = [
        abs(sum(t * sensitivity[i + k, j] for k, t in enumerate(taps)))
        for i in range(height - order)
        for j in range(width)
    ]
    horizontal = [
        abs(sum(t * sensitivity[i, j + k] for k, t in enumerate(taps)))
        for i in range(height)
        for j in range(width - order)
    ]
    return (np.mean(vertical) + np.mean(horizontal)) / 2 / sensitivity.mean()


def touches(kernel, stride, dilation=1):
    """How many windows touch each of `stride` phases, counted over a long line."""
    counts = np.zeros(100 * stride + kernel * dilation)
    for start in range(0, 100 * stride, stride):
        for tap in range(kernel):
            counts[start + tap * dilation] += 1
    middle = counts[60 * stride : 61 * stride]
    return [int(n) for n in middle]


def receptive_field(layers):
    """Araujo et al.'s recursion from the last layer to the first: (r, S, P)."""
    r, stride, pad = 1, 1, 0
    for kernel, s, p, dilation in reversed(layers):
        extent = dilation * (kernel - 1) + 1
        r = s * r + (extent - s)
        stride *= s
        pad = s * pad + p
    return r, stride, pad


class Shares(TorchFunctionMode):
    """Carries along which share of a tensor's energy is constant over the map."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        parts = [t for t in torch.utils._pytree.tree_leaves(args) if hasattr(t, "share")]
        energies = [float(t.detach().mean()) for t in parts]
        shares = [t.share for t in parts]
        out = func(*args, **(kwargs or {}))
        in_place = any(out is t for t in parts)
        if parts and isinstance(out, torch.Tensor) and (in_place or not hasattr(out, "share")):
            weighted = sum(e * s for e, s in zip(energies, shares, strict=True))
            out.share = weighted / (sum(energies) or 1.0)
        return out


class Rectify(nn.Module):
    """A ReLU in the energy domain; its constant share by integrating over two normal variables."""

    def forward(self, x):
        out = x / 2
        nodes, weights = np.polynomial.hermite_e.hermegauss(200)
        level = np.sqrt(x.share) * nodes  # what the places of a channel have in common
        spread = np.sqrt(1 - x.share)
        mean = [np.mean(np.maximum(m + spread * NORMAL, 0)) for m in level]
        out.share = float((weights * np.square(mean)).sum() / weights.sum() / 0.5)
        return out


NORMAL = norm.ppf((np.arange(20000) + 0.5) / 20000)


class DivideByVariance(nn.Module):
    """A batch norm in the energy domain: energy over energy, gradient over variance."""

    def forward(self, x):
        mean = x.detach().mean((2, 3), keepdim=True)
        gradient = x / (mean * (1 - x.share))
        out = gradient + (x / mean - gradient).detach()
        out.share = 0.0
        return out


class PoolEvenly(nn.Module):
    """A max-pool in the energy domain: the mean over the entries of the window that exist."""

    def __init__(self, pool):
        super().__init__()
        self.pool = nn.AvgPool2d(
            pool.kernel_size, pool.stride, pool.padding, count_include_pad=False
        )

    def forward(self, x):
        return self.pool(x)


def energy_module(module):
    """The same network at full width in the energy domain, layer by layer, in float64."""
    variant = copy.deepcopy(module).double().eval()
    for parent in list(variant.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                with torch.no_grad():
                    child.weight.fill_(1 / child.weight[0].numel())
                child.bias = None
            elif isinstance(child, nn.BatchNorm2d):
                rectify = isinstance(getattr(child, "act", None), nn.ReLU)  # timm's two in one
                steps = [DivideByVariance(), *([Rectify()] if rectify else [])]
                setattr(parent, name, nn.Sequential(*steps))
            elif isinstance(child, nn.ReLU):
                setattr(parent, name, Rectify())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, PoolEvenly(child))
    return variant


def energy_map(module, size):
    """Gradient of the sum of `energy_module` over outputs and channels, scaled to mean 1."""
    x = torch.ones(1, *size, dtype=torch.float64, requires_grad=True)
    x.share = 0.0
    with Shares():
        out = energy_module(module)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    total = gradient[0].sum(0).numpy()
    return total / total.mean()


def squared_jacobian(module, size):
    """Sum over outputs of the squared Jacobian, entry by entry: (height, width)."""
    x = torch.randn(1, *size, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(module, x, vectorize=True)
    return jacobian.reshape(-1, *size).square().sum((0, 1)).numpy()
