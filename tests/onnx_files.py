"""Small ONNX graphs for the tests, written node by node."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def node(op, inputs, outputs, domain="", **attributes):
    return helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes)


def model(nodes, constants, *, dims, outputs, opset=20, dtype=TensorProto.FLOAT, out_dims=None):
    """A graph with one input `image` of shape `dims`; constants are arrays by name."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", dtype, dims)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, out_dims) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def weights(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def convnet(*, batch="batch", size=32, channels=3, opset=20):
    """Two strided odd-kernel convolutions, a ReLU between, then mean and a linear layer."""
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["map"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w3"], ["logits"]),
    ]
    constants = {
        "w1": weights(8, channels, 3, 3),
        "w2": weights(6, 8, 3, 3, seed=1),
        "w3": weights(6, 5, seed=2),
    }
    dims = [batch, channels, size, size]
    return model(nodes, constants, dims=dims, outputs=["logits"], opset=opset, out_dims=[batch, 5])


def save(proto, path) -> str:
    Path(path).write_bytes(proto.SerializeToString())
    return str(path)


def read(path):
    return onnx.load_model(path)
