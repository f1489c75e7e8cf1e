"""ONNX files on a GPU: gradients by the interpreter, forward passes by onnxruntime's provider."""

from __future__ import annotations

import pytest
import torch
from gpu_models import DOUBLE, SUITES, compare, difference, onnx_net

ort = pytest.importorskip("onnxruntime")

from perimetry.adapters.load import load  # noqa: E402 - the adapter needs onnxruntime

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """`onnx_net` as a file."""
    path = tmp_path_factory.mktemp("gpu") / "smooth.onnx"
    path.write_bytes(onnx_net().SerializeToString())
    return str(path)


def test_gradients_of_a_file_are_the_cpus(device, file):
    """Gradients of a file in float64 equal the CPU's, and the check against onnxruntime passes."""
    suites = ("structure", "erf:energy", "deadpixel:energy")
    found = compare(file, device, suites, DOUBLE, precision="float64")
    assert {record.status for record in found} == {"ok"}


def test_every_suite_measures_a_file(device, file):
    """Every suite gives the CPU's numbers of a file on the device within 1e-2."""
    found = compare(file, device, SUITES, 1e-2)
    assert {record.status for record in found} <= {"ok", "skipped"}


def test_outputs_of_a_file_are_the_cpus_and_stay_on_the_device(device, file):
    """The outputs of a file equal the CPU's, and their tensors stay on the device."""
    ours, expected = (load(file, device=d) for d in (device, "cpu"))
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = ours.run(x.to(device), logits=True)
    assert found.target.device.type == torch.device(device).type
    other = expected.run(x, logits=True)
    assert difference(found.target.cpu(), other.target) < 1e-5
    assert difference(found.logits.cpu(), other.logits) < 1e-5


@pytest.mark.needs_cuda("onnxruntime's CUDA provider")
def test_onnxruntime_runs_on_the_provider_that_was_requested(device, file):
    """Requested and received; on a fallback the model's notes would say so."""
    if CUDA not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider: onnxruntime-gpu is not installed")
    model = load(file, device=device)
    assert model.source["requested_provider"] == CUDA
    assert model.source["provider"] == CUDA, model.notes
    session = model._session((model.target.name,))
    x = torch.rand(2, 3, 64, 64, device=device)
    found = session.run_tensors({model.image: x})
    assert session.place.type == "cuda"
    assert found[model.target.name].is_cuda
    again = session.run_tensors({model.image: x})
    assert torch.equal(found[model.target.name], again[model.target.name])
