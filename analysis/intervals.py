"""Student's t for the mean of one number per trial: intervals, tests, and the trials that decide.

The numbers of trials are taken to be independent and roughly normal, with the same spread here and
in the paper. `benchmarks/referee.py` measures how often what follows from them is wrong.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # scipy.stats has the same, and is slow to import

Array = NDArray[np.float64]

FEWEST = 3
"""The fewest trials that have an interval."""
MOST_TRIALS = 1000
"""Where the search for the trials that decide ends."""


class Mean(NamedTuple):
    """The mean over `n` trials, and the standard deviation between them."""

    value: float
    deviation: float
    n: int

    def half(self, confidence: float, others: float = 0) -> float:
        """Return half of a two-sided interval: of the mean or, with `others`, of its difference
        from the mean of so many other trials with the same spread (a prediction interval)."""
        return half_width(self.deviation, self.n, confidence, others)

    def bound(self, confidence: float) -> float:
        """Return how far the ends of one-sided intervals are from the mean."""
        return self.half(2 * confidence - 1)

    def p_value(self) -> float:
        """Return the p-value of the one-sided test that the mean is above 0."""
        if self.deviation == 0:
            return 0.0 if self.value > 0 else 1.0
        return float(stdtr(self.n - 1, -self.value / self.deviation * math.sqrt(self.n)))


def mean_of(values: Array) -> Mean:
    """Return the mean of one number per trial."""
    return Mean(float(values.mean()), float(values.std(ddof=1)), len(values))


def half_width(deviation: float, n: int, confidence: float, others: float = 0) -> float:
    """Return half of the interval of `Mean.half`."""
    error = math.sqrt(1 / n + (1 / others if others else 0))
    return float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation * error


def trials_that_decide(deviation: float, width: float, confidence: float, others: float) -> int:
    """Return the fewest trials for which half of an interval is at most `width`; 0 if no number of
    them is enough."""
    for n in range(FEWEST, MOST_TRIALS):
        if half_width(deviation, n, confidence, others) <= width:
            return n
    return 0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several tests, corrected for their number by Holm's method (1979)."""
    order = np.argsort(p_values)
    corrected, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def ratio_of_means(one: Array, other: Array) -> Array:
    """Return numbers whose mean is the ratio of the means, and whose spread is that of its
    residuals, `one - ratio * other`: the usual approximation of the error of a ratio (Cochran,
    Sampling Techniques, 1977, section 6.3)."""
    of_means = one.mean() / other.mean()
    return np.asarray(of_means + (one - of_means * other) / other.mean())
