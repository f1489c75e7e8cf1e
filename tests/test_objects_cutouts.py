"""Cut-outs of the suite `objects`: planted gains, their labels, the share that is named right."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_objects import GAINS, GREY, Sum, measured, opened, plain, values
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import TorchModel
from perimetry.suites.images import open_images
from perimetry.suites.objects.cutouts import (
    Cutout,
    find_cutouts,
    label_of,
    named_classes,
    with_cutout,
)
from perimetry.suites.objects.layout import Layout
from perimetry.suites.objects.suite import OBJECTS, Objects


def cut_out(path, side=8, margin=3, colour=(255, 255, 255), alpha=255):
    """Write a square of `side` pixels with a transparent margin."""
    whole = np.zeros((side + 2 * margin, side + 2 * margin, 4), dtype=np.uint8)
    whole[margin : margin + side, margin : margin + side] = (*colour, alpha)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(whole).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two white squares, `bright` and `bright-2` in a subfolder, and files that are no cut-outs."""
    cut_out(tmp_path / "stamps" / "bright.png")
    cut_out(tmp_path / "stamps" / "more" / "Bright-2.png")
    cut_out(tmp_path / "stamps" / "other.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "stamps" / "bright_3.png")  # opaque
    (tmp_path / "classes.csv").write_text("# which logit\nbright,0\n")
    return tmp_path


def with_labels(folder, **settings):
    return {
        "protocol": "cutouts",
        "cutouts": str(folder / "stamps"),
        "classes": str(folder / "classes.csv"),
        **settings,
    }


def test_cut_outs_are_answered_by_the_gains_that_they_cover(folder):
    """White squares raise logit 0 as boxes do: by the gain of the phase, or the share of gains."""
    found = measured(opened(Sum()), plain(), **with_labels(folder, sizes=(1, 2, 4)))
    gains = np.array(GAINS)
    response = found.maps["response"]
    np.testing.assert_allclose(response[0].reshape(2, 2), gains / (4 * gains.sum()), rtol=1e-6)
    np.testing.assert_allclose(response[1:], [[1 / 4] * 4, [1] * 4], rtol=1e-6)
    assert values(found)["half_size"] == pytest.approx(2 * 2 ** (1 / 3))
    assert values(found)["smallest_size"] == 2
    assert values(found)["named_right"] == 1
    assert [row["named_right"] for row in found.tables["response"]] == [1, 1, 1]
    assert [row["file"] for row in found.tables["cutouts"]] == ["bright.png", "Bright-2.png"]


def test_the_response_to_a_cut_out_is_that_of_its_own_logit(folder):
    """Loops over cut-outs, sizes and phases: logit 3 minus the mean of five, before and after."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(768, 5))
    module = module.double().eval().requires_grad_(False)
    with torch.no_grad():
        module[-1].weight[3] = module[0](torch.ones(1, 1, 32, 32).double()).flatten()
    (folder / "classes.csv").write_text("bright,3\nother,3\n")
    images = open_images("dead-leaves", 2).load(GREY)
    found = measured(opened(module), images, **with_labels(folder, sizes=(2, 6)))
    above, below, right = np.zeros((2, 4)), 0.0, np.zeros((2, 4))
    for k in range(3):
        image = images[k % 2].double().mean(0)
        changes = np.zeros((2, 4))
        for s, size in enumerate((2, 6)):
            for p, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
                a = 12 + 2 * ((6 - size) // 2 // 2)
                other = image.clone()
                other[a + row : a + row + size, a + column : a + column + size] = 1
                new, old = (module(one[None, None])[0] for one in (other, image))
                changes[s, p] = float((new[3] - new.mean()) - (old[3] - old.mean()))
                right[s, p] += float(new.argmax() == 3) / 3
        above += changes
        below += changes[1].mean()
    np.testing.assert_allclose(found.maps["response"], above / below, rtol=1e-4)
    assert values(found)["named_right"] == pytest.approx(right[1].mean())


def test_a_cut_out_is_cropped_scaled_and_blended(tmp_path):
    """Half opaque red of 8 x 8 pixels within a margin, at 4 pixels, over a blue image."""
    path = cut_out(tmp_path / "red.png", colour=(255, 0, 0), alpha=128)
    image = torch.zeros(3, 32, 32)
    image[2] = 1.0
    layout = Layout((4, 8), ((0, 0), (1, 0)), (12, 12), (2, 2), centred=True)
    found = with_cutout(image, Cutout(path, "red", 0), layout)
    assert len(found) == 5
    torch.testing.assert_close(found[0], image)
    assert layout.corner(4, (1, 0)) == (15, 14)  # a whole stride further in
    share = 128 / 255
    expected = torch.tensor([share, 0, 1 - share])
    torch.testing.assert_close(found[2][:, 15:19, 14:18], expected[:, None, None].expand(3, 4, 4))
    assert int((found[2] != image).any(0).sum()) == 16
    assert int((found[3] != image).any(0).sum()) == 64


def test_a_cut_out_that_is_not_square_keeps_its_shape(tmp_path):
    """Of 8 x 2 pixels at a size of 4 the middle row of a square is covered."""
    whole = np.zeros((6, 10, 4), dtype=np.uint8)
    whole[2:4, 1:9] = 255
    Image.fromarray(whole).save(tmp_path / "bar.png")
    layout = Layout((4,), ((0, 0),), (0, 0), (1, 1))
    found = with_cutout(torch.zeros(3, 8, 8), Cutout(tmp_path / "bar.png", "bar", 0), layout)[1]
    assert (found[0] > 0.5).nonzero().tolist() == [[1, 0], [1, 1], [1, 2], [1, 3]]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("sea_lion-2.png", "sea lion"),
        ("Strawberry2.png", "strawberry"),
        ("tuxpaint.png", "tuxpaint"),
    ],
)
def test_the_label_is_the_name_of_the_file(name, label, tmp_path):
    """Without ending and number, in words."""
    assert label_of(tmp_path / name) == label


def test_labels_are_those_of_the_file_or_of_imagenet(tmp_path):
    """Names that two classes share are none; a file may name ImageNet's classes or numbers."""
    known = named_classes(None, 1000)
    assert (known["zebra"], known["tiger cat"], known["banana"]) == (340, 282, 954)
    assert "crane" not in known
    assert named_classes(None, 10) == {}
    file = tmp_path / "classes.csv"
    file.write_text("tux,king penguin\nbus,7\n")
    assert named_classes(str(file), 1000) == {"tux": 145, "bus": 7}
    with pytest.raises(InputError, match="tux,king penguin"):
        named_classes(str(file), 10)


@pytest.mark.parametrize("text", ["bright\n", "bright,2\n", "bright,-1\n", "a,b,0\n"])
def test_lines_of_the_file_that_cannot_be_read_are_refused(folder, text):
    """No class, a class that the model does not have, more than two parts: `InputError`."""
    (folder / "classes.csv").write_text(text)
    with pytest.raises(InputError):
        measured(opened(Sum()), plain(), **with_labels(folder))


def test_changed_pictures_are_another_setting(folder):
    """The digest follows contents and classes, and one that was recorded has to fit."""
    chosen = {k: v for k, v in with_labels(folder).items() if k != "protocol"}
    first = Objects(**chosen)
    assert first == Objects(**chosen, cutouts_digest=first.cutouts_digest)
    (folder / "classes.csv").write_text("bright,1\n")
    assert Objects(**chosen).cutouts_digest != first.cutouts_digest
    cut_out(folder / "stamps" / "bright.png", colour=(0, 0, 0))
    with pytest.raises(InputError, match="changed"):
        Objects(**chosen, cutouts_digest=first.cutouts_digest)
    with pytest.raises(InputError, match="no pictures"):
        Objects(cutouts=str(folder / "nowhere"))


def test_cut_outs_that_cannot_be_measured_have_a_reason(folder):
    """No label of a class; a label whose score they lower; no folder; a model without logits."""
    (folder / "classes.csv").write_text("night,0\n")
    found = measured(opened(Sum()), plain(), **with_labels(folder))
    assert "label" in found.metrics["half_size"].reason
    (folder / "classes.csv").write_text("bright,1\n")
    found = measured(opened(Sum()), plain(), **with_labels(folder, sizes=(2, 4)))
    assert "do not raise" in found.metrics["half_size"].reason
    assert found.metrics["named_right"].value == 0  # which is known all the same
    assert OBJECTS.skip(opened(Sum()), "cutouts")
    given = Objects(cutouts=str(folder / "stamps"))
    assert given.skip(opened(Sum()), "cutouts") is None
    assert given.skip(opened(nn.Conv2d(1, 2, 2, 2)), "cutouts")
    assert measured(opened(Sum()), plain()).metrics["named_right"].reason


def test_a_weight_set_whose_score_cut_outs_lower_leaves_the_share_named_right(folder):
    """Of two weight sets one names white squares right, and one has the opposite logits."""

    def build(seed):
        sign = 1 - 2 * (seed % 2)
        return Sum([[sign * gain for gain in row] for row in GAINS]).double().eval()

    model = TorchModel(
        build(0),
        build,
        reference="sums",
        spec=GREY,
        device=torch.device("cpu"),
        source={},
        members=2,
        precision="float64",
    )
    found = measured(model, plain(4), **with_labels(folder, sizes=(2, 4)))
    assert "do not raise" in found.metrics["half_size"].reason
    assert found.metrics["named_right"].value == 0.5


def test_cut_outs_of_no_effect_leave_the_share_named_right(folder):
    """A network of constant logits names class 0 whatever it sees."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3)) * 0 + 1, x.sum((1, 2, 3)) * 0], 1)

    found = measured(opened(Constant()), plain(), **with_labels(folder, sizes=(2, 4)))
    assert found.metrics["half_size"].reason
    assert found.metrics["named_right"].value == 1


def test_cut_outs_run_in_an_audit(folder):
    """Chosen as a protocol with a folder; skipped with a reason without one."""
    options = {"objects": {k: v for k, v in with_labels(folder).items() if k != "protocol"}}
    (record,) = audit(opened(Sum()), ("objects:cutouts",), count=2, device="cpu", options=options)
    assert record.status == "ok", record.error
    assert record.metrics["named_right"].value == 1
    (skipped,) = audit(opened(Sum()), ("objects:cutouts",), count=2, device="cpu")
    assert skipped.status == "skipped"
    assert "objects.cutouts" in skipped.reason


STAMPS = Path(os.environ.get("PERIMETRY_STAMPS", "/usr/share/tuxpaint/stamps"))


@pytest.mark.skipif(
    not STAMPS.is_dir(),
    reason="needs the Debian package tuxpaint-stamps-default, or its folder in PERIMETRY_STAMPS",
)
def test_a_trained_classifier_names_stamps_of_the_debian_package():
    """EfficientNet-Lite0 (trained) classifies more at half of the image than at 16 pixels."""
    import trained_weights

    assert len(find_cutouts(str(STAMPS), None, 1000, 10_000, 0)) > 60
    model = load(f"timm:tf_efficientnet_lite0@{trained_weights.LITE0}", device="cpu")
    settings = {"cutouts": str(STAMPS), "cutouts_used": 8, "sizes": (16, 112), "phases": 2}
    found = measured(model, count=4, protocol="cutouts", **settings)
    small, large = found.tables["response"]
    assert small["named_right"] < large["named_right"]
    assert small["mean"] < 0.5
