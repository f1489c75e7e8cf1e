"""The store: whole records or none, with several writers, and whenever they are killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from perimetry import audit
from perimetry.bench.output.files import StoreError
from perimetry.bench.records import store as store_module
from perimetry.bench.records.arrays import grow, to_float16
from perimetry.bench.records.parts import Failure
from perimetry.bench.records.store import STALE_AFTER_S, Store


@pytest.fixture
def record():
    (made,) = audit("toy:a", ("deadpixel",), toolkit=toys.toolkit(), images="noise", count=4)
    return made


def names(store: Store) -> list[str]:
    return sorted(p.name for p in store.folder.iterdir())


def test_a_record_comes_back_with_its_arrays(tmp_path, record):
    """What was put is found by key: equal content, maps to 11 bits, draws exactly."""
    store = Store(tmp_path)
    store.put(record)
    found = Store(tmp_path).get(record.key)
    assert found.model_dump() == record.model_dump()
    np.testing.assert_allclose(found.maps["sensitivity"], record.maps["sensitivity"], rtol=2**-11)
    np.testing.assert_array_equal(found.draws["weakest"], record.draws["weakest"])
    assert names(store) == [f"{record.file_stem}.json", f"{record.file_stem}.npz"]


@given(
    peak=st.floats(1e-30, 1e30),
    shares=st.lists(st.floats(2**-29, 1), min_size=1, max_size=20),
    sign=st.sampled_from([1, -1]),
)
def test_maps_keep_eleven_bits_over_nine_decades(peak, shares, sign):
    """Whatever its scale, a map keeps 11 bits of every value down to 2^-29 of its peak."""
    values = sign * peak * np.array([1.0, *shares])
    stored, exponent = to_float16(values)
    assert stored.dtype == np.float16
    assert np.isfinite(stored).all()
    np.testing.assert_allclose(grow(stored, exponent), values, rtol=2**-11 + 1e-7)


def test_maps_without_a_scale_survive():
    """An all-zero map, and integer and boolean maps, come back as they were."""
    for values in (np.zeros((2, 2)), np.array([[2**40, 1]]), np.array([True, False])):
        np.testing.assert_array_equal(grow(*to_float16(values)), values)


@pytest.mark.parametrize("moment", ["write_arrays", "fsync", "replace"])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, record, monkeypatch, moment):
    """Interrupted while writing, flushing or renaming, the folder shows no part of the record."""

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        if moment == "write_arrays":
            patch.setattr(store_module, "write_arrays", stop)
        else:
            patch.setattr(*((os, "fsync", stop) if moment == "fsync" else (Path, "replace", stop)))
        with pytest.raises(KeyboardInterrupt):
            store.put(record)
    assert names(store) == []
    assert store.get(record.key) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_to_do_and_keeps_the_rest(tmp_path, record, monkeypatch, code):
    """On a full disk the error names the folder and the way on; nothing half written stays."""
    store = Store(tmp_path)
    store.put(record)
    other = record.model_copy(update={"key": "f" * 64})

    def full(_descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        store.put(other)
    assert [r.key for r in store.records()] == [record.key]
    assert len(names(store)) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file where the folder should be gives a store error with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot use .*file"):
        Store(tmp_path / "file")


def test_a_failed_record_never_replaces_a_finished_one(tmp_path, record):
    """A finished record replaces a failed one, and never the reverse."""
    failure = Failure(kind="died", message="planted")
    failed = record.model_copy(update={"status": "failed", "error": failure, "map_names": []})
    store = Store(tmp_path)
    store.put(failed)
    assert store.get(record.key).status == "failed"
    store.put(record)
    store.put(failed)
    assert store.get(record.key).status == "ok"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "x"}', "\x00\x01"])
def test_a_corrupt_record_is_a_problem_not_a_record(tmp_path, record, content):
    """A damaged file is reported by name, is not found by key, and hides no other record."""
    store = Store(tmp_path)
    store.put(record)
    other = record.model_copy(update={"key": "e" * 64})
    store.put(other)
    store.path(other).write_text(content)
    assert [r.key for r in store.records()] == [record.key]
    assert store.get(other.key) is None
    (problem,) = store.read()[1]
    assert store.path(other).name in problem


def test_any_reference_makes_a_safe_file_name(record):
    """Paths, dots, control characters and endless names all end inside the folder, and differ."""
    seen = set()
    for i, name in enumerate(["../../etc/passwd", "a" * 5000, "x\x00\n\x1b[31m", "模型", "", "."]):
        model = record.model.model_copy(update={"reference": name})
        stem = record.model_copy(update={"model": model, "key": f"{i:064x}"[::-1]}).file_stem
        assert stem.isascii()
        assert len(stem) < 200
        assert not set(stem) & set("/\\\0\n ")
        assert not stem.startswith("/")
        seen.add(stem)
    assert len(seen) == 6


def test_only_stale_temporary_files_are_swept(tmp_path):
    """A temporary file of a living writer stays; one older than the limit goes."""
    folder = Store(tmp_path).folder
    fresh, stale = folder / ".a.tmp", folder / ".b.tmp"
    for path in (fresh, stale):
        path.write_text("x")
    old = time.time() - STALE_AFTER_S - 60
    os.utime(stale, (old, old))
    Store(tmp_path)
    assert fresh.exists()
    assert not stale.exists()


WRITER = """
import sys
from perimetry.bench.records.record import Record
from perimetry.bench.records.store import Store
store, source = Store(sys.argv[1]), Store(sys.argv[2])
(record,) = source.records()
record.arrays
print("ready", flush=True)
for i in range(int(sys.argv[3])):
    copy = record.model_copy(update={"key": f"{i % 40:02x}" * 32})
    store.put(copy.attach(record.arrays))
"""


def writer(target: Path, source: Path, count: int):
    command = [sys.executable, "-c", WRITER, str(target), str(source), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_two_writers_never_clash(tmp_path, record):
    """Two processes that write the same forty keys, over and over, leave forty whole records."""
    Store(tmp_path / "source").put(record)
    target = Store(tmp_path / "target")
    processes = [writer(target.root, tmp_path / "source", 120) for _ in range(2)]
    while any(p.poll() is None for p in processes):
        assert target.read()[1] == []
    for process in processes:
        process.stdout.close()
    assert [p.returncode for p in processes] == [0, 0]
    assert len(target.records()) == 40
    for found in target.records():
        np.testing.assert_array_equal(found.draws["weakest"], record.draws["weakest"])
    assert len(names(target)) == 80


def test_a_killed_writer_leaves_only_whole_records(tmp_path, record):
    """Killed with signal 9 at five moments, a writer leaves no record that cannot be read."""
    Store(tmp_path / "source").put(record)
    target = Store(tmp_path / "target")
    for moment in range(5):
        process = writer(target.root, tmp_path / "source", 100_000)
        while not target.records():
            time.sleep(0.001)
        time.sleep(0.02 + 0.013 * moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert target.read()[1] == []
        for found in target.records():
            assert found.maps["sensitivity"].shape == (16, 16)
    assert target.records()
