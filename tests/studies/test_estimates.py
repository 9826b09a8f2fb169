import numpy as np

from studies import estimates


def test_a_spread_is_the_mean_and_the_range_in_percent():
    assert estimates.spread([0.5, 0.25, 1.0]) == "58.3 (25.0 to 100.0)"


def test_a_difference_is_paired():
    # Differences of 10, 20 and 30 points: mean 20, standard deviation 10, and
    # Student's 4.3027 for two degrees of freedom over the root of three.
    values = np.array([0.3, 0.6, 0.9])
    others = np.array([0.2, 0.4, 0.6])
    assert estimates.difference(values, others) == "+20.0 ± 24.8"
    assert estimates.difference(others, values) == "-20.0 ± 24.8"
