"""`structure` of maxima of maxima and of max-pools in a row, against literal shares of entries."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map

SIDE = 14


class Compared(nn.Module):
    """Convolutions of 1, 3 and 5 taps a side, and a function of what they return."""

    def __init__(self, function):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, k, padding=k // 2) for k in (1, 3, 5)])
        self.function = function

    def forward(self, x):
        return self.function(*(layer(x) for layer in self.layers))


def sensitivity(net):
    """The expected map, of mean 1, and what is assumed of it."""
    assumed = {}
    found = energy_map(light_copy(net.eval()), (3, SIDE, SIDE), approximate=assumed)[0].numpy()
    return found / found.mean(), [one.text for one in assumed]


def of_convolution(k):
    """Literal: each of the windows that hold a pixel gives it 1 / (3 k k)."""
    near = [[abs(i - j) <= k // 2 for j in range(SIDE)] for i in range(SIDE)]
    counts = np.array(near, float).sum(0)
    return np.outer(counts, counts) / (3 * k * k)


def mean_of(*shares):
    """The map of the largest, which is that of each convolution (1, 3, 5) with this probability."""
    found = sum(p * of_convolution(k) for p, k in zip(shares, (1, 3, 5), strict=True))
    return found / found.mean()


@pytest.mark.parametrize(
    ("function", "shares"),
    [
        (lambda a, b, c: torch.maximum(a, torch.maximum(b, c)), (1 / 3, 1 / 3, 1 / 3)),
        (lambda a, b, c: torch.max(torch.max(a, b), c), (1 / 3, 1 / 3, 1 / 3)),
        (lambda a, b, c: torch.fmin(a, torch.minimum(b, other=c)), (1 / 3, 1 / 3, 1 / 3)),
        (lambda a, b, c: c.clamp(min=a).clamp(min=b).clamp(min=c), (1 / 3, 1 / 3, 1 / 3)),
        (lambda a, b, c: c.clamp(None, a).clip(max=b), (1 / 3, 1 / 3, 1 / 3)),
        (lambda a, b, c: torch.maximum(a, torch.maximum(a, c)), (1 / 2, 0, 1 / 2)),
        (
            lambda a, b, c: torch.maximum(torch.maximum(a, b), torch.maximum(b, c)),
            (1 / 3, 1 / 3, 1 / 3),
        ),
        (
            lambda a, b, c: torch.maximum(
                torch.cat([a, a], 1), torch.maximum(torch.cat([b, b], 1), torch.cat([c, c], 1))
            ),
            (1 / 3, 1 / 3, 1 / 3),
        ),
    ],
)
def test_each_entry_of_nested_maxima_is_as_likely_the_largest(function, shares):
    """Of n different entries each has 1/n, in whatever order they are compared."""
    found, assumed = sensitivity(Compared(function))
    assert assumed == []
    np.testing.assert_allclose(found, mean_of(*shares), rtol=1e-9)


def changed_before(a, b, c):
    inner = torch.maximum(b, c)
    b.mul_(2)
    return torch.maximum(a, inner) + b


@pytest.mark.parametrize(
    ("function", "notes"),
    [
        (lambda a, b, c: torch.maximum(a, 2 * torch.maximum(b, c)), ["maxima pass"]),
        (lambda a, b, c: torch.maximum(a, torch.minimum(b, c)), ["is as likely", "maxima pass"]),
        (changed_before, ["is as likely", "maxima pass", "'add' behind a function of the same"]),
    ],
)
def test_a_maximum_that_is_no_simple_one_has_a_note(function, notes):
    """Where the smaller of two is compared, and where what was compared has changed since."""
    _, found = sensitivity(Compared(function))
    assert len(found) == len(notes)
    assert all(any(note in text for text in found) for note in notes)


def pools(*calls):
    def function(x):
        for call in calls:
            x = F.max_pool2d(x, *call)
        return x

    return function


def of_windows(taps, before, stride=1, count=SIDE):
    """Literal: each entry of a clipped window is the largest with the same probability."""
    found = np.zeros((SIDE, SIDE))
    for i in range(count):
        for j in range(count):
            top, left = i * stride - before, j * stride - before
            rows = slice(max(top, 0), min(top + taps, SIDE))
            columns = slice(max(left, 0), min(left + taps, SIDE))
            entries = found[rows, columns]
            entries += 1 / entries.size
    return found / found.mean()


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(5, 1, 2)] * 2, of_windows(9, 4)),
        ([(5, 1, 2)] * 3, of_windows(13, 6)),
        ([(3, 1, 0), (3, 1, 1)], of_windows(5, 1, count=SIDE - 2)),
        ([(3, 1, 1), (5, 1, 0)], of_windows(7, 1, count=SIDE - 4)),
        ([(2, 2), (7, 1)], np.kron(np.full((7, 7), 1), np.ones((2, 2)))),
    ],
)
def test_pools_of_overlapping_windows_in_a_row_are_one_pool(calls, expected):
    """A unit that several windows share is one entry, as in spatial pyramids of pools."""
    net = Apply(pools(*calls))
    net.stem, net.head = nn.Identity(), nn.Identity()
    found, assumed = sensitivity(net)
    assert assumed == []
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_pools_of_concatenated_channels_are_one_pool():
    """As behind one convolution: runs of equal channels are stored once."""

    class Joined(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.function = function

        def forward(self, x):
            return self.function(torch.cat([self.a(x), self.b(x)], 1))

    found, assumed = sensitivity(Joined(pools((5, 1, 2), (5, 1, 2))))
    assert assumed == []
    np.testing.assert_allclose(found, of_windows(9, 4), rtol=1e-9)


@pytest.mark.parametrize("calls", [[(3, 2, 1), (3, 2, 1)], [(3, 1, 1), (2, 2)]])
def test_strided_pools_of_overlapping_windows_have_a_note(calls):
    """What they share is counted several times."""
    _, assumed = sensitivity(Apply(pools(*calls)))
    assert len(assumed) == 1
    assert "no unit twice" in assumed[0]


def test_pools_without_overlap_have_no_note():
    """Every unit is in one window: shares multiply."""
    assert sensitivity(Apply(pools((2, 2), (3, 1, 1))))[1] == []
