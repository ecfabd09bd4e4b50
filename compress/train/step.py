"""The step that trains: from scratch, to win back what compression cost, or for another task."""

from typing import ClassVar, Literal

import pydantic
from pydantic import Field

from compress.checkpoint import Checkpoint
from compress.pipeline import UNFOLDED, UNQUANTIZED, Change, Condition, Resources, Step


class Train(Step):
    """Train the network on the train split; with `distillation`, after the answers of the uncompressed one.

    Weight decay leaves biases and norm parameters alone. The last epoch is kept, or with `patience` the one
    best on the validation split. Weights that pruning set to zero stay zero. Started by torchrun, several
    processes train together.
    """

    requires: ClassVar[tuple[Condition, ...]] = (UNQUANTIZED, UNFOLDED)

    epochs: int = Field(default=10, ge=1, le=100_000)
    """Passes over the train split."""
    batch: int = Field(default=128, ge=2)
    """Images in one optimiser step; of each process, where torchrun started several."""

    # optimiser and rates
    optimiser: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    """sgd, adam, adamw (weight decay apart from the gradient), rmsprop."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of sgd and rmsprop."""
    nesterov: bool = True
    """Look ahead by the momentum, in sgd."""
    weight_decay: float = Field(default=5e-4, ge=0, le=1)
    """Pull of the weights towards zero; biases and norm parameters are left alone."""
    rate: float = Field(default=0.03, gt=0, lt=100, allow_inf_nan=False)
    """Learning rate at its highest."""
    schedule: Literal["cosine", "linear", "constant", "step", "exponential", "inverse", "restarts", "one-cycle"] = (
        "cosine"
    )
    """How the learning rate goes after the warm-up; restarts is the cosine, begun anew; one-cycle has its own warm-up."""
    cycles: int = Field(default=3, ge=1, le=1000)
    """Stairs of step, cosines of restarts."""
    decay: float = Field(default=0.1, gt=0, le=1)
    """What each stair of step is of the one before; where exponential and inverse end."""
    warmup: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Epochs over which the learning rate climbs to its highest."""
    warmup_shape: Literal["linear", "exponential", "cosine"] = "linear"
    """How it climbs."""

    # losses
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread over all classes."""
    focal: float = Field(default=0.0, ge=0, le=10)
    """Focal loss: how strongly images answered well already are passed over (2 is usual); 0 is cross-entropy."""
    class_weights: tuple[str, ...] = ()
    """How much classes count: `balanced` (all the same, however many images each has), or CLASS=WEIGHT."""
    distillation: float = Field(default=0.0, ge=0, le=1)
    """Share of the loss that follows the teacher; 0 is none. In a recipe, the teacher is the network it starts from."""
    temperature: float = Field(default=4.0, gt=0, le=100)
    """Softens both sides' answers for distillation."""
    features: tuple[str, ...] = ()
    """Layers whose answers follow the teacher's layer of the same name, such as layer3."""
    feature_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How much each of these layers adds to the loss."""
    feature_loss: Literal["attention", "hint"] = "attention"
    """What is compared: attention, where in the image they answer, at any width; hint, every number, at equal widths."""

    # penalties
    l1: float = Field(default=0.0, ge=0, le=1)
    """Pull of all weights to exactly zero, by a proximal step; with l2 it is the elastic net."""
    l2: float = Field(default=0.0, ge=0, le=1)
    """Half the sum of all squared weights, added to the loss with this factor; none becomes exactly zero."""
    group_lasso: float = Field(default=0.0, ge=0, le=1)
    """Pull of whole channels to exactly zero, over the groups that pruning removes together, by a proximal step."""
    norm_scales: float = Field(default=0.0, ge=0, le=1)
    """Pull of batch-norm scales to exactly zero, by a proximal step: network slimming."""
    max_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Longest incoming weights of a unit; longer ones are scaled back after every step."""

    # mixing and augmentation
    mixup: float = Field(default=0.0, ge=0, le=100)
    """Strength of mixup, the Beta distribution's parameter; 0 is none."""
    cutmix: float = Field(default=0.0, ge=0, le=100)
    """Strength of cutmix; 0 is none. With mixup too, each batch takes one of them."""
    mixing: float = Field(default=1.0, ge=0, le=1)
    """Share of the batches that are mixed at all."""
    augmentation: Literal["none", "light", "medium", "heavy"] = "light"
    """What is done to training images at random: none; shifts and, for colour images, flips; more; much more."""
    padding: int | None = Field(default=None, ge=0)
    """Shift by up to so many pixels. This and what follows replaces the preset's amount."""
    flip: bool | None = None
    """Mirror half of the images left to right."""
    rotation: float | None = Field(default=None, ge=0, le=180)
    """Turn by up to so many degrees."""
    translation: float | None = Field(default=None, ge=0, le=1)
    """Move by up to this share of the image."""
    shear: float | None = Field(default=None, ge=0, le=60)
    """Shear by up to so many degrees."""
    scaling: float | None = Field(default=None, ge=0, lt=1)
    """Resize by a factor of up to this far from 1."""
    brightness: float | None = Field(default=None, ge=0, le=1)
    """Change by a factor of up to this far from 1."""
    contrast: float | None = Field(default=None, ge=0, le=1)
    """Change by a factor of up to this far from 1."""
    saturation: float | None = Field(default=None, ge=0, le=1)
    """Change by a factor of up to this far from 1; colour images only."""
    hue: float | None = Field(default=None, ge=0, le=0.5)
    """Turn by up to this share of the colour circle; colour images only."""
    policy: Literal["none", "randaugment", "autoaugment"] | None = None
    """A learned policy of operations."""
    erasing: float | None = Field(default=None, ge=0, le=1)
    """Share of the images in which a rectangle is covered."""

    # the network's own random layers
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Probability of the network's dropout layers, 0 to switch them off; left out, as the network has them."""
    spatial_dropout: float | None = Field(default=None, ge=0, lt=1)
    """The same of layers that drop whole channels."""
    drop_block: float | None = Field(default=None, ge=0, lt=1)
    """The same of layers that drop squares of the image."""
    stochastic_depth: float | None = Field(default=None, ge=0, lt=1)
    """The same of layers that drop residual branches; the last of them, the others less in proportion."""

    # averaging and gradients
    averaging: Literal["none", "ema", "swa"] = "none"
    """Keep an average of the weights: ema, over all steps, the last ones most; swa, over the last epochs, at a held rate."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """What an ema keeps of itself at each step."""
    swa_start: float = Field(default=0.75, ge=0, lt=1)
    """Share of the epochs after which swa begins."""
    clip: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest gradient allowed; none clips nothing."""
    clip_by: Literal["norm", "value", "adaptive"] = "norm"
    """What `clip` is of: the length of all gradients together, each number, or each unit's share of its weights."""
    accumulate: int = Field(default=1, ge=1)
    """Pieces in which a batch is computed, to save memory; each batch norm sees one piece at a time."""
    checkpointing: bool = False
    """Compute each block twice instead of keeping what its gradient needs: less memory, the same result."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What the forward and backward passes are computed in; fp16 scales the loss. bf16 is faster where the processor has it."""

    # stopping
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better validation accuracy, and keep the best."""
    improvement: float = Field(default=0.0, ge=0, le=100)
    """Points by which an accuracy has to be higher to count as better."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Judge by a moving average of the accuracies, which keeps this much of itself each epoch."""
    restore_best: bool = True
    """With patience, keep the best epoch's weights rather than the last's."""

    # transfer
    new_head: bool = False
    """Replace the last layer by a new one for the classes of the data."""
    layers: Literal["all", "head", "gradual"] = "all"
    """Which layers learn: all; the last alone; or gradual, from the last back to the first."""
    unfreeze_epochs: int = Field(default=5, ge=1)
    """Epochs after which gradual has come to the first layer."""
    depth_rate: float = Field(default=1.0, gt=0, le=1)
    """The first layer's learning rate as a share of the last's; those between in proportion."""

    # how the run is kept and shown; no part of the result, nor of the history
    save_minutes: float = Field(default=5.0, ge=0, exclude=True)
    """Keep the unfinished run's state this often; started again after a kill, it goes on from there."""
    tensorboard: str | None = Field(default=None, exclude=True)
    """Folder to write the curves to for TensorBoard."""

    @pydantic.model_validator(mode="after")
    def _pieces_fit(self) -> "Train":
        if self.accumulate > self.batch:
            raise ValueError(f"a batch of {self.batch} images cannot be computed in {self.accumulate} pieces")
        return self

    @property
    def follows(self) -> bool:
        """Whether the answers of a teacher, or of its layers, count in the loss."""
        return bool(self.distillation or self.features)

    def apply(self, checkpoint: Checkpoint, resources: Resources) -> Change:
        """Train; raises CompressError where the data does not fit, the loss diverges, or there is no teacher to follow."""
        from compress.train.training import train

        return train(self, checkpoint, resources)
