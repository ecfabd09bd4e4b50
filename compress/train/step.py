"""The step that trains: from scratch, or to win back what compression cost."""

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from compress.checkpoint import Checkpoint
from compress.errors import UsageError, CompressError
from compress.pipeline import UNFOLDED, UNQUANTIZED, Change, Condition, Resources, Step

if TYPE_CHECKING:
    from torch import nn

    from compress.data.splits import LearningData
    from compress.train.loop import Plan

SEEN = (
    "the weights have seen the validation images, so accuracy on them means nothing: "
    "fixed settings, the last epoch, no early stopping"
)


class Train(Step):
    """Train the network on the train split; with `distillation`, after the answers of the uncompressed one.

    Weight decay leaves biases and norm parameters alone. The last epoch is kept, or with `patience` the one
    best on the validation split.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNFOLDED, UNQUANTIZED)

    epochs: int = Field(default=10, ge=1, le=100_000)
    """Passes over the train split."""
    rate: float = Field(default=0.03, gt=0, lt=100, allow_inf_nan=False)
    """Learning rate at its highest, for a batch of 128."""
    batch: int = Field(default=128, ge=2)
    """Images in one optimiser step."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """sgd (momentum 0.9, Nesterov) or adamw."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes after the warm-up."""
    warmup: float = Field(default=0.5, ge=0)
    """Epochs over which the learning rate climbs to its highest."""
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    """Pull of the weights towards zero; biases and norm parameters are left alone."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    distillation: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss that follows the teacher; 0 is none. In a recipe, the teacher is the network it starts from."""
    temperature: float = Field(default=4.0, gt=0, le=100)
    """Softens both sides' answers for distillation."""
    augmentation: Literal["none", "light"] = "light"
    """What is done to training images at random: none, or shifts and, for colour images, flips."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the forward and backward passes are computed in; bf16 is faster where the processor has it."""
    clip: float | None = Field(default=None, gt=0)
    """Longest gradient allowed (norm over all parameters); none clips nothing."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better validation accuracy, and keep the best."""
    save_minutes: float = Field(default=5.0, ge=0)
    """Keep the unfinished run's state this often; started again after a kill, it goes on from there."""

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Train; raises CompressError where the data does not fit, the loss diverges, or there is no teacher to follow."""
        import torch

        from compress.build import build
        from compress.train.loop import fit
        from compress.train.optimisers import optimiser
        from compress.train.state import Run, keeper, restore

        data = resources.need_data("train")
        if self.patience is not None and checkpoint.trained_on == "all":
            raise UsageError(
                f"early stopping was asked for (patience {self.patience}), but {SEEN}. Leave `patience` out."
            )
        if self.batch > len(data.train):
            raise CompressError(
                f"a batch of {self.batch} was asked for, and the train split has {len(data.train)} images. Lower `batch`."
            )
        network = build(checkpoint, resources.user)
        network = network.to(resources.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        run = Run(network, optimiser(self.optimiser, network, self.rate, self.weight_decay))
        settings = {
            **self.model_dump(mode="json"),
            "seed": resources.seed,
            "checkpoint": checkpoint.fingerprint,
            "data": data.spec.digest,
        }
        partial, state, saved = resources.partial, None, None
        if partial is not None:
            state = restore(partial, settings, run) if partial.exists() else None
            saved = keeper(partial, settings, run, self.save_minutes * 60)
        with torch.random.fork_rng():
            result = fit(
                network,
                data.train,
                run.optimiser,
                self._plan(checkpoint, resources, data),
                resources.progress,
                state,
                saved,
            )
        if partial is not None:
            partial.unlink(missing_ok=True)
        notes = [f"kept epoch {result.epoch} of {len(result.curves['train_loss'])}"]
        if checkpoint.trained_on == "all":
            notes.append(SEEN)
        return Change(checkpoint.architecture, result.weights, notes=tuple(notes), figures=result.curves)

    def _plan(self, checkpoint: Checkpoint, resources: Resources, data: "LearningData") -> "Plan":
        import torch

        from compress.data.augment import augmentation
        from compress.train.gradients import clip_norm
        from compress.train.loop import Plan, steps_per_epoch
        from compress.train.objectives import cross_entropy, distillation
        from compress.train.rates import RATES, factor

        per_epoch = steps_per_epoch(len(data.train), self.batch)
        objective = cross_entropy(self.label_smoothing)
        if self.distillation:
            objective = distillation(objective, self.distillation, self.temperature)
        return Plan(
            epochs=self.epochs,
            batch=self.batch,
            seed=resources.seed,
            device=resources.device,
            preprocessing=data.spec.preprocessing,
            objective=objective,
            factor=partial(
                factor, RATES[self.schedule], total=self.epochs * per_epoch, warmup=round(self.warmup * per_epoch)
            ),
            transforms=(augmentation(self.augmentation, data.spec),),
            teacher=self._teacher(checkpoint, resources) if self.distillation else None,
            autocast=torch.bfloat16 if self.precision == "bf16" else None,
            validate=partial(validation_accuracy, data=data, device=resources.device)
            if checkpoint.trained_on == "train"
            else None,
            patience=self.patience,
            clip=partial(clip_norm, longest=self.clip) if self.clip else None,
        )

    def _teacher(self, checkpoint: Checkpoint, resources: Resources) -> "nn.Module":
        import torch

        from compress.build import build

        teacher = resources.teacher
        if teacher is None:
            raise UsageError("distillation needs a teacher: give --teacher CHECKPOINT, or leave `distillation` out.")
        ours, theirs = checkpoint.dataset, teacher.dataset
        if ours and theirs and ours.classes != theirs.classes:
            raise CompressError(
                f"the teacher knows {len(theirs.classes)} classes ({', '.join(theirs.classes[:3])}, ...) and the student "
                f"{len(ours.classes)} ({', '.join(ours.classes[:3])}, ...): it cannot teach it. Give a teacher of the same classes."
            )
        return build(teacher, resources.user).to(resources.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def validation_accuracy(network: "nn.Module", data: "LearningData", device: str = "cpu", batch: int = 256) -> float:
    """Top-1 on the validation split, in per cent; leaves the network in inference mode."""
    import torch

    from compress.data.normalise import normalise

    network.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in data.validation.batches(batch):
            right += int(
                (network(normalise(images, data.spec.preprocessing).to(device)).argmax(1).cpu() == labels).sum()
            )
    return 100 * right / len(data.validation)
