"""The regression gate: quiet on unchanged models, loud on planted changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from gate_tools import ONLY_METRICS, check, found_by, shown
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

from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.store import Store
from perimetry.bench.regression import check as gate
from perimetry.bench.regression import noise_floor as noise
from perimetry.bench.regression.report import check_to_text
from perimetry.bench.regression.result import RegressionVerdict


def test_an_unchanged_model_passes_with_every_detector_at_work(gate_baseline):
    """The same weights, another batch size: not shown to differ, and nothing was left out."""
    result = check(gate_baseline, net(), run=replace(TOOLS, batch=3))
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


def test_the_noise_floor_is_measured_over_batches_and_threads_and_stored(gate_baseline):
    """Floors of every metric, map and stage lie beside the baseline, and they are small."""
    floor = noise.read_floors(gate_baseline).find(NAME, "none")
    assert len(floor.runs) == noise.RUNS
    assert any("batch" in run for run in floor.runs)
    assert any("threads" in run for run in floor.runs)
    assert {name.partition(":")[0] for name in floor.metrics} == set(SUITES)
    assert 0 <= max(floor.stages.values()) < 1e-5
    assert floor.metrics["structure:expected.weakest"] == 0
    assert (gate_baseline / "check" / "records").is_dir()
    assert len(Store(gate_baseline).records()) == len(SUITES)


def test_what_is_not_the_baseline_leaves_no_noise_floor(tmp_path):
    """Measuring the noise of a changed model reports the change and stores nothing."""
    place = baseline(tmp_path)
    result = gate.check(place, opened(net(seed=1)), run=TOOLS, action="measure_noise")
    assert result.verdict is RegressionVerdict.regressed
    assert not (place / "check").exists()


def test_a_large_noise_floor_widens_the_tolerance(gate_copy):
    """A fingerprint change below three times the measured floor is no change."""
    module = perturbed(0)
    assert "fingerprint" in found_by(check(gate_copy, module))
    path = gate_copy / "check" / "noise.json"
    content = json.loads(path.read_text())
    stages = content["floors"][f"{NAME} none"]["stages"]
    content["floors"][f"{NAME} none"]["stages"] = dict.fromkeys(stages, 0.05)
    path.write_text(json.dumps(content))
    assert "fingerprint" not in found_by(check(gate_copy, module))


@pytest.mark.parametrize("layer", WEIGHTS)
@pytest.mark.parametrize("scale", [False, True])
def test_one_tensor_changed_by_a_percent_is_found_at_its_stage(gate_baseline, layer, scale):
    """The fingerprint names the stage that the changed layer feeds; up to there all is equal."""
    result = check(gate_baseline, perturbed(layer, scale=scale))
    assert result.verdict is RegressionVerdict.regressed
    (finding,) = [f for f in result.reports[0].findings if f.detector == "fingerprint"]
    stage = {0: "2", 3: "5", 6: "8", 11: "output output"}[layer]
    assert finding.where == stage
    assert "sha256 of the weights" in " ".join(result.reports[0].notes)


def test_metrics_alone_may_miss_a_percent_which_is_why_there_are_fingerprints(gate_baseline):
    """A convolution scaled by 1.01 moves no metric beyond tolerance: evenness ignores scale."""
    result = check(gate_baseline, perturbed(6, scale=True), tolerances=ONLY_METRICS)
    assert result.verdict is RegressionVerdict.same
    assert found_by(result, RegressionVerdict.same) == {"dead region", "metric"}


def test_maps_find_a_percent_where_there_is_no_fingerprint(gate_copy):
    """A baseline as `perimetry run` leaves it: the stored maps show the change."""
    shutil.rmtree(gate_copy / "check")
    (gate_copy / "manifest.json").unlink()
    write_manifest(Store(gate_copy))
    result = check(gate_copy, perturbed(0))
    assert "map" in found_by(result)
    assert any("no fingerprint" in note for note in result.reports[0].notes)


def test_another_padding_mode_is_found_where_it_is(gate_baseline):
    """Equal weights, reflected borders in the second convolution: fingerprint and maps say so."""
    result = check(gate_baseline, mirrored())
    assert {"fingerprint", "map"} <= found_by(result)
    (finding,) = [f for f in result.reports[0].findings if f.detector == "fingerprint"]
    assert finding.where == "5"


def test_a_quantised_copy_is_found(gate_baseline):
    """Weights rounded to eight bits, and to four, differ; the finer rounding by less."""
    found = []
    for bits in (8, 4):
        result = check(gate_baseline, quantised(bits=bits))
        assert "fingerprint" in found_by(result)
        found.append(len(result.reports[0].of(RegressionVerdict.regressed)))
    assert found[0] < found[1]


def test_declared_preprocessing_that_changed_is_the_finding(gate_baseline):
    """Another mean and deviation regress as such; numbers about other pixels are not compared."""
    wrong = replace(SPEC, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    result = check(gate_baseline, net(), spec=wrong)
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


def test_another_architecture_is_found_by_the_exact_metrics(gate_baseline):
    """A stem of kernel 4 is even where kernel 3 is not: structure says so exactly."""
    module = net()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module[0] = nn.Conv2d(3, 16, 4, 2, 1)
    result = check(gate_baseline, module)
    where = {f.where for f in result.reports[0].of(RegressionVerdict.regressed)}
    assert {"structure:expected.weakest", "structure:expected.receptive_field"} <= where
