"""Files that onnxruntime's own converter wrote in float16 load, whatever it was asked for."""

import onnx
import pytest
import torch
from onnx_files import convnet, save
from onnxruntime.transformers.float16 import convert_float_to_float16

from perimetry import audit
from perimetry.adapters.onnx.opening import open_onnx

OPTIONS = {
    "all in float16": {},
    "float32 at both ends": {"keep_io_types": True},
    "a block in float32": {"keep_io_types": True, "op_block_list": ["GlobalAveragePool", "Gemm"]},
    "clipped constants": {"keep_io_types": True, "min_positive_val": 0.02, "max_finite_val": 2.0},
}


def converted(name):
    return convert_float_to_float16(convnet(), **OPTIONS[name])


@pytest.mark.filterwarnings("ignore:the float32 number:UserWarning")
@pytest.mark.parametrize("name", OPTIONS)
def test_a_converted_file_is_measured_with_gradients(name, tmp_path):
    """Every suite is measured, and the target is within float16 of the weights in the file."""
    path = save(converted(name), tmp_path / "a.onnx")
    for record in audit(path, ("structure", "erf", "perturbation"), count=2, device="cpu"):
        assert record.status == "ok", record.reason or record.error
    opened = open_onnx(path, device="cpu")
    w1, w2 = (torch.tensor(onnx.numpy_helper.to_array(w)).float() for w in kernels(opened.graph))
    x = opened.spec.prepare(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    expected = torch.relu(torch.nn.functional.conv2d(x, w1, stride=2, padding=1))
    expected = torch.nn.functional.conv2d(expected, w2, stride=2, padding=1)
    found = opened.run(x).target
    assert float((found - expected).norm() / expected.norm()) < 2e-3


def kernels(proto):
    return [i for i in proto.graph.initializer if len(i.dims) == 4]
