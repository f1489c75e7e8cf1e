"""Kinds of torch's functions, as `adapters.readings` distinguishes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch._ops import OpOverload

if TYPE_CHECKING:
    from ..readings import Kind


_BY_KIND: dict[Kind, str] = {
    "conv": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d deform_conv2d",
    "linear": "linear bilinear addmm transformer_encoder_layer_fwd",
    "recurrent": "lstm gru rnn_tanh rnn_relu",
    "contract": "scaled_dot_product_attention multi_head_attention_forward "
    "native_multi_head_attention matmul bmm mm baddbmm einsum tensordot grid_sample roi_align",
    "spatial": "max_pool2d avg_pool2d lp_pool2d adaptive_avg_pool2d adaptive_max_pool2d "
    "max_pool2d_with_indices fractional_max_pool2d batch_norm instance_norm group_norm "
    "local_response_norm pixel_shuffle pixel_unshuffle interpolate upsample unfold fold",
    "rectify": "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish softplus "
    "threshold glu",
    "squash": "sigmoid softmax log_softmax tanh hardsigmoid logsigmoid",
    "multiply": "mul multiply",
    "permute": "permute transpose t swapaxes swapdims movedim moveaxis adjoint T mT H mH",
    "view": "view reshape flatten squeeze unsqueeze unflatten contiguous expand clone dropout "
    "feature_dropout view_as reshape_as detach_ to float type",
    "select": "getitem narrow chunk split tensor_split unbind select index_select gather "
    "take_along_dim masked_select split_with_sizes",
    "norm": "layer_norm rms_norm",
    "concat": "cat concat concatenate hstack vstack stack",
    "pad": "pad",
}

KINDS: dict[str, Kind] = {name: kind for kind, text in _BY_KIND.items() for name in text.split()}

_OPERATORS: dict[str, str] = {
    "conv2d": "convolution convolution_overrideable",
    "batch_norm": "native_batch_norm native_batch_norm_legit native_batch_norm_legit_no_training "
    "native_batch_norm_legit_functional batch_norm_with_update cudnn_batch_norm",
    "group_norm": "native_group_norm",
    "layer_norm": "native_layer_norm",
    "rms_norm": "fused_rms_norm",
    "unfold": "im2col",
    "fold": "col2im",
    "pad": "constant_pad_nd pad_circular pad_enum reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d",
    "interpolate": "upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "upsample_nearest_exact1d upsample_nearest_exact2d upsample_nearest_exact3d "
    "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
    "upsample_bilinear2d_aa upsample_bicubic2d_aa",
    "grid_sample": "grid_sampler grid_sampler_2d grid_sampler_3d",
    "scaled_dot_product_attention": "scaled_dot_product_attention_math "
    "scaled_dot_product_flash_attention scaled_dot_product_flash_attention_for_cpu "
    "scaled_dot_product_efficient_attention scaled_dot_product_fused_attention_overrideable",
    "getitem": "slice index alias unsafe_index slice_copy select_copy",
    "cat": "slice_scatter select_scatter diagonal_scatter index_put unsafe_index_put",
    "to": "to_copy",
    "clone": "lift_fresh_copy",
    "view": "unsafe_view view_copy reshape_alias reshape_copy",
    "dropout": "native_dropout alpha_dropout feature_alpha_dropout",
    "permute": "permute_copy",
    "transpose": "transpose_copy",
    "split": "unsafe_split",
    "chunk": "unsafe_chunk",
    "split_with_sizes": "unsafe_split_with_sizes split_copy split_with_sizes_copy",
    "unsqueeze": "unsqueeze_copy",
    "squeeze": "squeeze_copy",
    "expand": "expand_copy",
}

OPERATORS = {name: function for function, text in _OPERATORS.items() for name in text.split()}
"""Operators of ATen, without underscores, whose function of torch has another name."""


def function_name(function: Any) -> str:
    """The name of a function of torch, without underscores; of a property that of the property.

    An operator of an exported program, `aten.im2col.default`, has that of the function, `unfold`.
    """
    if isinstance(function, OpOverload):
        operator = str(function.overloadpacket.__name__).strip("_")
        return OPERATORS.get(operator, operator)
    name: str = getattr(function, "__name__", "") or type(function).__name__
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    name = name.strip("_")
    if name in ("rmul", "imul"):
        return "mul"
    if name in ("rmatmul", "imatmul"):
        return "matmul"
    return name


PRODUCTS = {"matmul", "bmm", "mm", "baddbmm", "einsum", "tensordot"}


def kind_of(name: str, arguments: tuple[int | None, ...]) -> Kind:
    """The kind of the function `name`; products with a matrix that is stored are layers.

    A stored matrix that comes first, as queries do that are learned, is none.
    """
    kind = KINDS.get(name, "other")
    depends = [a is not None for a in arguments]
    if name in PRODUCTS and sum(depends) == 1 and (depends[0] or name == "einsum"):
        return "linear"
    return kind


def order_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The order of axes that a transposition gives its result; empty if it is not known."""
    x = args[0]
    axes = list(range(x.ndim))
    if name in ("permute",):
        given = args[1:] if len(args) > 1 else (kwargs.get("dims", ()),)
        flat = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
        return tuple(int(k) % x.ndim for k in flat)
    if name in ("transpose", "swapaxes", "swapdims"):
        pair = [*args[1:], *kwargs.values()]
        a, b = (int(k) % x.ndim for k in pair)
        axes[a], axes[b] = axes[b], axes[a]
        return tuple(axes)
    if name in ("mT", "adjoint", "mH", "t", "T", "H") and x.ndim >= 2:
        return (
            tuple(reversed(axes)) if name in ("T", "t", "H") else (*axes[:-2], axes[-1], axes[-2])
        )
    if name in ("movedim", "moveaxis"):
        return _moved(axes, *args[1:], **kwargs)
    return ()


def _moved(axes: list[int], source: Any, destination: Any) -> tuple[int, ...]:
    """The order that `Tensor.movedim` gives."""
    pairs = zip(_many(source), _many(destination), strict=True)
    places = {d % len(axes): s % len(axes) for s, d in pairs}
    rest = iter(k for k in axes if k not in places.values())
    return tuple(places[k] if k in places else next(rest) for k in axes)


def _many(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def is_wide(kind: Kind, args: tuple[Any, ...]) -> bool:
    """Whether a layer sees more than one unit of its input."""
    if kind != "conv":
        return False
    weight = args[1] if len(args) > 1 and isinstance(args[1], Tensor) else None
    return weight is None or any(n > 1 for n in weight.shape[2:])
