"""Other packages add adapters and suites by entry points."""

import os
import subprocess
import sys

import pytest

PACKAGE = """
from torch import nn
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.structure import STRUCTURE

def open_model(name, *, device="auto", target=None, size=None, precision="float32", **_others):
    net = nn.Sequential(nn.Conv2d(3, int(name), 3, 2, 1), nn.ReLU())
    return wrap(net, name=f"wide:{name}", device=device, target=target, size=size or (32, 32))

class Other:
    name = "other"
    def __getattr__(self, key):
        return getattr(STRUCTURE, key)

OTHER = Other()
"""
ENTRIES = """[perimetry.adapters]
wide = wide_models:open_model
[perimetry.suites]
other = wide_models:OTHER
"""


@pytest.fixture
def packages(tmp_path):
    """A folder in which the example package is installed: a module and its metadata."""
    info = tmp_path / "wide_models-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wide-models\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "wide_models.py").write_text(PACKAGE)
    return tmp_path


def test_a_reference_and_a_suite_of_another_package(packages):
    """The prefix opens its model, the suite is known, and the key has the package's version."""
    code = (
        "from perimetry import audit\n"
        "from perimetry.adapters.load import library_version\n"
        "from perimetry.suites.registry import SUITES\n"
        "(record,) = audit('wide:4', ('structure',))\n"
        "print(record.status, record.model.reference, library_version('wide:4'), 'other' in SUITES)"
    )
    paths = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["ok", "wide:4", "wide-models", "1.5", "True"], done.stderr
