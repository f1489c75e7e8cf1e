"""The validation page: its verdicts, its text, and that what it compares is really computed."""

import re
from pathlib import Path

import numpy as np
import pytest
from validation import before_after, coverage, differences, known, published, sources
from validation.check import VERDICTS, ReferenceCheck, value_text
from validation.estimates import GROUP as COVERAGE
from validation.monte_carlo import GROUP as RANDOM_WEIGHTS
from validation.nets import DEPTHS, averaging_stack, linear_resnet50, slim_resnet
from validation.page import INTRODUCTION, render_validation, run_validation

from perimetry.suites.architecture.windows import LayerWindow
from perimetry.suites.measuring import phases
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.measuring.unbiased import extreme_mean

PAGE = Path(__file__).resolve().parents[1] / "docs" / "validation.md"


@pytest.fixture(scope="module")
def quick():
    return run_validation(quick=True)


def check(ours, reference=2.0, **options):
    return ReferenceCheck(
        "group", "what | where", "a paper", reference, ours, "function()", **options
    )


def test_every_quick_check_agrees_or_differs_as_its_explanation_predicts(quick):
    """No quick check differs without an explanation, and more than 50 agree."""
    wrong = [(c.what, c.reference, c.ours) for c in quick if c.verdict == "differs"]
    assert not wrong
    assert sum(c.verdict == "agrees" for c in quick) > 50


def test_every_source_of_the_protocol_is_compared(quick):
    """Each cited paper has a row, and no row is there twice."""
    text = render_validation(quick)
    for name in ("Araujo", "Luo", "Perone", "Odena", "Alsallakh", "Kim", "closed form", "planted"):
        assert name in text
    assert len({(c.group, c.what, c.source) for c in quick}) == len(quick)


def test_the_published_page_has_every_quick_row(quick):
    """docs/validation.md is what the command writes: its introduction, and each row as it is now.

    Two groups are left out, whose quick checks take fewer seeds and a smaller network.
    """
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(INTRODUCTION)
    assert "**differs**" not in page
    checks = [check for check in quick if check.group not in (COVERAGE, RANDOM_WEIGHTS)]
    now, published = (
        {(row[0], row[1], row[4]) for row in rows(text) if len(row) == 7}
        for text in (render_validation(checks), page)
    )
    assert len(now) > 60
    assert now - published == set()


def rows(page):
    """The cells of each line of the page's tables."""
    lines = (line for line in page.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


@pytest.mark.parametrize(
    ("ours", "options", "verdict"),
    [
        (2.0, {}, "agrees"),
        (2.1, {}, "differs"),
        (2.1, {"tolerance": 0.11}, "agrees"),
        (1.9, {"relation": ">="}, "differs"),
        (2.1, {"relation": ">="}, "agrees"),
        (2.1, {"relation": "<="}, "differs"),
        (float("nan"), {"tolerance": 9.0}, "differs"),
        ((2.0, 2.0), {}, "differs"),
        ("2", {}, "differs"),
        (3.0, {"because": "stride", "predicted": 3.0}, "differs, explained"),
        (3.5, {"because": "stride", "predicted": 3.0}, "differs"),
        (3.5, {"because": "noise", "predicted": 3.0, "slack": 0.6}, "differs, explained"),
        (2.5, {"because": "noise", "predicted": 9.0, "slack": 0.6}, "differs"),
    ],
)
def test_a_verdict_follows_from_the_values_alone(ours, options, verdict):
    """Tolerance, bound and prediction decide the verdict; NaN agrees with nothing."""
    assert check(ours, **options).verdict == verdict


@pytest.mark.parametrize("ours", [(1.0, 2.0), (1.0, 2.5), "no", "yes"])
def test_tuples_are_compared_entry_by_entry_and_texts_to_the_letter(ours):
    """One entry or letter that differs makes the verdict *differs*."""
    reference = "yes" if isinstance(ours, str) else (1.0, 2.0)
    expected = "agrees" if ours == reference else "differs"
    assert check(ours, reference).verdict == expected


def test_an_explanation_without_a_prediction_is_refused():
    """An explanation without a predicted value is a ValueError."""
    with pytest.raises(ValueError, match="go together"):
        check(3.0, because="somehow")


def test_the_page_shows_a_planted_wrong_number_as_differing():
    """Of a right, a wrong and an explained value only the wrong one is shown as differing."""
    page = render_validation([check(2.0), check(7.0), check(3.0, because="of that", predicted=3.0)])
    rows = [line for line in page.splitlines() if "what \\| where" in line]
    assert ["**differs**" in row for row in rows] == [False, True, False]
    assert "| **all** | 3 | 1 | 1 | 0 | 1 |" in " ".join(page.split())
    assert "- what | where: of that" in page


def test_the_page_is_markdown_with_one_table_for_each_group():
    """The checks of one group share a table, and the page ends in one newline."""
    page = render_validation([check(2.0), check((1.0, 0.25), (1.0, 0.25))])
    assert page.startswith("# Validation")
    assert page.count("| computed by") == 1
    assert page.endswith("\n")
    assert not page.endswith("\n\n")
    assert all(verdict in page for verdict in VERDICTS)


@pytest.mark.parametrize(
    ("value", "text"), [(483.0, "483"), (0.44444, "0.4444"), ((1.0, 2.5), "1, 2.5"), (1e-18, "0")]
)
def test_values_are_shown_to_four_digits(value, text):
    """Whole numbers are shown in full, others with four significant digits."""
    assert value_text(value) == text


def test_a_wrong_implementation_turns_the_known_answers_red(monkeypatch):
    """With a coverage of ones, at least four window counts differ."""
    monkeypatch.setattr(LayerWindow, "coverage", lambda self: np.ones(self.stride))
    verdicts = [c.verdict for c in known._windows()]
    assert verdicts.count("differs") >= 4


def test_a_wrong_profile_turns_the_linear_resnet_red(monkeypatch):
    """Without kernel padding, both rows of the padded linear ResNet-50 differ."""
    monkeypatch.setattr(published, "linear_resnet50", lambda **_: linear_resnet50())
    assert [c.verdict for c in published._linear_resnet()].count("differs") == 2


def test_an_interval_that_is_too_narrow_or_biased_is_seen():
    """Half the width covers 68 %, and a bias of three deviations almost nothing."""

    def estimates(shift, half):
        from perimetry.suites.base import Estimate

        rng = np.random.default_rng(0)
        values = rng.normal(1.0 + shift, 0.1, 400)
        return [Estimate(v, v - half, v + half) for v in values]

    good, narrow, biased = (
        coverage._summary("plant", "pixels", 8, "radius", 1.0, estimates(*setting))
        for setting in ((0.0, 0.196), (0.0, 0.1), (0.3, 0.196))
    )
    assert good.covered == pytest.approx(0.95, abs=0.03)
    assert good.width == pytest.approx(1, abs=0.1)
    assert narrow.covered == pytest.approx(0.68, abs=0.06)
    assert narrow.width == pytest.approx(0.51, abs=0.05)
    assert biased.below > 0.8
    assert biased.above < 0.01


@pytest.mark.parametrize("profile", coverage.PROFILES)
@pytest.mark.parametrize("period", [4, 8])
def test_the_planted_truths_are_those_of_the_profile(profile, period):
    """The formulas of the planted truths agree with those of the suites."""
    plant = coverage.PROFILES[profile](period)
    plant = plant / plant.mean()
    truths = coverage.phase_truths(plant, np.tile(plant, (5, 5)))
    assert truths["weakest"] == pytest.approx(float(phases.least_sensitive(plant)))
    assert truths["imbalance"] == pytest.approx(float(phases.imbalance(plant)))
    assert truths["ratio"] == pytest.approx(float(phases.ratio(plant)))
    assert truths["by_period_2"] == pytest.approx(float(phases.by_period(plant)[2]))


@pytest.mark.parametrize("period", [None, 4])
def test_the_noise_has_mean_one_and_the_variance_of_its_law(period):
    """Mean 1, and the variance of chi-square laws over their degrees of freedom."""
    rng = np.random.default_rng(0)
    samples = coverage._noisy(np.full((20, 20), 3.0), 4000, rng, period)
    pixels, own = 2 / coverage.DEGREES, 2 / coverage.PROFILE_DEGREES
    variance = pixels if period is None else (1 + pixels) * (1 + own) - 1
    assert samples.mean() == pytest.approx(3, rel=0.01)
    assert samples[:, 3, 5].var() / 9 == pytest.approx(variance, rel=0.15)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_slim_resnet_halves_its_grid_in_the_last_unit_of_three_blocks(depth):
    """The blocks have grids of 28, 14, 7 and 7 units, with four strided layers."""
    import torch

    for blocks, side in ((1, 28), (2, 14), (3, 7), (4, 7)):
        shape = slim_resnet(DEPTHS[depth], blocks)(torch.zeros(1, 3, 224, 224)).shape[-1]
        assert shape == side
    strided = [m for m in slim_resnet(DEPTHS[depth]).modules() if getattr(m, "stride", 1) == (2, 2)]
    assert len(strided) == 4  # the stem and three 3 x 3


def test_an_averaging_stack_keeps_sums():
    """Each layer maps a constant image of 1 to 1."""
    import torch

    out = averaging_stack(3, channels=2)(torch.ones(1, 2, 9, 9))
    torch.testing.assert_close(out, torch.ones(1, 2, 3, 3))


# ------------------------------------------------------------------ before and after


def test_the_slow_estimator_of_before_is_the_mean_read_on_the_other_half():
    """Against the package's own function for extreme places, which other suites use."""
    profiles = np.random.default_rng(0).standard_gamma(5, (9, 4, 4))
    resamples = bootstrap(9, 50, 3)
    found = before_after.weakest_before(profiles, resamples)
    expected = extreme_mean(profiles.reshape(9, -1), np.argmin, resamples)
    assert found.value == pytest.approx(expected[0])
    np.testing.assert_allclose(found.draws, expected[1:])
    half = resamples.estimate(expected)
    assert (found.low, found.high) == pytest.approx((half.low, half.high))


def test_the_estimator_of_before_may_be_above_1_and_that_of_today_may_not():
    """On flat profiles, 20 seeds: a smallest share above the mean in some, and never now."""
    flat = sources.planted()["flat"]
    values = []
    for seed in range(20):
        profiles, resamples = flat.draw(8, np.random.default_rng(seed)), bootstrap(8, 200, seed)
        before = before_after.weakest_before(profiles, resamples)
        after = before_after.weakest_after(profiles, resamples, None)
        values.append((before.value, after.value, after.high))
    before, after, high = np.array(values).T
    assert before.max() > 1
    assert after.max() <= 1
    assert high.max() <= 1


def test_the_tie_groups_of_before_are_led_by_their_best_row():
    """0.9 and 0.85 tie within 0.1, 0.5 begins a group, with which 0.45 ties."""
    noise = np.random.default_rng(0).normal(0, 0.03, (4, 400))
    rows = [
        before_after.Interval(v, v - 0.1, v + 0.1, v + n)
        for v, n in zip((0.5, 0.9, 0.45, 0.85), noise, strict=True)
    ]
    assert before_after.tie_groups(rows) == [3, 1, 3, 1]


def test_coverage_bias_and_width_are_counted_by_hand():
    """Of four intervals about a truth of 1 three hold it; bias 0.05, half width 0.25."""
    rows = [(1.0, 0.8, 1.2), (1.2, 1.0, 1.4), (0.9, 0.6, 1.2), (1.1, 1.05, 1.35)]
    found = before_after.quality([before_after.Interval(*row, np.zeros(2)) for row in rows], 1.0)
    assert found.coverage == 0.75
    assert found.bias == pytest.approx(0.05)
    assert found.rmse == pytest.approx(np.sqrt((0.04 + 0.01 + 0.01) / 4))
    assert found.half == pytest.approx((0.2 + 0.2 + 0.3 + 0.15) / 4)


def test_two_models_on_the_same_images_share_half_of_their_noise():
    """Their phases are correlated by about 1/2, and 17 of 20 intervals hold the difference."""
    weak, stem = (sources.planted()[n] for n in ("one weak phase (0.3)", "stem, structure known"))
    flat = np.ones_like(stem.profile)
    one, other = differences.two_models(flat, flat, 500, np.random.default_rng(0))
    found = [np.corrcoef(one[:, i, 0], other[:, i, 0])[0, 1] for i in range(16)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    assert sum(differences.holds(weak, stem, 16, seed) for seed in range(20)) >= 17


def test_one_part_of_the_page_is_written_anew_and_the_others_stay():
    """The other group's table, the comparison and the sums are as they were."""
    other = ReferenceCheck("other", "that", "a paper", 1.0, 1.0, "function()")
    page = render_validation([check(7.0), other], comparison="as it was")
    again = render_validation([check(2.0)], page=page)
    assert "**differs**" in page
    assert "**differs**" not in again
    assert again == render_validation([check(2.0), other], comparison="as it was")
    assert "| **all** | 2 | 2 | 0 | 0 |" in " ".join(again.split())


def test_the_published_page_has_the_comparison_with_a_sentence_for_every_shortfall():
    """Thirteen planted profiles and three pools at four numbers of samples; those off are named."""
    page = PAGE.read_text(encoding="utf-8")
    section = page.partition(f"## {before_after.TITLE}\n")[2].partition("\n## ")[0]
    table = [row for row in rows(section) if row[0] != before_after.HEADS[0]]
    assert len(table) == 16 * len(before_after.SAMPLES)
    for row in table:
        share = float(row[4].rstrip("% ")) / 100
        named = f"{row[0]} at {row[2]} (" in section
        assert named is not (before_after.GOAL[0] <= share <= before_after.GOAL[1])
