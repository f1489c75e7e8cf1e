"""Parameters, MACs and library of a model: in records, on boards, the same for every runtime."""

import json
from pathlib import Path

import pytest
from corpus import CORPUS, built, exported
from torch import nn

from perimetry import audit, leaderboard
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.model_report.provenance import provenance
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.records.record import Record
from perimetry.suites.registry import SUITES

DATA = Path(__file__).parent / "data"
COUNTED = [n for n in CORPUS if not n.startswith("text reader") and not n.startswith("DETR")]


def net(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 16, 3, 2, 1, groups=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def test_macs_and_parameters_are_those_of_the_formula():
    """MACs are kernel entries times outputs plus the linear layer; parameters include biases."""
    found = wrap(net(), spec=InputSpec(32, 48), device="cpu").complexity
    assert found.macs == 27 * 8 * 16 * 24 + 9 * 4 * 16 * 8 * 12 + 16 * 5
    assert found.parameters == (27 * 8 + 8) + (9 * 4 * 16 + 16) + (16 * 5 + 5)


def test_kernel_padding_counts_its_own_taps():
    """3 x 3 kernels at stride 2 become 4 x 4."""
    model = wrap(net(), spec=InputSpec(32, 48), device="cpu").padded("zero")
    assert model.complexity.macs == 48 * 8 * 16 * 24 + 16 * 4 * 16 * 8 * 12 + 16 * 5
    assert model.resized(64, 48).complexity.macs > 1.9 * model.complexity.macs - 80


def test_attention_counts_both_products():
    """Attention counts both products of matrices besides its four projections."""
    model = load("timm:vit_tiny_patch16_224@init", device="cpu", members=1)
    tokens, dim, depth = 197, 192, 12
    block = 12 * tokens * dim * dim + 2 * tokens * tokens * dim
    assert model.complexity.macs == 196 * dim * 768 + depth * block + dim * 1000


@pytest.mark.parametrize("name", COUNTED)
def test_a_file_has_as_many_macs_as_its_module(name, tmp_path):
    """The exporter folds batch norms, whose parameters are the only ones that it saves."""
    spec = InputSpec(*CORPUS[name].size)
    module = wrap(built(name), spec=spec, device="cpu").complexity
    file = open_onnx(exported(name, tmp_path), device="cpu", spec=spec).complexity
    assert file.macs == module.macs
    assert 0.9 * module.parameters < file.parameters <= module.parameters


def test_layers_that_nothing_counts_leave_macs_unknown(tmp_path):
    """A model with an LSTM has no number of MACs, as a module and as a file."""
    spec = InputSpec(*CORPUS["text reader"].size)
    module = wrap(built("text reader"), spec=spec, device="cpu").complexity
    file = open_onnx(exported("text reader", tmp_path), device="cpu", spec=spec).complexity
    assert module.macs is None
    assert file.macs is None
    assert module.parameters > 0


@pytest.fixture(scope="module")
def records():
    """Two models of different widths, and a record of an older schema."""
    options = {"size": (32, 32), "device": "cpu"}
    found = []
    for width in (16, 8):
        model = wrap(net(width), name=f"net{width}", spec=InputSpec(32, 32), device="cpu")
        found += audit(model, ("structure",), **options)
    old = Record.model_validate(json.loads((DATA / "record-4.json").read_text()))
    return [*found, old]


def test_records_have_sizes_and_the_library(records):
    """A module of one's own is built by torch; a record of schema 4 has none of them."""
    assert records[0].model.macs > records[1].model.macs > 0
    assert records[0].model.library.startswith("torch ")
    assert records[2].model.macs is None
    timm = load("timm:resnet18@init", device="cpu", members=1)
    assert timm.source["library"] == f"timm {timm.source['timm']}"


def test_a_board_sorts_by_size_and_shows_it(records):
    """The smallest model first; what has no size comes last and says so."""
    frame = leaderboard(records[:2], sort="model.macs")
    assert list(frame["model"]) == ["net8", "net16"]
    assert list(frame["rank"]) == [1, 2]
    assert frame["model.macs"][0] == records[1].model.macs
    assert "coarsest" in frame["model.reason"][0]
    plain = records[0].model.model_copy(update={"parameters": None, "macs": None, "reference": "x"})
    unsized = records[0].model_copy(update={"model": plain})
    text = render_board(Board([*records[:2], unsized], sort="model.parameters"), "md")
    assert "parameters" in text
    assert "older release" in text
    assert "Measured: the last map of the coarsest resolution" in text


def test_show_says_size_target_and_why(records):
    """The facts of a model have them; those of an older record have what there is."""
    for record in records:
        facts = " ".join(str(block) for block in provenance([record], SUITES))
        assert ("MACs for one image" in facts) == (record.model.macs is not None)
        assert ("coarsest resolution" in facts) == (record.schema_version == 5)
        assert "Target: name" in facts
