"""A whole audit opens no connection, looks up no name, and writes only into its folders."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from onnx_files import convnet, save

import perimetry

RUN = "from perimetry.bench.cli.start import main; main()"
NOTE_NETWORK = """
import os, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["NETWORK_LOG"], "a") as stream:
            stream.write(f"{event} {arguments}\\n")

sys.addaudithook(note)
"""
STRACE = ["-f", "-qq", "-e", "trace=connect,sendto,openat,mkdir,mkdirat,rename"]


@pytest.fixture
def clean_place(tmp_path):
    """An empty home, temporary folder and working folder, and the environment for them."""
    for name in ("home", "temporary", "work", "site"):
        (tmp_path / name).mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOTE_NETWORK)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MPL", "HF_", "ORT_"))}
    return tmp_path, {
        **kept,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
        "NETWORK_LOG": str(tmp_path / "network"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), kept.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def perimetry_in(place, *arguments):
    """Run a command in the clean place; under strace where there is one."""
    folder, environment = place
    command = [sys.executable, "-c", RUN, *arguments]
    if shutil.which("strace"):
        command = ["strace", *STRACE, "-o", str(folder / f"trace.{arguments[0]}"), *command]
    done = subprocess.run(
        command, cwd=folder / "work", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def files_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def internet_calls(folder):
    """Calls in the traces with an address of the internet, by any process."""
    lines = [line for path in folder.glob("trace.*") for line in path.read_text().splitlines()]
    return [line for line in lines if re.search(r"AF_INET|resolv\.conf", line)]


def test_an_audit_leaves_no_trace_outside_its_folder_and_asks_no_network(clean_place):
    """`run`, `board` and `show` open no connection and write only to the named places."""
    folder, _ = clean_place
    save(convnet(size=8), folder / "work" / "secret.onnx")
    common = ("--count", "2", "--members", "1", "--device", "cpu", "--kernel-padding", "none")
    suites = ("--suite", "structure,deadpixel")
    perimetry_in(
        clean_place, "run", "secret.onnx", "timm:test_resnet@init", "--out", "out", *suites, *common
    )
    perimetry_in(clean_place, "board", "out", "--html", "page.html")
    perimetry_in(clean_place, "show", "out", "secret.onnx", "--maps", "maps")
    statuses = [
        json.loads(path.read_text())["status"]
        for path in (folder / "work/out/records").glob("*.json")
    ]
    assert statuses.count("ok") >= 3
    assert not (folder / "network").exists(), (folder / "network").read_text()
    assert internet_calls(folder) == []
    assert list((folder / "home").rglob("*")) == []
    assert files_below(folder / "temporary") == []
    written = {name.partition("/")[0] for name in files_below(folder / "work")}
    assert written == {"out", "maps", "page.html", "secret.onnx"}


@pytest.mark.parametrize(("name", "value"), perimetry.TELEMETRY_OFF.items())
def test_telemetry_is_off_unless_the_user_has_chosen(name, value):
    """A value that is set before the import stays, also in the processes started afterwards."""
    show = f"import os, perimetry; print(os.environ[{name!r}])"
    environment = {k: v for k, v in os.environ.items() if k != name}
    for chosen, expected in (({}, value), ({name: "mine"}, "mine")):
        done = subprocess.run(
            [sys.executable, "-c", show],
            env={**environment, **chosen},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_a_folder_that_matplotlib_has_already_is_used(tmp_path, monkeypatch):
    """Fonts are not listed again in every process of a user of matplotlib."""
    from perimetry.bench.figures.canvas import keep_matplotlib_out_of_home

    (tmp_path / "matplotlib").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    keep_matplotlib_out_of_home.__wrapped__()
    assert "MPLCONFIGDIR" not in os.environ
