"""The energy-domain pass against literal energies, Monte-Carlo Jacobians and closed forms."""

import numpy as np
import pytest
import reference
import timm
import torch
import torch.nn.functional as F
from torch import nn
from toy_models import Branches, Gated, Tokens, stack

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.measuring import phases


def expected(module, size, **options):
    """The fast map of `module`, scaled to mean 1."""
    fast = energy_map(light_copy(module.eval()), size, **options).numpy()
    return fast / fast.mean((1, 2), keepdims=True)


class Trunk(nn.Module):
    """A timm model up to its last feature map."""

    def __init__(self, name, **options):
        super().__init__()
        self.body = timm.create_model(name, **options)

    def forward(self, x):
        return self.body.forward_features(x)


PLAIN = {
    "convolutions": nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 4, 5, 2)),
    "norms and pool": nn.Sequential(
        nn.Conv2d(3, 6, 7, 2, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2),
        nn.BatchNorm2d(6),
    ),
    "branches": Branches(),
    "depthwise": nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 5, 2, 2, groups=6), nn.Conv2d(6, 12, 1, groups=3)
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_one_channel_standing_for_all_equals_the_full_width(name):
    """The map of one channel is that of a literal pass over all."""
    fast = expected(PLAIN[name], (3, 33, 40))[0]
    np.testing.assert_allclose(fast, reference.energy_map(PLAIN[name], (3, 33, 40)), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("resnet26d", {"layers": (1, 1, 1, 1)}),
        ("densenet121", {"growth_rate": 8, "block_config": (2, 2, 2)}),
    ],
)
def test_one_channel_equals_the_full_width_on_real_architectures(name, options):
    """ResNet and DenseNet, against a literal pass over all channels."""
    module = Trunk(name, **options)
    fast = expected(module, (3, 64, 64))[0]
    np.testing.assert_allclose(fast, reference.energy_map(module, (3, 64, 64)), rtol=1e-4)


def test_the_map_is_the_expectation_of_the_squared_jacobian_over_random_weights():
    """300 random networks average to the map, correlated above 0.99."""
    module = nn.Sequential(
        nn.Conv2d(2, 8, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1, bias=False)
    ).double()
    torch.manual_seed(0)
    total = np.zeros((12, 12))
    for _ in range(300):
        for layer in (module[0], module[2]):
            nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
        total += reference.squared_jacobian(module, (2, 12, 12))
    measured = total / total.mean()
    fast = expected(module, (2, 12, 12))[0]
    assert np.abs(measured - fast).max() < 0.15
    assert np.corrcoef(measured.ravel(), fast.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("kernel", "stride", "weakest"),
    [(3, 2, 1 / 2.25), (1, 2, 0.0), (7, 2, 9 / 12.25), (2, 2, 1.0), (4, 4, 1.0), (4, 2, 1.0)],
)
def test_a_single_convolution_serves_its_weakest_phase_by_its_coverage(kernel, stride, weakest):
    """Least over mean number of windows, for six kernels and strides."""
    sensitivity = expected(nn.Conv2d(3, 8, kernel, stride, kernel // 2), (3, 64, 64))
    profile = phases.phase_profile(sensitivity, (stride, stride))
    assert phases.least_sensitive(profile)[0] == pytest.approx(weakest, abs=1e-12)


@pytest.mark.parametrize(
    ("kernels", "overlap", "ratio"), [((7, 3), [5, 6, 4, 6], 2.25), ((8, 4), [8, 8, 8, 8], 1.0)]
)
def test_windows_of_a_stem_and_its_pool_overlap_as_known(kernels, overlap, ratio):
    """Stem and pool have 5, 6, 4, 6 paths per axis, and 8 everywhere with kernel padding."""
    stem = nn.Sequential(nn.Conv2d(3, 8, kernels[0], 2, 3), nn.MaxPool2d(kernels[1], 2, 1))
    counts = path_count_map(light_copy(stem), (3, 128, 128))[0].numpy()
    along = np.sqrt(np.diag(counts))[64:68]
    np.testing.assert_array_equal(counts[64:68, 64:68], np.outer(along, along))
    assert list(along) in [[*overlap[i:], *overlap[:i]] for i in range(4)]
    profile = phases.phase_profile(counts[None], (4, 4))
    assert phases.ratio(profile)[0] == pytest.approx(ratio)


@pytest.mark.parametrize("depth", [1, 2, 5, 9])
def test_paths_through_3x3_stacks_are_repeated_convolutions_of_ones(depth):
    """Counts, deviation and receptive field follow from the depth."""
    size = 4 * depth + 1
    counts, _, units = path_count_map(light_copy(stack(depth)), (1, size, size))
    line = np.ones(1)
    for _ in range(depth):
        line = np.convolve(line, [1, 1, 1])
    whole = np.convolve(line, np.ones(size - 2 * depth))
    np.testing.assert_array_equal(counts.numpy(), np.outer(whole, whole))
    place = np.arange(2 * depth + 1) - depth
    assert np.sqrt((place**2 * line).sum() / line.sum()) == pytest.approx(np.sqrt(2 * depth / 3))
    assert (units.high - units.low + 1 == 2 * depth + 1).all()


def test_a_second_3x3_over_a_5x5_image_counts_1_2_3_2_1():
    """A 3 x 3 kernel over a 5 x 5 image counts 1, 2, 3, 2, 1 paths per axis (Perone 2017)."""
    counts = path_count_map(light_copy(nn.Sequential(nn.Conv2d(1, 1, 3))), (1, 5, 5))[0].numpy()
    np.testing.assert_array_equal(counts, np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]))


def test_a_residual_sum_adds_energies():
    """A convolution beside its shortcut has twice the energy."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return x + self.conv(x)

    inside = energy_map(light_copy(Residual()), (4, 9, 9))[0, 4, 4]
    alone = energy_map(light_copy(nn.Conv2d(4, 4, 3, padding=1)), (4, 9, 9))[0, 4, 4]
    assert float(inside / alone) == pytest.approx(2.0)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_constant_factor_counts_by_its_square(factor):
    """A factor multiplied from either side, or divided by, scales the energy by its square."""

    class Scaled(nn.Module):
        def forward(self, x):
            return torch.cat([x * factor, x / factor, factor * x[:, :1]], 1)

    found = energy_map(light_copy(Scaled()), (2, 6, 6))[0]  # two channels, then one
    assert float(found.mean()) == pytest.approx(3 * factor**2 + 2 / factor**2)


def test_a_mean_over_a_window_divides_by_the_window_twice():
    """A maximum over 2 x 2 pixels has four times the energy of a mean."""
    pool = energy_map(light_copy(nn.AvgPool2d(2)), (3, 8, 8))[0]
    largest = energy_map(light_copy(nn.MaxPool2d(2)), (3, 8, 8))[0]
    np.testing.assert_allclose(largest / pool, 4.0)


def test_a_fixed_filter_counts_by_its_squared_taps():
    """The profile of a blur at stride 2 is that of its squared taps."""

    class Blur(nn.Module):
        def __init__(self):
            super().__init__()
            taps = torch.tensor([1.0, 2.0, 1.0]) / 4
            self.register_buffer("taps", torch.outer(taps, taps).expand(3, 1, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.taps, stride=2, padding=1, groups=3)

    profile = phases.phase_profile(expected(Blur(), (3, 64, 64)), (2, 2))[0]
    along = np.array([4.0, 2.0])  # tap 2 squared on even pixels, twice tap 1 squared on odd ones
    planted = np.outer(along, along)
    np.testing.assert_allclose(profile, planted / planted.mean(), rtol=1e-12)


def test_bilinear_interpolation_counts_by_its_squared_coefficients():
    """The map is the squared Jacobian of the interpolation."""

    class Upsample(nn.Module):
        def forward(self, x):
            return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    fast = energy_map(light_copy(Upsample()), (1, 6, 6))[0].numpy()
    np.testing.assert_allclose(fast, reference.squared_jacobian(Upsample(), (1, 6, 6)), rtol=1e-6)


def test_uniform_attention_is_a_mean_over_tokens():
    """Uniform attention has even sensitivity and 1/64 of the energy beside the own token."""
    found = energy_map(light_copy(Tokens()), (3, 32, 32))[0]
    np.testing.assert_allclose(found / found.mean(), 1.0, rtol=1e-10)
    own, tokens = 1.0, 64
    mixed = 1 / tokens  # 64 units read each token with weight 1/64, squared
    alone = energy_map(light_copy(nn.Conv2d(3, 8, 4, 4)), (3, 32, 32))[0].mean()
    assert float(found.mean() / alone) == pytest.approx(own + mixed)


def test_a_gate_is_a_constant():
    """A gated convolution has the map of the convolution."""
    found, alone = (expected(m, (3, 33, 33))[0] for m in (Gated(), nn.Conv2d(3, 8, 3, 2, 1)))
    np.testing.assert_allclose(found, alone, rtol=1e-12)


def test_a_padded_variant_changes_its_own_layer_only():
    """Padding a layer removes the variance of its own period."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    plain, first, second = expected(net, (3, 96, 96), padded=(None, 0, 1))
    np.testing.assert_array_equal(plain, expected(net, (3, 96, 96))[0])
    shares = [
        phases.by_period(phases.phase_profile(m[None], (4, 4))[0]) for m in (plain, first, second)
    ]
    assert shares[0][2] > 0.1
    assert shares[0][4] > 0.01
    assert shares[1][2] < 1e-20
    assert shares[2][2] == pytest.approx(shares[0][2], rel=0.05)
    assert shares[2][4] < 1e-3 * shares[0][4]


def test_an_operation_without_a_finite_energy_is_named():
    """The operation atanh has no finite energy and raises NotApplicableError with its name."""

    class Wild(nn.Module):
        def forward(self, x):
            return torch.atanh(x)

    with pytest.raises(NotApplicableError, match="atanh"):
        energy_map(light_copy(Wild()), (1, 8, 8))


def test_a_network_that_ends_in_a_gate_says_that_no_path_leads_through():
    """A final sigmoid raises NotApplicableError, which names it and its layer."""
    with pytest.raises(NotApplicableError, match="'sigmoid' in layer '1'"):
        energy_map(light_copy(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid())), (1, 8, 8))


def test_a_root_on_the_only_path_is_named():
    """A square root is read as a statistic, not as an activation."""

    class Root(nn.Module):
        def forward(self, x):
            return torch.sqrt(x.relu() + 1e-6)

    with pytest.raises(NotApplicableError, match="'sqrt'"):
        energy_map(light_copy(nn.Sequential(nn.Conv2d(1, 2, 3), Root())), (1, 8, 8))


def test_the_pass_leaves_the_number_of_threads_alone():
    """The energy pass keeps the number of threads of torch."""
    before = torch.get_num_threads()
    energy_map(light_copy(nn.Conv2d(1, 2, 3)), (1, 8, 8))
    assert torch.get_num_threads() == before


class ByNumpyNames(nn.Module):
    """Joins, averages and normalises along axes that are named `axis`, as numpy names them."""

    def __init__(self, axis, keep):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 5, 2, 2)
        self.last = nn.Conv2d(8, 4, 3, 1, 1)
        self.axis, self.keep = axis, keep

    def forward(self, x):
        y = torch.cat([F.relu(input=self.left(x)), self.right(x)], **{self.axis: 1})
        y = y - y.mean(**{self.axis: (2,), self.keep: True})
        y = y / y.std(**{self.axis: 1, self.keep: True})
        return self.last(y)


def test_arguments_by_numpy_s_names_count_as_by_torch_s_own():
    """`axis` and `keepdims` mean what `dim` and `keepdim` mean, in maps, paths and fields."""
    own, other = ByNumpyNames("dim", "keepdim"), ByNumpyNames("axis", "keepdims")
    maps = [energy_map(light_copy(m.eval()), (3, 24, 20)) for m in (own, other)]
    assert torch.equal(*maps)
    paths, _, units = zip(*(path_count_map(m, (3, 24, 20)) for m in (own, other)), strict=True)
    assert torch.equal(*paths)
    np.testing.assert_array_equal(units[0].low, units[1].low)
