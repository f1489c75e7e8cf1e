"""Damaged, hostile and foreign files of arrays: numbers stay, the file is named."""

import io
import os
import pickle
import tracemalloc
import zipfile
import zlib

import numpy as np
import planted_boards as planted
import pytest
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.output.files import StoreError, read_bounded, read_gzip
from perimetry.bench.records.arrays import read_arrays, write_arrays
from perimetry.bench.records.store import Store

ARRAYS = (
    {"field": np.linspace(0, 1, 48).reshape(6, 8), "count": np.arange(12).reshape(3, 4)},
    {"weakest": np.linspace(0.4, 0.5, 50)},
)


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def archive_bytes():
    stream = io.BytesIO()
    write_arrays(stream, ARRAYS)
    return stream.getvalue()


def npz(**members):
    """An archive with members given as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(values=None, *, shape=None, descr="<f8", data=b""):
    """The bytes of one array, or of a header that says `shape` over `data`."""
    stream = io.BytesIO()
    if values is not None:
        np.save(stream, values)
    else:
        facts = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, facts)
        stream.write(data)
    return stream.getvalue()


def saved(values, **options):
    stream = io.BytesIO()
    np.savez(stream, **{"map.field": values}, **options)
    return stream.getvalue()


WHOLE = archive_bytes()
DAMAGE = {
    "empty": b"",
    "one byte": b"P",
    "zip signature only": b"PK\x03\x04 cut off",
    "half": WHOLE[: len(WHOLE) // 2],
    "without its end": WHOLE[:-1],
    "without its beginning": WHOLE[40:],
    "zeros": bytes(len(WHOLE)),
    "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
    "html": b"<!DOCTYPE html><title>404</title>",
    "pickle": pickle.dumps(Payload()),
    "array of objects": saved(np.array([Payload()], dtype=object)),
    "one array, no archive": npy(np.zeros(3)),
    "structured type": saved(np.zeros(3, dtype=[("a", "f8"), ("b", "O")][:1])),
    "complex": saved(np.zeros(3, dtype=complex)),
    "text": saved(np.array(["a"])),
    "negative shape": npz(**{"map.field": npy(shape=(-1, 4), data=bytes(32))}),
    "shape beyond the data": npz(**{"map.field": npy(shape=(2**20, 2**20), data=bytes(32))}),
    "shape that overflows": npz(**{"map.field": npy(shape=(2**62, 2**62), data=bytes(32))}),
    "zero times huge": npz(**{"map.field": npy(shape=(0, 2**63), data=b"")}),
    "many axes": npz(**{"map.field": npy(shape=(1,) * 70, data=bytes(8))}),
    "trailing bytes": npz(**{"map.field": npy(np.zeros(3)) + bytes(5000)}),
    "bad magic": npz(**{"map.field": b"\x93NUMPZ" + npy(np.zeros(3))[6:]}),
    "future format": npz(**{"map.field": b"\x93NUMPY\x09\x00" + npy(np.zeros(3))[8:]}),
    "header that is a program": npz(**{"map.field": npy(shape=(2,)).replace(b"(2,)", b"f(2)")}),
    "deep header": npz(**{"map.field": b"\x93NUMPY\x01\x00\xd0\x07" + b"(" * 2000}),
    "huge exponent": npz(
        **{"map.field": npy(np.zeros(3, np.float16)), "exponent.field": npy(np.int64(2**40))}
    ),
    "exponent of several": npz(
        **{"map.field": npy(np.zeros(3, np.float16)), "exponent.field": npy(np.arange(3))}
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_archive_is_an_error_that_names_it_and_runs_nothing(kind, tmp_path, monkeypatch):
    """A damaged archive raises a StoreError with its path, and no pickle in it is executed."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.npz"
    path.write_bytes(DAMAGE[kind])
    with pytest.raises(StoreError) as caught:
        read_arrays(path)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits_are_found_or_change_nothing(seed, tmp_path):
    """Each of 60 archives with flipped bits gives the arrays that were written, or an error."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "a.npz"
    path.write_bytes(WHOLE)
    sound = read_arrays(path)
    for _ in range(60):
        data = bytearray(WHOLE)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(data))
        try:
            found = read_arrays(path)
        except StoreError:
            continue
        for kind, other in zip(found, sound, strict=True):
            for name in kind.keys() & other.keys():
                assert np.array_equal(kind[name], other[name])


def test_a_bomb_is_refused_before_its_memory_is_taken(tmp_path):
    """A few megabytes that state and unpack to 16 GiB: less than 64 MiB are used to say so."""
    path = tmp_path / "a.npz"
    header = npy(shape=(2**31,))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(header) + packer.compress(bytes(2**24)) + packer.flush()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("map.field.npy", header)
        archive.filelist[0].file_size = len(header) + 2**34
        archive.filelist[0].compress_size = len(block)
    tracemalloc.start()
    with pytest.raises(StoreError):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    """A pipe, a device, a folder, a loop and an absent file raise a StoreError at once."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "device", "folder", "loop", "absent", "null\0byte"):
        with pytest.raises(StoreError):
            read_bounded(tmp_path / name, 1000)
    (tmp_path / "plain").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    assert read_bounded(tmp_path / "link", 4) == b"text"
    with pytest.raises(StoreError):
        read_bounded(tmp_path / "plain", 3)


def test_gzip_is_bounded_and_whole(tmp_path):
    """What unpacks to more than the limit, is cut or is no gzip at all is refused."""
    import gzip

    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one") + gzip.compress(b"two"))
    assert read_gzip(path, 100) == b"onetwo"
    for data in (gzip.compress(bytes(10**6)), gzip.compress(b"one")[:-3], b"plain", b""):
        path.write_bytes(data)
        with pytest.raises(StoreError):
            read_gzip(path, 10**5)


@pytest.fixture
def folder(tmp_path):
    """A folder with the records of two models, whose maps and draws are stored."""
    store = Store(tmp_path / "store")
    for number, name in enumerate(("a", "b")):
        record = planted.record(name, 0.5 + number / 10, maps=planted.field(0.5))
        record.key = f"{number}" * 64
        store.put(record)
    return tmp_path / "store"


@pytest.mark.parametrize("kind", ["half", "pickle", "git lfs pointer", "missing", "pipe", "device"])
def test_damage_is_named_and_costs_no_other_row(kind, folder, tmp_path):
    """Board, page, account and comparison come out whole; none is a traceback."""
    (path,) = (folder / "records").glob("a.*.npz")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind != "missing":
        path.write_bytes(DAMAGE[kind])
    for arguments in (
        ["board", str(folder)],
        ["board", str(folder), "--html", str(tmp_path / "page.html")],
        ["show", str(folder), "a", "--maps", str(tmp_path / "maps")],
        ["compare", f"{folder}:a", f"{folder}:b", "--no-stages"],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        if arguments[0] != "board" or "--html" in arguments:
            assert path.name in "".join(done.output.split())


def test_a_plot_of_damaged_maps_names_their_file(folder):
    """It does not say that packed records are without maps."""
    (path,) = (folder / "records").glob("a.*.npz")
    path.write_bytes(DAMAGE["half"])
    (record,) = [r for r in Store(folder).records() if r.model.reference == "a"]
    with pytest.raises(InputError, match="damaged") as caught:
        record.plot()
    assert path.name in str(caught.value)


def test_a_damaged_record_costs_no_other_row(folder):
    """A board with one unreadable record names that file and still lists the other model."""
    (path,) = (folder / "records").glob("a.*.json")
    for data in (b"", b"{", b"[" * 100_000, b"\xff\xfe", path.read_bytes()[:-20], b"null"):
        path.write_bytes(data)
        done = CliRunner().invoke(app, ["board", str(folder)])
        assert done.exit_code == 0, done.output
        assert path.name in done.output
        rows = [line.split()[:4] for line in done.stdout.splitlines()]
        assert ["b", "none", "1", "0.600"] in rows
