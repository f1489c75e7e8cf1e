"""`perimetry rank`: the place of one model in a published set."""

from __future__ import annotations

import gzip
import json

import pytest
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.comparison import sources
from perimetry.bench.comparison.placement import place, placement_to_json, placement_to_text
from perimetry.bench.records.archive import PUBLISHED, pack_records
from perimetry.bench.records.selection import MixedRecordsError
from perimetry.bench.records.store import Store

SET = ("test_resnet", "test_efficientnet", "test_vit")
SETTINGS = {"size": (96, 96), "count": 8}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A packed set of three small architectures, in the folder of a published set."""
    folder = tmp_path_factory.mktemp("set")
    store = Store(folder / "run")
    for name in SET:
        for record in audit(f"timm:{name}@init", ("deadpixel",), ("none", "box"), **SETTINGS):
            store.put(record)
    pack_records(store, folder / PUBLISHED)
    return folder


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_model_that_is_audited_now_has_the_rank_that_the_board_would_give_it(published):
    """It is measured by the settings of the set, and ranks among rows of its kernel padding."""
    found = place("timm:test_byobnet@init", published)
    assert found.row.model == "timm:test_byobnet@init"
    assert {row.fill for row in found.rows} == {"none"}
    assert len(found.rows) == len(SET) + 1
    values = [row.value("deadpixel.weakest") for row in found.rows]
    assert values == sorted(values, reverse=True)
    (own,) = found.row.records.values()
    (plain,) = audit("timm:test_byobnet@init", ("deadpixel",), **SETTINGS)
    assert own.metrics["weakest"] == plain.metrics["weakest"]
    position = values.index(found.row.value("deadpixel.weakest")) + 1
    assert found.rank.low <= position <= found.rank.high


def test_a_damaged_set_is_told(published, tmp_path):
    """A rank among what is left of a set that was cut off does not pass for one in the set."""
    lines = gzip.decompress((published / PUBLISHED).read_bytes()).decode().splitlines()
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(lines[:-1]) + "\n")
    found = command("rank", f"{published}:test_resnet@init", "--within", cut)
    assert found.exit_code == 0
    assert "cut.jsonl is damaged" in found.stderr
    assert not command("rank", f"{published}:test_resnet@init", "--within", published).stderr


def test_a_stored_model_replaces_its_own_row_in_the_set(published):
    """A model that is in the set is not its own neighbour."""
    found = place(f"{published}:test_resnet@init", published)
    assert [row.model for row in found.rows].count("timm:test_resnet@init") == 1
    assert len(found.rows) == len(SET)
    above, below = found.neighbours
    assert found.row not in [*above, *below]
    assert len(above) + len(below) == len(SET) - 1


def test_a_model_with_a_hole_is_ranked_with_its_hole(published):
    """The rank does not count it: the text, the table and the JSON name it."""
    (record,) = (
        r
        for r in load_records(published)
        if r.fill == "none" and "test_resnet" in r.model.reference
    )
    hole = {"channel": "all", "pixels": 24, "top": 3, "left": 8, "bottom": 7, "right": 14}
    whole = place([record], published)
    assert "efects" not in placement_to_text(whole)
    assert placement_to_json(whole)["defects"] == []
    holed = record.model_copy(update={"tables": {**record.tables, "dead_regions": [hole]}})
    found = place([holed], published)
    said = "dead: 24 pixels in rows 3 to 6, columns 8 to 13 (deadpixel)"
    assert placement_to_json(found)["defects"] == [said]
    text = placement_to_text(found)
    assert said in " ".join(text.split())
    (own,) = (line for line in text.splitlines() if line.startswith("> "))
    assert own.split()[-1] == "dead"


def test_a_padded_variant_ranks_among_padded_ones(published):
    """A variant `+box` is compared with the rows of the kernel padding box."""
    found = place(f"{published}:test_resnet@init+box", published)
    assert {row.fill for row in found.rows} == {"box"}


def test_records_of_other_settings_are_refused(published):
    """Records with another number of images are refused with the difference."""
    records = audit("timm:test_resnet@init", ("deadpixel",), size=(96, 96), count=4)
    with pytest.raises(MixedRecordsError, match="count 4 against"):
        place(records, published)


def test_a_model_that_does_not_exist_is_refused_before_anything_is_measured(published, monkeypatch):
    """A file that is not there, and a misspelt name."""
    monkeypatch.setattr(sources, "audited", None)
    for name in ("nope.onnx", "timm:test_resnt@init"):
        with pytest.raises(UnknownNameError, match=name):
            place(name, published)


def test_an_old_set_is_refused_before_anything_is_measured(published, tmp_path):
    """Its protocol version is not that of a model measured now; the model is not even opened."""
    store = Store(tmp_path)
    for record in load_records(published):
        store.put(record.model_copy(update={"version": "0"}))
    with pytest.raises(InputError, match="version 0"):
        place("no-such-file.onnx", tmp_path)


def test_a_model_without_the_number_says_why(published):
    """A model with records of another suite only is refused: nothing ranks it."""
    records = audit("timm:test_resnet@init", ("structure",), **SETTINGS)
    with pytest.raises(InputError, match="deadpixel:energy"):
        place(records, published)


def test_the_command_prints_rank_and_neighbours_or_json(published):
    """The table and the JSON of the command have the same rank and neighbours."""
    words = ("rank", f"{published}:test_resnet@init", "--within", published)
    shown = command(*words)
    assert shown.exit_code == 0, shown.output
    found = place(f"{published}:test_resnet@init", published)
    assert f"rank {found.rank} of {len(SET)}" in shown.output
    assert all(row.model in shown.output for row in found.rows)
    assert json.loads(command(*words, "--json").output) == placement_to_json(found)
    assert len(load_records(published)) == len(load_records(published / PUBLISHED))


def test_a_setting_that_was_left_open_is_said_in_words(published):
    """A size that the command gave, against the model's own: no `None`, no brackets."""
    records = audit("timm:test_resnet@init", ("deadpixel",), count=8)
    with pytest.raises(MixedRecordsError) as caught:
        place(records, published)
    assert "size the model's own size against 96 x 96" in str(caught.value)
    assert "None" not in str(caught.value)
