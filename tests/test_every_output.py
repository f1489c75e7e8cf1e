"""Every output is looked at: decoders, second heads, nested outputs, indices, several in a file."""

from __future__ import annotations

import copy
import dataclasses
from collections import namedtuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_nets import SPEC
from torch import nn

from perimetry import audit, compare
from perimetry.adapters.every_output import every_output
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import TorchModel, wrap
from perimetry.bench.comparison.divergence import not_looked_at, stage_differences
from perimetry.bench.comparison.fingerprint import WithFingerprint
from perimetry.bench.regression.detectors import DetectorSet
from perimetry.bench.regression.result import RegressionVerdict
from perimetry.bench.regression.tolerances import Tolerances

Heads = namedtuple("Heads", "age sex")


@dataclasses.dataclass
class Answer:
    mask: torch.Tensor
    extra: object = None


class Many(nn.Module):
    """A body, a decoder, two heads and the place of the largest value, given by `form`."""

    def __init__(self, form):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)
            )
            self.decoder = nn.ConvTranspose2d(16, 1, 4, 4)
            self.age, self.sex = nn.Linear(16, 10), nn.Linear(16, 2)
        self.form = form

    def forward(self, x):
        y = self.body(x).relu()
        flat = y.mean((2, 3))
        return self.form(self.decoder(y), self.age(flat), self.sex(flat))


def tuple_of(mask, age, sex):
    return age, sex, mask


def dict_of(mask, age, sex):
    return {"heads": [age, sex], "mask": mask}


def named_of(mask, age, sex):
    return {"heads": Heads(age, sex), "mask": mask}


def object_of(mask, age, sex):
    return Answer(mask, {"age": age, "sex": (sex,), "nothing": None})


def indices_of(mask, age, sex):
    return {"mask": mask.flatten(2).argmax(2), "age": age, "sex": sex > 0}


FORMS = {
    tuple_of: ("[0]", "[1]", "[2]"),
    dict_of: ("heads[0]", "heads[1]", "mask"),
    named_of: ("heads.age", "heads.sex", "mask"),
    object_of: ("extra.age", "extra.sex[0]", "mask"),
    indices_of: ("age", "sex", "mask"),
}


def printed(module):
    """The fingerprint of a module."""
    model = wrap(module.eval(), name="many", spec=SPEC, device="cpu")
    (record,) = audit(model, ("fingerprint",), count=2, device="cpu", toolkit=WithFingerprint()())
    assert record.status == "ok", record.error
    return record


def found(old, new):
    """What the check says of the fingerprints: stages or outputs that changed, or that agree."""
    return DetectorSet(Tolerances(), None, {}).fingerprint(old, new)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", range(3))
def test_a_layer_behind_the_target_that_was_negated_is_found_in_its_output(form, place):
    """Each output has a layer of its own; the finding names that output and no other."""
    old = Many(form)
    new = copy.deepcopy(old)
    layer = (new.age, new.sex, new.decoder)[place]
    with torch.no_grad():
        for value in layer.parameters():
            value.neg_()
    before, after = printed(old), printed(new)
    (finding,) = found(before, after)
    assert finding.verdict is RegressionVerdict.regressed
    assert finding.where == f"output {FORMS[form][place]}"
    (same,) = found(before, before)
    assert same.verdict is RegressionVerdict.same
    assert all(f"`{name}`" in same.text for name in FORMS[form])


def test_the_difference_of_an_output_is_that_of_its_tensors():
    """|a - b| / |a| over the images, read from sketches, for a decoder of other weights."""
    old = Many(tuple_of)
    new = copy.deepcopy(old)
    with torch.no_grad():
        new.decoder.weight += 0.1 * torch.randn(
            new.decoder.weight.shape, generator=torch.Generator().manual_seed(1)
        )
    x = SPEC.prepare(audit_images())
    a, b = (m.eval()(x)[2].detach() for m in (old, new))
    exact = float((a - b).norm() / a.norm())
    (difference,) = [p for p in stage_differences(printed(old), printed(new)) if p.first == "[2]"]
    assert difference.difference == pytest.approx(exact, rel=0.3)
    assert difference.shape == (1, 1, 48, 48)


def audit_images():
    from perimetry.bench.execution.settings import Settings

    return Settings(count=2).open_images().load(SPEC)


class Altered(nn.Module):
    """A module whose outputs `change` alters."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = Many(dict_of), change

    def forward(self, x):
        return self.change(self.inner(x))


ALTERED = {
    "another head": (lambda out: out | {"more": out["mask"]}, "output more"),
    "no mask": (lambda out: {"heads": out["heads"]}, "output mask"),
    "another shape": (lambda out: out | {"mask": out["mask"][:, :, 1:]}, "output mask"),
    "NaN": (lambda out: out | {"mask": out["mask"] * float("nan")}, "output mask"),
    "one infinite": (lambda out: out | {"mask": planted(out["mask"])}, "output mask"),
    "truth values": (lambda out: out | {"mask": out["mask"] > 0}, "output mask"),
}


def planted(mask):
    mask = mask.clone()
    mask.view(-1)[7] = float("inf")
    return mask


@pytest.mark.parametrize("kind", ALTERED)
def test_an_output_of_another_form_is_a_change(kind):
    """A missing, new or non-finite output, or one of another shape or type, is a change."""
    change, where = ALTERED[kind]
    (finding,) = found(printed(Altered(dict)), printed(Altered(change)))
    assert (finding.verdict, finding.where) == (RegressionVerdict.regressed, where)


def test_an_output_that_is_infinite_in_places_by_design_agrees_with_itself():
    """Masked scores are compared where they are finite, and the places of the others too."""
    masked = Altered(lambda out: out | {"mask": planted(out["mask"])})
    (finding,) = found(printed(masked), printed(masked))
    assert finding.verdict is RegressionVerdict.same


def test_what_cannot_be_looked_at_is_listed_and_never_called_the_same():
    """A random output and one of an unknown type are listed and never called the same."""
    plain = printed(Altered(dict))
    for change, text in (
        (lambda out: out | {"mask": torch.rand(1, 2, 3)}, "`mask` is different in two equal"),
        (lambda out: out | {"mask": object()}, "`mask` is of type object"),
    ):
        record = printed(Altered(change))
        assert any(text in clause for clause in not_looked_at(record)), not_looked_at(record)
        verdicts = {f.verdict for f in found(plain, record)}
        assert RegressionVerdict.unmeasured in verdicts
        assert RegressionVerdict.regressed not in verdicts
        sides = [wrap(Altered(change).eval(), name=n, spec=SPEC, device="cpu") for n in "ab"]
        said = compare(*sides, suites=["structure"]).text()
        assert "same function" not in said
        assert "Not looked at" in said


def test_a_pass_that_fails_behind_the_target_has_looked_at_no_output(monkeypatch):
    """The stages are compared; the outputs of the baseline could not be."""
    plain = printed(Altered(dict))

    def fail(*_arguments):
        raise KeyError("nothing")

    monkeypatch.setattr(TorchModel, "every_output", fail)
    record = printed(Altered(dict))
    assert any("KeyError" in clause for clause in not_looked_at(record))
    assert [f.verdict for f in found(plain, record)] == [
        RegressionVerdict.same,
        RegressionVerdict.unmeasured,
    ]


def file_of(path, sign=1.0, largest=True):
    """An ONNX file: scores, the places of the two largest (or smallest), a label, and a map."""
    weight = numpy_helper.from_array(
        np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32), "w"
    )
    head = numpy_helper.from_array(np.full(1, sign, np.float32), "sign")
    two = numpy_helper.from_array(np.array([2], np.int64), "two")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["y"], ["p"]),
        helper.make_node("Flatten", ["p"], ["scores"]),
        helper.make_node("Mul", ["y", "sign"], ["map"]),
        helper.make_node("TopK", ["scores", "two"], ["_", "places"], largest=int(largest)),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 8]),
        helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", 8, 16, 16]),
        helper.make_tensor_value_info("places", TensorProto.INT64, ["n", 2]),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    graph = helper.make_graph(nodes, "g", [image], outputs, [weight, head, two])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def test_all_outputs_of_a_file_are_compared_floats_by_difference_and_indices_by_equality(tmp_path):
    """A map that was negated and other places of TopK are named, all of them; the scores agree."""
    first = file_of(tmp_path / "a.onnx")
    alike = compare(first, file_of(tmp_path / "b.onnx"), suites=["structure"])
    assert "b.onnx gives the outputs of a.onnx exactly" in " ".join(alike.text().split())
    same = alike.pairs[0]
    assert {p.first: p.difference for p in same.stages if p.output} == {
        "scores": 0.0, "map": 0.0, "places": 0.0,
    }  # fmt: skip
    changed = compare(first, file_of(tmp_path / "c.onnx", sign=-1.0), suites=["structure"])
    assert "diverge at output `map`" in " ".join(changed.text().split())
    assert "same function" not in changed.text()
    places = compare(first, file_of(tmp_path / "d.onnx", largest=False), suites=["structure"])
    differs = [(p.first, p.difference) for p in places.pairs[0].stages if p.exceeds(1e-3)]
    assert differs == [
        ("places", 1.0)
    ]  # both places are others; parts without entries do not count


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_outputs_of_an_export_pair_with_those_of_its_module_by_order(tmp_path):
    """A tuple has places, a file has names; the file of a module agrees in all of them."""
    module = Many(tuple_of).eval()
    path = tmp_path / "many.onnx"
    torch.onnx.export(module, torch.rand(1, 3, 48, 48), path, dynamo=False,
                      input_names=["x"], output_names=["age", "sex", "mask"])  # fmt: skip
    file = load(str(path), device="cpu")
    model = wrap(module, name="many", spec=file.spec, device="cpu")
    stages = compare(model, file, suites=["structure"]).pairs[0].stages
    pairs = [(p.first, p.second) for p in stages if p.output]
    assert pairs == [("[0]", "age"), ("[1]", "sex"), ("[2]", "mask")]
    assert max(p.difference for p in stages) < 1e-5


def test_texts_numbers_and_mappings_of_numbers_become_tensors():
    """Labels, counts and what ZipMap gives; complex values are pairs, None is left out."""
    value = [np.array(["cat", "dog"]), 3, [{0: 0.25, 1: 0.75}], torch.ones(2) * 1j, None, True]
    read = every_output(value)
    assert read.unread == {}
    assert bytes(read.tensors["[0]"].tolist()) == b"cat\0dog\0"
    assert read.tensors["[1]"].item() == 3
    assert read.tensors["[2][0]"].tolist() == [0.25, 0.75]
    assert read.tensors["[3]"].shape == (2, 2)
    assert set(read.tensors) == {"[0]", "[1]", "[2][0]", "[3]", "[5]"}
    assert every_output(torch.zeros(1)).tensors.keys() == {"output"}
