"""The arithmetic of reports and gates: intervals, the paired test, the front. Pure functions on samples.

Every interval here is a 95 % interval and is exact or deterministic: the same samples give the same page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there were samples enough for both ends."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def holds(self, value: float) -> bool:
        """Whether the interval cannot tell the truth from `value`."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Paired:
    """Two networks on the same images: how many only one of them gets right, and what that shows.

    `change` is the candidate's accuracy less the baseline's, in points; `p` is McNemar's exact p-value:
    how often two equally good networks would disagree at least this unevenly.
    """

    images: int
    gained: int
    lost: int
    change: float
    interval: Interval
    p: float

    @property
    def shown(self) -> bool:
        """Whether the images show a difference at all."""
        return self.p < SIGNIFICANT


def accuracy_interval(accuracy: float, images: int) -> Interval:
    """Wilson's interval of an accuracy in per cent on so many test images, in per cent.

    https://doi.org/10.1080/01621459.1927.10502953
    """
    from scipy import stats

    found = stats.binomtest(round(accuracy / 100 * images), images).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(100 * float(found.low), 100 * float(found.high))


def paired(baseline: str, candidate: str) -> Paired:
    """Compare two networks image by image; each string holds a "1" for a right answer, a "0" for a wrong one.

    Exact McNemar test (https://doi.org/10.1007/BF02295996): of the images that only one network gets
    right, each is a fair coin if they are equally good. The interval is that of Bonett and Price
    (https://doi.org/10.1002/sim.3983): with g gained, l lost, n images,
    d = (g - l) / (n + 2), d +- z * sqrt(((g + 1) + (l + 1)) / (n + 2) - d^2) / sqrt(n + 2).
    """
    from scipy import stats

    if len(baseline) != len(candidate) or not baseline:
        raise ValueError(f"{len(baseline)} and {len(candidate)} images cannot be paired")
    images = len(baseline)
    before, after = (np.frombuffer(answers.encode(), np.uint8) == ord("1") for answers in (baseline, candidate))
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    p = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    centre = (gained - lost) / (images + 2)
    variance = ((gained + lost + 2) / (images + 2) - centre**2) / (images + 2)
    reach = float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    interval = Interval(100 * (centre - reach), 100 * (centre + reach))
    return Paired(images, gained, lost, 100 * (gained - lost) / images, interval, p)


def quantile_interval(values: Sequence[float], share: float = 0.5) -> Interval:
    """The interval of a quantile (the median by default); an end for which there are too few samples is infinite.

    The bounds are two of the samples themselves, picked by the binomial distribution of how many samples
    fall below the true quantile: what a bootstrap of the median tends to, without a seed, and exact for
    few samples. The median needs 6 samples, the 99th percentile 368.
    """
    from scipy import stats

    found = stats.quantile_test(np.asarray(values, dtype=float), p=share).confidence_interval(CONFIDENCE)
    low, high = float(found.low), float(found.high)
    return Interval(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, accuracy) points no other beats in both, cheapest first; of equal points, the first."""
    best, chosen = -math.inf, []
    for number in sorted(range(len(points)), key=lambda each: (points[each][0], -points[each][1], each)):
        if points[number][1] > best:
            best = points[number][1]
            chosen.append(number)
    return chosen


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of at least two values."""
    return float(np.mean(values)), float(np.std(values, ddof=1))
