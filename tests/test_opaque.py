"""Files whose gradients cannot be trusted: the record says why, and forward passes take over."""

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_files import convnet, node, save
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.operators import elementwise as onnx_ops
from perimetry.bench.cli.main import app
from perimetry.bench.execution.black_box import STAND_INS, forecast_black_box, remarks
from perimetry.bench.model_report.case import open_case
from perimetry.bench.model_report.report import report
from perimetry.bench.records.store import Store
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.perturbation.suite import Perturbation

QUICK = {"count": 4, "draws": 20, "device": "cpu"}
NO_RULE = "no gradient route: no rule for 1 of its operators: Acosh node 'r1'"


def unknown():
    """A graph with an operator that onnxruntime knows and the interpreter does not."""
    proto = convnet(size=48)
    proto.graph.node[1].CopyFrom(node("Acosh", ["above"], ["r1"]))
    proto.graph.node.insert(1, node("Abs", ["c1"], ["abs"]))
    proto.graph.node.insert(2, node("Add", ["abs", "one"], ["above"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.1), "one"))
    return proto


def custom():
    """A graph with an operator of a domain that nobody here knows."""
    proto = convnet(size=48)
    proto.graph.node[1].domain = "vendor.secret"
    proto.opset_import.append(helper.make_opsetid("vendor.secret", 1))
    return proto


def by_name(records):
    return {f"{r.suite}:{r.protocol}": r for r in records}


def test_an_operator_without_a_rule_is_named_and_forward_passes_take_over(tmp_path):
    """Gradient suites skip with the operator's name, and forward suites measure the file."""
    records = by_name(audit(save(unknown(), tmp_path / "a.onnx"), **QUICK))
    for name in ("erf:energy", "deadpixel:energy"):
        assert records[name].status == "skipped"
        assert records[name].reason == NO_RULE
    assert records["perturbation:forward"].metrics["comb_weakest"].value is not None
    assert records["erf:blocks"].metrics["radius"].value > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda _call, x: x.clamp(min=0.5), "they part at the Relu node 'r1'"),
        (
            lambda _call, x: x.clamp(min=0) * 1.05 - x.clamp(min=0).detach() * 0.05,
            "it goes wrong at the Relu node 'r1'",
        ),
    ],
)
def test_a_wrong_operator_is_named_and_forward_passes_tell_the_truth(
    wrong, says, tmp_path, monkeypatch
):
    """Its values or its gradients: the comb is that of the right file, bit for bit."""
    path = save(convnet(size=48), tmp_path / "a.onnx")
    right = by_name(audit(path, STAND_INS, **QUICK))
    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", wrong)
    found = by_name(audit(path, **QUICK))
    assert found["deadpixel:energy"].reason.endswith(says)
    for name in ("comb_weakest", "comb_imbalance"):
        assert (
            found["perturbation:forward"].metrics[name]
            == right["perturbation:forward"].metrics[name]
        )


def test_a_run_says_why_and_at_what_cost_before_and_what_came_of_it_after(tmp_path):
    """`run` prints reason and cost before, the value after, and both stand in the report."""
    out, path = tmp_path / "out", save(unknown(), tmp_path / "a.onnx")
    words = ["run", path, "--out", str(out), "--kernel-padding", "none"]
    done = CliRunner().invoke(app, [*words, "--count", "4", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    records = Store(out).records()
    skipped = [r for r in records if r.status == "skipped"]
    (before,) = forecast_black_box(skipped, 4, {})
    assert [before] == forecast_black_box(skipped, 4, {"perturbation": {"position_images": "2"}})
    assert before in done.output
    assert NO_RULE in before
    (after,) = (r for r in remarks(records) if "measured by forward passes alone, as" in r)
    assert after in done.output
    value = by_name(records)["perturbation:forward"].metrics["comb_weakest"].value
    assert f"comb_weakest {value:.3f}" in after
    case, _ = open_case(out)
    text = " ".join(report(case).split())
    assert "perturbation: what small changes of the input do" in text
    assert "no rule for 1 of its operators: Acosh node 'r1'" in text


def test_a_file_that_onnxruntime_refuses_fails_with_the_operator_and_costs_no_other_its_row(
    tmp_path,
):
    """A file with an unknown operator fails with its name; the other file is measured."""
    paths = [save(custom(), tmp_path / "a.onnx"), save(unknown(), tmp_path / "b.onnx")]
    words = ["run", *paths, "--out", str(tmp_path / "out"), "--kernel-padding", "none"]
    done = CliRunner().invoke(app, [*words, "--count", "2", "--device", "cpu"])
    assert done.exit_code == 1
    assert "vendor.secret:Relu" in done.output
    records = Store(tmp_path / "out").records()
    assert {r.status for r in records if r.model.reference == paths[0]} == {"failed"}
    assert {r.suite for r in records if r.status == "ok"} == {"perturbation", "erf"}


@pytest.mark.parametrize("images", [3, 8])
def test_the_stated_cost_of_the_comb_is_what_it_takes(images, tmp_path):
    """The images passed through the model are as many as `passes` states."""
    model = open_onnx(save(unknown(), tmp_path / "a.onnx"), device="cpu")
    seen, run = [], model.run

    def counted(x, **options):
        seen.append(len(x))
        return run(x, **options)

    model.run = counted
    suite = Perturbation()
    context = Context(open_images("dead-leaves", images).load(model.spec), batch=8, draws=20)
    found = suite.measure(model, "forward", {}, context)
    places = found.maps["positions"].size
    trial = 1  # whether there are logits is found by trying
    shift = 0 if found.metrics["shift_consistency"].value is not None else 2 * images
    assert sum(seen) == suite.passes(images, places=places) + trial - shift
    assert suite.passes(images, places=places) <= suite.passes(images)
