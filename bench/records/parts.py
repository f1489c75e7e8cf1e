"""The parts of a record: values, model, images, failure, times; and what JSON can represent."""

from __future__ import annotations

import math
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...suites.base import Estimate

if TYPE_CHECKING:
    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ...adapters.treatment import Treatment


TRACE_LINES = 12
"""The number of lines at the end of a traceback that a failed record keeps."""


Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Frozen):
    """One metric: a value, an estimate with its 95 % interval; or the reason why there is none."""

    value: Finite | None
    low: Finite | None = None
    high: Finite | None = None
    reason: str | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Value:
        """Convert the estimate of a suite; an unbounded end of an interval is left out."""
        return cls(
            value=None if estimate.value is None else float(estimate.value),
            low=_finite(estimate.low),
            high=_finite(estimate.high),
            reason=estimate.reason,
        )

    @property
    def half_width(self) -> float | None:
        """The wider half of the interval, since the other may end where the metric's range does."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return max(self.value - self.low, self.high - self.value)

    def covers(self, value: float) -> bool:
        """Whether `value` lies in the interval, one end of which may be open."""
        if self.low is None and self.high is None:
            return False
        low = -math.inf if self.low is None else self.low
        return low <= value <= (math.inf if self.high is None else self.high)


class ModelInfo(_Frozen):
    """Which model it was. All but `reference` is empty when the model could not be opened.

    `family` is the module of timm that defines the architecture, None for other models. `macs` are
    multiply-accumulate operations for one image of the measured size, `library` is what built the
    model, with its version. `target` names the measured tensor, its layout and size, and why it was
    taken (`reason`).
    """

    reference: str
    family: str | None = None
    source: dict[str, str] = {}
    spec: dict[str, Any] = {}
    spec_sha256: str | None = None
    target: dict[str, Any] | None = None
    treatment: dict[str, Any] | None = None
    members: int | None = None
    parameters: int | None = None
    macs: int | None = None
    library: str | None = None

    @classmethod
    def of(cls, reference: str, model: Model) -> ModelInfo:
        """Describe an opened `model`; `reference` is what the user typed."""
        from ...adapters.names import family_of

        size = getattr(model, "complexity", None)
        return cls(
            reference=reference,
            family=family_of(reference),
            source=dict(model.source),
            spec=to_json_value(vars(model.spec)),
            spec_sha256=model.spec.digest(),
            target=target_data(model.target),
            treatment=to_json_value(treatment_data(model.treatment)),
            members=model.members,
            parameters=getattr(size, "parameters", None),
            macs=getattr(size, "macs", None),
            library=model.source.get("library"),
        )


class ImagesInfo(_Frozen):
    """The image set: its name, how many, and its hash as this model saw it."""

    name: str
    count: int
    sha256: str | None = None


class Failure(_Frozen):
    """What broke: an exception, a worker that died, or a time limit that was reached."""

    kind: Literal["exception", "died", "time limit"]
    message: str
    trace: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe `error`, with the end of its traceback."""
        lines = "".join(traceback.format_exception(error)).splitlines()
        return cls(
            kind="exception",
            message=f"{type(error).__name__}: {error}",
            trace="\n".join(lines[-TRACE_LINES:]),
        )


class Timing(_Frozen):
    """Seconds on the wall, and peak memory.

    `load_s` and `gradients_s` are shared by all records of one model variant, `measure_s` is this
    suite's own. Memory is the process's peak (resident set, in MiB) since the variant was begun.
    """

    load_s: float = 0.0
    gradients_s: float = 0.0
    measure_s: float = 0.0
    peak_memory_mib: float | None = None
    peak_device_memory_mib: float | None = None


def to_json_value(value: Any) -> Any:
    """Turn arrays, tensors, tuples and unbounded numbers into what JSON can represent.

    JSON has no infinity and no NaN: these become the strings `inf`, `-inf` and `nan`.
    """
    if isinstance(value, dict):
        return {to_utf8(str(k)): to_json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json_value(v) for v in value]
    if hasattr(value, "tolist"):
        return to_json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return to_utf8(str(value))


def to_utf8(text: str) -> str:
    """`text` with visible escapes for what UTF-8 cannot represent, such as bytes of a file name."""
    return text.encode("utf-8", "backslashreplace").decode()


def target_data(target: Grid | None) -> dict[str, Any] | None:
    """A target as a record has it: name, layout, size, and the reason in words."""
    if target is None:
        return None
    facts: dict[str, Any] = to_json_value({k: v for k, v in vars(target).items() if k != "choice"})
    return facts


def treatment_data(treatment: Treatment | None) -> dict[str, Any] | None:
    """A kernel padding as a record has it: the fill, the padded layers, and the others with why."""
    if treatment is None or treatment.fill == "none":
        return None
    layers = [to_json_value(vars(layer)) for layer in treatment.layers]
    return {"fill": treatment.fill, "layers": layers, "left": dict(treatment.refused_layers)}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
