"""Models without gradients are guarded too: `check` takes the baseline that `run` wrote."""

import onnx
import pytest
from onnx import numpy_helper
from onnx_files import save
from test_opaque import unknown
from typer.testing import CliRunner

from perimetry.bench.cli.main import app


def perimetry(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A baseline of a file with an operator that has no rule, made by the command line."""
    folder = tmp_path_factory.mktemp("black box")
    path = save(unknown(), folder / "a.onnx")
    settings = ("--count", "4", "--kernel-padding", "none", "--device", "cpu")
    made = perimetry("run", path, "--out", folder / "base", *settings)
    assert made.exit_code == 0, made.output
    return folder / "base", path


def test_an_unchanged_black_box_passes(guarded):
    """`check` exits with 0 on an unchanged file without gradients."""
    base, path = guarded
    done = perimetry("check", "--baseline", base, path, "--device", "cpu")
    assert done.exit_code == 0, done.output


def test_a_changed_black_box_has_regressed(guarded, tmp_path):
    """`check` exits with 1 when kernel entries of a file without gradients are zeroed."""
    base, path = guarded
    proto = onnx.load(path)
    first = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(first).copy()
    values[:, :, 0] = 0
    first.CopyFrom(numpy_helper.from_array(values, first.name))
    changed = save(proto, tmp_path / "b.onnx")
    done = perimetry("check", "--baseline", base, changed, "--as", path, "--device", "cpu")
    assert done.exit_code == 1, done.output
