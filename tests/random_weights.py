"""The mean squared Jacobian over random weights, by the coefficients of their products."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

SIDE = 6


class Net(nn.Module):
    """A function of maps (batch, 2, rows, columns) and of layers of random weights."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def expected_map(net):
    """Mean over independent weights of the sum of squared derivatives (rows, columns), mean 1.

    The derivatives are linear in each weight of variance 1 / fan_in. So the mean is a sum of
    squares: of the coefficient of every product of weights, at most one of each layer.
    """
    layers = [m.weight for m in net.layers]
    choices = [range(-1, w.numel()) for w in layers]
    total = sum(_coefficient(net, layers, chosen) ** 2 for chosen in product(*choices))
    found = total.sum((0, 1))
    return found / found.mean()


def _coefficient(net, weights, chosen):
    """The coefficient of the product of `chosen` weights in the derivatives; -1 for no weight."""
    used = [n for n in chosen if n >= 0]
    total = 0
    for kept in product(*([[True, False]] * len(used))):
        rest = iter(kept)
        with torch.no_grad():
            for weight, n in zip(weights, chosen, strict=True):
                weight.zero_()
                if n >= 0 and next(rest):
                    weight.view(-1)[n] = weight[0].numel() ** -0.5
        total = total + (-1) ** kept.count(False) * _derivatives(net)
    return total


def _derivatives(net):
    x = torch.ones(1, 2, SIDE, SIDE, dtype=torch.float64)  # where a ReLU passes everything on
    found = torch.autograd.functional.jacobian(net, x, vectorize=True)
    return found.reshape(-1, 2, SIDE, SIDE)


def mean(x):
    """Windows that overlap."""
    return F.avg_pool2d(x, 3, 1, 1)
