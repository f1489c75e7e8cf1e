"""Hostile picture files: nothing runs, nothing hangs, and the message names the file."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from perimetry.adapters import own_process
from perimetry.adapters.errors import InputError
from perimetry.suites import pictures
from perimetry.suites.images import open_images
from perimetry.suites.pictures import FORMATS, check_pictures, read_picture

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n%%EOF\n"
PLAIN = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(PLAIN).save(stream, format=kind, **options)
    return stream.getvalue()


def png_of_size(width, height):
    """A PNG whose header declares a size that its few bytes do not have."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_every_promised_format_is_read_whatever_its_name(kind, tmp_path):
    """Each format is read under the name a.png, and a lossless one gives the exact pixels."""
    path = tmp_path / "a.png"
    path.write_bytes(encoded(kind, **({"lossless": True} if kind == "WEBP" else {})))
    found = np.asarray(read_picture(path))
    assert found.shape == PLAIN.shape
    if kind in ("BMP", "PNG", "PPM", "TIFF", "WEBP"):
        assert np.array_equal(found, PLAIN)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS", "ICNS"])
def test_a_format_outside_the_list_is_refused_whatever_its_name(kind, tmp_path, monkeypatch):
    """An EPS file is a program: no process is started for it, Ghostscript or other."""
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: started.append(a))
    monkeypatch.setattr("os.system", lambda *a: started.append(a))
    path = tmp_path / "a.png"
    path.write_bytes(EPS if kind == "EPS" else encoded(kind))
    with pytest.raises(InputError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    assert started == []


def test_a_program_among_the_images_ends_no_command_and_takes_no_time(tmp_path):
    """A PostScript file among the images is an InputError with its name and is not executed."""
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "b.png").write_bytes(EPS)
    with pytest.raises(InputError) as caught:
        open_images(str(tmp_path)).check()
    assert "b.png" in str(caught.value)


@pytest.mark.parametrize("size", [(2**14, 2**14), (2**31 - 1, 2**31 - 1), (2**27, 1), (0, 0)])
def test_the_size_is_bounded_before_any_pixel_is_decoded(size, tmp_path):
    """A PNG header with an impossible or huge size is an InputError with the file's path."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_size(*size))
    with pytest.raises(InputError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)


def test_random_damage_of_every_format_is_a_picture_or_an_error_that_names_the_file(tmp_path):
    """Bytes flipped, cut and repeated, seeded; a decoder may raise anything."""
    rng = np.random.default_rng(0)
    outcomes = [
        outcome(tmp_path / "a.png", damaged(encoded(kind), rng))
        for kind in FORMATS
        for _ in range(25)
    ]
    assert set(outcomes) == {"read", "refused"}
    assert min(outcomes.count(what) for what in set(outcomes)) > 10


def damaged(data, rng):
    """A few bytes changed; every second file also cut."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(len(data))] = rng.integers(256)
    return bytes(data[: rng.integers(4, len(data))]) if rng.random() < 0.5 else bytes(data)


def outcome(path, data):
    """`read` or `refused`, with the file's name in the message."""
    path.write_bytes(data)
    try:
        assert read_picture(path).mode == "RGB"
    except InputError as error:
        return "refused" if str(path) in str(error) else "refused without its name"
    return "read"


def test_a_decoder_that_does_not_end_is_ended_and_its_file_named(tmp_path, monkeypatch):
    """A decoder that exceeds its time limit is ended with an InputError that names the file."""
    _decode_by(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(pictures, "CHECK_SECONDS", 1.0)
    monkeypatch.setattr(pictures, "SECONDS_EACH", 0.0)
    with pytest.raises(InputError) as caught:
        check_pictures([_saved(tmp_path / "slow.png")])
    assert "slow.png" in str(caught.value)


def test_a_decoder_that_crashes_costs_no_process_but_its_own(tmp_path, monkeypatch):
    """The file that was being decoded is named, not the sound one before it."""
    _decode_by(monkeypatch, "print(0, flush=True); import os; os.kill(os.getpid(), 11)")
    with pytest.raises(InputError) as caught:
        check_pictures([_saved(tmp_path / "sound.png"), _saved(tmp_path / "crash.png")])
    assert "crash.png" in str(caught.value)


def test_a_changed_file_is_checked_again(tmp_path):
    """A file that passed the check and has changed since is checked a second time."""
    path = _saved(tmp_path / "a.png")
    check_pictures([path])
    path.write_bytes(b"no picture")
    os.utime(path, (time.time() + 5, time.time() + 5))
    with pytest.raises(InputError):
        check_pictures([path])


def test_a_pipe_and_a_device_are_not_opened(tmp_path):
    """A pipe and an endless device are refused, and a folder's images leave them out."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "device.png"):
        with pytest.raises(InputError):
            read_picture(tmp_path / name)
    _saved(tmp_path / "a.png")
    assert [path.name for path in open_images(str(tmp_path)).files] == ["a.png"]


def _saved(path):
    path.write_bytes(encoded("PNG"))
    return path


def _decode_by(monkeypatch, program):
    monkeypatch.setattr(own_process, "PROGRAM", program)
