"""The result of one suite on one model variant, with everything needed to repeat it.

The schema is versioned; `schema_text()` is what gets published. Arrays (maps, bootstrap draws) are
not part of the JSON: a record names its maps and reads both lazily from wherever they are.
"""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic_core import PydanticSerializationError

from ...adapters.errors import PerimetryError
from ...suites.base import Array, Estimate
from .arrays import Arrays, round_draws
from .environment import Environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

    from ...adapters.model import Model
    from ...adapters.treatment import Treatment


SCHEMA_VERSION: Final = 5
"""Version 2 added `inputs`, version 3 `fit_images`, version 4 `model.family`, version 5
`model.parameters`, `model.macs`, `model.library` and the reason of `model.target`."""

TRACE_LINES = 12
"""The number of lines at the end of a traceback that a failed record keeps."""

Finite = Annotated[float, Field(allow_inf_nan=False)]

DrawsReader = Callable[[str], Mapping[str, Array]]
"""Reads the draws of one metric, or of all if its name is empty, and no map."""


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
        from ...adapters.load import family_of

        size = getattr(model, "complexity", None)
        return cls(
            reference=reference,
            family=family_of(reference),
            source=dict(model.source),
            spec=to_json_value(vars(model.spec)),
            spec_sha256=model.spec.digest(),
            target=to_json_value(vars(model.target)) if model.target else None,
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


class Record(BaseModel):
    """The result of one suite on one model variant under one protocol.

    `key` is a hash of everything that can change the numbers (see `execution.plan`). `metrics` maps
    names to `Value`s. `inputs` is what the command declared about the input and output of an ONNX
    file (see `adapters.onnx.inputs.declaration`); `fit_images` is the image set that kernel padding
    `fit` was fitted on. `maps` and `draws` give arrays by name: in memory after `audit`, else read
    from the store on first use. `schema_version` 2 added `inputs`, 3 `fit_images`, 4
    `model.family`, 5 sizes and the reason of the target; records of all versions load.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1, 2, 3, 4, 5] = SCHEMA_VERSION
    key: str
    status: Literal["ok", "skipped", "failed"]
    reason: str | None = None
    error: Failure | None = None
    model: ModelInfo
    inputs: dict[str, Any] = {}
    fill: str
    suite: str
    protocol: str
    version: str
    settings: dict[str, Any]
    seed: int
    images: ImagesInfo | None = None
    fit_images: ImagesInfo | None = None
    metrics: dict[str, Value] = {}
    tables: dict[str, list[dict[str, Any]]] = {}
    map_names: list[str] = []
    notes: list[str] = []
    environment: Environment
    timing: Timing = Timing()
    created: str

    _arrays: Arrays | None = PrivateAttr(default=None)
    _read: Any = PrivateAttr(default=None)
    _damage: str | None = PrivateAttr(default=None)
    _read_draws: Any = PrivateAttr(default=None)
    _draws: dict[str, Array] | None = PrivateAttr(default=None)
    _one_draw: tuple[str, Array | None] | None = PrivateAttr(default=None)
    _read_whole: Any = PrivateAttr(default=None)

    def attach(
        self, arrays: Arrays | Callable[[], Arrays], read_draws: DrawsReader | None = None
    ) -> Record:
        """Give the record its arrays, or the functions that read them on first use."""
        self._damage, self._read_draws, self._draws, self._one_draw = None, read_draws, None, None
        if callable(arrays):
            self._arrays, self._read = None, arrays
        else:
            maps, draws = arrays
            self._arrays = (maps, round_draws(draws))
        return self

    @property
    def arrays(self) -> Arrays:
        """Maps and draws together; both empty when there are none, or `damage` says why."""
        if self._arrays is None:
            self._arrays = self._try_to_read(self._read) or ({}, {})
        return self._arrays

    def _try_to_read(self, read: Callable[[], Any] | None) -> Any:
        """What `read` reads; None where the file is damaged, and the record does without."""
        if read is None or self._damage is not None:
            return None
        try:
            return read()
        except PerimetryError as error:
            self._damage = str(error)
            return None

    @property
    def damage(self) -> str | None:
        """What is wrong with the file of its arrays; None where nothing is, or none was read."""
        return self._damage

    def forget(self) -> None:
        """Free arrays that can be read again; those of a record that was never stored stay."""
        if self._read is not None:
            self._arrays, self._draws, self._one_draw = None, None, None

    @property
    def maps(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Maps by name, with the axes their suite documents."""
        return self.arrays[0]

    @property
    def draws(self) -> Mapping[str, Array]:
        """Bootstrap replicates (draws,) by metric; maps are not read for them."""
        if self._arrays is not None or self._read_draws is None:
            return self.arrays[1]
        if self._draws is None:
            self._draws = self._try_to_read(partial(self._read_draws, "")) or {}
        return self._draws

    def draws_of(self, metric: str) -> Array | None:
        """The replicates (draws,) of one metric, None without; maps are not read for it.

        The second metric that is asked for reads those of all.
        """
        unread = self._arrays is None and self._read_draws is not None and self._draws is None
        if unread and self._one_draw is None:
            found = self._try_to_read(partial(self._read_draws, metric)) or {}
            self._one_draw = metric, found.get(metric)
        if unread and self._one_draw is not None and self._one_draw[0] == metric:
            return self._one_draw[1]
        return self.draws.get(metric)

    def leave_tables(self, kept: Sequence[str] | None, whole: Callable[[], object]) -> None:
        """Leave out all tables but those of the names `kept`; `whole` reads the record again.

        None keeps all.
        """
        if kept is not None:
            self.tables = {name: rows for name, rows in self.tables.items() if name in kept}
            self._read_whole = whole

    def whole(self) -> Record:
        """The record with all of its tables, which those of a board are without.

        Itself where it has them, or where they cannot be read any more.
        """
        found = self._try_to_read(self._read_whole)
        return found if isinstance(found, Record) else self

    def as_flat_dict(self) -> dict[str, float]:
        """Numbers by name for experiment trackers, such as `deadpixel.weakest` and `.low`, `.high`.

        Names contain letters, digits and `._-/` only: `box/` stands before those of a variant with
        kernel padding, the protocol after the suite unless it is the default, and `/s8` after those
        of a scale. What is missing is left out.
        """
        from ...suites.registry import SUITES

        known = SUITES.get(self.suite)
        default = next(iter(known.protocols)) if known else None
        words = [self.suite, *([self.protocol] if self.protocol != default else [])]
        stem = ("" if self.fill == "none" else f"{self.fill}/") + ".".join(words)
        found: dict[str, float] = {}
        for metric, value in self.metrics.items():
            name = re.sub(r"[^\w./-]", "_", f"{stem}.{metric.replace('@', '/')}")
            parts = {"": value.value, ".low": value.low, ".high": value.high}
            found |= {f"{name}{end}": number for end, number in parts.items() if number is not None}
        return found

    @property
    def why(self) -> str:
        """Why it has no numbers: what failed, or why it was skipped; empty where it has them."""
        if self.status == "ok":
            return ""
        return (self.error.message if self.error else self.reason) or "no reason was recorded"

    @property
    def label(self) -> str:
        """Which record it is, for a person: reference, fill, suite and protocol."""
        return f"{self.model.reference} ({self.fill}) {self.suite}:{self.protocol}"

    @property
    def file_stem(self) -> str:
        """`REFERENCE.FILL.SUITE-PROTOCOL.KEY`, safe as a file name for every reference."""
        words = (self.model.reference, self.fill, f"{self.suite}-{self.protocol}")
        prefix = ".".join(file_name_part(word)[-NAME_PART:] for word in words)
        return f"{prefix}.{self.key[:KEY_DIGITS]}"

    def plot(self, *names: str) -> Figure:
        """All maps, or those called `names`, as one matplotlib figure.

        Magnitudes are on a scale of evenly rising lightness, differences on one that is white at 0.
        Raises `InputError` when there are no maps, `UnknownNameError` for a name there is not.
        """
        from ..figures.maps import plot

        return plot(self, names)

    def _repr_html_(self) -> str:
        from ..figures.notebook import record_html

        return record_html(self)


def damaged_arrays(records: Iterable[Record]) -> list[str]:
    """What is wrong with the files of arrays of `records`, a sentence each, as far as read."""
    return list(dict.fromkeys(r.damage for r in records if r.damage is not None))


def schema_text() -> str:
    """The JSON schema of a stored record as it is published: sorted keys, and its dialect."""
    schema = Record.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


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


def in_utf8(record: Record) -> Record:
    """The record, without arrays, with all of its text in UTF-8; itself where it is so already."""
    try:
        record.model_dump_json()
    except PydanticSerializationError:
        return Record.model_validate(to_json_value(record.model_dump()))
    return record


def treatment_data(treatment: Treatment | None) -> dict[str, Any] | None:
    """A kernel padding as a record has it: the fill, the padded layers, and the others with why."""
    if treatment is None or treatment.fill == "none":
        return None
    layers = [to_json_value(vars(layer)) for layer in treatment.layers]
    return {"fill": treatment.fill, "layers": layers, "left": dict(treatment.refused_layers)}


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


KEY_DIGITS = 20
"""Hexadecimal digits of the key in a file name: 80 bits."""

NAME_PART = 60
"""The largest number of characters of a part of a file name; the end of a longer one is used."""


def file_name_part(text: str) -> str:
    """`text` with only letters, digits, `_` and `-`; of a part of a text it is a part of this."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")


FIT_KEY = "fit_images_sha256"
"""The entry in a record's settings; there is none for `FIT_DEFAULT`."""
