"""The perturbation suite: planted truths come out exactly, and what cannot be had says why."""

import numpy as np
import pytest
import torch
from planted import GAINS, GREY, classifier, copying, measure, measure_model, private, shared
from torch import nn

from perimetry.adapters.errors import InputError, NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch import passes
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.measuring.phases import WEAKEST_IS_ZERO, interior
from perimetry.suites.perturbation.position_response import make_block, stem_period
from perimetry.suites.perturbation.shift_consistency import STREAM
from perimetry.suites.perturbation.suite import PERTURBATION, Perturbation

G = np.array(GAINS)


def test_the_comb_profile_of_a_linear_network_is_its_squared_gains():
    """The comb profile of planted gains is their squares over the mean square."""
    found = measure(private())
    profile = G**2 / (G**2).mean()
    np.testing.assert_allclose(found.maps["comb_profile"], profile, rtol=1e-4)
    assert found.metrics["comb_weakest"].value == pytest.approx(profile.min(), rel=1e-4)
    assert found.metrics["comb_imbalance"].value == pytest.approx(profile.std(), rel=1e-4)
    assert found.metrics["comb_ratio"].value == pytest.approx(16, rel=1e-4)
    assert found.metrics["comb_error"].value < 1e-3


def test_a_dead_phase_gets_exactly_nothing_and_makes_ratios_unbounded():
    """A gain of 0 gives exactly 0 there, and ratios are missing with the reason."""
    found = measure(classifier(private(((1.0, 2.0), (0.0, 4.0)))))
    assert found.metrics["comb_weakest"].value == 0
    assert found.maps["comb_profile"][1, 0] == 0
    assert found.maps["positions"][1::2, 0::2].max() == 0
    for name in ("comb_ratio", "detect_weakest", "detect_ratio", "leverage"):
        assert found.metrics[name].value is None
        assert WEAKEST_IS_ZERO in found.metrics[name].reason
    assert found.metrics["detect_strongest"].value > 0


def test_three_routes_agree_where_the_truth_is_linear_and_structure_expects_equal_taps():
    """Comb and gradients give the planted profile; structure alone expects an even one."""
    found = measure(private())
    profile = G**2 / (G**2).mean()
    np.testing.assert_allclose(found.maps["gradient_profile"], profile, rtol=1e-6)
    np.testing.assert_allclose(found.maps["structure_profile"], 1.0)
    assert found.metrics["agreement_gradient"].value < 1e-4
    assert found.metrics["agreement_direction"].value < 1e-3
    expected = np.sqrt(((profile - 1) ** 2).mean())
    assert found.metrics["agreement_structure"].value == pytest.approx(expected, rel=1e-4)


class WrongGradient(torch.autograd.Function):
    """The identity, whose gradient is twice what it should be for the last unit of a cell."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=gradient.dtype).view(1, 4, 1, 1)


class Deceiver(nn.Module):
    """A linear network with a wrong gradient."""

    def __init__(self):
        super().__init__()
        self.body, self.last = private(), copying(4)

    def forward(self, x):
        return self.last(WrongGradient.apply(self.body(x)))


def test_a_wrong_gradient_is_found_out_by_every_measure_of_agreement(monkeypatch):
    """A gradient that is twice its value in one unit shows in each measure of agreement.

    Without the check by which the gradients of a module are refused before they are used.
    """
    monkeypatch.setattr(passes, "gradient_fault", lambda _f, _x: None)
    found = measure(Deceiver(), comb_draws=60)
    truth, claim = G**2, (G * [[1, 1], [1, 2]]) ** 2
    difference = truth / truth.mean() - claim / claim.mean()
    expected = np.sqrt((difference**2).mean())
    assert found.metrics["agreement_gradient"].value == pytest.approx(expected, rel=1e-3)
    assert found.metrics["agreement_gradient_z"].value > 10
    expected = np.sqrt(((claim**0.5 - G) ** 2).sum() / claim.sum())
    assert found.metrics["agreement_direction"].value == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("body", "ratio"), [(shared, 4.0), (private, 1.0)])
def test_a_planted_detectability_ratio_is_recovered(body, ratio):
    """Units shared with strong phases drown a weak one; units of its own do not."""
    found = measure(body(), count=4, comb_draws=4, noise_draws=400, noise=0.01)
    assert found.metrics["detect_ratio"].value == pytest.approx(ratio, rel=0.15)


def test_the_threshold_of_a_shared_unit_is_its_noise_over_its_response():
    """The detection threshold of a gain g is noise * norm(G) / (g * sqrt(cells))."""
    found = measure(shared(), comb_draws=4, noise_draws=400, noise=0.01)
    rows, columns = interior((32, 32), (2, 2))
    cells = (rows.stop - rows.start) * (columns.stop - columns.start) / 4
    for name, gain in (("detect_weakest", 1.0), ("detect_strongest", 4.0)):
        expected = 0.01 * np.sqrt((G**2).sum()) / (gain * np.sqrt(cells))
        assert found.metrics[name].value == pytest.approx(expected, rel=0.15)


def test_the_leverage_of_a_linear_network_is_the_ratio_of_its_gains():
    """The leverage of gains 1 to 4 is 4."""
    found = measure(classifier(shared()))
    assert found.metrics["leverage"].value == pytest.approx(4, rel=1e-4)


def test_position_responses_of_a_linear_network_are_its_gains():
    """The response to one pixel is epsilon times its gain over the number of units."""
    found = measure(private(), epsilon=0.2, block=6)
    units = 4 * 16 * 16
    np.testing.assert_allclose(found.maps["positions"], np.tile(0.2 * G / units, (3, 3)), rtol=1e-5)
    assert found.metrics["position_mean"].value == pytest.approx(0.2 * G.mean() / units, rel=1e-5)
    assert found.metrics["position_cv"].value == pytest.approx(G.std() / G.mean(), rel=1e-5)
    assert found.metrics["position_r2"].value == pytest.approx(1, abs=1e-6)


class Corner(nn.Module):
    """One of `classes` logits is 1: that of the value of the first pixel, in steps of 1/255."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        code = (x[:, 0, 0, 0] * 255).round().long() % self.classes
        return nn.functional.one_hot(code, self.classes).to(x.dtype)


PLAIN = InputSpec(32, 32, mean=(0.0,) * 3, std=(1.0,) * 3)


def coded(rows, columns):
    """Images whose pixels tell their place: 16 * (row mod 16) + column mod 16, over 255."""

    def sized(height, width):
        code = rows * (np.arange(height)[:, None] % 16) + columns * (np.arange(width)[None] % 16)
        return torch.from_numpy(code / 255).float().expand(6, 3, -1, -1)

    return sized


def test_shift_consistency_is_that_of_the_seeded_offsets_one_by_one():
    """Shift consistency is the share of agreeing classes over the seeded pairs of offsets."""
    found = measure(Corner(2), spec=PLAIN, count=6, sized=coded(16, 1), shift_pairs=5)
    agree = []
    for image in range(6):
        rng = np.random.default_rng([0, STREAM, image])
        for _ in range(5):
            (_, first), (_, second) = (rng.integers(0, 32, 2) for _ in range(2))
            agree.append(first % 2 == second % 2)
    value = found.metrics["shift_consistency"].value
    assert 0.2 < value < 0.8
    assert value == pytest.approx(np.mean(agree))


def test_perfect_shift_invariance_and_none_are_told_apart():
    """A mean over a periodic image has consistency 1, a class per first pixel 0."""
    torch.manual_seed(0)
    mean = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3, 5))
    tiled = coded(0, 16)  # every crop of 32 columns holds each column code twice
    found = measure(mean, spec=PLAIN, count=6, sized=tiled, shift_pairs=4)
    assert found.metrics["shift_consistency"].value == 1
    found = measure(Corner(256), spec=PLAIN, count=6, sized=coded(16, 1))
    assert found.metrics["shift_consistency"].value == 0


def test_a_model_without_gradients_keeps_all_that_forward_passes_give():
    """Without gradients exactly five metrics are missing, and the comb is unchanged."""
    model = wrap(classifier(private()), spec=GREY, device="cpu")
    model.why_no_gradients = "planted: no gradients"
    found = measure_model(model)
    lost = {name for name, e in found.metrics.items() if e.reason == "planted: no gradients"}
    assert lost == {
        *("leverage", "position_r2"),
        *("agreement_gradient", "agreement_gradient_z", "agreement_direction"),
    }
    assert found.metrics["comb_ratio"].value == pytest.approx(16, rel=1e-3)


def test_a_gradient_that_is_not_finite_costs_the_gradient_metrics_only():
    """Infinite gradients remove the metrics of agreement and leave the comb as it is."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    class Broken(Deceiver):
        def forward(self, x):
            return self.last(Spike.apply(self.body(x)))

    found = measure(Broken())
    assert "not finite" in found.metrics["agreement_gradient"].reason
    assert found.metrics["comb_ratio"].value == pytest.approx(16, rel=1e-4)


def test_without_a_spatial_map_the_logits_are_compared():
    """A dense network is measured at its logits, with a note, and gets its exact profile."""
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 12))
    found = measure(flat, comb_draws=200)
    weights = flat[1].weight.detach().square().sum(0).view(32, 32)
    rows, columns = interior((32, 32), (4, 4))
    inner = weights[rows, columns].unflatten(1, (-1, 4)).unflatten(0, (-1, 4)).mean((0, 2))
    assert any("no spatial map" in note for note in found.notes)
    exact = (inner / inner.mean()).numpy()
    assert found.metrics["agreement_direction"].value < 1e-3
    np.testing.assert_allclose(found.maps["comb_profile"], exact, atol=0.15)
    assert found.metrics["agreement_gradient_z"].value < 3


def test_a_model_with_neither_map_nor_logits_is_skipped():
    """A model without map and logits is skipped, one with a map is not."""
    model = wrap(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 1, 1024))), spec=GREY)
    assert "no logits" in PERTURBATION.skip(model, "forward")
    assert PERTURBATION.skip(wrap(private(), spec=GREY), "forward") is None


def test_a_constant_network_says_that_nothing_responds():
    """A network of zero weights responds with 0, and its profile is missing with a reason."""
    still = private(((0.0, 0.0), (0.0, 0.0)))
    found = measure(still)
    assert found.metrics["position_mean"].value == 0
    assert "does not respond" in found.metrics["comb_weakest"].reason
    assert "no change of a pixel" in found.metrics["position_cv"].reason


def test_an_identity_network_has_no_phases_but_even_positions():
    """At stride 1 there is no comb profile, and all positions respond alike."""
    found = measure(copying(1))
    assert "stride 1" in found.metrics["comb_weakest"].reason
    assert found.metrics["position_cv"].value == pytest.approx(0, abs=1e-5)
    assert "same at all places" in found.metrics["position_r2"].reason


def test_an_output_that_is_not_finite_is_refused():
    """A network that returns NaN raises NotApplicableError."""
    body = private()
    with torch.no_grad():
        body.weight.fill_(float("nan"))
    with pytest.raises(NotApplicableError):
        measure(body)


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_change_nothing_beyond_float_noise(batch):
    """Every map is the same at batch sizes 1, 7 and 64 within 1e-6."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 4, 3, 2, 1))
    few = {"count": 2, "comb_draws": 2, "noise_draws": 2, "attack_images": 1, "block": 3}
    one, other = (measure(module, batch=b, period=2, **few) for b in (64, batch))
    for name, maps in one.maps.items():
        np.testing.assert_allclose(other.maps[name], maps, rtol=1e-6)


def test_the_batch_halves_when_memory_runs_out(monkeypatch):
    """Out of memory halves the batch with a note, and the profile stays the same."""
    model = wrap(private(), spec=GREY, device="cpu", precision="float64")
    run = model.run

    def small(x, **options):
        if len(x) > 5:
            raise torch.OutOfMemoryError("too much")
        return run(x, **options)

    expected = measure_model(model)
    monkeypatch.setattr(model, "run", small)
    found = measure_model(model)
    assert any("out of memory" in note for note in found.notes)
    np.testing.assert_allclose(found.maps["comb_profile"], expected.maps["comb_profile"])


@pytest.mark.parametrize("name", ["epsilon", "noise", "attack_step"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_step_of_nothing_is_refused(name, value):
    """A step that is 0, negative or not finite is an InputError with its name."""
    with pytest.raises(InputError, match=f"{name} = "):
        Perturbation(**{name: value})


@pytest.mark.parametrize(
    ("name", "least"),
    [("block", 1), ("period", 1), ("comb_draws", 1), ("noise_draws", 2), ("shift", 0)],
)
def test_a_count_too_small_is_refused(name, least):
    """A count one below its minimum is an InputError with its name and the minimum."""
    with pytest.raises(InputError, match=f"{name} = {least - 1}"):
        Perturbation(**{name: least - 1})


def test_a_period_that_does_not_divide_the_stride_names_those_that_do():
    """A period that does not divide the stride is an InputError with the divisors."""
    with pytest.raises(InputError, match=r"period = 3.*\(4, 4\).*\[2, 4\]"):
        measure(nn.Conv2d(1, 4, 4, 4), period=3)


def test_a_block_larger_than_the_image_is_refused():
    """A block of 33 pixels in an image of 32 x 32 is an InputError."""
    with pytest.raises(InputError, match=r"block = 33.*32 x 32"):
        measure(private(), block=33)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("resnet18", 4),
        ("resnet26d", 4),
        ("mobilenetv3_small_100", 4),
        ("convnext_atto", 4),
        ("vit_tiny_patch16_224", 16),
    ],
)
def test_the_stem_ends_where_the_stride_reaches_four(name, stem):
    """The stem's period is 4, or the patch size of a vision transformer."""
    notes = []
    model = load(f"timm:{name}@init", device="cpu", members=1)
    assert stem_period(model, notes) == (stem, stem)
    assert notes == []


@pytest.mark.parametrize(("stem", "places"), [(1, 5), (2, 6), (3, 6), (4, 8), (7, 7), (16, 8)])
def test_a_block_covers_whole_stem_periods_with_five_to_eight_places_a_side(stem, places):
    """A block has 5 to 8 places per side over whole stem periods, centred within one period."""
    block = make_block((224, 224), (stem, stem), None)
    assert len(block.rows) == len(block.columns) == places
    spacing = block.rows[1] - block.rows[0]
    assert (places * spacing) % stem == 0
    assert block.rows[0] % stem == 0
    assert abs(block.rows[0] + places * spacing / 2 - 112) <= stem


def test_weight_sets_are_samples():
    """Four weight sets give an interval, three give none."""
    model = load("timm:test_resnet@init", device="cpu", members=4, size=(64, 64))
    few = {"comb_draws": 8, "period": 2, "block": 5, "noise_draws": 2}
    assert measure_model(model, count=8, **few).metrics["comb_weakest"].low is not None
    model = load("timm:test_resnet@init", device="cpu", members=3, size=(64, 64))
    assert measure_model(model, count=8, **few).metrics["comb_weakest"].low is None


def test_the_same_seed_gives_the_same_bits():
    """Equal seeds give equal metrics and another seed gives another detection ratio."""
    one, two = measure(classifier(shared()), seed=3), measure(classifier(shared()), seed=3)
    other = measure(classifier(shared()), seed=4)
    assert all(one.metrics[n].value == e.value for n, e in two.metrics.items())
    assert one.metrics["detect_ratio"].value != other.metrics["detect_ratio"].value
