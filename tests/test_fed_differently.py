"""Boards, pages and comparisons warn of rows that were fed with different kinds of input."""

from dataclasses import asdict, replace

import pytest
from torch import nn

from perimetry import audit, compare
from perimetry.adapters.input_spec import InputSpec
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.caption import caption
from perimetry.bench.ranking.page.numbers import content
from perimetry.bench.ranking.tables import FORMATS, render_board
from perimetry.bench.records.fed import fed_differently

PLAIN = InputSpec(32, 32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GUESS = replace(PLAIN, guessed=("mean", "std", "value_range"))


@pytest.fixture(scope="module")
def template():
    """One record of a small module, on images."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
    (record,) = audit(net, ("deadpixel",), device="cpu", size=(32, 32), count=2)
    assert record.status == "ok", record.error
    return record


def fed(template, images=None, **specs):
    """A row for each name, with its spec."""
    shown = template.images.model_copy(update={"name": images or template.images.name})
    return [
        (
            name,
            template.model_copy(
                update={
                    "model": template.model.model_copy(
                        update={"reference": name, "spec": asdict(spec)}
                    ),
                    "images": shown,
                }
            ),
        )
        for name, spec in specs.items()
    ]


@pytest.mark.parametrize(
    ("change", "kind", "labels"),
    [
        ({"height": 64, "width": 48}, "size", ("32 x 32 (a)", "64 x 48 (b)")),
        ({"channel_order": "BGR"}, "channels", ("RGB (a)", "BGR (b)")),
        ({"channels": 1, "mean": (0.5,), "std": (0.5,)}, "channels", ("RGB (a)", "1 (b)")),
        (
            {"value_range": 255.0, "mean": (0.0,) * 3, "std": (1.0,) * 3},
            "range",
            ("0..1 (a)", "0..255 (b)"),
        ),
        (
            {"guessed": ("mean",)},
            "normalisation",
            ("declared (a)", "guessed: mean 0.485, 0.456, 0.406 (b)"),
        ),
    ],
)
def test_each_difference_is_one_clause_with_its_groups(template, change, kind, labels):
    """One sentence names what differs and the rows of each group."""
    assert fed_differently(fed(template, a=PLAIN, b=replace(PLAIN, **change))) == [
        f"Fed differently: {kind} {', '.join(labels)}."
    ]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mean": (0.5,) * 3, "std": (0.5,) * 3},
        {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        {
            "value_range": 255.0,
            "mean": tuple(255 * m for m in PLAIN.mean),
            "std": tuple(255 * s for s in PLAIN.std),
        },
        {"layout": "NHWC", "dtype": "float16"},
        {"interpolation": "bilinear", "crop_pct": 1.0},
        {"guessed": ("interpolation", "crop_pct")},
    ],
)
def test_declared_normalisations_are_no_difference(template, change):
    """Declared means, equal pixels on another scale, and the layout do not warn."""
    assert fed_differently(fed(template, a=PLAIN, b=replace(PLAIN, **change))) == []


def test_cropping_counts_for_photographs_only(template):
    """Drawn images are made at the size of the input; files are resized and cropped."""
    specs = {"a": PLAIN, "b": replace(PLAIN, interpolation="bilinear")}
    assert fed_differently(fed(template, **specs)) == []
    (sentence,) = fed_differently(fed(template, images="photos", **specs))
    assert "bicubic at crop 0.875 (a), bilinear at crop 0.875 (b)" in sentence


def test_equal_guesses_are_one_group_and_other_guesses_two(template):
    """Rows that all rest on one guess are fed alike."""
    other = replace(GUESS, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert fed_differently(fed(template, a=GUESS, b=GUESS)) == []
    assert len(fed_differently(fed(template, a=GUESS, b=other))) == 1


def test_many_groups_are_one_short_sentence(template):
    """Large groups are counted, and the smallest groups together."""
    sizes = {f"m{i}": replace(PLAIN, height=16 + i, width=16 + i) for i in range(9)}
    alike = {f"n{i}": PLAIN for i in range(20)}
    (sentence,) = fed_differently(fed(template, **sizes, **alike))
    assert sentence.startswith("Fed differently: size 32 x 32 (20 models), 16 x 16 (m0)")
    assert sentence.endswith("others (6 rows).")


def test_rows_without_an_input_are_left_out(template):
    """A model that failed before it was opened has no input that could differ."""
    rows = fed(template, a=PLAIN, b=GUESS)
    rows[1][1].model = rows[1][1].model.model_copy(update={"spec": {}})
    assert fed_differently(rows) == []


def test_boards_in_all_forms_and_the_page_warn(template):
    """Every form with a caption has the sentence; a board of rows fed alike has none."""
    rows = [r for _, r in fed(template, a=PLAIN, b=replace(PLAIN, channel_order="BGR"))]
    board = Board(rows)
    (sentence,) = (line for line in caption(board) if line.startswith("Fed differently"))
    assert all(sentence in render_board(board, form) for form in FORMATS if form != "csv")
    assert sentence in str(content(board))
    alike = caption(Board(rows[:1]))
    assert not any(line.startswith("Fed differently") for line in alike)


def test_a_comparison_says_which_side_was_guessed():
    """The same numbers are declared for one side and a guess for the other."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)).eval()
    guessed = audit(net, ("structure",), device="cpu", size=(32, 32))
    declared = audit(
        net,
        ("structure",),
        device="cpu",
        size=(32, 32),
        name="declared",
        inputs={"mean": PLAIN.mean, "std": PLAIN.std, "range": "0..1", "channel_order": "RGB"},
    )
    text = " ".join(compare(guessed, declared, stages=False).text().split())
    assert "Fed differently: normalisation guessed: mean 0.485" in text
    assert "declared (declared)" in text
