"""How far a measured latency ratio can be trusted."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from compress.errors import CompressError

RESOLUTION = 0.005
"""What two sessions of one file differ by, at 95 %, as long as they live; `reports/aa.md` has how well that holds."""


class Interval(NamedTuple):
    """A median between the ends of its confidence interval."""

    low: float
    median: float
    high: float

    @property
    def precision(self) -> float:
        """Half the interval's width as a share of the median: 0.02 reads "within 2 %"."""
        return (self.high - self.low) / 2 / self.median


def ratio_interval(ratios: Sequence[float], level: float = 0.95) -> Interval:
    """The median of ratios above zero, one a round, in an interval that holds the true one in `level` of all runs.

    Its ends are the k-th smallest and the k-th largest ratio, with the largest k for which
    2 P(B < k) <= 1 - level, B binomial (n, 1/2): how many of n ratios lie below the true median. Resampling
    the ratios (bootstrap) tends to this law, but its interval holds the truth less often than it says:
    90 % instead of 95 where rounds are added until it is narrow. With fewer ratios than `level` needs
    (6 for 0.95) there is no such k, and the interval is all there is, 0 to infinity.
    """
    from scipy import stats

    values = np.asarray(ratios, dtype=float)
    if not values.size or not (values > 0).all():
        raise CompressError(
            f"latency ratios are above zero, at least one of them; got {values.min() if values.size else 'none'}. "
            "The recording was edited; measure again."
        )
    ends = stats.quantile_test(values, p=0.5).confidence_interval(level)
    low, high = float(ends.low), float(ends.high)
    bounded = math.isfinite(low) and math.isfinite(high)
    return Interval(low if bounded else 0.0, float(np.median(values)), high if bounded else math.inf)


def latency_interval(ratios: Sequence[float]) -> Interval:
    """The 95 % interval of a latency ratio, one a round of one benchmark, as a statement about the files.

    The rounds are of one pair of sessions, and two sessions of one file differ a little for as long as they live, which
    no number of rounds shows. So both ends are moved out by `RESOLUTION` of the median, added in squares to what
    the rounds say, as independent uncertainties are (JCGM 100:2008, 5.1.2).
    """
    interval = low, median, high = ratio_interval(ratios)
    if not low:
        return interval
    apart = RESOLUTION * median
    below, above = math.hypot(median - low, apart), math.hypot(high - median, apart)
    return Interval(max(0.0, median - below), median, median + above)
