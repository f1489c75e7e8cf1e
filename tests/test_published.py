"""The published sets: their READMEs, and the root README's tables, are what their data say."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import math
import re
import sys
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from planted_boards import record
from torch import nn

from perimetry.adapters.errors import InputError
from perimetry.bench.records.archive import PUBLISHED, RecordArchive, pack_records
from perimetry.bench.records.environment import Git
from perimetry.bench.records.parts import Failure, Value
from perimetry.bench.records.selection import newest
from perimetry.bench.records.store import Store
from perimetry.suites import structure

RESULTS = Path(__file__).parents[1] / "results"
NOTHING = Value(value=None, reason="no such metric")
MEASURED = ["fit/frontier", "kernel-padding/zoo", "kernel-padding/zoo-numbers", "timm-init/fan_in"]
"""Tables without records; each row has the commit that it was measured at."""
SETS = ["timm-structure", "timm-init", "fit", "accuracy", "openerf", "by-name", "kernel-padding"]


def script(path, monkeypatch):
    """The script at `path` as a module; what it puts on the path for itself is taken back."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location(f"script_{abs(hash(path))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SETS)
def test_a_sets_readme_is_what_its_script_makes_of_its_data(name, monkeypatch):
    """`python results/NAME/publish.py` would change nothing."""
    made = script(RESULTS / name / "publish.py", monkeypatch).render()
    assert (RESULTS / name / "README.md").read_text(encoding="utf-8") == made


@pytest.mark.parametrize("pack", sorted(RESULTS.glob("*/*.jsonl.gz")), ids=lambda p: p.parent.name)
def test_the_records_of_a_set_are_of_one_commit(pack):
    """Without changes to it."""
    records = RecordArchive(pack).records()
    (commit,) = {one.environment.stamp for one in records}
    assert re.fullmatch("[0-9a-f]{12}", commit)


@pytest.mark.parametrize("name", MEASURED)
def test_the_rows_of_a_table_are_of_one_commit(name):
    """Without changes to it; the README names it."""
    path = RESULTS / f"{name}.csv"
    (commit,) = pd.read_csv(path)["commit"].unique()
    assert re.fullmatch("[0-9a-f]{12}", commit)
    assert f"`{commit}`" in (path.parent / "README.md").read_text(encoding="utf-8")


def test_no_script_of_a_set_has_the_name_of_a_module_of_the_tests():
    """Both are imported by bare names: the first to come would stand for the other."""
    scripts, tests = (
        {path.stem for path in root.rglob("*.py")} for root in (RESULTS, Path(__file__).parent)
    )
    assert scripts & tests == set()


def test_rows_of_fit_are_in_the_order_of_their_constructions(monkeypatch):
    """However they were measured; a file of rows says which there are."""
    publish = script(RESULTS / "fit" / "publish.py", monkeypatch)
    frontier = script(RESULTS / "fit" / "frontier.py", monkeypatch)
    table = pd.read_csv(RESULTS / "fit" / "frontier.csv")
    assert publish.ordered(table[::-1]).reset_index(drop=True).equals(table)
    for wrong in (table[1:], pd.concat([table, table[:1]]), table.assign(construction="box")):
        with pytest.raises(ValueError, match="missing, unknown or there twice"):
            publish.ordered(wrong)
    with pytest.raises(ValueError, match="expected one commit"):
        publish.ordered(table.assign(commit="a" * 12 + " with changes"))
    assert list(table.construction.unique()) == list(publish.CONSTRUCTIONS)
    pairs = {(m, c) for m in ("lite0", "lite1", "lite2", "mobilenetv2") for c in table.construction}
    assert frontier.held(RESULTS / "fit" / "frontier.csv") == pairs
    assert frontier.held(RESULTS / "fit" / "nothing.csv") == set()


def test_the_goal_of_fit_is_reached_as_often_as_its_readme_says(monkeypatch):
    """By the same networks with every choice of photographs, by two with one each."""
    publish = script(RESULTS / "fit" / "publish.py", monkeypatch)
    table = pd.read_csv(RESULTS / "fit" / "frontier.csv")
    chosen = ["fit, photographs", "fit, other photographs", "fit, 72 photographs"]
    reached = table[(table.of_original <= publish.HALF) & (table.agreement >= publish.ENOUGH)]
    some = reached[reached.construction.isin(chosen)]
    counts = {"lite0": 3, "lite1": 3, "mobilenetv2": 1, "lite2": 1}
    assert some.groupby("model").size().to_dict() == counts
    first = reached[reached.construction == chosen[0]]
    assert sorted(first.model) == ["lite0", "lite1", "mobilenetv2"]
    assert sorted(first[first.of_original_high < publish.HALF].model) == ["lite0", "lite1"]
    assert not (table.agreement_low > publish.ENOUGH).any()
    assert set(reached.construction) <= {c for c in publish.CONSTRUCTIONS if c.startswith("fit")}
    leaves = reached[reached.construction == "fit, dead leaves"]
    assert list(leaves.model) == ["mobilenetv2"]
    assert 0.955 < 0.025 ** (1 / table.photographs.unique().item()) < 0.956


def test_rows_of_fit_are_of_trained_networks_and_photographs_that_were_not_fitted_on(
    monkeypatch, tmp_path
):
    """What is given otherwise is refused before anything is measured."""
    frontier = script(RESULTS / "fit" / "frontier.py", monkeypatch)
    assert frontier.named_reference("a=timm:resnet18@FILE") == ("a", "timm:resnet18@FILE")
    for wrong in ("a", "=timm:resnet18@FILE", "a=", "a=timm:resnet18@init"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=REF"):
            frontier.named_reference(wrong)
    for place, name, colour in (("fit", "a", "red"), ("test", "b", "red"), ("other", "c", "blue")):
        (tmp_path / place).mkdir()
        Image.new("RGB", (8, 8), colour).save(tmp_path / place / f"{name}.png")
    fit, test, other = (str(tmp_path / place) for place in ("fit", "test", "other"))
    frontier.require_others(fit, other)
    with pytest.raises(InputError, match=r"b\.png of .* are in .*, too"):
        frontier.require_others(fit, test)


def test_a_folder_without_records_replaces_nothing(monkeypatch, tmp_path):
    """A name with a slip was made a new folder, and the published records an empty file."""
    made = script(RESULTS / "publishing.py", monkeypatch)
    (tmp_path / "empty" / "records").mkdir(parents=True)
    packed = RESULTS / "by-name"
    for folder in (tmp_path / "slip", tmp_path / "empty", tmp_path, packed):
        with pytest.raises(InputError, match="records"):
            made.run_records(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    Store(tmp_path / "run").put(record("a", 0.5))
    assert len(made.run_records(tmp_path / "run").records()) == 1


@pytest.fixture(scope="module")
def initial():
    """The records of the architectures at their initial state."""
    return RecordArchive(RESULTS / "timm-init" / PUBLISHED).records()


@pytest.fixture(scope="module")
def boxed(initial):
    """The references of those whose kernels `box` grows."""
    return {
        one.model.reference
        for one in initial
        if one.suite == "deadpixel" and one.fill == "box" and one.model.treatment["layers"]
    }


def test_kernels_that_box_grows_in_uneven_networks_are_counted_in_the_records(plain, boxed):
    """Not in networks that it leaves as they are, though they are on the board."""
    grown = {reference.partition(":")[2].partition("@")[0] for reference in boxed}
    uneven = set(plain.index[plain["deadpixel.weakest.high"] < 1])
    text = " ".join((RESULTS / "timm-init" / "README.md").read_text(encoding="utf-8").split())
    assert f"**{len(uneven)} of " in text
    assert f"`box` grows kernels in {len(grown & uneven)} of them" in text


def test_the_counts_of_kernel_padding_are_those_of_its_tables():
    """Counted line by line: models, fills, reads that stay, and outputs that are the same."""
    folder = RESULTS / "kernel-padding"
    text = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    zoo, numbers = (
        list(csv.DictReader((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
        for name in ("zoo", "zoo-numbers")
    )
    assert f"({len({row['model'] for row in zoo}):,})" in text
    kinds = Counter((row["fill"], row["status"]) for row in zoo)
    assert {status for _fill, status in kinds} == {"padded", "left", "even"}
    for fill in ("box", "fresh", "zero"):
        counts = rf"{kinds[fill, 'padded']} \| {kinds[fill, 'left']}"
        assert re.search(rf"`{fill}` \| {counts} \|", re.sub(" +", " ", text))
    assert f"The other {kinds['', 'even']} have" in text
    some = [row for row in zoo if row["fill"] == "box" and int(row["left"] or 0)]
    assert f"in {len(some)} of the padded models" in text
    for family, count in Counter(row["family"] for row in some).items():
        assert re.search(rf"\b{family} {count}\b", text)
    assert f"each of {len({row['family'] for row in numbers})} families" in text
    same = [row for row in numbers if row["fill"] == "zero" and row["status"] == "ran"]
    assert all(float(row["difference"]) < 1e-6 for row in same)
    assert f"the same output in {len(same)} of {len(same)}" in text


@pytest.fixture(scope="module")
def plain():
    """The board of the architectures at their initial state, without kernel padding."""
    board = pd.read_csv(RESULTS / "timm-init" / "board.csv", low_memory=False)
    return board[board.fill == "none"].set_index("model")


def test_what_parted_was_measured_with_the_weights_that_are_expected(plain, monkeypatch):
    """fan_in.csv has a row for each architecture that parts; an interval holds its value."""
    made = script(RESULTS / "timm-init" / "fan_in.py", monkeypatch)
    rows = pd.read_csv(RESULTS / "timm-init" / "fan_in.csv", index_col="model")
    assert sorted(rows.index) == sorted(made.parting(plain).index)
    assert ((rows.low <= rows.weakest) & (rows.weakest <= rows.high)).all()


def test_the_definition_of_structure_has_the_figures_of_what_parted(plain):
    """Measured over expected, at timm's initial weights and at those that are expected."""
    drawn = pd.read_csv(RESULTS / "timm-init" / "fan_in.csv", index_col="model")
    expected = plain["structure.weakest"]
    before, after = plain["deadpixel.weakest"] / expected, drawn.weakest / expected
    names = ["pvt_v2_b0", "starnet_s1", "mambaout_femto", "convformer_s18"]
    text = " ".join(structure.__doc__.split())
    told = text[text.index(names[0]) :].partition("(results/timm-init)")[0]
    ends = [f"{r[names].min():.2f} to {r[names].max():.2f} times" for r in (before, after)]
    ends.append(f"{before['poolformer_s12']:.2f} and {after['poolformer_s12']:.2f} times")
    assert re.findall(r"[\d.]+ (?:to|and) [\d.]+ times", told) == ends


def test_weights_that_are_drawn_have_the_variance_that_is_expected(monkeypatch):
    """1 / fan_in for convolutions and linear layers, grouped ones too; biases are 0."""
    made = script(RESULTS / "timm-init" / "fan_in.py", monkeypatch)
    torch.manual_seed(0)
    layers = [m for m in made.drawn("mobilenetv2_100").modules() if isinstance(m, made.WEIGHTED)]
    for layer in layers:
        shared = layer.in_channels // layer.groups if isinstance(layer, nn.Conv2d) else 1280
        taps = math.prod(getattr(layer, "kernel_size", ()))
        variance = layer.weight.square().mean().item() * shared * taps
        assert variance == pytest.approx(1, abs=6 * (2 / layer.weight.numel()) ** 0.5)
        assert layer.bias is None or not layer.bias.any()
    assert len(layers) == 53


def test_borders_with_box_are_counted_in_the_records(initial, boxed):
    """Architectures whose kernels `box` grows, those whose sides differ, and unread padding."""
    found = defaultdict(dict)
    for one in initial:
        if one.suite == "padding" and one.metrics.get("border_drop", NOTHING).value is not None:
            found[one.model.reference][one.fill] = one
    pairs = [p for p in found.values() if "box" in p and p["box"].model.treatment["layers"]]
    text = " ".join((RESULTS / "timm-init" / "README.md").read_text(encoding="utf-8").split())
    told = text.partition("**Borders with `box`** ")[2].partition(" - ")[0]
    differ = dict.fromkeys(("none", "box"), 0)
    unread = dict(differ)
    for pair, fill in product(pairs, differ):
        metrics = pair[fill].metrics
        lows = [metrics[f"blind_{side}"].low for side in ("left_right", "top_bottom")]
        differ[fill] += any(low is not None and low > 0 for low in lows)
        unread[fill] += metrics["uneven_layers"].value > 0
    assert told.startswith(f"({len(pairs)} of {len(boxed)} architectures")
    assert "Open" not in told
    assert f"differ in {differ['box']} ({differ['none']} without it)" in told
    assert f"{unread['box']} ({unread['none']}) have strided layers" in told


@pytest.fixture
def grown(tmp_path, monkeypatch):
    """The records of a set after a run of its first and of a new model alone, by model and fill.

    The run measures the first model anew as it is, and fails on it with kernel padding.
    """
    before = Store(tmp_path / "before")
    for one in (record("a", 0.5), record("a", 0.9, fill="box"), record("b", 0.2)):
        before.put(one.attach(({}, {"weakest": np.arange(3.0)})))
    pack_records(before, tmp_path / PUBLISHED)
    store = Store(tmp_path / "run")
    failed = {"status": "failed", "error": Failure(kind="died", message="killed"), "metrics": {}}
    again, lost = record("a", 0.6, version="9"), record("a", 0.0, fill="box")
    for one in (again, lost.model_copy(update=failed), record("c", 0.3)):
        store.put(one.model_copy(update={"key": f"new {one.key}"}))
    script(RESULTS / "publishing.py", monkeypatch).complete(store, tmp_path)
    pack_records(store, tmp_path / PUBLISHED)
    found = defaultdict(list)
    for one in RecordArchive(tmp_path / PUBLISHED).records():
        found[one.subject[:2]].append(one)
    return found


def test_a_run_of_new_records_alone_keeps_what_is_published(grown):
    """What was not measured again is packed again as it was, with its draws."""
    (kept,) = grown["b", "none"]
    assert kept.metrics["weakest"].value == 0.2
    assert kept.draws["weakest"] == pytest.approx([0, 1, 2], abs=1e-4)
    assert [model for model, _fill in grown] == ["a", "a", "b", "c"]


def test_a_record_that_was_measured_again_replaces_the_published_one(grown):
    """Also of another protocol version, with which the two would have no common board."""
    (new,) = grown["a", "none"]
    assert (new.version, new.metrics["weakest"].value) == ("9", 0.6)


def test_a_failed_measurement_replaces_no_published_one(grown):
    """Both are packed, and a board shows the finished one."""
    both = grown["a", "box"]
    assert {r.status for r in both} == {"ok", "failed"}
    (shown,) = newest(both)
    assert shown.metrics["weakest"].value == 0.9


def test_the_commits_and_days_of_a_set_are_told(monkeypatch):
    """One commit is named, and that of each suite where it has one; of others the number.

    Changes that were not committed are said.
    """
    made = script(RESULTS / "publishing.py", monkeypatch)

    def at(commit, dirty, day, suite="deadpixel"):
        one = record("a", 0.5, suite=suite)
        there = one.environment.model_copy(update={"git": Git(commit=commit, dirty=dirty)})
        return one.model_copy(update={"environment": there, "created": f"2026-01-{day}T00"})

    first, again = at("a" * 40, False, "02"), at("b" * 40, True, "01")
    assert [one.environment.stamp for one in (first, again)] == [
        "a" * 12,
        "b" * 12 + " with changes",
    ]
    assert first.environment.model_copy(update={"git": None}).stamp == ""
    assert made.commits([first, first]) == f"commit `{'a' * 12}`"
    assert made.commits([first, again]) == "2 commits with changes"
    other = at("c" * 40, False, "02", "structure")
    assert made.commits([other, first, first]) == (
        f"commits `{'a' * 12}` (deadpixel) and `{'c' * 12}` (structure)"
    )
    assert made.commits([other, first, again]) == "3 commits with changes"
    assert made.commits([]) == "0 commits"
    assert made.days([first, first]) == "2026-01-02"
    assert made.days([first, again]) == "2026-01-01 to 2026-01-02"


def test_a_row_whose_suites_measured_different_maps_is_not_published(monkeypatch):
    """The model, its padding and both layers are named; another size is another model."""
    made = script(RESULTS / "publishing.py", monkeypatch)

    def at(name, suite, height=224):
        one = record("a", 0.5)
        spec = {**one.model.spec, "height": height, "width": 224}
        model = one.model.model_copy(update={"target": {"name": name}, "spec": spec})
        return one.model_copy(update={"model": model, "suite": suite})

    made.require_one_target([at("last", "erf"), at("last", "deadpixel"), at("first", "erf", 96)])
    with pytest.raises(ValueError, match=r"a \(none\): first, last"):
        made.require_one_target([at("last", "erf"), at("first", "deadpixel")])


def test_a_template_that_names_an_unknown_part_is_refused(monkeypatch, tmp_path):
    """A name with a typing error would stay in the text; addresses with one @ do stay."""
    made = script(RESULTS / "publishing.py", monkeypatch)
    template = tmp_path / "README.md.in"
    template.write_text("timm:a@FILE has @a 1 weakest@, @b.c@")
    assert made.filled(tmp_path, {"a 1 weakest": "0.5", "b.c": "2"}) == "timm:a@FILE has 0.5, 2"
    with pytest.raises(KeyError, match=r"b\.c"):
        made.filled(tmp_path, {"a 1 weakest": "0.5"})


def test_the_root_readmes_tables_are_those_of_the_published_sets(monkeypatch):
    """`python results/readme.py` would change nothing."""
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert script(RESULTS / "readme.py", monkeypatch).render(text) == text


def test_the_list_of_sets_names_every_set_with_its_protocol_versions(monkeypatch):
    """`results/README.md` is what `python results/readme.py` makes of the packed records."""
    made = script(RESULTS / "readme.py", monkeypatch)
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert made.render_index(text) == text
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len([path for path in RESULTS.iterdir() if (path / "README.md").exists()])


def test_a_stale_table_is_named_and_ends_with_1(monkeypatch, tmp_path, capsys):
    """With `--check` nothing is written."""
    made = script(RESULTS / "readme.py", monkeypatch)
    stale = tmp_path / "README.md"
    marks = ("board", "seeds", "structure", "measured", "padded")
    stale.write_text("".join(f"<!-- {name} -->old<!-- / -->" for name in marks))
    monkeypatch.setattr(made, "README", stale)
    monkeypatch.setattr(made, "examples", lambda: {"board": "new", "seeds": "8"})
    monkeypatch.setattr(made, "counts", lambda: {"structure": "1", "measured": "2", "padded": "3"})
    assert made.main(check=True) == 1
    assert str(stale) in capsys.readouterr().out
    assert "old" in stale.read_text()


def test_the_workflow_of_the_sets_runs_commands_that_exist():
    """Every script that the workflow names is there, and the sets of its matrix have records."""
    workflow = yaml.safe_load((RESULTS.parent / ".github/workflows/published.yml").read_text())
    named = re.findall(r"\S+\.py", str(workflow))
    assert named
    assert all(list(RESULTS.parent.glob(name)) for name in named)
    for name in workflow["jobs"]["sample"]["strategy"]["matrix"]["set"]:
        assert (RESULTS / name / "records.jsonl.gz").exists()


def test_every_set_with_records_has_a_table_and_a_page(monkeypatch, capsys):
    """`python results/boards.py` would change no table; what was changed is named."""
    made = script(RESULTS / "boards.py", monkeypatch)
    assert made.main(["--check"]) == 0
    monkeypatch.setattr(made, "csv_text", lambda _boards: "other")
    assert made.main(["vendors", "--check"]) == 1
    assert "vendors/board.csv" in capsys.readouterr().err


def test_records_of_different_settings_are_on_boards_of_their_own(monkeypatch):
    """Three targets of results/more-trained: three boards, whose rows are one below the other."""
    made = script(RESULTS / "boards.py", monkeypatch)
    boards = made.groups(RecordArchive(RESULTS / "more-trained" / PUBLISHED).records())
    rows = made.table(boards)
    assert len(boards) == rows["board"].nunique() == 3
    assert sum(map(len, boards)) == 46


def test_a_readme_without_its_marks_is_refused(monkeypatch):
    """A table that has no place would go stale unseen."""
    with pytest.raises(ValueError, match="'board'"):
        script(RESULTS / "readme.py", monkeypatch).fill_in("# nothing here", {"board": "new"})
