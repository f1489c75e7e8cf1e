"""Whether the gradient of a module is the derivative of what it computes, in double precision.

They differ where a part of the forward pass runs under `no_grad`, a tensor is detached, or a custom
autograd function has another backward pass. A module that rounds has a derivative of 0, and a
gradient that passes straight through by intention.

For a function f of n numbers with gradient g, the error along a random direction d of length 1 is
e(d) = (f(x + h d) - f(x - h d)) / 2h - g . d, and n E e^2 / |g|^2 the square of g's relative error.
It counts if two step lengths h give the same quotients: parts in single precision, random numbers
and kinks do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Scalar = Callable[[Tensor], Tensor]

STEPS = (1e-8, 1e-7)
"""Lengths of a step, relative to that of x."""

LONG_STEP = 1e-4
"""By which a part in single precision has a derivative, too."""

STEP_NOISE = 0.3
"""Relative error of a right gradient, by long steps in single precision and over kinks."""

WRONG = 1e-2
"""Relative error of a gradient that is not the derivative; a right one has 1e-5."""

SAME = 1e-3
"""Relative difference of the quotients at two steps of a function that is smooth there."""

FEW, MORE = 2, 4
"""Directions that are tried, and those if these show an error."""

DIFFERENT = (
    "the gradient is not the derivative of the output: along random directions its error is {:.2g} "
    "of its length; the likely cause is a part under no_grad or detach, or a custom backward pass"
)

STRAIGHT_THROUGH = (
    "the module rounds what it computes: its derivative is 0, and its gradients pass straight "
    "through"
)


def gradient_fault(f: Scalar, x: Tensor) -> str | None:
    """`DIFFERENT` with the error, or `STRAIGHT_THROUGH`; None for a right gradient.

    Also None where that cannot be judged. `f` gives one number of `x` (1, channels, height, width),
    both in double precision.
    """
    x = x.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(f(x), x)
    x, norm = x.detach(), float(g.norm())
    if not norm or not bool(g.isfinite().all()):
        return None
    error, _ = _error(f, x, g, STEPS[0], FEW)
    if not error > WRONG:
        return None
    error, short = _error(f, x, g, STEPS[0], MORE)
    _, long = _error(f, x, g, STEPS[1], MORE)
    if not any(short) and not any(long):
        error, _ = _error(f, x, g, LONG_STEP, MORE)
        return STRAIGHT_THROUGH if error > max(STEP_NOISE, WRONG) else None
    largest = max(map(abs, short))
    if any(abs(a - b) > SAME * largest for a, b in zip(short, long, strict=True)):
        return None
    return DIFFERENT.format(error)


def _error(f: Scalar, x: Tensor, g: Tensor, step: float, count: int) -> tuple[float, list[float]]:
    """The relative error of `g` along `count` directions, and the quotients of differences."""
    random = torch.Generator().manual_seed(0)
    length, quotients, squares = step * float(x.norm()), [], 0.0
    for _ in range(count):
        d = torch.randn(x.shape, generator=random, dtype=x.dtype)
        d /= d.norm()
        with torch.no_grad():
            quotients.append(float(f(x + length * d) - f(x - length * d)) / (2 * length))
        squares += (quotients[-1] - float((g * d).sum())) ** 2
    return (x.numel() * squares / count) ** 0.5 / float(g.norm()), quotients
