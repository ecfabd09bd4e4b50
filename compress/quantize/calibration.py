"""Showing calibration images to a network, whatever finds the ranges, and what there is to say of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from compress.errors import CompressError
from compress.progress import Progress, silent
from compress.quantity import counted

if TYPE_CHECKING:
    from torch import Tensor

    from compress.data.splits import LearningData

NOT_FINITE = (
    "calibration met NaN or infinity inside the network, and no integer stands for those. "
    "Look at the calibration images, and at the network's answers before quantizing."
)


def batches(
    data: "LearningData", count: int, size: int, labels: set[int], progress: Progress = silent
) -> "Iterator[Tensor]":
    """The first `count` calibration images, normalised, their labels put into `labels`.

    Raises CompressError at the end where they show nothing.
    """
    import numpy as np

    from compress.data.normalise import normalise

    done, varied = 0, False
    for images, given in data.calibration.batches(size, np.arange(count)):
        varied = varied or bool((images.amax((2, 3)) > images.amin((2, 3))).any())
        labels.update(given.tolist())
        yield normalise(images, data.spec.preprocessing)
        done += len(images)
        progress("calibrate", done, count, "")
    if not varied:
        raise CompressError(
            f"calibration on {counted(count, 'image')} shows nothing: each is of one colour throughout, or there are none. "
            "Ranges chosen from them would be useless; give images like those the network will see."
        )


def calibrated(data: "LearningData", asked: int, count: int, labels: set[int], silent: int = 0) -> list[str]:
    """What there is to say of `count` calibration images with these labels, where `asked` were wanted."""
    notes = [f"calibrated on {counted(count, 'image')}"]
    if count < asked:
        notes.append(f"{asked} calibration images were asked for, and there are no more than {count}")
    absent = [name for label, name in enumerate(data.spec.classes) if label not in labels]
    if absent and data.calibration.labelled:
        named = ", ".join([*absent[:3], *["..."] * (len(absent) > 3)])
        notes.append(f"no calibration image of {len(absent)} of the {len(data.spec.classes)} classes: {named}")
    if silent:
        notes.append(f"zero for every calibration image, and will stay so: {counted(silent, 'activation')}")
    return notes
