"""When to stop: what a validation score that jumps about is judged by."""

from collections.abc import Sequence


def smoothed(scores: Sequence[float], share: float) -> float:
    """The exponential moving average of the scores so far: s <- share s + (1 - share) score, from the first score on."""
    average = scores[0]
    for score in scores[1:]:
        average = share * average + (1 - share) * score
    return average
