"""What decides a result is hashed as onnx reads it, and hashing is bounded."""

import os

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import convnet

from perimetry.adapters.errors import InputError
from perimetry.adapters.load import is_quick_to_identify
from perimetry.adapters.onnx.files.external_data import external_files
from perimetry.bench.execution import identities
from perimetry.bench.execution.identities import find_identities
from perimetry.bench.execution.plan import file_identity
from perimetry.bench.execution.settings import RunOptions, Settings
from perimetry.bench.records import hashing
from perimetry.bench.records.hashing import MAX_HASHED, file_sha256

LOCATIONS = (
    "w.bin",
    "n" * 127,
    "n" * 128,
    "n" * 200 + ".bin",
    "sub/w.bin",
    "ü 漢 " * 20,
    "./w.bin",
)


def with_outside(folder, location, order):
    """A graph with one initialiser outside, the fields of its entries in `order`."""
    proto = convnet(size=8)
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    encoded = proto.SerializeToString()
    if order == "value first":
        entry = tensor.external_data[1].SerializeToString()
        key = b"\x0a\x08location"
        assert entry.startswith(key)
        encoded = encoded.replace(entry, entry.removeprefix(key) + key)
    (folder / location).parent.mkdir(exist_ok=True)
    (folder / location).write_bytes(data)
    (folder / "a.onnx").write_bytes(encoded)
    return folder / "a.onnx", folder / location


@pytest.mark.parametrize("order", ["key first", "value first"])
@pytest.mark.parametrize("location", LOCATIONS)
def test_a_change_of_external_weights_changes_the_identity(location, order, tmp_path):
    """One flipped bit of external weights changes the identity, in any order of fields."""
    path, outside = with_outside(tmp_path, location, order)
    assert [file.resolve() for file in external_files(path)] == [outside.resolve()]
    before = file_identity(str(path))
    data = bytearray(outside.read_bytes())
    data[0] ^= 1
    outside.write_bytes(bytes(data))
    assert file_identity(str(path)) != before


@pytest.mark.parametrize("data", [b"", b"location", b"\x0a\x08location" * 50, bytes(200)])
def test_what_is_no_graph_names_no_file(data, tmp_path):
    """Bytes that are not a graph have no external files."""
    (tmp_path / "a.onnx").write_bytes(data)
    assert external_files(tmp_path / "a.onnx") == []


def test_damaged_graphs_name_files_inside_their_folder_or_none(tmp_path):
    """Seeded damage of the bytes; whatever comes out is a file beside the graph."""
    path, _ = with_outside(tmp_path, "w.bin", "key first")
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        path.write_bytes(bytes(changed[: rng.integers(1, len(changed) + 1)]))
        assert all(f.resolve().is_relative_to(tmp_path) for f in external_files(path))


def test_a_sparse_file_is_hashed_by_its_ends(tmp_path):
    """Forty gigabytes that take no room: a change of size or of an end is another hash."""
    path = tmp_path / "a.onnx"
    hashes = set()
    for size, end in ((40 * 2**30, b"a"), (40 * 2**30, b"b"), (41 * 2**30, b"b")):
        with path.open("wb") as stream:
            stream.truncate(size)
            stream.seek(size - 1)
            stream.write(end)
        os.utime(path, (0, 0))
        hashes.add(file_sha256(path))
    assert len(hashes) == 3
    assert size > MAX_HASHED


def test_of_many_files_so_many_bytes_are_hashed_as_of_one(tmp_path, monkeypatch):
    """Beyond the bytes that are left, a file is hashed by its ends, and a later small one whole."""
    monkeypatch.setattr(hashing, "MAX_HASHED", 100)
    paths = [tmp_path / name for name in "abcd"]
    for path, size in zip(paths, (60, 60, 30, 30), strict=True):
        path.write_bytes(bytes(size))
    found = hashing.hashes(paths)
    whole = [file_sha256(path) for path in paths]
    assert [a == b for a, b in zip(found, whole, strict=True)] == [True, False, True, False]


def test_names_of_one_file_count_once(tmp_path):
    """Thousands of names for one large file are hashed as one file."""
    proto = convnet(size=8)
    (tmp_path / "w.bin").write_bytes(bytes(64))
    for number in range(20):
        tensor = proto.graph.initializer.add(name=f"x{number}", data_type=1, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="./" * number + "w.bin")
    (tmp_path / "a.onnx").write_bytes(proto.SerializeToString())
    assert len(external_files(tmp_path / "a.onnx")) == 1


def test_what_takes_long_is_identified_in_a_process_with_limits(tmp_path, monkeypatch):
    """Large files and external data are; a small file is not. The identity is that of the plan."""
    path, _ = with_outside(tmp_path, "w.bin", "key first")
    small = tmp_path / "small.onnx"
    small.write_bytes(convnet(size=8).SerializeToString())
    cpu = RunOptions(device="cpu")
    names = [str(path), str(small), "timm:test_resnet@init"]
    assert find_identities(names, Settings(), cpu) == {str(path): file_identity(str(path))}
    large = tmp_path / "large.onnx"
    with large.open("wb") as stream:
        stream.truncate(2**40)
    assert not is_quick_to_identify(str(large))
    monkeypatch.setattr(
        identities, "each_bounded", lambda works, _run: [InputError("x")] * len(works)
    )
    (late,) = find_identities([str(path)], Settings(), cpu).values()
    assert late not in ("", file_identity(str(path)))


def test_pipes_and_devices_are_not_hashed(tmp_path):
    """Pipes, devices and absent files have an empty hash and are never read."""
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "device.onnx").symlink_to("/dev/zero")
    for name in ("pipe.onnx", "device.onnx", "absent.onnx"):
        assert file_sha256(tmp_path / name) == ""
        assert external_files(tmp_path / name) == []
        assert file_identity(str(tmp_path / name)) == ""
