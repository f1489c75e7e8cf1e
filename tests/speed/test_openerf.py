"""One map of Kim et al. by `perimetry`, by `openerf` and by a plain autograd loop.

The map is the gradient of the channel mean of the central unit, averaged over the input's channels,
rectified and summed over the images, which all three decode from the same files.
"""

import copy
from functools import partial

import numpy as np
import openerf
import pytest
import torch
from PIL import Image

from perimetry.bench.speed.measure import open_bench
from perimetry.suites.erf.suite import ERF
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps

IMAGES, BATCH = 8, 8


@pytest.fixture(scope="module")
def bench():
    """ResNet-50 in its initial state, with eight images."""
    return open_bench("timm:resnet50@init", device="cpu", count=IMAGES, batch=BATCH)


@pytest.fixture(scope="module")
def folder(bench, tmp_path_factory):
    """The images of `bench` as PNG files."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(bench.images):
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}.png")
    return folder


def ours(bench, folder):
    images = open_images(str(folder), IMAGES).load(bench.model.spec)
    probes = ERF.probes(bench.model, "kim2023", 0)
    maps = gradient_maps(bench.model, images, probes, batch=bench.batch).maps
    return maps[probes[0].name].sum(0)


def plain_loop(bench, folder):
    """A first implementation: one image after another."""
    images = open_images(str(folder), IMAGES).load(bench.model.spec)
    total = torch.zeros(images.shape[2:])
    for image in bench.model.spec.prepare(images):
        x = image[None].requires_grad_()
        target = bench.model.run(x).target
        unit = target[0, :, target.shape[2] // 2, target.shape[3] // 2].mean()
        (gradient,) = torch.autograd.grad(unit, x)
        total += gradient[0].mean(0).relu()
    return total.numpy()


def theirs(folder, module):
    return openerf.compute_erf(
        module,
        image_dir=folder,
        target_layer="forward_features",
        device="cpu",
        show_progress=False,
    )


def test_kim2023_is_faster_than_openerf(bench, folder, time_ratio):
    """kim2023 takes less time than OpenERF on the module as timm creates it."""
    module = copy.deepcopy(bench.model.module())
    module = module.to(memory_format=torch.contiguous_format).requires_grad_(True)
    assert time_ratio(partial(ours, bench, folder), partial(theirs, folder, module)) < 1


def test_kim2023_is_faster_than_a_plain_loop(bench, folder, time_ratio):
    """The loop gives the same map, one image at a time."""
    jobs = (partial(ours, bench, folder), partial(plain_loop, bench, folder))
    own, other = (job() for job in jobs)
    assert np.abs(own - other).max() < 1e-3 * other.max()
    assert time_ratio(*jobs) < 1
