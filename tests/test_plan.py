"""Plans: names are checked, and a key changes with whatever can change the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toys
from PIL import Image

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.execution import plan as plan_module
from perimetry.bench.execution.plan import (
    AuditPlan,
    Choice,
    file_identity,
    parse_fills,
    parse_shard,
    parse_suites,
)
from perimetry.bench.execution.settings import Settings

SETTINGS = Settings(images="noise", count=4)


def keys(reference="toy:a", fills=("none",), settings=SETTINGS, device="cpu", **options):
    suites = ["structure", "deadpixel"]
    jobs = AuditPlan([reference], suites, fills, settings, device, toys.SUITES, **options).jobs()
    return {c.suite: c.key for job in jobs for c in job.cells}


def changed(**options):
    before, after = keys(), keys(**options)
    return {suite for suite in before if before[suite] != after[suite]}


BOTH = {"structure", "deadpixel"}


def test_the_same_plan_has_the_same_keys():
    """Two equal plans have the same keys."""
    assert keys() == keys()
    assert len(set(keys().values())) == 2


@pytest.mark.parametrize(
    ("options", "suites"),
    [
        ({"reference": "toy:b"}, BOTH),
        ({"fills": ("box",)}, BOTH),
        ({"device": "cuda"}, BOTH),
        ({"identities": {"toy:a": "other tensors"}}, BOTH),
        ({"settings": replace(SETTINGS, seed=1)}, BOTH),
        ({"settings": replace(SETTINGS, target="layer3")}, BOTH),
        ({"settings": replace(SETTINGS, size=(64, 64))}, BOTH),
        ({"settings": replace(SETTINGS, members=2)}, BOTH),
        ({"settings": replace(SETTINGS, count=5)}, {"deadpixel"}),
        ({"settings": replace(SETTINGS, images="dead-leaves")}, {"deadpixel"}),
        ({"settings": replace(SETTINGS, draws=50)}, {"deadpixel"}),
    ],
)
def test_a_key_changes_with_what_changes_the_numbers(options, suites):
    """Images and draws change the keys of suites that look at images; the rest changes all."""
    assert changed(**options) == suites


def test_library_versions_are_part_of_the_key(monkeypatch):
    """Another version of torch gives other keys."""
    before = keys()
    monkeypatch.setattr(plan_module, "versions", lambda _names: {"torch": "0.0"})
    assert not set(before.values()) & set(keys().values())


def test_a_protocol_version_is_part_of_the_key(monkeypatch):
    """Another version of a protocol gives another key."""
    before = keys()
    monkeypatch.setitem(toys.Gradient.protocols, "energy", "99")
    assert keys()["deadpixel"] != before["deadpixel"]
    assert keys()["structure"] == before["structure"]


@pytest.mark.parametrize("form", ["{}", "timm:resnet18@{}"])
def test_a_file_is_known_by_its_bytes(tmp_path, form):
    """Changing a file, or the external data beside it, changes the key; missing files have none."""
    path = tmp_path / "model.onnx"
    reference = form.format(path)
    assert file_identity(reference) == ""
    path.write_bytes(b"one")
    first = file_identity(reference)
    (tmp_path / "model.onnx.data").write_bytes(b"weights")
    second = file_identity(reference)
    path.write_bytes(b"two")
    assert len({first, second, file_identity(reference)}) == 3


def test_a_folder_of_images_is_known_by_its_pixels(tmp_path):
    """Another picture under the same name is another image set."""
    for value in (0, 255):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / "x.png")
        found = keys(settings=replace(SETTINGS, images=str(tmp_path)))
        if value == 0:
            before = found
    assert before["deadpixel"] != found["deadpixel"]
    assert before["structure"] == found["structure"]


def test_suites_are_read_with_their_protocols():
    """A bare name is the default protocol, `all` is every protocol, each once and in order."""
    assert parse_suites(["deadpixel", "deadpixel:all", "structure"], toys.SUITES) == [
        ("deadpixel", "energy"),
        ("deadpixel", "kim2023"),
        ("structure", "expected"),
    ]
    assert parse_fills(["box", "none", "box"]) == ["none", "box"]


@pytest.mark.parametrize(
    ("suites", "fills", "text"),
    [
        (["deadpixl"], ["none"], "unknown suite 'deadpixl'; did you mean deadpixel?"),
        (
            ["deadpixel:kim23"],
            ["none"],
            "unknown protocol of deadpixel 'kim23'; did you mean kim2023?",
        ),
        (["structure"], ["bx"], "unknown kernel padding 'bx'; did you mean box?"),
    ],
)
def test_unknown_names_offer_near_ones(suites, fills, text):
    """A misspelt suite, protocol or fill is answered with the right spelling."""
    with pytest.raises(UnknownNameError) as caught:
        AuditPlan(["toy:a"], suites, fills, SETTINGS, "cpu", toys.SUITES).jobs()
    assert str(caught.value) == text


def test_no_suite_is_an_error():
    """An empty list of suites is an error that lists the suites."""
    with pytest.raises(InputError, match="structure, deadpixel, fidelity"):
        parse_suites([], toys.SUITES)


def test_fidelity_joins_only_treated_variants_of_image_suites():
    """Fidelity comes with a treated variant when images are looked at, not for exact suites."""

    def made(suites, fills):
        jobs = AuditPlan(["toy:a"], suites, fills, SETTINGS, "cpu", toys.SUITES).jobs()
        return [(job.fill, cell.suite) for job in jobs for cell in job.cells]

    assert made(["structure"], ["none", "box"]) == [("none", "structure"), ("box", "structure")]
    assert ("box", "fidelity") in made(["deadpixel"], ["none", "box"])
    assert ("none", "fidelity") not in made(["deadpixel"], ["none", "box"])
    assert made(["fidelity"], ["none", "zero"]) == [("zero", "fidelity")]


NAMES = ["timm:resnet18@init", "timm:resnet34@init", "timm:regnetx_002@init", "vendor.onnx"]


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (Choice(), NAMES),
        (Choice(exclude=("resnet*",)), NAMES[2:]),
        (Choice(exclude=("*.onnx", "timm:*18")), NAMES[1:3]),
        (Choice(family="regnet"), [NAMES[2]]),
        (Choice(shard=(2, 2)), [NAMES[1], NAMES[3]]),
        (Choice(limit=1, shard=(2, 3)), [NAMES[1]]),
    ],
)
def test_a_choice_leaves_out_shares_and_bounds(choice, kept):
    """Exclusion, family, shard and limit each keep the expected names."""
    assert choice.of(NAMES) == kept


def test_shards_are_disjoint_and_together_everything():
    """Three shards contain each name exactly once."""
    shares = [name for i in (1, 2, 3) for name in Choice(shard=(i, 3)).of(NAMES)]
    assert sorted(shares) == sorted(NAMES)


def test_an_unknown_family_is_answered_with_near_names():
    """A misspelt family is an UnknownNameError with near names."""
    with pytest.raises(UnknownNameError, match=r"'regnets'.*regnet"):
        Choice(family="regnets").of(NAMES)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/"])
def test_a_shard_that_is_none_is_an_error_with_the_form(text):
    """A text that is not I/N with I from 1 to N is an InputError."""
    with pytest.raises(InputError, match="I/N"):
        parse_shard(text)
    assert parse_shard("2/8") == (2, 8)
