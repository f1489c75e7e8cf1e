"""Reports for other places: a card's section, the hub's eval results, numbers for trackers."""

from __future__ import annotations

import re

import pytest
import yaml
from planted_report import case_of, record
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.model_report.publishing import Attribution, card, eval_results
from perimetry.bench.records.store import Store

HOLE = {"channel": "all", "pixels": 24, "top": 3, "left": 8, "bottom": 7, "right": 14}


def measured(fill="none", **changes):
    return record(
        "deadpixel",
        {"weakest": (0.4, 0.1), "imbalance": (0.3, 0.02), "by_period_2": "no such period"},
        fill=fill,
        **changes,
    )


def parsed(case, **options):
    return yaml.safe_load(eval_results(case, "org/visual-field", **options))


def test_eval_results_have_the_fields_of_the_hubs_schema_and_no_others():
    """Entries: dataset with id and task_id, value; date, source and notes are optional."""
    case = case_of(measured(), record("structure", {"weakest": 0.5}))
    source = Attribution("https://example.org/records", "Records", "org")
    entries = parsed(case, revision="abc", source=source)
    assert [one["dataset"]["task_id"] for one in entries] == [
        "deadpixel.weakest",
        "structure.weakest",
    ]
    first = entries[0]
    assert set(first) == {"dataset", "value", "date", "source", "notes"}
    assert first["dataset"]["id"] == "org/visual-field"
    assert first["dataset"]["revision"] == "abc"
    assert first["value"] == 0.4
    assert isinstance(first["date"], str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", first["date"])
    assert first["source"] == {"url": source.url, "name": "Records", "user": "org"}
    assert "95 % interval 0.300 to 0.500" in first["notes"]


def test_a_published_number_of_a_model_with_a_hole_tells_the_hole():
    """The notes of the suite that found it name its pixels, since the number does not count it."""
    holed = measured(tables={"dead_regions": [HOLE]})
    first, second = parsed(case_of(holed, record("structure", {"weakest": 0.5})))
    assert first["notes"].endswith("; dead: 24 pixels in rows 3 to 6, columns 8 to 13")
    assert "dead" not in second["notes"]


def test_only_what_is_required_is_written_where_nothing_more_is_known():
    """Without a source or a revision, their keys are left out."""
    (entry,) = parsed(case_of(record("structure", {"weakest": 0.5})))
    assert set(entry) == {"dataset", "value", "date", "notes"}
    assert set(entry["dataset"]) == {"id", "task_id"}


def test_chosen_metrics_are_published_and_a_missing_number_is_refused():
    """A metric without a value has no entry: it is an error to ask for one."""
    (entry,) = parsed(case_of(measured()), metrics=["deadpixel.imbalance"])
    assert entry["dataset"]["task_id"] == "deadpixel.imbalance"
    with pytest.raises(UnknownNameError):
        parsed(case_of(measured()), metrics=["deadpixel.by_period_2"])


@pytest.mark.parametrize("dataset", ["", "plain", "a/b/c", "a b/c", "/x", "../x/y"])
def test_a_dataset_must_be_named_as_on_the_hub(dataset):
    """ORG/NAME, and nothing else."""
    with pytest.raises(InputError):
        eval_results(case_of(measured()), dataset)


def test_a_source_without_an_address_is_refused():
    """The schema requires `url` in a source."""
    with pytest.raises(InputError):
        eval_results(case_of(measured()), "a/b", source=Attribution(None, "Records"))


def test_a_card_says_verdict_dead_regions_and_what_to_do_then_the_main_numbers():
    """Three lines, a table of main metrics with intervals, provenance and the command."""
    text = card(case_of(measured(tables={"dead_regions": [HOLE]})))
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    starts = ("- Verdict: ", "- Dead regions: 24 pixels", "- What to do: ")
    assert len(lines) == 3
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    row = r"\| `deadpixel\.weakest` +\| least sensitive phase +\| +0\.40 ± 0\.10 \|"
    assert re.search(row, text)
    assert "by_period" not in text
    assert "perimetry run toy:model" in text


def test_markdown_in_a_record_is_not_live_in_a_card():
    """Notes and names of a model file cannot add links, headings or markup."""
    evil = measured(notes=["all weights are NaN <script>[x](http://evil)"])
    evil.model = evil.model.model_copy(update={"reference": "a`b|c\n# Title"})
    text = card(case_of(evil))
    assert "<script>" not in text
    assert "\n# Title" not in text


def test_a_flat_dict_has_numbers_alone_under_names_that_trackers_take():
    """Values and ends of intervals; paddings and protocols keep their numbers apart."""
    flat = measured().as_flat_dict()
    assert flat["deadpixel.weakest"] == 0.4
    assert flat["deadpixel.weakest.low"] == pytest.approx(0.3)
    assert "deadpixel.by_period_2" not in flat
    padded, kim = measured("box").as_flat_dict(), measured(protocol="kim2023").as_flat_dict()
    assert padded.keys().isdisjoint(flat)
    assert kim.keys().isdisjoint(flat)
    scaled = record("deadpixel", {"weakest@s8": 0.5, "odd:name": 1.0}).as_flat_dict()
    assert scaled == {"deadpixel.weakest/s8": 0.5, "deadpixel.odd_name": 1.0}
    assert all(re.fullmatch(r"[\w./-]+", name) for name in (*flat, *padded, *kim, *scaled))


def test_the_commands_write_the_same(tmp_path):
    """`publish` and `show --format card` of a folder and of its packed file."""
    Store(tmp_path / "run").put(measured())
    pack = str(tmp_path / "run.jsonl")
    run = str(tmp_path / "run")

    def command(*words):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done.stdout

    command("pack", run, pack)
    out = tmp_path / "repo" / ".eval_results" / "perimetry.yaml"
    command("publish", pack, "--dataset", "org/set", "--out", str(out))
    assert out.read_text() == command("publish", run, "--dataset", "org/set")
    assert command("show", pack, "--format", "card") == command("show", run, "--format", "card")
