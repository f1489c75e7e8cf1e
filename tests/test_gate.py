"""The regression gate: quiet on unchanged models, loud on planted changes, no silent pass."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_nets import (
    NAME,
    SPEC,
    SUITES,
    TOOLS,
    WEIGHTS,
    Normalise,
    baseline,
    mirrored,
    net,
    opened,
    perturbed,
    quantised,
)
from torch import nn
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.selection import MixedRecordsError
from perimetry.bench.records.store import Store
from perimetry.bench.regression import check as gate
from perimetry.bench.regression import noise_floor as noise
from perimetry.bench.regression.detectors import DetectorSet
from perimetry.bench.regression.report import check_to_text, github_errors, on_github, to_junit
from perimetry.bench.regression.result import (
    DetectorFinding,
    RegressionCheck,
    RegressionVerdict,
    VariantReport,
    worst,
)
from perimetry.bench.regression.tolerances import OFF, Bounds, Tolerances, read_tolerances

ONLY_METRICS = Tolerances(maps=OFF, fingerprint=OFF)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A baseline of the small network with its noise floor and fingerprint."""
    place = baseline(tmp_path_factory.mktemp("baseline"))
    found = gate.check(place, opened(net()), run=TOOLS, action="measure_noise")
    assert found.verdict is RegressionVerdict.same, check_to_text(found)
    return place


@pytest.fixture
def copy(folder, tmp_path):
    """A baseline of one's own to spoil."""
    return shutil.copytree(folder, tmp_path / "copy")


def check(folder, module, *, spec=SPEC, run=TOOLS, **options):
    return gate.check(folder, opened(module, spec), run=run, **options)


def found_by(result, verdict=RegressionVerdict.regressed):
    """The detectors that found something."""
    return {f.detector for report in result.reports for f in report.of(verdict)}


def shown(result):
    """The report in one line."""
    return " ".join(check_to_text(result).split())


# ------------------------------------------------------------------ quiet when nothing changed


def test_an_unchanged_model_passes_with_every_detector_at_work(folder):
    """The same weights, another batch size: not shown to differ, and nothing was left out."""
    result = check(folder, net(), run=replace(TOOLS, batch=3))
    assert result.verdict is RegressionVerdict.same, check_to_text(result)
    every = {"dead region", "metric", "map", "fingerprint"}
    assert found_by(result, RegressionVerdict.same) == every
    assert not result.reports[0].notes


def test_a_hundred_repeats_of_an_unchanged_model_give_no_false_alarm(tmp_path):
    """100 checks with float noise on the weights and changing batch sizes all pass."""
    place = baseline(tmp_path, suites=("deadpixel",), count=4)
    gate.check(place, opened(net()), run=TOOLS, action="measure_noise")
    verdicts = []
    for seed in range(100):
        module = perturbed(WEIGHTS[seed % 4], 1e-7, seed=seed)
        tools = replace(TOOLS, batch=1 + seed % 4)
        verdicts.append(check(place, module, run=tools).verdict)
    assert verdicts == [RegressionVerdict.same] * 100


def test_the_noise_floor_is_measured_over_batches_and_threads_and_stored(folder):
    """Floors of every metric, map and stage lie beside the baseline, and they are small."""
    floor = noise.read_floors(folder).find(NAME, "none")
    assert len(floor.runs) == noise.RUNS
    assert any("batch" in run for run in floor.runs)
    assert any("threads" in run for run in floor.runs)
    assert {name.partition(":")[0] for name in floor.metrics} == set(SUITES)
    assert 0 <= max(floor.stages.values()) < 1e-5
    assert floor.metrics["structure:expected.weakest"] == 0
    assert (folder / "check" / "records").is_dir()
    assert len(Store(folder).records()) == len(SUITES)


def test_what_is_not_the_baseline_leaves_no_noise_floor(tmp_path):
    """Measuring the noise of a changed model reports the change and stores nothing."""
    place = baseline(tmp_path)
    result = gate.check(place, opened(net(seed=1)), run=TOOLS, action="measure_noise")
    assert result.verdict is RegressionVerdict.regressed
    assert not (place / "check").exists()


def test_a_large_noise_floor_widens_the_tolerance(copy):
    """A fingerprint change below three times the measured floor is no change."""
    module = perturbed(0)
    assert "fingerprint" in found_by(check(copy, module))
    path = copy / "check" / "noise.json"
    content = json.loads(path.read_text())
    stages = content["floors"][f"{NAME} none"]["stages"]
    content["floors"][f"{NAME} none"]["stages"] = dict.fromkeys(stages, 0.05)
    path.write_text(json.dumps(content))
    assert "fingerprint" not in found_by(check(copy, module))


# ------------------------------------------------------------------ loud on planted changes


@pytest.mark.parametrize("layer", WEIGHTS)
@pytest.mark.parametrize("scale", [False, True])
def test_one_tensor_changed_by_a_percent_is_found_at_its_stage(folder, layer, scale):
    """The fingerprint names the stage that the changed layer feeds; up to there all is equal."""
    result = check(folder, perturbed(layer, scale=scale))
    assert result.verdict is RegressionVerdict.regressed
    (finding,) = [f for f in result.reports[0].findings if f.detector == "fingerprint"]
    stage = {0: "2", 3: "5", 6: "8", 11: "output output"}[layer]
    assert finding.where == stage
    assert "sha256 of the weights" in " ".join(result.reports[0].notes)


def test_metrics_alone_may_miss_a_percent_which_is_why_there_are_fingerprints(folder):
    """A convolution scaled by 1.01 moves no metric beyond tolerance: evenness ignores scale."""
    result = check(folder, perturbed(6, scale=True), tolerances=ONLY_METRICS)
    assert result.verdict is RegressionVerdict.same
    assert found_by(result, RegressionVerdict.same) == {"dead region", "metric"}


def test_maps_find_a_percent_where_there_is_no_fingerprint(copy):
    """A baseline as `perimetry run` leaves it: the stored maps show the change."""
    shutil.rmtree(copy / "check")
    (copy / "manifest.json").unlink()
    write_manifest(Store(copy))
    result = check(copy, perturbed(0))
    assert "map" in found_by(result)
    assert any("no fingerprint" in note for note in result.reports[0].notes)


def test_another_padding_mode_is_found_where_it_is(folder):
    """Equal weights, reflected borders in the second convolution: fingerprint and maps say so."""
    result = check(folder, mirrored())
    assert {"fingerprint", "map"} <= found_by(result)
    (finding,) = [f for f in result.reports[0].findings if f.detector == "fingerprint"]
    assert finding.where == "5"


def test_a_quantised_copy_is_found(folder):
    """Weights rounded to eight bits, and to four, differ; the finer rounding by less."""
    found = []
    for bits in (8, 4):
        result = check(folder, quantised(bits=bits))
        assert "fingerprint" in found_by(result)
        found.append(len(result.reports[0].of(RegressionVerdict.regressed)))
    assert found[0] < found[1]


def test_declared_preprocessing_that_changed_is_the_finding(folder):
    """Another mean and deviation regress as such; numbers about other pixels are not compared."""
    wrong = replace(SPEC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    result = check(folder, net(), spec=wrong)
    assert result.verdict is RegressionVerdict.regressed
    assert found_by(result) == {"preprocessing"}
    assert len(result.reports[0].findings) == 2
    assert "0.485" in shown(result)


def test_wrong_normalisation_inside_the_network_is_found(tmp_path):
    """Other constants of a normalisation inside the network are found as a regression."""
    plain = replace(SPEC, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    right = nn.Sequential(Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), *net())
    wrong = nn.Sequential(Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), *net())
    place = baseline(tmp_path, right, spec=plain)
    result = check(place, wrong, spec=plain)
    assert result.verdict is RegressionVerdict.regressed
    assert "map" in found_by(result)
    assert check(place, right, spec=plain).verdict is RegressionVerdict.same


def test_another_architecture_is_found_by_the_exact_metrics(folder):
    """A stem of kernel 4 is even where kernel 3 is not: structure says so exactly."""
    module = net()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module[0] = nn.Conv2d(3, 16, 4, 2, 1)
    result = check(folder, module)
    where = {f.where for f in result.reports[0].of(RegressionVerdict.regressed)}
    assert {"structure:expected.weakest", "structure:expected.receptive_field"} <= where


# ------------------------------------------------------------------ when a change counts


def records_with(folder, **values):
    """The deadpixel record of a baseline with other metrics, and its judge."""
    record = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    metrics = dict(record.metrics)
    for name, value in values.items():
        shift = value - metrics[name].value
        metrics[name] = metrics[name].model_copy(update={"value": value})
        record.draws[name] = record.draws[name] + shift
    return record.model_copy(update={"metrics": metrics}).attach(record.arrays)


def judged(folder, tolerances=ONLY_METRICS, **values):
    """What the judge says of one metric that has moved with all its draws."""
    old = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    judge = DetectorSet(tolerances, None, TOOLS.toolkit().suites)
    findings = judge.record(old, records_with(folder, **values))
    return next(f for f in findings if f.where.endswith(f".{next(iter(values))}"))


def test_a_change_counts_only_beyond_its_tolerance(folder):
    """A shift that every replicate shares is beyond the interval; the bound alone decides."""
    old = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    before = old.metrics["relL1"].value
    bound = Bounds().limit(before)
    assert bound == max(0.01, 0.02 * before)
    assert judged(folder, relL1=before + 0.9 * bound).verdict is RegressionVerdict.same
    assert judged(folder, relL1=before + 1.1 * bound).verdict is RegressionVerdict.regressed


def test_a_change_counts_only_beyond_its_interval(folder):
    """The same shift with replicates that scatter about 0 by as much is not shown to differ."""
    old = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    before = old.metrics["relL1"].value
    shift = 2 * Bounds().limit(before)
    new = records_with(folder, relL1=before + shift)
    rng = np.random.default_rng(0)
    new.draws["relL1"] = new.draws["relL1"] + rng.normal(0, shift, new.draws["relL1"].shape)
    judge = DetectorSet(ONLY_METRICS, None, TOOLS.toolkit().suites)
    found = next(f for f in judge.record(old, new) if f.where.endswith(".relL1"))
    assert found.verdict is RegressionVerdict.same


def test_direction_worse_lets_changes_towards_even_pass(folder):
    """With `worse`, less imbalance passes and more does not; by default both count."""
    old = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    before = old.metrics["relL1"].value
    one_way = replace(ONLY_METRICS, metrics={"deadpixel.*": {"direction": "worse"}})
    for value, verdict in (
        (before / 2, RegressionVerdict.same),
        (before * 2, RegressionVerdict.regressed),
    ):
        assert judged(folder, one_way, relL1=value).verdict is verdict
        assert judged(folder, relL1=value).verdict is RegressionVerdict.regressed


def test_tolerances_are_read_field_by_field_over_the_defaults(tmp_path):
    """Later patterns win, fields that are not named keep what an earlier pattern said."""
    path = tmp_path / "t.toml"
    path.write_text(
        'fingerprint = "off"\nmaps = 0.5\n'
        '[metrics."deadpixel.*"]\nabsolute = 0.3\n'
        '[metrics."deadpixel.weakest"]\nrelative = 0.7\ndirection = "worse"\n'
        '[metrics."erf:kim2023.*"]\nignore = true\n'
    )
    found = read_tolerances(path)
    assert (found.fingerprint, found.maps, found.noise_factor) == (OFF, 0.5, 3.0)
    assert found.bounds("deadpixel.weakest") == Bounds(0.3, 0.7, "worse")
    assert found.bounds("deadpixel.imbalance") == Bounds(0.3, 0.02)
    assert found.bounds("erf:kim2023.rawL1").ignore
    assert not found.bounds("erf.rawL1").ignore


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("maps = -1", "maps is -1; expected a number of at least 0"),
        ("mapz = 1", "unknown tolerance 'mapz'; did you mean maps?"),
        ('[metrics."a"]\nabsolut = 1', "unknown field of 'a' 'absolut'; did you mean absolute?"),
        ('[metrics."a"]\ndirection = "up"', "expected any or worse"),
        ('[metrics."a"]\nignore = 1', "expected true or false"),
        ("[metrics]\na = 1", "expected a table with absolute and relative"),
        ("metrics = 1", "metrics must be tables"),
        ("maps = ", "cannot be read as TOML"),
    ],
)
def test_a_wrong_tolerance_says_what_was_expected(tmp_path, text, message):
    """A wrong tolerance is an error that gives the field and the expected kind of value."""
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises((InputError, UnknownNameError), match=message.replace("'", ".")):
        read_tolerances(path)


# ------------------------------------------------------------------ could not measure


def test_a_regression_outweighs_what_could_not_be_measured():
    """A regression outweighs `unmeasured`, and a check of nothing does not pass."""
    assert (
        worst([RegressionVerdict.same, RegressionVerdict.unmeasured, RegressionVerdict.regressed])
        is RegressionVerdict.regressed
    )
    assert (
        worst([RegressionVerdict.same, RegressionVerdict.unmeasured])
        is RegressionVerdict.unmeasured
    )
    assert worst([]) is RegressionVerdict.unmeasured
    assert [
        v.value
        for v in (RegressionVerdict.same, RegressionVerdict.regressed, RegressionVerdict.unmeasured)
    ] == [0, 1, 2]


def test_a_model_that_cannot_be_opened_could_not_be_measured(copy):
    """A reference that leads nowhere fails every record, and none passes."""
    result = gate.check(copy, "timm:test_resnt@init", name=NAME, run=TOOLS)
    assert result.verdict is RegressionVerdict.unmeasured
    assert "did you mean test_resnet" in shown(result)
    assert found_by(result, RegressionVerdict.same) == set()


def test_a_suite_that_failed_then_or_now_could_not_be_measured(copy):
    """A suite whose record in the baseline failed gives `unmeasured`, with that reason."""
    store = Store(copy)
    record = next(r for r in store.records() if r.suite == "erf")
    path = store.path(record)
    content = json.loads(path.read_text()) | {"status": "failed", "metrics": {}, "map_names": []}
    path.write_text(json.dumps(content))
    result = check(copy, net())
    assert result.verdict is RegressionVerdict.unmeasured
    assert "failed when the baseline was made" in shown(result)


def test_records_of_an_older_protocol_version_are_refused(copy):
    """A baseline of version 0 of a protocol does not compare with what version 1 gives."""
    store = Store(copy)
    for record in store.records():
        path = store.path(record)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0"}))
    result = check(copy, net(), tolerances=Tolerances(fingerprint=OFF))
    assert result.verdict is RegressionVerdict.unmeasured
    assert "protocol version 0 against 1" in shown(result)


def test_mixed_protocol_versions_in_one_baseline_are_refused(copy):
    """Two versions of one protocol side by side: which one is meant must be said."""
    store = Store(copy)
    record = next(r for r in store.records() if r.suite == "erf")
    record.version, record.key = "0", "0" * 64
    store.put(record)
    with pytest.raises(MixedRecordsError, match="version=0"):
        gate.open_baseline(copy)
    assert gate.open_baseline(copy, ["version=1"]).references == [NAME]


def test_a_corrupt_record_is_told_and_the_others_are_judged(copy):
    """Half a file costs its own record only, and the report says so."""
    store = Store(copy)
    path = store.path(next(r for r in store.records() if r.suite == "erf"))
    path.write_text(path.read_text()[:100])
    result = check(copy, net())
    assert result.verdict is RegressionVerdict.unmeasured
    assert [report.verdict for report in result.reports[1:]] == [RegressionVerdict.same]
    assert len(result.problems) == 1
    assert path.name in result.problems[0]


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_baseline_says_what_was_expected(tmp_path, made):
    """A folder without records, and one that `run` has not filled yet."""
    if made:
        Store(tmp_path)
    message = "contains no readable record" if made else "expected a folder that was given as"
    with pytest.raises(InputError, match=message):
        gate.check(tmp_path, "timm:test_resnet@init")


def test_a_baseline_that_lacks_the_model_offers_near_names(folder):
    """The error names what is there, and the two ways on; the other models are checked."""
    found = gate.check(folder, "nett", opened(net()), run=TOOLS)
    assert [report.verdict for report in found.reports] == [
        RegressionVerdict.unmeasured,
        RegressionVerdict.same,
    ]
    assert "did you mean net" in shown(found)
    assert "--as" in shown(found)
    with pytest.raises(InputError, match="2 models"):
        gate.check(folder, "a", "b", name="net")


def test_images_of_a_folder_must_be_named_and_be_the_same(tmp_path):
    """Records know a folder's name and its files' hash, not where it is."""
    from PIL import Image

    photographs = tmp_path / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photographs / f"{i}.png")
    place, store = tmp_path / "set", Store(tmp_path / "set")
    options = {"images": str(photographs), "count": 4, "draws": 50, "device": "cpu"}
    for record in audit(opened(net()), ("deadpixel",), **options):
        store.put(record)
    write_manifest(store)
    assert "--images FOLDER" in shown(check(place, net()))
    assert check(place, net(), images=str(photographs)).verdict is RegressionVerdict.same
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(photographs / "0.png")
    assert "has other images" in shown(check(place, net(), images=str(photographs)))


def test_a_packed_baseline_is_judged_by_metrics_and_says_what_it_lacks(folder, tmp_path):
    """A packed baseline is compared by its draws, with a note that maps are missing."""
    path = tmp_path / "set.jsonl"
    pack_records(Store(folder), path)
    result = check(path, net())
    assert result.verdict is RegressionVerdict.same
    (note,) = [note for note in result.reports[0].notes if "no maps" in note]
    assert "unpaired" not in note
    gate.check(path, opened(net()), run=TOOLS, action="measure_noise")
    assert (tmp_path / "set.check" / "noise.json").exists()
    assert "fingerprint" in found_by(check(path, perturbed(0)))


# ------------------------------------------------------------------ reports


HOSTILE = 'x"><script>&\x1b[31m\n::error::%0A`|'


def hostile_check():
    """A check whose every text is hostile."""
    findings = (
        DetectorFinding("metric", HOSTILE, RegressionVerdict.regressed, HOSTILE),
        DetectorFinding("map", "m", RegressionVerdict.unmeasured, HOSTILE),
        DetectorFinding("metric", "fine", RegressionVerdict.same),
    )
    return RegressionCheck("base", (VariantReport(HOSTILE, "none", findings, (HOSTILE,)),))


def test_junit_counts_and_escapes():
    """A suite a variant, a case a finding, failure and error by verdict; hostile text is text."""
    root = ET.fromstring(to_junit(hostile_check()).encode())  # noqa: S314 - our own
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [["failure"], ["error"], []]
    assert "<script>" in suite.get("name")
    assert "\x1b" not in to_junit(hostile_check())


def test_github_annotations_are_one_command_each_and_the_summary_is_written(tmp_path):
    """Only under GITHUB_ACTIONS; what a name holds ends neither command nor table."""
    summary = tmp_path / "summary.md"
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    assert on_github(hostile_check(), {}) == []
    (line,) = on_github(hostile_check(), environment)
    assert line.startswith("::error title=perimetry%3A ")
    assert "\n" not in line
    assert "\r" not in line
    assert "%250A" in line
    assert "\x1b" not in summary.read_text()
    assert "**FAIL**" in summary.read_text()
    assert github_errors(RegressionCheck("base", ())) == []


def test_the_terminal_report_shows_no_control_character():
    """Nothing that a record holds moves the cursor."""
    text = check_to_text(hostile_check())
    assert "\x1b" not in text
    assert "regressed" in text


def test_the_command_has_three_exit_codes(tmp_path, monkeypatch):
    """0 for the same model, 1 for another under its name, 2 where there is nothing to judge by."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    def perimetry(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    common = ["--suite", "deadpixel", "--count", "4", "--members", "4", "--device", "cpu"]
    made = perimetry(
        "run", "timm:test_resnet@init", "--kernel-padding", "none", "--out", tmp_path, *common
    )
    assert made.exit_code == 0, made.output
    gate_ = ["check", "--baseline", tmp_path, "--device", "cpu"]
    same = perimetry(*gate_, "timm:test_resnet@init", "--junit", tmp_path / "junit.xml")
    assert same.exit_code == 0, same.output
    assert (tmp_path / "junit.xml").read_text().count("<testsuite ") == 1
    other = perimetry(*gate_, "timm:test_vit@init", "--as", "timm:test_resnet@init")
    assert other.exit_code == 1, other.output
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    lacks = perimetry(*gate_, "timm:test_vit@init")
    assert lacks.exit_code == 2
    assert "--as" in lacks.output
    nowhere = perimetry(*gate_, "none.onnx", "--as", "timm:test_resnet@init")
    assert nowhere.exit_code == 2
    assert "::error title=perimetry" in nowhere.output
    assert "**ERROR**" in (tmp_path / "summary.md").read_text()


def test_a_choice_that_leaves_no_record_is_an_error_and_no_verdict(folder):
    """No model is looked at: the text says why, and nothing passes."""
    with pytest.raises(UnknownNameError, match="--where"):
        gate.check(folder, where=["model=nothing"], run=TOOLS)
