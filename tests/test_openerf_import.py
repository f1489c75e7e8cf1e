"""`perimetry import openerf`: records of published maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.execution.rerun import run_spec_of
from perimetry.bench.output.files import StoreError
from perimetry.bench.records.openerf import openerf_records
from perimetry.bench.records.selection import load_records

NAME = "resnet18.a1_in1k"


def gaussian(side=96, sigma_y=9.0, sigma_x=14.0):
    """A map (side, side) of sum 1 about the middle."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    found = np.exp(-(y**2) / (2 * sigma_y**2) - x**2 / (2 * sigma_x**2))
    return (found / found.sum()).astype(np.float32)


def test_the_metrics_are_those_of_the_planted_map(tmp_path):
    """A Gaussian comes back with its deviations, its second moment and its place."""
    np.save(tmp_path / f"OpenERF_{NAME}.npy", gaussian() * 5)
    (record,) = openerf_records(tmp_path)
    found = {name: value.value for name, value in record.metrics.items()}
    assert found["sigma_y"] == pytest.approx(9, rel=1e-3)
    assert found["sigma_x"] == pytest.approx(14, rel=1e-3)
    assert found["radius"] == pytest.approx(np.hypot(9, 14), rel=0.01)
    assert found["anisotropy"] == pytest.approx(14 / 9, rel=0.01)
    assert found["center_y"] == pytest.approx(47.5, abs=1e-3)
    assert found["offset"] is None
    assert record.metrics["offset"].reason
    assert all(value.low is None for value in record.metrics.values())
    assert record.maps["erf"].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((8, 8)),
        np.full((8, 8), np.nan),
        -np.ones((8, 8)),
        np.ones(8),
        np.ones((1, 8)),
        np.array([["a", "b"], ["c", "d"]]),
    ],
    ids=["zeros", "nan", "negative", "one axis", "one row", "text"],
)
def test_what_is_no_map_is_an_error_that_names_the_file(tmp_path, values):
    """A damaged file costs no other map its record."""
    np.save(tmp_path / "OpenERF_broken.npy", values)
    np.save(tmp_path / f"OpenERF_{NAME}.npy", gaussian())
    broken, sound = sorted(openerf_records(tmp_path), key=lambda f: not isinstance(f, StoreError))
    assert "OpenERF_broken.npy" in str(broken)
    assert sound.model.reference == f"timm:{NAME}"


def test_nothing_is_unpickled(tmp_path):
    """An array of objects is refused by its header."""
    np.save(tmp_path / "OpenERF_objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (found,) = openerf_records(tmp_path)
    assert isinstance(found, StoreError)


def test_a_file_that_was_cut_off_is_an_error(tmp_path):
    """Fewer bytes than the header says are never filled up."""
    path = tmp_path / f"OpenERF_{NAME}.npy"
    np.save(path, gaussian())
    path.write_bytes(path.read_bytes()[:-100])
    (found,) = openerf_records(tmp_path)
    assert isinstance(found, StoreError)


def test_withdrawn_maps_are_not_read(tmp_path):
    """Whatever lies in `removed_by_request` stays there."""
    (tmp_path / "removed_by_request").mkdir()
    np.save(tmp_path / "removed_by_request" / f"OpenERF_{NAME}.npy", gaussian())
    with pytest.raises(InputError):
        list(openerf_records(tmp_path))


def test_the_command_writes_records_that_every_report_marks_as_imported(tmp_path):
    """`show` says first that nothing was measured here, and nothing can be measured again."""
    np.save(tmp_path / f"OpenERF_{NAME}.npy", gaussian())
    out = tmp_path / "run"
    run = CliRunner()
    assert run.invoke(app, ["import", "openerf", str(tmp_path), "--out", str(out)]).exit_code == 0
    shown = run.invoke(app, ["show", str(out)]).stdout
    card = run.invoke(app, ["show", str(out), "--format", "card"]).stdout
    for text in (shown, card):
        assert "perimetry import openerf PATH/TO/MAPS --out OUT" in text
        for wrong in ("perimetry run", "of measuring", "ntervals are 95", "Measured with"):
            assert wrong not in text
    assert "mported: the map is OpenERF's" in shown.splitlines()[1]
    assert json.loads(next((out / "records").glob("*.json")).read_text())["protocol"] == "kim2023"
    with pytest.raises(InputError):
        run_spec_of(load_records(out))


def test_a_damaged_map_is_told_by_the_exit_code(tmp_path):
    """The sound ones are written, and the command fails."""
    np.save(tmp_path / f"OpenERF_{NAME}.npy", gaussian())
    (tmp_path / "OpenERF_empty.npy").write_bytes(b"")
    found = CliRunner().invoke(
        app, ["import", "openerf", str(tmp_path), "--out", str(tmp_path / "run")]
    )
    assert found.exit_code == 1
    assert len(list((tmp_path / "run" / "records").glob("*.json"))) == 1


def test_verify_reads_imported_records_again_from_their_files(tmp_path):
    """Bit for bit from the same file; not from another; without files nothing is measured."""
    files = tmp_path / "files"
    files.mkdir()
    np.save(files / f"OpenERF_{NAME}.npy", gaussian())
    run, out = CliRunner(), str(tmp_path / "run")
    run.invoke(app, ["import", "openerf", str(files), "--out", out])
    again = ["verify", out, "--imported", str(files)]
    found = run.invoke(app, again)
    assert (found.exit_code, "1 bit for bit" in found.stdout) == (0, True)
    assert run.invoke(app, again[:2]).exit_code == 2
    np.save(files / f"OpenERF_{NAME}.npy", gaussian().T ** 2)
    assert run.invoke(app, again).exit_code == 1
    (files / f"OpenERF_{NAME}.npy").rename(files / "OpenERF_other.npy")
    assert run.invoke(app, again).exit_code == 2
