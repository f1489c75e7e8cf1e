"""Mutated and malicious ONNX files: a model or a clear error, and nothing read outside the folder.

What is tried on every file is what a run does: open it, look at its gradients, pad it, walk its
structure. Files that take much memory go through the runner, in a process of their own.
"""

import contextlib
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import sweep_tools
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_files import convnet, model, node, save, weights

from perimetry.adapters.errors import ModelFileError, PerimetryError
from perimetry.adapters.onnx.files.read import read_model
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.bench.execution.plan import AuditPlan, file_identity
from perimetry.bench.execution.runner import run_jobs
from perimetry.bench.execution.settings import RunOptions, Settings, standard
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.records.store import Store

BASE = convnet(size=8)
BYTES = BASE.SerializeToString()
HOSTILE = "\x1b]0;x\x07<script>alert(1)</script>\n| = cmd |' /C calc'!A0\u202e"


@pytest.fixture
def little_memory():
    """Four gigabytes more than is mapped already: what asks for more is refused by the system."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2**32, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def audit_all(path):
    """Do everything a run does to a file: `refused`, `opened` or `ran`.

    Only errors for the user may be raised; whatever else is raised, such as KeyError or
    MemoryError, fails the test. All texts are printable, and outputs have two rows.
    """
    try:
        net = open_onnx(path, device="cpu")
    except PerimetryError as error:
        return "refused" if str(error).isprintable() else f"unprintable: {error!r}"
    assert net.why_no_gradients is None or net.why_no_gradients.isprintable()
    assert all(note.isprintable() for note in net.notes)
    for fill in ("box", "zero"):
        with contextlib.suppress(PerimetryError):
            net.padded(fill)
    with contextlib.suppress(PerimetryError):
        net.skeleton()
    x = torch.rand(2, net.spec.channels, net.spec.height, net.spec.width)
    try:
        out = net.run(x, target=net.target is not None, logits=True)
    except PerimetryError:
        return "opened"
    assert all(len(part) == 2 for part in (out.target, out.logits) if part is not None)
    return "ran"


@st.composite
def mutated_bytes(draw):
    """A file cut short, with bits flipped, or with a piece of itself inserted or taken out."""
    data = bytearray(BYTES)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 64))
        change = draw(st.sampled_from(("cut", "flip", "insert", "remove", "fill")))
        if change == "cut":
            del data[at:]
        elif change == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "insert":
            data[at:at] = data[: draw(st.integers(1, 64))]
        elif change == "remove":
            del data[at : at + length]
        elif data:
            data[at : at + length] = bytes([draw(st.integers(0, 255))]) * length
    return bytes(data)


@pytest.mark.usefixtures("little_memory")
def test_damaged_bytes_give_a_model_or_a_clear_error(tmp_path):
    """Of 200 damaged files some are refused and some run; none raises anything else."""
    path, outcomes = tmp_path / "a.onnx", Counter()

    @settings(max_examples=200)
    @given(data=mutated_bytes())
    def audit_one(data):
        path.write_bytes(data)
        outcomes[audit_all(path)] += 1

    audit_one()
    assert outcomes.keys() <= {"refused", "opened", "ran"}
    assert min(outcomes["refused"], outcomes["ran"]) > 3, outcomes


ODD = (-(2**62), -(2**31), -1, 0, 1, 2, 3, 7, 255, 2**15)
NAMES = ("", "image", "c1", "r1", "w1", "map", HOSTILE, "x" * 5000)
OPERATORS = (
    *("Relu", "Conv", "MaxPool", "AveragePool", "Reshape", "Transpose", "Resize", "Pad", "Slice"),
    *("Gather", "Loop", "If", "Constant", "Softmax", "DequantizeLinear", "LSTM", "NoSuchOperator"),
)


@st.composite
def mutated_graph(draw):
    """A graph with parts of it exchanged: attributes, wires, operators, shapes, types, names."""
    proto = onnx.ModelProto()
    proto.CopyFrom(BASE)
    graph = proto.graph
    for _ in range(draw(st.integers(1, 4))):
        one = draw(st.sampled_from(list(graph.node)))
        tensor = draw(st.sampled_from(list(graph.initializer)))
        change = draw(st.sampled_from(CHANGES))
        change(draw, graph, one, tensor)
    if draw(st.booleans()):
        proto.opset_import[0].version = draw(st.sampled_from((0, 1, 5, 9, 11, 17, 23, 99)))
    return proto


def _attribute(draw, _graph, one, _tensor):
    for attribute in one.attribute:
        attribute.ints[:] = [draw(st.sampled_from(ODD)) for _ in attribute.ints]
    if draw(st.booleans()):
        one.attribute.append(helper.make_attribute("dilations", [draw(st.sampled_from(ODD))] * 2))


def _wire(draw, _graph, one, _tensor):
    side = draw(st.sampled_from((one.input, one.output)))
    if side:
        side[draw(st.integers(0, len(side) - 1))] = draw(st.sampled_from(NAMES))


def _operator(draw, _graph, one, _tensor):
    one.op_type = draw(st.sampled_from(OPERATORS))
    one.domain = draw(st.sampled_from(("", "ai.onnx", "com.microsoft", "vendor.secret", HOSTILE)))


def _shape(draw, _graph, _one, tensor):
    if tensor.dims:
        tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(st.sampled_from(ODD))


def _kind(draw, _graph, _one, tensor):
    tensor.data_type = draw(st.integers(0, 30))


def _name(draw, graph, one, tensor):
    text = draw(st.sampled_from(NAMES))
    named_parts = (one, tensor, graph, *graph.input[:1], *graph.output[:1])
    draw(st.sampled_from(named_parts)).name = text


def _input(draw, graph, _one, _tensor):
    dims = [draw(st.sampled_from((*ODD, "n", None))) for _ in range(draw(st.integers(0, 6)))]
    kind = draw(st.integers(0, 20))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", kind, dims))


def _external(draw, _graph, _one, tensor):
    place = draw(st.sampled_from(("../secret", "/etc/passwd", "a/../../secret", "link", "a.onnx")))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    if draw(st.booleans()):
        tensor.external_data.add(key="offset", value=str(draw(st.sampled_from(ODD))))


def _drop(draw, graph, _one, _tensor):
    part = draw(st.sampled_from((graph.node, graph.initializer, graph.output, graph.input)))
    if len(part) > 1 or part in (graph.output, graph.input):
        del part[-1:]


def _repeat(_draw, graph, one, _tensor):
    graph.node.append(one)


CHANGES = (
    *(_attribute, _wire, _operator, _shape, _kind, _name, _input, _external, _drop, _repeat),
)

OPENED = []
"""The files Python opened while LISTENING was not empty; an audit hook cannot be removed."""
LISTENING = []


def _note_open(event, arguments):
    if LISTENING and event == "open" and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(_note_open)


@contextlib.contextmanager
def opened_names():
    """The names of the files that Python opens inside the block, known after it."""
    names = set()
    OPENED.clear()
    LISTENING.append(True)
    try:
        yield names
    finally:
        LISTENING.clear()
        names.update(name.rpartition("/")[2] for name in OPENED)


@pytest.fixture
def folder(tmp_path):
    """A folder with a link out of it and a secret beside it."""
    (tmp_path / "secret").write_bytes(weights(8, 3, 3, 3).tobytes())
    inside = tmp_path / "models"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path / "secret")
    return inside


@pytest.mark.usefixtures("little_memory")
def test_mutated_graphs_give_a_model_or_a_clear_error_and_open_nothing_outside(folder):
    """Of 120 changed graphs some are refused and some run; only files of the folder are opened."""
    path, outcomes = folder / "a.onnx", Counter()

    @settings(max_examples=120)
    @given(proto=mutated_graph())
    def audit_one(proto):
        try:
            path.write_bytes(proto.SerializeToString())
        except ValueError:
            return  # protobuf itself refuses to write it
        with opened_names() as names:
            outcomes[audit_all(path)] += 1
        assert "a.onnx" in names
        assert names.isdisjoint({"secret", "passwd", "link"})

    audit_one()
    assert outcomes.keys() <= {"refused", "opened", "ran"}
    assert min(outcomes["refused"], outcomes["ran"]) > 3, outcomes


def external_everywhere(place):
    """One outside reference, as an initialiser, constant, or in a subgraph, function, sparse."""
    tensor = TensorProto(name="t", data_type=1, dims=[8, 3, 3, 3])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    inner = helper.make_graph([], "inner", [], [helper.make_empty_tensor_value_info("t")], [tensor])
    constant = helper.make_node("Constant", [], ["t"], value=tensor)
    files = {}
    for name in ("initialiser", "constant", "subgraph", "function", "sparse"):
        files[name] = convnet()
    files["initialiser"].graph.initializer.append(tensor)
    files["constant"].graph.node.insert(0, constant)
    branch = helper.make_node("If", ["yes"], ["u"], then_branch=inner, else_branch=inner)
    files["subgraph"].graph.node.insert(0, branch)
    files["subgraph"].graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    function = helper.make_function(
        "local", "Hide", [], ["t"], [constant], [helper.make_opsetid("", 20)]
    )
    files["function"].functions.append(function)
    files["function"].opset_import.append(helper.make_opsetid("local", 1))
    files["function"].graph.node.insert(0, helper.make_node("Hide", [], ["u"], domain="local"))
    values = TensorProto()
    values.CopyFrom(tensor)
    values.dims[:] = [216]
    indices = numpy_helper.from_array(np.arange(216, dtype=np.int64), "indices")
    files["sparse"].graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, [8, 3, 3, 3])
    )
    return files


@pytest.mark.parametrize("place", ["../secret", "link"])
@pytest.mark.parametrize("where", ["initialiser", "constant", "subgraph", "function", "sparse"])
def test_data_outside_the_folder_is_refused_wherever_in_the_file_it_is_named(where, place, folder):
    """A path or a link out of the file's folder is a ModelFileError."""
    path = save(external_everywhere(place)[where], folder / "a.onnx")
    with pytest.raises(ModelFileError, match="outside its folder"):
        read_model(path)


def test_one_small_file_cannot_be_read_into_many_large_tensors(tmp_path, monkeypatch):
    """Tensors that share a range of external data count each for itself."""
    monkeypatch.setattr("perimetry.adapters.onnx.files.read.LIMIT", 10_000)
    (tmp_path / "w.bin").write_bytes(bytes(4_000))
    proto = convnet(size=8)
    for i in range(4):
        tensor = proto.graph.initializer.add(name=f"t{i}", data_type=1, dims=[1000])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
    with pytest.raises(ModelFileError, match="too many"):
        read_model(save(proto, tmp_path / "a.onnx"))


def with_node(extra, constants, reads):
    """The base network with nodes between its first convolution and the ReLU."""
    proto = convnet(size=8)
    for i, one in enumerate(extra):
        proto.graph.node.insert(1 + i, one)
    proto.graph.node[1 + len(extra)].input[0] = reads
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    return proto


def bombs():
    """Small files that ask for terabytes, never end, or give nothing of use."""
    huge = np.array([1, 1, 2**19, 2**19])
    forever = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node("Add", ["sum", "sum"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, []),
        ],
    )
    return {
        "tile": with_node([node("Tile", ["c1", "n"], ["big"])], {"n": huge}, "big"),
        "of_shape": with_node(
            [
                node("ConstantOfShape", ["n"], ["big"]),
                node("ReduceMax", ["big"], ["m"], keepdims=0),
                node("Add", ["c1", "m"], ["more"]),
            ],
            {"n": np.array([2**40])},
            "more",
        ),
        "for_ever": with_node(
            [
                helper.make_node("Loop", ["", "yes", "one"], ["end"], body=forever, name="loop"),
                node("Add", ["c1", "end"], ["late"]),
            ],
            {"yes": np.array(True), "one": np.float32(1)},
            "late",
        ),
        "nan": with_node([node("Log", ["c1"], ["l"])], {}, "l"),
        "constant": with_node([node("Mul", ["c1", "no"], ["l"])], {"no": np.float32(0)}, "l"),
        "no_output": model([node("Relu", ["image"], ["a"])], {}, dims=[1, 3, 8, 8], outputs=[]),
        "names": named(convnet(size=8)),
    }


def named(proto):
    """Every name that is shown anywhere, hostile."""
    proto.graph.name = proto.producer_name = HOSTILE
    for one in proto.graph.node:
        one.name = HOSTILE + one.name
    proto.metadata_props.add(key=HOSTILE, value=HOSTILE)
    return proto


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """One run over every bomb, and a sound file after them all."""
    folder = tmp_path_factory.mktemp("bombs")
    files = {name: save(proto, folder / f"{name}.onnx") for name, proto in bombs().items()}
    files["sound"] = save(convnet(size=8), folder / "sound.onnx")
    chosen = Settings(images="noise", count=4, draws=10)
    suites, known = ["deadpixel", "structure"], standard().suites
    jobs = AuditPlan(list(files.values()), suites, ["none"], chosen, "cpu", known).jobs()
    store = Store(folder / "records")
    run_jobs(
        jobs,
        store,
        chosen,
        RunOptions(device="cpu", batch=4, time_limit_s=20.0, toolkit=sweep_tools.standard_toolkit),
    )
    return files, store


def test_every_bomb_has_its_records_and_the_sound_file_its_numbers(audited):
    """Each file that cannot be measured has a reason or an error; the last file is measured."""
    files, store = audited
    found = {(r.model.reference, r.suite): r for r in store.records()}
    assert len(found) == 2 * len(files)
    assert found[files["sound"], "deadpixel"].status == "ok"
    assert found[files["names"], "deadpixel"].status == "ok"
    for name in ("tile", "of_shape", "for_ever", "nan", "constant", "no_output"):
        record = found[files[name], "deadpixel"]
        assert record.status in ("skipped", "failed"), name
        assert record.reason or record.error, name
        assert not record.metrics, name
    assert found[files["for_ever"], "deadpixel"].error.kind == "time limit"


def test_hostile_names_are_harmless_wherever_records_are_shown(audited):
    """No control character and no change of writing direction is in any form of the board."""
    _, store = audited
    board = Board(store.records())
    for form in ("table", "md", "csv"):
        text = render_board(board, form)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "\x07" not in text


def test_a_worker_may_not_take_more_memory_than_there_is(audited):
    """A terabyte asked for is an error of the model, not the death of its process."""
    files, store = audited
    for name in ("tile", "of_shape"):
        (record,) = (
            r
            for r in store.records()
            if r.model.reference == files[name] and r.suite == "deadpixel"
        )
        assert record.error is None or record.error.kind == "exception", record.error


def test_the_identity_of_a_hostile_file_opens_nothing_outside(folder):
    """Hashing a file with references out of its folder opens the file and not what they name."""
    with opened_names() as names:
        for proto in external_everywhere("../secret").values():
            file_identity(save(proto, folder / "a.onnx"))
    assert "secret" not in names
    assert "a.onnx" in names
