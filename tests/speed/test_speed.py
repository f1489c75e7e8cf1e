"""Speed, as ratios within one interleaved run; absolute times are printed, never asserted.

Run with `pytest tests/speed --benchmark-only` for the tables alone.
"""

import time
from pathlib import Path

import numpy as np
import openerf
import pytest
import torch
from PIL import Image

from perimetry.adapters.load import load
from perimetry.bench.devices import BATCH
from perimetry.suites.erf import ERF
from perimetry.suites.gradients import gradient_maps
from perimetry.suites.images import open_images
from perimetry.suites.registry import SUITES
from perimetry.suites.suite import Context

ROUNDS = 2


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
    images = open_images("dead-leaves", 24).load(model.spec)
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
    coarse = load("timm:resnet50@init", device="cpu", members=1, precision="bfloat16")
    coarse.select(0, model.spec.prepare(images[:4]))
    for i, image in enumerate(images):
        pixels = (image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    probes = ERF.probes(model, "kim2023", 0)
    module = model.module()

    def ours(model=model):
        photographs = open_images(str(tmp_path), 24).load(model.spec)
        gradient_maps(model, photographs, probes, batch=BATCH["cpu"])

    def theirs():
        openerf.compute_erf(
            module,
            image_dir=Path(tmp_path),
            target_layer="forward_features",
            device="cpu",
            show_progress=False,
        )

    own, fast, other = fastest(ours, lambda: ours(coarse), theirs, rounds=3)
    print(
        f"\nkim2023, 24 images: {own:.2f} s, bfloat16 {fast:.2f} s, openerf {other:.2f} s: "
        f"{other / own:.2f}x, {other / fast:.2f}x"
    )
    assert other / own > 1


def test_structure_of_resnet50(benchmark):
    suite = SUITES["structure"]
    context = Context(torch.zeros(0, 3, 224, 224))

    def audit():
        model = load("timm:resnet50@init", device="cpu", members=1)
        return suite.measure(model, "expected", {}, context)

    found = benchmark.pedantic(audit, rounds=3, warmup_rounds=1)
    assert found.metrics["weakest"].value > 0
