"""Comparison of two networks stage by stage: where they part, and how far their outputs are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_nets import SPEC, TOOLS, mirrored, net, opened, perturbed, quantised
from test_comparison import FEW, QUICK, flat, rows
from torch import nn

from perimetry import compare
from perimetry.adapters.export import export_onnx
from perimetry.bench.comparison.divergence import first_divergent_stage, stage_differences
from perimetry.bench.comparison.fingerprint import BUCKETS, sketch
from perimetry.bench.comparison.sides import side_of
from perimetry.suites.base import Context
from perimetry.suites.images import open_images


@pytest.fixture(scope="module")
def variants():
    """The network against itself with reflected borders in its second convolution."""
    return compare(opened(net()), opened(mirrored()), **QUICK)


def test_a_sketchs_squared_distance_is_unbiased():
    """Over many seeds |sketch(a) - sketch(b)|^2 averages to |a - b|^2; equal gives equal."""
    made = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, 6, 9, 9, generator=made)
    distances = [
        float(((sketch(a, 0, seed) - sketch(b, 0, seed)) ** 2).sum()) for seed in range(400)
    ]
    assert np.mean(distances) == pytest.approx(float(((a - b) ** 2).sum()), rel=0.05)
    assert np.std(distances) / np.mean(distances) < 1.2 * np.sqrt(2 / BUCKETS)
    assert np.array_equal(sketch(a, 0, 1), sketch(a.clone(), 0, 1))


def test_the_difference_of_a_stage_is_the_one_of_its_features():
    """The relative difference read from sketches is that of the full maps, stage by stage."""
    from perimetry.bench.comparison.fingerprint import Fingerprint

    models = [opened(net()), opened(perturbed(3, 0.2))]
    images = open_images("dead-leaves", 4).load(SPEC)
    records, maps = [], []
    for model in models:
        records.append(side_of(compare_prints(model)).records["fingerprint", "sketch"])
        maps.append(model.stages(SPEC.prepare(images)))
    found = stage_differences(*records)
    for stage in found[:-1]:
        a, b = (m[stage.first] for m in maps)
        exact = float((a - b).norm() / a.norm())
        assert stage.difference == pytest.approx(exact, rel=0.3, abs=1e-6)
    assert Fingerprint().measure(models[0], "sketch", {}, Context(images)).metrics == {}


def compare_prints(model):
    """The fingerprint record of a model, as a comparison makes it."""
    from perimetry.bench.comparison.fingerprint import WithFingerprint
    from perimetry.bench.execution.rerun import RunSpec, rerun

    tools = replace(TOOLS, toolkit=WithFingerprint())
    return rerun(model, RunSpec(replace(FEW, count=4), ("fingerprint",)), ["none"], tools)


def test_twins_part_at_the_stage_that_was_changed(variants):
    """Reflected borders in the second convolution: equal to the bit up to there."""
    stages = variants.pairs[0].stages
    assert [s.first for s in stages] == ["2", "5", "8", "output"]
    assert stages[0].difference == 0
    assert first_divergent_stage(stages).first == "5"
    assert "stage 2 of 3, `5` (24 channels, 12 x 12 units)" in flat(variants.text())
    assert "up to there they agree bit for bit" in flat(variants.text())


def test_other_architectures_are_no_twins():
    """Stages of different shapes are not paired; the comparison has a reason and its metrics."""
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
    found = compare(opened(net()), opened(narrow.eval()), **QUICK)
    (pair,) = found.pairs
    assert isinstance(pair.stages, str)
    shapes = "16 x 24 x 24, 24 x 12 x 12, 32 x 6 x 6 against 8 x 24 x 24, 8 x 12 x 12"
    assert shapes in pair.stages
    assert all(output.why for output in pair.outputs)  # other shapes
    assert rows(found)["structure.receptive_field"].shown


def test_outputs_are_compared_where_stages_do_not_pair():
    """Two architectures of one task: how far their outputs are apart, in sentence and table."""
    narrow = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )
    wide = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    )
    found = compare(opened(narrow.eval()), opened(wide.eval()), **QUICK)
    (pair,) = found.pairs
    assert isinstance(pair.stages, str)
    (output,) = pair.outputs
    assert output.shape == (1, 10)
    assert 0.01 < output.difference < 100
    assert "compared with the outputs of" in flat(found.text())
    assert "They differ at output" in flat(found.text())


def test_two_exports_of_one_network_agree_at_every_stage(tmp_path):
    """The ONNX file of a network has the same function under other names, within float noise."""
    path = tmp_path / "net.onnx"
    export_onnx(net(), torch.zeros(1, 3, 48, 48), path, spec=SPEC)
    found = compare(opened(net()), str(path), **QUICK)
    pair = found.pairs[0]
    assert not isinstance(pair.stages, str), pair.stages
    assert max(s.difference for s in pair.stages) < 1e-5
    assert pair.differing == []
    assert "the same function on these images" in flat(found.text())


def test_a_quantised_copy_parts_from_its_first_stage():
    """Every stage of an eight-bit copy differs by about a percent, and the text says how much."""
    found = compare(opened(net()), opened(quantised()), **QUICK)
    stages = found.pairs[0].stages
    assert first_divergent_stage(stages) is stages[0]
    assert 1e-3 < stages[-1].difference < 0.1
    assert "stage 1 of 3" in flat(found.text())


def test_a_file_with_its_activations_quantised_parts_from_the_original(tmp_path):
    """Static int8 by onnxruntime: its rounded image is one stage more, the others pair."""
    quantisation = pytest.importorskip("onnxruntime.quantization")
    images = SPEC.prepare(open_images("dead-leaves", 8).load(SPEC))
    whole, rounded = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    export_onnx(net(), images[:1], whole, spec=SPEC)

    class Reader(quantisation.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"image": x[None].numpy()} for x in images])

        def get_next(self):
            return next(self.feeds, None)

    quantisation.quantize_static(str(whole), str(rounded), Reader())
    settings = {**QUICK, "suites": ("perturbation",)}
    stages = compare(str(whole), str(rounded), **settings).pairs[0].stages
    assert [stage.shape for stage in stages] == [(16, 24, 24), (24, 12, 12), (32, 6, 6), (1, 10)]
    assert 1e-3 < stages[0].difference < stages[-2].difference < 0.2
