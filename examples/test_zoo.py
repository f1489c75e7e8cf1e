"""A model zoo's own test file: every released model is still what its baseline says.

The baseline was made once, and is kept in git beside the tests:

    perimetry run 'timm:test_resnet@init' 'timm:test_vit@init' --out baseline
    perimetry check --baseline baseline --measure-noise

`pip install perimetry` brings the `audit` fixture; `pytest test_zoo.py` does the rest.
"""

import os

import pytest

BASELINE = os.environ.get("ZOO_BASELINE", "baseline")
MODELS = os.environ.get("ZOO_MODELS", "timm:test_resnet@init timm:test_vit@init").split()


@pytest.mark.parametrize("model", MODELS)
def test_model_is_what_it_was_when_released(audit, model):
    """Fails with what was found; what could not be measured fails too."""
    audit(model).check(BASELINE)
