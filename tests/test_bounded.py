"""What may crash or hang is done in a process with limits, and says so in a sentence."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import convnet, save
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError, NotMeasuredError
from perimetry.adapters.onnx.files.external_data import external_files
from perimetry.adapters.scratch import OWNED, scratch_folder
from perimetry.bench.cli.main import app
from perimetry.bench.execution.engines.process import call_bounded, each_bounded
from perimetry.bench.execution.settings import RunOptions

CPU = RunOptions(device="cpu")
UNMEASURED = 2


def raise_error(error):
    raise error


@pytest.mark.parametrize("log", [True, False])
def test_the_result_comes_back(log):
    """The result of a function in another process is returned, with and without a log."""
    assert call_bounded(partial(divmod, 7, 3), CPU, log=log) == (2, 1)


def test_an_error_for_the_user_is_raised_as_it_is():
    """An InputError in the other process is raised here with its class and text."""
    with pytest.raises(InputError) as caught:
        call_bounded(partial(raise_error, InputError("give another")), CPU)
    assert str(caught.value) == "give another"


@pytest.mark.parametrize("error", [ZeroDivisionError("by 0"), MemoryError(), KeyError("k")])
def test_any_other_error_names_its_class(error):
    """Another exception becomes a NotMeasuredError with the name of its class."""
    with pytest.raises(NotMeasuredError) as caught:
        call_bounded(partial(raise_error, error), CPU)
    assert type(error).__name__ in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGFPE, signal.SIGKILL])
def test_a_process_that_dies_names_the_signal(number):
    """A process that dies of a signal raises a NotMeasuredError with the signal's name."""
    with pytest.raises(NotMeasuredError) as caught:
        call_bounded(partial(signal.raise_signal, number), CPU)
    assert number.name in str(caught.value)


def test_a_process_that_hangs_is_ended_at_the_time_limit():
    """A process that exceeds its time limit is ended with a NotMeasuredError that gives it."""
    with pytest.raises(NotMeasuredError) as caught:
        call_bounded(partial(time.sleep, 3600), RunOptions(device="cpu", time_limit_s=0.2))
    assert "0.2 s" in str(caught.value)


def test_one_that_ends_the_process_costs_no_other_its_result():
    """Results come back in order; a signal, a hang and an error stand in their places."""
    works = [
        partial(divmod, 7, 3),
        partial(signal.raise_signal, signal.SIGKILL),
        partial(raise_error, InputError("give another")),
        partial(time.sleep, 3600),
        partial(divmod, 9, 4),
    ]
    found = each_bounded(works, RunOptions(device="cpu", time_limit_s=1.0))
    assert (found[0], found[4]) == ((2, 1), (2, 1))
    assert [type(one) for one in found[1:4]] == [NotMeasuredError, InputError, NotMeasuredError]
    assert each_bounded([], CPU) == []


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_process_gets_no_more_memory_than_its_limit():
    """Allocating 2 GiB under a limit of 512 MiB raises a MemoryError in the other process."""
    little = RunOptions(device="cpu", memory_limit_mib=512)
    with pytest.raises(NotMeasuredError) as caught:
        call_bounded(partial(bytearray, 2**31), little)
    assert "MemoryError" in str(caught.value)


def endless(path):
    """A graph with a loop of 2^62 turns before its first convolution."""
    value = partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Sin", ["v"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            value("v", shape=None),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), value("next", shape=None)],
    )
    proto = convnet(size=16)
    for name, kind, number in (("turns", TensorProto.INT64, 2**62), ("yes", TensorProto.BOOL, 1)):
        proto.graph.initializer.append(helper.make_tensor(name, kind, [], [number]))
    loop = helper.make_node("Loop", ["turns", "yes", "image"], ["looped"], body=body)
    proto.graph.node.insert(0, loop)
    proto.graph.node[1].input[0] = "looped"
    onnx.checker.check_model(proto)
    return save(proto, path)


@pytest.mark.parametrize("command", ["pad", "compare", "bench"])
def test_a_file_that_never_ends_is_ended(command, tmp_path):
    """A command on a file that never ends exits with 2, names the time limit and writes no file."""
    path, out = endless(tmp_path / "a.onnx"), str(tmp_path / "out.onnx")
    sound = save(convnet(size=16), tmp_path / "b.onnx")
    words = {
        "pad": ["pad", path, "-o", out],
        "compare": ["compare", path, sound, "--suite", "structure"],
        "bench": ["bench", path, "--suite", "structure", "--rounds", "1"],
    }
    limits = ["--device", "cpu", "--time-limit", "1"]
    result = CliRunner().invoke(app, [*words[command], *limits])
    assert result.exit_code == UNMEASURED, result.output
    assert "time limit of 1 s" in result.output
    assert not Path(out).exists()


def test_a_graph_of_many_objects_is_parsed_elsewhere(tmp_path, monkeypatch):
    """Two bytes make a node of hundreds, so this process parses small files alone."""
    nodes = b"\x0a\x00" * 2**20 + b"\x12\x08location"
    length = bytes([len(nodes) & 127 | 128, len(nodes) >> 7 & 127 | 128, len(nodes) >> 14])
    (tmp_path / "a.onnx").write_bytes(b"\x3a" + length + nodes)
    monkeypatch.setattr(onnx, "load_model_from_string", raise_error)
    assert external_files(tmp_path / "a.onnx") == []


def test_a_large_graph_names_its_external_files(tmp_path):
    """The process with limits finds what this one would find."""
    proto = convnet(size=16)
    tensor = proto.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    proto.doc_string = "x" * 2**21
    path = Path(save(proto, tmp_path / "a.onnx"))
    assert [file.name for file in external_files(path)] == ["w.bin"]


ABANDON = """
import os, sys
from perimetry.adapters.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_folder_that_a_killed_process_left_is_removed_by_the_next(tmp_path, monkeypatch):
    """A scratch folder of a killed process is removed, one of a living process stays."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    command = [sys.executable, "-c", ABANDON]
    left = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    assert [path.name for path in Path(left).iterdir()] == [OWNED]
    with scratch_folder() as mine, scratch_folder() as another:
        assert sorted(tmp_path.iterdir()) == sorted([mine, another])
    assert list(tmp_path.iterdir()) == []
