"""What a network that is no function of one image costs: records, reports and verdicts."""

import pytest
import torch
import torch.nn.functional as F
from one_image_nets import QUICK, SIZE, Drifting, Net, images
from onnx_files import convnet, node, save
from torch import nn
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.load import load
from perimetry.bench.cli.main import app
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.store import Store
from perimetry.bench.regression.check import check
from perimetry.suites.measuring import assumptions
from perimetry.suites.measuring.assumptions import DEPENDENT, RANDOM, check_assumptions


@pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated
def test_a_module_in_eight_bits_of_the_batch_s_range_is_measured_with_a_note():
    """torch's dynamic layers round by the range of the batch, as the ONNX operator does."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(*layers), {nn.Linear})
    (record,) = audit(module, ("perturbation",), size=(64, 64), count=2)
    assert record.status == "ok"
    (note,) = [n for n in record.notes if n.startswith(DEPENDENT)]
    assert assumptions.CAUSES["dynamicquantize"] in note


def test_dropout_in_the_head_costs_what_rests_on_the_logits_alone():
    """Maps of the target are measured; what reads the logits is skipped with the reason."""
    net = Net(head=lambda y: F.dropout(y, 0.3))
    suites = ("structure", "deadpixel", "deadpixel:kim2023", "erf", "perturbation")
    found = {f"{r.suite}:{r.protocol}": r for r in audit(net, suites, **QUICK)}
    status = {name: r.status for name, r in found.items()}
    assert status == {
        "structure:expected": "ok",
        "deadpixel:energy": "ok",
        "deadpixel:kim2023": "skipped",
        "erf:energy": "ok",
        "perturbation:forward": "skipped",
    }
    assert found["perturbation:forward"].reason.startswith(RANDOM)
    assert found["deadpixel:energy"].notes[0] == found["perturbation:forward"].reason


def test_a_random_network_has_its_structure_alone_and_says_so_first(tmp_path):
    """Case 07: no number of a random network; `show` begins with the reason; exit 2 of `check`."""
    suites = ("structure", "deadpixel", "padding", "perturbation", "erf")
    store = Store(tmp_path)
    for record in audit(Net(lambda y: F.dropout(y, 0.2)), suites, **QUICK):
        store.put(record)
        assert (record.status == "ok") == (record.suite == "structure")
        assert (record.notes[0] if record.status == "ok" else record.reason).startswith(RANDOM)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)]).output
    assert "Not measured: the network is random" in " ".join(shown.split()[:20])
    write_manifest(store)
    again = check(tmp_path, Net(lambda y: F.dropout(y, 0.2)), name="module:Net")
    words = {
        (f.where, f.verdict.words) for f in again.reports[0].findings if f.detector == "record"
    }
    assert any(
        "perturbation:forward" in where and verdict == "could not measure"
        for where, verdict in words
    )
    assert not [f for f in again.reports[0].findings if f.verdict.words == "regressed"]


def test_a_report_begins_with_random_logits_where_nothing_that_reads_them_was_asked_for(tmp_path):
    """The maps of the target are measured; that answers are random is said first all the same."""
    store = Store(tmp_path)
    for record in audit(Net(head=lambda y: F.dropout(y, 0.3)), ("deadpixel",), **QUICK):
        store.put(record)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)]).output
    assert "Verdict: The network is random" in " ".join(shown.split()[:20])


def noisy_file(path, op, **attributes):
    """A file with a random operator behind its first convolution."""
    proto = convnet(size=64)
    proto.graph.node.insert(1, node(op, ["c1"], ["noise"], **attributes))
    proto.graph.node.insert(2, node("Add", ["c1", "noise"], ["noisy"]))
    proto.graph.node[3].input[0] = "noisy"
    return save(proto, path)


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike"])
def test_random_operators_of_a_file_are_named(tmp_path, op):
    """Every suite but the structure is skipped, and the reason names the node."""
    records = audit(noisy_file(tmp_path / "a.onnx", op), ("perturbation", "padding"), **QUICK)
    for record in records:
        assert record.status == "skipped"
        assert record.reason.startswith(RANDOM)
        assert f"{op} node 'noise'" in record.reason


@pytest.mark.parametrize("factor", [lambda n: 1 + 3e-6 * n, lambda n: float(n < 30)])
def test_a_state_that_shows_after_many_passes_voids_what_was_measured(factor):
    """A drift of 3e-6 a pass, which no two passes show; a network that gives 0 after 30."""
    net = Net(layer=Drifting(factor))
    model = load(net, size=SIZE, device="cpu")
    assert check_assumptions(model, images()).target is None
    (record,) = audit(net, ("padding",), **QUICK)
    assert record.status == "skipped"
    assert record.reason.startswith(RANDOM)
    assert "a state kept from pass to pass" in record.reason


def test_gradients_of_a_drifting_network_are_void_and_a_late_head_costs_its_own_suites_alone():
    """The first pass is made again after the gradients; `later` says which output has changed."""
    suites = ("deadpixel", "erf")
    found = audit(Net(layer=Drifting(lambda n: 1 + 8e-6 * n)), suites, **QUICK)
    assert [r.status for r in found] == ["skipped"] * 2
    assert all("changes the target by" in r.reason for r in found)
    head = Drifting(lambda n: 1 + 8e-6 * n)
    found = audit(Net(head=head), (*suites, "perturbation"), **QUICK)
    assert [r.status for r in found] == ["ok", "ok", "skipped"]
    model = load(Net(layer=Drifting(lambda n: 1.0)), size=SIZE, device="cpu")
    checked = check_assumptions(model, images())
    counted = model.module().get_submodule("layer")
    before = counted.passed
    assert checked.later() == assumptions.Assumptions()
    assert counted.passed == before + 1
