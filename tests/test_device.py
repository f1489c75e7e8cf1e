"""What a GPU changes in this package, as far as it shows without one."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from perimetry import audit
from perimetry.adapters import device
from perimetry.adapters.device import (
    full_precision,
    is_usable,
    pick_device,
    ran_out_of_memory,
)
from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.session import cuda_options
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.passes import ModulePasses
from perimetry.bench.execution.engines import worker
from perimetry.bench.records.environment import environment, reset_peaks
from perimetry.suites.measuring.batching import Batching

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


def arithmetic():
    cudnn = torch.backends.cudnn
    return cudnn.allow_tf32, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()


def test_on_a_gpu_float32_is_float32_and_kernels_are_deterministic():
    """TF32 is off and deterministic kernels are on inside the context, and only there."""
    before = arithmetic()
    with full_precision(CUDA):
        assert arithmetic() == (False, True, True)
    assert arithmetic() == before


def test_settings_come_back_after_an_error():
    """The context restores torch's settings when what it surrounds fails."""
    before = arithmetic()
    with pytest.raises(ZeroDivisionError), full_precision("cuda:1"):
        raise ZeroDivisionError
    assert arithmetic() == before


def test_a_cpu_computes_as_before():
    """Nothing is set for passes on the CPU."""
    before = arithmetic()
    with full_precision("cpu"):
        assert arithmetic() == before


def test_the_environment_names_the_precision_in_force():
    """A record made inside the context says so, also where the machine was described before."""
    outside = environment().precision
    with full_precision(CUDA):
        inside = environment().precision
    assert (inside["cudnn_tf32"], inside["deterministic"]) == ("False", "True")
    assert environment().precision == outside


def test_a_gpu_is_looked_up_without_taking_memory_of_it(monkeypatch):
    """No tensor is made on it: a process that only starts workers has no CUDA context."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", None)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError):
        pick_device("cuda:2")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
    ],
)
def test_every_form_of_memory_that_runs_out_is_known(error):
    """Each form of an out-of-memory error is recognised, also as the cause of another."""
    assert ran_out_of_memory(error)
    outer = InputError("onnxruntime cannot run inputs")
    outer.__cause__ = error
    assert ran_out_of_memory(outer)
    assert not ran_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


class Allocation:
    """Stands for a tensor that an attempt made."""


def test_nothing_of_a_failed_attempt_is_alive_when_the_smaller_batch_runs(monkeypatch):
    """The traceback of the error is gone by then, without the garbage collector's help."""
    alive: list[weakref.ref[Allocation]] = []
    seen = []

    def attempt(chunk: slice) -> int:
        seen.append([ref() is not None for ref in alive])
        made = Allocation()
        alive.append(weakref.ref(made))
        if chunk.stop - chunk.start > 2:
            raise torch.OutOfMemoryError("too much")
        return chunk.stop

    gc.disable()
    try:
        batching = Batching(8, CPU)
        assert batching.run(8, attempt) == [2, 4, 6, 8]
    finally:
        gc.enable()
    assert seen[:3] == [[], [False], [False, False]]
    assert len(batching.notes) == 2


def test_memory_that_runs_out_for_one_input_is_an_error():
    """Out of memory at a batch of 1 is an error, since no smaller batch exists."""

    def attempt(chunk: slice) -> None:
        raise torch.OutOfMemoryError("too much")

    with pytest.raises(torch.OutOfMemoryError):
        Batching(4, CPU).run(4, attempt)


def test_a_lost_device_ends_the_worker_and_no_record_is_blamed_for_it(monkeypatch, capsys):
    """After a fault in a kernel CUDA refuses all later work of the process."""
    record = SimpleNamespace(why="illegal memory access")
    monkeypatch.setattr(device, "is_usable", lambda _device: False)
    with pytest.raises(SystemExit) as end:
        worker._end_with_device("cuda:0", record)
    assert end.value.code == worker.DEVICE_LOST
    assert "illegal memory access" in capsys.readouterr().err


def test_a_device_that_answers_goes_on(monkeypatch):
    """A device that synchronises is used further, and one that fails to is not."""
    worker._end_with_device("cpu", SimpleNamespace(error=None))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    assert is_usable("cuda:0")

    def lost(_device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert not is_usable("cuda:0")


def test_peaks_are_reset_in_a_process_that_has_not_used_its_gpu_yet(monkeypatch):
    """CUDA is initialised first: before that torch has no statistics to reset."""
    calls = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(device))
    reset_peaks("cuda:0")
    assert calls == ["init", "cuda:0"]


def test_onnxruntime_computes_on_a_gpu_as_torch_does_here():
    """On the same GPU, in float32, with kernels that do not depend on a timing."""
    found = cuda_options(torch.device("cuda:3"))
    assert found["device_id"] == "3"
    assert found["use_tf32"] == "0"
    assert found["cudnn_conv_algo_search"] == "HEURISTIC"


USED: list[weakref.ref[nn.Module]] = []
"""Every module that made a pass."""


class Fragile(nn.Module):
    """A convolution of weights `weight`; passes over more than two images fail if `broken`."""

    def __init__(self, weight: float, broken: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        nn.init.constant_(self.conv.weight, weight)
        self.broken = broken

    def forward(self, x):
        USED.append(weakref.ref(self))
        if self.broken and len(x) > 2:
            raise RuntimeError("planted")
        return self.conv(x)


@pytest.mark.parametrize(("weight", "broken"), [(1.0, True), (0.0, False)])
def test_an_audit_frees_its_model_after_a_failure_or_a_refusal(weight, broken):
    """No error or traceback keeps it, so its memory is free without a run of the collector."""
    USED.clear()
    own = wrap(Fragile(weight, broken), spec=InputSpec(32, 32), device="cpu")
    gc.collect()
    gc.disable()
    try:
        records = audit(own, ("erf:all", "deadpixel:energy", "padding"), count=4, device="cpu")
        del own
        assert not [ref for ref in USED if ref() is not None]
    finally:
        gc.enable()
    assert {record.status for record in records} & {"failed", "skipped"}


@pytest.mark.parametrize("suite", ["padding", "fidelity", "perturbation", "deadpixel", "erf"])
def test_every_suite_halves_its_batches_when_memory_runs_out(monkeypatch, suite):
    """Passes over more than three images fail; the maps stay, and the record says it."""
    run_each = ModulePasses.run_each

    def small(self, module, x, grids, **options):
        if len(x) > 3:
            raise torch.OutOfMemoryError("too much")
        return run_each(self, module, x, grids, **options)

    few = {"comb_draws": 2, "noise_draws": 2, "block": 2, "attack_images": 1}
    options = {"perturbation": few, "padding": {"grid": 4, "exchange": ("reflect",)}}
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    wanted = (net, (suite,), ("box",))
    chosen = {"count": 5, "size": (32, 32), "device": "cpu", "options": options, "batch": 5}
    expected = next(r for r in audit(*wanted, **chosen) if r.suite == suite)
    monkeypatch.setattr(ModulePasses, "run_each", small)
    found = next(r for r in audit(*wanted, **chosen) if r.suite == suite)
    assert found.status == expected.status == "ok", found.error
    assert any("out of memory" in note for note in found.notes)
    assert not any("out of memory" in note for note in expected.notes)
    for name, value in expected.metrics.items():
        if value.value is not None:
            assert found.metrics[name].value == pytest.approx(value.value, rel=1e-3, abs=1e-5)
