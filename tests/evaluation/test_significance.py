"""p-values, corrections and power beside known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onestage.evaluation.significance import benjamini_hochberg, detectable, holm, quantile, two_sided

P = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12)


def test_holm_and_benjamini_hochberg_by_hand() -> None:
    p = [0.01, 0.04, 0.03, math.nan, 0.005]
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, math.nan, 0.02])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.04, 0.04, math.nan, 0.02])


@given(P)
def test_benjamini_hochberg_is_scipys(p: list[float]) -> None:
    made = [value for value in p if value == value]
    own = benjamini_hochberg(p)
    assert np.isnan(own).sum() == len(p) - len(made)
    if made:
        np.testing.assert_allclose(own[~np.isnan(own)], stats.false_discovery_control(made), atol=1e-12)


@given(P)
def test_holm_lies_between_p_and_bonferroni(p: list[float]) -> None:
    made = np.array([value for value in p if value == value])
    strict = holm(p)[~np.isnan(np.array(p, float))]
    assert (strict >= made - 1e-12).all()
    assert (strict <= np.minimum(made * max(len(made), 1), 1) + 1e-12).all()
    loose = benjamini_hochberg(p)[~np.isnan(np.array(p, float))]
    assert (loose <= strict + 1e-12).all()
    assert (np.diff(strict[np.argsort(made, kind="stable")]) >= -1e-12).all()


def test_t_is_scipys() -> None:
    for freedom in (1.0, 2.5, 30.0):
        assert quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom))
        assert two_sided(-2.1, freedom) == pytest.approx(2 * stats.t.sf(2.1, freedom))
    assert quantile(0.975, math.inf) == pytest.approx(1.959964, abs=1e-6)
    assert two_sided(0.0, 5) == 1.0
    assert 0 < two_sided(20.0, 1e6) < 1e-80  # the tail of a formula, not of counted resamples


def test_detectable_is_the_noncentral_t() -> None:
    assert detectable(math.inf) == pytest.approx(2.8016, abs=1e-3)
    for freedom in (2.0, 4.0, 20.0, 500.0):
        size = detectable(freedom)
        assert stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, size) == pytest.approx(0.8, abs=1e-3)
    for level in (0.5, 0.99, 0.9999):  # where a plain root search on scipy's nctdtr fails
        assert detectable(1.0, level) > quantile(0.5 + level / 2, 1.0)
    assert detectable(3.0) > detectable(4.0) > detectable(1000.0)
