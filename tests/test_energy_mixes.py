"""A tensor and its own mean pool are no independent terms: literal matrices, chains, draws."""

import numpy as np
import pytest
import reference
import torch
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map

SIZE = (3, 12, 10)


class Terms(nn.Module):
    """a x + b P x, P a mean pool of `side`; with a norm, of the normed x."""

    def __init__(self, a, b, side=3, *, counted=False, norm=None):
        super().__init__()
        self.a, self.b, self.norm = a, b, norm or nn.Identity()
        self.pool = nn.AvgPool2d(side, 1, side // 2, count_include_pad=counted)

    def forward(self, x):
        return self.a * x + self.b * self.pool(self.norm(x))


class Shortcut(nn.Module):
    """x + (P y - y), y the normed x: PoolFormer's block, less its MLP."""

    def __init__(self, norm=None):
        super().__init__()
        self.norm, self.pool = norm or nn.Identity(), Terms(0.0, 1.0).pool

    def forward(self, x):
        y = self.norm(x)
        return x + (self.pool(y) - y)


def expected(module, size=SIZE):
    return energy_map(light_copy(module.eval()), size)[0].numpy()


def squared_taps(function, size):
    """Column sums of the squared matrix of a linear `function`, pixel by pixel."""
    energies = np.zeros(size)
    for place in np.ndindex(size):
        impulse = torch.zeros(1, 1, *size, dtype=torch.float64)
        impulse[0, 0, *place] = 1
        energies[place] = float(function(impulse).square().sum())
    return energies


@pytest.mark.parametrize(
    ("a", "b", "side", "counted"),
    [(0.3, 2.0, 3, True), (1.0, -1.0, 3, False), (-1.0, 1.0, 5, False), (2.0, 0.5, 5, True)],
)
def test_the_energies_of_a_mix_are_its_squared_taps_borders_included(a, b, side, counted):
    """An input and its mean pool, added or subtracted, as literal filters."""
    terms = Terms(a, b, side, counted=counted)
    fast = expected(nn.Sequential(nn.Conv2d(3, 8, 1), terms))
    literal = squared_taps(terms, SIZE[1:])
    np.testing.assert_allclose(fast / fast.mean(), literal / literal.mean(), rtol=1e-6)


def test_a_pool_less_its_input_beside_a_shortcut_is_the_pool():
    """PoolFormer's token mixer with its shortcut has the map of the pool."""
    convs = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)]
    mixed = expected(nn.Sequential(convs[0], Shortcut(), convs[1]), (3, 33, 40))
    plain = expected(nn.Sequential(convs[0], Terms(0.0, 1.0).pool, convs[1]), (3, 33, 40))
    np.testing.assert_allclose(mixed, plain, rtol=1e-6)


def test_a_norm_over_the_whole_map_scales_the_mix():
    """Literal: random weights of 1 / fan_in keep an energy of 1, that of pads aside."""
    conv, norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8)
    found = expected(nn.Sequential(conv, Shortcut(norm)))
    taps = squared_taps(Shortcut(), (SIZE[1] - 2, SIZE[2] - 2))
    literal = np.zeros(SIZE[1:])
    for (i, j), energy in np.ndenumerate(taps):
        literal[i : i + 3, j : j + 3] += energy
    np.testing.assert_allclose(found / found.mean(), literal / literal.mean(), rtol=1e-6)


def test_a_norm_that_halves_the_branch_leaves_half_of_the_shortcut():
    """A norm behind a factor of 2 makes x + (P x - x) / 2 into x / 2 + P x / 2."""

    class Louder(nn.Module):
        def forward(self, x):
            return 2 * x

    norm = nn.GroupNorm(1, 8)
    found = expected(nn.Sequential(nn.Conv2d(3, 8, 1), Louder(), Shortcut(norm)))
    literal = squared_taps(Terms(0.5, 0.5), SIZE[1:])
    np.testing.assert_allclose(found / found.mean(), literal / literal.mean(), rtol=1e-6)


def test_the_map_is_the_mean_of_the_squared_jacobians_of_random_weights():
    """60 random networks differ from the map by less than 6 %."""
    size = (3, 16, 16)
    total = np.zeros(size[1:])
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Shortcut(), nn.Conv2d(8, 8, 3, 2, 1)).double()
    for seed in range(60):
        torch.manual_seed(seed)
        for conv in (module[0], module[2]):
            nn.init.normal_(conv.weight, std=conv.weight[0].numel() ** -0.5)
        total += reference.squared_jacobian(module, size)
    found = expected(module, size)
    inner = (slice(4, 12), slice(4, 12))
    ratio = total[inner] / found[inner]
    assert ratio.std() / ratio.mean() < 0.06


def test_a_tensor_and_its_batch_norm_add_in_amplitude():
    """A norm is a factor c of all units here, and (1 + c) x has the energy of (1 + c)^2."""
    first = nn.Conv2d(3, 8, 3, 2, 1)

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = first, nn.BatchNorm2d(8)

        def forward(self, x):
            x = self.first(x)
            return x + self.norm(x)

    plain, normed = (expected(nn.Sequential(first, f)) for f in (nn.Identity(), nn.BatchNorm2d(8)))
    both = (np.sqrt(plain) + np.sqrt(normed)) ** 2
    np.testing.assert_allclose(expected(Sum()), both, rtol=1e-6)


@pytest.mark.parametrize("other", [nn.ReLU(), nn.Conv2d(8, 8, 1), nn.MaxPool2d(3, 1, 1)])
def test_terms_that_are_no_mix_of_one_tensor_stay_independent(other):
    """The energies of x and f(x) add as those of independent terms."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other = nn.Conv2d(3, 8, 3, 2, 1), other

        def forward(self, x):
            x = self.first(x)
            return x + self.other(x)

    found = expected(Sum())
    alone = [expected(nn.Sequential(Sum().first, f)) for f in (nn.Identity(), other)]
    np.testing.assert_allclose(found, sum(alone), rtol=1e-6)


def test_paths_are_counted_one_by_one():
    """A path of the shortcut and one of each tap: signs do not cancel in a count."""
    found, _, _ = path_count_map(light_copy(Shortcut()), SIZE)
    counted, _, _ = path_count_map(light_copy(Terms(0.0, 1.0).pool), SIZE)
    np.testing.assert_array_equal(found.numpy(), 2 + counted.numpy())
