"""A GPU's memory: batches that are halved, limits of workers, and what failures leave behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_models import SMOOTH, assert_agreement, audit_on, difference, large_net

from perimetry import audit
from perimetry.adapters.device import full_precision
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.runner import run_jobs
from perimetry.bench.execution.settings import RunOptions, Settings
from perimetry.bench.records.store import Store
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import take_gradients
from perimetry.suites.registry import SUITES

SPEC = InputSpec(224, 224, mean=(0.5,) * 3, std=(0.25,) * 3)
IMAGES = 16
"""`large_net` keeps about 100 MB for each of them: 1.6 GB in one batch."""
ROOM_MIB = 1200
MODELS = tuple(f"timm:{name}@init" for name in ("test_resnet", "test_vit", "resnet18", "resnet34"))
SETTINGS = Settings(count=4, members=1)


def allocated() -> int:
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@pytest.mark.needs_cuda("only its allocator has a limit of memory")
def test_a_batch_that_does_not_fit_is_halved_and_the_maps_stay(device, capped):
    """A batch of 16 in the memory of about ten images is halved, and the maps stay the same."""
    model = wrap(large_net(), name="large", spec=SPEC, device=device)
    model.module()
    probes = DEADPIXEL.probes(model, "energy", 0)
    images = open_images("noise", IMAGES).load(SPEC)
    with full_precision(device):
        expected = take_gradients(model, images, probes, batch=2)
        capped(ROOM_MIB)
        found = take_gradients(model, images, probes, batch=IMAGES)
    assert not expected.notes
    assert found.batch < IMAGES
    assert any("out of memory" in note for note in found.notes)
    for name, maps in expected.maps.items():
        assert difference(found.maps[name], maps) <= SMOOTH


@pytest.mark.needs_cuda("only its allocator has a limit of memory")
def test_forward_passes_are_halved_too(device, capped):
    """Suites without gradients say in their records that the batch was lowered."""
    capped(700)
    (record,) = audit_on(
        large_net(), device, ("padding",), size=(224, 224), batch=64, count=8, name="large"
    )
    assert record.status == "ok", record.error
    assert any("out of memory" in note for note in record.notes)


@pytest.mark.needs_cuda("memory of a GPU")
def test_one_image_too_many_is_a_failed_record_and_frees_its_memory(device, capped):
    """If not even one image fits, the record fails with that reason and no memory stays in use."""
    torch.ones(1, device=device)
    before = allocated()
    capped(100)
    (record,) = audit_on(
        large_net(), device, ("deadpixel:energy",), size=(448, 448), count=2, name="large"
    )
    assert record.status == "failed"
    assert "out of memory" in record.error.message.lower()
    assert allocated() - before < 64 * 2**20  # libraries keep a workspace


class Planted(torch.nn.Module):
    """`large_net`, whose passes over four images fail at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = large_net()

    def forward(self, x):
        out = self.net(x)
        if len(x) >= 4:
            raise RuntimeError("planted")
        return out


@pytest.mark.needs_cuda("memory of a GPU")
def test_an_audit_frees_its_memory_after_an_exception(device):
    """About 400 MB were in use when it was raised."""
    torch.ones(1, device=device)
    before = allocated()
    (record,) = audit_on(Planted(), device, ("deadpixel:energy",), size=(224, 224), name="planted")
    assert record.status == "failed"
    assert "planted" in record.error.message
    assert allocated() - before < 64 * 2**20


def sweep(folder, options, models=MODELS, suites=("erf:energy", "deadpixel:energy")):
    kind = options.device_kind
    jobs = AuditPlan(list(models), suites, ("none",), SETTINGS, kind, SUITES).jobs()
    store = Store(folder)
    run_jobs(jobs, store, SETTINGS, options)
    return list(store.records())


def test_two_workers_on_one_device_measure_what_one_process_measures(device, tmp_path):
    """Two workers give the numbers of four models that this process gives."""
    models = MODELS if device != "cpu" else MODELS[:2]
    options = RunOptions(device=device, workers=2)
    found = {(r.model.reference, r.suite): r for r in sweep(tmp_path, options, models)}
    assert len(found) == 2 * len(models)
    for name in models:
        expected = audit(name, ("erf:energy", "deadpixel:energy"), device=device, **vars(SETTINGS))
        own = [found[name, r.suite] for r in expected]
        assert_agreement(own, expected, 2e-2)  # threads and kernels may differ, and kinks move


@pytest.mark.needs_cuda("on a CPU the limit is that of the process")
def test_a_worker_keeps_to_its_limit_of_memory(device, tmp_path):
    """A worker limited to 1 GiB measures ResNet-34 with 64 images in smaller batches."""
    global_settings = replace(SETTINGS, count=64)
    jobs = AuditPlan(
        ["timm:resnet34@init"],
        ("deadpixel:energy",),
        ("none",),
        global_settings,
        "cuda",
        SUITES,
    ).jobs()
    store = Store(tmp_path)
    run_jobs(
        jobs, store, global_settings, RunOptions(device=device, batch=64, memory_limit_mib=1024)
    )
    (record,) = store.records()
    assert record.status == "ok", record.error
    assert record.timing.peak_device_memory_mib <= 1024
    assert any("out of memory" in note for note in record.notes)
