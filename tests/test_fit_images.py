"""The user's own images for the kernel padding `fit`: from the option to the board, and again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_nets import NAME, SPEC, TOOLS, net, opened
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.adapters.treatment import PaddingOptions
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.compare import compare
from perimetry.bench.comparison.compatibility import UnlikeRecordsError
from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.settings import (
    FIT_DEFAULT,
    FITTED,
    Settings,
    Toolkit,
    open_fit_images,
)
from perimetry.bench.model_report.case import open_case
from perimetry.bench.model_report.provenance import repeat
from perimetry.bench.model_report.report import report
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import caption
from perimetry.bench.records.hashing import FIT_KEY, images_identity
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.selection import MixedRecordsError, choose
from perimetry.bench.records.store import Store
from perimetry.bench.regression.check import check
from perimetry.bench.regression.reproduce import reproduce
from perimetry.bench.regression.result import RegressionVerdict
from perimetry.suites.images import open_images
from perimetry.suites.registry import SUITES

FILLS = ("none", "box", "fit")
NAMES = ("structure", "deadpixel")


def pictures(folder, count, seed):
    """A folder of `count` pictures of dead leaves, 64 x 64."""
    folder.mkdir(parents=True)
    leaves = open_images("dead-leaves", count, seed).load(replace(SPEC, height=64, width=64))
    for number, image in enumerate(leaves):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images to audit, images to fit on, and other ones."""
    root = tmp_path_factory.mktemp("images")
    return {name: pictures(root / name, 6, seed) for seed, name in enumerate(("exam", "own", "x"))}


def tools():
    """Tools that open the small network under its stored name."""

    def load(reference, **_settings):
        if reference != NAME:
            raise UnknownNameError(f"unknown model {reference!r}")
        return opened(net())

    return replace(TOOLS, toolkit=lambda: Toolkit(load, SUITES))


def measured(folders, fit="own", fills=FILLS, **changes):
    chosen = {"images": str(folders["exam"]), "fit_images": str(folders.get(fit, fit))} | changes
    records = audit(opened(net()), NAMES, fills, count=6, draws=50, device="cpu", **chosen)
    assert {record.status for record in records} == {"ok"}, [r.error for r in records]
    return records


@pytest.fixture(scope="module")
def records(folders):
    return measured(folders)


@pytest.fixture(scope="module")
def stored(records, tmp_path_factory):
    """The same records in a store, without those of `box`."""
    place = tmp_path_factory.mktemp("set")
    for record in records:
        if record.fill != "box":
            Store(place).put(record)
    write_manifest(Store(place))
    return place


def keys(settings):
    """Keys by (fill, suite)."""
    jobs = AuditPlan(["timm:test_resnet"], NAMES, FILLS, settings, "cpu", SUITES).jobs()
    return {(job.fill, cell.suite): cell.key for job in jobs for cell in job.cells}


def test_only_the_keys_of_fit_hold_what_it_is_fitted_on(folders):
    """The keys of `fit` change with the folder of images, and those of other fills do not."""
    default, own, other = (
        keys(Settings(fit_images=str(name))) for name in (FIT_DEFAULT, folders["own"], folders["x"])
    )
    assert len(default) == 8  # structure and deadpixel of three fills, fidelity of two
    for place in default:
        assert len({default[place], own[place], other[place]}) == (3 if place[0] == "fit" else 1)


def test_bytes_count_and_not_the_name_of_the_folder(folders, tmp_path):
    """A copy elsewhere gives the same keys; one pixel of one file gives others."""
    copy = shutil.copytree(folders["own"], tmp_path / "elsewhere")
    assert keys(Settings(fit_images=str(copy))) == keys(Settings(fit_images=str(folders["own"])))
    path = next(copy.glob("*.png"))
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert keys(Settings(fit_images=str(copy))) != keys(Settings(fit_images=str(folders["own"])))


def test_records_of_fit_say_what_they_were_fitted_on(folders, records):
    """Name, count and hash, in no other record; `deadpixel` is that of a model fitted by hand."""
    own = open_images(str(folders["own"]), FITTED)
    for record in records:
        assert (FIT_KEY in record.settings) == (record.fit_images is not None)
        assert (record.fit_images is not None) == (record.fill == "fit")
        if record.fit_images is not None:
            assert record.settings[FIT_KEY] == images_identity(own)
            assert (record.fit_images.name, record.fit_images.count) == ("own", 6)
            assert record.fit_images.sha256 == own.digest(SPEC)
    model = opened(net())
    variant = model.padded("fit", PaddingOptions(images=own.load(SPEC)))
    variant.original = None
    (other,) = audit(
        variant, ("deadpixel",), images=str(folders["exam"]), count=6, draws=50, device="cpu"
    )
    (record,) = [r for r in records if (r.fill, r.suite) == ("fit", "deadpixel")]
    assert record.metrics["imbalance"] == other.metrics["imbalance"]


def test_other_images_give_other_taps(folders, records):
    """Dead leaves of the default stream fit otherwise, and are named, too."""
    other = measured(folders, FIT_DEFAULT, ("fit",))
    found = [
        next(r for r in held if (r.fill, r.suite) == ("fit", "deadpixel"))
        for held in (records, other)
    ]
    assert found[0].metrics["imbalance"] != found[1].metrics["imbalance"]
    assert (found[1].fit_images.name, found[1].fit_images.count) == ("dead-leaves", FITTED)
    assert FIT_KEY not in found[1].settings


def test_of_many_images_a_seeded_sample_is_taken(tmp_path):
    """`FITTED` of them, the same for the same seed; all where there are fewer."""
    folder = pictures(tmp_path / "many", FITTED + 3, 5)
    chosen = Settings(fit_images=str(folder))
    found = [open_fit_images(replace(chosen, seed=seed)).files for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert len(set(found[0])) == FITTED
    for path in found[0][:4]:
        path.unlink()
    assert open_fit_images(chosen).count == FITTED - 1


def test_images_that_are_audited_are_refused(folders, tmp_path):
    """Images to fit on that are audited too are refused by their bytes before any measurement."""
    mixed = shutil.copytree(folders["own"], tmp_path / "mixed")
    shutil.copy(folders["exam"] / "004.png", mixed / "harmless.png")
    with pytest.raises(InputError, match=r"1 of the 7.*harmless\.png"):
        keys(Settings(images=str(folders["exam"]), fit_images=str(mixed)))
    with pytest.raises(InputError, match=r"6 of the 6.*000\.png, 001\.png, 002\.png"):
        keys(Settings(images=str(folders["exam"]), fit_images=str(folders["exam"])))


def test_a_broken_or_missing_folder_is_one_error_before_the_run(folders, tmp_path):
    """No record is made, not even of what needs no fit."""
    broken = shutil.copytree(folders["own"], tmp_path / "broken")
    (broken / "002.png").write_bytes((broken / "002.png").read_bytes()[:200])
    (tmp_path / "empty").mkdir()
    for name, why in (
        (broken, "002.png cannot be read as an image"),
        (tmp_path / "nowhere", "images to fit on: images .* neither a folder nor built in"),
        (tmp_path / "empty", "images to fit on: folder .* contains no images"),
    ):
        with pytest.raises(InputError, match=why):
            keys(Settings(fit_images=str(name)))
    words = ["--kernel-padding", "none,fit", "--fit-images", str(broken), "--device", "cpu"]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["run", "timm:test_resnet", "--out", str(out), *words])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be read" in done.stderr
    assert not out.exists()


def test_images_to_fit_on_need_the_padding_that_is_fitted(folders, tmp_path):
    """Asked for on the command line without `fit`: what to add."""
    words = ["--fit-images", str(folders["own"]), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["run", "timm:test_resnet@init", *words])
    assert done.exit_code == 1
    assert "--kernel-padding none,fit" in done.stderr


def test_rows_of_all_fills_share_a_board_that_says_what_fit_saw(records):
    """Three rows of one model; the caption names the images."""
    board = Board(records)
    assert {row.fill for row in board.rows} == set(FILLS)
    assert any("fit was fitted on 6 x own" in line for line in caption(board))


def test_fits_on_unlike_images_never_share_a_column(folders, records):
    """They are refused by name, and `--where` chooses one kind, with the other fills."""
    mixed = [*records, *measured(folders, "x", ("fit",))]
    with pytest.raises(MixedRecordsError, match=r"fit_images=own.*fit_images=x"):
        Board(mixed)
    chosen = choose(mixed, ["fit_images=x"])
    assert {r.fit_images.name for r in chosen if r.fit_images} == {"x"}
    assert {row.fill for row in Board(chosen).rows} == set(FILLS)


def test_comparing_fits_on_unlike_images_is_refused(folders, records):
    """Two fits on different images are not compared; `fit` and `none` are."""
    by_fill = {f: [r for r in records if r.fill == f] for f in FILLS}
    with pytest.raises(UnlikeRecordsError, match="6 x own against 6 x x"):
        compare(by_fill["fit"], measured(folders, "x", ("fit",)), stages=False)
    compare(by_fill["none"], by_fill["fit"], stages=False)


def test_verify_fits_again_on_the_same_images(folders, stored):
    """Bit for bit, both fills; the folder that is missing, or another one, is an error."""
    place, images = stored, str(folders["exam"])
    found = reproduce(place, images=images, fit_images=str(folders["own"]), run=tools())
    said = [f.text for report in found.reports for f in report.findings]
    assert said == ["reproduces bit for bit"] * 5
    for given, why in ((None, "'own'.*--fit-images"), ("x", "has other images")):
        other = str(folders[given]) if given else None
        found = reproduce(place, images=images, fit_images=other, run=tools(), where=["fill=fit"])
        assert found.verdict is RegressionVerdict.unmeasured
        said = [f.text for report in found.reports for f in report.findings]
        assert said
        assert all(re.search(why, text) for text in said)


def test_the_gate_fits_again_on_the_same_images(folders, stored):
    """The gate fits on the same images and passes; without their folder it is `unmeasured`."""
    images = str(folders["exam"])
    found = check(stored, NAME, images=images, fit_images=str(folders["own"]), run=tools())
    assert found.verdict is RegressionVerdict.same
    found = check(stored, NAME, images=images, run=tools())
    assert found.verdict is RegressionVerdict.unmeasured
    assert "--fit-images FOLDER" in found.reports[0].findings[0].text


def test_show_says_what_fit_saw_and_gives_the_command(stored):
    """Provenance names the folder, and so does the command that makes the records again."""
    case, _ = open_case(stored, NAME, fill="fit")
    text = " ".join(report(case).split())
    assert "kernel padding fit, on 6 x own, unlabelled" in text
    assert "--fit-images PATH/TO/own" in repeat(case.records, case.suites)
    assert "--fit-images" not in repeat(case.others["none"], case.suites)


def test_the_command_line_fits_on_a_folder(folders, tmp_path):
    """A trained file, both fills, and once more: nothing new is made."""
    from timm import create_model

    torch.manual_seed(0)
    torch.save(create_model("test_resnet").state_dict(), tmp_path / "trained.pth")
    words = ["run", f"timm:test_resnet@{tmp_path / 'trained.pth'}", "--suite", "deadpixel"]
    words += ["--kernel-padding", "none,fit", "--fit-images", str(folders["own"]), "--size", "64"]
    words += ["--count", "4", "--device", "cpu", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "fitted on 6 x own" in done.output
    held = {r.fill: r.fit_images for r in Store(tmp_path / "out").records()}
    assert held["none"] is None
    assert json.loads(held["fit"].model_dump_json())["name"] == "own"
    assert "records made: none; already present: 3" in CliRunner().invoke(app, words).output
