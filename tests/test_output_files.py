"""Output files are whole or absent; links are followed, devices and pipes are never replaced."""

import os
import stat
import threading
from pathlib import Path

import planted_boards as planted
import pytest
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.output.files import write_atomically, write_text
from perimetry.bench.records.store import STALE_AFTER_S, Store

NULL = Path("/dev/null")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_link_is_written_through_and_stays_a_link(tmp_path):
    """Relative, absolute, twice over, and to a file that is not there yet."""
    (tmp_path / "inner").mkdir()
    target = tmp_path / "inner" / "file"
    target.write_text("old")
    (tmp_path / "relative").symlink_to("inner/file")
    (tmp_path / "absolute").symlink_to(target)
    (tmp_path / "twice").symlink_to("relative")
    (tmp_path / "dangling").symlink_to("inner/new")
    for name in ("relative", "absolute", "twice"):
        write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
        assert target.read_text() == name
    write_text(tmp_path / "dangling", "text")
    assert (tmp_path / "inner" / "new").read_text() == "text"
    assert names(tmp_path / "inner") == ["file", "new"]


@pytest.fixture
def no_renaming(monkeypatch):
    """Should the code be wrong, the machine's own devices must not suffer."""

    def refuse(self, target):
        raise AssertionError(f"{target} would have been replaced")

    monkeypatch.setattr(Path, "replace", refuse)


@pytest.mark.usefixtures("no_renaming")
def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    """Through a link too; nothing is renamed over /dev/null, by root either."""
    before = NULL.stat()
    (tmp_path / "null").symlink_to(NULL)
    for place in (tmp_path / "null", NULL):
        write_text(place, "text")
    after = NULL.stat()
    assert stat.S_ISCHR(after.st_mode)
    assert (before.st_ino, before.st_rdev) == (after.st_ino, after.st_rdev)


def test_a_pipe_gets_the_bytes_and_without_a_reader_it_is_an_error(tmp_path):
    """A pipe receives the whole text and stays a pipe; without a reader it is an OSError."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError):
        write_text(path, "text")
    received = []
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(opened, True)
    reader = threading.Thread(target=lambda: received.append(_all_of(opened)))
    writer = os.open(path, os.O_WRONLY)  # the reader waits until the last writer has closed
    reader.start()
    write_text(path, "x" * 200_000)
    os.close(writer)
    reader.join()
    assert received == ["x" * 200_000]
    assert stat.S_ISFIFO(path.stat().st_mode)


def _all_of(descriptor):
    with os.fdopen(descriptor) as stream:
        return stream.read()


@pytest.mark.parametrize("place", ["folder", "loop", "absent/file"])
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(place, tmp_path):
    """Writing to a folder, a link loop or an absent folder raises and creates no file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    before = names(tmp_path)
    with pytest.raises((OSError, RuntimeError)):
        write_text(tmp_path / place, "text")
    assert names(tmp_path) == before


def test_an_error_while_writing_keeps_the_old_file(tmp_path):
    """An exception halfway keeps the old contents and leaves no temporary file."""

    def fail(stream):
        stream.write(b"half")
        raise ValueError("planted")

    (tmp_path / "file").write_text("old")
    with pytest.raises(ValueError, match="planted"):
        write_atomically(tmp_path / "file", fail)
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.fixture
def store(tmp_path):
    """A folder with one record."""
    made = Store(tmp_path / "store")
    made.put(planted.record("a", 0.5))
    return made


def test_commands_replace_no_device(store, request):
    """`board --html /dev/null` writes to the device and does not replace it."""
    request.getfixturevalue("no_renaming")
    done = CliRunner().invoke(app, ["board", str(store.root), "--html", str(NULL)])
    assert done.exit_code == 0, done.output
    assert stat.S_ISCHR(NULL.stat().st_mode)


def test_a_stale_temporary_file_that_cannot_be_removed_hinders_no_reading(tmp_path, monkeypatch):
    """Records are read beside a temporary file that cannot be removed."""
    store = Store(tmp_path)
    store.put(planted.record("a", 0.5))
    stale = store.folder / ".left.tmp"
    stale.write_bytes(b"half")
    os.utime(stale, (0, stale.stat().st_mtime - 2 * STALE_AFTER_S))

    def refuse(self, missing_ok=False):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert len(Store(tmp_path).records()) == 1
