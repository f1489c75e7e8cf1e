"""The attacks: what is damaged, and what is done with it.

`use` returns one of `OUTCOMES`, or anything else, which is a failure of perimetry: a traceback, a
lost row, a damaged file that passes for whole.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx_files import convnet
from PIL import Image
from safetensors.torch import save as save_tensors
from small_nets import TOOLS, baseline, net, opened
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.checkpoint.read import read_checkpoint
from perimetry.adapters.errors import PerimetryError
from perimetry.bench.cli.main import app
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.store import Store
from perimetry.bench.regression import check as gate
from perimetry.bench.regression.tolerances import read_tolerances
from perimetry.bench.training.trainer import load_checkpoint, save_checkpoint
from perimetry.suites.pictures import FORMATS, read_picture

from .mutations import damaged_bytes, damaged_json

if TYPE_CHECKING:
    from collections.abc import Callable

MEASURED, SKIPPED, FAILED, REFUSED = "measured", "skipped", "failed with a reason", "refused"
OUTCOMES = (MEASURED, SKIPPED, FAILED, REFUSED)
SOUND = "sound-model"


@dataclass(frozen=True)
class Attack:
    """`cases` damaged copies of the files that `make` writes, each given to `use`.

    `make(folder)` returns the paths of which one is damaged by `damage` in each case.
    """

    name: str
    cases: int
    make: Callable[[Path], list[Path]]
    use: Callable[[Path, Path], str]
    damage: Callable[[bytes, np.random.Generator], bytes] = damaged_bytes


def run_attack(attack, folder, *, seed=0, times=1):
    """The outcome of every case, in order; an exception is an outcome with its traceback."""
    whole = folder / "whole"
    whole.mkdir()
    names = [path.relative_to(whole) for path in attack.make(whole)]
    outcomes = []
    for case in range(attack.cases * times):
        rng = np.random.default_rng([seed, case])
        copy = shutil.copytree(whole, folder / "copy")
        path = copy / names[rng.integers(len(names))]
        path.write_bytes(attack.damage(path.read_bytes(), rng))
        outcomes.append(_outcome(attack, path, copy))
        shutil.rmtree(copy)
    return outcomes


def _outcome(attack, path, copy):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attack.use(path, copy)
    except PerimetryError as error:
        return REFUSED if str(error) else "an error without a text"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error))


# --------------------------------------------------------------- models


def make_graphs(folder):
    """Ten small graphs of several sizes."""
    paths = []
    for number in range(10):
        path = folder / f"{number}.onnx"
        path.write_bytes(convnet(size=8 + 4 * number).SerializeToString())
        paths.append(path)
    return paths


def use_graph(path, _copy):
    (record,) = audit(path, ("structure",), device="cpu")
    if record.status == "failed" and record.error.trace.strip().endswith("MemoryError"):
        return "a MemoryError"
    return {"ok": MEASURED, "skipped": SKIPPED, "failed": FAILED}[record.status]


def damaged_graph(data, rng):
    """A graph with one to three fields exchanged, whatever they mean."""
    import onnx
    from google.protobuf import json_format

    proto = onnx.load_model_from_string(data)
    text = json_format.MessageToJson(proto).encode()
    for _ in range(20):  # until protobuf takes the result for a graph
        with contextlib.suppress(json_format.ParseError, ValueError, TypeError):
            changed = json_format.Parse(damaged_json(text, rng), onnx.ModelProto())
            return changed.SerializeToString()
    return data[: len(data) // 2]


def make_weights(folder):
    state = {f"layer.{n}": torch.rand(4, 3) for n in range(3)}
    (folder / "a.safetensors").write_bytes(save_tensors(state))
    torch.save(state, folder / "b.pth")
    torch.save({"state_dict": state, "epoch": 3}, folder / "c.pt")
    return sorted(folder.iterdir())


def use_weights(path, _copy):
    state = read_checkpoint(path).state
    return MEASURED if all(isinstance(v, torch.Tensor) for v in state.values()) else "no tensors"


def make_checkpoint(folder):
    save_checkpoint(folder / "a.safetensors", {"model.w": torch.rand(5)}, {"epoch": 3})
    return [folder / "a.safetensors"]


def use_checkpoint(path, _copy):
    tensors, facts = load_checkpoint(path)
    return MEASURED if tensors.keys() and isinstance(facts, dict) else REFUSED


# --------------------------------------------------------------- pictures


def make_pictures(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    for kind in FORMATS:
        Image.fromarray(pixels).save(folder / f"{kind}.png", format=kind)
    return sorted(folder.iterdir())


def use_picture(path, _copy):
    return MEASURED if read_picture(path).mode == "RGB" else "another mode"


# --------------------------------------------------------------- records


def make_store(folder):
    """Records with maps of two models, one of which is never damaged."""
    import planted_boards as planted

    store = Store(folder)
    for number, name in enumerate(("attacked", SOUND)):
        record = planted.record(name, 0.5 + number / 10, maps=planted.field(0.5))
        record.key = f"{number}" * 64
        store.put(record)
    return [p for p in (folder / "records").iterdir() if p.name.startswith("attacked")]


def only(suffix):
    """`make_store`, of which only the files of one suffix are damaged."""

    def make(folder):
        return [path for path in make_store(folder) if path.suffix == suffix]

    return make


def use_store(_path, copy):
    """The board has the other row, and page and account of the other model come out."""
    page = str(copy / "page.html")
    for arguments in (
        ["board", str(copy)],
        ["board", str(copy), "--html", page],
        ["show", str(copy), SOUND],
    ):
        done = CliRunner().invoke(app, arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        unlike = (
            "cannot share a column" in done.output
        )  # its settings are others now, and it says so
        if done.exit_code != 0 and not unlike:
            return f"exit code {done.exit_code}: {done.output}"
        if done.exit_code == 0 and arguments[-1] != page and SOUND not in done.output:
            return f"a row is lost: {done.output}"
        if "\x1b" in done.output or "\u202e" in done.output:
            return "a control character"
    return MEASURED


def make_pack(folder):
    make_store(folder / "store")
    pack_records(Store(folder / "store"), folder / "a.jsonl")
    pack_records(Store(folder / "store"), folder / "a.jsonl.gz")
    return [folder / "a.jsonl", folder / "a.jsonl.gz"]


def use_pack(path, copy):
    """A changed pack is refused, or says what is wrong with it."""
    done = CliRunner().invoke(app, ["board", str(path)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    same = path.read_bytes() == (copy.parent / "whole" / path.name).read_bytes()
    if done.exit_code == 0 and not same and path.suffix != ".gz" and "skipped" not in done.output:
        return f"passes for whole: {done.output}"
    return REFUSED if done.exit_code else MEASURED


# --------------------------------------------------------------- the gate


def make_baseline(folder):
    place = baseline(folder / "base", suites=("structure", "deadpixel"), count=4)
    gate.check(place, opened(net()), run=TOOLS, action="measure_noise")
    write_manifest(Store(place))
    return [path for path in place.rglob("*") if path.is_file()]


def use_baseline(path, copy):
    """What changed a byte of records, maps or manifest does not pass."""
    whole = copy.parent / "whole" / path.relative_to(copy)
    opened_ = gate.open_baseline(copy / "base")
    beside = path.parent.name == "check" or "check" in path.relative_to(copy).parts
    if not opened_.problems and path.read_bytes() != whole.read_bytes() and not beside:
        if path.name == "manifest.json" and _same_json(path, whole):
            return MEASURED
        return "passes for whole"
    return REFUSED if opened_.problems else MEASURED


def _same_json(path, other):
    a, b = (json.loads(p.read_text()) for p in (path, other))
    return a["files"] == b["files"]


def make_tolerances(folder):
    text = 'maps = 0.02\nnoise_factor = 3\n[metrics."deadpixel.*"]\nabsolute = 0.02\n'
    (folder / "a.toml").write_text(text)
    return [folder / "a.toml"]


def use_tolerances(path, _copy):
    found = read_tolerances(path)
    return MEASURED if found.maps >= 0 else "a negative tolerance"


ATTACKS = (
    Attack("bytes of ONNX files", 60, make_graphs, use_graph),
    Attack("fields of ONNX graphs", 60, make_graphs, use_graph, damaged_graph),
    Attack("bytes of weights files", 80, make_weights, use_weights),
    Attack("bytes of training checkpoints", 60, make_checkpoint, use_checkpoint),
    Attack("bytes of pictures", 140, make_pictures, use_picture),
    Attack("bytes of records", 25, only(".json"), use_store),
    Attack("fields of records", 40, only(".json"), use_store, damaged_json),
    Attack("bytes of maps and draws", 25, only(".npz"), use_store),
    Attack("bytes of packed records", 40, make_pack, use_pack),
    Attack("bytes of baselines", 60, make_baseline, use_baseline),
    Attack("bytes of tolerance files", 60, make_tolerances, use_tolerances),
)
