"""From a run to publications, as a user does it: board, page, packed file, card, hub, pictures."""

from __future__ import annotations

import json
import re

import browser as browsers
import pytest
import yaml
from typer.testing import CliRunner

from perimetry import leaderboard
from perimetry.bench.cli.main import app

MODELS = ("timm:test_resnet@init", "timm:test_vit@init")
JOINED = "model,img_size,top1\ntest_resnet.r160_in1k,160,30.1\nother,160,1\n"


def command(*words):
    """What a command prints, which must succeed."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two small models, with and without kernel padding."""
    folder = tmp_path_factory.mktemp("story") / "run"
    options = ("--suite", "structure,deadpixel,erf", "--kernel-padding", "none,box")
    command("run", *MODELS, *options, "--members", "4", "--count", "4", "--out", folder)
    return folder


@pytest.fixture(scope="module")
def pack(run):
    """The packed file of that folder."""
    command("pack", run, run.parent / "published.jsonl.gz")
    return run.parent / "published.jsonl.gz"


def test_the_board_of_the_run_and_of_its_pack_are_one_table(run, pack):
    """One row per model in Markdown, LaTeX and Python, from the folder and from the file."""
    options = ("--rows", "models", "--columns", "rank,deadpixel.weakest,model.parameters")
    for form in ("md", "tex", "csv", "json"):
        shown = [command("board", place, *options, "--format", form) for place in (run, pack)]
        assert shown[0] == shown[1]
        assert "test" in shown[0]
        assert "vit" in shown[0]
    frame = leaderboard(pack, rows="models", columns=("rank", "deadpixel.weakest"))
    assert sorted(frame.model) == sorted(MODELS)
    assert frame["deadpixel.weakest[box]"].notna().all()


@pytest.mark.parametrize("width", [1500, 1280, 420])
def test_the_page_shows_all_at_three_widths(run, width):
    """Every model and its size, no part of a text cut off, in a real browser."""
    table = run.parent / "accuracy.csv"
    table.write_text(JOINED, encoding="utf-8")
    out = run.parent / "page.html"
    said = command("board", run, "--html", out, "--join", table)
    assert "1 of 2 models, 1 of 2 lines" in said
    assert "no line of its name: timm:test_vit@init" in said
    with browsers.opened() as browser:
        visit = browsers.Visit(browser, out, width=width, height=900)
        assert visit.page.locator("#table a[data-model]").count() == len(MODELS)
        assert visit.page.evaluate(browsers.CLIPPED) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        visit.page.locator("#table a[data-model]").first.click()
        visit.page.wait_for_selector("#panel .field canvas")
        assert re.search(r"parameters · .+\sMACs", visit.texts("#panel .sheet-head p")[0])
        words = visit.texts("#panel .words li")
        assert [text.split(":")[0] for text in words[:3]] == [
            "Verdict",
            "Dead regions",
            "What to do",
        ]
        assert visit.problems == []
        visit.close()


def test_the_pack_is_shown_and_published(pack, tmp_path):
    """Three lines first; a card; entries for the hub with the numbers of the board."""
    lines = command("show", pack, "test_resnet").splitlines()
    starts = [line.strip(" -").split(":")[0] for line in lines if line.startswith("  - ")]
    assert starts[:3] == ["Verdict", "Dead regions", "What to do"]
    assert command("show", pack, "test_resnet", "--format", "card").startswith("## Visual field")
    out = tmp_path / ".eval_results" / "perimetry.yaml"
    command("publish", pack, "test_resnet", "--dataset", "org/visual-field", "--out", out)
    entries = {
        one["dataset"]["task_id"]: one["value"] for one in yaml.safe_load(out.read_text("utf-8"))
    }
    (row,) = (
        row
        for row in json.loads(command("board", pack, "--format", "json"))["rows"]
        if (row["model"], row["fill"]) == (MODELS[0], "none")
    )
    assert entries.keys() == {"structure.weakest", "deadpixel.weakest", "erf.luo_size"}
    assert all(value == pytest.approx(row[task], rel=1e-5) for task, value in entries.items())


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_pictures_for_the_paper(run, tmp_path, form):
    """The chosen map of both variants and their difference, as vectors."""
    options = ("--maps", tmp_path, "--map", "phase_profile", "--picture", form)
    command("show", run, "test_resnet", *options)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names
    assert all(name.endswith(f".{form}") and ".phase_profile." in name for name in names)
    assert {"none", "box"} <= {name.split(".")[1] for name in names}
