"""Data to train on: each source is read right, and what cannot be used is an error."""

from __future__ import annotations

import builtins
import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.suites.training import data as training_data
from perimetry.suites.training.data import open_training_set
from perimetry.suites.training.idx import read_idx
from perimetry.suites.training.tasks import open_task


def picture(path, size=(8, 8), level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), (level, 0, 255 - level)).save(path)


def folder_of(folder, classes=("cat", "dog"), count=5, **changes):
    for place, name in enumerate(classes):
        for i in range(count):
            picture(folder / name / f"{i}.png", level=20 * place + i, **changes)
    return folder


def idx(array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def idx_folder(folder, *, zipped=False, counts=(6, 4)):
    rng = np.random.default_rng(0)
    for part, n in zip(("train", "t10k"), counts, strict=True):
        images = rng.integers(0, 256, (n, 5, 7), dtype=np.uint8)
        labels = (np.arange(n) % 3).astype(np.uint8)
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / f"{part}-{what}-ubyte{'.gz' * zipped}").write_bytes(data)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_gzipped_or_not(tmp_path, zipped):
    """Images stand in the middle of black, labels beside them, every picture once."""
    found = open_training_set(str(idx_folder(tmp_path, zipped=zipped)))
    assert found.size == (8, 8)
    assert found.classes == ("0", "1", "2")
    assert (len(found.train), len(found.test)) == (6, 4)
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 7), dtype=np.uint8)
    expected = np.pad(images, ((0, 0), (1, 2), (0, 1)))
    labelled = {
        (found.train.pixels[i, 0].numpy().tobytes(), int(found.train.labels[i])) for i in range(6)
    }
    assert labelled == {(expected[i].tobytes(), i % 3) for i in range(6)}


def test_images_are_three_channels_in_0_to_1(tmp_path):
    """Grey bytes become equal red, green and blue, 255 being 1."""
    found = open_training_set(str(idx_folder(tmp_path)))
    images = found.train.images(np.array([0, 2]))
    assert images.shape == (2, 3, 8, 8)
    assert torch.equal(images[:, 0], images[:, 2])
    assert torch.equal(images[1, 0] * 255, found.train.pixels[2, 0].float())


def test_digits_come_with_ten_classes_and_a_fifth_kept_for_testing():
    """All 1,797 digits are used, a fifth of them for testing, and none for both."""
    found = open_training_set("digits", size=(32, 32))
    assert len(found.classes) == 10
    assert len(found.train) + len(found.test) == 1797
    assert len(found.test) == pytest.approx(1797 / 5, abs=5)
    train, test = ({x.numpy().tobytes() for x in part.pixels} for part in (found.train, found.test))
    assert not train & test
    assert (np.bincount(found.test.labels) >= 34).all()


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    """The digits without scikit-learn are an error with the extra to install."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'perimetry\[train\]'"):
        open_training_set("digits")


def test_dead_leaves_are_those_of_the_images_module():
    """Rounded to bytes; the test ones are others than the training ones."""
    from perimetry.adapters.input_spec import InputSpec
    from perimetry.suites.images import open_images

    found = open_training_set("dead-leaves", size=(16, 16), train=3, test=2, seed=5)
    images = open_images("dead-leaves", 5, 5).load(InputSpec(16, 16))
    assert torch.equal(found.train.pixels, (images[:3] * 255).round().to(torch.uint8))
    assert torch.equal(found.test.pixels, (images[3:] * 255).round().to(torch.uint8))


def test_a_folder_is_split_within_classes_and_always_alike(tmp_path):
    """One in five of each class is for testing; a second reading gives the same bytes."""
    folder = folder_of(tmp_path)
    found = open_training_set(str(folder))
    assert found.classes == ("cat", "dog")
    assert found.test.labels.bincount().tolist() == [1, 1]
    assert found.train.labels.bincount().tolist() == [4, 4]
    assert found.digest() == open_training_set(str(folder)).digest()
    assert {int(x[0, 0, 0]) // 20 for x in found.train.pixels[found.train.labels == 1]} == {1}


def test_a_folder_with_train_and_test_keeps_them(tmp_path):
    """Nothing is split where the folders say what is what."""
    folder_of(tmp_path / "train", count=3)
    folder_of(tmp_path / "test", count=2)
    found = open_training_set(str(tmp_path))
    assert (len(found.train), len(found.test)) == (6, 4)


def test_another_picture_changes_the_digest(tmp_path):
    """Another picture under the same name changes the digest."""
    folder = folder_of(tmp_path)
    before = open_training_set(str(folder)).digest()
    picture(folder / "cat" / "0.png", level=77)
    assert open_training_set(str(folder)).digest() != before


def test_fewer_are_a_seeded_sample_of_all_classes(tmp_path):
    """Sources are sorted by class, so the first ones in their order would be of one class."""
    folder = folder_of(tmp_path, count=20)
    found = open_training_set(str(folder), train=10)
    assert len(found.train) == 10
    assert len(set(found.train.labels.tolist())) == 2


def test_mixed_sizes_are_refused_unless_a_size_is_named(tmp_path):
    """The error names both pictures and the way out; with a size all are scaled to it."""
    folder = folder_of(tmp_path)
    picture(folder / "dog" / "9.png", size=(12, 10))
    with pytest.raises(InputError, match=r"12 x 10 pixels.*0\.png 8 x 8"):
        open_training_set(str(folder))
    assert open_training_set(str(folder), size=(8, 8)).size == (8, 8)


def test_an_unreadable_picture_is_named(tmp_path):
    """The file that cannot be read is named."""
    folder = folder_of(tmp_path)
    (folder / "dog" / "3.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"3\.png"):
        open_training_set(str(folder))


def test_a_class_of_one_picture_is_refused(tmp_path):
    """A class of one picture is refused, since it cannot be both trained and tested on."""
    folder = folder_of(tmp_path)
    picture(folder / "eel" / "0.png")
    with pytest.raises(InputError, match="'eel'"):
        open_training_set(str(folder))


def test_a_folder_of_one_class_cannot_be_classified_but_can_carry_boxes(tmp_path):
    """The error says what is wrong with it; the other task needs no classes."""
    data = open_training_set(str(folder_of(tmp_path, classes=("cat",))))
    with pytest.raises(InputError, match="1 classes"):
        open_task("classification", data)
    assert open_task("micro_object", data).classes == ("black", "red")


def test_a_folder_of_nothing_is_refused(tmp_path):
    """Neither IDX nor classes: the error says what was expected."""
    with pytest.raises(InputError):
        open_training_set(str(tmp_path))


def test_train_and_test_must_have_the_same_classes(tmp_path):
    """A class that is tested and never trained is a slip."""
    folder_of(tmp_path / "train")
    folder_of(tmp_path / "test", classes=("cat", "cow"))
    with pytest.raises(InputError, match=r"cow.*differ"):
        open_training_set(str(tmp_path))


def test_a_name_that_is_nothing_is_refused():
    """An unknown name of data is refused with the possible ones."""
    with pytest.raises(UnknownNameError, match="dead-leaves or digits"):
        open_training_set("no-such-folder")


def test_missing_idx_files_are_named(tmp_path):
    """Missing IDX files are an error with the files found and expected."""
    (idx_folder(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="test-images, train-images, train-labels only"):
        open_training_set(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "is not an IDX file"),
        (idx(np.zeros((2, 3), dtype=np.uint8))[:-1], "2 x 3 bytes and contains 5"),
        (b"\0\0\x08\x03\xff\xff\xff\xff", "cut or damaged"),
        (gzip.compress(idx(np.zeros(9, dtype=np.uint8)), mtime=0)[:-12], "cannot be read"),
    ],
)
def test_damaged_idx_files_are_told(tmp_path, data, why):
    """IDX files that are empty, cut or of another type, also within gzip, are refused."""
    path = tmp_path / "x-ubyte"
    path.write_bytes(data)
    with pytest.raises(InputError, match=why):
        read_idx(path)


def test_images_and_labels_must_be_as_many(tmp_path):
    """Five labels for six images are a slip, not something to guess at."""
    labels = idx(np.zeros(5, dtype=np.uint8))
    (idx_folder(tmp_path) / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(InputError, match=r"\(6, 5, 7\) and labels \(5,\)"):
        open_training_set(str(tmp_path))


def test_a_frame_smaller_than_the_pictures_is_refused(tmp_path):
    """A frame smaller than the pictures is refused instead of cutting them."""
    with pytest.raises(InputError, match=r"5 x 7 pixels.*6 x 6"):
        open_training_set(str(idx_folder(tmp_path)), size=(6, 6))


def test_more_than_memory_should_hold_is_refused_before_it_is_read(tmp_path, monkeypatch):
    """Data too large for the memory is refused with its size before it is read."""
    monkeypatch.setattr(training_data, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="GiB of memory"):
        open_training_set(str(folder_of(tmp_path)))
