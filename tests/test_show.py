"""`perimetry show`: what it says of planted findings, treated and untreated."""

from __future__ import annotations

import re

import pytest
from told import culprit, layer, model, profile, record, tell

from perimetry.bench.model_report.finding import ReportedRecord
from perimetry.suites.registry import SUITES

# What is found


def test_the_worst_served_phase_is_named_with_its_share():
    """A planted weakest phase is told with its place, share and interval."""
    found = record(
        "deadpixel", {"weakest": (0.51, 0.05)}, maps={"phase_profile": profile(0.5, (1, 3))}
    )
    assert (
        "The worst-served phase (row 1, column 3 of every 4 x 4 cell) gets 0.510 ± 0.050 of the "
        "average sensitivity."
    ) in tell(found)


@pytest.mark.parametrize("suite", ["deadpixel", "perturbation"])
@pytest.mark.parametrize("half", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("middle", [0.1, 0.5, 0.9, 1.1])
def test_a_phase_is_called_worst_served_exactly_when_its_interval_leaves_out_even(
    suite, middle, half
):
    """`worst-served` is said if the interval ends below 1; else `not shown to be uneven`."""
    name = {"deadpixel": "weakest", "perturbation": "comb_weakest"}[suite]
    text = tell(record(suite, {name: (middle, half)}))
    shown = middle + half < 1
    assert ("worst-served phase" in text) is shown
    assert ("not shown to be uneven, the interval holds 1" in text) is not shown


def test_an_estimate_without_an_interval_shows_nothing():
    """Three samples give no interval: however small the share, it is not shown to be uneven."""
    text = tell(record("deadpixel", {"weakest": 0.01, "imbalance": 3.0}, count=3))
    assert text.count("not shown to be uneven: too few samples for an interval") == 2
    assert "worst-served" not in text


def test_the_same_numbers_of_an_exact_suite_need_no_interval():
    """Structure's numbers are exact: 0.5 is uneven, 0.999 is alike, 0 is blind."""
    said = {
        share: tell(record("structure", {"weakest": share, "ratio": 2.0}))
        for share in (0, 0.5, 0.999)
    }
    assert "gets nothing: no path reads these pixels" in said[0]
    assert "expected to get 0.500 of the average sensitivity" in said[0.5]
    assert "All phases are treated alike: the weakest gets 0.999" in said[0.999]


def test_each_period_is_told_its_share_of_the_variance():
    """Of an imbalance of 0.2 (variance 0.04), parts of 0.03 and 0.01 are 75 % and 25 %."""
    metrics = {"imbalance": 0.2, "by_period_2": 0.01, "by_period_4": 0.03, "by_period_8": 1e-5}
    assert "period 4 causes 75 % and period 2 causes 25 %." in tell(record("structure", metrics))


def test_periods_that_noise_may_explain_are_not_told():
    """A part whose interval holds 0 causes nothing, whatever its share."""
    metrics = {"imbalance": (0.2, 0.01), "by_period_2": (0.03, 0.04), "by_period_4": (0.01, 0.001)}
    text = tell(record("deadpixel", metrics))
    assert "period 4 causes 25 %." in text
    assert "period 2" not in text


def test_a_field_is_off_centre_by_its_parts_and_not_by_their_length():
    """The length of a noisy offset is above 0; only a part whose interval leaves out 0 counts."""
    noisy = {"offset": (3.0, 1.0), "offset_y": (2.0, 2.5), "offset_x": (-2.0, 2.5)}
    assert "not shown to lie off that centre" in tell(record("erf", noisy))
    assert "It lies off that centre" in tell(record("erf", noisy | {"offset_x": (-2.0, 1.9)}))


@pytest.mark.parametrize(
    ("middle", "half", "said"),
    [
        (0.95, 0.02, "It is close to a Gaussian"),
        (0.92, 0.05, "The best Gaussian explains 92.0 ± 5.0 %"),
        (0.3, 0.1, "It is no Gaussian"),
    ],
)
def test_a_field_is_called_gaussian_only_by_its_whole_interval(middle, half, said):
    """Above 0.9 throughout: close to one; below 0.5 throughout: none; else the number alone."""
    metrics = {"r_squared": (middle, half), "sigma_y": 3.0, "sigma_x": 4.0}
    assert said in tell(record("erf", metrics))


def test_size_is_set_against_image_and_theory():
    """16 of 64 pixels are 25 % of the image; without a theoretical field that part is left out."""
    assert (
        "16 pixels a side (above 4.55 % of the peak), 25 % of the image's side and 12.5 % of"
        in tell(record("erf", {"luo_size": 16.0, "erf_trf": 0.125}))
    )
    text = tell(record("erf", {"luo_size": 16.0, "erf_trf": "the theoretical field is global"}))
    assert "25 % of the image's side. " in text
    assert "erf:energy (none): erf_trf: the theoretical field is global." in text


def test_culprits_and_cures_are_told():
    """The worst layer, what padding it alone would do, and the sizes next to 64 that cure."""
    tables = {
        "culprits": [
            culprit("stem", imbalance_padded=0.1, reduction=0.3),
            culprit("last", imbalance_padded=0.4, reduction=0.001),
        ],
        "layers": [layer("stem"), layer("short", 1, ((1, 0), (1, 0))), layer("plain", stride=1)],
        "uneven": [{"name": "stem"}, {"name": "last"}],
        "even_sizes": [
            {"axis": axis, "size": n} for axis in ("height", "width") for n in (33, 61, 65, 97)
        ],
    }
    metrics = {"imbalance": 0.4, "uneven_layers": 2, "by_period_2": 0.16}
    text = tell(record("structure", metrics, tables=tables))
    assert "Kernel padding of stem alone would take the imbalance from 0.400 to 0.100." in text
    assert "stem 3 2 0.100 75 %" in text
    assert "(the other 1 take off less than 1% each)" in text
    assert "leave part of the input untouched: short." in text
    assert (
        "At 64 x 64, 2 strided layers leave the last of the padding unread: stem and last." in text
    )
    assert "Inputs of height 61 or 65 and width 61 or 65 leave none unread." in text
    assert "2 of 3 convolutions and poolings have a stride" in text


def test_no_even_size_nearby_is_said_so():
    """Without a size that cures all layers, none is made up."""
    tables = {"uneven": [{"name": "stem"}], "even_sizes": [{"axis": "height", "size": 65}]}
    text = tell(record("structure", {"uneven_layers": 1}, tables=tables))
    assert "1 strided layer leaves the last of the padding unread: stem. No size within" in text


def test_a_blind_spot_is_placed_on_the_picture():
    """The smallest response of a 7 x 7 grid, planted at its upper right."""
    spots = profile(0.01, (0, 6), (7, 7))
    found = record(
        "padding", {"blind_weakest": 0.01}, maps={"blind_spots": spots}, settings={"stimulus": 5}
    )
    text = tell(found)
    assert "A stimulus of 5 x 5 pixels is answered least at the top right: 0.0100 of the" in text


def test_one_weight_set_and_one_stimulus_are_exact_and_many_are_not():
    """The same number without interval: shown for one weight set, not shown for an average."""
    tables = {"stages": [{"constant_left_right": -0.2}]}
    one = record("padding", {"constant_left_right": 0.2}, tables=tables)
    many = record("padding", {"constant_left_right": 0.2}, tables=tables, model=model(members=2))
    assert "On a plain image the right half answers more, by 20 % of the mean." in tell(one)
    assert "not shown to be uneven: too few samples for an interval" in tell(many)


def test_exchanged_padding_is_told_best_first_and_only_where_it_is_shown():
    """Drops of 60 % become 10 % and 40 %; a mode whose interval holds 0 is not told."""
    drops = {"zero": 0.6, "reflect": 0.4, "replicate": 0.1, "circular": 0.55}
    tables = {"exchange": [{"padding": k, "border_drop": v} for k, v in drops.items()]}
    metrics = {
        "exchange_reflect": (-0.2, 0.05),
        "exchange_replicate": (-0.5, 0.05),
        "exchange_circular": (-0.05, 0.1),
    }
    found = record("padding", metrics, tables=tables, model=model(members=4))
    text = tell(found)
    assert "takes the border drop (at nine places) from 60 %" in text
    assert "to: replicate to 10 % and reflect to 40 %." in text


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"agreement_gradient_z": 1.2}, "Differences and gradients agree"),
        ({"agreement_gradient_z": 2.5}, "Differences and gradients do not agree"),
        ({"agreement_direction": 0.05, "comb_error": 0.02}, "is the differences' own error"),
        ({"agreement_direction": 0.07, "comb_error": 0.02}, "more than the differences' own error"),
        ({"agreement_structure": (0.2, 0.1)}, "departs from what the architecture alone implies"),
        ({"agreement_structure": (0.2, 0.3)}, "is not shown to depart from"),
    ],
)
def test_the_agreement_of_routes_is_judged_by_their_errors(metrics, said):
    """Two standard errors, three times the error of the step, an interval that holds 0."""
    assert said in tell(record("perturbation", metrics))


def test_untrained_weights_are_said_to_say_little_about_classes():
    """Shift consistency and top-1 agreement carry the warning on initial states alone."""
    metrics, settings = {"shift_consistency": (0.5, 0.1)}, {"shift": 31}
    for source, warned in (({"weights": "initial state"}, True), ({"weights": "sha"}, False)):
        found = record("perturbation", metrics, settings=settings, model=model(**source))
        assert ("untrained, which says little" in tell(found)) is warned


# What kernel padding changed


def test_treated_and_untreated_stand_side_by_side():
    """Exact numbers: 0.5 becomes 0.9, nearer to even; the layers grown are named."""
    text = tell(
        record("structure", {"weakest": 0.5, "uneven_layers": 2}),
        record("structure", {"weakest": 0.9, "uneven_layers": 3}, fill="box"),
        record("fidelity", {"top1_agreement": (0.75, 0.1)}, fill="box"),
    )
    assert "Grown: stem 3 -> 4." in text
    assert "structure.weakest 0.500 0.900 +0.4 more even" in text
    assert "structure.uneven_layers 2 3 +1 less even" in text
    assert "It gives 75 ± 10 % of the images the same top class as before." in text


def test_a_change_that_its_interval_does_not_separate_is_not_shown():
    """Independent half widths 0.3 and 0.4 make 0.5: a change of 0.4 is not shown, 0.6 is."""
    for after, said in ((0.7, "not shown to differ"), (0.9, "more even")):
        text = tell(
            record("deadpixel", {"weakest": (0.3, 0.3)}),
            record("deadpixel", {"weakest": (after, 0.4)}, fill="box"),
        )
        assert re.search(rf"deadpixel.weakest 0.300 {after:.3f} \+0.\d ± 0.50 {said}", text), text


def test_the_treated_variant_can_be_told_itself():
    """Asked for box, the account is box's, and the comparison stays."""
    records = (
        record("structure", {"weakest": 0.5, "ratio": 3.0}),
        record("structure", {"weakest": 0.999, "ratio": 1.0}, fill="box"),
    )
    text = tell(*records, fill="box")
    assert text.startswith("toy:model, kernel padding box")
    assert "All phases are treated alike" in text
    assert "structure.weakest 0.500 0.999 +0.499 more even" in text


def test_a_finding_knows_which_way_is_uneven():
    """`weakest` above 1 and `imbalance` below 0 are noise, not unevenness; `ratio` either way."""
    found = ReportedRecord(
        record("deadpixel", {"weakest": (1.5, 0.1), "imbalance": (-0.5, 0.1)}), SUITES["deadpixel"]
    )
    assert found.verdict("weakest").value == "not shown to be uneven"
    assert found.verdict("imbalance").value == "not shown to be uneven"
    border = ReportedRecord(record("padding", {"border_ratio": (1.5, 0.1)}), SUITES["padding"])
    assert border.verdict("border_ratio").value == "shown to be uneven"
