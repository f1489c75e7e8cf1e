"""The comb against its literal definition, its step, and the estimators on its samples."""

import itertools

import numpy as np
import pytest
import torch
from planted import GREY, measure_model, private
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.images import open_images
from perimetry.suites.measuring import phases
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.forward import by_sample, each_member
from perimetry.suites.measuring.phases import divide_by_mean
from perimetry.suites.measuring.profile_posterior import phase_estimates, profile_posterior
from perimetry.suites.measuring.step_size import (
    NO_RESPONSE,
    ROUNDING_TOO_COARSE,
    STEPS,
    Disagreement,
    StepSize,
    choose_step,
)
from perimetry.suites.measuring.unbiased import pseudo_values
from perimetry.suites.perturbation.agreement import (
    choose_phases,
    detect_metrics,
    leverage,
    read_phases,
    standard_distance,
)
from perimetry.suites.perturbation.comb_responses import CombTest, choose_comb_step
from perimetry.suites.perturbation.directional import DirectionalDerivatives
from perimetry.suites.perturbation.phase_comb import make_comb

SMALL = InputSpec(16, 16, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0))


def curved(channels=3):
    """Two smooth layers of total stride 4, in double precision."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 5, 3, 2, 1))


def comb_test(model, images, *, draws, period=(2, 2), noise_draws=2, seed=0):
    size = (model.spec.height, model.spec.width)
    derivatives = DirectionalDerivatives(None, len(images), 0, seed)
    test = CombTest(
        make_comb(size, period), draws, len(images), 1 / 255, noise_draws, seed, derivatives
    )
    for member in each_member(model, images, 64, []):
        derivatives.observe(member)
        test.observe(member)
    return test


def one_pixel_at_a_time(module, spec, image, period):
    """Phase means of the squared differences of all units, one pixel and channel at a time."""
    step = 1e-4
    rows, columns = phases.interior((spec.height, spec.width), period)
    sums, counts = np.zeros(period), np.zeros(period)
    double = module.double()
    for i, j in itertools.product(range(rows.start, rows.stop), range(columns.start, columns.stop)):
        for channel in range(3):
            outputs = []
            for sign in (1, -1):
                changed = image.double().clone()
                changed[0, channel, i, j] += sign * step
                with torch.no_grad():
                    outputs.append(double(spec.prepare(changed)))
            slope = (outputs[0] - outputs[1]) / (2 * step)
            sums[i % period[0], j % period[1]] += float((slope**2).sum())
        counts[i % period[0], j % period[1]] += 1
    return sums / counts


def test_the_comb_is_unbiased_for_one_pixel_at_a_time():
    """The mean comb energy equals that of changing one pixel and channel at a time."""
    image = open_images("dead-leaves", 1).load(SMALL)
    expected = one_pixel_at_a_time(curved(), SMALL, image, (2, 2))
    model = wrap(curved(), spec=SMALL, device="cpu", precision="float64")
    draws = 200
    test = comb_test(model, image.expand(draws, -1, -1, -1), draws=draws)
    samples = by_sample(test.energies, 1)
    error = samples.std(0, ddof=1) / np.sqrt(draws)
    assert (np.abs(samples.mean(0) - expected) < 4 * error).all()
    assert (error < 0.07 * expected).all()


def test_noise_products_are_those_of_the_covariance_of_a_linear_network():
    """Signal and noise products of planted gains follow gain squared and gain to the fourth."""
    model = wrap(private(), spec=GREY, device="cpu", precision="float64")
    images = open_images("dead-leaves", 2).load(GREY)
    test = comb_test(model, images, draws=2, noise_draws=500)
    gains = np.array([[1.0, 2.0], [3.0, 4.0]]) / 0.25  # per pixel value in [0, 1]
    pixels = test.comb.pixels
    for index in (0, 1):
        np.testing.assert_allclose(test.signals[index], pixels * gains**2, rtol=1e-3)
        expected = pixels * gains**4 / 255**2  # s' K s, K = sigma^2 J J'
        np.testing.assert_allclose(test.noises[index], expected, rtol=0.3)


def test_differences_and_gradients_agree_along_the_same_directions():
    """Differences along the comb's signs equal the gradients within the stated step error."""
    model = wrap(curved(), spec=SMALL, device="cpu", precision="float64")
    test = comb_test(model, open_images("dead-leaves", 3).load(SMALL), draws=6)
    assert all(p.shape == (2, 2, 2, 2) for p in test.projections.values())
    ours, exact = np.concatenate(list(test.projections.values()), axis=0).swapaxes(0, 1)
    error = np.sqrt(((ours - exact) ** 2).sum() / (exact**2).sum())
    assert test.directions.relative_to_fine == pytest.approx(error)
    assert 0 < error < max(1e-3, 2 * test.steps_differ.relative)


class Rounded(nn.Module):
    """A linear network whose output is known to `digits` only, or bent by a square."""

    def __init__(self, quantum=0.0, bend=0.0):
        super().__init__()
        self.body, self.last = private(), nn.Identity()
        self.quantum, self.bend = quantum, bend

    def forward(self, x):
        y = self.body(x)
        y = y + self.bend * y**3
        return self.last((y / self.quantum).round() * self.quantum if self.quantum else y)


class Wavy(Rounded):
    """A network whose slope changes its sign within a coarse step."""

    def forward(self, x):
        return self.last((60 * self.body(x)).sin())


def step_of(module):
    model = wrap(module, spec=GREY, device="cpu", precision="float64")
    images = open_images("dead-leaves", 2).load(GREY)
    member = next(each_member(model, images, 16, []))
    return choose_comb_step(member, make_comb((32, 32), (2, 2)), 0)


def test_the_step_grows_with_rounding_and_shrinks_with_curvature():
    """The chosen step is larger for a rounded network and smaller for a curved one."""
    assert step_of(Rounded(quantum=0.02)) == StepSize(STEPS[1])
    assert step_of(Wavy()).size < STEPS[1]


def staircase(quantum, seed, *, moved=16, units=20_000):
    """Units of slope 1, steps of height `quantum`; a look moves each by up to `moved` quanta."""
    random = torch.Generator().manual_seed(seed)
    start, moves = (torch.rand(units, generator=random, dtype=torch.float64) for _ in range(2))

    def value(move, second):
        where = start + (moved * quantum * moves if second else 0) + move
        return (where / quantum).round() * quantum

    return lambda steps, second: [(value(h, second) - value(-h, second)) / (2 * h) for h in steps]


@pytest.mark.parametrize("seed", range(3))
def test_looks_at_a_staircase_have_its_slope_where_squared_responses_have_its_rounding(seed):
    """Literal: 2h is a whole number of steps and a fraction p, so a response is one or the other.

    The mean square of a response of mean 1 is 1 + p (1 - p) (quantum / 2h)^2; a product's is 1.
    """
    quantum = 0.02
    pilot = staircase(quantum, seed)
    found = choose_step(pilot)
    assert found.rounded
    first, last = found.responses(pilot)
    p = 2 * found.size / quantum % 1
    expected = 1 + p * (1 - p) * (quantum / (2 * found.size)) ** 2
    assert float(first.square().mean()) == pytest.approx(expected, rel=0.05)
    assert float((first * last).mean()) == pytest.approx(1, abs=0.05)
    assert expected > 1.1


def test_steps_of_which_a_unit_crosses_none_or_one_are_no_measurement():
    """Both looks see the same few steps: their product is no freer of rounding than a square."""
    assert choose_step(staircase(2.0, 0, moved=0)) == ROUNDING_TOO_COARSE


def test_a_network_that_rounds_still_has_its_profile_within_the_stated_error():
    """Gains 1 to 4 behind rounding to 0.4, which is 3.2 times what the weakest phase changes."""
    images = open_images("dead-leaves", 12).load(GREY)
    model = wrap(Rounded(quantum=0.4), spec=GREY, device="cpu", precision="float64")
    test = comb_test(model, images, draws=12)
    assert test.step.rounded
    gains = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = np.mean(list(test.energies.values()), axis=0)
    apart = found / found.mean() - gains**2 / (gains**2).mean()
    assert np.sqrt((apart**2).mean()) < test.steps_differ.relative < 0.6


def test_a_network_that_rounds_too_coarsely_says_so():
    """Responses that are rounding alone give a reason instead of a step."""
    assert step_of(Rounded(quantum=50.0)) in (NO_RESPONSE, ROUNDING_TOO_COARSE)
    alternating = itertools.cycle((torch.ones(8), -torch.ones(8)))
    assert choose_step(lambda steps, _: [next(alternating) for _ in steps]) == ROUNDING_TOO_COARSE


def test_responses_that_differ_are_told_by_their_lengths():
    """Responses (3, 0) and (0, 4) differ by 5/4 of the longer one, also when two such are added."""
    coarse, fine = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    found = Disagreement.between(coarse, fine)
    assert found.relative == pytest.approx(5 / 4)
    assert found.relative_energy == pytest.approx((16 - 9) / 16)
    assert (found + found).relative == pytest.approx(found.relative)
    assert found.relative_to_fine == pytest.approx(5 / 4)
    assert found.normalised() == Disagreement(25 / 16, 9 / 16, 1.0)
    nothing = Disagreement.between(0 * fine, 0 * fine)
    assert nothing.relative == 1
    assert nothing.relative_to_fine is None
    assert nothing.normalised() == nothing


def test_there_is_no_step_where_nothing_responds():
    """A network of zero weights has no step, with that reason."""
    assert step_of(private(((0.0, 0.0), (0.0, 0.0)))) == NO_RESPONSE


def test_teeth_and_sums_cover_each_interior_pixel_of_a_phase_once():
    """The combs of all phases together cover each interior pixel once, with exact sums."""
    comb = make_comb((40, 64), (4, 2))
    rows, columns = phases.interior((40, 64), (4, 2))
    place = torch.arange(40 * 64).view(40, 64)
    maps = torch.rand(3, 40, 64, dtype=torch.float64)
    seen = []
    for number, teeth in enumerate(comb.impulses()):
        a, b = divmod(number, 2)
        inside = place[teeth].flatten().tolist()
        assert len(inside) == comb.pixels
        assert all(p // 64 % 4 == a and p % 64 % 2 == b for p in inside)
        torch.testing.assert_close(comb.sums(maps)[:, a, b], maps[:, *teeth].sum((1, 2)))
        seen += inside
    assert sorted(seen) == sorted(place[rows, columns].flatten().tolist())


def test_a_scattered_mask_has_one_pixel_in_each_cell():
    """A scattered mask has exactly one pixel in each cell and none elsewhere."""
    comb = make_comb((40, 64), (4, 2))
    mask = comb.scattered(np.random.default_rng(0), (40, 64))
    cells = mask[comb.rows, comb.columns].unflatten(1, (-1, 2)).unflatten(0, (-1, 4)).sum((1, 3))
    assert bool((cells == 1).all())
    assert float(mask.sum()) == comb.pixels


def test_phases_are_chosen_by_all_samples_but_the_one_that_is_read():
    """Each sample is read at the phase that the other samples choose."""
    energies = np.array([[[1.0, 5.0]], [[4.0, 2.0]], [[3.0, 1.0]]])
    assert choose_phases(energies, np.argmin).tolist() == [1, 0, 0]
    assert read_phases(energies, np.array([1, 0, 0])).tolist() == [5.0, 4.0, 3.0]
    assert choose_phases(energies[:1], np.argmin).tolist() == [0]


def test_equal_phases_come_out_as_even_and_their_intervals_cover_it():
    """Chi-square noise on equal phases: ratios of 1, without the bias of a smallest of many."""
    metrics = ("comb_weakest", "detect_ratio", "leverage")
    values = {name: [] for name in metrics}
    hits = {name: [] for name in metrics}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        energies, signals, noises, effects = rng.chisquare(8, (4, 6, 4, 4)) / 8
        resamples = bootstrap(6, 100, seed)
        found = {
            "comb_weakest": phase_estimates(
                profile_posterior(pseudo_values(energies, divide_by_mean), resamples), resamples
            )["weakest"],
            "detect_ratio": detect_metrics(energies, signals, noises, resamples)["detect_ratio"],
            "leverage": leverage(energies, effects[:4], bootstrap(4, 100, seed)),
        }
        for name in metrics:
            values[name].append(found[name].value)
            hits[name].append(found[name].low <= 1 <= found[name].high)
    for name in metrics:
        error = np.std(values[name]) / 10
        assert abs(np.mean(values[name]) - 1) < 4 * error + 0.1, name
        assert np.mean(hits[name]) > 0.85, name


def test_the_standard_distance_of_profiles_that_agree_is_one():
    """The squared standard distance of equal truths averages 1, and of unequal ones exceeds 25."""
    squares = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth = np.array([[0.5, 1.0], [1.0, 1.5]])
        comb, exact = truth + rng.normal(0, 0.1, (2, 8, 2, 2))
        squares.append(standard_distance(comb, exact, 0.0).value ** 2)
    assert np.mean(squares) == pytest.approx(1, abs=0.15)
    assert standard_distance(comb, exact + 0.5, 0.0).value > 5
    assert standard_distance(comb, exact + 0.5, 1.0).value < 1
    assert "3 samples" in standard_distance(comb[:3], exact[:3], 0.0).reason


def test_more_draws_than_images_repeat_the_images_with_new_signs():
    """A second round over the images keeps the first draws and adds draws of other signs."""
    model = wrap(curved(), spec=SMALL, device="cpu", precision="float64")
    images = open_images("dead-leaves", 2).load(SMALL)
    once, twice = (comb_test(model, images, draws=d) for d in (2, 4))
    for index in (0, 1):
        assert twice.projections[index].shape[0] == 2
        np.testing.assert_allclose(twice.projections[index][0], once.projections[index][0])
        assert not np.allclose(twice.projections[index][1], once.projections[index][0])


def test_energies_are_per_pixel_value_whatever_the_normalisation():
    """Energies are per pixel value in 0 to 1, and profiles do not depend on the normalisation."""
    fine = InputSpec(32, 32, channels=1, mean=(0.5,), std=(0.125,))
    one, two = (
        measure_model(wrap(private(), spec=s, device="cpu", precision="float64"), noise=0.01)
        for s in (GREY, fine)
    )
    np.testing.assert_allclose(one.maps["comb_profile"], two.maps["comb_profile"], rtol=1e-4)
    test = comb_test(
        wrap(private(), spec=fine, device="cpu", precision="float64"),
        open_images("dead-leaves", 1).load(fine),
        draws=1,
    )
    np.testing.assert_allclose(test.energies[0], [[64, 256], [576, 1024]], rtol=1e-4)
