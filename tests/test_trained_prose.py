"""The numbers in the findings of `results/trained` are those of its records and tables."""

import csv
import re
from functools import cache

import pytest
from test_trained_published import PUBLISHED, packed

FILES = {
    "mobilenetv2_100": "torchvision.pth",
    "tf_efficientnet_lite0": "lite0.pth",
    "tf_efficientnet_lite1": "lite1.pth",
    "tf_efficientnet_lite2": "lite2.pth",
}
RECORDS = cache(packed)


def values(metric, state, fill="none", name="as-is", files=FILES):
    """A metric (`suite.name`) of the four classifiers, `init` or `trained`."""
    suite, _, metric = metric.partition(".")
    found = RECORDS(name)
    records = [
        found[f"timm:{net}@{'init' if state == 'init' else file}", fill, suite]
        for net, file in files.items()
    ]
    return [record.metrics[metric].value for record in records]


def rows(table, column, **known):
    """A column of a table of the set, of the rows with these entries."""
    with (PUBLISHED / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [float(line[column]) for line in lines if all(line[k] == v for k, v in known.items())]


def ends(numbers, scale=1):
    known = [n * scale for n in numbers if n is not None]
    return [min(known), max(known)]


def percent(numbers):
    return ends(numbers, 100)


def every_float_file(metric):
    """A metric of `perturbation` of all trained networks, in both variants."""
    return [
        record.metrics[metric].value
        for name in ("as-is", "recalibrated")
        for (reference, _, suite), record in RECORDS(name).items()
        if suite == "perturbation" and not reference.endswith("@init") and metric in record.metrics
    ]


LITE = {name: file for name, file in FILES.items() if "lite" in name}
SAME, OTHERS, LEAVES = (
    f"box, matched on {what}" for what in ("the same photographs", "the other half", "dead leaves")
)

TOLD = {
    r"`box` alone keeps (\d+) to (\d+) % of the top classes": lambda: percent(
        values("fidelity.top1_agreement", "trained", "box")
    ),
    r"names (\d+) to (\d+) of the 20 labelled": lambda: ends(
        rows("held-out", "right", variant="box")
    ),
    r"where the originals name (\d+) or (\d+)\.": lambda: ends(
        rows("held-out", "right", variant="as it is")
    ),
    r"With the norms recalibrated these are (\d+) to (\d+) %, and (\d+) to (\d+)\.": lambda: [
        *percent(values("fidelity.top1_agreement", "trained", "box", "recalibrated")),
        *ends(rows("held-out", "right", variant=SAME)),
    ],
    r"more even than they were \(([\d.]+), ([\d.]+), ([\d.]+)\)": lambda: values(
        "deadpixel.imbalance", "trained", "box", "recalibrated", LITE
    ),
    r"MobileNetV2 does not \(([\d.]+) against ([\d.]+)\)": lambda: [
        values("deadpixel.imbalance", "trained", fill, "recalibrated")[0]
        for fill in ("box", "none")
    ],
    r"not seen agreement is (\d+) to (\d+) %": lambda: percent(
        rows("held-out", "agreement", variant=OTHERS)
    ),
    r"after seeded dead leaves it is (\d+) to (\d+) %": lambda: percent(
        rows("held-out", "agreement", variant=LEAVES)
    ),
    r"untrained net falls to ([\d.]+) to ([\d.]+) at the border": lambda: ends(
        values("padding.constant_border_ratio", "init")
    ),
    r"top against bottom half at most (\d+) % of the mean": lambda: [
        100 * max(values("padding.constant_top_bottom", "init"))
    ],
    r"centre is ([\d.]+) in MobileNetV2 and ([\d.]+) in Lite2": lambda: [
        values("padding.constant_border_ratio", "trained")[n] for n in (0, 3)
    ],
    r"halves differ by (\d+) and (\d+) %": lambda: [
        100 * values("padding.constant_top_bottom", "trained")[n] for n in (0, 3)
    ],
    r"so that its ([\d.]+) says no more": lambda: [
        values("padding.constant_border_ratio", "trained")[1]
    ],
    r"loses (\d+) to (\d+) % of its response between centre and border in untrained nets, "
    r"(\d+) to (\d+) % in trained": lambda: [
        *percent(values("padding.border_drop", "init")),
        *percent(values("padding.border_drop", "trained")),
    ],
    r"drop of untrained nets \(by ([\d.]+) to ([\d.]+)\)": lambda: ends(
        [-v for v in values("padding.exchange_reflect", "init")]
    ),
    r"raises that of trained ones \(by ([\d.]+) to ([\d.]+)\)": lambda: ends(
        values("padding.exchange_reflect", "trained")
    ),
    r"last map has ([\d.]+) to ([\d.]+) of the centre's": lambda: ends(
        values("padding.border_ratio", "trained")
    ),
    r"that of an untrained one ([\d.]+) to ([\d.]+)\.": lambda: ends(
        values("padding.border_ratio", "init")
    ),
    r"same photographs give ([\d.]+) to ([\d.]+), and": lambda: ends(
        rows("rolled", "rolled", state="trained")
    ),
    r"Lite0 ([\d.]+) against ([\d.]+), Lite1 ([\d.]+) against ([\d.]+)\.": lambda: [
        values("perturbation.leverage", state)[n] for n in (1, 2) for state in ("trained", "init")
    ],
    r"`box` leaves ([\d.]+) to ([\d.]+)\. \*\*The eff": lambda: ends(
        values("perturbation.leverage", "trained", "box")
    ),
    r"when trained\*\*: (\d+), (\d+), (\d+) and (\d+) px": lambda: values("erf.radius", "trained"),
    r"Lite0, 1, 2\) against (\d+), (\d+), (\d+) and (\d+)\.": lambda: values("erf.radius", "init"),
    r"MobileNetV2 alone \((\d+) against (\d+) px\)": lambda: [
        values("erf.luo_size", state)[0] for state in ("trained", "init")
    ],
    r"others have (\d+), (\d+) and (\d+) against (\d+), (\d+) and (\d+)\.": lambda: [
        *values("erf.luo_size", "trained", files=LITE),
        *values("erf.luo_size", "init", files=LITE),
    ],
    r"keep their class\*\* on (\d+) to (\d+) % of photographs, in untrained nets on (\d+) to "
    r"(\d+) %; with `box` alone on (\d+) to (\d+) %, recalibrated on (\d+) to (\d+) %": lambda: [
        *percent(values("perturbation.shift_consistency", "trained")),
        *percent(values("perturbation.shift_consistency", "init")),
        *percent(values("perturbation.shift_consistency", "trained", "box")),
        *percent(values("perturbation.shift_consistency", "trained", "box", "recalibrated")),
    ],
    r"differ by ([\d.]+) to ([\d.]+) % on trained nets": lambda: percent(
        every_float_file("agreement_direction")
    ),
    r"as profiles by ([\d.]+) to ([\d.]+) standard": lambda: ends(
        every_float_file("agreement_gradient_z")
    ),
}


@pytest.mark.parametrize("sentence", TOLD)
def test_a_sentence_has_the_numbers_of_the_records(sentence):
    """Counted from the packed records and the tables, to the digits that are printed."""
    prose = " ".join((PUBLISHED / "README.md").read_text(encoding="utf-8").split())
    (told,) = re.findall(sentence, prose)
    told = [told] if isinstance(told, str) else told
    exact = TOLD[sentence]()
    assert len(told) == len(exact)
    for shown, value in zip(told, exact, strict=True):
        half = 0.5 * 10.0 ** -len(shown.partition(".")[2])
        assert abs(float(shown) - value) <= half * 1.02, (shown, value)


def test_what_all_photographs_of_the_fit_could_show_is_what_its_readme_says():
    """The lower end of an exact interval (Clopper and Pearson) for n of n: 0.025^(1/n)."""
    prose = " ".join((PUBLISHED.parent / "fit/README.md").read_text(encoding="utf-8").split())
    ((count, told),) = re.findall(
        r"with (\d+) photographs even all.*?no more than ([\d.]+)\.", prose
    )
    assert float(told) == pytest.approx(0.025 ** (1 / int(count)), abs=5.1e-4)
