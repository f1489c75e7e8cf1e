"""Check in double precision that a gradient is the derivative of its function.

For a function f of n numbers with gradient g by autograd, the error along a random direction d of
length 1 is e(d) = (f(x + h d) - f(x - h d)) / 2h - g . d. Over random d, n E e^2 / |g|^2 is the
square of g's relative L2 error, whatever it consists of: a wrong factor, or a branch left out.

In double precision h can be so small that no ReLU or max-pool switches within a step. In single
precision it cannot: in an untrained ResNet-50, so many of them switch within the smallest step
above rounding that the difference quotient is a fifth of the derivative.

Double precision cannot resolve every gradient: a probability of 1 - 1e-12 is stored to four digits
of its difference from 1, and its derivative is as small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    Scalar = Callable[[Tensor], Tensor]


STEPS = (1e-9, 1e-8, 1e-7, 1e-10)
"""Lengths of a step relative to that of x; the next is tried if the last fails."""

DIRECTIONS = 3
"""With three, an error of 5 % passes for one below 0.1 % once in 70,000 times."""

GOOD = 1e-3
"""Maximum relative L2 error of a right gradient; rounding causes 1e-5 at most."""

ROUNDING = 16
"""Largest rounding error of a sum, in units of the rounding of its terms' root sum of squares."""

COARSE = 1e-2
"""Length of a step relative to that of x, for functions whose gradient is zero."""


def gradient(f: Scalar, x: Tensor) -> Tensor:
    """Return the gradient of `f` at `x` by autograd, in double precision on the CPU."""
    x = x.detach().clone().requires_grad_(True)
    (found,) = torch.autograd.grad(f(x), x)
    return found.to("cpu", torch.float64)


def directions(like: Tensor, count: int) -> list[Tensor]:
    """Return `count` fixed random directions of length 1, in double precision on the CPU."""
    random = torch.Generator().manual_seed(0)
    found = [torch.randn(like.shape, generator=random, dtype=torch.float64) for _ in range(count)]
    return [d / d.norm() for d in found]


def rise(f: Scalar, x: Tensor, move: Tensor) -> float:
    """Return f(x + move) - f(x - move)."""
    move = move.to(x)
    with torch.no_grad():
        return float(f(x + move)) - float(f(x - move))


def resolution(g: Tensor, x: Tensor, size: float) -> float:
    """Relative L2 error of `g` that rounding alone can cause in the estimate at the largest step.

    `size` is the root sum of squares of the terms whose sum f is. Infinite if `g` is zero.
    """
    norm, step = float(g.norm()), max(STEPS) * (float(x.norm()) or 1.0)
    return x.numel() ** 0.5 * _noise(size) / (2 * step * norm) if norm else float("inf")


def _noise(size: float) -> float:
    return ROUNDING * torch.finfo(torch.float64).eps * size


def gradient_error(f: Scalar, x: Tensor, g: Tensor | None = None, size: float = 0.0) -> float:
    """Relative L2 error of `g`, by default the gradient of `f` at `x`, estimated; see this module.

    `f` works in double precision; `size` as for `resolution`, at least |f(x)|. If `g` is zero, the
    error is 0 if f is constant over a large step, else infinite. If rounding hides errors larger
    than `GOOD`, what exceeds the rounding counts.
    """
    x = x.detach().double()
    g = gradient(f, x) if g is None else g
    norm, length = float(g.norm()), float(x.norm()) or 1.0
    with torch.no_grad():
        size = max(size, abs(float(f(x))))
    if norm == 0.0:
        moves = [rise(f, x, COARSE * length * d) for d in directions(x, DIRECTIONS)]
        return float("inf") if any(abs(m) > _noise(size) for m in moves) else 0.0
    hidden = resolution(g, x, size) > GOOD
    best = float("inf")
    for step in (max(STEPS),) if hidden else STEPS:
        floor = _noise(size) / (2 * step * length) if hidden else 0.0
        errors = [
            rise(f, x, step * length * d) / (2 * step * length) - float((g * d).sum())
            for d in directions(x, DIRECTIONS)
        ]
        mean_square = sum(max(0.0, abs(e) - floor) ** 2 for e in errors) / DIRECTIONS
        best = min(best, (x.numel() * mean_square) ** 0.5 / norm)
        if best <= GOOD:
            break
    return best
