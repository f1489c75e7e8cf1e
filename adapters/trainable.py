"""Networks for training: small residual networks or any of timm, with random or given weights.

    small-resnet, tiny-resnet          random weights
    small-resnet@FILE                  those of a safetensors or weights-only torch file
    timm:NAME@init                     random weights, as timm draws them
    timm:NAME[.TAG], timm:NAME@FILE    pretrained, or from a file

The classifier is drawn at random unless the given weights have one of the right shape: as timm
draws it for `@init`, and as torch draws a new layer beside given weights. (timm draws that of
EfficientNets and MobileNets the larger, the fewer classes there are: up to 0.7 for two. Fine-tuning
fails with it.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .checkpoint.fit import same_kind, without_prefix
from .checkpoint.read import read_checkpoint
from .created import Opening
from .errors import UnknownNameError, WeightsError, unknown
from .input_spec import InputSpec
from .pytorch.small_resnet import SIZES, SmallResNet
from .reference import Reference
from .seeding import seeded_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .treatment import Fill, Treatment


FORMS = f"{', '.join(SIZES)}, timm:NAME@init, timm:NAME[.TAG], or one of them @FILE"

MIDDLE, SPREAD = 0.5, 0.25
"""Mean and standard deviation of the input of the small networks."""


@dataclass(frozen=True)
class Trainable:
    """A module that maps normalised `x` to logits, and the spec that makes `x` of images."""

    module: nn.Module
    spec: InputSpec


def open_trainable(
    reference: str, classes: int, size: tuple[int, int], *, seed: int = 0
) -> Trainable:
    """Build the network of `reference` for images of `size` (height, width), on the CPU.

    Seed and reference determine every random weight; global generators are not changed. Raises
    `UnknownNameError` with near names, `WeightsError` for weights that are not available or do not
    fit.
    """
    parsed = Reference.parse_any(reference)
    timm = parsed.runtime == "timm"
    heads: tuple[str, ...] = ("head",)
    module: nn.Module
    with seeded_weights(seed):
        if timm:
            module, spec, heads = _timm(parsed.name, classes, size)
        elif not parsed.runtime and parsed.name in SIZES:
            width, blocks = SIZES[parsed.name]
            module = SmallResNet(classes, width=width, blocks=blocks)
            spec = InputSpec(*size, mean=(MIDDLE,) * 3, std=(SPREAD,) * 3)
        else:
            near = unknown("network", reference, SIZES)
            raise UnknownNameError(f"{near}; a network to train is {FORMS}")
    state: Mapping[str, Tensor] | None = None
    if timm and not parsed.untrained:
        state = _trained(parsed)
    elif not timm and parsed.weights is not None:
        checkpoint = read_checkpoint(parsed.weights)
        state, _ = without_prefix(checkpoint.state, list(module.state_dict()))
    if state is not None:
        with seeded_weights(seed):
            _take(module, state, heads, reference)
    return Trainable(module.train().requires_grad_(True), spec)


def pad_trainable(network: Trainable, fill: Fill, *, seed: int = 0) -> Treatment:
    """Pad the kernels of `network` in place, with trainable new taps, and return what was done."""
    from .pytorch.kernel_padding.rewrite import pad_module

    network.module.eval()
    treatment = pad_module(network.module, fill, network.spec.blank(), seed=seed)
    network.module.train().requires_grad_(True)
    return treatment


def _timm(
    architecture: str, classes: int, size: tuple[int, int]
) -> tuple[nn.Module, InputSpec, tuple[str, ...]]:
    """Return the architecture with initial weights, its input and the names of its classifiers."""
    import timm
    from timm.data.config import resolve_model_data_config

    if not timm.is_model(architecture):
        raise UnknownNameError(unknown("timm model", architecture, timm.list_models()))
    options: dict[str, Any] = {"num_classes": classes}
    config = timm.get_pretrained_cfg(architecture)
    if config is not None and config.fixed_input_size:
        options["img_size"] = size
    module: nn.Module = timm.create_model(architecture, pretrained=False, **options)
    found = resolve_model_data_config(module)
    spec = InputSpec(*size, mean=tuple(found["mean"]), std=tuple(found["std"]))
    heads = module.pretrained_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    return module, spec, (heads,) if isinstance(heads, str) else tuple(heads)


def _trained(reference: Reference) -> Mapping[str, Tensor]:
    """The weights that timm has, or those of a file, as every other command reads them."""
    from .timm import open_timm

    opened = open_timm(reference.tagged_name, reference.weights, Opening("cpu"))
    return opened.module().state_dict()


def _take(
    module: nn.Module, state: Mapping[str, Tensor], heads: tuple[str, ...], reference: str
) -> None:
    """Load `state` by name and shape; only the classifiers `heads` may be missing or differ."""
    own = module.state_dict()
    fitting = {
        k: v
        for k, v in state.items()
        if k in own and v.shape == own[k].shape and same_kind(v, own[k])
    }
    missing = [
        key
        for key in own
        if key not in fitting
        and not key.startswith(tuple(f"{head}." for head in heads))
        and not key.endswith("num_batches_tracked")
    ]
    if missing:
        raise WeightsError(
            f"the weights of {reference!r} do not fit: {len(missing)} of {len(own)} tensors are "
            f"missing or of another shape, such as {missing[0]!r}; expected those of this network"
        )
    for head in heads:
        if any(key.startswith(f"{head}.") and key not in fitting for key in own):
            _draw_again(module.get_submodule(head))
    module.load_state_dict({**module.state_dict(), **fitting})


def _draw_again(classifier: nn.Module) -> None:
    """Draw the weights of a classifier as torch draws those of a new layer."""
    for layer in classifier.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.reset_parameters()
