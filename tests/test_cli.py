"""The command line: real models end to end, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib import metadata

import numpy as np
import pytest
from onnx_files import convnet, save
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from perimetry.bench import demo
from perimetry.bench.cli.listing import list_metrics, list_suites
from perimetry.bench.cli.main import app
from perimetry.bench.cli.options import ImageOptions, InputOptions, MachineOptions, WorkerOptions
from perimetry.bench.figures.canvas import Frame, draw_scale
from perimetry.bench.figures.maps import Pictures, draw_variants, scaled
from perimetry.bench.records.store import Store

RUN = ["--count", "4", "--members", "4", "--device", "cpu", "--batch", "4"]


def perimetry(*arguments):
    """Run the command line in this process; workers are processes of their own."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One run over a tiny ResNet, a tiny ViT, and two references that cannot be opened."""
    out = tmp_path_factory.mktemp("run")
    names = ("timm:test_res*@init", "timm:test_vit@init")
    done = perimetry("run", *names, *damaged(out), "--out", out, *RUN)
    return out, done


def damaged(folder):
    """Files that exist and cannot be opened."""
    for name in ("damaged.onnx", "damaged.pth"):
        (folder / name).write_bytes(b"no model")
    return str(folder / "damaged.onnx"), f"timm:test_resnet@{folder / 'damaged.pth'}"


def test_a_run_measures_what_it_can_and_says_what_failed(folder):
    """Two models are ranked, two rows are failed with their reason, and the exit code is 1."""
    out, done = folder
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    records = Store(out).records()
    good = [
        r for r in records if r.model.reference in ("timm:test_resnet@init", "timm:test_vit@init")
    ]
    assert len(good) == 14
    assert {r.status for r in good} == {"ok"}, [r.error for r in good if r.error]
    assert {r.status for r in records if r not in good} == {"failed"}
    assert "damaged.onnx" in done.output
    assert "damaged.pth" in done.output


def test_box_lowers_the_imbalance_of_an_odd_kernel(folder):
    """The tiny ResNet is more even with box, by structure and by gradient; agreement is a share."""
    board = json.loads(perimetry("board", folder[0], "--format", "json").output)
    rows = {row["fill"]: row for row in board["rows"] if row["model"] == "timm:test_resnet@init"}
    for column in ("structure.imbalance", "deadpixel.imbalance"):
        assert rows["box"][column] < rows["none"][column]
        assert rows["box"][f"{column}.change"] < 0
    assert 0 <= rows["box"]["fidelity.top1_agreement"] <= 1


def test_a_model_of_even_kernels_is_untouched_and_says_so(folder):
    """The ViT's stem divides: both fills give equal numbers, and the table says untouched."""
    board = perimetry("board", folder[0], "--format", "json").output
    rows = [r for r in json.loads(board)["rows"] if r["model"] == "timm:test_vit@init"]
    assert rows[0]["deadpixel.weakest"] == rows[1]["deadpixel.weakest"]
    assert "untouched" in perimetry("board", folder[0]).output


def test_the_same_command_again_makes_nothing_new(folder):
    """A finished run repeated measures nothing and prints the same board."""
    out = folder[0]
    before = perimetry("board", out, "--format", "json").output
    again = perimetry("run", "timm:test_resnet@init", "timm:test_vit@init", "--out", out, *RUN)
    assert again.exit_code == 0
    assert "records made: none; already present: 14" in again.output
    assert perimetry("board", out, "--format", "json").output == before


def test_wildcards_name_models(folder):
    """The pattern `timm:test_res*@init` stands for the architectures that match it."""
    found = {r.model.reference for r in Store(folder[0]).records()}
    assert {name for name in found if name.endswith("@init")} == {
        "timm:test_resnet@init",
        "timm:test_vit@init",
    }


def test_settings_precision_and_recalibration_reach_the_records_and_their_keys(tmp_path):
    """What the command line sets is measured, and has records and keys of its own."""
    common = ["timm:test_resnet@init", "--suite", "erf", "--out", tmp_path, *RUN]
    options = ["--set", "erf.grid=2", "--set", "erf.unit=1,2", "--precision", "bfloat16"]
    done = perimetry("run", *common, *options, "--recalibrate")
    assert done.exit_code == 0, done.output
    record = next(r for r in Store(tmp_path).records() if (r.suite, r.fill) == ("erf", "box"))
    assert record.settings["grid"] == 2
    assert record.settings["unit"] == [1, 2]
    assert record.settings["precision"] == "bfloat16"
    assert record.settings["recalibrate"] is True
    assert any("norm statistics re-estimated" in note for note in record.notes)
    assert record.maps["units"].shape == (2, 2, 160, 160)
    assert len(record.tables["units"]) == 4
    assert (
        "3 records of 1 model to make; 0 already" in perimetry("run", *common, "--dry-run").output
    )


def test_a_dry_run_counts_and_guesses_and_leaves_nothing_behind(folder, tmp_path):
    """The time is that of one core elsewhere; beside records, theirs."""
    out = tmp_path / "new"
    done = perimetry("run", "timm:test_*@init", "--exclude", "*vit*", "--dry-run", "--out", out)
    counts = r"\d+ records of \d+ models? to make; 0 already present"
    assert re.search(counts + r"; about \d+\.\d minutes, estimated from typical times", done.output)
    assert not out.exists()
    names = ["timm:test_resnet@init", "timm:test_convnext@init"]
    done = perimetry("run", *names, "--out", folder[0], *RUN, "--dry-run")
    assert "7 records of 1 model to make; 7 already present" in done.output
    assert re.search(
        r"about \d+\.\d minutes, estimated from \d variants measured here", done.output
    )


def test_two_workers_give_the_board_of_one(folder, tmp_path):
    """The same records, with equal exact values, from both engines."""
    names = ["timm:test_vit@init", "timm:test_resnet@init"]
    done = perimetry("run", *names, "--out", tmp_path, *RUN, "--workers", "2")
    assert done.exit_code == 0, done.output
    one, two = (
        {(r.model.reference, r.fill, r.suite): r for r in Store(f).records() if r.status == "ok"}
        for f in (folder[0], tmp_path)
    )
    assert one.keys() == two.keys()
    for key, record in one.items():
        for name, value in record.metrics.items():
            other = two[key].metrics[name].value
            assert (other is None) == (value.value is None), (key, name)
            if record.suite == "structure":  # others hang on kinks, which thread counts can flip
                assert other is None or other == pytest.approx(value.value, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "timm:x@init", "--shard", "3/2"], "expected I/N"),
        (["run", "timm:x@init", "--family", "resnetz"], "unknown family of timm models"),
        (["run", "timm:x@init", "--exclude", "*"], "no models selected"),
        (["run", "timm:x@init", "--set", "erf.units=1,1"], "unknown setting of erf 'units'"),
        (["run", "timm:x@init", "--set", "erf"], "expected SUITE.FIELD=VALUE"),
        (["run", "timm:x@init", "--set", "padding.grid=1"], "padding.grid"),
        (["run", "timm:x@init", "--set", "perturbation.epsilon=0"], "epsilon"),
        (["run", "timm:x@init", "--suite", "efr"], "unknown suite 'efr'; did you mean erf?"),
        (
            ["run", "timm:x@init", "--kernel-padding", "boxx"],
            "unknown kernel padding 'boxx'; did you mean box?",
        ),
        (["run", "timm:x@init", "--images", "nowhere"], "neither a folder nor built in"),
        (["run", "timm:x@init", "--size", "big"], "expected SIDE or HEIGHTxWIDTH"),
        (["run", "timm:x@init", "--device", "warp9"], "expected 'cpu', 'cuda' or 'auto'"),
    ],
)
def test_wrong_words_are_answered_before_anything_runs(tmp_path, arguments, text):
    """A misspelt suite, fill, image set, size or device ends the command with what to do."""
    done = perimetry(*arguments, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert text in done.output
    assert not (tmp_path / "out").exists()


def test_boards_of_nothing_and_of_damage(folder, tmp_path):
    """An empty folder, an unknown sort and a damaged record each get a message of their own."""
    assert "contains no records" in perimetry("board", tmp_path).output
    assert "did you mean" in perimetry("board", folder[0], "--sort", "deadpixel.weak").output
    Store(tmp_path).folder.joinpath("x.json").write_text("{")
    done = perimetry("board", tmp_path)
    assert done.exit_code == 1
    assert "x.json" in done.output


def test_lists():
    """Every suite, protocol and metric is listed; models by pattern."""
    assert "perimetry" not in perimetry("list", "models", "timm:test_res*").output
    assert "timm:test_resnet\n1 architectures" in perimetry("list", "models", "test_res*").output
    assert perimetry("list", "suites").output.strip() == list_suites()
    for name in ("kim2023", "replknet2022", "luo2016"):
        assert name in list_suites("erf")
    assert "deadpixel.weakest" in list_metrics()
    assert "ranks first" in list_metrics("halo.*")  # not "more even": tiles are no phases
    assert "deadpixel" not in list_metrics("erf.*")


def test_the_version_is_the_installed_one():
    """`--version` prints the package and its installed version."""
    assert perimetry("--version").output == f"perimetry {metadata.version('perimetry')}\n"


def test_help_does_not_wait_for_heavy_imports():
    """Importing the command line loads none of torch, timm, pandas, matplotlib, onnx, scipy."""
    heavy = {"torch", "timm", "pandas", "matplotlib", "onnx", "onnxruntime", "scipy", "pydantic"}
    code = "import sys, perimetry.bench.cli.main; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("run", [ImageOptions, InputOptions, MachineOptions, WorkerOptions]),
        ("pad", [ImageOptions, InputOptions]),
    ],
)
def test_the_fields_of_a_group_are_options_under_its_heading(name, groups):
    """A command that takes a group has each field of it as an option with the group's default."""
    options = {p.name: p for p in get_command(app).commands[name].params}
    for group in groups:
        for field in fields(group):
            assert options[field.name].rich_help_panel == group.PANEL
            assert options[field.name].default == field.default


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_every_option_has_a_help_that_is_a_phrase(name):
    """Each option and argument of each command is explained by more than one word."""
    for parameter in get_command(app).commands[name].params:
        text = parameter.help or ""
        assert len(text.split()) > 1, (name, parameter.name)
        assert text[0].isupper(), (name, parameter.name)
        assert text[-1] in ".!", (name, parameter.name)


def test_maps_become_pictures(folder, tmp_path):
    """Each two-dimensional map of a record is a PNG that opens; equal maps give equal bytes."""
    records = Store(folder[0]).records()
    record = next(r for r in records if r.suite == "deadpixel" and r.status == "ok")
    paths = draw_variants([record], Pictures(tmp_path))
    assert {p.name.split(".")[-2] for p in paths} == {"sensitivity", "phase_profile"}
    first = paths[0].read_bytes()
    with Image.open(paths[0]) as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    draw_variants([record], Pictures(tmp_path))
    assert paths[0].read_bytes() == first


def test_a_picture_takes_any_title_and_any_map(tmp_path):
    """Formula marks, escapes and other scripts in a title, and constant or zero maps, all draw."""
    for i, values in enumerate(([[0, 0], [0, 0]], [[1, 1], [1, 1]], [[1e-30, 2e-30], [0, 1e-30]])):
        scale = scaled(np.array(values, dtype=float), "log" if i == 2 else "mean", "")
        draw_scale(scale, tmp_path / f"{i}.png", Frame("$x^{2$ \x1b[31m 模型"))
        assert (tmp_path / f"{i}.png").stat().st_size > 1000


def test_the_demo_writes_board_and_pictures_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """A demo of one tiny model and its own ONNX file: both forms agree, all files are written."""
    monkeypatch.setattr(demo, "ARCHITECTURES", ("test_resnet",))
    monkeypatch.setattr(demo, "EXPORTED", "test_resnet")
    monkeypatch.setattr(demo, "SAMPLES", ())
    done = perimetry("demo", "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "board.json").read_text())["rows"]
    assert {(row["model"].rpartition(".")[2], row["fill"]) for row in rows} == {
        ("timm:test_resnet@init", "none"),
        ("timm:test_resnet@init", "box"),
        ("onnx", "none"),
        ("onnx", "box"),
    }
    structure = {row["fill"]: set() for row in rows}
    for row in rows:
        structure[row["fill"]].add(round(row["structure.weakest"], 6))
    assert all(len(values) == 1 for values in structure.values())
    assert {p.suffix for p in tmp_path.glob("board.*")} == {".md", ".csv", ".json", ".html"}
    assert len(list((tmp_path / "maps").glob("*.deadpixel-energy.sensitivity.png"))) == 4
    again = perimetry("demo", "--out", tmp_path, "--device", "cpu")
    assert "records made: none" in again.output


def test_a_picture_that_cannot_be_read_stops_a_run_before_any_model_is_opened(tmp_path):
    """One sentence names the file; no model gets a failed record for it."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    done = perimetry("run", "timm:test_resnet@init", "--out", out, "--images", tmp_path, *RUN)
    assert done.exit_code == 1
    assert re.search(r"perimetry: .*broken\.png cannot be read as an image", done.stderr)
    assert not out.exists()


def test_a_run_says_that_a_folder_holds_too_few_images_for_intervals(tmp_path):
    """One image instead of four is reported, as is that a ranking needs at least 4."""
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    file = save(convnet(), tmp_path / "a.onnx")
    only = ("--images", tmp_path, "--suite", "deadpixel", "--kernel-padding", "none")
    done = perimetry("run", file, "--out", tmp_path / "out", *only, *RUN)
    assert f"the folder {tmp_path.name} contains 1 of the 4 images asked for" in done.stderr
    assert "fewer than 4 images" in done.stderr


def test_a_list_of_nothing_is_an_error_with_near_names():
    """A misspelt pattern is an error with near names instead of an empty table."""
    for kind, name, near in [
        ("metrics", "deadpixel.weekest", "deadpixel.weakest"),
        ("suites", "deadpixl", "deadpixel"),
        ("models", "resnet18x", "timm:resnet18"),
        ("metric", "*", "metrics"),
    ]:
        done = perimetry("list", kind, name)
        assert done.exit_code == 1
        assert near in done.stderr


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with one model at two sizes, and what the second run printed."""
    out = tmp_path_factory.mktemp("mixed")
    file = save(convnet(size=None), out / "any.onnx")
    exact = ("--suite", "structure", "--kernel-padding", "none", "--out", out)
    assert perimetry("run", file, *exact, "--size", 64).exit_code == 0
    return out, perimetry("run", file, *exact, "--size", 96)


def test_a_run_into_a_folder_of_other_settings_is_kept_and_says_why_there_is_no_board(mixed):
    """A run into a folder of other settings exits with 0 and prints how to choose either kind."""
    out, done = mixed
    assert done.exit_code == 0, done.output
    assert "records made: 1 ok" in done.stderr
    assert "--where 'size=[64, 64]'" in done.stderr
    assert perimetry("board", out, "--where", "size=[64, 64]").exit_code == 0


def test_a_failed_run_into_a_folder_of_other_settings_says_both(mixed, tmp_path):
    """Why there is no board, and why the model failed, which would have been below the board."""
    out = shutil.copytree(mixed[0], tmp_path / "out")
    file = tmp_path / "no.onnx"
    file.write_bytes(b"no model")
    done = perimetry("run", file, "--suite", "structure", "--kernel-padding", "none", "--out", out)
    assert done.exit_code == 1
    assert "the leaderboard could not be built" in done.stderr
    assert f"failed: {file} (none): " in done.stderr
    assert "expected an ONNX file" in done.stderr
