"""results/accuracy: its correlations are what its tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from test_published import RESULTS, script


@pytest.fixture
def published(monkeypatch):
    """The script of the set."""
    return script(RESULTS / "accuracy" / "publish.py", monkeypatch)


@pytest.mark.parametrize(
    ("weights", "plain"),
    [
        ("resnet50.a1_in1k", True),
        ("resnet50.tv2_in1k", True),
        ("vgg16.tv_in1k", True),
        ("convnext_tiny.fb_in22k_ft_in1k", False),
        ("deit_tiny_distilled_patch16_224.fb_in1k", False),
        ("cait_s24_224.fb_dist_in1k", False),
        ("tf_efficientnet_b0.ap_in1k", False),
        ("tf_efficientnet_b0.ns_jft_in1k", False),
        ("inception_v3.tf_adv_in1k", False),
        ("resnet50.fb_ssl_yfcc100m_ft_in1k", False),
        ("eva02_base_patch14_224.mim_in22k", False),
    ],
)
def test_weights_that_saw_more_than_labels_of_imagenet_1k_are_left_out(published, weights, plain):
    """Other images, teachers and adversarial examples show in timm's tags."""
    assert published.plain(weights) is plain


def test_a_correlation_without_controls_is_spearmans(published):
    """Given nothing, the partial rank correlation is the plain one."""
    x, y = np.random.default_rng(0).standard_normal((2, 50))
    found = published.correlation(x, y + x, np.empty((50, 0)))
    assert found == pytest.approx(spearmanr(x, y + x).statistic)


def test_a_common_cause_is_taken_out(published):
    """Two effects of one cause correlate, and do not given the cause."""
    cause, a, b = np.random.default_rng(1).standard_normal((3, 2000))
    x, y = cause + 0.5 * a, cause + 0.5 * b
    assert published.correlation(x, y, np.empty((2000, 0))) > 0.7
    assert abs(published.correlation(x, y, cause[:, None])) < 0.15


def test_the_published_correlations_are_those_of_the_tables(published):
    """Every value again from accuracy.csv and the boards; intervals as stored."""
    found = published.correlations(published.table(), draws=0)
    stored = pd.read_csv(RESULTS / "accuracy" / "correlations.csv")
    keys = ["measure", "test", "kind"]
    pd.testing.assert_frame_equal(
        found[[*keys, "value", "models"]], stored[[*keys, "value", "models"]]
    )
    assert ((stored.low <= stored.value + 0.05) & (stored.value <= stored.high + 0.05)).mean() > 0.9


def table_of(*rows):
    """Correlations (measure, kind, value, half width) as correlations.csv has them."""
    heads = ["measure", "kind", "value", "half"]
    found = pd.DataFrame(rows, columns=heads).assign(test="imagenet")
    return found.assign(low=found.value - found.half, high=found.value + found.half)


def test_what_follows_is_counted_and_never_said_of_other_correlations(published):
    """Less imbalance is more evenness; with one control that counts, the words are refused."""
    rows = [
        ("structure.weakest", "rank", 0.2, 0.3),
        ("structure.weakest", "given", 0.0, 0.3),
        ("structure.imbalance", "rank", -0.3, 0.1),
        ("erf.size", "given", -0.9, 0.1),
    ]
    assert "1 of 2 intervals" in published.follows(table_of(*rows))
    assert "more accurate ones, by at most 0.30" in published.follows(table_of(*rows))
    for other in (("structure.weakest", "given", 0.4, 0.1), ("structure.weakest", "rank", -1, 0.1)):
        with pytest.raises(ValueError, match="new words"):
            published.follows(table_of(*rows, other))
