"""Every operator of the interpreter against the ONNX backend's own node tests."""

import collections
import warnings

import numpy as np
import onnx2fx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import model, node, weights

from perimetry.adapters.errors import ModelFileError, NotApplicableError
from perimetry.adapters.onnx_graph import Mode
from perimetry.adapters.onnx_interpreter import Interpreter
from perimetry.adapters.onnx_ops import OPERATORS

STANDARD = sorted(op for op in OPERATORS if ":" not in op)

DECLINED = {
    "Attention": "is not implemented",
    "BatchNormalization": "training mode",
    "DequantizeLinear": "block quantisation",
    "Dropout": "training mode",
    "If": "Sequence",
    "Loop": "Sequence",
    "LSTM": "this variant",
    "MaxPool": "index output",
    "QuantizeLinear": "quantisation",
    "Resize": "Resize with|aspect ratio|coordinate",
    "ScatterElements": "reduction",
    "ScatterND": "reduction",
}
"""Operators some of whose variants are refused, and what the refusal says."""

NO_VALUES = {"test_reduce_max_empty_set", "test_reduce_min_empty_set"}
"""Cases over no values at all, which torch refuses."""

ROUNDING = {"test_dynamicquantizelinear"}
"""Exact ties of float32 rounding, one level apart in float64."""


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators divide by zero on purpose
        from onnx.backend.test.case.node import collect_testcases

        found = collections.defaultdict(list)
        for case in collect_testcases(None):
            if not case.model.functions and _numeric(case):
                found[_main_operator(case.model)].append(case)
    return found


def _main_operator(proto):
    ops = [n.op_type for n in proto.graph.node if n.op_type != "Constant"]
    return ops[0] if len(set(ops)) == 1 else ops[-1]


def _numeric(case):
    """Whether torch can hold all tensors of a case; others have no gradient anyway."""
    known = {"float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8"}
    values = [*case.model.graph.input, *case.model.graph.output]
    kinds = [v.type.tensor_type.elem_type for v in values]
    if not all(kinds):
        return False
    names = {helper.tensor_dtype_to_np_dtype(k).name for k in kinds}
    return names <= known and TensorProto.STRING not in kinds


def _run(case, inputs):
    graph = case.model.graph
    names = [i.name for i in graph.input]
    feeds = {n: torch.from_numpy(np.array(x)) for n, x in zip(names, inputs, strict=False)}
    outputs = [o.name for o in graph.output]
    got = Interpreter(case.model, Mode(dtype=torch.float64))(feeds, outputs)
    return [got[name] for name in outputs]


@pytest.mark.parametrize("op", STANDARD)
def test_operator_gives_what_the_onnx_backend_tests_expect(op, cases):
    passed = 0
    for case in cases[op]:
        if case.name in NO_VALUES | ROUNDING or "out_of_range" in case.name:
            continue
        for inputs, expected in case.data_sets:
            try:
                got = _run(case, inputs)
            except NotApplicableError as refusal:
                assert op in DECLINED, (case.name, str(refusal))
                pytest.raises(NotApplicableError, match=DECLINED[op]).__enter__
                continue
            for mine, theirs in zip(got, expected, strict=True):
                theirs = np.asarray(theirs)
                np.testing.assert_allclose(
                    mine.numpy().astype(theirs.dtype), theirs, case.rtol, 1e-5, err_msg=case.name
                )
            passed += 1
    assert passed, f"no backend test for {op}"
