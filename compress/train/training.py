"""What the step `Train` does with a checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import nn

from compress import checkpoint as files
from compress.build import build
from compress.checkpoint import Checkpoint, Record
from compress.data.fits import fits
from compress.data.splits import Joined
from compress.errors import CompressError, UsageError
from compress.pipeline import Change, Resources
from compress.train.diagnosis import explained
from compress.train.distributed import processes
from compress.train.learn import learn
from compress.train.loop import AfterStep, Diverged, copy, steps_per_epoch
from compress.train.transfer import new_head

if TYPE_CHECKING:
    from compress.data.spec import DatasetSpec
    from compress.train.step import Train

SEEN = (
    "the weights have seen the validation images, so accuracy on them means nothing: fixed settings, the last epoch, "
    "no early stopping; those images are learnt from too"
)


def train(
    step: "Train",
    checkpoint: Checkpoint,
    resources: Resources,
    *,
    after_step: Sequence[AfterStep] = (),
    identity: Mapping[str, Any] = MappingProxyType({}),
) -> Change:
    """Train a checkpoint's network; raises CompressError where the data, the teacher or the settings do not fit it.

    `after_step` is called after every step, and once before the first; `identity` is what decides the result by that.
    """
    data = resources.need_data("train")
    if checkpoint.architecture.prepared is not None:
        from compress.quantize.qat_training import require_trainable

        require_trainable(step)
    start = _with_new_head(checkpoint, data.spec, resources) if step.new_head else checkpoint
    fits(data.spec, start.architecture, start.dataset)
    seen = start.trained_on == "all"
    if step.patience is not None and seen:
        raise UsageError(f"early stopping was asked for (patience {step.patience}), but {SEEN}. Leave `patience` out.")
    if seen:
        data = dataclasses.replace(data, train=Joined(data.train, data.validation))
    teacher = _teacher(start, resources) if step.follows else None
    network = build(start, resources.user)
    if start.architecture.prepared is not None:
        from compress.quantize.qat_training import holding

        steps = step.epochs * steps_per_epoch(len(data.train), step.batch * processes())
        after_step = (*after_step, holding(network, start.architecture.prepared, steps))
    run = {"checkpoint": checkpoint.fingerprint, "data": data.spec.digest, **identity}
    masked = start.architecture.masked
    try:
        result = learn(
            step,
            network,
            data,
            resources,
            run,
            teacher=teacher,
            masked=masked,
            validates=not seen,
            after_step=after_step,
        )
    except Diverged as error:
        raise _rescued(step, start, network, resources, error) from error
    # Where something else changes weights too, or nothing unseen is left to look at, a diagnosis means nothing.
    diagnosis = () if after_step or seen else explained(result.curves)[-1:]
    notes = (f"kept epoch {result.epoch} of {len(result.curves['train_loss'])}", *([SEEN] if seen else []), *diagnosis)
    return Change(
        start.architecture,
        result.weights,
        notes=notes,
        figures=result.curves,
        dataset=start.dataset,
        trained_on=start.trained_on,
    )


def _with_new_head(checkpoint: Checkpoint, spec: "DatasetSpec", resources: Resources) -> Checkpoint:
    """The checkpoint as a network for the classes of other data, whose validation images it has not seen."""
    architecture, weights = new_head(
        checkpoint.architecture, checkpoint.weights, len(spec.classes), resources.seed, resources.user
    )
    same = checkpoint.dataset is not None and checkpoint.dataset.digest == spec.digest
    trained_on = checkpoint.trained_on if same else "train"
    return dataclasses.replace(
        checkpoint, architecture=architecture, weights=weights, dataset=spec, trained_on=trained_on
    )


def _teacher(student: Checkpoint, resources: Resources) -> nn.Module:
    teacher = resources.teacher
    if teacher is None:
        raise UsageError(
            "following a teacher needs one: give --teacher CHECKPOINT, or leave `distillation` and `features` out."
        )
    ours, theirs = student.dataset, teacher.dataset
    if ours and theirs and ours.classes != theirs.classes:
        raise CompressError(
            f"the teacher knows {len(theirs.classes)} classes ({', '.join(theirs.classes[:3])}, ...) and the student "
            f"{len(ours.classes)} ({', '.join(ours.classes[:3])}, ...): it cannot teach it. Give a teacher of the same classes."
        )
    return build(teacher, resources.user)


def _rescued(
    step: "Train", start: Checkpoint, network: nn.Module, resources: Resources, error: Diverged
) -> CompressError:
    """The error with where the last weights kept are, now a checkpoint; the state is removed, for the next try is another run."""
    if resources.partial is None or not resources.partial.exists():
        return error
    path = resources.partial.with_name(resources.partial.name.replace(".partial.", ".before-divergence."))
    record = Record(
        step.name, step.model_dump(mode="json"), resources.seed, start.fingerprint, notes=(f"unfinished: {error}",)
    )
    last = dataclasses.replace(start, weights=copy(network), history=(*start.history, record))
    files.save(last, path)
    resources.partial.unlink(missing_ok=True)
    return CompressError(f"{error} The last weights kept before are in {path}.")
