"""From the values seen in calibration to scales and zero points."""

from typing import Any, cast

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    ObserverBase,
    PerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationSpec

from compress.errors import CompressError
from compress.quantize.bias import weight_floor
from compress.quantize.calibration import NOT_FINITE
from compress.quantize.histogram import Counted, entropy, least_squares, percentile
from compress.quantize.sequence import BIAS, KINDS, arguments, attribute, calls
from compress.quantize.target import Integers, WeightScales

SMALLEST = 2.0**-40
"""The least scale there is, so that none is zero; where torchao's own, 2^-23, is the least, small activations are lost."""
OBSERVERS: dict[str, Any] = {
    "min-max": MinMaxObserver.with_args(eps=SMALLEST),
    "moving-average": MovingAverageMinMaxObserver.with_args(averaging_constant=0.1, eps=SMALLEST),
    "percentile": Counted.with_args(choose=percentile, eps=SMALLEST),
    "mse": Counted.with_args(choose=least_squares, eps=SMALLEST),
    "entropy": Counted.with_args(choose=entropy, eps=SMALLEST),
}
"""How the range of an activation is chosen. Each keeps as much for ten images as for ten thousand."""


def observer(name: str, share: float = 99.99) -> Any:
    """The observer of that name; `share` is the per cent of the values that `percentile` keeps."""
    return Counted.with_args(choose=percentile, share=share, eps=SMALLEST) if name == "percentile" else OBSERVERS[name]


class PerChannelAlike(PerChannelMinMaxObserver):  # type: ignore[misc]  # torchao has no types
    """The same scale for every channel of a weight, as large as the largest needs."""

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The scale and the zero point, each (outputs,)."""
        ends = (end.expand_as(self.min_val) for end in (self.min_val.min(), self.max_val.max()))
        found: tuple[Tensor, Tensor] = self._calculate_qparams(*ends)
        return found


WEIGHTS: dict[WeightScales, Any] = {
    "channel": PerChannelMinMaxObserver.with_args(eps=SMALLEST),
    "tensor": PerChannelAlike.with_args(eps=SMALLEST),
}
"""How the scales of a weight are chosen."""


def specification(integers: Integers, observer: Any, axis: int | None = None) -> QuantizationSpec:
    """torchao's word for a range of integers: one scale for each index of `axis`, or one for the whole tensor."""
    per_tensor = torch.per_tensor_symmetric if integers.symmetric else torch.per_tensor_affine
    return QuantizationSpec(
        dtype=getattr(torch, integers.dtype),
        quant_min=integers.low,
        quant_max=integers.high,
        qscheme=per_tensor if axis is None else torch.per_channel_symmetric,
        ch_axis=axis,
        observer_or_fake_quant_ctr=observer,
    )


class Settled(ObserverBase):  # type: ignore[misc]  # torchao has no types
    """An observer that has seen enough: its scale and zero point no longer change, and are computed once."""

    def __init__(self, observer: Any) -> None:
        super().__init__(dtype=observer.dtype)
        self.qscheme, self.ch_axis = observer.qscheme, getattr(observer, "ch_axis", None)
        self.quant_min, self.quant_max = observer.quant_min, observer.quant_max
        self.silent = self.ch_axis is None and bool(observer.min_val == observer.max_val == 0)
        self.scale, self.zero_point = observer.calculate_qparams()

    def forward(self, x: Tensor) -> Tensor:
        """The identity, as every observer is."""
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The scale and the zero point, each (1,), or (outputs,) for a weight."""
        return self.scale, self.zero_point


def settle(prepared: fx.GraphModule, integer_biases: bool) -> int:
    """End the calibration of a prepared graph, in place; returns how many activations were zero for every image.

    With `integer_biases`, weight scales are kept large enough for the biases to be int32. Raises
    CompressError where NaN or infinity came by.
    """
    settled: dict[Any, Settled] = {}
    for name, module in list(prepared.named_modules(remove_duplicate=False)):
        if isinstance(module, ObserverBase):
            if module not in settled:
                if not bool((module.min_val.isfinite() & module.max_val.isfinite()).all()):
                    raise CompressError(NOT_FINITE)
                settled[module] = Settled(module)
            prepared.set_submodule(name, settled[module])
    if integer_biases:
        for call in calls(prepared):
            if KINDS.get(call.target) in ("conv", "linear") and len(call.args) > BIAS:
                _lift(prepared, call)
    return sum(observer.silent for observer in settled.values())


def _lift(prepared: fx.GraphModule, call: fx.Node) -> None:
    """Raise the scales of one layer's weight to what its bias needs."""
    source, weight, bias = arguments(call)[:3]
    if isinstance(bias, fx.Node) and bias.op == "get_attr" and source.op == weight.op == "call_module":
        reader, kept = (cast(Settled, prepared.get_submodule(node.target)) for node in (source, weight))
        floor = weight_floor(attribute(prepared, bias), reader.scale.item())
        kept.scale = torch.maximum(kept.scale, floor)
