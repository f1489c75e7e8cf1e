"""A small network that may break what every measurement rests on, and images for it."""

import torch
from torch import nn

SIZE = (64, 64)
QUICK = {"size": SIZE, "count": 4, "draws": 20, "device": "cpu"}


class Net(nn.Module):
    """Two strided convolutions, `between` them, and a linear layer behind `head`."""

    def __init__(self, between=lambda y: y, head=lambda y: y, layer=None):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3, 2, 1)
        self.between = between
        self.layer = layer or nn.Identity()
        self.b = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = head
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        y = self.b(self.layer(self.between(self.a(x))).relu())
        return self.fc(self.head(y.mean((2, 3))))


class Drifting(nn.Module):
    """Its numbers are another function of the number of passes; `passed` counts these."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.passed = factor, 0

    def forward(self, y):
        self.passed += 1
        return y * self.factor(self.passed)


def images(n=3, size=SIZE):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))
