"""Observers that count values, and choose by the counts where to cut a range off.

The range counted over ends at a power of two and doubles when a value lies beyond it, two bins then becoming
one. No count is ever moved but whole, so the counts are those of all values seen, in any order and at any
batch size, in fixed memory.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase

from compress.errors import CompressError
from compress.quantize.calibration import NOT_FINITE

BINS = 2**13
"""Bins from -limit to limit; at least a quarter of them lie between zero and the value furthest from it."""
SMALLEST = -100
"""Power of two below which all values share the two bins beside zero."""
CANDIDATES = 128
"""How many places to cut off at are compared."""

Range = tuple[float, float]
"""The lowest and the highest value that get integers of their own."""


class Counted(UniformQuantizationObserverBase):  # type: ignore[misc]  # torchao has no types
    """Counts values into a histogram; `choose` picks the range from it when the counting is over.

    `share` is the per cent of the values that `percentile` keeps.
    """

    def __init__(self, choose: "Callable[[Counted], Range]", share: float = 99.99, **settings: Any) -> None:
        super().__init__(**settings)
        self.choose, self.share = choose, share
        self.limit = 0.0
        self.register_buffer("histogram", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("min_val", torch.tensor(math.inf))
        self.register_buffer("max_val", torch.tensor(-math.inf))

    def forward(self, x: Tensor) -> Tensor:
        """Count the values; the identity otherwise. Raises CompressError for NaN and infinity."""
        low, high = (end.item() for end in x.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CompressError(NOT_FINITE)
        self.min_val.fill_(min(low, self.min_val.item()))
        self.max_val.fill_(max(high, self.max_val.item()))
        self._reach(max(-low, high))
        # Both the division by a power of two and the floor are exact, whatever the values.
        places = (x.detach().float().flatten() * (BINS / 2 / self.limit)).floor_().to(torch.int64).add_(BINS // 2)
        self.histogram += torch.bincount(places, minlength=BINS)
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The scale and the zero point, each (1,), of the range chosen; no wider than what was seen."""
        low, high = self.choose(self)
        ends = max(low, self.min_val.item()), min(high, self.max_val.item())
        found: tuple[Tensor, Tensor] = self._calculate_qparams(*(torch.tensor(end) for end in ends))
        return found

    @property
    def centres(self) -> Tensor:
        """The value in the middle of each bin (BINS,)."""
        return (torch.arange(BINS, dtype=torch.float64) + 0.5 - BINS / 2) * (2 * self.limit / BINS)

    @property
    def one_sided(self) -> bool:
        """Whether all integers are there for values on one side of zero."""
        return bool(self.min_val >= 0 or self.max_val <= 0) and self.qscheme == torch.per_tensor_affine

    @property
    def integers(self) -> int:
        """How many integers there are."""
        return int(self.quant_max - self.quant_min + 1)

    def _reach(self, furthest: float) -> None:
        """Widen the range counted over until it holds a value that far from zero."""
        # frexp gives the smallest power of two above a value; the smallest of all keeps the bins' width normal.
        needed = math.ldexp(1.0, max(math.frexp(furthest)[1], SMALLEST) if furthest else SMALLEST)
        if needed <= self.limit:
            return
        doublings = min(int(math.log2(needed / self.limit)), BINS.bit_length()) if self.limit else 0
        for _ in range(doublings):
            pairs = self.histogram.view(-1, 2).sum(1)
            self.histogram.zero_()
            self.histogram[BINS // 4 : -BINS // 4] = pairs
        self.limit = needed


def percentile(counted: Counted) -> Range:
    """The range that holds a share of the values, the rest cut off evenly at both ends."""
    below = counted.histogram.cumsum(0)
    cut = (1 - counted.share / 100) / 2 * below[-1]
    width = 2 * counted.limit / BINS
    first = int(torch.searchsorted(below, cut, right=True))
    last = min(int(torch.searchsorted(below, below[-1] - cut)), BINS - 1)
    return (first - BINS / 2) * width, (last + 1 - BINS / 2) * width


def least_squares(counted: Counted) -> Range:
    """The range whose integers stand for the values with the least squared error; both ends are drawn in by one share."""
    held = counted.histogram.nonzero().flatten()
    values, counts = counted.centres[held], counted.histogram[held]
    low, high = min(counted.min_val.item(), 0.0), max(counted.max_val.item(), 0.0)
    best, least = (low, high), math.inf
    for step in range(CANDIDATES, 0, -1):
        ends = low * step / CANDIDATES, high * step / CANDIDATES
        scale, zero_point = (part.double() for part in counted._calculate_qparams(*(torch.tensor(end) for end in ends)))
        rounded = (values / scale).round().add(zero_point).clamp(counted.quant_min, counted.quant_max)
        error = float((counts * ((rounded - zero_point) * scale - values) ** 2).sum())
        if error < least:
            best, least = ends, error
    return best


def entropy(counted: Counted) -> Range:
    """The range that keeps the most information: of all thresholds T, the one with the least KL(P || Q).

    P are the counts of |x| up to T, what lies beyond added to the last; Q the same counts, without those beyond,
    spread evenly within each of the integers. As in TensorRT (Migacz, "8-bit Inference with TensorRT", GTC 2017),
    128 integers stand for |x|, or all of them where every value is on one side of zero. Zeros are exact on any
    scale, so the bin they are in counts like its neighbour.
    """
    sides = counted.histogram.flip(0)[BINS // 2 :] + counted.histogram[BINS // 2 :]
    furthest = int(sides.nonzero().max()) + 1 if bool(sides.any()) else 1
    counts = sides[:furthest].clone()
    counts[0] = counts[min(1, furthest - 1)]
    levels = counted.integers // (1 if counted.one_sided else 2)
    best, least = furthest, math.inf
    for end in sorted({round(furthest * step / CANDIDATES) for step in range(CANDIDATES, 0, -1)}, reverse=True):
        if end < levels:
            break
        divergence = _divergence(counts, end, levels)
        if divergence < least:
            best, least = end, divergence
    width = 2 * counted.limit / BINS
    return -best * width, best * width


def _divergence(counts: Tensor, end: int, levels: int) -> float:
    """KL(P || Q) of some counts cut off at `end` and held in so many levels; infinite where Q has nothing and P has."""
    kept = counts[:end]
    reference = kept.clone()
    reference[-1] += counts[end:].sum()
    level = torch.arange(end) * levels // end
    held = (reference > 0).double()
    totals = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, kept)
    spread = totals / torch.zeros(levels, dtype=torch.float64).index_add_(0, level, held).clamp_min(1)
    candidate = spread[level] * held
    p, q = reference / reference.sum().clamp_min(1), candidate / candidate.sum().clamp_min(1)
    return float(torch.special.xlogy(p, p).sum() - torch.special.xlogy(p, q).sum())
