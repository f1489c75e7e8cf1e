"""The doctor: this installation is well, and planted faults are found and named."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from perimetry.adapters import self_check
from perimetry.adapters.self_check import batch_norm_gradient_error
from perimetry.bench import doctor
from perimetry.bench.cli.main import app
from perimetry.suites.base import Estimate


@pytest.fixture(scope="module")
def checks():
    return doctor.examine()


def status(checks, name):
    return next(check.status for check in checks if check.name == name)


def test_the_installation_that_runs_these_tests_is_well(checks):
    """Every part of this installation is examined, and none is broken."""
    assert [c for c in checks if c.status == "broken"] == []
    names = {check.name for check in checks}
    assert {"python", "torch", "device cpu", "provider cpu", "package onnxruntime"} <= names
    assert {"3 x 3 convolution at stride 2", "receptive field of resnet18", "audit twice"} <= names


def test_two_distributions_of_onnxruntime_are_a_clash():
    """They overwrite each other's files; the text says what to do. Other plug-ins do not clash."""
    provided = {
        "onnxruntime": ["onnxruntime", "onnxruntime-gpu"],
        "perimetry": ["perimetry"],
    }
    (found, other) = [doctor.HealthCheck(*one) for one in doctor.clashes(provided)]
    assert (found.status, other.status) == ("broken", "ok")
    assert "pip uninstall onnxruntime onnxruntime-gpu" in found.text
    provided["onnxruntime"] = ["onnxruntime-gpu", "onnxruntime-gpu", "rapidocr"]
    assert next(doctor.clashes(provided))[1] == "ok"
    assert next(doctor.clashes({}))[1] == "broken"


def test_a_version_below_the_floor_is_broken(monkeypatch):
    """So is a dependency that is not there at all."""
    wanted = ["torch>=2.6", "numpy>=999", "no-such-thing"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _name: wanted)
    _python, torch_, numpy_, nothing = (doctor.HealthCheck(*one) for one in doctor._versions())
    assert torch_.status == "ok"
    assert (numpy_.status, nothing.status) == ("broken", "broken")
    assert "needed" in numpy_.text
    assert "not installed" in nothing.text


def test_a_wrong_known_answer_is_broken(monkeypatch):
    """If `structure` gave another number, the doctor would say which is right."""

    class Off:
        def __init__(self):
            self.metrics = dict.fromkeys(("weakest", "receptive_field"), Estimate(0.5))

    monkeypatch.setattr("perimetry.suites.structure.measure_skeleton", lambda *_: Off())
    found = {c.name: c for c in doctor.examine()}
    assert found["3 x 3 convolution at stride 2"].status == "broken"
    assert "0.444444 is right" in found["3 x 3 convolution at stride 2"].text
    assert found["receptive field of resnet18"].status == "broken"
    assert found["audit twice"].status == "ok"


def test_a_norm_that_the_guard_does_not_mend_is_broken(monkeypatch):
    """The gradient of an evaluated batch norm is a constant a channel; anything else is wrong."""
    bare = batch_norm_gradient_error(guarded=False)
    assert bare == pytest.approx(0, abs=1e-5) or bare > 0.1
    assert batch_norm_gradient_error(guarded=True) == pytest.approx(0, abs=1e-5)
    right = F.batch_norm
    monkeypatch.setattr(F, "batch_norm", lambda *a, **k: right(*a, **k) * 2)
    found = doctor.HealthCheck(*next(doctor._norms()))
    assert found.status == "broken"
    assert "even with perimetry's workaround" in found.text


def test_the_bug_of_torch_is_told_and_guarded(checks):
    """Where this torch has it, it is a note and no fault: the guard mends it."""
    assert status(checks, "gradient of batch norm") in ("ok", "note")


def test_a_silent_fall_back_of_onnxruntime_is_broken(monkeypatch):
    """Asked for CUDA on a machine that has it, running on the CPU: that is reported."""
    real = self_check.Session

    def falls_back(*arguments, device, **options):
        del device
        return real(*arguments, device=torch.device("cpu"), **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(self_check, "Session", falls_back)
    found = {check[0]: doctor.HealthCheck(*check) for check in doctor._providers()}
    assert found["provider cpu"].status == "ok"
    assert found["provider cuda"].status == "broken"
    assert "runs on CPUExecutionProvider" in found["provider cuda"].text


def test_a_look_that_raises_is_a_broken_check_and_the_others_go_on(monkeypatch):
    """A library that breaks on import costs its own line; the exit code is 1."""

    def breaks():
        raise RuntimeError("operator torchvision::nms does not exist")

    looks = {"torchvision": breaks, "packages": doctor.LOOKS["packages"]}
    monkeypatch.setattr(doctor, "LOOKS", looks)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "broken: torchvision: RuntimeError: operator torchvision::nms" in done.output
    assert "package onnxruntime" in done.output
    monkeypatch.setattr(doctor, "LOOKS", {"packages": doctor.LOOKS["packages"]})
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
