"""What the curves of a training run say, in plain words, and which option would help."""

from collections.abc import Mapping, Sequence
from itertools import groupby

DIVERGED = 1.5
"""A loss this many times the lowest one before is on its way up."""
GAP, WIDE_GAP = 3.0, 15.0
"""Points by which train top-1 is ahead of validation: worth a look; too many whatever else is so."""
STALE = 0.2
"""Share of the epochs so far (and two at least) without a better validation score, after which learning has turned."""
POOR = 80.0
"""Train top-1, in per cent, below which a network has not learnt its own training images."""

ADVICE = {
    "divergence": "the loss goes up; lower --rate, lengthen --warmup, or set --clip",
    "over-fitting": "it learns the training images rather than the task; more --augmentation, --mixup, --label-smoothing "
    "or --weight-decay, or --patience to stop at the best epoch",
    "under-fitting": "it has not learnt even the training images; more --epochs, a higher --rate, less --augmentation or "
    "--weight-decay, or a larger network",
    "good fit": "what it learns holds for images it has not seen",
}
"""For each verdict, what it means and the options that would help."""


def diagnose(curves: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """A verdict, a key of `ADVICE`, after each epoch, from the curves up to there.

    divergence: the loss is 1.5 times its lowest. over-fitting: train top-1 is 15 points above validation, or 3
    and validation has not risen for a fifth of the epochs. under-fitting: train top-1 is below 80 %. Else a good fit.
    Without a validation curve there is no gap to read, and only divergence and under-fitting are found.
    """
    return tuple(
        _verdict({name: values[: epoch + 1] for name, values in curves.items()})
        for epoch in range(len(curves["train_loss"]))
    )


def explained(curves: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """The diagnosis as lines to read: one for each stretch of epochs of one verdict, the last with what would help."""
    stretches = [(verdict, len([*epochs])) for verdict, epochs in groupby(diagnose(curves))]
    lines, first = [], 1
    for number, (verdict, length) in enumerate(stretches, 1):
        last = first + length - 1
        epochs = f"epoch {first}" if length == 1 else f"epochs {first} to {last}"
        line = f"{epochs}: {verdict}{_gap(curves, last)}"
        lines.append(line if number < len(stretches) else f"{line}: {ADVICE[verdict]}")
        first = last + 1
    return tuple(lines)


def _verdict(curves: Mapping[str, Sequence[float]]) -> str:
    loss, train, validation = curves["train_loss"], curves["train_top1"], curves.get("validation_top1", ())
    if loss[-1] > DIVERGED * min(loss):
        return "divergence"
    if validation:
        gap, epochs = train[-1] - validation[-1], len(validation)
        stale = epochs - 1 - max(range(epochs), key=lambda epoch: validation[epoch])
        if gap > WIDE_GAP or (gap > GAP and stale >= max(2, STALE * epochs)):
            return "over-fitting"
    return "under-fitting" if train[-1] < POOR else "good fit"


def _gap(curves: Mapping[str, Sequence[float]], epoch: int) -> str:
    validation = curves.get("validation_top1", ())
    if not validation:
        return ""
    gap = curves["train_top1"][epoch - 1] - validation[epoch - 1]
    return f" (train top-1 {abs(gap):.1f} points {'above' if gap >= 0 else 'below'} validation)"
