"""Image sets: built in and from a folder."""

import numpy as np
import pytest
import torch
from PIL import Image

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.adapters.input_spec import InputSpec
from perimetry.suites.images import open_images
from perimetry.suites.pictures import read_picture

SPEC = InputSpec(48, 64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others():
    """Dead leaves of one seed are equal bit by bit, and another seed gives others."""
    one, two = (open_images("dead-leaves", 3, seed=5).load(SPEC) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, open_images("dead-leaves", 3, seed=6).load(SPEC))


def test_an_image_does_not_depend_on_how_many_others_are_asked_for():
    """The first two of five images are those of two."""
    few, many = (open_images("dead-leaves", n).load(SPEC) for n in (2, 5))
    assert torch.equal(few, many[:2])


def test_dead_leaves_fill_the_canvas_with_values_in_range():
    """Values reach below 0.1 and above 0.9, within [0, 1]."""
    images = open_images("dead-leaves", 4).load(SPEC)
    assert images.shape == (4, 3, 48, 64)
    assert 0 <= images.min() < 0.1 < 0.9 < images.max() <= 1


def test_dead_leaves_have_the_falling_spectrum_of_natural_images():
    """The slope of log power over log frequency is between -3 and -1.2."""
    images = open_images("dead-leaves", 8).load(InputSpec(128, 128)).mean(1).numpy()
    power = (np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True))) ** 2).mean(0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(128)] * 2))
    band = (frequency > 0.02) & (frequency < 0.25)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert -3 < slope < -1.2


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_noise_is_standard_normal_after_normalisation(order):
    """Mean 0 and deviation 1 per channel, for both channel orders."""
    spec = InputSpec(64, 64, mean=(4.0, 50, 60), std=(2.0, 25, 30), value_range=255.0)
    spec = InputSpec(**{**spec.__dict__, "channel_order": order})
    x = spec.prepare(open_images("noise", 8).load(spec))
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=0.03)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(3), atol=0.03)


def test_a_folder_gives_its_pictures_cropped_from_the_centre(tmp_path):
    """A white square in the centre fills the crop of half the side."""
    picture = np.zeros((80, 80, 3), dtype=np.uint8)
    picture[20:60, 20:60] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    images = open_images(str(tmp_path)).load(InputSpec(40, 40, crop_pct=0.5))
    assert images.shape == (1, 3, 40, 40)
    assert images.mean() > 0.98


def test_a_larger_folder_is_sampled_by_seed_in_name_order(tmp_path):
    """Three of six files are chosen by the seed, sorted and the same each time."""
    for i in range(6):
        Image.fromarray(np.full((8, 8, 3), i * 40, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    names = [p.name for p in open_images(str(tmp_path), 3, seed=1).files]
    assert names == sorted(names)
    assert names == [p.name for p in open_images(str(tmp_path), 3, seed=1).files]
    assert len(names) == 3


def test_the_digest_tells_sets_and_sizes_apart(tmp_path):
    """Another set, count, seed or size changes the digest."""
    digests = {
        open_images(name, count, seed).digest(spec)
        for name, count, seed, spec in [
            ("dead-leaves", 2, 0, SPEC),
            ("dead-leaves", 3, 0, SPEC),
            ("dead-leaves", 2, 1, SPEC),
            ("noise", 2, 0, SPEC),
            ("dead-leaves", 2, 0, InputSpec(32, 32)),
        ]
    }
    assert len(digests) == 5


def test_unknown_sets_empty_folders_and_broken_files_are_named(tmp_path):
    """Each is an error of its own, when loading and when checking."""
    with pytest.raises(UnknownNameError, match="'cats'"):
        open_images("cats")
    with pytest.raises(InputError, match="contains no images"):
        open_images(str(tmp_path))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    for use in (lambda images: images.load(SPEC), lambda images: images.check()):
        with pytest.raises(InputError, match=r"broken\.png"):
            use(open_images(str(tmp_path)))
    with pytest.raises(InputError, match="at least 1"):
        open_images("noise", 0)


def test_greys_of_16_bits_keep_their_upper_byte_and_their_turn(tmp_path):
    """PNG and TIFF are read as the value divided by 256."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(48, 0)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        read = np.asarray(read_picture(tmp_path / name))
        assert read.shape == (48, 64, 3)
        assert np.array_equal(read[..., 0], ramp >> 8)


def test_pictures_whose_white_is_unknown_are_refused_rather_than_clipped(tmp_path):
    """Float and 32-bit TIFF files are an InputError."""
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((8, 8), 70000, dtype=np.int32)).save(tmp_path / "wide.tif")
    for name, kind in (("float.tif", "floats"), ("wide.tif", "32-bit integers")):
        with pytest.raises(InputError, match=f"{name}.*{kind}"):
            read_picture(tmp_path / name)


def test_hidden_files_and_folders_are_no_pictures_and_folders_inside_are_named(tmp_path):
    """Hidden files and folders are not images; the error mentions that subfolders are not read."""
    (tmp_path / "class.png").mkdir()
    (tmp_path / "._a.png").write_bytes(b"a copy's attributes")
    with pytest.raises(InputError, match="subfolders"):
        open_images(str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert [p.name for p in open_images(str(tmp_path)).files] == ["a.png"]


def test_a_folder_is_called_by_its_own_name_wherever_it_is_named_from(tmp_path, monkeypatch):
    """A folder given as `.` has its own name."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert open_images(".").name == tmp_path.name
