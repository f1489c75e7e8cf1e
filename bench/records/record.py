"""The result of one suite on one model variant, with everything needed to repeat it.

The schema is versioned; `schema_text()` is what gets published. Arrays (maps, bootstrap draws) are
not part of the JSON: a record names its maps and reads both lazily from wherever they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PrivateAttr
from pydantic_core import PydanticSerializationError

from ...adapters.errors import NO_MAPS, InputError, PerimetryError
from ...suites.base import Array
from .arrays import Arrays, round_draws
from .environment import Environment
from .parts import Failure, ImagesInfo, ModelInfo, Timing, Value, to_json_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure


SCHEMA_VERSION: Final = 5
"""Version 2 added `inputs`, version 3 `fit_images`, version 4 `model.family`, version 5
`model.parameters`, `model.macs`, `model.library` and the reason of `model.target`."""


DrawsReader = Callable[[str], Mapping[str, Array]]
"""Reads the draws of one metric, or of all if its name is empty, and no map."""


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

    def find_damage(self) -> str | None:
        """Read the arrays; what is wrong with their file, None where nothing is."""
        self.arrays  # noqa: B018 - reads the file
        return self._damage

    @property
    def left_without_maps(self) -> bool:
        """Whether its maps were left out, as packed files leave them; damaged ones were not."""
        return bool(self.map_names) and not self.maps and self.damage is None

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
    def subject(self) -> tuple[str, str, str, str]:
        """What it is about: reference, fill, suite and protocol; several records may share it."""
        return self.model.reference, self.fill, self.suite, self.protocol

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
        Raises `InputError` when there are no maps, or their file is damaged, `UnknownNameError` for
        a name there is not.
        """
        from ..figures.maps import plot

        if not self.maps and self.damage is not None:
            raise InputError(self.damage)
        return plot(self, names)

    def _repr_html_(self) -> str:
        from ..figures.notebook import record_html

        return record_html(self)


def expect_maps(records: Iterable[Record]) -> None:
    """Raise `InputError` if none of `records` has a map; damaged files, which are named, pass."""
    if not any(record.maps or record.damage for record in records):
        raise InputError(NO_MAPS)


def damaged_arrays(records: Iterable[Record]) -> list[str]:
    """What is wrong with the files of arrays of `records`, a sentence each, as far as read."""
    return list(dict.fromkeys(r.damage for r in records if r.damage is not None))


def schema_text() -> str:
    """The JSON schema of a stored record as it is published: sorted keys, and its dialect."""
    schema = Record.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def in_utf8(record: Record) -> Record:
    """The record, without arrays, with all of its text in UTF-8; itself where it is so already."""
    try:
        record.model_dump_json()
    except PydanticSerializationError:
        return Record.model_validate(to_json_value(record.model_dump()))
    return record


KEY_DIGITS = 20
"""Hexadecimal digits of the key in a file name: 80 bits."""

NAME_PART = 60
"""The largest number of characters of a part of a file name; the end of a longer one is used."""


def file_name_part(text: str) -> str:
    """`text` with only letters, digits, `_` and `-`; of a part of a text it is a part of this."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
