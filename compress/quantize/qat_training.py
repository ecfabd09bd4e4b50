"""What is particular in a training on integers: what is held from when on, and which settings of `Train` cannot be had."""

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.architecture import Prepared
from compress.errors import UsageError
from compress.quantize.qat_rounding import Rounding
from compress.train.loop import AfterStep

if TYPE_CHECKING:
    from compress.train.step import Train

ABSENT = (
    "new_head",
    "features",
    "group_lasso",
    "checkpointing",
    "dropout",
    "spatial_dropout",
    "drop_block",
    "stochastic_depth",
)
"""Settings of `Train` about modules that are called as such: there are only their calls left."""


def require_trainable(train: "Train") -> None:
    """Raise UsageError for a setting that would do nothing, or harm, while training on integers."""
    asked = [name for name in ABSENT if getattr(train, name)]
    if train.layers != "all":
        asked.append("layers")
    if asked:
        raise UsageError(
            f"{asked[0]} was asked for, and a network prepared for quantization-aware training is one sequence of calls, "
            f"without the modules that is about. Do that in a train step before prepare_qat, and leave `{asked[0]}` out here."
        )
    if train.averaging == "swa":
        raise UsageError(
            "averaging swa was asked for, and it measures batch-norm statistics anew, which are held while a network "
            "learns to be quantized. Use ema, or none."
        )


def holding(network: nn.Module, prepared: Prepared, steps: int) -> AfterStep:
    """Hold batch-norm statistics, then ranges, once their share of a training of `steps` is over.

    What is returned belongs after every step, and once before the first where a run goes on.
    """
    norms, ranges = round(prepared.norms * steps), round(prepared.ranges * steps)
    done = 0

    def rest(network: nn.Module, inputs: object) -> None:
        for module in network.modules():
            if (isinstance(module, _BatchNorm) and done >= norms) or (isinstance(module, Rounding) and done >= ranges):
                module.eval()

    def after(network: nn.Module, taken: int) -> None:
        nonlocal done
        done = taken

    network.register_forward_pre_hook(rest)
    return after
