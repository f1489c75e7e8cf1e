"""Records: what they hold, what they refuse, and that JSON brings them back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import toys
from pydantic import ValidationError

from perimetry import Record, audit
from perimetry.bench.records.parts import Failure, Value, to_json_value
from perimetry.bench.records.record import SCHEMA_VERSION, schema_text
from perimetry.suites.base import Estimate, missing


def measure(name="toy:a", suites=("deadpixel",), **options):
    return audit(name, suites, toolkit=toys.toolkit(), images="noise", count=4, **options)


def test_a_measured_record_gives_values_maps_and_draws():
    """A finished record holds value, interval, map and draws under the metric's own name."""
    (record,) = measure()
    # toy:a is gain 5 times a 4 x 4 mean: the squared gradient of the sum of units is (5 / 16)^2 in
    # each of the three channels.
    assert record.metrics["weakest"].value == pytest.approx(3 * (5 / 16) ** 2)
    assert record.metrics["weakest"].low < record.metrics["weakest"].value
    assert record.maps["sensitivity"].shape == (16, 16)
    assert record.draws["weakest"].shape == (200,)
    assert record.metrics["by_period_2"].reason == "the period is not a multiple of 2"


def test_a_record_says_everything_needed_to_repeat_it():
    """Reference, input, target, settings, images, environment and timing are all written."""
    (record,) = measure(seed=3)
    assert record.model.reference == "toy:a"
    assert record.model.spec["height"] == 16
    assert record.model.spec_sha256
    assert record.model.target["kind"] == "NCHW"
    assert (record.seed, record.images.count, record.images.name) == (3, 4, "noise")
    assert record.images.sha256
    assert record.environment.libraries["torch"]
    assert record.environment.device == "cpu"
    assert record.timing.gradients_s > 0
    assert record.notes == ["a note"]


def test_json_brings_a_record_back():
    """Dumped and read again, a record is equal to itself."""
    (record,) = measure()
    again = Record.model_validate_json(record.model_dump_json())
    assert again.model_dump() == record.model_dump()


def test_numbers_json_cannot_hold_become_words():
    """An unbounded number in a table is the word inf, and numpy scalars become plain numbers."""
    (record,) = measure()
    assert record.tables["culprits"] == [{"layer": "stem", "share": 0.5, "worst": "inf"}]
    assert to_json_value({"a": (np.int64(1), np.array([1.5]), float("nan"))}) == {
        "a": [1, [1.5], "nan"]
    }


def test_a_metric_cannot_be_nan():
    """Neither NaN nor infinity passes as a value; an unbounded end of an interval is left out."""
    with pytest.raises(ValidationError):
        Value(value=float("nan"))
    assert Value.of(Estimate(1.0, 0.5, float("inf"))) == Value(value=1.0, low=0.5)
    assert Value.of(missing("why")) == Value(value=None, reason="why")


def test_a_failure_keeps_the_end_of_the_traceback():
    """The message names the exception's type, and the trace ends where it was raised."""

    def breaks():
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError) as caught:
        breaks()
    failure = Failure.of(caught.value)
    assert failure.message == "RuntimeError: planted"
    assert failure.trace.endswith("RuntimeError: planted")
    assert "test_record.py" in failure.trace


def test_the_schema_is_versioned_and_closed():
    """The published schema requires a version it can check, and a record refuses unknown fields."""
    schema = json.loads(schema_text())
    assert schema["properties"]["schema_version"]["enum"] == list(range(1, SCHEMA_VERSION + 1))
    assert schema["additionalProperties"] is False
    (record,) = measure()
    content = json.loads(record.model_dump_json()) | {"surprise": 1}
    with pytest.raises(ValidationError, match="surprise"):
        Record.model_validate(content)


def test_suites_share_one_pass_and_fidelity_comes_by_itself():
    """Both protocols share one gradient; a treated variant gets a fidelity record unasked."""
    records = measure(suites=("structure", "deadpixel:all"), kernel_padding=("none", "box"))
    made = [(r.fill, r.suite, r.protocol) for r in records]
    assert sorted(made) == [
        ("box", "deadpixel", "energy"),
        ("box", "deadpixel", "kim2023"),
        ("box", "fidelity", "forward"),
        ("box", "structure", "expected"),
        ("none", "deadpixel", "energy"),
        ("none", "deadpixel", "kim2023"),
        ("none", "structure", "expected"),
    ]
    shared = {r.timing.gradients_s for r in records if r.suite == "deadpixel" and r.fill == "none"}
    assert len(shared) == 1
    treated = next(r for r in records if r.fill == "box")
    assert treated.model.treatment["layers"][0]["padded_kernel"] == [4, 4]


def test_what_does_not_apply_is_skipped_with_the_reason():
    """A refusing model, a refusing treatment and a refusing suite each give skipped records."""
    assert [r.reason for r in measure("toy:refuse")] == ["a toy that refuses"]
    assert [r.reason for r in measure("toy:headless")] == ["a toy without logits"]
    box = measure("toy:even", kernel_padding=("box",))
    assert {(r.status, r.reason) for r in box} == {
        ("skipped", "no strided layer with an odd kernel")
    }


def test_one_failing_suite_does_not_cost_the_others():
    """A suite that raises gives a failed record; the exact suite beside it is measured."""
    records = measure("toy:measure-error", suites=("structure", "deadpixel"))
    assert {r.suite: r.status for r in records} == {"structure": "ok", "deadpixel": "failed"}
    failed = next(r for r in records if r.status == "failed")
    assert failed.error.message == "RuntimeError: planted error"
    assert failed.metrics == {}
