"""Matrix products, attention and softmax as ONNX defines them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import OperatorCall

if TYPE_CHECKING:
    from collections.abc import Callable


def matmul(call: OperatorCall, a: Tensor, b: Tensor) -> Tensor:
    """Matrix product; with a constant matrix on the right it is a linear layer."""
    if b.ndim == 2 and a.ndim > 1 and call.node.inputs[1] in call.node.constant:
        return F.linear(a, b.t())
    return torch.matmul(a, b)


def gemm(call: OperatorCall, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Product of A and B, either transposed, times alpha, plus beta times C."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    a = a.t() if call.get("transA") else a
    weight = b if call.get("transB") else b.t()
    if alpha == beta == 1.0 and (c is None or c.ndim == 1):
        return F.linear(a, weight, None if c is None else c.expand(weight.shape[0]))
    product: Tensor = F.linear(a, weight) * alpha
    return product if c is None else product + c * beta


def fused_matmul(call: OperatorCall, a: Tensor, b: Tensor) -> Tensor:
    """onnxruntime's scaled product of transposed matrices."""
    a = a.transpose(-1, -2) if call.get("transA") else a
    b = b.transpose(-1, -2) if call.get("transB") else b
    return torch.matmul(a, b).mul(call.get("alpha", 1.0))


def hardmax(call: OperatorCall, x: Tensor) -> Tensor:
    """One at the first maximum, zero elsewhere."""
    axis = call.get("axis", -1)
    return F.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)


def along_axis(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A softmax along an axis; before opset 13 over all axes from it on."""

    def operator(call: OperatorCall, x: Tensor) -> Tensor:
        if call.opset >= 13:
            return function(x, dim=call.get("axis", -1))
        axis = call.get("axis", 1) % max(x.ndim, 1)
        rows = x.reshape(math.prod(x.shape[:axis]), -1)
        return function(rows, dim=1).reshape(x.shape)

    return operator


_ATTENTION = {
    *("is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode"),
    *("scale", "softcap", "softmax_precision"),
}


def attention(
    call: OperatorCall,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *rest: Tensor | None,
) -> tuple[Any, ...]:
    """Scaled dot-product attention (opset 23), without caches and soft caps."""
    unknown = call.node.attributes.keys() - _ATTENTION
    if any(r is not None for r in rest) or call.get("softcap") or unknown:
        raise call.decline("attention with a cache, a soft cap or a window")
    if mask is not None and call.get("is_causal"):
        raise call.decline("attention that is both masked and causal")
    if len(call.node.outputs) > 3 and call.node.outputs[3]:
        raise call.decline("the score output of attention")
    flat = query.ndim == 3
    if flat:
        heads = call.get("kv_num_heads")
        query = _heads(query, call.get("q_num_heads"))
        key, value = _heads(key, heads), _heads(value, heads)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(query.dtype)
    y = F.scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        is_causal=bool(call.get("is_causal", 0)),
        scale=call.get("scale"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return (y.transpose(1, 2).flatten(2) if flat else y), key, value


def _heads(x: Tensor, count: int) -> Tensor:
    """(batch, tokens, heads * size) to (batch, heads, tokens, size)."""
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


LINEAR: dict[str, Callable[..., Any]] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Einsum": lambda call, *xs: torch.einsum(call.get("equation"), *xs),
    "Softmax": along_axis(F.softmax),
    "LogSoftmax": along_axis(F.log_softmax),
    "Hardmax": hardmax,
    "Attention": attention,
    "com.microsoft:FusedMatMul": fused_matmul,
}
