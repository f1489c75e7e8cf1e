"""Formulas of spatial bias a second time, slow and literal; and what noise makes of them."""

import itertools

import numpy as np
import pytest
import torch
from bias_tools import SPEC, Circular, approx, context, measure, values
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.measuring.batching import Batching
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.padding import spatial_bias
from perimetry.suites.padding.blind_spots import Stimulus, blind_metrics, grid_places, respond
from perimetry.suites.padding.mean_filters import filter_asymmetries
from perimetry.suites.padding.suite import PaddingSuite


def slow_bias(a):
    """Border ratio, left-right and top-bottom of one map, unit by unit."""
    h, w = a.shape
    rim, core, sides = [], [], {"l": [], "r": [], "t": [], "b": []}
    for i, j in itertools.product(range(h), range(w)):
        edge = min(i, j, h - 1 - i, w - 1 - j)
        if edge == 0:
            rim.append(a[i, j])
        if min(i, h - 1 - i) >= max(1, h // 4) and min(j, w - 1 - j) >= max(1, w // 4):
            core.append(a[i, j])
        for name, place, n in (("lr", j, w), ("tb", i, h)):
            if place < n // 2:
                sides[name[0]].append(a[i, j])
            if place >= n - n // 2:
                sides[name[1]].append(a[i, j])
    level = np.mean(np.abs(a))
    difference = [(np.mean(sides[p]) - np.mean(sides[q])) / level for p, q in ("lr", "tb")]
    return np.mean(rim) / np.mean(core), *difference


@pytest.mark.parametrize("shape", [(3, 3), (5, 4), (7, 7), (8, 13), (14, 14)])
def test_spatial_bias_is_its_literal_formula(shape):
    """Border ratio, left-right and top-bottom equal their formulas unit by unit."""
    maps = np.random.default_rng(0).random((6, *shape))
    ours = zip(
        spatial_bias.border_ratio(maps),
        spatial_bias.left_right(maps),
        spatial_bias.top_bottom(maps),
        strict=True,
    )
    np.testing.assert_allclose(list(ours), [slow_bias(a) for a in maps], rtol=1e-12)


def slow_lean(weight):
    """Left less right half of the mean kernel over the mean magnitude of a tap, tap by tap."""
    left, right, level = 0.0, 0.0, 0.0
    out, into, rows, columns = weight.shape
    for o, i, r, c in itertools.product(*(range(n) for n in weight.shape)):
        value = float(weight[o, i, r, c]) / (out * into * rows * (columns // 2))
        left += value * (c < columns // 2)
        right += value * (c >= columns - columns // 2)
        level += abs(float(weight[o, i, r, c])) / weight.numel()
    return (left - right) / level


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (2, 5, 4, 4), (3, 1, 2, 7), (6, 2, 5, 1)])
def test_the_lean_of_a_layer_is_its_literal_formula(shape):
    """The asymmetry of a layer equals its formula tap by tap, and one column has none."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (found,) = filter_asymmetries({"layer": weight}).values()
    if shape[3] == 1:
        assert found.left_right is None
    else:
        assert found.left_right == pytest.approx(slow_lean(weight), rel=1e-9)
    assert found.top_bottom == pytest.approx(slow_lean(weight.transpose(2, 3)), rel=1e-9)


def test_layers_count_by_their_kernels_and_1_x_1_kernels_not_at_all():
    """The filter asymmetry weighs layers by their kernels and leaves out 1 x 1 kernels."""
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 3))
    with torch.no_grad():
        for layer, column in ((net[0], 0), (net[2], 2)):
            layer.weight.zero_()
            layer.weight[..., column] = 1.0
    found = measure(wrap(net, spec=SPEC, device="cpu"))
    # A single column of ones: 1 on its side, over a mean magnitude of 1/3.
    assert [row["left_right"] for row in found.tables["filters"]] == [approx(3), approx(-3)]
    assert found.metrics["filter_left_right"].value == approx(3)
    net[2].weight.data.fill_(1.0)
    found = measure(wrap(net, spec=SPEC, device="cpu"))
    assert found.metrics["filter_left_right"].value == approx(3 * 6 / (6 + 32))
    assert [row["name"] for row in found.tables["filters"]] == ["0", "2"]


def slow_responses(model, stimulus, grid):
    """Place by place, one image at a time, pixel by pixel."""
    spec = model.spec

    def target(image):
        return model.run(spec.prepare(image[None])).target.double()

    plain = torch.full((3, spec.height, spec.width), stimulus.background)
    out = np.zeros((grid, grid))
    for a, b in itertools.product(range(grid), range(grid)):
        image = plain.clone()
        for i, j in itertools.product(range(spec.height), range(spec.width)):
            top = (spec.height - stimulus.side) * a / (grid - 1)
            left = (spec.width - stimulus.side) * b / (grid - 1)
            if 0 <= i - top < stimulus.side and 0 <= j - left < stimulus.side:
                image[:, i, j] = torch.tensor(stimulus.colour)
        out[a, b] = (target(image) - target(plain)).square().sum().sqrt()
    return out


def test_responses_are_their_literal_formula_at_any_batch():
    """Responses at each place equal those of one image at a time, at any batch size."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1))
    model = wrap(net, spec=InputSpec(19, 27), device="cpu")
    stimulus = Stimulus(3, (1.0, 0.2, 0.0), 0.4)
    places = grid_places(model.spec, 3, 5)
    expected = slow_responses(model, stimulus, 5)
    for batch in (1, 2, 7, 64):
        found = respond(model, places, stimulus, Batching(batch, model.device), logits=False)
        np.testing.assert_allclose(found.grid(places), expected, rtol=1e-4)


@pytest.mark.parametrize(("room", "grid"), [(40, 5), (37, 6), (37, 7), (10, 2)])
def test_places_reach_both_borders_and_mirror_each_other(room, grid):
    """The places of a stimulus reach both borders and are mirror images of each other."""
    places = grid_places(InputSpec(room + 4, room + 9), 4, grid)
    rows, columns = ([p[axis] for p in places] for axis in (0, 1))
    assert (min(rows), max(rows), min(columns), max(columns)) == (0, room, 0, room + 5)
    steps = sorted(set(columns))
    assert len(steps) == grid
    mirror = [room + 5 - c for c in reversed(steps)]
    middle = grid // 2 if grid % 2 else None
    assert [s for i, s in enumerate(steps) if i != middle] == [
        s for i, s in enumerate(mirror) if i != middle
    ]


# Estimates


def test_differences_of_noise_are_not_reported_as_bias():
    """On noise at most 10 % of intervals exclude 0, and the value is under half the naive one."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        resamples = bootstrap(16, 50, 0)
        found.append(spatial_bias.asymmetries(1 + rng.random((16, 7, 7)), resamples)["left_right"])
    assert all(e.low == 0 for e in found if e.value == 0)
    assert np.mean([e.low > 0 for e in found]) <= 0.1
    naive = [abs(spatial_bias.left_right(1 + rng.random((7, 7)))) for _ in range(60)]
    assert np.mean([e.value for e in found]) < 0.5 * np.mean(naive)


def unlike_products(values):
    """Root of the mean product of unlike samples, 0 where it is negative; values (n, places)."""
    pairs = itertools.permutations(range(len(values)), 2)
    return max(0.0, np.mean([np.mean(values[i] * values[j]) for i, j in pairs])) ** 0.5


def test_metrics_of_several_weight_sets_play_one_against_the_other():
    """With several weight sets squares become products of unlike sets, as formulas confirm."""
    pattern = np.linspace(0.5, 1.5, 25).reshape(5, 5)
    shares = pattern + 0.3 * np.random.default_rng(0).random((6, 5, 5))
    shares /= shares.mean((1, 2), keepdims=True)
    found = blind_metrics(shares, bootstrap(6, 20, 0))
    even, odd = shares[0::2].mean(0), shares[1::2].mean(0)
    weakest = (odd.flat[even.argmin()] + even.flat[odd.argmin()]) / 2
    assert found["blind_weakest"].value == pytest.approx(weakest, rel=1e-12)
    ratio, *_ = slow_bias(shares.mean(0))
    assert found["border_drop"].value == pytest.approx(1 - ratio, rel=1e-12)
    spread = unlike_products((shares - 1).reshape(6, 25))
    assert found["blind_cv"].value == pytest.approx(spread, rel=1e-9)
    sides = np.array([slow_bias(share)[1:] for share in shares])
    for name, side in zip(("left_right", "top_bottom"), sides.T, strict=True):
        expected = unlike_products(side[:, None])
        assert found[f"blind_{name}"].value == pytest.approx(expected, rel=1e-9)
        assert expected > 0


def test_each_weight_set_sees_its_own_images_and_all_count_alike():
    """The mean feature map averages the weight sets' maps over their own images."""
    model = load("timm:test_resnet@init", device="cpu", members=2)
    images = context(model, count=3).images
    found = measure(model, PaddingSuite(grid=2, exchange=()), count=3)
    x, own = model.spec.prepare(images), []
    for member in range(2):
        model.select(member, x)
        own.append(model.run(x[member::2]).target.abs().mean((0, 1)))
    expected = torch.stack(own).mean(0)
    np.testing.assert_allclose(found.maps["mean_feature_map"], expected, rtol=1e-4)


def test_several_weight_sets_give_intervals_and_one_gives_exact_figures():
    """Several weight sets give intervals; with one, only what depends on images has them."""
    many = load("timm:test_resnet@init", device="cpu", members=4)
    found = measure(many, PaddingSuite(grid=3, exchange=("reflect",)), count=8)
    for name in ("blind_weakest", "border_drop", "constant_border_ratio", "exchange_reflect"):
        e = found.metrics[name]
        assert e.low <= e.value <= e.high
        assert e.low < e.high
    one = measure(wrap(Circular("zeros"), spec=SPEC, device="cpu"))
    assert one.metrics["blind_weakest"].low is None
    assert one.metrics["border_ratio"].low < one.metrics["border_ratio"].high


def test_only_the_asked_number_of_weight_sets_is_looked_at_and_the_record_says_so():
    """A limit of 2 of 3 weight sets is noted, as are random kernels."""
    model = load("timm:test_resnet@init", device="cpu", members=3)
    found = measure(model, PaddingSuite(grid=2, exchange=(), weight_sets=2))
    assert any("first 2 of 3 weight sets" in note for note in found.notes)
    assert any("kernels are random" in note for note in found.notes)


def test_the_same_settings_give_the_same_numbers_and_leave_the_model_as_it_was():
    """Two measurements are equal bit by bit, and the model's output is unchanged."""
    model = wrap(Circular("zeros"), spec=SPEC, device="cpu")
    x = context(model).images
    before = model.run(x).target
    suite = PaddingSuite(grid=3)
    first, second = measure(model, suite), measure(model, suite)
    assert values(first) == values(second)
    for name, found in first.maps.items():
        np.testing.assert_array_equal(found, second.maps[name])
    torch.testing.assert_close(model.run(x).target, before, rtol=0, atol=0)
