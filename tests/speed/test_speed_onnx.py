"""Cost of ONNX files as ratios: gradients against torch, a black-box profile against its passes.

Within one interleaved run; absolute times are printed, never asserted.
"""

import pytest
import torch
from test_speed import fastest

from perimetry.adapters.load import load
from perimetry.adapters.onnx_export import export_onnx
from perimetry.adapters.onnx_verify import Verdict
from perimetry.adapters.torch import wrap
from perimetry.suites.images import open_images
from perimetry.suites.perturbation import Perturbation
from perimetry.suites.suite import Context

GOAL, LOOSE = 1.3, 2.0
"""Times the native cost: what is aimed at, and what is asserted on machines shared with others."""
SMALL_NETWORK = 12
"""Times the bare passes a profile may cost: a network of few operations leaves most to the test."""


@pytest.fixture(scope="module", params=["resnet50", "mobilenetv3_small_100"])
def twins(request, tmp_path_factory):
    """One initial state as a torch module and as the file exported from it, and eight images."""
    model = load(f"timm:{request.param}@init", device="cpu", members=1)
    images = open_images("dead-leaves", 8).load(model.spec)
    x = model.spec.prepare(images)
    model.select(0, x)
    path = tmp_path_factory.mktemp("speed") / "model.onnx"
    export_onnx(model.module(), torch.zeros_like(x[:1]), path, spec=model.spec)
    file = load(str(path), device="cpu")
    assert file.gradients is None
    return request.param, wrap(model.module(), spec=model.spec, device="cpu"), file, images


def gradients(model, x):
    x = x.detach().requires_grad_()
    torch.autograd.grad(model.run(x).target.sum(), x)


def test_gradients_of_a_file_cost_little_over_those_of_its_torch_model(twins, record_property):
    name, native, file, images = twins
    x = native.spec.prepare(images)
    own, other = fastest(lambda: gradients(file, x), lambda: gradients(native, x), rounds=3)
    record_property("ratio", own / other)
    print(f"\n{name}: file {own:.2f} s, torch {other:.2f} s: {own / other:.2f}x (goal {GOAL}x)")
    assert own / other < LOOSE


def test_a_black_box_profile_is_told_with_its_cost(twins, record_property):
    """Forward passes alone, as for a file without gradients, beside as many passes with no test."""
    name, _, file, images = twins
    suite = Perturbation(comb_draws=2, position_images=1, block=2, noise_draws=2, attack_images=1)
    context = Context(images[:2], batch=8, draws=20)
    x = file.spec.prepare(images)
    file.verdict = Verdict("this test looks at forward passes")
    seen: list[int] = []
    run = file.run
    file.run = lambda x, **options: (seen.append(len(x)), run(x, **options))[1]
    suite.measure(file, "forward", {}, context)
    passes, file.run = sum(seen), run

    def bare():
        for done in range(0, passes, len(x)):
            file.run(x[: min(len(x), passes - done)])

    full, floor = fastest(lambda: suite.measure(file, "forward", {}, context), bare, rounds=1)
    record_property("overhead", full / floor - 1)
    print(f"\n{name}: profile {full:.2f} s, its {passes} passes bare {floor:.2f} s")
    assert full / floor < SMALL_NETWORK
