"""Speed, as ratios within one interleaved run; absolute times are printed, never asserted.

Run with `pytest tests/speed --benchmark-only` for the tables alone.
"""

import time
from functools import partial
from pathlib import Path

import numpy as np
import openerf
import pytest
import torch
from PIL import Image

from perimetry.adapters.load import load
from perimetry.adapters.meta_forward import ShapesOnly
from perimetry.bench.execution.devices import BATCH
from perimetry.bench.speed.measure import collect_maps, open_bench, peak_of
from perimetry.suites.base import Context
from perimetry.suites.erf.suite import ERF
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps
from perimetry.suites.registry import SUITES

ROUNDS = 2
IMAGES = 8
"""All costs but the fixed ones grow with images: few of them ask more of an overhead, not less."""


def fastest(*jobs, rounds=ROUNDS):
    """Shortest time of each job, taken in turn: A B A B ..., after one warm-up of each."""
    times = [[] for _ in jobs]
    for job in jobs:
        job()
    for _ in range(rounds):
        for job, series in zip(jobs, times, strict=True):
            start = time.perf_counter()
            job()
            series.append(time.perf_counter() - start)
    return [min(series) for series in times]


@pytest.fixture(scope="module")
def resnet50():
    model = load("timm:resnet50@init", device="cpu", members=1)
    images = open_images("dead-leaves", IMAGES).load(model.spec)
    model.select(0, model.spec.prepare(images[:2]))
    return model, images


def bare_passes(model, images, probes, batch):
    """The floor: one forward and a backward a probe at full batch, and nothing else."""
    x = model.spec.prepare(images)
    for chunk in x.split(batch):
        chunk = chunk.detach().requires_grad_()
        target = model.run(chunk).target
        for probe in probes:
            torch.autograd.grad(target.sum(), chunk, retain_graph=probe is not probes[-1])


@pytest.mark.parametrize("name", ["erf", "deadpixel"])
def test_a_suite_costs_little_over_its_bare_passes(resnet50, name, record_property):
    model, images = resnet50
    suite, context = SUITES[name], Context(images)
    probes = suite.probes(model, "energy", 0)

    def audit():
        maps = gradient_maps(model, images, probes, batch=BATCH["cpu"]).maps
        suite.measure(model, "energy", maps, context)

    full, bare = fastest(audit, lambda: bare_passes(model, images, probes, BATCH["cpu"]))
    record_property("overhead", full / bare - 1)
    print(f"\n{name}: {full:.2f} s, bare passes {bare:.2f} s, overhead {full / bare - 1:.1%}")
    assert full / bare < 1.25


def test_kim2023_is_faster_than_openerf_on_the_same_images(resnet50, tmp_path):
    model, images = resnet50
    for i, image in enumerate(images):
        pixels = (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    probes = ERF.probes(model, "kim2023", 0)
    module = model.module()

    def ours():
        photographs = open_images(str(tmp_path), IMAGES).load(model.spec)
        gradient_maps(model, photographs, probes, batch=BATCH["cpu"])

    def theirs():
        openerf.compute_erf(
            module,
            image_dir=Path(tmp_path),
            target_layer="forward_features",
            device="cpu",
            show_progress=False,
        )

    own, other = fastest(ours, theirs, rounds=4)
    print(f"\nkim2023: {own:.2f} s, openerf {other:.2f} s: {other / own:.2f}x")
    assert other / own > 1


def test_structure_of_resnet50(benchmark):
    suite = SUITES["structure"]
    context = Context(torch.zeros(0, 3, 224, 224))

    def audit():
        model = load("timm:resnet50@init", device="cpu", members=1)
        return suite.measure(model, "expected", {}, context)

    found = benchmark.pedantic(audit, rounds=3, warmup_rounds=1)
    assert found.metrics["weakest"].value > 0


def test_time_grows_with_images_in_proportion_and_memory_does_not():
    """Twice the images: less than three times the time; the peak is that of one batch."""
    jobs = []
    for count in (8, 16):
        bench = open_bench(
            "timm:resnet18@init", device="cpu", count=count, batch=4, size=(128, 128)
        )
        jobs.append(partial(collect_maps, bench, SUITES["deadpixel"]))
    few, many = fastest(*jobs, rounds=4)
    print(f"\ngradients of 8 images {few:.2f} s, of 16 {many:.2f} s: {many / few:.2f}x")
    assert many / few < 3
    low, high = (peak_of(job, "cpu") for job in jobs)
    print(f"peak of 8 images {low:.0f} MiB, of 16 {high:.0f} MiB")
    assert low > 4
    assert high < 1.5 * low + 16


def test_shapes_are_told_faster_without_computing_them():
    """A pass of EfficientNet without numbers, quick answers against torch's own: at least 1.3x."""
    import timm

    with torch.device("meta"):
        net = timm.create_model("efficientnet_b0").eval()
    x = torch.empty(2, 3, 224, 224, device="meta")

    @torch.no_grad()
    def plain():
        net.forward_features(x)

    def quick():
        with ShapesOnly():
            plain()

    slow, fast = fastest(plain, quick, rounds=4)
    print(
        f"\nwithout numbers: {slow * 1000:.0f} ms, quick {fast * 1000:.0f} ms: {slow / fast:.1f}x"
    )
    assert slow / fast > 1.3


def test_an_attention_bias_costs_structure_nothing():
    """Beside the same network without one, relative positions take at most four times as long."""
    context = Context(torch.zeros(0, 3, 384, 384))
    names = ("beit_base_patch16_384", "vit_base_patch16_384")
    models = [load(f"timm:{name}@init", device="cpu") for name in names]
    suite = SUITES["structure"]
    jobs = [lambda m=m: suite.measure(m, "expected", {}, context) for m in models]
    biased, plain = fastest(*jobs)
    print(f"\nstructure at 384 px: {biased:.2f} s with a bias, {plain:.2f} s without")
    assert biased < 4 * plain
