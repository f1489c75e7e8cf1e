"""What the tests of the regression gate share: a baseline, checks of it, what they found."""

from __future__ import annotations

from small_nets import SPEC, TOOLS, baseline, net, opened

from perimetry.bench.regression import check as gate
from perimetry.bench.regression.report import check_to_text
from perimetry.bench.regression.result import RegressionVerdict
from perimetry.bench.regression.tolerances import OFF, Tolerances

ONLY_METRICS = Tolerances(maps=OFF, fingerprint=OFF)


def measured_baseline(folder):
    """A baseline of the small network in `folder`, with its noise floor and fingerprint."""
    place = baseline(folder)
    found = gate.check(place, opened(net()), run=TOOLS, action="measure_noise")
    assert found.verdict is RegressionVerdict.same, check_to_text(found)
    return place


def check(folder, module, *, spec=SPEC, run=TOOLS, **options):
    """The check of `module` against the baseline in `folder`."""
    return gate.check(folder, opened(module, spec), run=run, **options)


def found_by(result, verdict=RegressionVerdict.regressed):
    """The detectors that found something."""
    return {f.detector for report in result.reports for f in report.of(verdict)}


def shown(result):
    """The report in one line."""
    return " ".join(check_to_text(result).split())
