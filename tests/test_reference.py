"""References: every form is parsed and printed again as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perimetry.adapters.errors import UnknownNameError
from perimetry.adapters.load import files_of
from perimetry.adapters.names import family_of, with_tag
from perimetry.adapters.reference import Reference

FORMS = {
    "timm:resnet18": Reference("timm", "resnet18"),
    "timm:resnet18.a1_in1k": Reference("timm", "resnet18", "a1_in1k"),
    "timm:resnet18@init": Reference("timm", "resnet18", "", "init"),
    "timm:resnet18.a1@w/a@b.pth": Reference("timm", "resnet18", "a1", "w/a@b.pth"),
    "timm:resnet18@weights.onnx": Reference("timm", "resnet18", "", "weights.onnx"),
    "a/v1.0@x/net.onnx": Reference("onnx", "a/v1.0@x/net.onnx"),
    "tiny-resnet@weights.pt": Reference("", "tiny-resnet", "", "weights.pt"),
    "my model v1.5": Reference("", "my model v1.5"),
}


@pytest.mark.parametrize("text", FORMS)
def test_a_reference_is_parsed_into_its_parts(text):
    """Runtime, name, tag and weights, whichever of them the form has."""
    assert Reference.parse_any(text) == FORMS[text]


@given(st.text() | st.from_regex(r"(timm:)?[a-z]*\.?[a-z0-9]*(@|\.onnx)?.*"))
def test_a_parsed_reference_prints_as_its_text(text):
    """`str` inverts `parse_any`, whatever the text."""
    assert str(Reference.parse_any(text)) == text


@pytest.mark.parametrize(
    ("text", "short", "bare", "file"),
    [
        ("timm:a.b@init", "a.b@init", "timm:a.b", None),
        ("timm:a@w.pth", "a@w.pth", "timm:a", "w.pth"),
        ("timm:a", "a", "timm:a", None),
        ("x/a.onnx", "x/a.onnx", "x/a.onnx", "x/a.onnx"),
        ("probe", "probe", "probe", None),
    ],
)
def test_a_reference_has_shorter_forms_and_perhaps_a_file(text, short, bare, file):
    """A reference has forms without runtime and without weights, and the file it names."""
    parsed = Reference.parse_any(text)
    assert (parsed.short, parsed.bare) == (short, bare)
    assert (parsed.file and str(parsed.file)) == file


@pytest.mark.parametrize("text", ["resnet18", "tinm:resnet18", "hg:some/model", "net.pt", ""])
def test_a_reference_of_no_known_form_cannot_be_loaded(text):
    """The error says which forms there are, and which runtime may have been meant."""
    with pytest.raises(UnknownNameError, match="expected timm:NAME") as caught:
        Reference.parse(text)
    assert ("did you mean timm:resnet18?" in str(caught.value)) == text.startswith("tinm:")


def test_files_of_a_reference_are_those_that_decide_its_numbers():
    """A reference's files are the file, its external data and its ONNX declaration."""
    names = ["m.onnx", "m.onnx.data", "m.data", "m.toml"]
    assert [str(path) for path in files_of("m.onnx")] == names
    assert [str(path) for path in files_of("timm:a@m.pth")] == ["m.pth", "m.pth.data", "m.data"]
    assert files_of("timm:a@init") == files_of("timm:a") == files_of("probe") == []


def test_family_and_tag_are_those_of_timm():
    """The family is the module that defines an architecture, the tag timm's default."""
    assert family_of("timm:regnetx_002@init") == "regnet"
    assert family_of("timm:regnety_002.pycls_in1k") == "regnet"
    assert family_of("timm:nonesuch") is None
    assert family_of("regnetx_002.onnx") is None
    assert with_tag("timm:resnet18") == "resnet18.a1_in1k"
    assert with_tag("timm:resnet18.fb_swsl_ig1b_ft_in1k") == "resnet18.fb_swsl_ig1b_ft_in1k"
    assert with_tag("timm:resnet18@init") is with_tag("resnet18.onnx") is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("torchvision:resnet18.V1@init", ("torchvision", "resnet18", "V1", "init")),
        ("hf:org/net-1.5@init", ("hf", "org/net-1.5", "", "init")),
        ("hf:./a.b", ("hf", "./a.b", "", None)),
        ("timm:hf-hub:org/net.v1", ("timm", "hf-hub:org/net.v1", "", None)),
        ("py:a.b:c", ("py", "a.b:c", "", None)),
        ("a/b.pt2", ("pt2", "a/b.pt2", "", None)),
    ],
)
def test_names_of_other_libraries_keep_their_dots(text, parts):
    """Only timm and torchvision have tags, and only `timm:` is left out of the short form."""
    parsed = Reference.parse_any(text)
    assert (parsed.runtime, parsed.name, parsed.variant, parsed.weights) == parts
    assert str(parsed) == text
    assert (parsed.short == text) == (parsed.runtime != "timm")
