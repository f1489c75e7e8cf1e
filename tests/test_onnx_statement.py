"""What a user states of a file's input: in TOML, on the command line, hashed and recorded."""

import json
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import convnet, node, save

from perimetry.adapters.errors import InputError, ModelFileError, UnknownNameError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.files.external_data import external_files
from perimetry.adapters.onnx.inputs.declaration import (
    KEYS,
    parse_pairs,
    read_beside,
    read_declaration,
)
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.bench.execution.plan import file_identity
from perimetry.bench.execution.settings import Settings

TEXT = """
size = [64, 48]
range = "0..255"
channel_order = "bgr"
mean = [104, 117, 123]
std = 2
interpolation = "bilinear"
crop_pct = 1
"""


@pytest.fixture
def path(tmp_path):
    return save(convnet(size=None), tmp_path / "vendor.onnx")


def beside(path, text):
    Path(path).with_suffix(".toml").write_text(text, encoding="utf-8")


def test_a_toml_file_beside_the_model_states_its_input(path):
    """Every key reaches the InputSpec, nothing is guessed, and the notes say so."""
    beside(path, TEXT)
    model = open_onnx(path, device="cpu")
    assert model.spec == InputSpec(
        64,
        48,
        mean=(104.0, 117.0, 123.0),
        std=(2.0, 2.0, 2.0),
        value_range=255.0,
        channel_order="BGR",
        interpolation="bilinear",
        crop_pct=1.0,
    )
    assert not any(note.startswith("input guessed") for note in model.notes)
    shown = next(note for note in model.notes if note.startswith("input declared"))
    assert shown.startswith("input declared by vendor.toml: size, range, channel_order")
    assert "input: 64 x 48 (height x width), NCHW, float32, BGR, 0..255, mean 104, 117, 123" in (
        "\n".join(model.notes)
    )


def test_the_model_really_sees_what_was_stated(path):
    """White, as RGB (1, 1, 1), becomes (255 - mean) / std in the order that was stated."""
    beside(path, TEXT)
    spec = open_onnx(path, device="cpu").spec
    x = spec.prepare(torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1))
    expected = [(0 - 104) / 2, (127.5 - 117) / 2, (255 - 123) / 2]
    torch.testing.assert_close(x.flatten(), torch.tensor(expected))


def test_the_command_wins_over_the_file_and_both_are_told(path):
    """Keys of the command replace those of the TOML file; the note lists both origins."""
    beside(path, TEXT)
    model = open_onnx(path, device="cpu", inputs={"channel_order": "RGB", "std": [1, 2, 3]})
    assert (model.spec.channel_order, model.spec.std) == ("RGB", (1.0, 2.0, 3.0))
    assert model.spec.mean == (104.0, 117.0, 123.0)
    (shown,) = (note for note in model.notes if note.startswith("input declared"))
    assert "by the command: channel_order, std" in shown
    assert "by vendor.toml: size, range" in shown
    assert json.loads(model.source["inputs"]) == {"channel_order": "RGB", "std": [1, 2, 3]}


def test_what_is_not_stated_stays_guessed_and_is_told(path):
    """Only the stated range is missing from the list of guesses."""
    model = open_onnx(path, device="cpu", inputs={"range": "0..255"})
    left = "mean std interpolation crop_pct channel_order height width"
    assert model.spec.guessed == tuple(left.split())
    assert (model.spec.mean, model.spec.std) == ((0.0,) * 3, (1.0,) * 3)
    shown = model.notes[0].removeprefix("input guessed: ").split("; ")
    assert shown[:2] == ["size 224 x 224 (height x width)", "mean 0, 0, 0"]
    assert "channel order RGB" in shown


def test_size_of_a_run_reaches_files_of_open_size(path):
    """`size` of the run sets the input; `size` of the declaration takes precedence."""
    assert load(path, device="cpu", size=(40, 72)).spec.width == 72
    both = load(path, device="cpu", size=(40, 72), inputs={"size": 64})
    assert (both.spec.height, both.spec.width) == (64, 64)


@pytest.mark.parametrize(
    ("stated", "error", "says"),
    [
        ({"layout": "CHWN"}, InputError, "layout = 'CHWN'; expected one of NCHW, NHWC"),
        ({"dtype": 8}, InputError, "expected one of float32, float16, uint8"),
        ({"range": "0..2"}, InputError, r"range = '0..2'; expected 0..1 or 0..255"),
        ({"channel_order": "GRB"}, InputError, "expected one of RGB, BGR"),
        ({"channels": 4}, InputError, "expected 1 .grey. or 3 .colour."),
        ({"mean": "grey"}, InputError, "one number, or one per channel"),
        ({"mean": [0.1, 0.2]}, InputError, "has 2 numbers; expected 1 or 3"),
        ({"mean": 127.5}, InputError, "outside the range 0..1.*declare range = 0..255 too"),
        ({"mean": float("nan")}, InputError, "expected one number"),
        ({"std": 0}, InputError, "expected one number above 0"),
        ({"size": "224x"}, InputError, "expected SIDE or HEIGHTxWIDTH"),
        ({"size": [1, 2, 3]}, InputError, "expected SIDE or HEIGHTxWIDTH"),
        ({"size": 10**6}, InputError, "1 to 16384 pixels"),
        ({"crop_pct": 1.5}, InputError, "a share above 0, at most 1"),
        ({"interpolation": "sinc"}, InputError, "expected one of nearest, box, bilinear"),
        ({"output": ["a"]}, InputError, "expected the name of one output"),
        ({"fixed": 3}, InputError, "expected a value for each input"),
        ({"lay": "NCHW"}, UnknownNameError, "unknown key of the input 'lay'; did you mean layout"),
        ({"output": "logit"}, InputError, "did you mean logits"),
        ({"image": "img"}, UnknownNameError, "unknown input 'img'"),
    ],
)
def test_a_statement_that_cannot_be_names_what_can(stated, error, says, path):
    """Each wrong key or value raises an error with the allowed ones."""
    with pytest.raises(error, match=says):
        open_onnx(path, device="cpu", inputs=stated)


def test_a_size_that_the_file_does_not_take_is_refused_with_the_one_it_declares(tmp_path):
    """A layout that contradicts the declared shape is an InputError."""
    path = save(convnet(size=32), tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"\[None, 3, 32, 32\]"):
        open_onnx(path, device="cpu", inputs={"layout": "NHWC"})


def test_pairs_of_the_command_line_are_read_as_toml_would_be():
    """Numbers, lists and texts get their types; every key is accepted."""
    texts = ["mean=104,117,123", "range=0..255", "size=48x320", "fixed.scale=[1.0, 2]", "image=x"]
    assert parse_pairs(texts, "537") == {
        "mean": [104, 117, 123],
        "range": "0..255",
        "size": "48x320",
        "fixed": {"scale": [1.0, 2]},
        "image": "x",
        "output": "537",
    }
    assert set(parse_pairs([f"{key}=1" for key in KEYS])) == set(KEYS)


@pytest.mark.parametrize("text", ["mean", "=3", "fixed.=1", "spec.mean=1"])
def test_a_pair_that_is_none_names_the_keys(text):
    """A text without KEY=VALUE is an InputError with the known keys."""
    with pytest.raises(InputError, match=r"KEY=VALUE.*layout, dtype, channel_order"):
        parse_pairs([text])


def test_a_damaged_statement_is_a_clear_error(path):
    """A TOML file that cannot be parsed is a ModelFileError."""
    beside(path, "mean = [0.5,")
    with pytest.raises(ModelFileError, match=r"vendor\.toml"):
        open_onnx(path, device="cpu")


def test_a_statement_that_leads_out_of_the_folder_is_not_opened(path, tmp_path_factory):
    """A TOML file that is a link out of the folder is a ModelFileError."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "secret"
    elsewhere.write_text("root = 'x'")
    Path(path).with_suffix(".toml").symlink_to(elsewhere)
    with pytest.raises(ModelFileError, match=r"vendor\.toml"):
        read_beside(path)


def test_a_second_input_gets_a_value_and_the_image_is_found(tmp_path):
    """`fixed.gain=2` doubles the logits; a missing or wrong value is an error."""
    proto = convnet()
    proto.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, ["batch", 6]))
    proto.graph.node.insert(5, node("Mul", ["flat", "gain"], ["scaled"]))
    proto.graph.node[6].input[0] = "scaled"
    path = save(proto, tmp_path / "two.onnx")
    with pytest.raises(InputError, match=r"--input fixed\.gain=1"):
        open_onnx(path, device="cpu")
    with pytest.raises(InputError, match=r"\[any, 6\]"):
        open_onnx(path, device="cpu", inputs={"fixed": {"gain": [1, 2]}})
    with pytest.raises(UnknownNameError, match=r"'gian'.*gain"):
        open_onnx(path, device="cpu", inputs={"fixed": {"gian": 2}})
    model = open_onnx(path, device="cpu", inputs={"fixed": {"gain": 2}})
    plain = open_onnx(save(convnet(), tmp_path / "one.onnx"), device="cpu")
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(
        model.run(x, logits=True).logits, 2 * plain.run(x, logits=True).logits
    )
    assert model.why_no_gradients is None
    assert "fixed.gain" in "".join(model.notes)


def test_an_output_can_be_chosen_in_the_file_too(tmp_path):
    """`output` in the TOML file chooses the tensor that counts as logits."""
    proto = convnet()
    proto.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["b", 6]))
    path = save(proto, tmp_path / "a.onnx")
    x = torch.rand(1, 3, 32, 32)
    assert open_onnx(path, device="cpu").run(x, logits=True).logits.shape == (1, 5)
    beside(path, 'output = "flat"')
    assert open_onnx(path, device="cpu").run(x, logits=True).logits.shape == (1, 6)


def test_the_identity_of_a_file_changes_with_every_byte_that_counts(tmp_path):
    """The graph, the TOML beside it, external data of whatever name, and what a run states."""
    proto = convnet()
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights of it.bin")
    (tmp_path / "weights of it.bin").write_bytes(data)
    path = save(proto, tmp_path / "a.onnx")
    assert [p.name for p in external_files(tmp_path / "a.onnx")] == ["weights of it.bin"]
    found = [file_identity(path)]
    (tmp_path / "weights of it.bin").write_bytes(bytes(len(data)))
    found.append(file_identity(path))
    beside(path, "std = 1")
    found.append(file_identity(path))
    beside(path, "std = 1 ")
    found.append(file_identity(path))
    found.append(file_identity(path, Settings(inputs={"mean": 0})))
    found.append(file_identity(path, Settings(inputs={"mean": 1})))
    proto.producer_name = "other"
    save(proto, tmp_path / "a.onnx")
    found.append(file_identity(path))
    assert len(set(found)) == len(found)
    assert file_identity(path, Settings()) == file_identity(path)


def test_no_device_or_pipe_is_opened_for_an_identity(tmp_path):
    """A TOML file that is a link to /dev/zero is not read."""
    (tmp_path / "a.toml").symlink_to("/dev/zero")
    path = save(convnet(), tmp_path / "a.onnx")
    assert "+" not in file_identity(path)


def test_a_file_that_runs_at_one_size_only_is_guessed_at_that_size(tmp_path):
    """A linear layer behind a map of open size fixes it; 64 x 64 is one of the sizes tried."""
    proto = convnet(size=None)
    del proto.graph.node[3]
    proto.graph.node[3].input[0] = "map"
    proto.graph.initializer[2].CopyFrom(
        helper.make_tensor("w3", TensorProto.FLOAT, [6 * 256, 5], [0.01] * (6 * 256 * 5))
    )
    model = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert (model.spec.height, model.spec.width) == (64, 64)
    assert {"height", "width"} <= set(model.spec.guessed)


def test_a_file_that_runs_at_no_size_tried_asks_for_one(tmp_path):
    """The InputError says how to state the size."""
    proto = convnet(size=None)
    del proto.graph.node[3]
    proto.graph.node[3].input[0] = "map"
    path = save(proto, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="--input size=48x320"):
        open_onnx(path, device="cpu")


def test_statements_of_two_places_are_merged_key_by_key():
    """The command takes precedence, and each key keeps its origin."""
    first = read_declaration({"mean": 0.5, "fixed": {"a": 1}}, "one.toml")
    second = read_declaration({"std": 0.5, "mean": 0.1, "fixed": {"b": 2}})
    both = second.over(first)
    assert both.values == {"mean": 0.1, "std": 0.5}
    assert both.fixed == {"a": 1, "b": 2}
    assert both.origin["mean"] == "the command"
    assert both.origin["fixed.a"] == "one.toml"
