"""The parity ledger: every hop of a network is compared with the one before, and a hop beyond its tolerance names itself.

What can be asked of a hop depends on what it claims:

exact    the same function in floating point (fold, export, reload): the largest error, relative to the
         largest logit, is at most 1e-4.
integer  the same integers elsewhere (an INT8 checkpoint and its ONNX file, the runtime's own optimisations
         off). One value that falls on the other side of a rounding step changes every logit of its image by
         far more than 1e-4, so an image is either answered alike or tipped. The reference says how often that
         is by chance: it is asked twice, the second time with its input changed by 1e-5 of itself. The hop
         has to answer a fifth as many images alike, and its noise may be 6 dB above that floor.
changed  a step that changes the function on purpose (quantization): the same class for most images.

A comparison of outputs that do not vary says nothing, and counts as failed: it is void.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.divergence import first_difference
from compress.errors import CheckFailed, CompressError
from compress.measurement import Hop
from compress.runtime.session import Session, answers

Kind = Literal["exact", "integer", "changed"]
Array = NDArray[np.float32]

EXACT = 1e-4
"""Largest error of an exact rewrite in FP32, relative to the largest logit."""
CHANGE = 1e-5
"""How much of itself an input is changed by to see what rounding alone makes of it."""
SHARE, MARGIN = 0.2, 6.0
"""Of the images the reference answers alike under that change, the share a hop must; decibels its noise may lie above."""
AGREEMENT: Mapping[Kind, float] = {"integer": 0.98, "changed": 0.9}
"""Share of the images for which the most likely class has to stay."""
FEWEST: Mapping[Kind, int] = {"exact": 2, "integer": 32, "changed": 32}
"""Images below which a comparison decides nothing."""
SAME: Mapping[Kind, float] = {"exact": 60.0, "integer": 25.0, "changed": 10.0}
"""Decibels from which an inner tensor of a hop that failed counts as the same as before."""
VARIES = 1e-3
"""Standard deviation over images that some logit has to show."""
BATCH, SINGLES = 32, 4
"""The two batch sizes: all images by 32, and the first few one at a time."""
LOUDEST = 200.0
"""The signal-to-noise ratio written down where there is no noise at all, in decibels."""


def compare(name: str, before: Session, after: Session, images: Array, kind: Kind = "exact") -> Hop:
    """Ask both sessions about the same normalised images (N, C, H, W), in batches of 32 and of 1.

    Figures: `max_abs_error` and `normalised_max_error`, `sqnr_db` (signal over noise), `cosine`, `top1_agreement` and
    `alike`, shares of the images from 0 to 1. Raises CompressError for images too few, or not finite.
    """
    if len(images) < FEWEST[kind]:
        raise CompressError(
            f"parity of {name} needs {FEWEST[kind]} images or more, and got {len(images)}: fewer decide nothing. Give more images."
        )
    if not np.isfinite(images).all():
        raise CompressError(
            f"parity of {name} was given images that hold NaN or infinity. Check the data's mean and std."
        )
    reference, candidate = _logits(before, images), _logits(after, images)
    if reference.shape != candidate.shape:
        return Hop(name, "failed", f"logits of shape {reference.shape} became {candidate.shape}", {}, {})
    sides = {"before": reference, "after": candidate}
    if broken := [side for side, logits in sides.items() if not np.isfinite(logits).all()]:
        return Hop(name, "failed", f"logits are NaN or infinite {' and '.join(broken)}", {}, {})
    figures, tolerance = difference(reference, candidate), _tolerance(kind, before, images)
    for side, logits in sides.items():
        if emptiness := void(logits):
            return Hop(name, "void", f"{side}, {emptiness}", figures, tolerance)
    beyond = _beyond(figures, tolerance)
    if beyond and (layer := first_difference(before, after, images, SAME[kind])):
        beyond.append(f"the first layer that differs is {layer}")
    return Hop(name, "failed" if beyond else "passed", "; ".join(beyond), figures, tolerance)


def require(hop: Hop) -> Hop:
    """The hop itself, where it did not fail; raises CheckFailed naming it where it did, or compared nothing."""
    if hop.verdict in ("failed", "void"):
        raise CheckFailed(
            f"parity of {hop.name} {'is void' if hop.verdict == 'void' else 'failed'}: {hop.reason}. "
            "What comes after this hop is not the network before it; nothing further was made of it."
        )
    return hop


def difference(reference: Array, candidate: Array) -> dict[str, float]:
    """How far logits (N, classes) lie from others, as figures."""
    before, after = reference.astype(np.float64), candidate.astype(np.float64)
    errors = np.abs(after - before).max(axis=1)
    largest = float(np.abs(before).max()) or 1.0
    signal, noise = float((before**2).sum()), float(((after - before) ** 2).sum())
    lengths = np.sqrt(signal) * np.sqrt(float((after**2).sum()))
    return {
        "max_abs_error": float(errors.max()),
        "normalised_max_error": float(errors.max()) / largest,
        "sqnr_db": _decibels(signal, noise),
        "cosine": float((before * after).sum() / lengths) if lengths else 0.0,
        "top1_agreement": float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        "alike": float((errors <= EXACT * largest).mean()),
    }


def _decibels(signal: float, noise: float) -> float:
    """The ratio of two energies, kept where it can be written down when one of them is nothing."""
    nothing = 1e-30
    return float(np.clip(10 * np.log10((signal + nothing) / (noise + nothing)), -LOUDEST, LOUDEST))


def void(logits: Array) -> str:
    """Why these logits show nothing, or "": they hardly vary from image to image, or all name one class."""
    spread = float(logits.std(axis=0).max())
    if spread <= VARIES:
        return f"no logit varies over the images by more than {spread:.1e} (a dead or an untrained network)"
    if len(np.unique(logits.argmax(axis=1))) < 2:
        return "every image gets the same class"
    return ""


def _tolerance(kind: Kind, before: Session, images: Array) -> dict[str, float]:
    """The figures a hop of a kind is judged by, and their limits."""
    if kind == "exact":
        return {"normalised_max_error": EXACT}
    tolerance = {"top1_agreement": AGREEMENT[kind]}
    if kind == "integer":
        floor = _floor(before, images)
        quiet = -20 * math.log10(EXACT)  # below this noise the images are answered alike anyway
        tolerance |= {"sqnr_db": min(floor["sqnr_db"], quiet) - MARGIN, "alike": SHARE * floor["alike"]}
    return tolerance


def _beyond(figures: Mapping[str, float], tolerance: Mapping[str, float]) -> list[str]:
    """The figures that miss their limit, in words: errors have a highest value, all others a lowest."""
    errors = {figure for figure in tolerance if figure.endswith("_error")}
    return [
        f"{figure} is {figures[figure]:.3g}, and {'at most' if figure in errors else 'at least'} {limit:.3g} was asked"
        for figure, limit in tolerance.items()
        if (figures[figure] > limit if figure in errors else figures[figure] < limit)
    ]


def _floor(session: Session, images: Array) -> dict[str, float]:
    """How a session differs from itself when its input is changed by `CHANGE`.

    Photographs have 256 levels, which a first quantizer maps to its own without ever being near a step; so
    the images are first moved off their grid by up to half a step.
    """
    random = np.random.default_rng(0)
    moved = images + random.uniform(-0.5, 0.5, images.shape).astype(np.float32) * np.float32(np.ptp(images) / 255)
    signs = random.choice((-CHANGE, CHANGE), images.shape)
    return difference(_logits(session, moved), _logits(session, (moved * (1 + signs)).astype(np.float32)))


def _logits(session: Session, images: Array) -> Array:
    """The session's logits in batches, followed by those of the first few images asked singly."""
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    parts += [images[one : one + 1] for one in range(min(SINGLES, len(images)))]
    return np.concatenate([answers(session, part) for part in parts])
