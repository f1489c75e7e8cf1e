"""What must be equal for two records to be comparable, and sentences about what is not.

Preprocessing is compared by its effect on pixels: size, channels, their order, and mean and
standard deviation relative to the range of values. The layout and type of a runtime's input and
which fields were guessed change no pixel; interpolation and crop matter only for images from files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError
from ...suites.images import BUILT_IN
from ..output.numbers import six_digits
from ..output.text import clean
from ..records.hashing import FIT_KEY
from ..records.selection import setting_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..records.record import Record


class UnlikeRecordsError(InputError):
    """Records that are not comparable; the message says what differs."""


CROPPING = ("interpolation", "crop_pct")


SIZES = ("height", "width", "channels", "channel_order")


def incompatibilities(first: Record, second: Record) -> list[str]:
    """Why two records of one suite and protocol are not comparable, a phrase each."""
    found = []
    if first.version != second.version:
        found.append(f"protocol version {first.version} against {second.version}")
    found += image_differences(first, second)
    found += _fitted(first, second)
    found += _settings(first, second)
    files = any(r.images and r.images.name not in BUILT_IN for r in (first, second))
    return found + input_differences(first.model.spec, second.model.spec, cropping=files)


def input_differences(a: Mapping[str, Any], b: Mapping[str, Any], *, cropping: bool) -> list[str]:
    """How two inputs differ, a phrase each; none if one of them is empty, which is unknown.

    Interpolation and crop count with `cropping`, where images come from files.
    """
    if a == b or not a or not b:
        return []
    names = [*SIZES, *(CROPPING if cropping else ())]
    found = [
        f"preprocessing: {name} {_shown(a.get(name))} against {_shown(b.get(name))}"
        for name in names
        if a.get(name) != b.get(name)
    ]
    for name in ("mean", "std"):
        one, other = (_over_range(spec, name) for spec in (a, b))
        if one != other:
            found.append(f"preprocessing: {name} {_shown(one)} against {_shown(other)}")
    return found


def image_differences(first: Record, second: Record) -> list[str]:
    """How the image sets of two records differ, before any preprocessing."""
    a, b = first.images, second.images
    if a is None or b is None:
        return [] if a is b else ["one was measured on images, the other was not"]
    hashes = [r.settings.get("images_sha256") for r in (first, second)]
    # with a precision goal, which is a setting, each variant took as many of them as it needed
    counts_differ = a.count != b.count and "precision_goal" not in first.settings
    if hashes[0] != hashes[1] or a.name != b.name or counts_differ:
        return [f"images {a.count} x {clean(a.name, 60)} against {b.count} x {clean(b.name, 60)}"]
    return []


def _fitted(first: Record, second: Record) -> list[str]:
    """Differences of the images that `fit` was fitted on, if both records are of `fit`."""
    if first.fill != "fit" or second.fill != "fit":
        return []
    if first.settings.get(FIT_KEY) == second.settings.get(FIT_KEY):
        return []
    a, b = (r.fit_images for r in (first, second))
    names = [f"{i.count} x {clean(i.name, 60)}" if i else "dead leaves" for i in (a, b)]
    return [f"fitted on {names[0]} against {names[1]}"]


def _settings(first: Record, second: Record) -> list[str]:
    """Differences of settings and seeds; sizes are compared as preprocessing."""
    if first.images is not None and first.seed != second.seed:
        return [f"seed {first.seed} against {second.seed}"]
    keys = (first.settings.keys() | second.settings.keys()) - {"images_sha256", FIT_KEY, "size"}
    return [
        f"setting {clean(key, 60)} {_shown(setting_text(key, a))} against "
        f"{_shown(setting_text(key, b))}"
        for key in sorted(keys)
        if (a := first.settings.get(key)) != (b := second.settings.get(key))
    ]


def _over_range(spec: Mapping[str, Any], name: str) -> Any:
    """Means or standard deviations relative to the range of values, to six digits."""
    values, white = spec.get(name), spec.get("value_range", 1.0)
    if not isinstance(values, list | tuple) or not isinstance(white, int | float) or not white:
        return values
    return [six_digits(value / white) for value in values]


def _shown(value: Any) -> str:
    return "not stated" if value is None else clean(str(value), 80)
