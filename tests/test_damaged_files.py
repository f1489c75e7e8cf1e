"""Files that are no weights and no model: the message says what they are, and what to do."""

import gzip
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from perimetry.adapters.checkpoint.damage import damage
from perimetry.adapters.checkpoint.read import read_checkpoint
from perimetry.adapters.errors import ModelFileError
from perimetry.adapters.load import load

SUFFIXES = ("safetensors", "pth", "pt", "ckpt", "pth.tar", "pt2", "onnx")

FOREIGN = {
    "empty": (b"", "empty (0 bytes)", "download it again"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\nsize 9", "Git LFS", "git lfs pull"),
    "page": (b"\n <!DOCTYPE html>\n<html></html>", "web page (31 bytes", "download the file"),
    "text": ("gewährt\n".encode(), "text (9 bytes)", "'gewährt'"),
    "long text": (b"a line\n" * 200, "text (1400 bytes)", "'a line"),
    "gzip": (gzip.compress(b"weights"), "gzip", "unpack"),
    "zeros": (bytes(4000), "bytes of 0 (of 4000)", "download it again"),
}
"""Contents, what is said of them, and what to do."""


def refusal(path):
    reference = f"timm:test_resnet@{path}"
    with pytest.raises(ModelFileError) as caught:
        load(str(path) if path.suffix in (".pt2", ".onnx") else reference, device="cpu")
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_something_else_is_told_for_what_it_is(content, suffix, tmp_path):
    """Whatever its suffix: what the file is, what was expected, and what to do."""
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(FOREIGN[content][0])
    said = refusal(path)
    assert all(part in said for part in (str(path), *FOREIGN[content][1:], "expected")), said


@pytest.fixture
def whole(tmp_path):
    """The bytes of whole files, by suffix."""
    state = {"weight": torch.arange(4000.0), "bias": torch.zeros(3)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    torch.save(state, tmp_path / "a.old.pth", _use_new_zipfile_serialization=False)
    program = torch.export.export(nn.Conv2d(3, 2, 3), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, tmp_path / "a.pt2")
    names = ("safetensors", "pth", "old.pth", "pt2")
    return {name: (tmp_path / f"a.{name}").read_bytes() for name in names}


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "old.pth", "pt2"])
@pytest.mark.parametrize("share", [0.003, 0.01, 0.02, 0.5, 0.999])
def test_a_cut_file_is_said_to_be_cut(suffix, share, whole, tmp_path):
    """At any place: the file is cut, and how many bytes are there."""
    path = tmp_path / f"cut.{suffix}"
    count = int(share * len(whole[suffix]))
    path.write_bytes(whole[suffix][:count])
    said = refusal(path)
    assert "is cut" in said
    assert str(count) in said


def test_cut_safetensors_say_how_many_bytes_are_missing(whole, tmp_path):
    """By the sizes in their header."""
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole["safetensors"][:-5])
    total = len(whole["safetensors"])
    assert f"{total - 5} of {total} bytes" in refusal(path)


def test_a_wrong_suffix_is_told_the_right_one(whole, tmp_path):
    """Files of torch named as safetensors, and safetensors named as files of torch."""
    for content, suffix, right in (
        ("safetensors", "pth", ".safetensors"),
        ("pth", "safetensors", ".pth"),
        ("old.pth", "safetensors", ".pth"),
    ):
        path = tmp_path / f"named.{suffix}"
        path.write_bytes(whole[content])
        assert f"name it {right}" in refusal(path)


def test_other_archives_are_told_from_weights(tmp_path):
    """A TorchScript program and a zip archive of something else."""
    for entry, said in (("a/code/__torch__.py", "TorchScript"), ("readme.txt", "zip archive")):
        path = tmp_path / "a.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(entry, "nothing")
        assert said in refusal(path)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_whole_file_has_no_damage(suffix, whole, tmp_path):
    """Nothing is said of files that can be read."""
    path = tmp_path / f"a.{suffix}"
    assert damage(path) is None
    assert len(read_checkpoint(path).state) == 2
    assert whole
