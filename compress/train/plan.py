"""From the settings of a `Train` to what the loop is given: one function for each part of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compress.data.augment import Amounts, augmentation
from compress.data.normalise import normalise
from compress.data.spec import DatasetSpec
from compress.data.splits import LearningData, Split
from compress.errors import CompressError, UsageError, unknown
from compress.prune.groups import find_groups
from compress.prune.narrow import layout_of
from compress.train import constraints, distributed, gradients, objectives, penalties, transfer
from compress.train.averaging import EpochAverage, moving_average
from compress.train.checkpointing import checkpoint_blocks
from compress.train.features import listen, matching
from compress.train.loop import AfterStep, Mix, Plan, steps_per_epoch
from compress.train.mixing import mixing
from compress.train.optimisers import optimiser
from compress.train.rates import factor, rate
from compress.train.regularisers import KINDS, regularise
from compress.train.resident import near
from compress.train.state import Run
from compress.train.stopping import smoothed
from compress.train.validation import validation_accuracy

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from compress.train.step import Train

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
NARROW = 16
"""Channels that oneDNN takes at once, in FP32 with AVX-512."""
STATISTICS = 4096
"""Training images that an average of epochs takes its batch-norm statistics from, at most."""


@dataclass(frozen=True)
class Prepared:
    """A network made ready to train as some settings say: what the loop needs.

    `ahead` is to be called once before the first step that is taken, with the number of those taken before.
    """

    run: Run
    plan: Plan
    split: Split
    ahead: tuple[AfterStep, ...]


def prepare(
    train: "Train",
    network: nn.Module,
    data: LearningData,
    place: distributed.Place,
    seed: int,
    *,
    teacher: nn.Module | None = None,
    masked: Sequence[str] = (),
    validates: bool = True,
    after_step: Sequence[AfterStep] = (),
) -> Prepared:
    """Set `network` up, in place, to be trained on `data` as `train` says.

    Zeros in the layers `masked` stay zero. `validates` says whether the validation split may be looked at.
    `after_step` comes after what the settings themselves ask for, and is in `ahead`. Raises CompressError for a batch larger than
    the data, and where the network has not what a setting is about.
    """
    if train.batch * place.world > len(data.train):
        raise CompressError(
            f"a batch of {train.batch * place.world} was asked for, and the train split has {len(data.train)} images. "
            "Lower `batch`."
        )
    per_epoch = steps_per_epoch(len(data.train), train.batch * place.world)
    memory_format = layout(network, place.device)
    network.to(place.device, memory_format=memory_format)  # type: ignore[call-overload]
    for kind in KINDS:
        probability = getattr(train, kind)
        if probability is not None:
            regularise(network, kind, probability)
    chosen = optimiser(
        train.optimiser, network, train.rate, train.weight_decay, train.momentum, train.nesterov, train.depth_rate
    )
    averager = _averager(train, network, data, place.device, per_epoch)
    after = _after_step(train, network, chosen, data.spec, masked)
    ahead = tuple(after_step)
    if train.layers == "gradual":
        ahead = (transfer.unfreeze(network, transfer.head_of(network), per_epoch, train.unfreeze_epochs), *after_step)
    elif train.layers == "head":
        transfer.train_only(network, transfer.head_of(network))
    objective = _objective(train, network, teacher, data)
    if train.checkpointing:
        checkpoint_blocks(network)
    validate = partial(validation_accuracy, data=data, device=place.device) if validates else None
    together = place.world > 1
    plan = Plan(
        epochs=train.epochs,
        batch=train.batch,
        seed=seed,
        device=place.device,
        preprocessing=data.spec.preprocessing,
        objective=objective,
        factor=_factor(train, per_epoch),
        memory_format=memory_format,
        transforms=(augmentation(train.augmentation, data.spec, **_amounts(train)),),
        mix=_mix(train, len(data.spec.classes)),
        teacher=teacher,
        penalty=partial(penalties.squares, strength=train.l2) if train.l2 else None,
        reduce=distributed.average_gradients if together else None,
        clip=_clip(train, network),
        autocast=AUTOCAST[train.precision],
        accumulate=train.accumulate,
        averager=averager,
        after_step=(*after, *ahead, *([distributed.average_statistics] if together else [])),
        validate=distributed.one_score(validate, place) if validate and together else validate,
        judge=partial(smoothed, share=train.smoothing),
        patience=train.patience,
        improvement=train.improvement,
        rank=place.rank,
        world=place.world,
    )
    return Prepared(Run(network, chosen, averager), plan, near(data.train, data.spec.image_shape, place.device), ahead)


def layout(network: nn.Module, device: str) -> torch.memory_format:
    """How images and activations lie in memory while a network trains: channels last, which is faster, where that is safe.

    On a processor it is not where a strided 1x1 convolution reads fewer than 16 channels (the first of a RepVGG, a
    shortcut of a narrow ResNet): the gradient of its weights is then written past the end of a buffer (seen in torch 2.15).
    """
    unsafe = any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < NARROW
        for module in network.modules()
    )
    return torch.contiguous_format if unsafe and device == "cpu" else torch.channels_last


def _factor(train: "Train", per_epoch: int) -> Callable[[int], float]:
    """The learning rate's course; from where epochs are averaged on, it stays as it is there."""
    shape = rate(train.schedule, train.cycles, train.decay)
    total = train.epochs * per_epoch
    warmup = 0 if train.schedule == "one-cycle" else round(train.warmup * per_epoch)
    held = _start(train) * per_epoch if train.averaging == "swa" else total

    def course(step: int) -> float:
        return factor(shape, min(step, held), total, warmup, train.warmup_shape)

    return course


def _start(train: "Train") -> int:
    """The epoch after which epochs are averaged."""
    return round(train.swa_start * train.epochs)


def _averager(
    train: "Train", network: nn.Module, data: LearningData, device: str, per_epoch: int
) -> "AveragedModel | None":
    if train.averaging == "ema":
        return moving_average(network, train.ema_decay)
    if train.averaging == "swa":
        images = partial(_images, data, device, train.batch)
        return EpochAverage(network, per_epoch, _start(train) * per_epoch, images)
    return None


def _images(data: LearningData, device: str, batch: int) -> Iterable[Tensor]:
    """Whole batches of training images as the network sees them, without augmentation, for batch-norm statistics."""
    count = max(batch, min(STATISTICS, len(data.train)) // batch * batch)
    for images, _ in data.train.batches(batch, np.arange(count)):
        yield normalise(images, data.spec.preprocessing).to(device, memory_format=torch.channels_last)


def _after_step(
    train: "Train", network: nn.Module, chosen: Optimizer, spec: DatasetSpec, masked: Sequence[str]
) -> list[AfterStep]:
    """Pulls to zero first, then what weights are held to; zeros come last, so that they are exact."""
    after = []
    if train.l1:
        after.append(penalties.proximal_l1(network, chosen, train.l1))
    if train.norm_scales:
        after.append(penalties.proximal_scales(network, chosen, train.norm_scales))
    if train.group_lasso:
        after.append(penalties.proximal_groups(_groups(network, spec), chosen, train.group_lasso))
    if train.max_norm is not None:
        after.append(constraints.max_norm(train.max_norm))
    if masked:
        after.append(constraints.keep_zeros(network, masked))
    return after


def _groups(network: nn.Module, spec: DatasetSpec) -> list[list[penalties.Slice]]:
    """For each group of channels that can be pruned, the parameters that make those channels."""
    found = []
    for group in find_groups(network, spec.image_shape)[0]:
        slices = []
        for member in group.members:
            layer = network.get_submodule(member.layer)
            layout = layout_of(layer)
            assert layout is not None, f"{member.layer} is in a group and has no layout"
            for name, parameter in layer.named_parameters(recurse=False):
                axis = layout.axes[name][1]
                if member.side == "outputs" and axis is not None:
                    slices.append(penalties.Slice(parameter, axis, member.places))
        found.append(slices)
    return found


def _objective(
    train: "Train", network: nn.Module, teacher: nn.Module | None, data: LearningData
) -> objectives.Objective:
    weights = _class_weights(train.class_weights, data)
    if train.focal:
        objective = objectives.focal(train.focal, train.label_smoothing, weights)
    else:
        objective = objectives.cross_entropy(train.label_smoothing, weights)
    if train.distillation:
        objective = objectives.distillation(objective, train.distillation, train.temperature)
    if train.features:
        assert teacher is not None, "features are to be followed and there is no teacher"
        student, taught = listen(network, train.features), listen(teacher, train.features)
        objective = matching(objective, student, taught, train.feature_weight, train.feature_loss)
    return objective


def _class_weights(words: Sequence[str], data: LearningData) -> Tensor | None:
    """`balanced`, or CLASS=WEIGHT for some classes, 1 for the others; raises UsageError for anything else."""
    if not words:
        return None
    classes = data.spec.classes
    if "balanced" in words:
        labels = torch.cat([labels for _, labels in data.train.batches(1024)])
        weights = objectives.balanced(labels, len(classes))
    else:
        weights = torch.ones(len(classes))
    for word in words:
        name, equals, number = word.rpartition("=")
        if word == "balanced":
            continue
        if not equals:
            raise UsageError(f"class weight {word!r} gives no number: write {word}=2.5, or balanced.")
        if name not in classes:
            raise unknown("class", name, classes)
        try:
            weights[classes.index(name)] = float(number)
        except ValueError as error:
            raise UsageError(f"class weight {word!r} is no number: write {name}=2.5, or balanced.") from error
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.any()):
        raise UsageError(f"class weights {', '.join(words)}: give finite numbers, none below zero and not all zero.")
    return weights


def _amounts(train: "Train") -> dict[str, float | str]:
    """What is asked for besides the preset; None leaves it as the preset has it."""
    given = {name: getattr(train, name) for name in Amounts.__dataclass_fields__}
    return {name: value for name, value in given.items() if value is not None}


def _mix(train: "Train", classes: int) -> Mix | None:
    if not (train.mixup or train.cutmix):
        return None
    return mixing(classes, train.mixup, train.cutmix, train.mixing)


def _clip(train: "Train", network: nn.Module) -> Callable[[nn.Module], None] | None:
    if train.clip is None:
        return None
    if train.clip_by == "adaptive":
        return partial(gradients.clip_adaptive, share=train.clip, spared=transfer.head_of(network))
    if train.clip_by == "value":
        return partial(gradients.clip_value, largest=train.clip)
    return partial(gradients.clip_norm, longest=train.clip)
