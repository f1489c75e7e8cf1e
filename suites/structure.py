"""`structure`: what follows from the architecture alone, without weights, data or noise.

Maps
----
sensitivity (height, width)
    Expected sensitivity, E over independent zero-mean weights of sum_o (dF_o / dx_ij)^2 (ours; see
    `architecture.propagate`), scaled to mean 1.
path_count (height, width)
    Number of paths from each pixel to the target, every kernel 1 (Perone 2017; Alsallakh et al.
    2021), one channel per layer and the mean of joined ones: exact integers, unless a note says
    that they do not fit into float64, or that joined layers, gates or means weigh them.
phase_profile (phase row, phase column)
    Phase profile of `sensitivity` (see `phases`), the period being the target's total stride. A
    stride that is not a whole number of pixels leaves no phases; it is never rounded.

Metrics
-------
`weakest`, `imbalance`, `ratio`, `by_period_p`, `relL1` and `relL2` are computed from the expected
sensitivity as `deadpixel` computes them from a measured one. `path_ratio`: `ratio` of the path
counts. `receptive_field` and `receptive_field_columns` are those of the local path; a note says if
other paths make it global (see `receptive_field`). `coverage`: how often the least-read phase is
read, over the mean, in the layer where this is lowest (Odena et al. 2016). `uneven_layers` and
`largest_remainder`: strided layers with padded rows or columns at the end that are never read, and
the most of these (Alsallakh). `cropping_layers`: strided layers that leave rows or columns of the
map itself at its end unread, as a 1 x 1 kernel of stride 2 does on an even size.

Tables
------
layers: every convolution and pooling in execution order. uneven: layers with unread padding.
even_sizes: input sizes near the given one without unread padding or pixels. culprits: for each
strided layer
that reads its input's phases unequally, the `imbalance` if that layer alone is padded with a box,
and the reduction, largest first. by_period: all shares of the variance.

What is refused
---------------
An operation without an energy rule is never run as it is: the suite is skipped, and the reason
names the operation and the layer.

Assumptions
-----------
Weights of variance 1 / fan_in and norm and layer scales of 1, whatever the model's own initial
state; a white image; branches with random weights or activations of their own are independent.
Smaller initial weights (timm's standard deviation of 0.02) make the residual branches weak, so that
the pattern of the stem is less diluted: pvt_v2_b0, starnet_s1, mambaout_femto and convformer_s18
measure 0.09 to 0.25 times the `weakest` expected here, and 0.98 to 1.03 times with weights of
variance 1 / fan_in; poolformer_s12 0.48 and 1.13 times (results/timm-init). Buffers that a library
fills from a checkpoint alone, as csatv2's matrix of cosines, count as weights.
Fixed functions of one tensor (mean pools, interpolations, fixed filters and matrices, running sums,
moved and copied units) that follow one another or meet in a sum, without random weights or an
activation between them, add up in amplitude: the coefficients of all of them together are squared
(`fixed_functions`). Where these are not known, as behind a skip connection, the squares of each are
multiplied or added, and a note names them. The note also names windows that overlap on both sides
of random weights. Weights are the same at all positions, and of their own for each pair of channels
and each tap, so that two paths of one pixel add up in amplitude only through the same weights: as
units in two places of one channel. Windows without overlap, channels that are shuffled, joined to
others or added to them, and partial residuals leave the product of squares exact. For two blurs of
stride 2 around a 3 x 3 layer with a ReLU, `weakest` is 0.68, and 0.44 is expected. In networks with
skip connections the difference is small (resnetblur50 measures 0.70, expected 0.68). What leads to
a gate or to a softmax alone gets no note, as these are constants here. Uniform attention gives all
queries a share of each token, so that a pool behind it has a note. In the rows of culprits a
padded pool counts by the product of squares.

A maximum passes one of several entries, each as likely as the others, whatever their values are:
what a ReLU made 0 counts too, so that a max-pool before or behind one keeps up to twice as much as
counted. Maxima also vary less than single units, and what a layer or group norm takes off an
activation, its mean, counts: norms divide by less than counted, and pass more. Where all terms of a
sum are behind the same of these, none matters. Where they are not, a note says so: beside a 1 x 1
layer, a rectified 3 x 3 max-pool is off by 0.29, one with a batch norm behind it by 0.40. At padded
borders, where units sum fewer terms, they count as often the largest as others (0.50 for 0.38 in
the first row). An entry may be the largest in each of several windows that overlap, and an
activation passes half of the amplitude of a unit. A mean of such maxima, and a sum or product of
functions of one unit, have a note: of a 3 x 3 max-pool and a mean behind it, both of stride 2, the
map is off by 0.22 in the mean. Weights that are applied again to the same units, or to what they
returned, count as others, with a note; so does what a sum reads of gates alone, as nothing.
Squares, roots and norms are statistics: where one is a term of a sum, or joined to units, there is
no map; as a factor of units it is a constant (the norm of 8 channels as a factor: 0.45 for 0.53).
Gates are constants too, with a note where they differ from place to place: what leads to the gate
alone counts as nothing (up to 0.2 off in `weakest` where that is another layer). An activation of
what an activation returned, a comparison of such units with others, and one of maxima have a note.
Units that broadcasting copies are copies like others. Tokens of attention that have units in
common, as behind earlier attention or a pool, count as independent: their share is 1 / n.

An activation passes half, as a ReLU does, whatever units it reads: beside a layer without one, and
with units of variance 1, `weakest` is 0.33 for 0.51 (SELU), 0.39 (ELU), 0.28 (SiLU, hard swish),
0.23 (softplus) or 0.18 (softsign). Of a leaky ReLU the slope counts from 0.1 on. An exponential
passes all, with a note. So has a norm of activations that are joined to other units (0.54 for 0.61
in a stem that joins a layer and a pool before a batch norm). What is detached is a constant, with a
note where it is added; where it chooses, or leaves torch as a number, there is no map.

Learned scales count as ones, and so does what is computed from them: two branches mixed by a and 1
- a count alike. A unit times a gate of itself is an activation (SiLU, hard swish); a line that is
bounded on both sides (`relu6(x + 3) / 6`) is a gate. A number that is added to units counts where
they multiply others, `a (1 + b)`, or pass a ReLU; exponentials by which units are multiplied have a
mean square of 1, with a note. What is not negative has a mean of its own, which is not followed: as
a factor with a number added to it, `1 + |b|` or a softplus, it has a note. So have sums over the
places of a map of what has a mean there, where units are multiplied by them: activations, with
random weights behind them or not (a mean of units behind a ReLU and a 1 x 1 layer as a factor:
`weakest` is 0.97 for 0.68), and products of two functions of the map, as keys times values in
linear attention (a row of the map was off by 0.5). They are larger than sums of units around 0. Any
other bound than 0 (`clamp(min=1e-6)`) is a guard against overflow, and passes all. A ReLU of what
is not negative passes all; of a sum of such a unit and another, it passes half (after four residual
blocks without norms, the map is off by 0.59 beside a layer that skips them). Weights that a network
computes by functions that leave no mean of 0 (softplus, softmax), from a fixed basis, or by joining
a kernel to itself, have a note.

In an ONNX file whose convolutions have no norms, and none of the names by which exporters mark
folded ones, each convolution is given one (docs/onnx.md). Where the map would be another without
them, a note says so.

A file does not say which of its numbers were learned. Stored factors that differ between places of
the map are fixed masks, and a depthwise filter that is the same for all channels is a fixed one.
So is, with a note, a matrix whose rows are alike, or one without negative numbers whose rows have
equal sums (means, blurs, permutations). Other factors, filters and matrices are random weights;
where many numbers of a matrix are zero, or few are different (Fourier transforms), a note says so.

All other values are exact for the architecture, without interval or seed. New taps of a `zero`
kernel padding count like the others, since training can change them; while they are 0, the network
computes the same function as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..adapters.errors import NotApplicableError
from .base import Context, Estimate, Measurement, Metric, Suite, described, missing
from .measuring import findings, phases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from ..adapters.model import Model
    from .architecture.spans import UnitSpans
    from .architecture.windows import Layer
    from .base import Array, Measured

MAX_CULPRITS = 16
"""Most layers that are recomputed one by one; a note says if there are more."""

LARGEST_EXACT_INTEGER = 2.0**53

_PHASED = (
    Metric("weakest", "smallest phase of the expected sensitivity", "ratio", "higher", even=1.0),
    Metric("imbalance", "coefficient of variation over the phases", "ratio", "lower", even=0.0),
    Metric("ratio", "largest over smallest phase", "ratio", "lower", low=1.0, even=1.0),
    *(
        Metric(f"by_period_{p}", f"variance that period {p} adds", "variance", "lower", even=0.0)
        for p in phases.REPORTED_PERIODS
    ),
)

_OTHERS = (
    Metric("relL1", "mean |first difference| / mean", "ratio", "lower", even=0.0),
    Metric("relL2", "mean |second difference| / mean", "ratio", "lower", even=0.0),
    Metric("path_ratio", "largest over smallest phase, paths", "ratio", "lower", low=1.0, even=1.0),
    Metric("receptive_field", "theoretical, local path, rows", "pixels", "neither"),
    Metric("receptive_field_columns", "the same, columns", "pixels", "neither"),
    Metric("target_stride", "input rows per target row", "pixels", "neither"),
    Metric("coverage", "fewest over mean reads, worst layer", "ratio", "higher", 0.0, 1.0, 1.0),
    Metric("uneven_layers", "strided layers with unread padding", "layers", "lower", even=0.0),
    Metric("cropping_layers", "strided layers with unread pixels", "layers", "lower", even=0.0),
    Metric("largest_remainder", "most rows of padding unread", "rows", "lower", even=0.0),
)

_METRICS = described(
    (*_PHASED, *_OTHERS),
    {
        "weakest": "least sensitive phase",
        "imbalance": "imbalance of the phases",
        "ratio": "most over least sensitive phase",
        **{f"by_period_{p}": f"variance from stride period {p}" for p in phases.REPORTED_PERIODS},
        "relL1": "first difference of the map",
        "relL2": "second difference of the map",
        "path_ratio": "most over fewest paths of a phase",
        "receptive_field": "theoretical receptive field, rows",
        "receptive_field_columns": "the same, columns",
        "target_stride": "stride of the target, rows",
        "coverage": "reads of the least-read phase",
        "uneven_layers": "layers with unread padding",
        "cropping_layers": "layers with unread pixels",
        "largest_remainder": "most rows of unread padding",
    },
    caveats={
        "weakest": "It is an expectation over random weights: training may change it.",
        "relL1": "The fall towards the border counts too, so that small inputs look rougher.",
        "coverage": "It is the worst single layer's: other branches may read what it skips.",
    },
    main=("weakest", "imbalance", "uneven_layers"),
)


@dataclass(frozen=True)
class Structure(Suite):
    """The suite; its module's docstring is the definition."""

    name: ClassVar[str] = "structure"
    protocols: ClassVar[Mapping[str, str]] = {"expected": "2"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "weakest"
    random: ClassVar[bool] = False
    question: ClassVar[str] = "what the architecture alone implies"
    topic: ClassVar[str] = "Evenness"
    captions: ClassVar[Mapping[str, str]] = {
        "culprits": "Strided layers, and the imbalance once the kernel of each alone is padded",
        "uneven": "Layers with unread padding, and how many rows and columns",
        "by_period": "Variance over the phases by stride period",
        "layers": "Convolutions and poolings in execution order",
    }

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Measure the architecture of `model`; `maps` and `context` are not used.

        Raises `NotApplicableError` if the model has no skeleton, or an operation without a rule.
        """
        return measure_skeleton(model.skeleton(), model.spec.shape)

    def causes(self, found: Measured) -> list[str]:
        """Strided layers at fault, the weakest phase, stride periods, layers that skip pixels."""
        skipping = [
            findings.layer_name(row)
            for row in found.tables.get("layers", [])
            if any(min(counts) == 0 for counts in row["coverage"])
        ]
        return [
            *findings.layers_at_fault(found),
            *findings.least_sensitive_phase(found),
            *findings.period_shares(found),
            *(
                [f"windows smaller than their stride: {findings.join_names(skipping)}"]
                if skipping
                else []
            ),
        ]

    def remedies(self, found: Measured, size: tuple[int, int]) -> list[str]:
        """Kernel padding of the worst layer, and input sizes that leave no padding unread."""
        return [*findings.worst_layer(found), *findings.even_input_sizes(found, size)]


def measure_skeleton(skeleton: nn.Module, size: tuple[int, int, int]) -> Measurement:
    """Measure any module that maps (1, channels, height, width) to its target; see `Structure`.

    `size` is (channels, height, width) of the input.
    """
    from .architecture.expected_maps import expected_maps
    from .architecture.propagate import path_count_map

    paths, trace, units = path_count_map(skeleton, size)
    culprits = [layer for layer in trace.layers if layer.strided and not layer.even]
    tried = [layer.index for layer in culprits[:MAX_CULPRITS]]
    energies, assumed = expected_maps(skeleton, size, tried)
    pixels = (size[1], size[2])
    expected = energies[0] / energies[0].mean()
    counts: Array = paths.numpy()
    found = Measurement({}, {"sensitivity": expected, "path_count": counts})
    found.tables["layers"] = [layer.row() for layer in trace.layers]
    _read_phases(found, energies, counts, units)
    if "phase_profile" in found.maps:
        _read_culprits(found, energies, culprits, found.maps["phase_profile"].shape)
    for order in (1, 2):
        value = float(phases.relative_difference(expected, order))
        found.metrics[f"relL{order}"] = Estimate(value)
    _read_layers(found, trace.layers, pixels, units.stride())
    _read_field(found, units)
    found.notes += assumed
    if counts.max() > LARGEST_EXACT_INTEGER:
        found.notes.append(
            "path counts are too large for exact integers in float64 and are rounded"
        )
    elif bool((counts % 1).any()):
        weighed = "joined layers, gates or means weigh the paths"
        found.notes.append(f"path counts are no whole numbers: {weighed}")
    return found


def _read_phases(
    found: Measurement,
    energies: Array,
    counts: Array,
    units: UnitSpans,
) -> None:
    """Fill in the metrics of the phase profile, or the reason why there is none."""
    stride = phases.repeating_stride(energies[0], units.stride(), found.notes)
    period = (
        stride
        if isinstance(stride, str)
        else phases.usable_period((energies.shape[1], energies.shape[2]), stride, found.notes)
    )
    if isinstance(period, str):
        names = (*(metric.name for metric in _PHASED), "path_ratio")
        found.leave_out(names, period)
        return
    profile = phases.phase_profile(energies[:1], period)[0]
    found.maps["phase_profile"] = profile
    found.tables[findings.LEAST_PHASE] = findings.least_phase(profile)
    found.metrics["weakest"] = Estimate(float(phases.least_sensitive(profile)))
    found.metrics["imbalance"] = Estimate(float(phases.imbalance(profile)))
    found.metrics["ratio"] = _ratio(profile)
    found.metrics["path_ratio"] = _ratio(phases.phase_profile(counts[None], period)[0])
    shares = {p: float(v) for p, v in phases.by_period(profile).items()}
    found.tables["by_period"] = [{"period": p, "variance": v} for p, v in shares.items()]
    for p in phases.REPORTED_PERIODS:
        found.metrics[f"by_period_{p}"] = (
            Estimate(max(0.0, shares[p]))
            if p in shares
            else missing(f"the period is not a multiple of {p}")
        )


def _ratio(profile: Array) -> Estimate:
    value = float(phases.ratio(profile))
    if np.isfinite(value):
        return Estimate(value)
    return missing(f"{phases.WEAKEST_IS_ZERO}: the ratio is unbounded")


def _read_culprits(
    found: Measurement, energies: Array, culprits: Sequence[Layer], period: tuple[int, ...]
) -> None:
    """Fill in the table of culprits, sorted by how much padding each layer alone reduces."""
    first, *others = phases.imbalance(phases.phase_profile(energies, (period[0], period[1])))
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "kernel": tuple(w.kernel for w in layer.windows),
            "stride": tuple(w.stride for w in layer.windows),
            "imbalance_padded": float(other),
            "reduction": float(first - other),
        }
        for layer, other in zip(culprits, others, strict=False)
    ]
    found.tables["culprits"] = sorted(rows, key=lambda row: -row["reduction"])
    if len(culprits) > len(rows):
        found.notes.append(
            f"culprits: only the first {len(rows)} of {len(culprits)} layers were tried"
        )


def _read_layers(
    found: Measurement, layers: Sequence[Layer], pixels: phases.Pair, stride: tuple[float, float]
) -> None:
    """Fill in coverage and uneven padding."""
    from .architecture.receptive_field import cropping_layers, even_sizes, uneven_rows

    shares = [n.min() / n.mean() for n in (layer.coverage() for layer in layers if layer.strided)]
    found.metrics["coverage"] = (
        Estimate(float(min(shares))) if shares else missing("no layer has a stride")
    )
    rows = found.tables["uneven"] = uneven_rows(layers)
    remainder = max((max(row["rows"], row["columns"]) for row in rows), default=0)
    found.metrics["uneven_layers"] = Estimate(float(len(rows)))
    found.metrics["cropping_layers"] = Estimate(float(len(cropping_layers(layers))))
    found.metrics["largest_remainder"] = Estimate(float(remainder))
    reach = (ceil(2 * stride[0]), ceil(2 * stride[1]))
    sizes = even_sizes(layers, pixels, reach)
    found.tables["even_sizes"] = [
        {"axis": axis, "size": n}
        for axis, numbers in zip(("height", "width"), sizes, strict=True)
        for n in numbers
    ]


def _read_field(found: Measurement, units: UnitSpans) -> None:
    """Fill in the theoretical receptive field."""
    from .architecture.receptive_field import summarise_field

    found.metrics["target_stride"] = Estimate(units.stride()[0])
    names = ("receptive_field", "receptive_field_columns")
    try:
        local = summarise_field(units)
    except NotApplicableError as error:
        found.leave_out(names, error)
        return
    found.metrics |= {n: Estimate(v) for n, v in zip(names, local.size, strict=True)}
    if local.global_:
        found.notes.append("the receptive field is global; its size is that of the local path")


STRUCTURE = Structure()
