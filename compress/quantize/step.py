"""The step that quantizes after training, from ranges seen on calibration images."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.pipeline import FOLDED, QUANTIZED, UNPREPARED, UNQUANTIZED, Change, Condition, Resources, Step
from compress.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.data.splits import LearningData

TargetName = Literal["onnxruntime-cpu", "openvino", "tensorrt"]
ObserverName = Literal["min-max", "moving-average", "mse"]


class Quantize(Step):
    """Hold weights and activations as INT8 wherever the target computes on integers.

    Ranges come from calibration images, a batch at a time: memory does not grow with their number.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNPREPARED, FOLDED, UNQUANTIZED)
    promises: ClassVar[tuple[Condition, ...]] = (QUANTIZED,)

    target: TargetName = "onnxruntime-cpu"
    """The runtime the network is meant for; it decides which numbers become integers, and of which kind."""
    images: int = Field(default=512, ge=1)
    """Calibration images to look at."""
    batch: int = Field(default=64, ge=1)
    """Images at a time."""
    observer: ObserverName = "min-max"
    """How the range of an activation is chosen: all values seen, a moving average over batches, or least squared error."""

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Quantize; raises CompressError where the calibration images are of no use or the network cannot be followed."""
        from compress.build import build
        from compress.data.fits import fits

        logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao's import speaks of its own insides
        from compress.quantize.ptq import held, quantize
        from compress.quantize.target import target

        data = resources.need_data("quantize")
        fits(data.spec, checkpoint.architecture, checkpoint.dataset)
        count, labels = min(self.images, len(data.calibration)), set[int]()
        network = build(checkpoint, resources.user)
        seen = batches(data, count, self.batch, labels, resources.progress)
        result = quantize(network, checkpoint.architecture.input_shape, target(self.target), self.observer, seen)

        after = held(checkpoint, result)
        images = next(batches(data, min(count, self.batch), self.batch, labels))
        apart = distance(images, network, result.reference, build(after, resources.user))

        notes = [f"calibrated on {count} images"]
        if count < self.images:
            notes.append(f"{self.images} calibration images were asked for, and there are no more than {count}")
        absent = [name for label, name in enumerate(data.spec.classes) if label not in labels]
        if absent and data.calibration.labelled:
            notes.append(
                f"no calibration image of {len(absent)} of the {len(data.spec.classes)} classes: {', '.join(absent[:3])}"
            )
        if result.silent:
            notes.append(f"{result.silent} activations were zero for every calibration image, and will stay so")
        return Change(after.architecture, after.weights, result.refusals, tuple(notes), {"logit_distance": (apart,)})


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
            f"the {count} calibration images show nothing: each is of one colour throughout, or there are none. "
            "Ranges chosen from them would be useless; give images like those the network will see."
        )


def distance(images: "Tensor", network: "nn.Module", reference: "nn.Module", rebuilt: "nn.Module") -> float:
    """How far the INT8 logits are from the float ones, as a share of their length.

    Raises CompressError where the network rebuilt from the checkpoint is not, bit for bit, the one that was quantized.
    """
    import torch

    with torch.no_grad():
        exact, logits, again = network(images), reference(images), rebuilt(images)
    if not torch.equal(logits, again):
        raise CompressError(
            "the quantized network cannot be had back from its checkpoint: the rebuilt one answers otherwise. "
            "This is a fault of compress; please report it, with the network's code."
        )
    return float((again - exact).norm() / exact.norm().clamp_min(torch.finfo(exact.dtype).tiny))
