"""`structure` of clamps, whose bounds are numbers, tensors, or depend on the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import Between
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.architecture.rule_table import size_constant_share

SIDE = 6
MASK = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
ZEROS = torch.zeros(1, 3, 1, 1)
LIMITS = torch.where(torch.arange(SIDE) > 2, 1e9, -1e9)


def found_map(function):
    """The expected map of `function` and a layer of one tap, as a sum over three channels."""
    return 3 * energy_map(light_copy(Between(function)), (3, SIDE, SIDE))[0]


def literal_map(function):
    """The squared Jacobian, summed over all outputs, in the mean of an image and its negative.

    Of two values one is the larger in the image, the other in its negative.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    total = 0
    for image in (x, -x):
        jacobian = torch.autograd.functional.jacobian(function, image)
        total = total + (jacobian.reshape(-1, 3, SIDE, SIDE) ** 2).sum((0, 1)) / 2
    return total


BOUNDED = {
    "at zero": lambda x: x.clamp(min=0),
    "at zero from above": lambda x: x.clamp(max=0),
    "at zero from above, by its own function": lambda x: torch.clamp_max(x, max=0.0),
    "at a tensor of zero": lambda x: x.clamp(min=torch.tensor(0.0).to(x)),
    "at a tensor of zeros": lambda x: x.clamp(min=ZEROS.to(x)),
    "at a tensor of zeros from above": lambda x: torch.clamp_max(x, ZEROS.to(x)),
    "far away": lambda x: x.clamp(torch.tensor(-1e4).to(x), torch.tensor(1e4).to(x)),
    "at another map": lambda x: x.clamp(min=MASK.to(x) * x.roll(2, 3)),
    "at another map from above": lambda x: torch.clamp_max(x, MASK.to(x) * x.roll(2, 3)),
    "at another map, in place": lambda x: x.clone().clamp_(min=MASK.to(x) * x.roll(2, 3)),
    "zeros by a map": lambda x: torch.zeros_like(x).clamp(min=MASK.to(x) * x),
    "maximum with zero": lambda x: torch.maximum(torch.zeros(()).to(x), MASK.to(x) * x),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_passes_what_it_leaves_of_the_image(name):
    """At zero it is a ReLU, far away the identity, and at another map the larger of two."""
    found, expected = found_map(BOUNDED[name]), literal_map(BOUNDED[name])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_maximum_with_zeros_grows_the_constant_share_as_a_relu_does():
    """A batch norm behind it has the same map as behind a ReLU."""

    def normed(x):
        return F.batch_norm(x, torch.zeros(3).to(x), torch.ones(3).to(x))

    def between(function):
        return found_map(lambda x: x[..., :3].repeat(1, 1, 1, 2) + normed(function(normed(x))))

    maps = [between(f) for f in (torch.relu, lambda x: x.clamp(min=ZEROS.to(x)))]
    np.testing.assert_allclose(*maps)
    assert not np.allclose(maps[0], between(lambda x: x))


REFUSED = {
    "differ between places": lambda x: x.clamp(min=LIMITS.to(x)),
    "constants that differ between places": lambda x: torch.clamp_max(x, LIMITS.to(x)),
    "both of its bounds depend on the image": lambda x: x.clamp(x.roll(1, 3), x.roll(2, 3)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_bounds_that_only_their_values_tell_apart_are_refused(reason):
    """A tensor of limits may keep any part of the map; of three values each may be the middle."""
    with pytest.raises(NotApplicableError, match=reason):
        found_map(REFUSED[reason])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_absolute_values_have_the_constant_share_of_two_folded_normals(share):
    """Literal: the mean of |x| |y| over a grid of normal x and y of this correlation."""
    points = np.linspace(-8, 8, 801)
    weights = np.outer(*[np.exp(-(points**2) / 2)] * 2)
    x, other = np.meshgrid(points, points, indexing="ij")
    sizes = np.abs(x) * np.abs(share * x + (1 - share**2) ** 0.5 * other)
    expected = (weights * sizes).sum() / weights.sum()
    assert float(size_constant_share(torch.tensor(share))) == pytest.approx(expected, abs=1e-3)


def test_an_instance_norm_divides_absolute_values_by_their_variance():
    """It was their mean square, 2.75 times as much."""
    norm = nn.InstanceNorm2d(3)
    sizes, units = (
        energy_map(light_copy(Between(lambda x, f=f: norm(f(norm(x))))), (3, SIDE, SIDE))[0].mean()
        for f in (torch.abs, torch.neg)
    )
    assert float(sizes / units) == pytest.approx(1 / (1 - 2 / np.pi), rel=0.05)
