"""Odd surroundings: a sentence each, exit codes that mean something, and nothing left changed."""

import json
import os
import random
import signal
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from fuzzing.interruptions import MODELS
from onnx_files import convnet, save
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_nets import net
from torch import nn
from typer.testing import CliRunner

import perimetry as perimetry_package
from perimetry import audit
from perimetry.bench.cli.main import app

COMMAND = [sys.executable, "-c", "from perimetry.bench.cli.start import main; main()"]


def perimetry(*words, **options):
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, check=False, **options
    )


def test_a_working_folder_that_has_gone_is_named(tmp_path):
    """Native libraries end the process there; the command ends it before."""
    script = f'cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    command = ["sh", "-c", script, "sh", *COMMAND, "list", "suites"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "working folder" in done.stderr


@pytest.mark.parametrize("package", perimetry_package.NEEDED)
def test_a_script_named_like_a_package_that_it_hides_is_told_so(package, tmp_path):
    """`import onnx` of any package would find the script; the first import says it, once."""
    script = tmp_path / f"{package}.py"
    script.write_text("import perimetry\nprint(perimetry.audit)\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{script} hides the package {package}" in done.stderr.splitlines()[-1]
    assert "another name" in done.stderr


def test_every_dependency_is_one_that_no_script_may_hide():
    """The packages that are looked for are those that the wheel requires, without extras."""
    required = [Requirement(line) for line in metadata.requires("perimetry")]
    names = {r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})}
    provided = metadata.packages_distributions()
    found = {canonicalize_name(provided[package][0]) for package in perimetry_package.NEEDED}
    assert found == names


def test_output_that_nobody_reads_is_a_sentence():
    """Output to a reader that has gone before the first byte ends in one sentence."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "list", "models"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_no_output_at_all_is_no_fault():
    """A command whose standard output is closed exits with 0 and prints no error."""
    script = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, "list", "suites"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_of_plain_letters_gets_plain_letters(tmp_path):
    """A name beyond ASCII is escaped where the output cannot show it."""
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = perimetry("list", "suites", "é", env=plain)
    assert done.returncode == 1
    assert done.stderr.isascii()


@pytest.mark.parametrize(
    "words",
    [
        ["board", "a\0b"],
        ["run", "a\0.onnx", "--out", "o", "--suite", "structure"],
        ["run", "timm:resnet18@\0", "--out", "o", "--suite", "structure"],
        ["run", "timm:test_resnet@init", "--images", "\0", "--out", "o"],
        ["run", "timm:test_resnet@init", "--out", "\0"],
        ["compare", "a\0.onnx", "b.onnx", "--suite", "structure"],
        ["check", "--baseline", "\0"],
        ["pad", "a\0.onnx", "-o", "b.onnx"],
        ["list", "models", "\0"],
    ],
)
def test_a_null_byte_is_a_name_like_others(words, tmp_path, monkeypatch):
    """Operating systems give no such argument, but a program that calls this one may."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (1, 2)
    assert isinstance(done.exception, SystemExit)
    assert "\0" not in done.output


def heed_signals():
    """Take back what the surroundings may ignore, as `nohup` and background jobs do."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def started(tmp_path, wait_for):
    """A run with two workers, and all its processes once `wait_for` is in its output."""
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    words = ["run", *MODELS, "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*COMMAND, *words, "--workers", "2", "--device", "cpu"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=heed_signals,
    )
    while wait_for not in (line := process.stderr.readline()):
        assert line
    while not (children := psutil.Process(process.pid).children(recursive=True)):
        assert process.poll() is None
    return process, children


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, -1)]
)
@pytest.mark.parametrize("group", [False, True])
def test_a_signal_leaves_no_process_and_no_temporary_folder(tmp_path, number, code, group):
    """A signal to the command or its group ends all workers and removes their folders."""
    process, children = started(tmp_path, "(none)")
    assert children
    (os.killpg if group else os.kill)(process.pid, number)
    process.communicate()
    assert process.returncode == code
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    if number != signal.SIGHUP:
        assert list((tmp_path / "temporary").glob("perimetry-*")) == []


def test_an_interrupt_at_once_is_no_traceback():
    """Whatever is being imported: the process ends, and says at most a sentence."""
    process = subprocess.Popen(
        [*COMMAND, "list", "models"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while "perimetry" not in "".join(m.path for m in psutil.Process(process.pid).open_files()):
        if process.poll() is not None or "torch" in _mapped(process.pid):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert "Traceback" not in said


def _mapped(pid):
    try:
        return " ".join(m.path for m in psutil.Process(pid).memory_maps())
    except psutil.Error:
        return "torch"


class Faulty(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        raise RuntimeError("a fault of the model's own")


def state():
    """What a program may have set, and expects to find again."""
    return {
        "filters": list(warnings.filters),
        "python": random.getstate(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002 - the one that is shared
        "numpy errors": np.geterr(),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "tf32": (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32),
        "mkldnn": torch.backends.mkldnn.enabled,
        "folder": Path.cwd(),
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.mark.parametrize("kind", ["module", "faulty", "timm", "onnx"])
def test_an_audit_leaves_the_program_as_it_was(kind, tmp_path):
    """An audit, also a failed one, keeps random states, flags, threads and warning filters."""
    thing = {
        "module": net(),
        "faulty": Faulty(),
        "timm": "timm:test_resnet@init",
        "onnx": save(convnet(size=16), tmp_path / "a.onnx"),
    }[kind]
    size = {"size": (48, 48)} if kind in ("module", "faulty") else {}
    before = state()
    records = audit(
        thing,
        ("structure", "erf", "deadpixel", "perturbation", "padding"),
        ("none", "box"),
        count=4,
        device="cpu",
        **size,
    )
    after = state()
    assert {r.status for r in records} <= ({"failed"} if kind == "faulty" else {"ok", "skipped"})
    assert [name for name in before if before[name] != after[name]] == []


FRESH = """
import json, warnings
from perimetry import audit
before = list(warnings.filters)
audit("timm:test_resnet@init", ("structure", "erf"), count=2, device="cpu")
print(json.dumps([str(f) for f in warnings.filters if f not in before]))
"""


def test_the_first_audit_of_a_program_adds_no_warning_filter():
    """The first audit of a process leaves the list of warning filters as it was."""
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
