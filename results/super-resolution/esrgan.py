"""Write the networks of a TensorFlow.js package as ONNX: `python esrgan.py PACKAGE FOLDER`.

PACKAGE is the unpacked npm package @upscalerjs/esrgan-slim 1.0.0 (MIT), whose networks are
"layers models": model.json with the layers, and one file of float32 weights. FOLDER gets x2.onnx,
x3.onnx, x4.onnx and x8.onnx.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

SCALES = (2, 3, 4, 8)
SIDE = 64


class LayersModel(nn.Module):
    """A Keras functional model of convolutions, ReLUs, sums, concatenations and enlargements."""

    def __init__(self, layers: list[dict[str, Any]], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._layers = layers
        self.convolutions = nn.ModuleDict(
            {
                layer["name"]: _convolution(layer, weights)
                for layer in layers
                if _is(layer, "Conv2D")
            }
        )

    def forward(self, image: Tensor) -> Tensor:
        """The enlarged image (batch, 3, scale * height, scale * width)."""
        found: dict[str, Tensor] = {}
        for layer in self._layers:
            sources = [found[node[0]] for nodes in layer["inbound_nodes"] for node in nodes]
            found[layer["name"]] = self._output(layer, sources or [image])
        return found[self._layers[-1]["name"]]

    def _output(self, layer: dict[str, Any], x: list[Tensor]) -> Tensor:
        config = layer["config"]
        match layer["class_name"]:
            case "InputLayer":
                return x[0]
            case "Conv2D":
                return self.convolutions[layer["name"]](x[0])
            case "Activation" if config["activation"] == "relu":
                return x[0].relu()
            case "Add":
                return sum(x[1:], x[0])
            case "Concatenate":
                return torch.cat(x, 1)
            case "UpSampling2D" if config["interpolation"] == "nearest":
                return functional.interpolate(x[0], scale_factor=config["size"], mode="nearest")
            case kind:
                raise ValueError(
                    f"{layer['name']} is {kind} with {config}, which is not known here"
                )


def _is(layer: dict[str, Any], kind: str) -> bool:
    return bool(layer["class_name"] == kind)


def _convolution(layer: dict[str, Any], weights: Mapping[str, Tensor]) -> nn.Conv2d:
    config, name = layer["config"], layer["name"]
    plain = {"strides": [1, 1], "dilation_rate": [1, 1], "activation": "linear", "use_bias": True}
    if any(config[key] != value for key, value in plain.items()):
        raise ValueError(f"{name} has {config}; expected {plain}")
    kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)  # TensorFlow: height, width, in, out
    made = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2:], padding=config["padding"])
    made.load_state_dict({"weight": kernel, "bias": weights[f"{name}/bias"]})
    return made


def read(folder: Path) -> LayersModel:
    """The network in `folder`."""
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    topology = model["modelTopology"]
    weights, start = {}, 0
    (group,) = model["weightsManifest"]
    data = b"".join((folder / path).read_bytes() for path in group["paths"])
    for one in group["weights"]:
        count = int(np.prod(one["shape"]))
        values = np.frombuffer(data, "<f4", count, start).reshape(one["shape"])
        weights[one["name"]], start = torch.from_numpy(values.copy()), start + 4 * count
    return LayersModel(topology.get("model_config", topology)["config"]["layers"], weights).eval()


def main(package: Path, folder: Path) -> None:
    """Write all networks."""
    spec = InputSpec(SIDE, SIDE, mean=(0.0,) * 3, std=(1.0,) * 3, value_range=255.0)
    for scale in SCALES:
        network = read(package / "models" / f"x{scale}")
        export_onnx(network, spec.blank(), folder / f"x{scale}.onnx", spec=spec)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
