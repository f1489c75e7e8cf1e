"""Cost of ONNX files as ratios: gradients against torch, a black-box profile against its passes.

Tensors bound on the device are compared with arrays that are copied through the host, too.
"""

import pytest
import torch

from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.onnx.gradient_check.subject import GradientVerdict
from perimetry.adapters.onnx.session import feed, shaped
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.perturbation.suite import Perturbation

PROFILE = 2.5
"""Bound on a profile's cost over its bare passes, with a cheap network.

The passes of a more expensive one would hide the cost of the suite itself.
"""


@pytest.fixture(scope="module", params=["resnet50", "mobilenetv3_small_100"])
def exported(request, tmp_path_factory):
    """One initial state as a torch module and as the file exported from it, and eight images."""
    model = load(f"timm:{request.param}@init", device="cpu", members=1)
    images = open_images("dead-leaves", 8).load(model.spec)
    x = model.spec.prepare(images)
    model.select(0, x)
    path = tmp_path_factory.mktemp("speed") / "model.onnx"
    export_onnx(model.module(), torch.zeros_like(x[:1]), path, spec=model.spec)
    file = load(str(path), device="cpu")
    return request.param, wrap(model.module(), spec=model.spec, device="cpu"), file, images


def gradients(model, x):
    x = x.detach().requires_grad_()
    torch.autograd.grad(model.run(x).target.sum(), x)


def test_gradients_of_a_file_cost_little_over_those_of_its_torch_model(exported, time_ratio):
    """At most twice as much; the goal is 1.3 times."""
    _, native, file, images = exported
    x = native.spec.prepare(images)
    assert file.why_no_gradients is None
    assert time_ratio(lambda: gradients(file, x), lambda: gradients(native, x)) < 2


@pytest.mark.parametrize("exported", ["mobilenetv3_small_100"], indirect=True)
def test_a_profile_by_forward_passes_costs_those_passes_and_little_more(
    exported, time_ratio, monkeypatch
):
    """The suite on a file without gradients, over the number of passes it announces."""
    _, _, file, images = exported
    suite = Perturbation()
    context = Context(images, batch=8, draws=20)
    monkeypatch.setattr(file, "verdict", GradientVerdict("this test looks at forward passes"))
    monkeypatch.setattr(file, "why_no_gradients", "this test looks at forward passes")
    x, passes = file.spec.prepare(images), suite.passes(len(images), phases=16, places=56)

    def bare():
        for done in range(0, passes, len(x)):
            file.run(x[: min(len(x), passes - done)])

    ratio = time_ratio(lambda: suite.measure(file, "forward", {}, context), bare, rounds=2)
    assert ratio < PROFILE


def test_bound_tensors_cost_no_more_than_arrays_copied_through_the_host(exported, time_ratio):
    """On the CPU there is nothing to copy either way; on a GPU only binding leaves data there."""
    _, _, file, images = exported
    x, names = file.spec.prepare(images), (file.target.name,)
    session = file._session(names)

    def bound():
        values = session.run_tensors({file.image: shaped(x, file.spec)})
        return {k: v.float() for k, v in values.items()}

    def copied():
        values = session.run({file.image: feed(x, file.spec)})
        return {k: torch.as_tensor(v).to(file.device, torch.float32) for k, v in values.items()}

    assert time_ratio(bound, copied) < 1.5
