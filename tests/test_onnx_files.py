"""Reading hostile, damaged and odd ONNX files: a clear error each, nothing read outside."""

import struct
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_files import convnet, model, node, save, weights

from perimetry.adapters.errors import InputError, ModelFileError, PerimetryError
from perimetry.adapters.load import load
from perimetry.adapters.onnx.files.protos import printable
from perimetry.adapters.onnx.files.read import read_model
from perimetry.adapters.onnx.inputs.spec import write_spec
from perimetry.adapters.onnx.opening import open_onnx

IMAGE = torch.rand(1, 3, 32, 32)


def write(data, path):
    path.write_bytes(data)
    return path


def test_a_missing_file_says_so(tmp_path):
    """A missing file is a ModelFileError with its path."""
    with pytest.raises(ModelFileError, match=r"cannot read .*none\.onnx"):
        load(str(tmp_path / "none.onnx"))


def test_a_folder_is_no_file(tmp_path):
    """A folder named like a file is a ModelFileError."""
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelFileError):
        open_onnx(tmp_path / "folder.onnx")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip archive", "not a readable ONNX|contains no ONNX"),
        (b"\x80\x02csome\npickle", "not a readable ONNX|contains no ONNX"),
        (bytes(range(256)) * 8, "not a readable ONNX|contains no ONNX"),
    ],
)
def test_a_file_of_another_format_is_refused(data, says, tmp_path):
    """Empty files, zip archives, pickles and noise are a ModelFileError."""
    with pytest.raises(ModelFileError, match=says):
        open_onnx(write(data, tmp_path / "a.onnx"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share, tmp_path):
    """A file cut to between a tenth and 99.9 % of its bytes is a ModelFileError."""
    data = convnet().SerializeToString()
    with pytest.raises(ModelFileError):
        open_onnx(write(data[: int(len(data) * share)], tmp_path / "a.onnx"))


def external(location, **entries):
    """A network whose first weight claims to lie in another file."""
    proto = convnet()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


@pytest.mark.parametrize(
    "location", ["../secret.bin", "sub/../../secret.bin", "/etc/hostname", "C:\\secret.bin"]
)
def test_external_data_outside_the_folder_is_never_opened(location, tmp_path):
    """Relative, absolute and Windows paths out of the folder are a ModelFileError."""
    (tmp_path / "secret.bin").write_bytes(weights(8, 3, 3, 3).tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    with pytest.raises(ModelFileError, match="outside its folder"):
        open_onnx(save(external(location), folder / "a.onnx"))


def test_a_symbolic_link_out_of_the_folder_is_not_followed(tmp_path):
    """External data behind a link out of the folder is a ModelFileError."""
    (tmp_path / "secret.bin").write_bytes(weights(8, 3, 3, 3).tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelFileError, match="outside its folder"):
        open_onnx(save(external("w.bin"), folder / "a.onnx"))


def test_external_data_beside_the_file_is_read_and_hashed(tmp_path):
    """Other bytes in the data file give another digest."""
    data = convnet().graph.initializer[0].raw_data
    (tmp_path / "w.bin").write_bytes(b"head" + data)
    path = save(external("w.bin", offset=4, length=len(data)), tmp_path / "a.onnx")
    proto, digest = read_model(path)
    assert proto.graph.initializer[0].raw_data == data
    (tmp_path / "w.bin").write_bytes(b"head" + bytes(len(data)))
    assert read_model(path)[1] != digest
    assert open_onnx(path, device="cpu").why_no_gradients is None


def test_missing_or_short_external_data_is_named(tmp_path):
    """A missing file, too few bytes and too long a range are ModelFileErrors."""
    path = save(external("w.bin"), tmp_path / "a.onnx")
    with pytest.raises(ModelFileError, match=r"w\.bin"):
        read_model(path)
    (tmp_path / "w.bin").write_bytes(b"1234")
    with pytest.raises(ModelFileError, match="declares shape"):
        read_model(path)
    path = save(external("w.bin", offset=2, length=2**40), tmp_path / "b.onnx")
    with pytest.raises(ModelFileError, match="which has 4"):
        read_model(path)


def test_a_terabyte_declared_is_refused_before_memory_is_taken(tmp_path):
    """A weight of 2^40 entries without data is a ModelFileError."""
    proto = convnet()
    proto.graph.initializer[0].dims[:] = [2**20, 2**20, 3, 3]
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        read_model(save(proto, tmp_path / "a.onnx"))


def test_negative_sizes_and_missing_strings_are_refused(tmp_path):
    """A weight of -8 channels, and 8 labels of which none is in the file, are a ModelFileError."""
    proto = convnet()
    proto.graph.initializer[0].dims[0] = -8
    with pytest.raises(ModelFileError, match="no negative sizes"):
        read_model(save(proto, tmp_path / "a.onnx"))
    proto = convnet()
    proto.graph.initializer.add(name="labels", data_type=TensorProto.STRING, dims=[8])
    with pytest.raises(ModelFileError, match="truncated or damaged"):
        read_model(save(proto, tmp_path / "b.onnx"))


def test_a_cyclic_graph_is_refused(tmp_path):
    """A node that reads what follows from it is a ModelFileError."""
    proto = convnet()
    proto.graph.node[0].input[0] = "r1"
    with pytest.raises(ModelFileError, match="cyclic"):
        read_model(save(proto, tmp_path / "a.onnx"))


def test_a_graph_with_a_missing_tensor_is_refused_by_the_name_of_the_tensor(tmp_path):
    """A node that reads what nothing writes makes the graph incomplete, not cyclic."""
    proto = convnet()
    proto.graph.node[2].input[0] = "nowhere"
    with pytest.raises(ModelFileError, match="'nowhere'"):
        read_model(save(proto, tmp_path / "a.onnx"))


@pytest.mark.parametrize("seed", range(3))
def test_nodes_in_any_order_are_sorted(seed, tmp_path):
    """A shuffled chain is read in its only order, and a sorted graph is not changed."""
    proto = convnet()
    expected = [n.name for n in proto.graph.node]
    assert [n.name for n in read_model(save(proto, tmp_path / "a.onnx"))[0].graph.node] == expected
    shuffled = [proto.graph.node[i] for i in np.random.default_rng(seed).permutation(6)]
    del proto.graph.node[:]
    proto.graph.node.extend(shuffled)
    assert [n.name for n in read_model(save(proto, tmp_path / "b.onnx"))[0].graph.node] == expected


def branching():
    """An If, first in the file, whose branches are unsorted and read what later nodes write."""
    nodes = [
        node("Add", ["doubled", "kept"], ["out"]),
        node("Mul", ["kept", "two"], ["doubled"]),
    ]
    then = helper.make_graph(nodes, "then", [], [info("out")])
    other = helper.make_graph([node("Identity", ["kept"], ["same"])], "else", [], [info("same")])
    made = [
        node("If", ["yes"], ["logits"], then_branch=then, else_branch=other),
        node("Flatten", ["small"], ["kept"]),
        node("GlobalAveragePool", ["map"], ["small"]),
        node("Conv", ["image", "w"], ["map"], strides=[4, 4]),
    ]
    constants = {"w": weights(5, 3, 4, 4), "two": np.float32(2), "yes": np.array(True)}
    return model(made, constants, dims=["n", 3, 32, 32], outputs=["logits"], out_dims=["n", 5])


def info(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_what_a_subgraph_reads_counts_as_an_input_of_its_node(tmp_path):
    """The If runs last, its branch gives three times the means, and gradients pass through it."""
    opened = open_onnx(save(branching(), tmp_path / "a.onnx"), device="cpu")
    assert [n.op_type for n in opened.graph.graph.node][-1] == "If"
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    w = torch.from_numpy(weights(5, 3, 4, 4))
    expected = 3 * torch.nn.functional.conv2d(x, w, stride=4).mean((2, 3))
    assert opened.why_no_gradients is None
    torch.testing.assert_close(opened.run(x, logits=True).logits, expected)


def test_a_graph_without_outputs_is_refused(tmp_path):
    """A graph without outputs is a ModelFileError."""
    proto = convnet()
    del proto.graph.output[:]
    with pytest.raises(ModelFileError, match="has no output"):
        read_model(save(proto, tmp_path / "a.onnx"))


def test_an_output_that_does_not_depend_on_the_image_is_refused(tmp_path):
    """A graph that returns its weights is a ModelFileError."""
    proto = model(
        [node("Identity", ["w"], ["logits"])],
        {"w": weights(1, 4)},
        dims=["n", 3, 8, 8],
        outputs=["logits"],
    )
    with pytest.raises(ModelFileError):
        open_onnx(save(proto, tmp_path / "a.onnx"))


def test_several_inputs_are_refused_by_name_with_control_characters_removed(tmp_path):
    """The InputError lists the second input with type and shape."""
    proto = convnet()
    proto.graph.input.append(
        helper.make_tensor_value_info("<b>\x1b[31mtext", TensorProto.FLOAT, [1])
    )
    with pytest.raises(InputError, match=r"2 inputs.*'<b>\?\[31mtext', .*\[1\]"):
        open_onnx(save(proto, tmp_path / "a.onnx"))


@pytest.mark.parametrize("dims", [["n", 3, 32], ["n", 3, 10**9, 32], [1, 3, 32, 32, 32]])
def test_an_input_that_is_no_image_is_refused(dims, tmp_path):
    """Three or five axes, or a side of 10^9 pixels, are an InputError."""
    proto = convnet()
    info = helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)
    proto.graph.input[0].CopyFrom(info)
    with pytest.raises(InputError):
        open_onnx(save(proto, tmp_path / "a.onnx"))


def test_five_channels_and_strings_as_image_are_refused(tmp_path):
    """An image of five channels and one of strings are an InputError."""
    with pytest.raises(InputError, match="has 5 channels"):
        open_onnx(save(convnet(channels=5), tmp_path / "a.onnx"))
    proto = convnet()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(InputError, match="is of STRING"):
        open_onnx(save(proto, tmp_path / "b.onnx"))


def test_a_custom_domain_is_refused_by_onnxruntime_with_a_clear_error(tmp_path):
    """An operator of an unknown domain is a ModelFileError."""
    proto = convnet()
    proto.graph.node[1].domain = "vendor.secret"
    proto.opset_import.append(helper.make_opsetid("vendor.secret", 1))
    with pytest.raises(ModelFileError, match="onnxruntime"):
        open_onnx(save(proto, tmp_path / "a.onnx"))


def test_damaged_input_statements_are_refused(tmp_path):
    """A list without its bracket in the metadata is a ModelFileError."""
    proto = convnet()
    proto.metadata_props.add(key="perimetry.mean", value="[0.5")
    with pytest.raises(ModelFileError, match="input statement"):
        open_onnx(save(proto, tmp_path / "a.onnx"))


def test_a_stated_standard_deviation_of_zero_is_refused(tmp_path):
    """A zero in the metadata is a ModelFileError that names `std`."""
    proto = convnet()
    spec = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").spec
    write_spec(proto, spec)
    entry = next(p for p in proto.metadata_props if p.key == "perimetry.std")
    entry.value = "[0.2, 0.0, 0.2]"
    with pytest.raises(ModelFileError, match="std"):
        open_onnx(save(proto, tmp_path / "b.onnx"))


def test_plain_text_is_printable_and_short():
    """Control characters become question marks, and 80 characters remain."""
    assert printable("a\x1b[0m\nb") == "a?[0m?b"
    assert len(printable("x" * 1000)) == 80


def test_a_model_function_is_expanded(tmp_path):
    """A local function around Relu leaves the gradients available."""
    proto = convnet()
    body = [helper.make_node("Relu", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    function = helper.make_function("local", "Rectify", ["a"], ["b"], body, opsets)
    proto.functions.append(function)
    proto.graph.node[1].CopyFrom(node("Rectify", ["c1"], ["r1"], domain="local"))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").why_no_gradients is None


def test_old_files_that_list_weights_as_inputs_are_read(tmp_path):
    """A file of opset 11 with every weight among its inputs is read."""
    proto = convnet(opset=11)
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        proto.graph.input.append(info)
    assert open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").why_no_gradients is None


SMALL = convnet(size=8).SerializeToString()


def test_a_flipped_byte_gives_a_model_or_a_clear_error(tmp_path):
    """Of 60 such files some open and some raise a PerimetryError; nothing else is raised."""
    outcomes = Counter()

    @settings(max_examples=60)
    @given(
        place=st.integers(0, len(SMALL) - 1),
        value=st.integers(0, 255),
        length=st.integers(1, 4),
    )
    def open_one(place, value, length):
        data = bytearray(SMALL)
        data[place : place + length] = struct.pack("B", value) * length
        try:
            net = open_onnx(write(bytes(data), tmp_path / "a.onnx"), device="cpu")
        except PerimetryError:
            outcomes["refused"] += 1
        else:
            assert net.why_no_gradients is None or net.why_no_gradients.isprintable()
            outcomes["opened"] += 1

    open_one()
    assert min(outcomes["refused"], outcomes["opened"]) > 3, outcomes


@pytest.mark.parametrize("name", ["graph", "node", "tensor"])
def test_a_name_that_is_no_text_gives_a_model_or_a_clear_error(name, tmp_path):
    """A parser takes any bytes for a name, and gives what is no UTF-8 as bytes."""
    proto = convnet()
    held = {"graph": proto.graph, "node": proto.graph.node[0], "tensor": proto.graph.initializer[0]}
    held[name].name = "twelve-bytes"
    data = proto.SerializeToString().replace(b"twelve-bytes", b"\x80welve-bytes")
    path = write(data, tmp_path / "a.onnx")
    if name == "tensor":
        with pytest.raises(ModelFileError, match="which nothing writes"):
            open_onnx(path, device="cpu")
    else:
        net = open_onnx(path, device="cpu")
        assert net.run(net.spec.prepare(IMAGE)).target is not None


def test_typed_entries_are_counted_like_raw_ones(tmp_path):
    """30 entries of a float list match 6 x 5, and not 600 x 500."""
    proto = convnet()
    values = np.arange(30, dtype=np.float32)
    tensor = helper.make_tensor("w3", TensorProto.FLOAT, [6, 5], values)
    proto.graph.initializer[2].CopyFrom(tensor)
    assert onnx.numpy_helper.to_array(
        read_model(save(proto, tmp_path / "a.onnx"))[0].graph.initializer[2]
    ).shape == (6, 5)
    tensor.dims[:] = [600, 500]
    proto.graph.initializer[2].CopyFrom(tensor)
    with pytest.raises(ModelFileError, match="declares shape"):
        read_model(save(proto, tmp_path / "b.onnx"))


def test_the_logits_are_chosen_aloud_where_several_outputs_may_be_them(tmp_path):
    """The first (batch, classes) is taken and the others are named, unless one was stated."""
    proto = convnet()
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", 6])
    proto.graph.output.insert(0, flat)
    path = save(proto, tmp_path / "two.onnx")
    opened = open_onnx(path, device="cpu")
    assert opened.run(opened.spec.prepare(IMAGE), logits=True).logits.shape == (1, 6)
    shown = "output 'flat' is taken for the logits; 'logits' may be: name it as the output"
    assert shown in opened.notes
    stated = open_onnx(path, device="cpu", inputs={"output": "logits"})
    assert not any("taken for the logits" in note for note in stated.notes)
