"""`perimetry show`: what its report says of planted findings, treated and untreated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from planted_report import case_of, culprit, layer, model, profile, record, report_of

from perimetry.bench.model_report.report import causes, remedies, report, summary, verdict_line
from perimetry.bench.model_report.reported import (
    Evenness,
    ReportedRecord,
    changes,
    figures,
    metric_change,
    without_interval,
)
from perimetry.suites.base import Metric, Suite
from perimetry.suites.padding.results import what_can_hide
from perimetry.suites.registry import SUITES

SNAPSHOT = Path(__file__).parent / "data" / "report.txt"


def of(suite, metrics, **changes):
    return ReportedRecord(record(suite, metrics, **changes), SUITES[suite])


def tables():
    """Two layers at fault, one of which causes nearly everything; even sizes around 64."""
    return {
        "culprits": [
            culprit("stem", imbalance_padded=0.1, reduction=0.3),
            culprit("last", imbalance_padded=0.4, reduction=0.001),
        ],
        "layers": [layer("stem"), layer("short", 1, ((1, 0), (1, 0))), layer("plain", stride=1)],
        "uneven": [{"name": "stem", "input": [64, 64], "rows": 1, "columns": 1}],
        "even_sizes": [
            {"axis": axis, "size": n} for axis in ("height", "width") for n in (33, 61, 65, 97)
        ],
    }


# What a number shows


@pytest.mark.parametrize(
    ("suite", "name"), [("deadpixel", "weakest"), ("perturbation", "comb_weakest")]
)
@pytest.mark.parametrize("half", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("middle", [0.1, 0.5, 0.9, 1.1])
def test_a_number_is_uneven_exactly_when_its_interval_leaves_out_even(suite, name, half, middle):
    """`weakest` is shown to be uneven if its interval ends below 1, and not shown otherwise."""
    shown = of(suite, {name: (middle, half)}).verdict(name)
    assert shown is (Evenness.off if middle + half < 1 else Evenness.not_shown)


def test_only_the_direction_of_the_metric_is_uneven():
    """`weakest` above 1 and `imbalance` below 0 are noise; `border_ratio` counts either way."""
    found = of("deadpixel", {"weakest": (1.5, 0.1), "imbalance": (-0.5, 0.1)})
    assert found.verdict("weakest") is found.verdict("imbalance") is Evenness.not_shown
    assert of("padding", {"border_ratio": (1.5, 0.1)}).verdict("border_ratio") is Evenness.off


def test_an_estimate_without_an_interval_shows_nothing():
    """Three samples give no interval: however small the share, nothing is shown."""
    found = of("deadpixel", {"weakest": 0.01, "imbalance": 3.0}, count=3)
    assert {found.verdict(name) for name in found.names} == {Evenness.no_interval}
    assert causes(found) == []


@pytest.mark.parametrize(("count", "few"), [(3, True), (4, False), (16, False)])
def test_samples_that_are_all_alike_are_not_called_too_few(count, few):
    """Sixteen images that agree exactly have no interval either: more images would not help."""
    found = of("deadpixel", {"weakest": 0.01}, count=count)
    line = verdict_line([found])
    assert ("too few samples" in line) == found.few_samples == few
    assert ("alike" in line) != few


def test_an_estimate_without_an_interval_says_why():
    """All draws of the share are alike; three images are too few for any interval."""
    found = of("deadpixel", {"weakest": (0.5, 0.1), "dead@0.01": 0.0}, count=8)
    (said,) = without_interval(found)
    assert said.startswith("without an interval (alike in all draws")
    assert said.endswith(found.label("dead@0.01"))
    few = of("deadpixel", {"dead@0.01": 0.0}, count=3)
    assert without_interval(few)[0].startswith("without an interval (too few samples)")
    assert without_interval(of("structure", {"weakest": 0.5})) == []


def test_an_interval_of_no_width_is_none():
    """A share that 199 of 200 draws have has two ends that are alike, and shows nothing."""
    found = of("deadpixel", {"dead@0.5": (0.1875, 0.0)}, count=8)
    assert found.verdict("dead@0.5") is Evenness.no_interval
    assert without_interval(found)[0].endswith(found.label("dead@0.5"))


@pytest.mark.parametrize(("share", "verdict"), [(0, "uneven"), (0.5, "uneven"), (0.999, "even")])
def test_numbers_of_an_exact_suite_need_no_interval(share, verdict):
    """Structure's numbers are exact: 0 and 0.5 are uneven, 0.999 is even."""
    assert of("structure", {"weakest": share}).shows("weakest") == verdict


def test_one_weight_set_and_one_stimulus_are_exact_and_many_are_not():
    """A metric marked `one weight set` is exact for one, and an estimate for an average of two."""
    one = of("padding", {"constant_left_right": 0.2, "left_right": 0.2})
    many = of("padding", {"constant_left_right": 0.2}, model=model(members=2))
    assert one.verdict("constant_left_right") is Evenness.off
    assert one.verdict("left_right") is Evenness.no_interval
    assert many.verdict("constant_left_right") is Evenness.no_interval


def test_a_field_is_off_centre_by_its_parts_and_not_by_their_length():
    """The length of a noisy offset is always positive, so that it has no verdict."""
    noisy = {"offset": (3.0, 1.0), "offset_y": (2.0, 2.5), "offset_x": (-2.0, 1.9)}
    found = of("erf", noisy)
    assert [found.shows(n) for n in ("offset", "offset_y", "offset_x")] == [
        "",
        "not shown",
        "off centre",
    ]


@pytest.mark.parametrize("suite", SUITES)
def test_every_metric_says_how_it_is_shown(suite):
    """Every metric has a label that no other metric of the suite has and that fits its column."""
    known = SUITES[suite].metrics
    assert all(0 < len(metric.label) <= 36 for metric in known)
    assert len({metric.label for metric in known}) == len(known)
    assert all(metric.caveat.endswith(".") for metric in known if metric.caveat)
    assert any(metric.main for metric in known if metric.name == SUITES[suite].headline) or (
        suite == "fidelity"
    )
    assert SUITES[suite].question


# The first lines


def test_the_verdict_names_every_headline_with_what_it_shows():
    """Uneven ones come first, then even ones, then those that show nothing, then sizes."""
    lines = summary(
        case_of(
            record("erf", {"luo_size": (16.0, 2.0)}),
            record("deadpixel", {"weakest": (0.9, 0.3)}),
            record("structure", {"weakest": 0.5}),
        )
    )
    assert lines[0] == (
        "Verdict: Uneven: least sensitive phase (1 is even) 0.500 in structure. "
        "Not shown to be uneven: least sensitive phase (1 is even) 0.90 ± 0.30 in deadpixel. "
        "Measured: side above 4.55 % of the peak 16.0 ± 2.0 pixels in erf."
    ).replace(" ± ", "\u00a0±\u00a0")


@pytest.mark.parametrize(
    ("channel", "what"),
    [("all", "masks or crops the image"), ("output", "leaves out units of the target")],
)
def test_a_dead_region_is_not_hidden_by_an_even_headline(channel, what):
    """A hole of 4 x 6 pixels in a model of even phases begins the verdict and has its own line."""
    row = {"channel": channel, "pixels": 24, "top": 3, "left": 8, "bottom": 7, "right": 14}
    found = record("deadpixel", {"weakest": (1.0, 0.1)}, tables={"dead_regions": [row]})
    lines = summary(case_of(found))
    assert lines[0].startswith("Verdict: Parts of the image have no influence. Not shown to be")
    assert lines[1].startswith("Dead regions: 24 pixels")
    assert lines[2].startswith(f"What to do: look for what {what}: ")
    assert len(lines) == 3


def test_a_model_with_a_hole_and_an_uneven_layer_is_told_of_both():
    """Padding the worst kernel does not reach the hole, so that the hole comes first."""
    row = {"channel": "all", "pixels": 24, "top": 3, "left": 8, "bottom": 7, "right": 14}
    lines = summary(
        case_of(
            record("deadpixel", {"weakest": (0.5, 0.1)}, tables={"dead_regions": [row]}),
            record("structure", {"weakest": 0.5, "imbalance": 0.4}, tables=tables()),
        )
    )
    assert lines[2].startswith("What to do: look for what masks or crops the image: kernel padding")
    assert "does not reach it; padding the kernel of stem alone takes" in lines[2]


def test_a_hole_is_measured_where_nothing_else_is():
    """A map without phases, such as that of a hole over the interior, has its dead region."""
    row = {"channel": "all", "pixels": 24, "top": 3, "left": 8, "bottom": 7, "right": 14}
    lines = summary(case_of(record("deadpixel", {"relL1": 0.9}, tables={"dead_regions": [row]})))
    assert lines[0] == ("Verdict: Parts of the image have no influence. Nothing else was measured.")
    assert summary(case_of(record("deadpixel", {"relL1": 0.9})))[0] == (
        "Verdict: Nothing was measured."
    )


def test_a_black_box_without_dead_regions_is_told_which_can_hide():
    """The holes that fit between the blocks of `padding`, in the same line."""
    hides = "a hole that contains no whole block, row or column, of at most 6 pixels along its"
    found = record("padding", {"blind_weakest": 0.9}, tables={"silent_regions": []})
    found.notes.append(f"silent pixels: blocks of 4 x 4 pixels; {hides} shorter side, can hide")
    assert summary(case_of(found))[1] == (
        "Dead regions: none found (padding; holes of up to 6 pixels along their shorter side can "
        "hide)."
    )


def test_holes_in_one_channel_can_hide_where_channels_are_not_looked_at_apart():
    """Of any size, and so even where the blocks are single pixels; not in a grey model."""
    note = what_can_hide(1, 3)
    found = record("padding", {"blind_weakest": 0.9}, tables={"silent_regions": []}, notes=[note])
    assert summary(case_of(found))[1] == (
        "Dead regions: none found (padding; holes of any size in one colour channel alone can "
        "hide)."
    )
    grey = found.model_copy(update={"notes": [what_can_hide(1, 1)]})
    assert summary(case_of(grey))[1] == "Dead regions: none found (padding)."
    dead = {"silent_regions": [{"channel": "all", "pixels": 4, "box": [0, 0, 2, 2]}]}
    also = summary(case_of(found.model_copy(update={"tables": dead})))[1]
    assert "columns 0 to 1 (padding); holes of any size in one colour" in also


def test_pixels_of_dead_phases_are_told_beside_the_dead_regions():
    """They are not counted as dead pixels, and 0 of these does not mean that every pixel counts."""
    note = "1024 pixels are of phases that are dead as a whole; they are counted by dead@0.01"
    found = record("deadpixel", {"weakest": 0.0}, tables={"dead_regions": []}, notes=[note])
    assert summary(case_of(found))[1] == (
        "Dead regions: none found (deadpixel; 1,024 pixels are of phases that are dead as a whole)."
    )


@pytest.mark.parametrize(
    ("note", "said"),
    [
        (
            "constant: different images give the same logits",
            "all pixels are dead: none changes the output.",
        ),
        (
            "NaN or infinite: all of the logits",
            "not known: NaN or infinite: all of the logits.",
        ),
    ],
)
def test_a_model_whose_outputs_say_nothing_has_no_none_found(note, said):
    """Whether the target was searched or the suite could not measure it."""
    searched = record("deadpixel", {"weakest": 0.9}, tables={"dead_regions": []}, notes=[note])
    refused = record("deadpixel", {}, status="skipped", reason="no gradient", notes=[note])
    for found in (searched, refused):
        assert summary(case_of(found))[1] == f"Dead regions: {said}"


def test_suites_that_failed_to_find_dead_regions_are_named():
    """They are not called missing, and the reader is told where the reasons are."""
    failed = [
        record(name, {}, status="failed", reason="KeyError") for name in ("deadpixel", "padding")
    ]
    assert summary(case_of(*failed))[1] == (
        "Dead regions: not known: deadpixel and padding failed, for reasons under Not measured."
    )
    skipped = record("deadpixel", {}, status="skipped", reason="no gradients")
    assert summary(case_of(skipped))[1] == (
        "Dead regions: not known: deadpixel does not apply, for reasons under Not measured; the "
        "suite padding finds them without gradients."
    )


def test_dead_regions_are_none_only_where_they_were_looked_for():
    """A table without rows says none; a suite that does not look for them says nothing of them."""
    looked = summary(case_of(record("deadpixel", {"weakest": 0.9}, tables={"dead_regions": []})))
    assert looked[1] == "Dead regions: none found (deadpixel)."
    assert "not looked for" in summary(case_of(record("erf", {"luo_size": 16.0})))[1]
    alone = summary(case_of(record("padding", {"blind_weakest": 0.9})))[1]
    assert "padding" not in alone
    assert "the suite deadpixel" in alone


def test_layers_phases_periods_and_skipped_pixels_are_causes():
    """The causes are the layer of 75 %, the phase, each period and the strided 1 x 1."""
    metrics = {"weakest": 0.5, "imbalance": 0.4, "by_period_2": 0.04, "by_period_4": 0.12}
    found = of("structure", metrics, tables=tables(), maps={"phase_profile": profile(0.5, (1, 3))})
    assert causes(found) == [
        "layers at fault: stem (75 % of the imbalance)",
        "the least sensitive phase is row 1, column 3 of every 4 x 4 pixels",
        "stride period 4 causes 75 % and stride period 2 causes 25 % of the variance over the "
        "phases",
        "windows smaller than their stride: short",
    ]


def test_a_call_that_no_layer_makes_is_the_network_s_own():
    """A network that is one convolution, or calls it by itself, has no name for it."""
    planted = tables()
    for name in ("culprits", "layers"):
        planted[name] = [{**row, "name": "", "kind": "conv2d"} for row in planted[name]]
    found = of("structure", {"weakest": 0.5, "imbalance": 0.4}, tables=planted)
    text = "; ".join([*causes(found), *remedies(found)])
    assert "layers at fault: the network's own conv2d (75 %" in text
    assert "stride: the network's own conv2d" in text
    assert "padding the kernel of the network's own conv2d alone" in text


def test_an_even_model_has_no_causes():
    """An even profile has no causes in the report, whichever phase is the smallest."""
    assert (
        causes(of("structure", {"weakest": 1.0}, maps={"phase_profile": profile(1, (1, 3))})) == []
    )


def test_periods_that_noise_may_explain_are_not_causes():
    """A part whose interval contains 0 causes nothing, however large it is."""
    metrics = {
        "weakest": (0.5, 0.1), "imbalance": (0.2, 0.01),
        "by_period_2": (0.03, 0.04), "by_period_4": (0.01, 0.001),
    }  # fmt: skip
    assert causes(of("deadpixel", metrics)) == [
        "stride period 4 causes 25 % of the variance over the phases"
    ]


def test_the_least_response_is_placed_on_the_grid():
    """The smallest response, at the upper right, with what is not seen; packs have no maps."""
    place = {"top": 0, "left": 216, "bottom": 8, "right": 224}
    found = of(
        "padding",
        {"blind_weakest": 0.01},
        tables={"blind_place": [place | {"unseen_rows": 28, "unseen_columns": 28}]},
    )
    assert causes(found) == [
        "of the places looked at, the response is least in rows 0 to 7, columns 216 to 223; up "
        "to 28 rows and 28 columns between places are not looked at"
    ]


def test_the_worst_layer_and_even_sizes_are_suggested():
    """The report suggests padding the stem alone and the even sizes next to 64."""
    assert remedies(of("structure", {"weakest": 0.5}, tables=tables())) == [
        "padding the kernel of stem alone takes the imbalance from 0.400 to 0.100",
        "an input of height 61 or 65 and width 61 or 65 leaves no padding unread",
    ]


def test_no_size_is_made_up_where_none_is_even():
    """Without an even width nearby there is no suggestion."""
    found = {"uneven": [{"name": "stem"}], "even_sizes": [{"axis": "height", "size": 65}]}
    assert remedies(of("structure", {"uneven_layers": 1}, tables=found)) == []


def test_the_padding_mode_that_helps_most_is_suggested_where_it_is_shown():
    """Drops of 60 % become 10 % and 40 %; a mode whose interval contains 0 does not count."""
    drops = {"zero": 0.6, "reflect": 0.4, "replicate": 0.1, "circular": 0.05}
    exchange = {"exchange": [{"padding": k, "border_drop": v} for k, v in drops.items()]}
    metrics = {
        "exchange_reflect": (-0.2, 0.05),
        "exchange_replicate": (-0.5, 0.05),
        "exchange_circular": (-0.55, 0.6),
    }
    (found,) = remedies(of("padding", metrics, tables=exchange, model=model(members=4)))
    assert found.startswith("replicate padding")
    assert found.endswith("from 60 % to 10 %")


def test_a_measured_kernel_padding_is_what_to_do():
    """Box takes 0.5 to 0.9, and keeps the top class of three images in four."""
    line = summary(
        case_of(
            record("structure", {"weakest": 0.5}),
            record("structure", {"weakest": 0.9}, fill="box"),
            record("fidelity", {"top1_agreement": (0.75, 0.1)}, fill="box"),
        )
    )[-1]
    assert line.startswith("What to do: --kernel-padding box: least sensitive phase 0.500 to 0.900")
    assert "(structure, more even)" in line
    assert "0.75\u00a0±\u00a00.10 (fidelity)" in line


def test_nothing_is_to_do_for_an_even_model_and_for_no_other():
    """An estimate without an interval shows neither evenness nor unevenness."""
    even = summary(case_of(record("structure", {"weakest": 1.0})))
    unknown = summary(case_of(record("deadpixel", {"weakest": 0.4}, count=3)))
    unasked = summary(case_of(record("erf", {"luo_size": (40.0, 2.0)})))
    assert unasked[-1].startswith("What to do: not known: no suite here looks for unevenness")
    assert even[-1] == "What to do: nothing, as no unevenness is shown."
    assert unknown[-1].startswith("What to do: measure with more images")


# What kernel padding changed


@pytest.mark.parametrize(("after", "shows"), [(0.7, "not shown to differ"), (0.9, "more even")])
def test_a_change_that_its_interval_does_not_separate_is_not_shown(after, shows):
    """Independent half widths 0.3 and 0.4 make 0.5: a change of 0.4 is not shown, 0.6 is."""
    treated = of("deadpixel", {"weakest": (after, 0.4)}, fill="box")
    found = metric_change(treated, of("deadpixel", {"weakest": (0.3, 0.3)}), "weakest")
    assert found.shows == shows
    assert found.difference.high - found.difference.value == pytest.approx(0.5)


def test_main_metrics_are_compared_with_those_of_the_untreated_model():
    """Exact numbers: 0.5 becomes 0.9, 2 uneven layers become 3; `ratio` is not a main metric."""
    treated = of("structure", {"weakest": 0.9, "uneven_layers": 3, "ratio": 1.1}, fill="box")
    untreated = of("structure", {"weakest": 0.5, "uneven_layers": 2, "ratio": 2.0})
    assert changes([treated], [untreated]).rows == [
        ("structure.weakest", "0.500", "0.900", "+0.4", "more even"),
        ("structure.uneven_layers", "2", "3", "+1", "less even"),
    ]


def test_the_report_can_be_of_the_treated_variant():
    """With box chosen the figures are those of box, and the comparison stays."""
    text = report_of(
        record("structure", {"weakest": 0.5}),
        record("structure", {"weakest": 0.999}, fill="box"),
        fill="box",
    )
    assert text.startswith("toy:model, kernel padding box - Verdict: Even: least sensitive phase")
    assert "structure.weakest 0.500 0.999 +0.499 more even" in text


# New suites and metrics


@dataclass(frozen=True)
class Colour(Suite):
    """A suite that no code of the report knows."""

    name: ClassVar = "colour"
    protocols: ClassVar = {"forward": "1"}
    metrics: ClassVar = (
        Metric("shade", "difference of hues", "degrees", "lower", even=0.0, label="hue of grey",
               caveat="It misleads at night.", verdicts=("tinted", "neutral")),
    )  # fmt: skip
    headline: ClassVar = "shade"
    random: ClassVar = True
    question: ClassVar = "does grey stay grey?"

    def causes(self, found):
        return ["the red filter"]

    def remedies(self, found, size):
        return [f"turn it by {found.metrics['shade'].value:g} degrees at {size[0]} x {size[1]}"]


def test_a_new_suite_is_shown_without_a_line_of_code():
    """Its headline, cause, remedy, figures, caveat and table come from what it says of itself."""
    one = record(
        "deadpixel", {"shade": (25.0, 5.0), "depth": 2.0}, tables={"hue_rows": [{"hue": 7}]}
    )
    one.suite, one.protocol = "colour", "forward"
    case = case_of(one)
    case.suites["colour"] = Colour()
    text = " ".join(report(case).split())
    for part in (
        "Tinted: hue of grey (0 is neutral) 25.0 ± 5.0 degrees in colour.",
        "The red filter.",
        "What to do: turn it by 25 degrees at 64 x 64.",
        "colour: does grey stay grey?",
        "hue of grey 25.0 ± 5.0 0 tinted degrees depth 2",
        "hue of grey: It misleads at night.",
        "Hue rows: hue ----- 7",
    ):
        assert part in text


def test_a_suite_that_is_not_known_shows_its_metrics_under_their_names():
    """A record of another version's suite has no labels, and no verdict."""
    one = record("structure", {"shade": (0.25, 0.01)})
    table = figures(ReportedRecord(one.model_copy(update={"suite": "colour"})))
    assert table.rows == [("shade", "0.250\u00a0±\u00a00.010", "", "", "")]


# The whole


def test_the_whole_report_is_as_the_snapshot():
    """Every section of a planted model; a changed wording is changed in tests/data/report.txt."""
    text = report(
        case_of(
            record(
                "structure",
                {"weakest": 0.5, "imbalance": 0.4, "by_period_2": 0.16, "uneven_layers": 1},
                tables=tables(),
                maps={"phase_profile": profile(0.5, (1, 3))},
                notes=["the period was lowered"],
            ),
            record("erf", {"luo_size": (16.0, 2.0), "erf_trf": "the theoretical field is global"}),
            record("deadpixel", {}, status="skipped", reason="no gradients"),
            record("structure", {"weakest": 0.9, "imbalance": 0.1}, fill="box"),
            record("fidelity", {"top1_agreement": (0.75, 0.1)}, fill="box"),
        )
    )
    assert text == SNAPSHOT.read_text(encoding="utf-8")
