"""Comparison: paired differences, simultaneous intervals, refusals, where models part, words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from scipy.stats import ttest_rel
from small_nets import NAME, TOOLS, baseline, net, opened, perturbed
from typer.testing import CliRunner

from perimetry import audit, compare, load_records
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.audited import MissingAudit
from perimetry.bench.comparison.decision import counts_of
from perimetry.bench.comparison.html import draw_differences
from perimetry.bench.comparison.result import RowVerdict
from perimetry.bench.comparison.sides import side_of
from perimetry.bench.comparison.sources import open_sides
from perimetry.bench.comparison.text import pair_heading, shown_rows
from perimetry.bench.comparison.verdict import verdict
from perimetry.bench.execution.rerun import RerunOptions
from perimetry.bench.execution.settings import Settings
from perimetry.bench.records.parts import Value
from perimetry.bench.records.store import Store
from perimetry.bench.statistics.significance import evidence
from perimetry.suites.measuring.bootstrap import bootstrap
from perimetry.suites.padding.results import what_can_hide

FEW = Settings(count=8, draws=100)
QUICK = {"settings": FEW, "suites": ("structure", "deadpixel"), "run": TOOLS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records of the small network, as it is and with box padding."""
    return baseline(tmp_path_factory.mktemp("set"), fills=("none", "box"))


def rows(found, place=0):
    return {row.column: row for row in found.pairs[place].rows}


# ------------------------------------------------------------------ statistics


def planted(values, seed=0):
    """A record of one metric, the mean of `values` (samples,)."""
    (record,) = audit(opened(net()), ("deadpixel",), count=len(values), draws=4000, device="cpu")
    resamples = bootstrap(len(values), 4000, seed)
    estimate = resamples.estimate(resamples.weights @ values)
    record.metrics = {"weakest": Value.of(estimate)}
    return record.attach(({}, {"weakest": estimate.draws}))


def test_p_and_effect_of_a_mean_are_those_of_the_paired_t_test():
    """Bootstrapped from draws alone, t, p and Cohen's d_z come out as from the values."""
    rng = np.random.default_rng(3)
    a = rng.normal(1.0, 0.5, 16)
    b = a + rng.normal(0.1, 0.15, 16)
    found = evidence(planted(a), planted(b), "weakest")
    wanted = ttest_rel(b, a)
    assert found.difference.method == "paired"
    assert found.p == pytest.approx(wanted.pvalue, rel=0.15)
    assert found.effect == pytest.approx((b - a).mean() / (b - a).std(ddof=1), rel=0.05)
    half = student.ppf(0.975, 15) * (b - a).std(ddof=1) / 4
    assert found.difference.high - found.difference.value == pytest.approx(half, rel=0.05)


def test_p_below_five_percent_says_that_the_interval_leaves_out_zero():
    """An uncorrected p below 0.05 and an interval without 0 always occur together."""
    rng = np.random.default_rng(5)
    a = planted(rng.normal(1.0, 0.5, 16))
    for shift in np.linspace(0, 0.6, 13):
        found = evidence(a, planted(rng.normal(1.0 + shift, 0.5, 16)), "weakest")
        assert (found.p < 0.05) == found.difference.separated


def test_rounding_is_no_difference_however_significant():
    """A shift by 1e-7 on every image has a p-value near 0, and is not shown; by 1e-3 it is."""
    values = np.random.default_rng(0).normal(1.0, 0.5, 16)
    noise = np.random.default_rng(1).normal(0, 1e-9, 16)
    small, large = (
        evidence(planted(values), planted(values + s + noise), "weakest") for s in (1e-7, 1e-3)
    )
    assert small.p < 1e-6
    assert (small.shown, large.shown) == (False, True)


@pytest.fixture(scope="module")
def three():
    """Three networks, every two of which are a pair."""
    return compare(opened(net()), opened(perturbed(0, 0.3)), opened(net(3)), **QUICK)


def test_all_pairs_are_compared_and_the_intervals_hold_for_all_at_once(three):
    """Bonferroni by its definition, for the main metrics of all pairs and for the others."""
    assert len(three.pairs) == 3
    every = [row for pair in three.pairs for row in pair.rows if row.evidence is not None]
    for leading in (True, False):
        tested = [r for r in every if r.leading is leading and r.evidence.p is not None]
        assert three.tests[0 if leading else 1] == len(tested) > 5
        for row in tested:
            found, gap = row.evidence, row.evidence.difference
            error = (gap.high - gap.low) / 2 / student.ppf(0.975, 7)
            half = error * student.ppf(1 - 0.05 / len(tested) / 2, 7) + found.rounding
            assert found.high == pytest.approx(gap.value + half)
            assert found.low == pytest.approx(gap.value - half)
            p = 2 * student.sf(abs(gap.value / error), 7) if error else float(gap.value == 0)
            assert found.adjusted == pytest.approx(min(1, len(tested) * p), abs=1e-12)


def test_an_interval_leaves_out_zero_exactly_where_the_verdict_says_that_two_differ(three, folder):
    """For every metric of every pair, exact ones too; each has one verdict, and counts add up."""
    others = compare(f"{folder}:{NAME}", f"{folder}:{NAME}+box", stages=False)
    for pair in (*three.pairs, *others.pairs):
        for row in pair.rows:
            if row.evidence is not None and row.evidence.low is not None:
                outside = row.evidence.low > 0 or row.evidence.high < 0
                assert (row.verdict is RowVerdict.differs) == outside
        assert sum(len(pair.of(verdict)) for verdict in RowVerdict) == len(pair.rows)
        assert f"Metrics, {len(pair.rows)}: {len(pair.differing)} differ, " in flat(
            others.text() if pair in others.pairs else three.text(pairs=[pair])
        )
    assert rows(three)["structure.weakest"].verdict is RowVerdict.alike


@pytest.mark.parametrize(
    ("before", "after", "differ"),
    [
        (0.4441, 0.44412, False),
        (0.4441, 0.452, True),
        (435.0, 436.0, True),
        (435.0, 435.0, False),
        (0.10045, 0.09996, False),  # printed as 0.100 and 0.1000
        (0.1004, 0.1006, True),
        (3.452e-6, 3.449e-6, False),
    ],
)
def test_exact_values_differ_beyond_rounding_only(before, after, differ):
    """Those that print alike or differ by less than a thousandth are alike, but for whole ones."""
    records = []
    for value in (before, after):
        (record,) = audit(opened(net()), ("structure",), device="cpu")
        record.metrics = {"weakest": Value(value=value)}
        records.append(record)
    row = rows(compare(*([r] for r in records), stages=False))["structure.weakest"]
    assert row.shown is differ
    assert (row.verdict is RowVerdict.alike) is not differ


@pytest.mark.parametrize(
    ("suite", "name", "values", "said"),
    [
        ("structure", "weakest", (0.5, 0.9), "(0.500 to 0.900), nearer to even."),
        ("halo", "smallest_overlap", (20.0, 32.0), "(20 to 32)."),
    ],
)
def test_only_metrics_with_a_value_if_even_are_called_nearer_to_it(suite, name, values, said):
    """That tiles need a larger overlap says nothing about evenness."""
    records = []
    for value in values:
        (record,) = audit(opened(net()), ("structure",), device="cpu")
        metrics = {name: Value(value=value)}
        records.append(record.model_copy(update={"suite": suite, "metrics": metrics}))
    assert said in flat(compare(*([r] for r in records), stages=False).text())


def test_equal_samples_in_both_are_not_called_alike():
    """All of 8 images in both: the shares' own intervals say how little that is."""
    records = []
    for _ in range(2):
        (record,) = audit(opened(net()), ("deadpixel",), count=8, draws=50, device="cpu")
        estimate = bootstrap(8, 50, 0).share(np.ones(8))
        record.metrics = {"weakest": Value.of(estimate)}
        records.append(record.attach(({}, {"weakest": estimate.draws})))
    found = evidence(*records, "weakest")
    assert (found.difference.value, found.difference.method) == (0, "independent")
    assert found.high > 0.3
    row = rows(compare(*([r] for r in records), stages=False))["deadpixel.weakest"]
    assert row.verdict is RowVerdict.unknown


def test_the_number_of_images_that_would_tell_shows_the_difference(three):
    """With n (half / difference)^2 samples of the same spread the interval ends at 0."""
    rng = np.random.default_rng(5)
    a = planted(rng.normal(1.0, 0.5, 16))
    found = evidence(a, planted(rng.normal(1.02, 0.5, 16)), "weakest")
    assert not found.shown
    count = found.samples_to_show()
    assert found.half * np.sqrt(16 / count) == pytest.approx(abs(found.difference.value))
    open_ = [r for p in three.pairs for r in p.rows if r.verdict is RowVerdict.unknown]
    assert open_
    assert "Too few samples to say: with 8 images, " in flat(three.text())


def test_what_scales_with_the_output_never_leads():
    """Doubling a network changes only such metrics: they are named last, and said to scale."""
    double = net()
    with torch.no_grad():
        for parameter in double[6].parameters():
            parameter *= 2
        double[7].running_mean *= 2
    pair = compare(opened(net()), opened(double), **QUICK).pairs[0]
    assert {row.column for row in pair.differing} == {"deadpixel.rawL1", "deadpixel.rawL2"}
    assert "all grow with the scale of the output" in verdict(pair, frozenset())[0]
    louder = compare(opened(net()), opened(dilated_and_doubled()), **QUICK).pairs[0]
    said = " ".join(verdict(louder, frozenset({"deadpixel.weakest"})))
    assert "deadpixel.raw" not in said


def dilated_and_doubled():
    """A network that differs in what it reads, and of which the output is doubled."""
    module = net()
    module[3].dilation, module[3].padding = (2, 2), (2, 2)
    with torch.no_grad():
        for parameter in module[6].parameters():
            parameter *= 2
        module[7].running_mean *= 2
    return module


# ------------------------------------------------------------------ what is compared


def test_a_model_and_itself_are_equal_bit_for_bit(folder):
    """A stored run against the same weights audited now, under the settings of the run."""
    found = compare(f"{folder}:{NAME}", opened(net()), run=TOOLS)
    assert {row.column.partition(".")[0] for row in found.pairs[0].rows} == {
        "structure", "erf", "deadpixel",
    }  # fmt: skip
    assert found.pairs[0].differing == []
    assert "equal, bit for bit" in found.text()
    assert not found.pairs[0].gaps


def test_the_variants_of_one_model_compare_within_a_folder(folder):
    """`+box` names the kernel-padded variant; its odd kernels became even, which is said."""
    found = compare(f"{folder}:{NAME}", f"{folder}:{NAME}+box", stages=False)
    weakest = rows(found)["structure.weakest"]
    assert weakest.shown
    assert weakest.evidence.difference.value > 0.3
    assert "nearer to even" in flat(found.text())
    assert "only net+box has fidelity:forward" in flat(found.text())


def test_two_runs_pair_by_model_and_kernel_padding(folder, tmp_path):
    """Bare folders: every variant that both hold, named with its folder."""
    other = baseline(tmp_path / "other", perturbed(0, 0.5), fills=("none", "box"))
    found = compare(folder, other, stages=False)
    assert [(p.first.fill, p.second.fill) for p in found.pairs] == [
        ("box", "box"),
        ("none", "none"),
    ]
    assert str(other) in found.pairs[0].second.name
    third = Store(tmp_path / "third")
    for record in audit(net(), ("structure",), device="cpu", size=None, name="another"):
        third.put(record)
    with pytest.raises(InputError, match="DIR:MODEL"):
        compare(folder, third.root)


def test_a_folder_before_model_names_is_where_they_are_looked_up(folder):
    """`compare DIR A B`: A is stored, and what DIR lacks is audited under its settings."""
    found = compare(folder, NAME, f"{NAME}+box", stages=False)
    assert [p.second.fill for p in found.pairs] == ["box"]
    wanted = MissingAudit(options=RerunOptions(run=TOOLS))
    with pytest.raises(UnknownNameError, match=r"not of a known form.*no folder of that name"):
        open_sides([str(folder), NAME, "nett"], wanted)


def test_records_and_modules_are_sides_too():
    """The records of `audit` and a module can be compared as they are."""
    records = audit(opened(net()), ("structure",), device="cpu")
    found = compare(records, net().requires_grad_(False), run=TOOLS, stages=False, force=True)
    assert found.pairs[0].rows
    with pytest.raises(InputError, match="2 model variants were given as one side"):
        side_of([*records, *audit(opened(net()), ("structure",), ("box",), device="cpu")])


@pytest.mark.parametrize("suite", ["deadpixel", "padding"])
def test_a_dead_region_is_told_where_the_other_model_was_not_looked_at(folder, suite):
    """A suite that one side lacks, or failed in, has found what it has found in the other."""
    records = [r for r in load_records(folder) if r.fill == "none"]
    structure = next(r for r in records if r.suite == "structure")
    named = structure.model.model_copy(update={"reference": "other"})
    other = structure.model_copy(update={"model": named})
    hole = {"channel": "all", "pixels": 6, "top": 2, "left": 3, "bottom": 4, "right": 6}
    tables = {
        "deadpixel": {"dead_regions": [hole]},
        "padding": {"silent_regions": [{"channel": "all", "pixels": 6, "box": [2, 3, 4, 6]}]},
    }[suite]
    looked = structure.model_copy(update={"suite": suite, "metrics": {}, "tables": tables})
    failed = looked.model_copy(update={"status": "failed", "tables": {}, "model": named})
    for rest in ([other], [other, failed]):
        found = compare([structure, looked], rest, run=TOOLS, stages=False, force=True)
        text = flat(found.text())
        assert "dead: 6 pixels in rows 2 to 3, columns 3 to 5" in text
        assert "other was not looked at" in text
    empty = looked.model_copy(update={"tables": {name: [] for name in tables}})
    text = flat(compare([structure, empty], [other], run=TOOLS, stages=False, force=True).text())
    assert "has none; other was not looked at" in text
    note = "12 pixels are of phases that are dead as a whole; they are counted by dead@0.01"
    if suite == "padding":
        note = what_can_hide(5, 3)
    hidden = empty.model_copy(update={"notes": [note]})
    text = flat(compare([structure, hidden], [other], run=TOOLS, stages=False, force=True).text())
    assert {
        "deadpixel": "has none (12 pixels are of phases that are dead as a whole); other was not",
        "padding": "has none (holes of up to 8 pixels along their shorter side and holes of any "
        "size in one colour channel alone can hide); other was not",
    }[suite] in text


def test_one_model_alone_is_no_comparison(folder):
    """Comparing fewer than two models is an InputError."""
    with pytest.raises(InputError, match="expected at least two"):
        compare(f"{folder}:{NAME}")


def test_an_unknown_model_of_a_folder_offers_near_names(folder):
    """A misspelt model gets near names, and an absent kernel padding the recorded ones."""
    with pytest.raises(UnknownNameError, match="did you mean net"):
        compare(f"{folder}:nett", NAME)
    with pytest.raises(
        UnknownNameError, match="kernel padding 'zero'; those that it has: box, none"
    ):
        compare(f"{folder}:{NAME}+zero", f"{folder}:{NAME}")


def test_an_empty_folder_says_what_was_expected(tmp_path):
    """A folder without records is an InputError that says what the folder must contain."""
    with pytest.raises(InputError, match="contains no records; expected a folder"):
        compare(tmp_path, tmp_path)


def test_changed_weights_are_not_taken_for_the_stored_model(folder):
    """A module under a stored name has other tensors: no stage is claimed for the record."""
    records = [r for r in Store(folder).records() if r.fill == "none"]
    side = replace(side_of(records), thing=perturbed(0))
    found = compare(side, opened(net()), run=TOOLS)
    assert "weights" in found.pairs[0].stages


# ------------------------------------------------------------------ words and forms


def flat(text):
    return " ".join(text.split())


def test_nothing_shown_is_no_proof_of_equality():
    """Where no metric differs, the verdict says how large a difference could still hide."""
    found = compare(opened(net()), opened(perturbed(6, 0.02)), **QUICK)
    text = flat(found.text())
    assert "they may still differ in deadpixel.weakest" in text


def test_metrics_that_are_not_listed_are_counted_by_their_verdicts(folder):
    """What is alike or not comparable is not called not shown to differ."""
    found = compare(f"{folder}:{NAME}", f"{folder}:{NAME}+box", stages=False)
    (pair,) = found.pairs
    listed = {row.column for row in shown_rows(pair, found.headlines, every=False)}
    hidden = [row for row in pair.rows if row.column not in listed]
    assert hidden
    assert f"Metrics (not listed are {counts_of(hidden)})" in flat(found.text())
    assert "not listed" not in found.text(every=True)


def test_the_table_gives_difference_interval_effect_and_corrected_p(folder):
    """Every number of the flat form is the one the statistics give, and the text names Holm."""
    found = compare(f"{folder}:{NAME}", f"{folder}:{NAME}+box", stages=False)
    cells = {cell["metric"]: cell for cell in found.cells()}
    cell, row = cells["deadpixel.relL1"], rows(found)["deadpixel.relL1"]
    assert cell["difference"] == pytest.approx(cell["second.value"] - cell["first.value"])
    assert (cell["p.corrected"], cell["method"]) == (row.evidence.adjusted, "paired")
    assert (cell["low"], cell["high"]) == (row.evidence.low, row.evidence.high)
    assert "of {} differences of main metrics, and of {}".format(*found.tests) in flat(found.text())
    assert len(found.text(every=True)) > len(found.text())


HOSTILE = "<img src=x onerror=alert(1)>|`*\x1b[31m\n# head"


def test_hostile_names_are_only_text(folder):
    """No form lets a name become markup, a heading, a table cell or a terminal escape."""
    records = [r for r in Store(folder).records() if r.fill == "none"]
    sides = [side_of(records), replace(side_of(records), name=HOSTILE)]
    found = compare(*sides, stages=False)
    for text in (found.text(), found.markdown(), found._repr_html_()):
        assert "\x1b" not in text
        assert "\n# head" not in text
    assert "<img src=x" not in found._repr_html_()
    (heading,) = [line for line in found.markdown().splitlines() if line.startswith("##")]
    assert heading.count("`") == 4


def test_a_record_s_words_in_a_notebook_are_only_text(folder):
    """Metrics with intervals; a failed one its reason; nothing hostile is live."""
    record = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    assert "<td>weakest</td>" in record._repr_html_()
    record.model = record.model.model_copy(update={"reference": HOSTILE})
    record.status, record.reason, record.metrics = "skipped", HOSTILE, {}
    assert "skipped: &lt;img" in record._repr_html_()
    assert "<img src=x" not in record._repr_html_()


def test_difference_maps_are_drawn_for_maps_of_one_shape(folder, tmp_path):
    """One PNG is written for every map that both sides have."""
    from PIL import Image

    found = compare(f"{folder}:{NAME}", f"{folder}:{NAME}+box", stages=False)
    paths = draw_differences(found, tmp_path / "maps")
    assert {p.name.split(".")[-2] for p in paths} >= {"sensitivity", "phase_profile", "erf"}
    with Image.open(paths[0]) as picture:
        assert picture.format == "PNG"


def test_the_command_prints_tables_markdown_and_json(folder, tmp_path):
    """`perimetry compare`: three forms, pictures, and one line for what is wrong."""

    def perimetry(*arguments):
        return CliRunner().invoke(app, ["compare", *(str(a) for a in arguments)])

    pair = [f"{folder}:{NAME}", f"{folder}:{NAME}+box", "--no-stages"]
    assert "nearer to even" in flat(perimetry(*pair).output)
    assert "| `structure.weakest` " in perimetry(*pair, "--format", "md").output
    data = json.loads(perimetry(*pair, "--format", "json").output)
    assert {"first", "second", "metric", "verdict", "p.corrected"} <= data["metrics"][0].keys()
    assert [model["fill"] for model in data["models"]] == ["none", "box"]
    assert {"Evenness", "Size and cost"} <= {one["topic"] for one in data["decision"]}
    done = perimetry(*pair, "--maps", tmp_path / "maps")
    assert done.exit_code == 0
    assert list((tmp_path / "maps").glob("*.png"))
    wrong = perimetry(f"{folder}:{NAME}", f"{folder}:{NAME}+zero")
    assert wrong.exit_code == 1
    assert wrong.output.startswith("perimetry: no record of")


def test_a_model_named_by_reference_is_audited_in_a_worker_of_its_own(tmp_path):
    """Two references without records are audited, and compared stage by stage."""
    done = CliRunner().invoke(
        app,
        ["compare", "timm:test_resnet@init", "timm:test_resnet@init+box", "--suite", "structure",
         "--count", "4", "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "stage 1 of" in flat(done.output)


def test_two_long_paths_keep_their_ends_in_a_heading():
    """A heading of two long paths keeps the end of each and `against` between them."""
    one, two = (f"a-long-folder/of/vendors/tiny-resnet-{end}-seed0.onnx" for end in ("none", "box"))
    pair = SimpleNamespace(first=SimpleNamespace(name=one), second=SimpleNamespace(name=two))
    heading = pair_heading(pair, 80)
    assert len(heading) <= 80
    assert re.fullmatch(
        r"a-long.*\.\.\..*box-seed0\.onnx against a-long.*none-seed0\.onnx", heading
    )


def test_one_model_alone_is_refused_before_it_is_measured(monkeypatch):
    """Nothing is opened for a comparison that cannot be."""
    monkeypatch.setattr(
        "perimetry.bench.comparison.sources._models", lambda *_given: pytest.fail("it was measured")
    )
    with pytest.raises(InputError, match=r"A\+box"):
        compare("timm:test_resnet@init")
