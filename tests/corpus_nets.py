"""The networks of the corpus (see `corpus`), written the way such networks are written."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


def conv(i, o, stride=1, kernel=3):
    """Convolution, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(i, o, kernel, stride, kernel // 2), nn.BatchNorm2d(o), nn.ReLU())


class Backbone(nn.Module):
    """Four stages at strides 2, 4, 8 and 16; residual blocks behind the first."""

    def __init__(self, widths=(8, 12, 16, 24)):
        super().__init__()
        self.stem = conv(3, widths[0], 2)
        self.stages = nn.ModuleList(Block(i, o) for i, o in pairwise(widths))

    def forward(self, x):
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


class Block(nn.Module):
    """A residual block that halves the resolution; its sum and ReLU are functions."""

    def __init__(self, i, o):
        super().__init__()
        self.first, self.norm = nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o)
        self.second, self.shortcut = nn.Conv2d(o, o, 3, 1, 1), nn.Conv2d(i, o, 1, 2)

    def forward(self, x):
        return F.relu(self.second(F.relu(self.norm(self.first(x)))) + self.shortcut(x))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = Backbone(), nn.Linear(24, 10)

    def forward(self, x):
        return self.head(self.body(x)[-1].mean((2, 3)))


class TutorialNet(nn.Module):
    """One pool that is called twice, as in torch's tutorial."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.pool, self.fc = nn.MaxPool2d(2, 2), nn.Linear(16 * 13 * 13, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        return self.fc(torch.flatten(self.pool(F.relu(self.conv2(x))), 1))


class UNet(nn.Module):
    """Encoder and decoder with skip connections; the output is as fine as the image."""

    def __init__(self):
        super().__init__()
        self.encoder = Backbone()
        self.ups = nn.ModuleList(conv(a + b, b) for a, b in ((24, 16), (16, 12), (12, 8)))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        *skips, y = self.encoder(x)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            y = up(torch.cat([F.interpolate(y, scale_factor=2.0), skip], 1))
        return self.head(F.interpolate(y, scale_factor=2.0, mode="bilinear"))


class Fpn(nn.Module):
    """Feature pyramid of three levels with one shared head, whose results are concatenated."""

    def __init__(self, towers=False):
        super().__init__()
        self.body = Backbone()
        self.lateral = nn.ModuleList(nn.Conv2d(c, 16, 1) for c in (12, 16, 24))
        self.smooth = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1) for _ in range(3))
        tower = [conv(16, 16)] if towers else []
        self.boxes = nn.Sequential(*tower, nn.Conv2d(16, 4, 3, 1, 1))
        self.scores = nn.Conv2d(16, 5, 3, 1, 1)

    def forward(self, x):
        maps = [f(m) for f, m in zip(self.lateral, self.body(x)[1:], strict=True)]
        for i in (1, 0):
            maps[i] = maps[i] + F.interpolate(maps[i + 1], scale_factor=2.0)
        maps = [f(m) for f, m in zip(self.smooth, maps, strict=True)]
        rows = [torch.cat([self.boxes(m), self.scores(m).sigmoid()], 1).flatten(2) for m in maps]
        return torch.cat(rows, 2)


class Yolo(nn.Module):
    """Three levels, each with its own head, as (batch, 4 + classes, anchors)."""

    def __init__(self, classes=5):
        super().__init__()
        self.body = Backbone()
        self.box = nn.ModuleList(nn.Conv2d(c, 4, 1) for c in (12, 16, 24))
        self.cls = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in (12, 16, 24))

    def forward(self, x):
        heads = zip(self.body(x)[1:], self.box, self.cls, strict=True)
        rows = [torch.cat([b(m), c(m).sigmoid()], 1).flatten(2) for m, b, c in heads]
        return torch.cat(rows, 2)


class PanYolo(nn.Module):
    """Top-down and bottom-up paths between the levels, then heads of two branches."""

    def __init__(self, classes=12):
        super().__init__()
        self.body = Backbone()
        self.down4 = conv(24 + 16, 16)
        self.down3 = conv(16 + 12, 12)
        self.step4, self.up4 = conv(12, 12, 2), conv(12 + 16, 16)
        self.step5, self.up5 = conv(16, 16, 2), conv(16 + 24, 24)
        widths = (12, 16, 24)
        self.box = nn.ModuleList(nn.Sequential(conv(c, c), nn.Conv2d(c, 4, 1)) for c in widths)
        self.cls = nn.ModuleList(
            nn.Sequential(conv(c, c), nn.Conv2d(c, classes, 1)) for c in widths
        )

    def neck(self, c3, c4, c5):
        p4 = self.down4(torch.cat([F.interpolate(c5, scale_factor=2.0), c4], 1))
        p3 = self.down3(torch.cat([F.interpolate(p4, scale_factor=2.0), c3], 1))
        p4 = self.up4(torch.cat([self.step4(p3), p4], 1))
        return p3, p4, self.up5(torch.cat([self.step5(p4), c5], 1))

    def forward(self, x):
        maps = self.neck(*self.body(x)[1:])
        rows = [
            torch.cat([b(m), c(m).sigmoid()], 1).flatten(2)
            for m, b, c in zip(maps, self.box, self.cls, strict=True)
        ]
        return torch.cat(rows, 2)


class Attention(nn.Module):
    """Attention of `x` over `memory`, written out; keys and values may be pooled by `reduce`."""

    def __init__(self, dim, heads=2, reduce=1):
        super().__init__()
        self.heads, self.reduce = heads, reduce
        self.q, self.kv, self.proj = (nn.Linear(dim, d) for d in (dim, 2 * dim, dim))
        self.pool = nn.Conv2d(dim, dim, reduce, reduce) if reduce > 1 else None

    def forward(self, x, memory=None, size=None):
        memory = x if memory is None else memory
        if self.pool is not None:
            b, _, c = memory.shape
            memory = self.pool(memory.transpose(1, 2).reshape(b, c, *size))
            memory = memory.flatten(2).transpose(1, 2)
        q = self.split(self.q(x))
        k, v = (self.split(t) for t in self.kv(memory).chunk(2, -1))
        weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        out = (weights @ v).transpose(1, 2)
        return self.proj(out.reshape(out.shape[0], out.shape[1], -1))

    def split(self, t):
        return t.reshape(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2)


class Encoder(nn.Module):
    """One block of a transformer: attention and MLP with layer norms before them."""

    def __init__(self, dim, reduce=1):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), Attention(dim, reduce=reduce)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x, size=None):
        x = x + self.attn(self.norm1(x), size=size)
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Tokens with a class token."""

    def __init__(self, patch=8, size=64, dim=16):
        super().__init__()
        self.side = size // patch
        self.embed = nn.Conv2d(3, dim, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.place = nn.Parameter(torch.randn(1, self.side**2 + 1, dim))
        self.blocks = nn.Sequential(Encoder(dim), Encoder(dim))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def tokens(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.norm(self.blocks(x))

    def forward(self, x):
        return self.head(self.tokens(x)[:, 0])


class DenseVit(Vit):
    """The same with a heat map of every class instead of one row of scores."""

    def __init__(self):
        super().__init__(patch=14, size=112)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        maps = self.tokens(x)[:, 1:].transpose(1, 2).reshape(x.shape[0], 16, self.side, self.side)
        return F.interpolate(self.head(maps), scale_factor=14.0, mode="bilinear").sigmoid()


class SegFormer(nn.Module):
    """Stages of tokens with pooled keys, and a head that joins all of them at stride 4."""

    def __init__(self):
        super().__init__()
        self.patches = nn.ModuleList(
            nn.Conv2d(i, o, k, s, k // 2)
            for i, o, k, s in ((3, 8, 7, 4), (8, 12, 3, 2), (12, 16, 3, 2))
        )
        self.blocks = nn.ModuleList(Encoder(d, r) for d, r in ((8, 8), (12, 4), (16, 2)))
        self.norms = nn.ModuleList(nn.LayerNorm(d) for d in (8, 12, 16))
        self.mix = nn.ModuleList(nn.Linear(d, 12) for d in (8, 12, 16))
        self.fuse, self.head = conv(36, 12, kernel=1), nn.Conv2d(12, 4, 1)

    def forward(self, x):
        found = []
        stages = zip(self.patches, self.blocks, self.norms, self.mix, strict=True)
        for patch, block, norm, mix in stages:
            x = patch(x)
            size = x.shape[2:]
            tokens = norm(block(x.flatten(2).transpose(1, 2), size))
            x = tokens.transpose(1, 2).reshape(x.shape[0], -1, *size)
            mixed = mix(tokens).transpose(1, 2).reshape(x.shape[0], 12, *size)
            found.append(mixed)
        large = [F.interpolate(m, size=found[0].shape[2:], mode="bilinear") for m in found]
        return self.head(self.fuse(torch.cat(large, 1)))


class HrNet(nn.Module):
    """Two parallel resolutions that exchange twice; both are joined for a dense output."""

    def __init__(self):
        super().__init__()
        self.stem, self.split = conv(3, 8, 4), conv(8, 12, 2)
        self.fine = nn.ModuleList(conv(8, 8) for _ in range(2))
        self.coarse = nn.ModuleList(conv(12, 12) for _ in range(2))
        self.up = nn.ModuleList(nn.Conv2d(12, 8, 1) for _ in range(2))
        self.down = nn.ModuleList(nn.Conv2d(8, 12, 3, 2, 1) for _ in range(2))
        self.last, self.head = conv(20, 16, kernel=1), nn.Conv2d(16, 3, 1)

    def forward(self, x):
        a = self.stem(x)
        b = self.split(a)
        for fine, coarse, up, down in zip(self.fine, self.coarse, self.up, self.down, strict=True):
            a, b = fine(a), coarse(b)
            a, b = (
                F.relu(a + F.interpolate(up(b), scale_factor=2.0)),
                F.relu(b + down(a)),
            )
        return self.head(self.last(torch.cat([a, F.interpolate(b, scale_factor=2.0)], 1)))


class Crnn(nn.Module):
    """A text reader: rows are halved more often than columns, an LSTM reads the last row."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 8, 2), conv(8, 12, 2), conv(12, 16, (2, 1)), conv(16, 16, (2, 1)),
            nn.Conv2d(16, 16, (2, 3), 1, (0, 1)), nn.ReLU(),
        )  # fmt: skip
        self.lstm, self.head = nn.LSTM(16, 8, bidirectional=True), nn.Linear(16, 11)

    def forward(self, x):
        rows = self.body(x).squeeze(2).permute(2, 0, 1)
        return self.head(self.lstm(rows)[0]).log_softmax(2)


class Detr(nn.Module):
    """An encoder over the last map; as many queries as it has units read it."""

    def __init__(self, queries=16, boxes_only=False):
        super().__init__()
        self.body, self.proj = Backbone(), nn.Conv2d(24, 16, 1)
        self.place = nn.Parameter(torch.randn(16, 16))
        self.encoder, self.norm = Encoder(16), nn.LayerNorm(16)
        self.queries = nn.Parameter(torch.randn(queries, 16))
        self.reads = nn.ModuleList(Attention(16) for _ in range(2))
        self.mixes = nn.ModuleList(Encoder(16) for _ in range(2))
        self.scores, self.boxes_only = nn.Linear(16, 6), boxes_only
        self.boxes = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x):
        memory = self.proj(self.body(x)[-1]).flatten(2).transpose(1, 2) + self.place
        memory = self.norm(self.encoder(memory))
        t = self.queries.expand(x.shape[0], -1, -1)
        for read, mix in zip(self.reads, self.mixes, strict=True):
            t = mix(t + read(t, memory))
        boxes = self.boxes(t).sigmoid()
        return boxes if self.boxes_only else (self.scores(t), boxes)


class TransformerDetr(nn.Module):
    """A DETR of torch's own transformer, whose tokens come before the images."""

    def __init__(self):
        super().__init__()
        self.body, self.proj = Backbone(), nn.Conv2d(24, 16, 1)
        self.transformer = nn.Transformer(16, 2, 1, 1, 32, batch_first=False)
        self.queries, self.boxes = nn.Parameter(torch.randn(16, 1, 16)), nn.Linear(16, 4)

    def forward(self, x):
        tokens = self.proj(self.body(x)[-1]).flatten(2).permute(2, 0, 1)
        t = self.transformer(tokens, self.queries.expand(-1, x.shape[0], -1))
        return self.boxes(t).sigmoid().transpose(0, 1)


class TwoStreams(nn.Module):
    """Two branches of different resolution, joined as vectors."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(conv(3, 8, 4), conv(8, 8))
        self.coarse = nn.Sequential(conv(3, 8, 4), conv(8, 12, 2), conv(12, 16, 2))
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        maps = self.fine(x), self.coarse(x)
        return self.head(torch.cat([m.mean((2, 3)) for m in maps], 1))


class Auxiliary(nn.Module):
    """A second head, for training, on the map before the last stage."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.aux = Backbone(), nn.Linear(24, 10), nn.Linear(16, 10)
        self.deep = nn.Sequential(conv(24, 24), conv(24, 24))

    def forward(self, x):
        maps = self.body(x)
        last = self.deep(maps[-1])
        return self.head(last.mean((2, 3))), self.aux(maps[-2].mean((2, 3)))


class PyramidPooling(nn.Module):
    """A head that pools the last map to few bins and joins them to it, as in PSPNet."""

    def __init__(self):
        super().__init__()
        self.body = Backbone()
        self.mix = nn.ModuleList(conv(24, 6, kernel=1) for _ in range(2))
        self.join, self.head = conv(36, 16), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.body(x)[-1]
        pooled = [f(F.avg_pool2d(x, n)) for f, n in zip(self.mix, (2, 4), strict=True)]
        pooled = [F.interpolate(p, size=x.shape[2:], mode="nearest") for p in pooled]
        return F.interpolate(self.head(self.join(torch.cat([x, *pooled], 1))), scale_factor=16.0)


class GruLast(Crnn):
    """A stack of two GRUs over the columns, batch first, is the last step."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(16, 8, 2, bidirectional=True, batch_first=True)

    def forward(self, x):
        return self.gru(self.body(x).squeeze(2).permute(0, 2, 1))[0]


class LastState(Crnn):
    """A stack of two LSTMs gives its last state alone, which has no columns."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 24, 2), nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.lstm(self.body(x).squeeze(2).permute(2, 0, 1))[1][0][-1])
