"""`perimetry doctor`: check that this installation measures correctly.

Every check reports what it examined. *broken* means that numbers would be wrong or a part does not
work, and says what to do; *note* is information. Nothing is downloaded.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, metadata
from typing import Any, Literal, NamedTuple

from ..adapters.scratch import scratch_folder
from .output.layout import Section, lay_out
from .output.text import clean, counted

Status = Literal["ok", "note", "broken"]

SOLE = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "perimetry": ("perimetry",)}
"""Import packages that only one distribution may provide, and which ones it may be."""

PERIOD_ANSWER = 1 / 2.25
"""`weakest` of one 3 x 3 convolution at stride 2: least over mean coverage."""

RESNET18_FIELD = 435

TOLERANCE = 1e-6

WRONG = 1e-4
"""Relative error of a gradient above which it is wrong rather than rounded."""


class HealthCheck(NamedTuple):
    """What was examined, its status, and what to do if it is broken."""

    name: str
    status: Status
    text: str


Found = Iterator[tuple[str, Status, str]]


def examine() -> list[HealthCheck]:
    """Run all checks; a check that raises is broken, and the others go on."""
    checks: list[HealthCheck] = []
    for name, look in LOOKS.items():
        try:
            checks += [HealthCheck(*found) for found in look()]
        except Exception as error:  # a broken installation may raise anything
            text = f"{type(error).__name__}: {clean(str(error), 400)}"
            checks.append(HealthCheck(name, "broken", text))
    return checks


def health_to_text(checks: list[HealthCheck], width: int) -> str:
    """A line for each check, and a verdict."""
    broken = sum(check.status == "broken" for check in checks)
    verdict = f"{broken} of {len(checks)} checks are broken" if broken else "all checks passed"
    lines: list[Any] = [f"{check.status}: {check.name}: {check.text}" for check in checks]
    return lay_out(
        [Section("perimetry doctor", lines), Section(f"Verdict: {verdict}", [""])], width
    )


def _versions() -> Found:
    """Python and every dependency against the floor it was installed with."""
    from packaging.requirements import Requirement

    yield "python", "ok", f"{platform.python_version()} on {platform.platform()}"
    for wanted in map(Requirement, metadata.requires("perimetry") or []):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        name, floor = wanted.name, wanted.specifier
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "broken", f"not installed; `pip install '{name}{floor}'`"
            continue
        if floor.contains(found, prereleases=True):
            yield name, "ok", found
        else:
            yield name, "broken", f"{found}, but {floor} is needed; `pip install -U {name}`"


def clashes(provided: Mapping[str, list[str]]) -> Found:
    """Import packages that several distributions provide and overwrite in each other.

    `provided` gives distributions by import package, as `packages_distributions` does.
    """
    for package, allowed in SOLE.items():
        found = sorted(set(provided.get(package, ())))
        named = [name for name in found if name.startswith(package)]
        status: Status = "ok" if len(named) == 1 else "broken"
        if len(named) > 1:
            text = (
                f"{' and '.join(named)} are both installed and overwrite each other; `pip "
                f"uninstall {' '.join(named)}`, then install one of {', '.join(allowed)}"
            )
        else:
            text = f"provided only by {named[0]}" if named else "no distribution provides it"
        yield f"package {package}", status, text


def _devices() -> Found:
    import torch

    cuda = torch.version.cuda
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    yield "device cpu", "ok", f"{counted(threads, 'thread')} on {counted(cores, 'core')}"
    for index in range(torch.cuda.device_count()):
        torch.ones(1, device=f"cuda:{index}").add_(1)
        yield f"device cuda:{index}", "ok", f"{torch.cuda.get_device_name(index)}, CUDA {cuda}"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {cuda}" if cuda else "CPU build"
        yield "device cuda", "note", f"none here ({built}); audits run on the CPU"


def _vision() -> Found:
    """torchvision, which timm imports: a build for another torch breaks on import."""
    yield "torchvision", "ok", f"{import_module('torchvision').__version__} imports"


def _providers() -> Found:
    """Ask onnxruntime for what audits would ask for, and see what it really runs on."""
    import onnxruntime
    import torch

    from ..adapters.self_check import onnx_providers

    for kind in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        wanted, actual = onnx_providers(_convolution(), "map", kind)
        asked = f"requested {wanted}, runs on {actual}"
        if wanted == actual:
            yield f"provider {kind}", "ok", asked
        else:
            hint = "ONNX files would be audited on the CPU, check CUDA"
            yield f"provider {kind}", "broken", f"{asked}; {hint}"
    listed = ", ".join(onnxruntime.get_available_providers())
    yield "providers listed", "note", f"{listed} (a listed provider need not be usable)"


def _structure() -> Found:
    """Known answers of one convolution, as a module and as an ONNX file."""
    from torch import nn

    from ..adapters.input_spec import InputSpec
    from ..adapters.load import load

    module = load(nn.Conv2d(3, 4, 3, 2, 1), spec=InputSpec(32, 32), device="cpu")
    yield _answer("3 x 3 convolution at stride 2", module, "weakest", PERIOD_ANSWER)
    with scratch_folder() as folder:
        path = folder / "convolution.onnx"
        path.write_bytes(_convolution().SerializeToString())
        file = load(str(path), device="cpu", spec=InputSpec(32, 32))
        yield _answer("the same as an ONNX file", file, "weakest", PERIOD_ANSWER)
        why = file.why_no_gradients
    text = why or "the interpreter agrees with onnxruntime"
    yield "gradients of an ONNX file", "broken" if why else "ok", text


def _resnet() -> Found:
    from ..adapters.load import load

    model = load("timm:resnet18@init", device="cpu", members=1)
    yield _answer("receptive field of resnet18", model, "receptive_field", RESNET18_FIELD)


def _answer(name: str, model: Any, metric: str, known: float) -> tuple[str, Status, str]:
    """Compare a metric of `structure` with its known value."""
    from ..suites.structure import measure_skeleton

    found = measure_skeleton(model.skeleton(), model.spec.shape).metrics[metric].value
    if found is not None and abs(found - known) <= TOLERANCE * max(1.0, known):
        return name, "ok", f"{metric} {found:.6g}, as expected"
    return name, "broken", f"{metric} {found}, but {known:.6g} is right; reinstall perimetry"


def _norms() -> Found:
    """The input gradient of batch norm at batch 1 on the CPU, without and with our workaround."""
    from ..adapters.self_check import batch_norm_gradient_error

    name = "gradient of batch norm"
    bare = batch_norm_gradient_error(guarded=False)
    guarded = batch_norm_gradient_error(guarded=True)
    if guarded > WRONG:
        text = f"wrong by {guarded:.0%} even with perimetry's workaround; use another torch release"
        yield name, "broken", text
    elif bare > WRONG:
        text = f"this torch has the bug (wrong by {bare:.0%} at batch 1); perimetry works around it"
        yield name, "note", text
    else:
        yield name, "ok", "right at batch 1, with and without the workaround"


def _repeats() -> Found:
    """The same audit twice: equal seeds must give equal numbers, bit for bit."""
    from torch import nn

    from ..adapters.input_spec import InputSpec
    from ..adapters.load import load
    from .execution.audit import audit

    model = load(nn.Conv2d(3, 4, 3, 2, 1), spec=InputSpec(32, 32), device="cpu")
    runs = [audit(model, ("deadpixel",), count=4, device="cpu")[0] for _ in range(2)]
    if runs[0].status != "ok":
        yield "audit", "broken", f"a one-layer model cannot be audited: {runs[0].why}"
    elif runs[0].metrics == runs[1].metrics:
        yield "audit twice", "ok", "equal bit for bit"
    else:
        yield "audit twice", "broken", "the same seed gives different numbers on this machine"


def _convolution() -> Any:
    """An ONNX graph of one 3 x 3 convolution at stride 2 with seeded weights."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", 4, 16, 16])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(made)
    return made


LOOKS: Mapping[str, Callable[[], Found]] = {
    "versions": _versions,
    "packages": lambda: clashes(metadata.packages_distributions()),
    "devices": _devices,
    "torchvision": _vision,
    "providers": _providers,
    "known answers": _structure,
    "resnet18": _resnet,
    "norms": _norms,
    "audits": _repeats,
}
