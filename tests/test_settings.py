"""Settings of suites: from text to fields, and what is said about those that cannot be."""

import re
from dataclasses import dataclass, fields

import pytest

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.comparison.compare import compare
from perimetry.bench.comparison.placement import place
from perimetry.bench.execution.audit import audit
from perimetry.bench.execution.rerun import RerunFields, RerunOptions
from perimetry.bench.execution.settings import Settings, SettingsFields
from perimetry.bench.pad_file import pad_file
from perimetry.bench.regression.check import check
from perimetry.bench.regression.reproduce import reproduce
from perimetry.suites.erf.suite import Erf
from perimetry.suites.registry import SUITES
from perimetry.suites.settings import configure, parse_options, settings_of


def test_text_becomes_what_the_field_wants_and_the_registry_stays_as_it_is():
    """Texts become values of the fields' types in new suites; the registry is unchanged."""
    suites = configure(SUITES, parse_options(["erf.unit=3,4", "erf.grid=2"]))
    assert suites["erf"] == Erf(unit=(3, 4), grid=2)
    assert SUITES["erf"] == Erf()
    assert configure(suites, {"erf": {"unit": "none"}})["erf"] == Erf(grid=2)


def test_text_of_one_item_or_none_is_a_list_where_the_field_is_one():
    """As `--set padding.exchange=reflect`, and `--set padding.exchange=` for no mode at all."""
    for text, modes in (("reflect", ("reflect",)), ("", ()), ("reflect,circular", None)):
        suite = configure(SUITES, {"padding": {"exchange": text}})["padding"]
        assert suite.exchange == (modes if modes is not None else ("reflect", "circular"))


def test_values_need_not_be_text():
    """A value of the field's type is taken as it is."""
    assert configure(SUITES, {"erf": {"unit": (1, 2)}})["erf"] == Erf(unit=(1, 2))


def test_settings_are_named_with_their_values():
    """The settings of a suite are its fields with their values, for each protocol."""
    own = {"unit": None, "grid": 3}
    assert settings_of(Erf(grid=3)) == {**own, "block": None, "block_images": 4}
    assert settings_of(Erf(grid=3), "blocks") == settings_of(Erf(grid=3))


def test_a_setting_of_one_protocol_is_no_setting_of_the_others():
    """So that a new protocol's settings change no key of a record that never looked at them."""
    assert settings_of(Erf(grid=3), "energy") == {"unit": None, "grid": 3}


@dataclass(frozen=True)
class NoSettings:
    pass


def test_a_suite_without_settings_has_none():
    """A suite without fields has an empty dictionary of settings."""
    assert settings_of(NoSettings()) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("erf.units=3", "unknown setting of erf 'units'; did you mean unit"),
        ("deadpixel.foo=3", "unknown setting 'foo' of deadpixel, which has no settings"),
        ("erff.unit=3", "unknown suite 'erff'; did you mean erf"),
    ],
)
def test_unknown_names_are_met_with_near_ones(text, message):
    """A misspelt suite or setting is an UnknownNameError with the nearest name."""
    with pytest.raises(UnknownNameError, match=message):
        configure(SUITES, parse_options([text]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("erf.grid=many", r"erf.grid = 'many' cannot be used .*expected int, default 0"),
        ("erf.unit=3", r"erf.unit = '3' cannot be used .*expected tuple\[int, int\]"),
        ("erf.grid=-1", r"erf.grid = -1; expected 0 \(no grid\)"),
        ("erf", r"expected SUITE.FIELD=VALUE, such as erf.unit=3,3"),
        ("erf.unit", r"expected SUITE.FIELD=VALUE"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_with_what_can(text, message):
    """A value that does not fit its field is an InputError with what was expected."""
    with pytest.raises(InputError, match=message):
        configure(SUITES, parse_options([text]))


@pytest.mark.parametrize(
    ("options", "keywords"), [(Settings, SettingsFields), (RerunOptions, RerunFields)]
)
def test_keyword_arguments_are_the_fields_of_the_options(options, keywords):
    """`audit`, `compare`, `check` and `reproduce` type their keywords as the dataclass has them."""
    typed = {name: hint.__forward_arg__ for name, hint in keywords.__annotations__.items()}
    assert typed == {field.name: field.type for field in fields(options)}


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (audit, ("timm:test_resnet@init",)),
        (compare, ("timm:test_resnet@init", "timm:test_vit@init")),
        (check, ("baseline",)),
        (reproduce, ("records",)),
        (place, ("timm:test_resnet@init", "records")),
        (pad_file, ("model.onnx", "padded.onnx")),
    ],
)
def test_an_unknown_keyword_is_refused_with_those_that_there_are(function, arguments):
    """A misspelt keyword of a public function names the function, a near one and all others."""
    keyword = "input" if function in (audit, pad_file) else "wher"
    with pytest.raises(UnknownNameError) as caught:
        function(*arguments, **{keyword: ()})
    said = str(caught.value)
    assert f"option of {function.__name__} '{keyword}'" in said
    assert {"inputs", "images"} <= set(re.findall(r"\w+", said))


def test_a_setting_of_an_audit_is_told_its_place():
    """`compare(count=4)` is told `settings`, and `check(count=4)` that the records have it."""
    with pytest.raises(UnknownNameError, match=r"settings=Settings\(count="):
        compare("timm:test_resnet@init", count=4)
    with pytest.raises(UnknownNameError, match="stored records"):
        check("baseline", count=4)


def test_every_setting_of_a_suite_is_explained():
    """`perimetry list suites` has a text for each field, and none for a field that is not there."""
    for suite in SUITES.values():
        assert set(suite.setting_help) == set(settings_of(suite))
        assert all(suite.setting_help.values())


def test_every_suite_says_what_it_asks_and_what_it_is_about():
    """The heading of its section in a report, and its topic in a comparison: neither is a name."""
    for name, suite in SUITES.items():
        assert suite.question, name
        assert suite.topic, name
        assert suite.topic[0].isupper(), name
