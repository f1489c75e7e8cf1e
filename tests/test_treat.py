"""`perimetry pad`: the file it writes is valid, and what it reports is what was measured."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import convnet, model, node, read, save, weights
from trained_weights import LITE0
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.session import Session
from perimetry.bench.cli.main import app
from perimetry.bench.pad_file import fidelity, pad_file
from perimetry.suites.images import open_images

FEW = {"count": 4, "device": "cpu"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "vendor.onnx"


def session_of(path):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_written_file_is_valid_and_keeps_everything_but_the_kernels(path, tmp_path):
    """Metadata, inputs and output shape are as before; the original is unchanged."""
    proto = convnet(opset=13)
    proto.producer_name = "someone"
    helper.set_model_props(proto, {"author": "me", "classes": "a,b"})
    save(proto, path)
    report = pad_file(path, tmp_path / "padded.onnx", **FEW)
    onnx.checker.check_model(str(report.out), full_check=True)
    written = read(report.out)
    for name in ("producer_name", "metadata_props", "opset_import", "ir_version"):
        assert getattr(written, name) == getattr(proto, name), name
    assert written.graph.input == proto.graph.input
    assert written.graph.output == proto.graph.output
    x = weights(2, 3, 32, 32)
    old, new = (session_of(p).run(None, {"image": x})[0] for p in (path, report.out))
    assert old.shape == new.shape
    assert abs(old - new).max() > 1e-3
    assert read(path) == proto
    assert report.written == (report.out,)


def test_zero_writes_the_same_function(path, tmp_path):
    """Top class and features agree fully, and the imbalance is the same."""
    save(convnet(), path)
    report = pad_file(path, tmp_path / "padded.onnx", "zero", **FEW)
    assert report.fidelity["top1_agreement"].value == 1.0
    assert report.fidelity["feature_cosine"].value == pytest.approx(1.0, abs=1e-6)
    assert report.before.metrics["imbalance"].value == pytest.approx(
        report.after.metrics["imbalance"].value, abs=1e-4
    )


def test_what_is_reported_is_what_an_audit_of_both_files_gives(path, tmp_path):
    """Metrics of both files and the fidelity are those of separate measurements."""
    save(convnet(size=64), path)
    report = pad_file(path, tmp_path / "padded.onnx", **FEW)
    for file, shown in ((path, report.before), (report.out, report.after)):
        (record,) = audit(str(file), ("deadpixel",), **FEW)
        assert {n: v.value for n, v in record.metrics.items()} == {
            n: v.value for n, v in shown.metrics.items()
        }
    variant = open_onnx(path, device="cpu").padded("box")
    images = open_images("dead-leaves", 4).load(variant.spec)
    own = fidelity(variant, images, seed=0, batch=None)
    for name, estimate in own.items():
        assert report.fidelity[name].value == pytest.approx(estimate.value, abs=1e-5)


def test_external_weights_go_beside_the_new_file_and_the_old_one_stays(path, tmp_path):
    """The new file has its own data file, and can be written a second time."""
    wide = model(
        [
            node("Conv", ["image", "w"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("GlobalAveragePool", ["map"], ["pooled"]),
            node("Flatten", ["pooled"], ["logits"]),
        ],
        {"w": weights(32, 3, 3, 3)},
        dims=["n", 3, 32, 32],
        outputs=["logits"],
        out_dims=["n", 32],
    )
    onnx.save_model(wide, str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    before = (tmp_path / "w.bin").read_bytes()
    folder = tmp_path / "new"
    folder.mkdir()
    report = pad_file(path, folder / "padded.onnx", **FEW)
    assert sorted(p.name for p in folder.iterdir()) == ["padded.onnx", "padded.onnx.data"]
    assert (folder / "padded.onnx.data").stat().st_size >= 32 * 3 * 4 * 4 * 4
    assert (folder / "padded.onnx").stat().st_size < 2000
    assert session_of(report.out).run(None, {"image": weights(1, 3, 32, 32)})[0].shape == (1, 32)
    assert (tmp_path / "w.bin").read_bytes() == before
    again = pad_file(path, folder / "padded.onnx", **FEW)
    assert again.written == report.written


def test_a_statement_of_the_input_goes_along(path, tmp_path):
    """The TOML file is copied beside the new file, with the same effect."""
    save(convnet(), path)
    path.with_suffix(".toml").write_text('range = "0..255"\nmean = 127.5\nstd = 60\n')
    report = pad_file(path, tmp_path / "padded.onnx", **FEW)
    assert tmp_path / "padded.toml" in report.written
    assert open_onnx(report.out, device="cpu").spec == open_onnx(path, device="cpu").spec


def test_inputs_that_were_given_a_value_are_inputs_of_the_new_file_again(path, tmp_path):
    """A fixed input is not stored in the new file."""
    proto = convnet()
    proto.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, ["b", 6]))
    proto.graph.node.insert(5, node("Mul", ["flat", "gain"], ["scaled"]))
    proto.graph.node[6].input[0] = "scaled"
    save(proto, path)
    report = pad_file(path, tmp_path / "padded.onnx", inputs={"fixed": {"gain": 1}}, **FEW)
    written = read(report.out)
    assert [i.name for i in written.graph.input] == ["image", "gain"]
    assert "gain" not in {i.name for i in written.graph.initializer}
    feeds = {"image": weights(1, 3, 32, 32), "gain": weights(1, 6)}
    assert session_of(report.out).run(None, feeds)[0].shape == (1, 5)


def test_a_file_without_gradients_is_told_by_forward_passes(path, tmp_path):
    """The report uses the comb of `perturbation`, whose imbalance falls."""
    proto = convnet(size=64)
    proto.graph.node[1].CopyFrom(node("Acosh", ["above"], ["r1"]))
    proto.graph.node.insert(1, node("Abs", ["c1"], ["abs"]))
    proto.graph.node.insert(2, node("Add", ["abs", "one"], ["above"]))
    proto.graph.initializer.append(numpy_helper.from_array(weights(1)[0] * 0 + 1.1, "one"))
    save(proto, path)
    report = pad_file(path, tmp_path / "padded.onnx", **FEW)
    assert report.before.suite == "perturbation"
    assert (
        report.after.metrics["comb_imbalance"].value < report.before.metrics["comb_imbalance"].value
    )
    assert "perturbation.comb_imbalance" in report.text()


def test_an_even_network_is_written_as_it_is_and_the_report_says_so(path, tmp_path):
    """A network with nothing to pad is written unchanged, and the report says so."""
    proto = model(
        [node("Conv", ["image", "w"], ["map"], strides=[2, 2])],
        {"w": weights(4, 3, 2, 2)},
        dims=["n", 3, 32, 32],
        outputs=["map"],
        out_dims=["n", 4, 16, 16],
    )
    save(proto, path)
    report = pad_file(path, tmp_path / "padded.onnx", **FEW)
    assert read(report.out) == proto
    assert "no layer could be padded" in report.notes[0]
    assert report.fidelity["top1_agreement"].reason == "the model gives no logits"


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("vendor.onnx", "part of the model that is read"),
        ("w.onnx", "part of the model that is read"),
        ("padded.pt", r"expected a file name ending in \.onnx"),
        ("none/padded.onnx", "is not a folder; create it first"),
    ],
)
def test_a_destination_that_could_do_harm_is_refused_and_nothing_is_written(out, says, tmp_path):
    """The model, its data file, another suffix or no folder is refused, and no file changes."""
    path = tmp_path / "vendor.onnx"
    onnx.save_model(
        convnet(),
        str(path),
        save_as_external_data=True,
        location="w.onnx.data",
        size_threshold=0,
    )
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match=says):
        pad_file(path, tmp_path / out, **FEW)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_fills_that_need_training_are_refused(path, tmp_path):
    """The fill `fresh` is an InputError with the possible fills."""
    save(convnet(), path)
    with pytest.raises(InputError, match="box, zero"):
        pad_file(path, tmp_path / "padded.onnx", "fresh", **FEW)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained network as a vendor would ship it: norms folded, input stated."""
    network = load(f"timm:tf_efficientnet_lite0@{LITE0}", device="cpu", size=(128, 128))
    path = tmp_path_factory.mktemp("trained") / "lite0.onnx"
    export_onnx(network.module(), torch.zeros(1, 3, 128, 128), path, spec=network.spec)
    return path


@pytest.fixture(scope="module")
def by_gradients(trained):
    """The trained network, padded with box and measured by gradients."""
    return pad_file(trained, trained.parent / "padded.onnx", count=24, device="cpu")


def test_a_trained_network_becomes_more_even_and_the_forward_route_confirms_it(
    trained, by_gradients, tmp_path
):
    """Imbalance falls by both routes, by gradients beyond its interval; fidelity is reported."""
    assert len(by_gradients.treatment.layers) == 5
    assert by_gradients.change("imbalance").high < 0
    forward = pad_file(trained, tmp_path / "again.onnx", count=4, device="cpu", forward_only=True)
    assert forward.change("comb_imbalance").value < 0
    assert forward.before.suite == "perturbation"
    text = by_gradients.text()
    assert "the difference is beyond its interval" in text
    assert "conv_stem" in text


def test_recalibration_brings_a_trained_network_back_to_itself(trained, by_gradients, tmp_path):
    """Label-free: rescaled layers bring features nearer to the original's and stay more even."""
    back = pad_file(trained, tmp_path / "p.onnx", count=24, device="cpu", recalibrate=True)
    for name in ("feature_cosine", "top1_agreement"):
        assert back.fidelity[name].value > by_gradients.fidelity[name].value
    assert back.fidelity["feature_cosine"].value > 0.7
    assert back.change("imbalance").value < 0
    assert "5 layers recalibrated on 24 images" in back.text()


def test_recalibrated_layers_have_the_moments_of_the_original(path, tmp_path):
    """Mean and deviation of each channel of both grown layers, over images and units."""
    save(convnet(size=64), path)
    report = pad_file(path, tmp_path / "padded.onnx", recalibrate=True, **FEW)
    spec = open_onnx(path, device="cpu").spec
    x = {"image": spec.prepare(open_images("dead-leaves", 4).load(spec)).numpy()}
    for name in ("c1", "map"):
        old, new = (Session(read(p), [name]).run(x)[name] for p in (path, report.out))
        np.testing.assert_allclose(new.mean((0, 2, 3)), old.mean((0, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(new.std((0, 2, 3)), old.std((0, 2, 3)), rtol=1e-4)


def test_the_command_writes_the_file_and_prints_the_report(path, tmp_path):
    """A wrong `--input` exits with 1."""
    save(convnet(), path)
    words = ["pad", path, "-o", tmp_path / "p.onnx", "--count", "4", "--device", "cpu"]
    result = CliRunner().invoke(app, [*map(str, words), "--input", "range=0..255"])
    assert result.exit_code == 0, result.output
    assert "2 layers padded with box" in result.output
    assert "deadpixel.imbalance: " in result.output
    assert "note: input declared by the command: range" in result.output
    assert (tmp_path / "p.onnx").exists()
    wrong = CliRunner().invoke(app, [*map(str, words), "--input", "range=9"])
    assert wrong.exit_code == 1
    assert "expected 0..1 or 0..255" in wrong.output


def test_names_in_a_hostile_file_are_harmless_in_the_report(path, tmp_path):
    """A control character in a node's name is replaced in the report."""
    proto = convnet()
    proto.graph.node[0].name = "\x1b[31m<script>alert(1)</script>"
    save(proto, path)
    text = pad_file(path, tmp_path / "padded.onnx", **FEW).text()
    assert "\x1b" not in text
    assert "?[31m<script>" in text
