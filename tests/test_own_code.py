"""`py:package.module:factory`: modules of the user's own code."""

import os
import random
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from perimetry import audit, compare, load_records
from perimetry.adapters.errors import UnknownNameError
from perimetry.adapters.load import load
from perimetry.adapters.names import check_reference
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.audited import check_models
from perimetry.bench.comparison.sides import Argument
from perimetry.bench.execution import identities
from perimetry.bench.execution.engines.process import outcome_of
from perimetry.bench.execution.plan import file_identity
from perimetry.bench.execution.settings import RunOptions, Settings

CODE = """
import os
with open("processes", "a") as stream:
    print(os.getpid(), file=stream)
import random
import numpy as np
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())

def pair():
    return net(), (24, 32)

class Stated(nn.Module):
    input_size = (3, 40, 48)
    def __init__(self):
        super().__init__()
        self.net = net()
        scale = random.random() + np.random.rand()
        self.register_buffer("scale", torch.tensor(scale))
    def forward(self, x):
        return self.net(x) * self.scale

ready = net()

def broken():
    raise RuntimeError("no weights on this disk")

def ends():
    raise SystemExit(3)

def needs(width):
    return net()

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with a package of its own name, which is forgotten afterwards."""
    (tmp_path / "own_zoo").mkdir()
    (tmp_path / "own_zoo" / "__init__.py").touch()
    (tmp_path / "own_zoo" / "nets.py").write_text(CODE)
    (tmp_path / "own_zoo" / "faulty.py").write_text("import nonesuch_library\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.partition(".")[0] == "own_zoo"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("factory", "size"),
    [("net", (224, 224)), ("pair", (24, 32)), ("Stated", (40, 48)), ("ready", (224, 224))],
)
def test_a_factory_gives_the_module_and_perhaps_its_size(factory, size):
    """The size is the pair's or the attribute's; one that is given counts before both."""
    model = load(f"py:own_zoo.nets:{factory}", device="cpu")
    assert (model.spec.height, model.spec.width) == size
    assert ("height" in model.spec.guessed) == (size == (224, 224))
    given = load(f"py:own_zoo.nets:{factory}", device="cpu", size=(16, 20))
    assert (given.spec.height, given.spec.width) == (16, 20)


def test_random_weights_depend_on_the_seed_and_global_generators_are_left_alone():
    """torch, numpy and Python draw the same again, so the identity is stable."""
    torch.manual_seed(1)
    states = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    reference = "py:own_zoo.nets:Stated"
    one, same, other = (file_identity(reference, Settings(seed=s)) for s in (0, 0, 1))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def test_the_identity_is_that_of_the_module_and_not_of_its_source(folder):
    """A comment changes nothing, another layer does."""
    path = folder / "own_zoo" / "nets.py"
    found = []
    for code in (CODE, f"# a comment\n{CODE}", CODE.replace("3, 4, 3, 2, 1", "3, 4, 5, 2, 2")):
        path.write_text(code)
        for name in [n for n in sys.modules if n.startswith("own_zoo")]:
            del sys.modules[name]
        sys.dont_write_bytecode = True
        found.append(file_identity("py:own_zoo.nets:net", Settings()))
    assert found[0] == found[1] != found[2]


def test_runs_in_workers_find_their_records_again_and_faults_are_failed_records(folder):
    """A fault fails its own records alone, and the code never runs in the process that plans."""
    names = ["ready", "broken", "ends", "needs"]
    references = [*(f"py:own_zoo.nets:{n}" for n in names), "py:own_zoo.faulty:net"]
    only = ["--suite", "structure", "--kernel-padding", "none", "--size", "32", "--out", "out"]
    done = CliRunner().invoke(app, ["run", *references, *only])
    early = done.stderr.partition(" records ")[0]
    assert [one in early for one in references] == [one.endswith("needs") for one in references]
    found = {r.model.reference.rpartition(".")[2]: r for r in load_records("out")}
    assert found["nets:ready"].status == "ok"
    messages = {n: r.error.message for n, r in found.items() if r.status == "failed"}
    assert str(os.getpid()) not in (folder / "processes").read_text().split()
    assert messages.keys() == {"nets:broken", "nets:ends", "nets:needs", "faulty:net"}
    assert all(message.startswith("ModelFileError") for message in messages.values())
    assert "no weights on this disk" in messages["nets:broken"]
    assert "nonesuch_library" in messages["faulty:net"]
    (here,) = audit(references[0], ("structure",), size=(32, 32))
    assert here.key == found["nets:ready"].key
    assert references[0] in compare(f"out:{references[0]}", references[0]).text()


@pytest.mark.parametrize("factory", ["needs", "number"])
def test_what_gives_no_module_is_a_failed_record(factory):
    """`audit` never raises for a fault of the code."""
    (record,) = audit(f"py:own_zoo.nets:{factory}", ("structure",))
    assert record.status == "failed"
    assert record.error.message.startswith("ModelFileError")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("own_zoo.net:pair", "own_zoo.nets"),
        ("own_zo.nets:pair", "own_zoo"),
        ("own_zoo.nets:pari", "pair"),
        ("own_zoo.nets:Stated.nets", "own_zoo.nets"),
        ("own_zoo.nets:torch", "which gives no module"),
        ("own_zoo.nets", "py:package.module:factory"),
        (":", "py:package.module:factory"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(name, near):
    """The error offers the names beside it."""
    with pytest.raises(UnknownNameError) as caught:
        check_reference(f"py:{name}")
    assert near in str(caught.value)


def test_a_factory_that_needs_arguments_is_refused_where_nothing_else_is_left(monkeypatch):
    """Beside a model that can be measured it is a sentence, alone or beside typos an error."""
    monkeypatch.setattr(identities, "each_bounded", lambda calls, _run: [*map(outcome_of, calls)])
    needs, ready = "py:own_zoo.nets:needs", "py:own_zoo.nets:ready"
    (said,) = identities.check_references([ready, needs], RunOptions("cpu"))
    assert needs in said
    assert ready not in said
    for names in ([needs], [ready, needs, "py:own_zoo.nets:pari"]):
        with pytest.raises(UnknownNameError):
            identities.check_references(names, RunOptions("cpu"))


def test_a_factory_that_needs_arguments_leaves_nothing_to_compare_with(monkeypatch, capsys):
    """Of two models the comparison is refused before it measures, of three it says so first."""
    monkeypatch.setattr(identities, "each_bounded", lambda calls, _run: [*map(outcome_of, calls)])
    needs, ready = (Argument(model=f"py:own_zoo.nets:{name}") for name in ("needs", "ready"))
    with pytest.raises(UnknownNameError) as caught:
        check_models([needs, ready], RunOptions("cpu"))
    assert needs.model in str(caught.value)
    check_models([needs, ready, ready], RunOptions("cpu"))
    assert not capsys.readouterr().err
    check_models([needs, ready, ready], RunOptions("cpu", progress=True))
    assert f"{needs.model!r} cannot be measured" in capsys.readouterr().err


def test_a_fault_of_the_code_is_no_typo():
    """Code that cannot be imported or called is left to a failed record."""
    for name in ("faulty:net", "nets:broken"):
        check_reference(f"py:own_zoo.{name}")
