"""Time of suites over that of their bare passes and of other references; `tox -e speed`."""

from functools import partial

import pytest
import torch

from perimetry.adapters.load import load
from perimetry.adapters.meta_forward import ShapesOnly
from perimetry.bench.execution.settings import BATCH
from perimetry.bench.speed.measure import collect_maps, open_bench
from perimetry.bench.speed.stopwatch import peak_of
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps
from perimetry.suites.registry import SUITES

IMAGES = 8
"""Few: fixed costs weigh more than in an audit, so the bound on the overhead is strict."""


@pytest.fixture(scope="module")
def resnet50():
    model = load("timm:resnet50@init", device="cpu", members=1)
    images = open_images("dead-leaves", IMAGES).load(model.spec)
    model.select(0, model.spec.prepare(images[:2]))
    return model, images


def bare_passes(model, images, probes, batch):
    """One forward pass, and a backward pass per probe, at full batch and nothing else."""
    x = model.spec.prepare(images)
    for chunk in x.split(batch):
        chunk = chunk.detach().requires_grad_()
        target = model.run(chunk).target
        for probe in probes:
            torch.autograd.grad(target.sum(), chunk, retain_graph=probe is not probes[-1])


@pytest.mark.parametrize("name", ["erf", "deadpixel"])
def test_a_suite_costs_little_over_its_bare_passes(resnet50, name, time_ratio):
    """At most 1.25 times one forward pass and one backward pass per probe."""
    model, images = resnet50
    suite, context = SUITES[name], Context(images)
    probes = suite.probes(model, "energy", 0)

    def audit():
        maps = gradient_maps(model, images, probes, batch=BATCH["cpu"]).maps
        suite.measure(model, "energy", maps, context)

    assert time_ratio(audit, lambda: bare_passes(model, images, probes, BATCH["cpu"])) < 1.25


def test_structure_of_resnet50(benchmark):
    """The time to open a ResNet-50 and to compute its expected sensitivity is recorded."""
    suite = SUITES["structure"]
    context = Context(torch.zeros(0, 3, 224, 224))

    def audit():
        model = load("timm:resnet50@init", device="cpu", members=1)
        return suite.measure(model, "expected", {}, context)

    found = benchmark.pedantic(audit, rounds=3, warmup_rounds=1)
    assert found.metrics["weakest"].value > 0


def test_time_grows_with_images_in_proportion_and_memory_does_not(time_ratio):
    """Twice the images: less than three times the time; the peak is that of one batch."""
    jobs = []
    for count in (16, 8):
        bench = open_bench(
            "timm:resnet18@init", device="cpu", count=count, batch=4, size=(128, 128)
        )
        jobs.append(partial(collect_maps, bench, SUITES["deadpixel"]))
    assert time_ratio(*jobs) < 3
    many, few = (peak_of(job, "cpu") for job in jobs)
    assert few > 4
    assert many < 1.5 * few + 16


def test_shapes_without_numbers_are_faster_than_on_the_meta_device(time_ratio):
    """A pass of EfficientNet with `ShapesOnly` takes less than 1 / 1.3 of torch's own time."""
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

    assert time_ratio(quick, plain, rounds=4) < 1 / 1.3


def test_an_attention_bias_costs_structure_little(time_ratio):
    """Relative positions take less than four times as long as the same network without them."""
    context = Context(torch.zeros(0, 3, 384, 384))
    suite = SUITES["structure"]

    def job(name):
        model = load(f"timm:{name}@init", device="cpu")
        return lambda: suite.measure(model, "expected", {}, context)

    assert time_ratio(job("beit_base_patch16_384"), job("vit_base_patch16_384")) < 4
