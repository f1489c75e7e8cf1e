"""Sessions: tensors bound where they lie, the provider that really runs, threads and devices."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from onnx_files import convnet, node, save

from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx import session as onnx_session
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.session import CPU, CUDA, Session, bind, feed, shaped

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Recorder:
    """Takes what would be bound."""

    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def bind_input(self, name, *where):
        self.inputs[name] = where

    def bind_output(self, name, *where):
        self.outputs[name] = where


def test_bound_tensors_give_what_arrays_give_bit_for_bit():
    """Bound outputs equal those of plain arrays, in the order asked for."""
    session = Session(convnet(), ["map", "logits"])
    arrays, tensors = session.run({"image": X.numpy()}), session.run_tensors({"image": X})
    assert list(tensors) == ["map", "logits"]
    for name, value in tensors.items():
        assert np.array_equal(value.numpy(), arrays[name])


def test_views_with_other_strides_and_inputs_with_gradients_are_bound_by_value():
    """A permuted view that requires gradients gives the same output."""
    session = Session(convnet(), ["map"])
    last = X.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).requires_grad_()
    assert torch.equal(
        session.run_tensors({"image": last})["map"], session.run_tensors({"image": X})["map"]
    )


def test_outputs_outlive_their_session_and_later_runs():
    """An output does not change when the session runs again or is deleted."""
    session = Session(convnet(), ["map"])
    first = session.run_tensors({"image": X})["map"]
    copy = first.clone()
    session.run_tensors({"image": 1 - X})
    del session
    assert torch.equal(first, copy)


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:3", 3), ("cpu", 0)])
def test_inputs_and_outputs_are_bound_on_the_device_of_the_session(device, number):
    """Type, number, element type, shape and address, so that nothing passes through the host."""
    place, recorder = torch.device(device), Recorder()
    half = X.half()
    bind(recorder, {"image": X, "other": half}, ["map"], place)
    kind = place.type
    assert recorder.outputs == {"map": (kind, number)}
    assert recorder.inputs == {
        "image": (kind, number, np.float32, [2, 3, 32, 32], X.data_ptr()),
        "other": (kind, number, np.float16, [2, 3, 32, 32], half.data_ptr()),
    }


class Opened:
    """Stands for onnxruntime's session: remembers what was asked for, runs on `actual`."""

    asked: dict
    actual: str

    def __init__(self, _data, options, **asked):
        Opened.asked = {**asked, "threads": options.intra_op_num_threads}

    def get_providers(self):
        return [Opened.actual]


@pytest.mark.parametrize(
    ("actual", "place"), [(CUDA, torch.device("cuda", 1)), (CPU, torch.device("cpu"))]
)
def test_the_second_gpu_is_asked_for_by_number_and_a_fallback_is_known(actual, place, monkeypatch):
    """`cuda:1` becomes device_id 1; the actual provider decides the place."""
    loaded = []
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "preload_dlls", lambda: loaded.append(True), raising=False)
    monkeypatch.setattr(ort, "InferenceSession", Opened)
    monkeypatch.setattr(Opened, "actual", actual, raising=False)
    session = Session(convnet(), ["map"], device=torch.device("cuda:1"))
    assert Opened.asked["providers"] == [CUDA, CPU]
    own, other = Opened.asked["provider_options"]
    assert (own["device_id"], other) == ("1", {})
    assert loaded == [True]
    assert (session.provider, session.place) == (actual, place)


def test_cuda_is_not_asked_for_on_the_cpu_and_its_libraries_stay_unloaded(monkeypatch):
    """A session on the CPU does not load the libraries of CUDA."""

    def refuse():
        raise AssertionError("CUDA was loaded")

    monkeypatch.setattr(ort, "preload_dlls", refuse, raising=False)
    session = Session(convnet(), ["map"], device=torch.device("cpu"))
    assert (session.provider, session.place.type) == (CPU, "cpu")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_has_as_many_threads_as_torch(threads, monkeypatch):
    """A worker that shares the cores tells torch; onnxruntime would take all of them."""
    monkeypatch.setattr(onnx_session.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(ort, "InferenceSession", Opened)
    monkeypatch.setattr(Opened, "actual", CPU, raising=False)
    Session(convnet(), ["map"])
    assert Opened.asked["threads"] == threads


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_tensors_are_shaped_as_arrays_are(layout, dtype):
    """Shaping tensors equals the literal way, element by element and rounded for bytes."""
    spec = InputSpec(32, 32, layout=layout, dtype=dtype)
    x = X * 300 - 20 if dtype == "uint8" else X
    ours = shaped(x, spec)
    assert ours.is_contiguous()
    assert np.array_equal(ours.numpy(), feed(x, spec))
    value = x[1, 2, 3, 4].item()
    expected = min(max(round(value), 0), 255) if dtype == "uint8" else np.dtype(dtype).type(value)
    assert ours[(1, 2, 3, 4) if layout == "NCHW" else (1, 3, 4, 2)].item() == expected


def test_what_onnxruntime_cannot_run_is_told_with_its_shape():
    """Five channels instead of three are an InputError with the shape."""
    session = Session(convnet(), ["map"])
    with pytest.raises(InputError, match=r"'image': \[2, 5, 8, 8\]"):
        session.run_tensors({"image": torch.rand(2, 5, 8, 8)})


def test_half_precision_outputs_come_back_as_floats(tmp_path):
    """float16 logits are returned as float32."""
    proto = convnet()
    proto.graph.node.append(node("Cast", ["logits"], ["half"], to=TensorProto.FLOAT16))
    proto.graph.output[0].name = "half"
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    logits = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").run(X, logits=True).logits
    assert logits.dtype == torch.float32
    assert logits.shape == (2, 5)
