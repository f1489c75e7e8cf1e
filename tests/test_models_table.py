"""The table of docs/models.md is what the code gives today."""

import pytest
from corpus import CORPUS
from models_table import read, rows

TABLE = read()


def test_the_table_has_every_model_of_the_corpus_twice():
    """The table lists every model as a module of torch, then as an ONNX file."""
    names = [(row["model"], row["route"]) for row in TABLE]
    assert names == [(name, route) for name in CORPUS for route in ("torch", "ONNX")]


@pytest.mark.parametrize("name", CORPUS)
def test_a_row_is_what_an_audit_gives(name, tmp_path):
    """Targets and fields are equal, estimates up to float noise; seconds are only informative."""
    found = rows(name, tmp_path)
    for made, shown in zip(found, (row for row in TABLE if row["model"] == name), strict=True):
        for head in ("model", "route", "target", "field"):
            assert made[head] == shown[head]
        for head in ("ERF", "evenness"):
            assert float(made[head]) == pytest.approx(float(shown[head]), rel=0.05, abs=0.005)


@pytest.mark.parametrize("name", CORPUS)
def test_both_routes_have_the_same_numbers(name):
    """Both routes have equal published numbers; a batch exported for good has no structure."""
    torch, onnx = (row for row in TABLE if row["model"] == name)
    assert onnx["field"] in (torch["field"], "n/a")
    for head in ("ERF", "evenness"):
        assert float(torch[head]) == pytest.approx(float(onnx[head]), rel=0.01, abs=0.001)
