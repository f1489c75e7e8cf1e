"""A corpus of small vision models of every kind, with the map that is the target of each.

`CORPUS` says the (height, width) of the input and of the target in units, and the name of the
target as a module of torch. The networks are in `corpus_nets`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import timm
import torch
from corpus_nets import (
    Auxiliary,
    Classifier,
    Crnn,
    DenseVit,
    Detr,
    Fpn,
    GruLast,
    HrNet,
    LastState,
    PanYolo,
    PyramidPooling,
    SegFormer,
    TransformerDetr,
    TutorialNet,
    TwoStreams,
    UNet,
    Vit,
    Yolo,
)
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A model of the corpus, its input size, the size of its target, a part of the reason."""

    build: Callable[[], nn.Module]
    size: tuple[int, int]
    units: tuple[int, int]
    module: str
    remark: str = ""


DETOUR = "other paths go around it"
CORPUS = {
    "classifier": Case(Classifier, (64, 64), (4, 4), "body.stages.2"),
    "one pool twice": Case(TutorialNet, (64, 64), (13, 13), "pool#2"),
    "U-Net": Case(UNet, (64, 64), (4, 4), "encoder.stages.2", DETOUR),
    "feature pyramid": Case(Fpn, (64, 64), (4, 4), "lateral.2", DETOUR),
    "pyramid with towers": Case(lambda: Fpn(towers=True), (64, 64), (4, 4), "lateral.2", DETOUR),
    "YOLO of 5 classes": Case(Yolo, (64, 64), (16, 16), "body.stages.0"),
    "YOLO of 80 classes": Case(lambda: Yolo(80), (64, 64), (16, 16), "body.stages.0"),
    "YOLO with a neck": Case(PanYolo, (64, 64), (4, 4), "body.stages.2", DETOUR),
    "ViT": Case(Vit, (64, 64), (8, 8), "norm"),
    "ViT with a heat map": Case(DenseVit, (112, 112), (8, 8), "norm"),
    "SegFormer": Case(SegFormer, (64, 64), (4, 4), "mix.2", DETOUR),
    "HRNet": Case(HrNet, (64, 64), (8, 8), ":relu#4", DETOUR),
    "text reader": Case(Crnn, (32, 96), (1, 24), "lstm:lstm"),
    "text reader, GRU last": Case(GruLast, (32, 96), (1, 24), "gru:gru"),
    "text reader, last state": Case(LastState, (32, 96), (1, 24), "body"),
    "DETR": Case(Detr, (64, 64), (4, 4), "norm"),
    "DETR, boxes alone": Case(lambda: Detr(queries=30, boxes_only=True), (64, 64), (4, 4), "norm"),
    "DETR, tokens first": Case(TransformerDetr, (64, 64), (4, 4), "transformer.encoder"),
    "two streams": Case(TwoStreams, (64, 64), (4, 4), "coarse", DETOUR),
    "auxiliary head": Case(Auxiliary, (64, 64), (4, 4), "deep"),
    "pyramid pooling": Case(PyramidPooling, (64, 64), (4, 4), "join"),
}


for small, units in (("resnet", 5), ("vit", 10), ("convnext", 5), ("efficientnet", 5)):
    CORPUS[f"timm test_{small}"] = Case(
        partial(timm.create_model, f"test_{small}"), (160, 160), (units, units), "forward_features"
    )


def built(name):
    """The module of a case, with seeded weights and statistics of its norms."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's transformer warns of its own default
        torch.manual_seed(0)
        module = CORPUS[name].build().eval()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
            if isinstance(layer, nn.LayerNorm):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
    return module


def exported(name: str, folder: Path) -> Path:
    """The ONNX file of a case, in `folder`."""
    return export(built(name), CORPUS[name].size, folder / "model.onnx")


def export(module: nn.Module, size: tuple[int, int], path: Path) -> Path:
    """The ONNX file of a module for one RGB image of `size` (height, width), written to `path`."""
    x = torch.randn(1, 3, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), str(path), dynamo=False, input_names=["image"], opset_version=17
        )
    return path
