"""`perimetry show`: what it says of planted findings, what it must not say, and what goes wrong."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench import show_rules, show_rules_padding, show_rules_perturbation
from perimetry.bench.board import MixedRecordsError
from perimetry.bench.cli import app
from perimetry.bench.record import Failure, ImagesInfo, ModelInfo, Record, Value
from perimetry.bench.show import TOPICS, Case, account, open_case
from perimetry.bench.show_finding import FIELD, Finding, measured, number
from perimetry.bench.show_layout import WIDTH
from perimetry.bench.show_provenance import repeat
from perimetry.bench.store import Store, StoreError
from perimetry.bench.text import clean
from perimetry.suites.registry import SUITES

SPEC = {"height": 64, "width": 64, "channels": 3}
GRID = {"name": "layer4", "kind": "NCHW", "channels": 8, "height": 16, "width": 16, "prefix": 0}
ENVIRONMENT = {
    "python": "3.12",
    "platform": "planet",
    "libraries": {"torch": "2"},
    "device": "cpu",
    "device_name": "abacus",
    "precision": {},
    "threads": {},
}


def record(suite, metrics, *, fill="none", count=8, **changes):
    """A finished record of `suite` with planted metrics: numbers, (value, half), or a reason."""
    made = Record(
        key=f"{suite}{fill}{changes.get('protocol', '')}",
        status=changes.pop("status", "ok"),
        model=changes.pop("model", None) or model(fill=fill),
        fill=fill,
        suite=suite,
        protocol=changes.pop("protocol", None) or next(iter(SUITES[suite].protocols)),
        version="1",
        settings=changes.pop("settings", {}),
        seed=0,
        images=ImagesInfo(name="dead-leaves", count=count) if SUITES[suite].random else None,
        metrics={name: value(planted) for name, planted in metrics.items()},
        environment=ENVIRONMENT,
        created="2026-01-02T03:04:05+00:00",
        tables=changes.pop("tables", {}),
        notes=changes.pop("notes", []),
        reason=changes.pop("reason", None),
        error=changes.pop("error", None),
    )
    return made.attach((changes.pop("maps", {}), changes.pop("draws", {})))


def model(name="toy:model", *, fill="none", members=1, **source):
    layers = [{"name": "stem", "kernel": [3, 3], "padded_kernel": [4, 4], "stride": [2, 2]}]
    treatment = None if fill == "none" else {"fill": fill, "layers": layers, "left": {}}
    return ModelInfo(
        reference=name, source=source, spec=SPEC, target=GRID, members=members, treatment=treatment
    )


def value(planted):
    if isinstance(planted, str):
        return Value(value=None, reason=planted)
    if isinstance(planted, tuple):
        middle, half = planted
        return Value(value=middle, low=middle - half, high=middle + half)
    return Value(value=planted)


def tell(*records, fill="none", width=WIDTH):
    """The account of `records` as one line of text, whatever its line breaks."""
    by_fill = {}
    for one in records:
        by_fill.setdefault(one.fill, []).append(one)
    case = Case("toy:model", fill, by_fill.pop(fill), by_fill, SUITES)
    return " ".join(account(case, width=width).split())


def profile(smallest, at, shape=(4, 4)):
    """A phase profile whose smallest value is `smallest`, at the phase `at`."""
    values = np.full(shape, 1.1)
    values[at] = smallest
    return values


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


def layer(name, kernel=3, coverage=((2, 1), (2, 1)), stride=2):
    return {
        "name": name,
        "kernel": [kernel, kernel],
        "stride": [stride, stride],
        "padding_before": [1, 1],
        "padding_after": [0, 0],
        "input": [64, 64],
        "output": [32, 32],
        "coverage": coverage,
    }


def culprit(name, **numbers):
    return {"name": name, "kernel": [3, 3], "stride": [2, 2], **numbers}


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


# What must not be said


def test_a_suite_without_a_record_is_left_out():
    """No heading, no sentence and no apology for what was never measured."""
    text = tell(record("structure", {"weakest": 0.5}))
    for suite in (
        "erf:",
        "deadpixel:",
        "padding:",
        "perturbation:",
        "Kernel padding",
        "Not measured",
    ):
        assert suite not in text


@pytest.mark.parametrize("suite", SUITES)
def test_no_number_is_made_up_for_what_is_missing(suite):
    """A record of nothing but reasons: no sentence holds a digit, and every reason is told."""
    metrics = {m.name: f"reason of {m.name}" for m in SUITES[suite].metrics}
    fill = "box" if suite == "fidelity" else "none"
    text = tell(record(suite, metrics, fill=fill), fill=fill)
    for name in metrics:
        assert f"{name}: reason of {name}." in text
    told, _, _ = text.partition("Not measured")
    body = told.replace("(Kim et al. 2023)", "").replace("3 -> 4", "")
    assert not re.search(r"\d", body), body


@pytest.mark.parametrize("suite", SUITES)
def test_a_record_without_maps_and_tables_says_less_and_nothing_wrong(suite):
    """Uneven numbers whose tables and maps are lost never turn into a claim of evenness."""
    metrics = {
        m.name: (0.3, 0.01) if m.better == "higher" else (2.0, 0.01) for m in SUITES[suite].metrics
    }
    fill = "box" if suite == "fidelity" else "none"
    text = tell(record(suite, metrics, fill=fill, model=model(members=4)), fill=fill)
    assert "treated alike" not in text
    assert "reads all of its padding" not in text
    assert "None" not in text


def test_damaged_tables_cost_their_sentences_and_no_more():
    """Rows of strange shapes are passed over; the other sentences stand."""
    strange = [{"name": 3, "reduction": "x"}, {}, {"coverage": None}]
    names = ("layers", "culprits", "uneven", "even_sizes")
    tables = dict.fromkeys(names, strange)
    found = record("structure", {"weakest": 0.5, "ratio": 2.0, "imbalance": 0.3}, tables=tables)
    found.model = found.model.model_copy(update={"spec": {"height": "x"}, "target": {}})
    assert "expected to get 0.500" in tell(found)


HOSTILE = "a\x1b[31m{weakest}\x07\u202eb\nc|\ud800"


def stage(name):
    ends = dict.fromkeys(("constant_border_ratio", "constant_left_right", "constant_top_bottom"))
    return {"name": name, "height": name, "width": 1, **ends}


def hostile_account():
    tables = {
        "culprits": [
            culprit(HOSTILE, imbalance_padded=0, reduction=1),
        ],
        "uneven": [{"name": HOSTILE}],
        "layers": [layer(HOSTILE, 1, ((1, 0), (1, 0)))],
        "stages": [stage(HOSTILE)],
    }  # fmt: skip
    wild = model(HOSTILE, weights=HOSTILE)
    metrics = {
        "weakest": 0.5,
        "imbalance": 1.0,
        "by_period_2": 1.0,
        "uneven_layers": 1,
        HOSTILE: 1.0,
    }
    died = Failure(kind="died", message=HOSTILE)
    records = [
        record("structure", metrics, tables=tables, notes=[HOSTILE], model=wild),
        record("erf", {"erf_trf": HOSTILE}, model=wild, settings={"unit": [HOSTILE, 1]}),
        record("deadpixel", {}, status="skipped", reason=HOSTILE, model=wild),
        record("padding", {}, tables=tables, model=wild),
        record("fidelity", {}, status="failed", error=died, model=wild),
        record("perturbation", {"position_mean": 1.0}, settings={"epsilon": HOSTILE}, model=wild),
    ]  # fmt: skip
    return account(Case(HOSTILE, "none", records, {}, SUITES))


def test_no_control_character_of_a_model_or_record_gets_through():
    """Escapes, bells, direction marks, surrogates and line breaks are visible text everywhere."""
    text = hostile_account()
    for line in text.split("\n"):
        assert clean(line, 10**6) == line
    text.encode()
    assert text.count("\\x1b[31m") > 8


def test_braces_in_a_name_are_no_field_of_a_sentence():
    """A layer called {weakest} stays that, and is not replaced by a number."""
    assert "{weakest}" in hostile_account()


@pytest.mark.parametrize("width", [40, 72, 96])
def test_lines_keep_to_the_width(width):
    """Sentences fold, tables drop columns and say so; only the command stays whole."""
    tables = {"layers": [layer("some.layer.name")] * 3}
    case = Case(
        "toy:model",
        "none",
        [record("structure", {"weakest": 0.5, "ratio": 2.0}, tables=tables)],
        {},
        SUITES,
    )
    lines = account(case, width=width).split("\n")
    long = [line for line in lines if len(line) > width and "perimetry run" not in line]
    assert long == []
    assert any("no room for" in line for line in lines) is (width < 96)


# The rules themselves


WORDS = {
    suite: {m.name for m in SUITES[suite].metrics} | set(words)
    for suite, (_, words) in TOPICS.items()
}


@pytest.mark.parametrize("suite", TOPICS)
def test_every_field_of_a_rule_is_a_metric_or_a_word(suite):
    """A misspelt field would silence its sentence for ever."""
    fields = [
        match for topic in TOPICS[suite][0] for rule in topic for match in FIELD.finditer(rule.text)
    ]
    assert fields
    assert {match[1] for match in fields} <= WORDS[suite]
    assert {match[2] for match in fields} <= {None, "%", "doubt", "levels"}


def test_every_suite_has_rules_and_every_word_is_used():
    """Nothing is measured without being told, and no word is left over."""
    assert set(TOPICS) == set(SUITES)
    for module in (show_rules, show_rules_padding, show_rules_perturbation):
        topics = [t for t, words in TOPICS.values() if words is module.WORDS]
        used = {m[1] for t in topics for topic in t for r in topic for m in FIELD.finditer(r.text)}
        assert set(module.WORDS) <= used


def test_an_unknown_suite_is_told_number_by_number():
    """A record of a suite without rules shows its metrics as they are."""
    found = record("structure", {"shade": (0.25, 0.01)})
    found.suite = "colour"
    text = tell(found)
    assert "shade: 0.250 ± 0.010." in text


# Numbers


@pytest.mark.parametrize("exponent", range(-9, 9))
def test_numbers_keep_three_digits(exponent):
    """What is shown is within half of the third digit of what was held, at every size."""
    for digit in (1.0, 1.4, 1.797, 2.0, 3.333, 9.996):
        for sign in (1, -1):
            held = sign * digit * 10.0**exponent
            assert float(number(held)) == pytest.approx(held, rel=0.005)


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        (Value(value=0.5), "0.500"),
        (Value(value=180.0, low=146.0, high=214.0), "180 ± 34"),
        (Value(value=0.5, low=0.4, high=0.6), "0.50 ± 0.10"),
        (Value(value=0.5, low=0.4, high=0.7), "0.50 (0.40 to 0.70)"),
        (Value(value=0.0, low=0.0, high=0.12), "0.00 (0.00 to 0.12)"),
        (Value(value=16.0, low=16.0, high=16.0), "16"),
        (Value(value=0.5, low=None, high=0.7), "0.500"),
    ],
)
def test_intervals_are_shown_as_they_are(held, shown):
    """Even-sided ones by half their width, lopsided ones by both ends, unbounded ones not."""
    assert measured(held).replace("\u00a0", " ") == shown


# Folders, files, names


def perimetry(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path):
    """A store with two models, one of them treated too."""
    store = Store(tmp_path)
    for key, name in (("a" * 30, "timm:first@init"), ("b" * 30, "/some/where/second.onnx")):
        found = record("structure", {"weakest": 0.5}, model=model(name))
        store.put(found.model_copy(update={"key": key}))
    treated = record(
        "structure", {"weakest": 0.9}, fill="box", model=model("timm:first@init", fill="box")
    )
    store.put(treated)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("timm:first@init", "timm:first@init"),
        ("first@init", "timm:first@init"),
        ("first", "timm:first@init"),
        ("second.onnx", "/some/where/second.onnx"),
        ("second", "/some/where/second.onnx"),
    ],
)
def test_a_model_is_found_by_enough_of_its_name(folder, name, reference):
    """A reference, without its prefix, without its state, a file's name or its stem."""
    assert open_case(folder, name)[0].reference == reference


def test_an_unknown_model_is_answered_with_near_names(folder):
    """A misspelt name, and no name where there are several, are told what there is."""
    with pytest.raises(
        UnknownNameError, match="unknown model 'frist@init'; did you mean timm:first@init"
    ):
        open_case(folder, "frist@init")
    with pytest.raises(InputError, match=r"there are 2 models here; name one: /some/.*timm:first"):
        open_case(folder)


def test_an_unknown_variant_is_told_which_there_are(folder):
    """`zero` was never measured; none and box were."""
    assert open_case(folder, "first", fill="box")[0].fill == "box"
    with pytest.raises(UnknownNameError, match="'zero'; there is box and none"):
        open_case(folder, "first", fill="zero")


def test_places_without_records_say_what_was_expected(tmp_path):
    """A folder that is none, an empty store, and a file that is no record, each in one line."""
    with pytest.raises(InputError, match="neither a record's file nor a folder with records"):
        open_case(tmp_path)
    assert not (tmp_path / "records").exists()
    Store(tmp_path)
    with pytest.raises(InputError, match="has not written any yet"):
        open_case(tmp_path)
    wrong = tmp_path / "x.json"
    wrong.write_text("{}")
    with pytest.raises(StoreError, match=r"x\.json is no readable record"):
        open_case(wrong)
    done = perimetry("show", wrong)
    assert done.exit_code == 1
    assert done.output.startswith("perimetry: ")


def test_a_damaged_record_in_a_folder_is_named_and_left_out(folder):
    """The others are told; a folder of nothing but damage says what is wrong."""
    (folder / "records" / "broken.json").write_text("{")
    done = perimetry("show", folder, "first")
    assert done.exit_code == 0
    assert "left out: " in done.output
    assert "broken.json is no readable record" in done.output
    for path in (folder / "records").glob("*.json"):
        path.write_text("{")
    assert "no record in" in perimetry("show", folder, "first").output


def test_damaged_arrays_cost_the_maps_alone(folder):
    """A cut-off archive beside a record: its numbers are told, and a note says what is lost."""
    (path,) = (folder / "records").glob("timm-first-init.none*.json")
    path.with_suffix(".npz").write_bytes(b"PK\x03\x04 cut off")
    text = account(open_case(folder, "first")[0])
    assert "maps and draws cannot be read" in " ".join(text.split())
    assert "structure.weakest" in text


def test_one_record_is_told_from_its_file(folder):
    """A record's own file needs no name, and tells that record alone."""
    (path,) = (folder / "records").glob("*.box.*.json")
    case, _ = open_case(path)
    assert (case.reference, case.fill, len(case.every)) == ("timm:first@init", "box", 1)
    assert "There is no untreated record" in account(case)


def test_mixed_settings_are_refused_until_one_is_chosen(folder):
    """Two seeds of one suite: refused with `--where`; with it, the account is of that seed."""
    store = Store(folder)
    for seed in (0, 1):
        found = record(
            "deadpixel", {"weakest": (0.5, 0.1 + seed / 10)}, model=model("timm:first@init")
        )
        store.put(found.model_copy(update={"seed": seed, "key": f"{seed}" * 30}))
    with pytest.raises(MixedRecordsError, match="--where"):
        open_case(folder, "first")
    assert "0.50 ± 0.20" in account(open_case(folder, "first", where=["seed=1"])[0])
    with pytest.raises(InputError, match="is left by --where version=7"):
        open_case(folder, "second", where=["version=7"])


# End to end


RUN = ["--count", "4", "--members", "2", "--device", "cpu", "--seed", "3", "--size", "64"]


@pytest.fixture(scope="module")
def measured_folder(tmp_path_factory):
    """A real run over a tiny network, with settings off their defaults and an odd protocol."""
    out = tmp_path_factory.mktemp("show")
    done = perimetry(
        "run", "timm:test_resnet@init", "--suite", "structure,erf:luo2016,deadpixel",
        "--set", "erf.unit=0,1", "--out", out, *RUN,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return out


def test_the_command_that_is_told_makes_the_same_records(measured_folder):
    """Given again with the folder, it finds every record made: nothing that counts is left out."""
    case, _ = open_case(measured_folder)
    words = shlex.split(repeat(case.every, SUITES))
    words[words.index("OUT")] = str(measured_folder)
    done = perimetry(*words[1:], "--device", "cpu")
    assert f"records made: none; already there: {len(case.every)}" in done.output
    assert f"    {repeat(case.every, SUITES)}\n" in account(case)


def test_a_real_model_is_told_with_its_pictures(measured_folder, tmp_path):
    """Every suite has its heading, every map its picture, and no picture is of nothing."""
    done = perimetry("show", measured_folder, "test_resnet", "--maps", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    for heading in ("structure: ", "erf:luo2016: ", "deadpixel: ", "Kernel padding box", "Where"):
        assert f"\n{heading}" in done.output
    assert "unit (row 0, column 1)" in done.output
    case, _ = open_case(measured_folder)
    maps = {f"{r.fill}.{r.suite}-{r.protocol}.{name}" for r in case.every for name in r.maps}
    drawn = [
        p.name.partition("init.")[2].removesuffix(".png") for p in (tmp_path / "maps").glob("*")
    ]
    assert maps == {name for name in drawn if not name.endswith(".change")}
    changes = {name.removesuffix(".change") for name in drawn if name.endswith(".change")}
    assert changes == {name for name in maps if name.startswith("box") and "fidelity" not in name}


def test_nothing_said_of_a_real_model_contradicts_its_records(measured_folder):
    """Every number in the headline table is that of the record, to the digits shown."""
    case, _ = open_case(measured_folder)
    lines = [line.split() for line in account(case).split("\n")]
    for found in case.records:
        name = SUITES[found.suite].headline
        row = next(
            words
            for words in lines
            if words and words[0].split(".")[-1] == name and words[0].startswith(found.suite)
        )
        assert float(row[1]) == pytest.approx(found.metrics[name].value, rel=0.05, abs=0.05)
    assert json.loads(case.records[0].model_dump_json())["suite"] in account(case)


def test_a_finding_knows_which_way_is_uneven():
    """`weakest` above 1 and `imbalance` below 0 are noise, not unevenness; `ratio` either way."""
    found = Finding(
        record("deadpixel", {"weakest": (1.5, 0.1), "imbalance": (-0.5, 0.1)}), SUITES["deadpixel"]
    )
    assert found.verdict("weakest").value == "not shown to be uneven"
    assert found.verdict("imbalance").value == "not shown to be uneven"
    border = Finding(record("padding", {"border_ratio": (1.5, 0.1)}), SUITES["padding"])
    assert border.verdict("border_ratio").value == "shown to be uneven"
