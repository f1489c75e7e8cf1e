"""What the user declares about the input and output of an ONNX file that does not state it.

A declaration is a TOML file beside the model (`vendor.toml` beside `vendor.onnx`), or keys given
with a command, which override the file. Both have the same keys::

    size = [224, 224]            # side, or height and width
    layout = "NHWC"              # NCHW or NHWC
    dtype = "float32"            # float32, float16 or uint8: must be what the file declares
    range = "0..255"             # what black and white are before normalisation: 0..1 or 0..255
    channel_order = "BGR"        # RGB or BGR
    channels = 3                 # 1 or 3
    mean = [104, 117, 123]       # one number, or one per channel, in units of the range
    std = 1.0
    interpolation = "bicubic"    # how photographs are resized
    crop_pct = 1.0               # and how much of them is seen
    image = "data"               # which input takes the image, where there are several
    output = "scores"            # which output is audited as the logits
    [fixed]                      # values of the inputs that are no image
    scale_factor = [1.0, 1.0]

A declared range without mean or std means that there is no other normalisation.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, ModelFileError, check_name
from ..files.protos import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ...input_spec import InputSpec


LONGEST = 2**20
"""Maximum size of a TOML file in bytes."""

LARGEST = 16_384
"""Maximum pixels per side."""

GIVEN = "the command"

WORDS = {
    "layout": ("NCHW", "NHWC"),
    "dtype": ("float32", "float16", "uint8"),
    "channel_order": ("RGB", "BGR"),
    "interpolation": ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"),
}
"""Keys whose value is one word, and the words they accept."""

RANGES = {"0..1": 1.0, "0..255": 255.0, "1": 1.0, "255": 255.0}

NAMES = ("image", "output")

KEYS = (*WORDS, "range", "channels", "mean", "std", "size", "crop_pct", *NAMES, "fixed")


@dataclass(frozen=True)
class InputDeclaration:
    """A checked declaration; `origin` says by key where it was made.

    `values` has fields of `InputSpec`, `fixed` numbers for the inputs that are not the image.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    image: str | None = None
    output: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def over(self, other: InputDeclaration) -> InputDeclaration:
        """Merge two declarations; where they differ, this one counts."""
        return InputDeclaration(
            {**other.values, **self.values},
            self.image or other.image,
            self.output or other.output,
            {**other.fixed, **self.fixed},
            {**other.origin, **self.origin},
        )

    def apply(self, spec: InputSpec) -> InputSpec:
        """Return `spec` with the declared values in place of those that were read or guessed.

        Raises `InputError` when mean and std do not fit the channels or the range.
        """
        values = dict(self.values)
        if "value_range" in values:
            values = {"mean": 0.0, "std": 1.0, **values}
        channels = values.get("channels", spec.channels)
        for key in ("mean", "std"):
            values[key] = _per_channel(key, values.get(key, getattr(spec, key)), channels)
        guessed = tuple(name for name in spec.guessed if name not in self.values)
        stated = replace(spec, **values, guessed=guessed)
        if "mean" in self.values and max(map(abs, stated.mean)) > stated.value_range:
            raise InputError(
                f"input mean = {list(stated.mean)} is outside the range "
                f"0..{stated.value_range:g}; give mean and std in units of the range, or declare "
                "range = 0..255 too"
            )
        return stated

    def note(self) -> str | None:
        """Return a line for the record: what was declared where."""
        places: dict[str, list[str]] = {}
        for key, place in self.origin.items():
            places.setdefault(place, []).append(key)
        if not places:
            return None
        fields = "; ".join(
            f"by {printable(p)}: {', '.join(map(printable, k))}" for p, k in places.items()
        )
        return f"input declared {fields}"


def _per_channel(key: str, value: Any, channels: int) -> tuple[float, ...]:
    numbers = (value,) * channels if isinstance(value, int | float) else tuple(value)
    if len(numbers) == channels:
        return tuple(map(float, numbers))
    if len(set(numbers)) == 1:
        return (float(numbers[0]),) * channels
    raise InputError(
        f"input {key} = {list(numbers)} has {len(numbers)} numbers; expected 1 or {channels}, one "
        "a channel"
    )


def read_beside(path: str | Path) -> InputDeclaration:
    """Read the TOML file beside the model `path`; the declaration is empty if there is none.

    Raises `ModelFileError` when the file is outside the model's folder or is not valid TOML,
    `InputError` and `UnknownNameError` for invalid keys and values.
    """
    place = Path(path).with_suffix(".toml")
    if not place.is_file():
        return InputDeclaration()
    if not place.resolve().is_relative_to(place.parent.resolve()):
        raise ModelFileError(f"{place} leads outside its folder; it is not opened")
    try:
        if place.stat().st_size > LONGEST:
            raise ModelFileError(f"{place} has more than {LONGEST} bytes; expected a few lines")
        values = tomllib.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{place} is not a readable TOML file: {printable(str(error), 200)}"
        ) from error
    return read_declaration(values, place.name)


def parse_pairs(texts: Iterable[str], output: str | None = None) -> dict[str, Any]:
    """Parse `KEY=VALUE` texts of `--input`, and `--output`, into values for `read_declaration`.

    `fixed.NAME=VALUE` goes into the table `fixed`. Raises `InputError` for other texts.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        table, dot, name = key.strip().partition(".")
        if not equals or not key.strip() or (dot and not (table == "fixed" and name)):
            raise InputError(
                f"input {text!r}; expected KEY=VALUE, such as layout=NHWC or range=0..255; keys: "
                f"{', '.join(KEYS[:-1])}, fixed.NAME"
            )
        if dot:
            values.setdefault("fixed", {})[name] = _read(value.strip())
        else:
            values[key.strip()] = _read(value.strip())
    return values if output is None else {**values, "output": output}


def _read(text: str) -> Any:
    """Read JSON, a comma-separated list of numbers, or plain text."""
    for attempt in (text, f"[{text}]"):
        try:
            return json.loads(attempt)
        except ValueError:
            continue
    return text


def read_declaration(values: Mapping[str, Any], place: str = GIVEN) -> InputDeclaration:
    """Check `values` by key; `place` is where they were declared.

    Raises `UnknownNameError` with near keys, `InputError` with the values that a key accepts.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        check_name("key of the input", key, KEYS)
        if key in WORDS:
            found[key] = _word(key, value)
        elif key not in (*NAMES, "fixed"):
            found |= _READERS[key](value)
    names = {key: _name(key, values[key]) for key in NAMES if key in values}
    fixed = values.get("fixed", {})
    if not isinstance(fixed, dict):
        raise InputError(f"input fixed = {fixed!r}; expected a value for each input by its name")
    origin = dict.fromkeys((key for key in values if key != "fixed"), place)
    origin |= dict.fromkeys((f"fixed.{name}" for name in fixed), place)
    return InputDeclaration(found, names.get("image"), names.get("output"), dict(fixed), origin)


def _refused(key: str, value: Any, expected: str) -> InputError:
    return InputError(f"input {key} = {printable(repr(value), 120)}; expected {expected}")


def _word(key: str, value: Any) -> str:
    known = {word.lower(): word for word in WORDS[key]}
    word = known.get(value.lower()) if isinstance(value, str) else None
    if word is None:
        raise _refused(key, value, f"one of {', '.join(WORDS[key])}")
    return word


def _name(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _refused(key, value, f"the name of one {'input' if key == 'image' else key}")
    return str(value)


def _range(value: Any) -> dict[str, float]:
    text = value.replace(" ", "") if isinstance(value, str) else str(value)
    white = RANGES.get(text.removesuffix(".0"))
    if white is None:
        raise _refused("range", value, "0..1 or 0..255")
    return {"value_range": white}


def _channels(value: Any) -> dict[str, int]:
    if value not in (1, 3) or isinstance(value, bool):
        raise _refused("channels", value, "1 (grey) or 3 (colour)")
    return {"channels": int(value)}


def _numbers(value: Any) -> list[Any] | None:
    """`value` as a list of finite numbers, or None."""
    items = value if isinstance(value, list | tuple) else [value]
    fine = all(
        isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in items
    )
    return list(items) if items and fine else None


def _mean(value: Any) -> dict[str, Any]:
    numbers = _numbers(value)
    if numbers is None:
        raise _refused("mean", value, "one number, or one per channel")
    return {"mean": numbers if len(numbers) > 1 else float(numbers[0])}


def _std(value: Any) -> dict[str, Any]:
    numbers = _numbers(value)
    if numbers is None or any(n <= 0 for n in numbers):
        raise _refused("std", value, "one number above 0, or one per channel")
    return {"std": numbers if len(numbers) > 1 else float(numbers[0])}


def _size(value: Any) -> dict[str, int]:
    parts = value.lower().split("x") if isinstance(value, str) else _numbers(value)
    if parts is None or len(parts) > 2 or not all(_is_side(p) for p in parts):
        raise _refused(
            "size", value, f"SIDE or HEIGHTxWIDTH, 1 to {LARGEST} pixels, such as 224 or 224x320"
        )
    return {"height": int(parts[0]), "width": int(parts[-1])}


def _is_side(part: Any) -> bool:
    whole = part.isdecimal() if isinstance(part, str) else float(part).is_integer()
    return bool(whole) and 0 < int(part) <= LARGEST


def _crop(value: Any) -> dict[str, float]:
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 1 or not 0 < numbers[0] <= 1:
        raise _refused("crop_pct", value, "a share above 0, at most 1")
    return {"crop_pct": float(numbers[0])}


_READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "range": _range,
    "channels": _channels,
    "mean": _mean,
    "std": _std,
    "size": _size,
    "crop_pct": _crop,
}
