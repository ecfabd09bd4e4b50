"""A network on its way to being quantized, and the repairs that make a better one of it."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from compress.errors import CompressError
from compress.progress import Progress
from compress.quantity import counted
from compress.quantize import ptq
from compress.quantize.adaround import learned_rounding
from compress.quantize.correct import corrected_biases
from compress.quantize.equalize import equalize
from compress.quantize.lockstep import fitting
from compress.quantize.packing import pack, packs
from compress.quantize.target import Target

M = TypeVar("M", bound=nn.Module)
FAITHFUL = 1e-4
"""How far the logits of an equalized network may be from those of the given one, as a share of their length."""


@dataclass(frozen=True)
class Setting:
    """How to quantize: what does not change from one draft to the next. `batches` gives the calibration images anew."""

    input_shape: tuple[int, int, int]
    target: Target
    observer: str
    share: float
    batches: Callable[[], Iterable[Tensor]]

    def images(self, traced: fx.GraphModule) -> Tensor:
        """The first calibration images, as many as one pass from layer to layer has memory for."""
        kept: list[Tensor] = []
        for batch in self.batches():
            kept.append(batch)
            if sum(map(len, kept)) >= fitting(traced, 2**31):
                break
        whole = torch.cat(kept)
        return whole[: fitting(traced, len(whole))]


@dataclass(frozen=True)
class Draft:
    """A float network and what quantizing made of it; what a repair has to say of itself is in `remarks`."""

    setting: Setting
    network: nn.Module
    result: ptq.Quantized
    left: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    @property
    def quantized(self) -> fx.GraphModule:
        """The quantized network."""
        return self.result.reference


def draft(setting: Setting, network: nn.Module, left: Mapping[str, str]) -> Draft:
    """Quantize a network, but for the layers in `left`."""
    result = ptq.quantize(
        network,
        setting.input_shape,
        setting.target,
        setting.observer,
        setting.batches(),
        share=setting.share,
        left=left,
    )
    return Draft(setting, network, result, left)


def equalized(before: Draft) -> Draft:
    """Channels of neighbouring layers brought to the same range, and quantized anew."""
    made, found, cut = equalize(before.network, before.setting.input_shape)
    images = next(iter(before.setting.batches()))
    with torch.no_grad():
        exact, again = before.network(images), made(images)
    if not (again - exact).norm() <= FAITHFUL * exact.norm():
        raise CompressError(
            "equalizing changed what this network computes, which it must not: weights are shared in a way that cannot be "
            "seen. Quantize without `equalize`."
        )
    remarks = [f"{counted(len(found), 'pair')} of layers"]
    if cut:
        remarks.append(f"{len(cut)} left for the ReLU6 between them, which no factor passes through")
    return dataclasses.replace(draft(before.setting, made, before.left), remarks=tuple(remarks))


def rounded(before: Draft, *, iterations: int, progress: Progress) -> Draft:
    """Every weight rounded the way that keeps its layer's outputs."""
    weights = before.setting.target.weights
    images = before.setting.images(before.result.traced)
    found = learned_rounding(before.quantized, before.result.traced, images, weights, iterations, progress)
    packed = packs(weights.low, weights.high)
    tensors = {f"{name}.integer": pack(integers) if packed else integers for name, integers in found.items()}
    return dataclasses.replace(before, result=before.result.repaired(tensors), remarks=(_told(found, images),))


def corrected(before: Draft) -> Draft:
    """Every bias moved by what rounding did to the mean of its layer's outputs."""
    images = before.setting.images(before.result.traced)
    biases, without = corrected_biases(before.quantized, before.result.traced, images)
    remarks = [_told(biases, images)]
    if without:
        remarks.append(f"{len(without)} have no bias of their own")
    return dataclasses.replace(with_biases(before, biases), remarks=tuple(remarks))


def with_biases(before: Draft, biases: Mapping[str, Tensor]) -> Draft:
    """The same draft with these biases, by name."""
    result = before.result.repaired({}, _changed(before.result.traced, biases))
    return dataclasses.replace(before, network=_changed(before.network, biases), result=result)


def _told(layers: Mapping[str, Tensor], images: Tensor) -> str:
    return f"{counted(len(layers), 'layer')} on {counted(len(images), 'image')}"


def _changed(module: M, tensors: Mapping[str, Tensor]) -> M:
    made = copy.deepcopy(module)
    held = made.state_dict()
    for name, tensor in tensors.items():
        held[name].copy_(tensor)
    return made
