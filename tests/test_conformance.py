"""Every suite on every kind of model: declared metrics, in range, or the reason why not."""

import numpy as np
import pytest
import torch
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps
from perimetry.suites.registry import SUITES

SPEC = InputSpec(64, 64, mean=(0.5,) * 3, std=(0.25,) * 3)


def classifier(channels=3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 7),
    )


def onnx_file(folder):
    path = folder / "model.onnx"
    export_onnx(classifier().eval(), torch.randn(2, 3, 64, 64), path, spec=SPEC)
    return load(str(path), device="cpu")


KINDS = {
    "classifier": lambda _folder: wrap(classifier(), spec=SPEC),
    "padded with box": lambda _folder: wrap(classifier(), spec=SPEC).padded("box"),
    "padded with zero": lambda _folder: wrap(classifier(), spec=SPEC).padded("zero"),
    "padded with fresh": lambda _folder: wrap(classifier(), spec=SPEC).padded("fresh"),
    "one channel": lambda _folder: wrap(
        classifier(1), spec=InputSpec(64, 64, channels=1, mean=(0.5,), std=(0.5,))
    ),
    "no spatial map": lambda _folder: wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5)), spec=SPEC
    ),
    "no logits": lambda _folder: wrap(nn.Conv2d(3, 4, 3, 2, 1), spec=SPEC),
    "stride 1": lambda _folder: wrap(nn.Conv2d(3, 4, 3, 1, 1), spec=SPEC),
    "not square": lambda _folder: wrap(
        classifier(), spec=InputSpec(64, 96, mean=(0.5,) * 3, std=(0.25,) * 3)
    ),
    "initial states": lambda _folder: load("timm:test_resnet@init", device="cpu", members=4),
    "tokens": lambda _folder: load("timm:test_vit@init", device="cpu", members=4),
    "onnx": onnx_file,
    "onnx padded with box": lambda folder: onnx_file(folder).padded("box"),
}
CASES = [(name, protocol) for name, suite in SUITES.items() for protocol in suite.protocols]
UNTREATED = [kind for kind in KINDS if "padded" not in kind]
SKIPPED = {
    "structure": ["no spatial map"],
    "erf": ["no spatial map"],
    "deadpixel": ["no spatial map"],
    "padding": ["no spatial map"],
    "perturbation": [],
    "fidelity": UNTREATED,
    "halo": ["no spatial map"],
    "output": list(KINDS),
    "shift": [],
    "frequency": ["no spatial map"],
    "position": ["no spatial map"],
    "objects": [],
    "training": list(KINDS),
}
"""By suite, the kinds of model to which it does not apply."""
WITHOUT_FOLDER = [("objects", "cutouts")]
"""Protocols that need a folder of the user's, and skip every model without one."""
REFUSED = {
    ("deadpixel", "kim2023"): (["no logits", "stride 1"], "gives no logits"),
    ("erf", "kim2023"): (["tokens"], "always sum to 0"),
    ("erf", "luo2016"): (["tokens"], "always sum to 0"),
}
"""By suite and protocol, the kinds of model that have no such gradient, and the reason."""
WITHOUT_HEADLINE = {name: ["stride 1"] for name in ("structure", "deadpixel", "perturbation")}
WITHOUT_HEADLINE["shift"] = ["stride 1", "no logits"]
"""Kinds of model whose headline is missing with a reason: they have no phases, or no logits."""


def skipped(name, protocol):
    """The kinds of model to which a protocol does not apply."""
    return list(KINDS) if (name, protocol) in WITHOUT_FOLDER else SKIPPED[name]


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind, tmp_path_factory):
    return KINDS[kind](tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_a_suite_skips_exactly_the_models_it_does_not_apply_to(kind, model, name, protocol):
    """`skip` gives a reason for the kinds in `SKIPPED` and None for all others."""
    assert (SUITES[name].skip(model, protocol) is not None) == (kind in skipped(name, protocol))


@pytest.mark.parametrize(("name", "protocol"), CASES)
def test_a_suite_reports_every_metric_it_declares_or_the_reason_why_not(
    kind, model, name, protocol
):
    """Every applicable suite gives all its metrics, in their range, or the known refusal."""
    if kind in skipped(name, protocol):
        return
    suite = SUITES[name]
    images = open_images("dead-leaves", 4).load(model.spec)
    probes = suite.probes(model, protocol, 0)
    kinds, reason = REFUSED.get((name, protocol), ([], ""))
    if kind in kinds:
        with pytest.raises(NotApplicableError, match=reason):
            gradient_maps(model, images, probes, batch=4)
        return
    maps = gradient_maps(model, images, probes, batch=4).maps if probes else {}
    found = suite.measure(model, protocol, maps, Context(images, draws=20, batch=4))
    assert set(found.metrics) == {m.name for m in suite.metrics}
    for metric in suite.metrics:
        check(metric, found.metrics[metric.name])
    assert all(np.isfinite(m).all() for m in found.maps.values())
    missing = found.metrics[suite.headline].value is None
    assert missing == (kind in WITHOUT_HEADLINE.get(name, []))


def check(metric, estimate):
    """The estimate has a reason, or lies with its interval in the range of the metric."""
    if estimate.value is None:
        assert estimate.reason
        return
    low = -np.inf if metric.low is None else metric.low
    high = np.inf if metric.high is None else metric.high
    assert low <= estimate.value <= high, metric.name
    if estimate.low is not None:
        assert low <= estimate.low <= estimate.value, metric.name
    if estimate.high is not None:  # an end that is not finite is left open
        assert estimate.value <= estimate.high <= high, metric.name
