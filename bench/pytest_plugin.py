"""pytest plugin: tests of a zoo compare its models with a baseline.

    def test_resnet(audit):
        audit("timm:resnet18.a1_in1k").check("results/baseline")

Nothing heavy is imported before a test asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .regression.result import RegressionCheck


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for where and how much to compute."""
    group = parser.getgroup("perimetry")
    group.addoption(
        "--perimetry-device", default="auto", help="Device of audits: auto, cpu, cuda:0, ..."
    )
    group.addoption("--perimetry-batch", type=int, default=None, help="Images a pass in audits.")
    group.addoption(
        "--perimetry-tolerances", default=None, metavar="FILE.toml", help="Tolerances of audits."
    )


@dataclass(frozen=True)
class Audited:
    """A model that a test asks about: a reference, a module or an opened model."""

    model: Any
    device: str = "auto"
    batch: int | None = None
    tolerances: str | None = None

    def check(
        self,
        baseline: Path | str,
        *,
        name: str | None = None,
        tolerances: Path | str | None = None,
        images: str | None = None,
        fit_images: str | None = None,
        where: tuple[str, ...] = (),
    ) -> RegressionCheck:
        """Fail the test unless the model is not shown to differ from `baseline`.

        `name` is what it is called there, `tolerances` a TOML file, `images` the folder that the
        baseline was made on, `fit_images` that which its `fit` saw. What could not be measured
        fails too: it never passes unseen.
        """
        __tracebackhide__ = True
        from pathlib import Path

        from .execution.settings import RunOptions
        from .regression.check import check
        from .regression.report import failure_text
        from .regression.result import RegressionVerdict
        from .regression.tolerances import Tolerances, read_tolerances

        chosen = tolerances or self.tolerances
        found = check(
            baseline,
            self.model,
            name=name,
            tolerances=read_tolerances(Path(chosen)) if chosen else Tolerances(),
            images=images,
            fit_images=fit_images,
            where=where,
            run=RunOptions(device=self.device, batch=self.batch),
        )
        if found.verdict is not RegressionVerdict.same:
            pytest.fail(failure_text(found.reports), pytrace=False)
        return found


@pytest.fixture(scope="session")
def audit(request: pytest.FixtureRequest) -> Callable[[Any], Audited]:
    """`audit(model).check(baseline)`; the model is a reference, a module or an opened model."""
    config = request.config

    def of(model: Any) -> Audited:
        return Audited(
            model,
            config.getoption("--perimetry-device"),
            config.getoption("--perimetry-batch"),
            config.getoption("--perimetry-tolerances"),
        )

    return of
