"""Words of the glossary that a page explains where they stand; docs/glossary.md has all."""

WORDS = {
    "ERF": (
        "effective receptive field: the input region that influences one unit, weighted"
        " by how strongly (Luo et al. 2016). Smaller than the receptive field"
    ),
    "black box": (
        "a model of which only inputs and outputs can be used: no gradients. Forward-"
        "only suites measure it"
    ),
    "expected sensitivity": (
        "the sensitivity map averaged over all random weights, computed exactly from "
        "the architecture by the suite structure"
    ),
    "imbalance": (
        "coefficient of variation of a phase profile: 0 if all phases are equally sensitive"
    ),
    "initial state": (
        "a seeded random initialisation of an architecture, as its library draws it; timm:NAME@init"
    ),
    "kernel padding": (
        "enlarging strided kernels to the next multiple of their stride, so that all "
        "phases are read equally often (Kim et al. 2023), and kernels of transposed convolutions, "
        "so that all phases of the output are reached equally often. Not the padding of the image "
        "border"
    ),
    "phase": (
        "position of a pixel within a stride cell: (row mod P, column mod P), with the "
        "total stride P"
    ),
    "phase profile": ("mean sensitivity of each of the P x P phases, divided by the mean of all"),
    "protocol": (
        "one definition of a suite's measurement, such as erf:kim2023; it has a "
        "version, and numbers of different versions are never compared"
    ),
    "receptive field": (
        "the input region that can influence one unit at all; follows from kernels, "
        "strides and dilations"
    ),
    "sensitivity": (
        "how strongly the target reacts to a pixel: mean squared gradient, as a map (height, width)"
    ),
    "stride cell": (
        "a block of P x P input pixels, with the total stride P: one unit of the target per cell"
    ),
    "target": (
        "the feature map that is measured: the last one of the coarsest resolution, "
        "before heads and global pooling (models.md), unless --target names another"
    ),
    "tie group": (
        "rows of the board that share a rank: no difference between them is shown, by "
        "tests of all pairs corrected together"
    ),
    "unit": ("one position of the target, with all its channels"),
    "weakest": (
        "the smallest value of a phase profile: 1 if all phases are equally sensitive, "
        "0 if the target ignores one"
    ),
}
