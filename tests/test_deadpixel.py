"""The deadpixel suite: planted truths, literal references, no reward for noise."""

import numpy as np
import pytest
import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.execution.audit import audit as api_audit
from perimetry.bench.model_report.reported import Evenness, ReportedRecord
from perimetry.bench.ranking.board import Board
from perimetry.bench.statistics.difference import metric_difference
from perimetry.suites.architecture.receptive_field import target_stride
from perimetry.suites.base import Context
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.images import open_images
from perimetry.suites.measuring import phases
from perimetry.suites.measuring.bootstrap import bootstrap, share_interval
from perimetry.suites.measuring.gradients import gradient_maps, normalise_members
from perimetry.suites.measuring.profile_posterior import phase_estimates, profile_posterior
from perimetry.suites.measuring.unbiased import pseudo_values
from perimetry.suites.structure import STRUCTURE

SPEC = InputSpec(64, 64)


def audit(module, protocol="energy", count=8, spec=SPEC, seed=0):
    model = wrap(module, spec=spec)
    images = open_images("dead-leaves", count).load(spec)
    maps = gradient_maps(model, images, DEADPIXEL.probes(model, protocol, seed)).maps
    return DEADPIXEL.measure(model, protocol, maps, Context(images, seed=seed))


def signed_conv(kernel: int, stride: int, channels: int = 64) -> nn.Conv2d:
    """A convolution with weights of +1 and -1: every tap carries the same energy."""
    torch.manual_seed(kernel)
    conv = nn.Conv2d(3, channels, kernel, stride, kernel // 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.where(torch.rand_like(conv.weight) < 0.5, -1.0, 1.0))
    return conv


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 2), (2, 2), (4, 4), (5, 4)])
def test_one_convolution_gives_its_smallest_coverage_over_its_mean(kernel, stride):
    """`weakest` of one convolution is its smallest coverage by taps over the mean coverage."""
    coverage = np.bincount(np.arange(kernel) % stride, minlength=stride)
    plane = np.outer(coverage, coverage)
    expected = plane.min() / plane.mean()
    runs = [audit(signed_conv(kernel, stride), count=32, seed=s) for s in range(5)]
    found = [run.metrics["weakest"] for run in runs]
    assert np.mean([f.value for f in found]) == pytest.approx(expected, abs=0.01)
    assert sum(f.low <= expected <= f.high for f in found) >= 3


def test_a_planted_dead_phase_is_found_exactly():
    """A zeroed tap of a 2 x 2 stride-2 kernel is found: weakest 0, a quarter of pixels dead."""
    conv = signed_conv(2, 2)
    with torch.no_grad():
        conv.weight[:, :, 1, 1] = 0
    found = audit(conv).metrics
    assert found["weakest"].value == 0
    assert found["ratio"].value is None
    assert "unbounded" in found["ratio"].reason
    assert found["dead@0.01"].value == pytest.approx(1 / 4)
    observed = 8 * 24 * 24  # images, and cells of 2 x 2 pixels an eighth of 64 off the border
    assert (found["weakest"].low, found["weakest"].high) == share_interval(0, observed)


class DeadPhase(nn.Module):
    """A small network that reads its input but for one phase of every 2 x 2 pixels."""

    def __init__(self, kept: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(signed_conv(3, 2, 16), nn.ReLU(), nn.Conv2d(16, 16, 3))
        mask = torch.ones(1, 1, 64, 64)
        mask[..., 1::2, 1::2] = kept
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x * self.mask)


def test_a_silent_phase_is_certain_and_ranks_last():
    """It is uneven in the report, last on the board, and a difference in a comparison."""
    (dead,), (whole,) = (
        api_audit(
            DeadPhase(kept), ("deadpixel",), count=8, size=(64, 64), device="cpu", name=str(kept)
        )
        for kept in (0.0, 1.0)
    )
    assert dead.metrics["weakest"].value == 0
    assert ReportedRecord(dead, DEADPIXEL).verdict("weakest") is Evenness.off
    assert [str(row.rank) for row in Board([dead, whole]).rows] == ["1", "2"]
    assert metric_difference(whole, dead, "weakest").separated
    assert not metric_difference(dead, dead, "weakest").separated


def test_the_stage_that_causes_the_imbalance_is_told_by_its_period():
    """An uneven second stage shows at period 4 only, and the periods sum to the imbalance."""
    stage_two = nn.Sequential(signed_conv(2, 2, 32), signed_conv_of(32, 3, 2))
    found = audit(stage_two, count=32).metrics
    assert found["by_period_4"].value > 0.05
    assert abs(found["by_period_2"].value) < found["by_period_4"].value / 20
    total = found["imbalance"].draws ** 2
    parts = [found[f"by_period_{p}"].draws for p in (2, 4)]
    np.testing.assert_allclose(sum(parts), total)
    assert "not a multiple of 8" in found["by_period_8"].reason


class Ensemble:
    """A model that says it has several weight sets."""

    members = 8

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)


@pytest.mark.parametrize("gain", [1.0, 1e6])
def test_no_weight_set_outweighs_the_others_by_its_gain(gain):
    """Seven initial states with a weak phase, one even and `gain` times as sensitive."""
    rng = np.random.default_rng(0)
    cells = np.tile([[0.2, 1.0], [1.0, 1.0]], (16, 16))
    samples = rng.uniform(0.9, 1.1, (8, 32, 32)) * np.stack([*[cells] * 7, np.ones((32, 32))])
    samples[7] *= gain
    model = Ensemble(wrap(nn.Conv2d(3, 4, 2, 2), spec=InputSpec(32, 32)))
    context = Context(torch.zeros(8, 3, 32, 32), seed=0)
    found = DEADPIXEL.measure(model, "energy", {"deadpixel/energy": samples[:, None]}, context)
    scaled = np.mean([sample / sample.mean() for sample in samples], axis=0)
    literal = scaled[::2, ::2].mean() / scaled.mean()
    weakest = found.metrics["weakest"]
    assert weakest.value == pytest.approx(literal, rel=0.1)  # eight unlike samples: shrunk a little
    assert weakest.low < literal < weakest.high < 0.8


def test_the_images_of_one_weight_set_keep_their_weight():
    """The maps of a model with a single weight set are returned as they are."""
    samples = np.ones((2, 4, 4)) * np.array([1, 9])[:, None, None]
    assert normalise_members(wrap(nn.Conv2d(3, 4, 2, 2), spec=InputSpec(4, 4)), samples) is samples


def test_a_weight_set_that_hears_nothing_stays_at_nothing():
    """A weight set with an all-zero map stays zero while the other is scaled to mean 1."""
    samples = np.stack([np.zeros((4, 4)), np.full((4, 4), 3.0)])
    np.testing.assert_array_equal(normalise_members(Ensemble(None), samples)[:, 0, 0], [0, 1])


@pytest.mark.parametrize(("side", "units"), [(64, 8), (60, 8), (57, 8), (36, 5)])
def test_the_stride_is_the_product_of_the_layers_strides_at_every_size(side, units):
    """Padding rounds grids up: 36 pixels give 5 units of stride 8, not of 36 / 5."""
    net = nn.Sequential(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(3)))
    model = wrap(net, spec=InputSpec(side, side))
    assert model.target.height == units
    assert target_stride(model) == (8, 8)


class GlobalAttention(nn.Module):
    """Five strided layers, then queries of every second token: no local path goes on."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(3)))

    def forward(self, x):
        x = self.stem(x)
        tokens = x.flatten(2).transpose(1, 2)
        queries = x[:, :, ::2, ::2].flatten(2).transpose(1, 2)
        mixed = (queries @ tokens.transpose(1, 2)).softmax(-1) @ tokens
        side = -(-x.shape[-1] // 2)
        return mixed.transpose(1, 2).unflatten(2, (side, side))


def test_units_that_only_global_paths_reach_have_the_stride_of_structure():
    """Four units of stride 16 on 56 pixels: the period is not 56 / 4 = 14, here or in structure."""
    model = wrap(GlobalAttention(), spec=InputSpec(56, 56))
    assert model.target.height == 4
    assert target_stride(model) == (16, 16)
    found = STRUCTURE.measure(model, "expected", {}, Context(torch.zeros(1, 3, 56, 56)))
    assert found.metrics["target_stride"].value == 16


class Resized(nn.Module):
    """Three strided layers, a map resized to twice their grid, and a convolution of it."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*(nn.Conv2d(3, 3, 3, 2, 1) for _ in range(3)))
        self.head = nn.Conv2d(3, 3, 3, 1, 1)

    def forward(self, x):
        return self.head(nn.functional.interpolate(self.body(x), scale_factor=2.0))


def test_a_resized_map_has_the_phases_of_the_map_that_was_resized():
    """Its units are 4 pixels apart, and its sensitivity repeats every 8, in both suites."""
    model = wrap(Resized(), spec=InputSpec(96, 96), target="head")
    images = open_images("dead-leaves", 4).load(model.spec)
    maps = gradient_maps(model, images, DEADPIXEL.probes(model, "energy", 0)).maps
    found = [
        suite.measure(model, protocol, given, Context(images))
        for suite, protocol, given in (
            (STRUCTURE, "expected", {}),
            (DEADPIXEL, "energy", maps),
        )
    ]
    assert target_stride(model) == (4, 4)
    for measured in found:
        assert measured.maps["phase_profile"].shape == (8, 8)
        assert any("resized on the way" in note for note in measured.notes)


def test_an_uneven_stem_is_seen_at_a_size_that_no_stride_divides():
    """At 36 pixels, 5 units of stride 8 (36 / 5 is about 7) leave the stem its period of 2."""
    torch.manual_seed(0)
    net = nn.Sequential(signed_conv(3, 2), nn.Conv2d(64, 64, 4, 4, 2))
    assert wrap(net, spec=InputSpec(36, 36)).target.height == 5
    found = audit(net, spec=InputSpec(36, 36), count=16).metrics["by_period_2"]
    profile = np.outer([1, 2], [1, 2]) / 2.25
    assert found.value == pytest.approx(profile.var(), rel=0.25)


def signed_conv_of(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    torch.manual_seed(7)
    conv = nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.where(torch.rand_like(conv.weight) < 0.5, -1.0, 1.0))
    return conv


def test_an_identity_network_has_no_phases_and_says_so():
    """At stride 1 `weakest` is missing with the reason, and neighbours do not differ."""
    found = audit(nn.Identity()).metrics
    assert found["weakest"].value is None
    assert "stride 1" in found["weakest"].reason
    assert found["relL1"].value == 0


def test_white_noise_maps_come_out_as_even():
    """On white noise, over 90 % of intervals cover the even value, and `weakest` averages 1."""
    hits = {"weakest": [], "imbalance": [], "ratio": []}
    values = {"weakest": [], "imbalance": []}
    for seed in range(60):
        samples = np.random.default_rng(seed).chisquare(1, (8, 64, 64))
        resamples = bootstrap(8, 100, seed)
        profiles = pseudo_values(samples, lambda maps: phases.phase_profile(maps, (8, 8)))
        found = phase_estimates(profile_posterior(profiles, resamples), resamples)
        for name, even in (("weakest", 1), ("imbalance", 0), ("ratio", 1)):
            hits[name].append(found[name].low <= even <= found[name].high)
        for name, series in values.items():
            series.append(found[name].value)
    assert all(np.mean(h) > 0.9 for h in hits.values())
    assert np.mean(values["weakest"]) == pytest.approx(1, abs=0.03)
    naive = phases.least_sensitive(phases.phase_profile(samples.mean(0)[None], (8, 8)))[0]
    assert naive < 0.9  # what the correction is for


def test_a_shift_by_one_period_leaves_the_profile_alone():
    """The profile of a periodic map is its tile over the mean, also one period further on."""
    rng = np.random.default_rng(0)
    tile = np.tile(rng.random((8, 8)), (9, 9))
    here = phases.phase_profile(tile[None, :64, :64], (8, 8))
    there = phases.phase_profile(tile[None, 8:, 8:], (8, 8))
    np.testing.assert_allclose(here, there)
    np.testing.assert_allclose(here[0], tile[:8, :8] / tile[:8, :8].mean())


def test_kims_differences_equal_the_literal_double_loop():
    """First and second differences of neighbours equal those of explicit loops over pixels."""
    samples = np.random.default_rng(0).random((4, 12, 10))
    from perimetry.suites.deadpixel.suite import difference_metrics

    found = difference_metrics(samples, bootstrap(4, 10, 0))
    m = samples.mean(0)
    rows = [abs(m[i + 1, j] - m[i, j]) for i in range(11) for j in range(10)]
    columns = [abs(m[i, j + 1] - m[i, j]) for i in range(12) for j in range(9)]
    expected = (np.mean(rows) + np.mean(columns)) / 2
    assert found["rawL1"].value == pytest.approx(expected)
    assert found["relL1"].value == pytest.approx(expected / m.mean())
    rows = [abs(m[i + 2, j] - 2 * m[i + 1, j] + m[i, j]) for i in range(10) for j in range(10)]
    columns = [abs(m[i, j + 2] - 2 * m[i, j + 1] + m[i, j]) for i in range(12) for j in range(8)]
    expected = (np.mean(rows) + np.mean(columns)) / 2
    assert found["relL2"].value == pytest.approx(expected / m.mean())


def test_kim2023_is_the_positive_channel_mean_gradient_of_the_predicted_logit():
    """kim2023 sums the positive part of the channel-mean gradient of the top logit."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    spec = InputSpec(32, 32, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = open_images("dead-leaves", 5).load(spec)
    expected = np.zeros((32, 32))
    for image in images:
        x = spec.prepare(image[None]).requires_grad_()
        logits = module(x)[0]
        logits[logits.argmax()].backward()
        expected += np.maximum(x.grad[0].numpy().mean(0), 0)
    found = audit(module, "kim2023", count=5, spec=spec)
    np.testing.assert_allclose(found.maps["sensitivity_sum"], expected, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.maps["sensitivity"] * 5, found.maps["sensitivity_sum"])


def test_a_period_too_large_for_the_image_is_lowered_and_said():
    """A stride of 32 on 64 pixels lowers the period, and a note gives the original period."""
    found = audit(nn.Sequential(signed_conv(3, 2, 16), nn.AvgPool2d(16)))
    assert any("period lowered from (32, 32)" in note for note in found.notes)
