"""Several models side by side: the table, its letters, the sentences, names, pairs on demand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import planted_boards as planted
import pytest
import toys
from small_nets import TOOLS, net
from torch import nn
from typer.testing import CliRunner

from perimetry import compare
from perimetry.adapters.errors import InputError, NotMeasuredError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.decision import decision
from perimetry.bench.comparison.matrix import matrix_of, significance_letters
from perimetry.bench.comparison.result import RowVerdict
from perimetry.bench.comparison.sides import short_side_names, side_of
from perimetry.bench.execution.settings import Settings
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.store import Store

VALUES = {"a": 0.4, "b": 0.41, "c": 0.9, "d": 0.91}


def flat(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def four():
    """Four planted models, two even ones and two uneven ones."""
    sides = [side_of([planted.record(name, value)]) for name, value in VALUES.items()]
    return compare(*sides, stages=False, known=toys.SUITES)


def found_in(four):
    matrix = matrix_of(four, four.groups[0])
    return {one.topic: one.text for one in decision(four, matrix)}, matrix


def test_models_with_a_letter_in_common_are_those_that_are_not_apart():
    """For every pattern of differences among four models, and each model with a letter."""
    pairs = list(itertools.combinations(range(4), 2))
    for bits in range(1, 2 ** len(pairs)):
        apart = {pair for k, pair in enumerate(pairs) if bits >> k & 1}
        letters = significance_letters(4, [0, 1, 2, 3], apart)
        assert all(letters)
        for i, j in pairs:
            assert bool(set(letters[i]) & set(letters[j])) is ((i, j) not in apart)


def test_models_without_a_value_have_no_letter():
    """Only models with a value are distinguished, and a row without differences has no letters."""
    assert significance_letters(3, [0, 2], {(0, 2)}) == ("a", "", "b")
    assert significance_letters(3, [0, 1, 2], set()) == ()


def test_the_table_has_a_column_for_each_model_and_letters_where_they_differ(four):
    """`a` and `b` share a letter, `c` and `d` another one."""
    _, matrix = found_in(four)
    row = next(row for row in matrix.metrics if row.name == "deadpixel.weakest")
    assert row.letters == ("a", "a", "b", "b")
    assert [cell.split()[0] for cell in row.shown] == ["0.400", "0.410", "0.900", "0.910"]
    heads = [line.split() for line in four.text().splitlines() if set(line.split()) <= {*VALUES}]
    assert [name for head in heads for name in head] == list(VALUES)


def test_the_sentences_name_what_is_shown_and_nothing_else(four):
    """`c` and `d` are more even than `a` and `b`; neither two are ranked."""
    said, _ = found_in(four)
    words = [text for text in said.values() if "deadpixel.weakest" in text]
    relation = next(text for text in words if "than" in text)
    assert "c (0.900 ± 0.010) and d (0.910 ± 0.010) are more even than" in relation
    assert "a (0.400 ± 0.010) and b (0.410 ± 0.010)" in relation
    assert "deadpixel.weakest of a and b (about " in said["Too few samples to say"]
    assert (
        "main metrics 6: 4 differ, 0 are alike, 2 not shown to differ, 0 not comparable"
        in said["Comparisons"]
    )


def test_samples_that_are_the_same_in_both_models_are_not_called_too_few():
    """No number of samples like these would show a difference: none was measured."""
    sides = [side_of([planted.record(name, 0.4, half=h)]) for name, h in (("a", 0.3), ("b", 0.31))]
    said, _ = found_in(compare(*sides, stages=False, known=toys.SUITES))
    assert "Too few samples to say" not in said


def test_what_was_not_measured_is_said_with_the_suite_that_measures_it(tmp_path):
    """Topics of suites that no record has are named; dead regions that nobody looked for too."""
    store = Store(tmp_path)
    for name, value in VALUES.items():
        store.put(planted.record(name, value))
    text = flat(compare(tmp_path, stages=False).text())
    assert "Border: not measured (--suite padding)." in text
    assert "Dead regions: a, b, c and d were not looked at." in text


def test_pairs_are_shown_on_demand(four):
    """None of four models by default; one by enough of its names in either order, or all."""
    assert "against" not in four.text().partition("side by side")[2].partition("outputs")[0]
    assert "d against a" not in four.text()
    pair = four.pair("d", "a")
    assert (pair.first.name, pair.second.name) == ("a", "d")
    assert "d against a" in four.text(pairs=[pair])
    assert four.text(pairs=four.pairs).count("They differ in 1 of 1 metrics") == 4
    with pytest.raises(UnknownNameError, match="'e' is the name of 0 models"):
        four.pair("a", "e")


def test_a_wide_table_is_printed_in_parts_and_loses_no_column():
    """Twelve models with long names on 80 columns: a legend, and every value."""
    names = [f"vendors/{'x' * 30}-{k}/network.onnx" for k in range(12)]
    sides = [side_of([planted.record(n, 0.3 + k / 50)]) for k, n in enumerate(names)]
    text = compare(*sides, stages=False, known=toys.SUITES).text(width=80)
    assert all(f"({k}) " in flat(text) for k in range(1, 13))
    assert all(f"{0.3 + k / 50:.3f} ± 0.010" in text for k in range(12))
    table = [line for line in text.splitlines() if "weakest" in line and "±" in line]
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize(
    ("names", "folders", "wanted"),
    [
        (["a/m.onnx", "b/m.onnx"], ["", ""], ["a/m.onnx", "b/m.onnx"]),
        (["x/a.onnx", "x/b.onnx"], ["", ""], ["a.onnx", "b.onnx"]),
        (["v/a/1/m.onnx", "v/b/1/m.onnx"], ["", ""], ["a/.../m.onnx", "b/.../m.onnx"]),
        (["m.onnx", "b/m.onnx"], ["", ""], ["m.onnx", "b/m.onnx"]),
        (["/r/a/m.onnx", "/r/b/m.onnx", "/r/c.onnx"], [""] * 3, ["a/m.onnx", "b/m.onnx", "c.onnx"]),
        (
            ["timm:x@init"] * 2,
            ["runs/may", "runs/june"],
            ["timm:x@init in may", "timm:x@init in june"],
        ),
        (["a/m.onnx"] * 2, ["", ""], ["m.onnx (no. 1)", "m.onnx (no. 2)"]),
        (["timm:a@w/1.pth", "timm:a@w/2.pth"], ["", ""], ["timm:a@w/1.pth", "timm:a@w/2.pth"]),
    ],
)
def test_files_of_one_name_are_told_apart_by_what_differs_in_their_paths(names, folders, wanted):
    """Short names are distinct, and say where paths or folders of records differ."""
    assert short_side_names(names, folders, {}) == wanted


def test_the_user_s_own_names_are_kept(tmp_path):
    """`--name A=THING` names an argument, or adds one; in Python `names`."""
    for folder, value in (("one", 0.4), ("two", 0.9)):
        Store(tmp_path / folder).put(planted.record("m.onnx", value))
    one, two = tmp_path / "one", tmp_path / "two"

    def shown(*words, code=0):
        result = CliRunner().invoke(app, ["compare", *words, "--no-stages", "--format", "json"])
        assert result.exit_code == code, result.output
        return result.output

    found = json.loads(shown(f"{one}:m.onnx", f"{two}:m.onnx", "--name", f"new={two}:m.onnx"))
    assert [model["name"] for model in found["models"]] == ["m.onnx", "new"]
    found = json.loads(shown("--name", f"old={one}:m.onnx", "--name", f"new={two}:m.onnx"))
    assert [model["name"] for model in found["models"]] == ["old", "new"]
    assert "NAME=A" in shown("--name", "old", code=1)
    unnamed = compare(f"{one}:m.onnx", f"{two}:m.onnx", stages=False, known=toys.SUITES)
    assert [side.name for side in unnamed.groups[0]] == ["m.onnx in one", "m.onnx in two"]


def test_a_name_for_a_folder_of_several_models_is_refused(tmp_path):
    """Which of them is meant is not known."""
    for name in "ab":
        Store(tmp_path).put(planted.record(name, 0.5))
    with pytest.raises(InputError, match="2 models"):
        compare("x", names={"vendor": tmp_path})


def test_the_command_shows_one_pair_or_all(tmp_path):
    """`--pair A B` and `--pairs` add sections below the table of all models."""
    for name, value in VALUES.items():
        Store(tmp_path).put(planted.record(name, value))

    def shown(*words):
        result = CliRunner().invoke(app, ["compare", str(tmp_path), "--no-stages", *words])
        assert result.exit_code == 0, result.output
        return result.output

    assert "c against a" not in shown()
    assert "c against a" in shown("--pair", "c", "a")
    assert shown("--pairs").count(" against ") >= 6
    assert "## `c` against `a`" in shown("--pairs", "--format", "md")


def test_a_model_that_cannot_be_measured_costs_no_other_its_column(tmp_path):
    """Of three modules one breaks: it is named first, and the two others are compared."""
    good, other = net(), net(1)
    broken = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(7, 5)).eval()
    settings = {"suites": ("structure",), "settings": Settings(count=4), "run": TOOLS}
    found = compare(good, broken, other, **settings, stages=False, names={"bad": broken})
    text = flat(found.text())
    assert "- Not measured: bad: " in text
    assert len(found.pairs[1].rows) > 10
    matrix = matrix_of(found, found.groups[0])
    row = next(row for row in matrix.metrics if row.name == "structure.weakest")
    assert row.cells[1] == "n/a" != row.cells[0]
    assert "3 pairs, 2 of which could not be measured, main metrics" in text
    count = len(found.pairs[1].rows)
    assert [len(pair.rows) for pair in found.pairs] == [count] * 3
    assert f"all metrics {3 * count}: " in text
    missing = [pair.of(RowVerdict.missing) == list(pair.rows) for pair in found.pairs]
    assert missing == [True, False, True]
    assert not any(".." in one.text for one in decision(found, matrix))
    with pytest.raises(NotMeasuredError):
        compare(good, broken, **settings, stages=False)


def test_outputs_of_another_form_are_described_not_counted():
    """Ten classes against seven: the shapes are named, no share is made of them."""
    settings = {"suites": ("structure",), "settings": Settings(count=4), "run": TOOLS}
    first, other = net(), net()
    other[-1] = nn.Linear(other[-1].in_features, 7).eval()
    found = compare(first, other, **settings)
    text, matrix = flat(found.text()), found_in(found)[1]
    assert "outputs of another kind than those of" in text
    assert "1 x 7" in text
    assert "inf" not in text
    row = next(row for row in matrix.rows if row.name == "outputs against the first")
    assert row.cells[1] == "unlike"


def test_differences_that_are_certain_but_small_rank_nothing():
    """Exact values 0.7 % apart differ and have letters, but none is called more even."""
    values = {"a": 0.576, "b": 0.580}
    sides = [side_of([planted.record(n, v, suite="structure")]) for n, v in values.items()]
    said, matrix = found_in(compare(*sides, stages=False, known=toys.SUITES))
    (row,) = [row for row in matrix.metrics if row.name == "structure.weakest"]
    assert row.letters == ("a", "b")
    assert not any("than" in text for topic, text in said.items() if topic != "Comparisons")
    assert any("the differences that are shown are below" in text for text in said.values())


def test_a_model_against_itself_leaves_nothing_open(tmp_path):
    """Where all values and intervals are equal bit for bit, none of them is left open."""
    for folder in ("one", "two"):
        for name, value in VALUES.items():
            Store(tmp_path / folder).put(planted.record(name, value))
    found = compare(tmp_path / "one", tmp_path / "two", stages=False)
    assert {row.verdict for pair in found.pairs for row in pair.rows} == {RowVerdict.alike}
    text = found.text()
    assert text.count("bit for bit") == 4
    assert "metrics of" in text
    assert "no room" not in text.partition("against")[0]


def test_outputs_that_could_not_be_compared_have_their_reason(four):
    """A packed set without its images is not told to use an option that is on already."""
    assert "not compared (--stages)" in found_in(four)[0]["Fidelity"]
    pairs = tuple(replace(pair, stages="a: no photographs here") for pair in four.pairs)
    text = found_in(replace(four, pairs=pairs))[0]["Fidelity"]
    assert "not compared: a: no photographs here" in text
    assert "--stages" not in text


def test_without_an_interval_nothing_is_said_of_corrected_intervals():
    """Of 0 differences there is no chance that one is missed."""
    sides = [side_of([planted.record(name, value, half=None)]) for name, value in VALUES.items()]
    found = compare(*sides, stages=False, known=toys.SUITES)
    assert "Bonferroni" not in found.text()
    assert "No value here has an interval" in flat(found.text())


def test_packed_records_have_no_maps_to_draw(tmp_path):
    """`--maps` says so and ends with an error, in `compare` and in `show`."""
    for name, value in VALUES.items():
        Store(tmp_path / "run").put(planted.record(name, value, maps=planted.field(value)))
    pack_records(Store(tmp_path / "run"), tmp_path / "set.jsonl")
    pack = str(tmp_path / "set.jsonl")
    for words in (["compare", f"{pack}:a", f"{pack}:b", "--no-stages"], ["show", pack, "a"]):
        found = CliRunner().invoke(app, [*words, "--maps", str(tmp_path / "maps")])
        assert found.exit_code == 1, found.output
        assert "packed files leave maps out" in found.stderr
