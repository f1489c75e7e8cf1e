"""Two stories of users from end to end, by commands: four vendors' files, and a nightly gate."""

from __future__ import annotations

import json
import shutil
import warnings
from xml.etree import ElementTree

import browser as browsers
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_nets import net
from test_four_vendors import Holed
from typer.testing import CliRunner

from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.bench.cli.main import app
from perimetry.suites.images import open_images

SIDE = 96
SPEC = InputSpec(SIDE, SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
HOLE = (slice(40, 60), slice(30, 50))
MEASURED = ["--suite", "structure,erf,deadpixel,padding", "--count", "8", "--device", "cpu"]


class Masked(Holed):
    """A network that sees nothing of some pixels, at the size of these files."""

    def __init__(self, body):
        torch.nn.Module.__init__(self)
        mask = torch.ones(1, 1, SIDE, SIDE)
        mask[..., HOLE[0], HOLE[1]] = 0
        self.register_buffer("mask", mask)
        self.body = body


def perimetry(*words, code=0):
    """Standard output of a command, with its exit code checked."""
    result = CliRunner().invoke(app, [str(word) for word in words], terminal_width=96)
    assert result.exit_code == code, result.output
    return result.stdout


def flat(text):
    return " ".join(text.split())


# ------------------------------------------------------------------ four vendors


def quantised(path, out):
    """Static int8 by onnxruntime, with its activations."""
    quantisation = pytest.importorskip("onnxruntime.quantization")
    images = SPEC.prepare(open_images("dead-leaves", 4).load(SPEC))

    class Reader(quantisation.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"image": x[None].numpy()} for x in images])

        def get_next(self):
            return next(self.feeds, None)

    quantisation.quantize_static(str(path), str(out), Reader())
    return out


@pytest.fixture(scope="module")
def vendors(tmp_path_factory):
    """A good file, one with a hole, an int8 one, and one of another exporter."""
    folder = tmp_path_factory.mktemp("vendors")
    good = export_onnx(net(), SPEC.blank(), folder / "good.onnx", spec=SPEC)
    export_onnx(Masked(net()).eval(), SPEC.blank(), folder / "holed.onnx", spec=SPEC)
    quantised(good, folder / "int8.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # an old exporter, as vendors have it
        names = {"input_names": ["pixels"], "output_names": ["scores"]}
        options = {"dynamo": False, "opset_version": 13, "do_constant_folding": False}
        torch.onnx.export(net(), (SPEC.blank(),), folder / "other.onnx", **names, **options)
    toml = "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\nsize = [96, 96]\n"
    (folder / "other.toml").write_text(toml)
    return folder


@pytest.fixture(scope="module")
def decided(vendors):
    """What `compare` says of the four files, as JSON, and its page."""
    files = [vendors / f"{name}.onnx" for name in ("good", "holed", "int8", "other")]
    page = vendors / "four.html"
    text = perimetry("compare", *files, *MEASURED, "--format", "json", "--html", page)
    return json.loads(text), page


def test_the_buyer_reads_first_what_decides(decided):
    """The hole with its place, what int8 costs, that two exporters agree, and the sizes."""
    data, _ = decided
    said = {one["topic"]: one["text"] for one in data["decision"]}
    assert "holed.onnx (dead: 400 pixels in rows 40 to 59, columns 30 to 49" in said["Dead regions"]
    assert "good.onnx, int8.onnx and other.onnx have none" in said["Dead regions"]
    assert "those of int8.onnx differ by " in said["Fidelity"]
    assert "other.onnx gives the outputs of good.onnx " in said["Fidelity"]
    assert "more even than holed.onnx (0)" in said["Border"]
    assert "(int8.onnx)" in said["Size and cost"]
    assert list(said)[:4] == ["Dead regions", "Fidelity", "Evenness", "Border"]


def test_the_table_tells_the_file_with_the_hole_from_the_others(decided):
    """Exports share every letter; the dead share of the file with the hole has its own."""
    data, _ = decided
    rows = {row["row"]: row for row in data["side_by_side"]}
    letters = rows["deadpixel.dead_share"]["letters"]
    assert letters == ["a", "b", "a", "a"]
    for row in rows.values():
        if row["letters"]:
            assert set(row["letters"][0]) & set(row["letters"][3]), row
    assert rows["outputs against the first"]["cells"][0] == "reference"


def test_the_counts_of_the_decision_are_those_of_the_metrics(decided):
    """Every metric of every pair is counted once."""
    data, _ = decided
    said = {one["topic"]: one["text"] for one in data["decision"]}["Comparisons"]
    verdicts = [cell["verdict"] for cell in data["metrics"]]
    words = ("differ", "are alike", "not shown to differ", "not comparable")
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in words)
    assert "of 6 pairs, main metrics" in said
    assert f"all metrics {len(verdicts)}: {counts}." in said


@pytest.mark.parametrize("width", [1500, 1280, 420])
def test_the_page_fits_and_loses_nothing(decided, width):
    """No element ends beyond the window, and every cell of the table is seen."""
    data, page = decided
    with browsers.opened() as browser:
        visit = browsers.Visit(browser, page, width=width, ready="section")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = visit.page.evaluate(
            "[...document.querySelectorAll('.overall *')].filter("
            "e => e.getBoundingClientRect().right > innerWidth + 1).length"
        )
        assert beyond == 0
        cells = visit.texts("table.matrix td")
        assert len(cells) == 4 * len(data["side_by_side"])
        assert visit.problems == []
        visit.close()


def test_the_page_prints_on_few_sheets(decided, tmp_path):
    """Closed pairs are not printed, and the table is no wider than the paper."""
    _, page = decided
    with browsers.opened() as browser:
        visit = browsers.Visit(browser, page, width=688, ready="section")
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 688
        visit.page.pdf(path=tmp_path / "four.pdf", format="A4")
        visit.close()
    assert 1 <= (tmp_path / "four.pdf").read_bytes().count(b"/Type /Page\n") <= 4


def test_one_pair_on_demand_goes_down_to_the_nodes(vendors):
    """Good against int8: every metric, each node, and what a layer costs alone."""
    files = [vendors / "good.onnx", vendors / "int8.onnx"]
    words = ["--suite", "structure", "--count", "4", "--device", "cpu"]
    text = flat(perimetry("compare", *files, *words, "--nodes", "--quantise-one-at-a-time"))
    assert "int8.onnx against good.onnx" in text
    assert "The first node that differs by itself is `/0/Conv_output_0` (Conv)" in text
    assert "Node by node, the largest own difference first" in text
    assert "if this layer of the first model alone is in eight bits" in text


# ------------------------------------------------------------------ a nightly gate


def test_a_baseline_is_made_used_fails_is_accepted_and_passes(tmp_path):
    """The nightly job of a zoo of two files, with exit codes and JUnit every night."""
    zoo, base, junit = tmp_path / "zoo", tmp_path / "base", tmp_path / "night.xml"
    zoo.mkdir()
    for seed, name in enumerate(("one", "two")):
        export_onnx(net(seed), SPEC.blank(), zoo / f"{name}.onnx", spec=SPEC)
    files = sorted(zoo.glob("*.onnx"))
    samples = ["--suite", "structure,deadpixel", "--count", "4", "--kernel-padding", "none"]
    perimetry("run", *files, *samples, "--device", "cpu", "--out", base)
    night = ("check", "--baseline", base, "--device", "cpu", "--junit", junit)
    assert "PASS: 2 passed" in perimetry(*night, "--measure-noise")

    _change(zoo / "two.onnx")
    text = perimetry(*night, code=1)
    assert text.splitlines()[:2] == [f"PASS {files[0]}", f"FAIL {files[1]}"]
    assert "FAIL: 1 passed, 1 failed" in text
    assert int(ElementTree.parse(junit).getroot().get("failures")) > 0  # noqa: S314 - our own

    accepted = perimetry(*night, "--accept", files[1])
    assert "accepted: records, fingerprint, noise floor and manifest are new" in flat(accepted)
    assert "PASS: 2 passed" in perimetry(*night)
    shutil.rmtree(base)
    assert "ERROR" in perimetry(*night, code=2)


def _change(path):
    """Scale one channel of the second convolution."""
    proto = onnx.load_model(path)
    conv = [node for node in proto.graph.node if node.op_type == "Conv"][1]
    stored = next(i for i in proto.graph.initializer if i.name == conv.input[1])
    weights = numpy_helper.to_array(stored).copy()
    weights[0] *= 3
    stored.CopyFrom(numpy_helper.from_array(weights, stored.name))
    onnx.save_model(proto, path)
