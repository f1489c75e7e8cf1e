"""Costs: expensive jobs come first, and a forecast follows what was measured."""

from __future__ import annotations

import timm

from perimetry.bench.execution import cost
from perimetry.bench.execution.audit import audit
from perimetry.bench.execution.cost import (
    Cost,
    cost_of,
    cost_table,
    most_expensive_first,
    pace,
    seconds,
    typical,
)
from perimetry.bench.execution.plan import Cell, Job


def job(reference, fill="none", suites=("structure",)):
    """A job of one cell a suite."""
    return Job(reference, fill, tuple(Cell(s, "p", "1", s != "structure", {}, s) for s in suites))


def test_the_table_knows_nearly_all_of_timm():
    """New releases add architectures; what the table lacks counts as typical."""
    known = set(timm.list_models())
    assert len(known & cost_table().keys()) > 0.9 * len(known)
    assert cost_of("timm:no_such_model@init") == cost_of("vendor.onnx") == typical()
    assert (
        cost_of("timm:resnet50.a1_in1k")
        == cost_of("timm:resnet50@init")
        == cost_table()["resnet50"]
    )


def test_known_operations():
    """ResNet-50 takes 4.09, VGG-16 15.47 thousand million multiply-adds (torchvision's tables)."""
    assert abs(cost_table()["resnet50"].gflop / 2 - 4.09) < 0.05
    assert abs(cost_table()["vgg16"].gflop / 2 - 15.47) < 0.05


def test_the_dearest_model_comes_first_and_keeps_its_variants_together(monkeypatch):
    """Models are ordered by cost with their variants together, and equal ones as given."""
    known = {"test_resnet": Cost(0.1, 0.1, 0.1), "nasnetalarge": Cost(48, 17, 15)}
    monkeypatch.setattr(cost, "cost_table", lambda: known)
    monkeypatch.setattr(cost, "typical", lambda: Cost(4, 0.5, 0.3))
    names = ["timm:test_resnet@init", "a.onnx", "timm:nasnetalarge@init", "b.onnx"]
    jobs = [job(name, fill) for fill in ("none", "zero") for name in names]
    found = [(j.reference, j.fill) for j in most_expensive_first(jobs, 4)]
    order = ["timm:nasnetalarge@init", "a.onnx", "b.onnx", "timm:test_resnet@init"]
    assert found == [(name, fill) for name in order for fill in ("none", "zero")]


def test_cost_grows_with_images_where_a_suite_looks_at_them():
    """The cost grows with the number of images, except for the structure suite."""
    few, many = (seconds("timm:resnet18@init", "none", ["erf"], n) for n in (4, 12))
    assert many == 3 * few > 0
    assert len({seconds("timm:resnet18@init", "none", ["structure"], n) for n in (4, 12)}) == 1


def test_pace_is_time_taken_over_time_expected():
    """Opening and gradients stand in each record of a variant, and count once."""
    records = audit("timm:test_resnet@init", ("erf", "deadpixel"), count=2, members=1, draws=10)
    timing = records[0].timing
    spent = timing.load_s + timing.gradients_s + sum(r.timing.measure_s for r in records)
    expected = seconds("timm:test_resnet@init", "none", ["erf", "deadpixel"], 2)
    factor, variants = pace(records)
    assert variants == 1
    assert abs(factor / (spent / expected) - 1) < 1e-9
    assert pace([]) == (1.0, 0)
