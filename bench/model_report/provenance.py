"""Where a report's numbers come from: model, images, versions, and the command to repeat them."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from ...adapters.input_spec import guessed_values
from ...suites.images import BUILT_IN
from ...suites.measuring.bootstrap import MIN_SAMPLES
from ..output.files import try_or_none
from ..output.layout import Literal
from ..output.numbers import short_count
from ..output.text import clean, counted, days
from ..records.hashing import FIT_KEY
from ..records.references import stated_inputs
from ..records.selection import is_imported, older_versions, prefix_of
from ..statistics.difference import ENOUGH_SAMPLES, sample_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...suites.base import Suite
    from ..output.layout import Block
    from ..records.record import Record


def provenance(records: Sequence[Record], suites: Mapping[str, Suite]) -> list[Block]:
    """Model, images, protocols, stack; and the command that makes these records again."""
    best = next((r for r in records if r.model.spec), records[0])
    facts = {
        "Model": _pairs({"reference": best.model.reference, **best.model.source}),
        "Input": try_or_none(_input, best),
        "Size": _size(best),
        "Target": try_or_none(_target, best),
        "Images": _images(records),
        "Fitted": _fitted(records),
        "Protocols": ", ".join(
            sorted({f"{r.suite}:{r.protocol} version {r.version}" for r in records})
        ),
        "Made": _made(records),
        "With": _pairs(best.environment.libraries),
        "On": _machine(best),
    }
    blocks: list[Block] = [f"{k}: {clean(v, 1000)}." for k, v in facts.items() if v]
    blocks += older_versions(records, suites)
    command = try_or_none(repeat, records, suites)
    return [*blocks, "To make these records again:", Literal(command)] if command else blocks


def repeat(records: Sequence[Record], suites: Mapping[str, Suite]) -> str:
    """The command that makes `records`, of one model, again; of trained ones one for each task.

    What was imported is imported again.
    """
    if is_imported(records[0]):
        source = str(records[0].settings["imported_from"]).lower()
        return shlex.join(["perimetry", "import", source, "PATH/TO/MAPS", "--out", "OUT"])
    trained = [r for r in records if r.suite == "training"]
    if trained:
        tasks = dict.fromkeys(r.protocol for r in trained)
        return " && ".join(_train([r for r in trained if r.protocol == t]) for t in tasks)
    measured = [r for r in records if r.suite != "fidelity"] or list(records)
    first = measured[0]
    words = ["perimetry", "run", first.model.reference]
    words += [
        "--suite",
        ",".join(dict.fromkeys(prefix_of(r.suite, r.protocol, suites) for r in measured)),
    ]
    words += ["--kernel-padding", ",".join(dict.fromkeys(r.fill for r in measured))]
    for name, value in _options(measured).items():
        words += [f"--{name}", value]
    words += _fit_images(measured)
    if any(r.settings.get("recalibrate") for r in measured):
        words.append("--recalibrate")
    chosen = dict.fromkeys(text for record in measured for text in changed_settings(record, suites))
    words += [word for text in chosen for word in ("--set", text)]
    words += [word for text in _inputs(first) for word in ("--input", text)]
    return shlex.join([*words, "--out", "OUT"])


def _train(records: Sequence[Record]) -> str:
    """The `perimetry train` command of the variants of one task."""
    first = records[0]
    settings, images = first.settings, first.images
    words = ["perimetry", "train", "--network", first.model.reference, "--task", first.protocol]
    words += ["--kernel-padding", ",".join(dict.fromkeys(r.fill for r in records))]
    if images is not None:
        built_in = images.name in ("dead-leaves", "digits")
        words += ["--data", images.name if built_in else f"PATH/TO/{images.name}"]
        words += ["--test", str(images.count)]
    words += ["--size", "x".join(map(str, settings["size"]))]
    words += ["--seeds", str(len(settings["seeds"]))]
    names = {"box": "side", **{n: n for n in ("train", "epochs", "batch", "rate", "precision")}}
    for option, name in names.items():
        if settings.get(name) is not None:
            words += [f"--{option}", str(settings[name])]
    return shlex.join([*words, "--seed", str(first.seed), "--out", "OUT"])


def _options(records: Sequence[Record]) -> dict[str, str]:
    """Options of the run, as far as they differ from nothing."""
    looked = next((r for r in records if r.images), records[0])
    settings, images = looked.settings, looked.images
    options: dict[str, str] = {}
    if images is not None:
        folder = images.name not in BUILT_IN
        options["images"] = f"PATH/TO/{images.name}" if folder else images.name
        options["count"] = str(images.count)
    options["seed"] = str(looked.seed)
    for name in ("members", "target"):
        if settings.get(name) is not None:
            options[name] = str(settings[name])
    if settings.get("size"):
        options["size"] = "x".join(map(str, settings["size"]))
    if settings.get("precision") not in (None, "float32"):
        options["precision"] = str(settings["precision"])
    return options


def _inputs(record: Record) -> list[str]:
    """`KEY=VALUE` for each thing that the command stated of an ONNX file's input and output."""
    stated = stated_inputs(record)
    fixed = stated.pop("fixed", {})
    stated |= {f"fixed.{name}": value for name, value in fixed.items()}
    return [f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in stated.items()]


def changed_settings(record: Record, suites: Mapping[str, Suite]) -> list[str]:
    """`SUITE.FIELD=VALUE` for each of the suite's settings that is not the default."""
    from ...suites.settings import settings_of
    from ..records.parts import to_json_value

    known = suites.get(record.suite)
    defaults = to_json_value(settings_of(known)) if known else {}
    found = []
    for name, default in defaults.items():
        value = record.settings.get(name, default)
        if value != default:
            found.append(f"{record.suite}.{name}={_value(value)}")
    return found


def _value(value: Any) -> str:
    """A setting as `--set` reads it."""
    if isinstance(value, list):
        return ",".join(map(str, value)) if len(value) > 1 else str(value).replace("'", '"')
    return str(value)


def _pairs(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in facts.items())


def _size(record: Record) -> str:
    """Parameters, MACs, and what built the model."""
    model = record.model
    counts = ((model.parameters, "parameters"), (model.macs, "MACs for one image"))
    words = [f"{short_count(count)} {what}" for count, what in counts if count is not None]
    return ", ".join([*words, *([f"built by {model.library}"] if model.library else [])])


def _target(record: Record) -> str:
    """Which tensor was measured, and why it was taken, as far as the record says."""
    target = dict(record.model.target or {})
    reason = target.pop("reason", "")
    return _pairs(target) + (f": {reason}" if reason else "")


def _input(record: Record) -> str:
    """Size and normalisation, and what of it was guessed."""
    spec = record.model.spec
    if not spec:
        return ""
    size = f"{spec['height']} x {spec['width']}, {counted(spec['channels'], 'channel')}"
    guessed = "; ".join(guessed_values(spec))
    return size + (f"; guessed, not stated by the model: {clean(guessed, 400)}" if guessed else "")


def _images(records: Sequence[Record]) -> str:
    looked = next((r for r in records if r.images), None)
    if looked is None or looked.images is None:
        return ""
    if is_imported(looked):
        return f"{looked.images.count} x {looked.images.name}; no intervals, which take each image"
    sets = looked.model.members or 1
    what = "weight sets" if sets > 1 else "images"
    return (
        f"{looked.images.count} x {looked.images.name}, seed {looked.seed}, sha256 "
        f"{(looked.images.sha256 or 'unknown')[:16]}; {intervals_text(sample_count(looked), what)}"
    )


def images_line(records: Sequence[Record]) -> str:
    """The images of the records in a few words, and the day they were made."""
    looked = next((r.images for r in records if r.images), None)
    when = days(record.created for record in records)
    return f"{looked.count} x {looked.name}, {when}" if looked else f"no images, {when}"


def intervals_text(count: int, what: str) -> str:
    """What the intervals are over, or why there are none."""
    if count < MIN_SAMPLES:
        return f"no intervals, which take {MIN_SAMPLES} {what} or more: here {count}"
    few = "" if count >= ENOUGH_SAMPLES else f"; fewer than {ENOUGH_SAMPLES} mean little for a rank"
    return f"intervals are 95 %, over {count} {what}{few}"


def _fitted(records: Sequence[Record]) -> str:
    """What kernel padding `fit` was fitted on; of records of schema 2 only their notes tell."""
    found = next((r.fit_images for r in records if r.fit_images), None)
    if found is None:
        return ""
    return (
        f"kernel padding fit, on {found.count} x {found.name}, unlabelled, none of them audited, "
        f"sha256 {(found.sha256 or 'unknown')[:16]}"
    )


def _fit_images(records: Sequence[Record]) -> list[str]:
    """The option that names what `fit` was fitted on, where that was chosen."""
    found = next((r.fit_images for r in records if FIT_KEY in r.settings), None)
    if found is None:
        return []
    return ["--fit-images", found.name if found.name in BUILT_IN else f"PATH/TO/{found.name}"]


def _made(records: Sequence[Record]) -> str:
    seconds = sum(record.timing.measure_s for record in records)
    made = f"{days(record.created for record in records)}, {counted(len(records), 'record')}"
    if is_imported(records[0]):
        return f"{made}, imported"
    return f"{made}, {seconds:.0f} s of measuring, without the shared gradients"


def _machine(record: Record) -> str:
    made = record.environment
    commit = f", commit {made.stamp}" if made.stamp else ""
    return f"{made.device} ({made.device_name}), python {made.python}{commit}"
