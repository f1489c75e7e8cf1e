"""`PATH.pt2`: programs of torch.export, and files that could execute code."""

import json
import zipfile

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters.errors import ModelFileError
from perimetry.adapters.load import load
from perimetry.adapters.names import check_reference
from perimetry.bench.cli.main import app


@pytest.fixture
def net():
    """A small classifier of 32 x 40 images."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


@pytest.fixture
def path(net, tmp_path):
    """Its program, with an open batch axis."""
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (torch.rand(2, 3, 32, 40),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def test_a_program_computes_what_its_module_computes(net, path):
    """Target and logits are the module's; the size is that of its input."""
    model = load(str(path), device="cpu")
    assert (model.spec.height, model.spec.width) == (32, 40)
    x = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    model.select(0, x)
    found = model.run(x, logits=True)
    torch.testing.assert_close(found.logits, net(x))
    torch.testing.assert_close(found.target, net[:4](x))


def test_a_worker_measures_a_program_and_the_key_is_stable(path, tmp_path):
    """The record of a run has the key of an audit."""
    only = ["--suite", "erf", "--kernel-padding", "none", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, ["run", str(path), *only]).exit_code == 0
    (record,) = load_records(tmp_path / "out")
    (here,) = audit(str(path), ("erf",))
    assert (record.status, record.key) == ("ok", here.key)


def rewritten(path, change):
    """A copy of the file in which `change` has edited the description of the program."""
    out = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                data = change(data.decode()).encode()
            new.writestr(name, data)
    return out


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.relu.default", "torch.os.system"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
        ("torch.ops.aten.relu.default", "torch.load"),
        ("positive=True, integer=True)", "positive=True) + eval(chr(49))"),
    ],
)
def test_a_program_that_could_execute_code_is_refused(path, old, new):
    """Operators and sizes of other kinds are named, and torch does not read the file."""
    changed = rewritten(path, lambda text: text.replace(old, new))
    with pytest.raises(ModelFileError, match="could execute code"):
        load(str(changed), device="cpu")


@pytest.mark.parametrize("name", ["data/constants/opaque_obj_0", "data/aotinductor/model/a.so"])
def test_pickled_objects_and_compiled_code_are_refused(path, name):
    """They are named, and nothing of them is read."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"net/{name}", b"")
    with pytest.raises(ModelFileError, match=name):
        load(str(path), device="cpu")


def test_pickled_tensors_are_refused(path):
    """A table of weights that says `use_pickle` is enough."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/weights/more.json", json.dumps({"a": {"use_pickle": True}}))
    with pytest.raises(ModelFileError, match="pickled tensors"):
        load(str(path), device="cpu")


def test_what_is_no_program_is_a_file_error_and_a_missing_file_has_near_names(path):
    """Neither costs more than a sentence."""
    path.with_name("text.pt2").write_text("nothing")
    with pytest.raises(ModelFileError):
        load(str(path.with_name("text.pt2")), device="cpu")
    with pytest.raises(ModelFileError, match=r"net\.pt2"):
        check_reference(str(path.with_name("nte.pt2")))
