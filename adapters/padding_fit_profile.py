"""The phase profile of an energy map, differentiable: what the fill `fit` makes even.

The same profile as that of the dead-pixel suite (PROTOCOL 3.3), in contrasts, whose squares add up
to the number of phases times the squared imbalance.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor


def contrasts(period: int) -> Tensor:
    """Orthonormal contrasts (period^2 - 1, period, period): they all vanish where A is even."""
    places = torch.arange(period, dtype=torch.float64)
    angle = 2 * torch.pi / period * places[:, None] * places
    hartley = (angle.cos() + angle.sin()) / period**0.5
    pairs = list(itertools.product(range(period), repeat=2))[1:]
    return torch.stack([hartley[a][:, None] * hartley[b] for a, b in pairs])


def unevenness(energy: Tensor, period: int) -> Tensor:
    """Contrasts (period^2 - 1,) of the phase profile of `energy` (images, height, width), mean.

    Each image is divided by its moving mean over a centred period x period box, as in `deadpixel`;
    whole cells within an eighth of the border are left out.
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
