"""Small networks of one function, and squared Jacobians, for the tests of `structure`."""

import torch
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import path_count_map
from perimetry.suites.architecture.receptive_field import summarise_field

SIDE = 48


class Apply(nn.Module):
    """A function of x (batch, channels, rows, columns) between two layers, with its own modules."""

    def __init__(self, function, *, patch=4, behind=3, **modules):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, patch, patch)
        self.function = function
        self.modules_ = nn.ModuleDict(modules)
        self.head = nn.Conv2d(6, 4, behind, padding=behind // 2)

    def forward(self, x):
        return self.head(self.function(self.stem(x), **self.modules_))


def squared_jacobian(function, channels, rows, columns):
    """Sum over the outputs of the squared Jacobian (rows, columns) of a linear function, mean 1."""
    x = torch.zeros(1, channels, rows, columns, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(function, x)
    found = (jacobian.reshape(-1, channels, rows, columns) ** 2).sum((0, 1))
    return found / found.mean()


class Between(nn.Module):
    """A fixed linear function and a layer of random weights of one tap."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.head(self.function(x))


BLUR = torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 3, 1]))


def field_of(module, size=SIDE):
    return summarise_field(path_count_map(light_copy(module.eval()), (3, size, size))[2])
