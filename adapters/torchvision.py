"""torchvision models: `torchvision:NAME[.WEIGHTS]`, `torchvision:NAME@init`, `...@FILE`.

Classifiers, segmenters and detectors. Detectors resize and normalise images themselves, so they are
given images in [0, 1] of the size that they resize to.
"""

from __future__ import annotations

import inspect
import warnings
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .checkpoint.fit import fit, without_prefix
from .checkpoint.read import Checkpoint, read_checkpoint, tensors_only
from .created import (
    Created,
    Opening,
    channel_values,
    file_source,
    on_meta,
    weights_unavailable,
)
from .errors import InputError, UnknownNameError, WeightsError, check_name, unknown
from .hub import answers
from .input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from .seeding import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pytorch.model import TorchModel


OTHER_INPUTS = {"video": "videos", "optical_flow": "pairs of images", "quantization": "integers"}
"""Parts of torchvision whose models are not functions of one image in floats."""


@cache
def torchvision_names() -> tuple[str, ...]:
    """The names of all models of the installed torchvision that take single images."""
    from torchvision.models import list_models

    return tuple(name for name in list_models() if _part(name) not in OTHER_INPUTS)


def _part(name: str) -> str:
    from torchvision.models import get_model_builder

    return str(get_model_builder(name).__module__.split(".")[2])


def check_torchvision_name(name: str, weights: str) -> None:
    """Raise `UnknownNameError` with near names for a model or weights that torchvision has not.

    `InputError` for models of videos and other inputs.
    """
    from torchvision.models import list_models

    if name not in list_models():
        raise UnknownNameError(unknown("torchvision model", name, torchvision_names()))
    if _part(name) in OTHER_INPUTS:
        raise InputError(
            f"torchvision model {name!r} computes with {OTHER_INPUTS[_part(name)]}; expected a "
            "model of single images in floats, such as a classifier, segmenter or detector"
        )
    if weights:
        check_name(f"weights of torchvision's {name}", weights, _weights(name).__members__)


def _weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name)


def open_torchvision(name: str, weights: str, state: str | None, how: Opening) -> TorchModel:
    """Open the model `name`; `state` is None (pretrained), `init`, or a weights file.

    `weights` names one of torchvision's sets, "" the default one. Raises `UnknownNameError` with
    near names, `WeightsError` when weights are not available or do not fit, `InputError` when the
    model refuses the size.
    """
    import torchvision

    check_torchvision_name(name, weights)
    library = f"torchvision {torchvision.__version__}"
    source = {"library": library, "architecture": name}
    chosen = _weights(name)[weights or "DEFAULT"]
    options: dict[str, Any] = {}
    loaded: nn.Module | None = None
    notes: list[str] = []
    if state is None:
        loaded = _pretrained(name, chosen)
        source["weights"] = chosen.name
    elif state == "init":
        source["weights"] = "initial state"
    else:
        checkpoint = read_checkpoint(state)
        options, notes = _options(name, chosen, checkpoint)
        loaded = _create(name, **options)
        fitted = fit(checkpoint, loaded.state_dict(), name)
        loaded.load_state_dict(fitted.state)
        notes = [*fitted.notes, *notes, *_transform_note(loaded)]
        source |= file_source(state)
    create = partial(_create, name, **options)
    made = Created(
        f"torchvision:{name}{'.' * bool(weights)}{weights}" + (f"@{state}" if state else ""),
        create,
        loaded.eval() if loaded is not None else None,
        _spec(chosen.transforms(), loaded if loaded is not None else on_meta(create)),
        source,
        tuple(notes),
    )
    return made.open(how)


def _create(name: str, **options: Any) -> nn.Module:
    """Build an architecture without any pretrained part, also of its backbone."""
    from torchvision.models import get_model_builder

    builder = get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other initial weights to come
        module: nn.Module = builder(weights=None, **options)
    return module


def _pretrained(name: str, weights: Any) -> nn.Module:
    from torchvision.models import get_model_builder

    init = f"torchvision:{name}@init"
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not cached.is_file() and not answers(weights.url):
        raise WeightsError(weights_unavailable(weights.name, name, ConnectionError(), init))
    try:
        with tensors_only():
            module: nn.Module = get_model_builder(name)(weights=weights, progress=False)
    except Exception as error:
        raise WeightsError(weights_unavailable(weights.name, name, error, init)) from error
    return module


def _spec(preset: Any, module: nn.Module) -> InputSpec:
    """The input that torchvision states: by the transforms of the weights, or by a detector."""
    own = getattr(module, "transform", None)
    if own is not None and hasattr(own, "min_size"):
        height, width = own.fixed_size or (own.min_size[-1],) * 2
        return InputSpec(height, width, crop_pct=1.0, interpolation="bilinear")
    resized = getattr(preset, "resize_size", [224])
    crop = getattr(preset, "crop_size", resized)
    height, width = crop[0], crop[-1]
    return InputSpec(
        height,
        width,
        mean=channel_values(getattr(preset, "mean", IMAGENET_MEAN), 3),
        std=channel_values(getattr(preset, "std", IMAGENET_STD), 3),
        interpolation=str(getattr(preset, "interpolation", "bilinear")).rpartition(".")[2].lower(),
        crop_pct=min(crop[0] / resized[0], 1.0),
    )


def _options(name: str, weights: Any, checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """Options with which torchvision builds what is in the file, and notes on them."""
    usual = len(weights.meta.get("categories", ()))
    with seeded_weights(0):
        own = on_meta(partial(_create, name)).state_dict()
    state, _ = without_prefix(checkpoint.state, list(own))
    options: dict[str, Any] = {}
    if any(key.startswith("aux_classifier.") for key in state):
        options["aux_loss"] = True
    classes = _classes(own, state, usual)
    if classes is None:
        return options, []
    note = f"{classes} classes, as in the file, instead of {usual}"
    return {**options, "num_classes": classes}, [note]


def _classes(own: Mapping[str, Any], state: Mapping[str, Any], usual: int) -> int | None:
    """The number of classes in a file by the first tensor with a multiple of them; None: as usual.

    Detectors have several numbers for each class.
    """
    for name, value in own.items():
        found = state.get(name)
        if found is None or not usual or not value.ndim or found.ndim != value.ndim:
            continue
        here, there = len(value), len(found)
        if here != there and here % usual == 0 and there * usual % here == 0:
            return there * usual // here
    return None


def _transform_note(module: nn.Module) -> list[str]:
    """A note for architectures that torchvision builds otherwise for its own weights."""
    if not hasattr(module, "transform_input"):
        return []
    return ["transform_input is False, as for weights of one's own; torchvision's own have True"]
