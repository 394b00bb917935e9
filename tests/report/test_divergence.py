"""Divergences equal those of scipy and what their definitions say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from windeye.report.divergence import jensen_shannon, kolmogorov_smirnov, log_histogram

COUNTS = st.lists(st.integers(0, 50), min_size=6, max_size=6).filter(any)
SAMPLES = st.lists(st.integers(-5, 5), min_size=1, max_size=20)


@given(COUNTS, COUNTS)
def test_jensen_shannon_is_the_square_of_scipys_distance(first, second):
    ours = jensen_shannon(first, second)
    assert ours == pytest.approx(jensenshannon(first, second) ** 2, abs=1e-12)
    assert -1e-15 <= ours <= math.log(2) + 1e-12
    assert ours == pytest.approx(jensen_shannon(second, first), abs=1e-15)
    assert jensen_shannon(first, [7 * count for count in first]) == pytest.approx(0, abs=1e-15)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the p-value, which nobody asked for
@given(SAMPLES, SAMPLES)
def test_kolmogorov_smirnov_is_the_largest_gap(first, second):
    ours = kolmogorov_smirnov(first, second)
    assert ours == pytest.approx(ks_2samp(first, second, method="asymp").statistic)
    gaps = [abs(np.mean(np.less_equal(first, x)) - np.mean(np.less_equal(second, x))) for x in range(-6, 7)]
    assert ours == pytest.approx(max(gaps))


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1.0)), max_size=30))
def test_a_histogram_counts_every_positive_value_once(values):
    counts = log_histogram(values, bins=7)
    assert counts.sum() == sum(value > 0 for value in values)
    inside = [value for value in values if 1e-3 < value < 1e-1]
    assert log_histogram(inside, bins=1).tolist() == [len(inside)]


def test_bins_are_equal_in_the_logarithm():
    values = [10 ** (-3 + 0.02 * (bin + 0.5)) for bin in range(100)]
    assert log_histogram(values).tolist() == [1] * 100


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jensen_shannon([1, 2], [1]), "the same bins, got 2 and 1"),
        (lambda: jensen_shannon([0, 0], [1, 1]), "first must be counts"),
        (lambda: jensen_shannon([1, 0], [1, -1]), "second must be counts"),
        (lambda: kolmogorov_smirnov([], [1]), "got 0 and 1 values"),
        (lambda: log_histogram([0.1, -0.5]), "must not be negative or NaN, got -0.5"),
        (lambda: log_histogram([math.nan]), "must not be negative or NaN, got nan"),
    ],
)
def test_wrong_calls_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
