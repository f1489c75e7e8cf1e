"""The numbers of a GPU are those of the CPU, and repeat themselves bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gpu_models import (
    BY_NAME,
    DOUBLE,
    FITTED,
    SMOOTH,
    SPEC,
    SUITES,
    assert_same_bits,
    audit_on,
    compare,
    dense_net,
    difference,
    large_net,
    smooth_net,
)

from perimetry.adapters.device import full_precision
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps, random_signs

GRADIENTS = ("erf:energy", "deadpixel:energy")


def net(spec=SPEC, device="cpu", **options):
    return wrap(smooth_net(), name="smooth", spec=spec, device=device, **options)


@pytest.mark.parametrize("suite", SUITES)
def test_a_module_has_the_cpus_maps_in_float64(device, suite):
    """In float64 the maps of every protocol are those of the CPU up to rounding."""
    compare(smooth_net(), device, (suite,), DOUBLE, precision="float64")


@pytest.mark.parametrize("suite", BY_NAME)
def test_a_decoder_has_the_cpus_maps_in_float64(device, suite):
    """Dense outputs, tiles, shifts, rolled images and pasted boxes, with and without padding."""
    options = {"precision": "float64", "fills": ("none", "box")}
    found = compare(dense_net(), device, (suite,), DOUBLE, **options)
    assert {r.status for r in found} == {"ok"}


@pytest.mark.parametrize("suite", GRADIENTS)
def test_a_module_has_the_cpus_maps_in_float32(device, suite):
    """In float32 a network without kinks has the CPU's maps up to rounding."""
    compare(smooth_net(), device, (suite,), SMOOTH)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_initial_states_of_timm_have_the_cpus_maps(device, name):
    """Two weight sets, calibrated on their device; in float64, since rounding moves kinks."""
    options = {"precision": "float64", "members": 2, "size": (64, 64)}
    compare(f"timm:{name}@init", device, SUITES, DOUBLE, **options)


@pytest.mark.parametrize("fill", ["zero", "box", "fresh", "fit"])
def test_every_kernel_padding_has_the_cpus_maps(device, fill):
    """Kernels are grown on the CPU; `fit` solves for them on the device, in several steps."""
    limit = FITTED if fill == "fit" else DOUBLE
    options = {"precision": "float64", "fills": (fill,), "size": (48, 48)}
    compare(smooth_net(), device, ("structure", *GRADIENTS), limit, **options)


def test_recalibrated_norms_have_the_cpus_maps(device):
    """The moments of the norms' outputs are matched on the device."""
    options = {"precision": "float64", "fills": ("box",), "recalibrate": True}
    compare(smooth_net(), device, GRADIENTS, DOUBLE, **options)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_split_into_batches_changes_nothing_beyond_rounding(device, batch):
    """Batches of one, uneven ones, and one that holds everything."""
    images = open_images("dead-leaves", 7).load(SPEC)
    with full_precision(device):
        runs = [
            gradient_maps(m, images, DEADPIXEL.probes(m, "energy", 0), batch=b).maps
            for m, b in ((net(device=device), batch), (net(device=device), 7))
        ]
    for name, maps in runs[1].items():
        assert difference(runs[0][name], maps) <= SMOOTH


def test_the_same_seed_gives_the_same_bits(device):
    """Each suite gives the same bits twice on convolutions, pools, norms and kinks."""
    options = {"members": 2, "size": (64, 64)}
    assert_same_bits(*(audit_on("timm:test_resnet@init", device, **options) for _ in range(2)))


def test_random_signs_are_the_cpus(device):
    """They are drawn on the CPU, so that every device measures with the same ones."""
    like = torch.empty(3, 5, 7)
    ours = random_signs(like.to(device), [0, 1, 2], seed=3, stream=1)
    assert ours.device.type == torch.device(device).type
    assert torch.equal(ours.cpu(), random_signs(like, [0, 1, 2], seed=3, stream=1))


def test_float32_convolutions_are_not_rounded_to_tf32(device):
    """Convolutions are within 2e-5 of float64; TF32 with its 10 bits would be off by 3e-4."""
    torch.manual_seed(0)
    layer, x = torch.nn.Conv2d(64, 64, 3, padding=1).to(device), torch.randn(4, 64, 32, 32)
    x = x.to(device)
    with torch.no_grad(), full_precision(device):
        found = layer(x)
    with torch.no_grad():
        expected = layer.double()(x.double())
    assert difference(found.cpu(), expected.cpu()) < 2e-5


def test_records_say_how_the_device_computed(device):
    """The environment of a record names the device, and that TF32 was off."""
    (record,) = audit_on(smooth_net(), device, ("deadpixel:energy",))
    assert record.environment.device == torch.device(device).type
    if record.environment.device == "cuda":
        assert record.environment.precision["cudnn_tf32"] == "False"
        assert record.environment.precision["deterministic"] == "True"
        assert record.timing.peak_device_memory_mib > 0


def test_bfloat16_is_close_where_there_are_no_kinks(device):
    """Gradients in 8 bits of mantissa: the mean map differs by a few per cent."""
    spec_images = open_images("dead-leaves", 8).load(SPEC)
    maps = []
    for precision in ("bfloat16", "float32"):
        model = net(device=device, precision=precision)
        probes = DEADPIXEL.probes(model, "energy", 0)
        found = gradient_maps(model, spec_images, probes, batch=8).maps
        maps.append(np.stack(list(found.values())).mean(1))
    gap = difference(*maps)
    assert 1e-5 < gap < 0.1


def test_a_large_batch_of_large_maps_is_the_cpus(device):
    """Layers at full resolution, more than a small cache holds."""
    images = open_images("dead-leaves", 3).load(SPEC)
    maps = []
    for place in (device, "cpu"):
        model = wrap(large_net(3, 16), name="large", spec=SPEC, device=place)
        with full_precision(place):
            found = gradient_maps(model, images, DEADPIXEL.probes(model, "energy", 0), batch=3)
        maps.append(found.maps)
    for name, expected in maps[1].items():
        assert difference(maps[0][name], expected) <= SMOOTH
