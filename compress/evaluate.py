"""How often a session is right, and how often two sessions agree.

`on_test` is the only place in the project that reads a data set's test images: nothing that chooses
weights, settings or ranges can have seen them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.data.normalise import normalise
from compress.data.spec import DatasetSpec
from compress.data.splits import Data, Split
from compress.errors import CompressError
from compress.measurement import Measurement
from compress.progress import Progress, silent
from compress.runtime.session import Session, answers
from compress.runtime.views import Averaged, Views

BATCH = 256


@dataclass(frozen=True)
class Accuracy:
    """What a session got right: `top1` and, where there are more than five classes, `top5`, in per cent.

    `correct` has a "1" for each image whose most likely class is right and a "0" for each other, in the
    split's order.
    """

    measurements: tuple[Measurement, ...]
    correct: str


def on_test(
    session: Session,
    data: Data,
    *,
    runtime: str,
    batch: int = BATCH,
    tta: Views = "none",
    progress: Progress = silent,
) -> Accuracy:
    """The accuracy that a report states: on the test images, to be asked once, at the end."""
    return evaluate(
        session, data.test, data.spec, name="test", runtime=runtime, batch=batch, tta=tta, progress=progress
    )


def evaluate(
    session: Session,
    split: Split,
    spec: DatasetSpec,
    *,
    name: str,
    runtime: str,
    batch: int = BATCH,
    tta: Views = "none",
    progress: Progress = silent,
) -> Accuracy:
    """The accuracy of a session on a split, called `name`; of equal logits the lower class counts as the likelier.

    With `tta` each image is answered from several views of it, and the measurements say so. Raises CompressError for a split without images or labels, labels that are no class, logits of another
    number of classes, and logits that are NaN or infinite.
    """
    if not split.labelled:
        raise CompressError(
            f"the {name} images of {spec.name} have no labels, and accuracy needs them. Give labelled data."
        )
    answering = session if tta == "none" else Averaged(session, tta)
    hits = []
    for labels, (logits,) in _answers((answering,), split, spec, batch, progress, "evaluate"):
        if labels.min() < 0 or labels.max() >= len(spec.classes):
            raise CompressError(
                f"the {name} images of {spec.name} have labels from {labels.min()} to {labels.max()}, and its "
                f"{len(spec.classes)} classes are numbered from 0. Check the labels."
            )
        likeliest = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        hits.append(likeliest == labels[:, None])
    found = np.concatenate(hits)
    conditions: dict[str, str | int] = {"runtime": runtime, "split": name, "images": len(found)}
    conditions |= {} if tta == "none" else {"tta": tta}
    shares = {"top1": found[:, 0]} | ({"top5": found.any(axis=1)} if len(spec.classes) > 5 else {})
    return Accuracy(
        tuple(Measurement(metric, (100 * float(right.mean()),), conditions) for metric, right in shares.items()),
        "".join("1" if right else "0" for right in found[:, 0]),
    )


def agreement(
    baseline: Session,
    candidate: Session,
    split: Split,
    spec: DatasetSpec,
    *,
    batch: int = BATCH,
    progress: Progress = silent,
) -> float:
    """The share of a split's images, 0 to 1, for which two sessions find the same class most likely. Needs no labels."""
    same = [
        before.argmax(axis=1) == after.argmax(axis=1)
        for _, (before, after) in _answers((baseline, candidate), split, spec, batch, progress, "compare")
    ]
    return float(np.concatenate(same).mean())


def _answers(
    sessions: tuple[Session, ...], split: Split, spec: DatasetSpec, batch: int, progress: Progress, task: str
) -> Iterator[tuple[NDArray[np.int64], tuple[NDArray[np.float32], ...]]]:
    """Labels, and each session's checked logits, a batch at a time."""
    if len(split) == 0:
        raise CompressError(f"{spec.name} holds no images to {task}. Check the path of the data.")
    done = 0
    for images, labels in split.batches(batch):
        inputs = normalise(images, spec.preprocessing).numpy()
        yield labels.numpy(), tuple(_logits(answers(session, inputs), len(inputs), spec) for session in sessions)
        done += len(inputs)
        progress(task, done, len(split), "")


def _logits(logits: NDArray[np.float32], images: int, spec: DatasetSpec) -> NDArray[np.float32]:
    """The logits, refused where they are not one finite number for each image and class."""
    if logits.shape != (images, len(spec.classes)):
        raise CompressError(
            f"the network answered {images} images with logits of shape {logits.shape}, and {spec.name} has "
            f"{len(spec.classes)} classes. Give the data it was trained on."
        )
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise CompressError(
            f"the network's logits are NaN or infinite for {broken} of {images} images, so its most likely class means nothing. "
            "Go back to the last checkpoint that answers."
        )
    return logits
