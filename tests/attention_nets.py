"""Networks with attention within windows, for tests of receptive fields."""

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS, HEADS = 8, 2

PRODUCTS = {
    "einsum": ("bhid,bhjd->bhij", "bhij,bhjd->bhid"),
    "dots": ("...id,...jd->...ij", "...ij, ...jd -> ...id"),
    "turned": ("abik,abjk->abji", "abji,abjk->abik"),
}
"""Logits and values by `torch.einsum`; in the last one the keys come first."""


def parted(y, side, *, apart):
    """Tokens (windows, side * side, channels) of a map (1, rows, columns, channels).

    The tokens of one are neighbours, or those `apart` at equal distances over the whole map.
    """
    _, rows, columns, channels = y.shape
    if apart:
        cut = y.view(1, side, rows // side, side, columns // side, channels)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, side * side, channels)
    cut = y.view(1, rows // side, side, columns // side, side, channels)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)


def joined(tokens, side, like, *, apart):
    """The map (1, rows, columns, channels), of the shape of `like`, of tokens from `parted`."""
    _, rows, columns, channels = like.shape
    cut = tokens.view(1, rows // side, columns // side, side, side, channels)
    order = (0, 3, 1, 4, 2, 5) if apart else (0, 1, 3, 2, 4, 5)
    return cut.permute(order).reshape(like.shape)


def excluded(like, side, shift):
    """Pairs of tokens (windows, 1, tokens, tokens) that rolled windows bring together (bool)."""
    regions = torch.zeros(1, *like.shape[1:3], 1)
    cuts = (slice(0, -side), slice(-side, -shift), slice(-shift, None))
    for number, (a, b) in enumerate((a, b) for a in cuts for b in cuts):
        regions[:, a, b] = number
    found = parted(regions, side, apart=False).squeeze(-1)
    return (found[:, None, :] != found[:, :, None])[:, None]


class Attention(nn.Module):
    """Attention within windows of a map (1, rows, columns, channels), written in the way `how`."""

    def __init__(self, how, *, side=4, shift=0, masked=True, apart=False):
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.last = nn.Linear(CHANNELS, CHANNELS)
        self.module = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True)
        self.how, self.side, self.shift, self.masked, self.apart = how, side, shift, masked, apart

    def forward(self, y):
        moved = y.roll((-self.shift, -self.shift), (1, 2)) if self.shift else y
        tokens = parted(moved, self.side, apart=self.apart)
        mask = excluded(y, self.side, self.shift) if self.shift and self.masked else None
        if self.how == "module":
            out = self.module(tokens, tokens, tokens, need_weights=False)[0]
        else:
            split = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            out = self.mixed(*split, mask).transpose(1, 2).flatten(2)
        out = joined(self.last(out), self.side, y, apart=self.apart)
        return out.roll((self.shift, self.shift), (1, 2)) if self.shift else out

    def mixed(self, q, k, v, mask):
        """Values (windows, heads, tokens, channels), mixed over the tokens."""
        if self.how == "fused":
            return F.scaled_dot_product_attention(q, k, v, None if mask is None else ~mask)
        if self.how == "linear":
            return F.softplus(q) @ (F.softplus(k).mT @ v)
        logits = q @ k.mT
        if self.how in PRODUCTS:
            first, second = PRODUCTS[self.how]
            logits = torch.einsum(first, q, k)
        if mask is not None and self.how in PRODUCTS:
            logits = logits.masked_fill(mask.mT if self.how == "turned" else mask, float("-inf"))
        if self.how in PRODUCTS:
            return torch.einsum(second, logits.softmax(-2 if self.how == "turned" else -1), v)
        if mask is not None and self.how == "added":
            logits = logits + torch.zeros(mask.shape).masked_fill(mask, -100.0)
        if mask is not None and self.how == "filled":
            logits = logits.masked_fill(mask, float("-inf"))
        if mask is not None and self.how == "chosen":
            logits = torch.where(mask, torch.tensor(-1e9), logits)
        return logits.softmax(-1) @ v


class OfWindows(nn.Module):
    """Blocks of `Attention` behind a stem, between two layers; one image at a time."""

    def __init__(self, *blocks, first=None, last=None):
        super().__init__()
        self.first = first or nn.Conv2d(3, CHANNELS, 4, 4)
        self.blocks = nn.ModuleList(blocks)
        self.last = last or nn.Identity()

    def forward(self, x):
        y = self.first(x).permute(0, 2, 3, 1)
        for block in self.blocks:
            y = y + block(F.layer_norm(y, y.shape[-1:]))
        return self.last(y.permute(0, 3, 1, 2))
