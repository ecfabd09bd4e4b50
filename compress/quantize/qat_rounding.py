"""Rounding to integers while a network trains: forward as the runtime rounds, backward as if nothing were rounded."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase

from compress.quantize.observers import SMALLEST, specification
from compress.quantize.placement import Placement
from compress.quantize.target import Target

SHARE = 0.01
"""How much of the range of an activation each training step renews."""


class Rounding(UniformQuantizationObserverBase):  # type: ignore[misc]  # torchao has no types
    """A fake-quantize: in training it follows the range of what it is given, outside it holds it.

    The range of an activation is a moving average over steps, that of a weight the present one. While
    `calibrating` it grows to all values seen. With `learned`, the scale is a parameter, `step`, and only
    calibration sets it otherwise.
    """

    ch_axis: int | None = None

    def __init__(self, learned: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.calibrating = False
        self.register_buffer("eps", self.eps, persistent=False)
        self.size(1)
        self.step = nn.Parameter(torch.ones(1)) if learned else None

    def size(self, scales: int) -> None:
        """Make room for so many scales, with no range yet."""
        self.register_buffer("min_val", torch.full((scales,), torch.inf))
        self.register_buffer("max_val", torch.full((scales,), -torch.inf))
        if getattr(self, "step", None) is not None:
            self.step = nn.Parameter(torch.ones(scales))

    def forward(self, x: Tensor) -> Tensor:
        """Follow the range of `x` where it is to be followed, and round it to the integers of that range."""
        self.see(x)
        return self.round(x, *self.calculate_qparams())

    @torch.no_grad()
    def see(self, x: Tensor) -> None:
        """Take values into the range."""
        if not (self.calibrating or (self.training and self.step is None)):
            return
        rows = x.detach().float() if self.ch_axis is None else x.detach().flatten(1)
        low, high = (rows.amin(), rows.amax()) if self.ch_axis is None else (rows.amin(1), rows.amax(1))
        if self.calibrating:
            self.min_val.copy_(torch.minimum(self.min_val, low))
            self.max_val.copy_(torch.maximum(self.max_val, high))
            if self.step is not None:
                self.step.copy_(self._calculate_qparams(self.min_val, self.max_val)[0])
        else:
            share = SHARE if self.ch_axis is None else 1.0
            self.min_val.lerp_(low, share)
            self.max_val.lerp_(high, share)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """The scale and the zero point, each (1,), or (outputs,) for a weight."""
        scale, zero_point = self._calculate_qparams(self.min_val, self.max_val)
        return (scale if self.step is None else self.step.clamp_min(self.eps)), zero_point

    def round(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """`x` rounded to integers and back."""
        shape = (-1, *[1] * (x.dim() - 1)) if self.ch_axis is not None else (1,)
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        rounded: Tensor = _Round.apply(x.float(), scale, zero_point, self.quant_min, self.quant_max)
        return rounded


class PerChannelRounding(Rounding):
    """One scale for each output channel of a weight; torchao gives an axis only to what has PerChannel in its name."""

    def __init__(self, ch_axis: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.ch_axis = ch_axis


class RoundingPlacement(Placement):
    """The same places as after training, with roundings that train instead of observers."""

    def __init__(self, target: Target, learned: bool) -> None:
        self.target = target
        self.activation = specification(target.activations, Rounding.with_args(learned=learned, eps=SMALLEST))
        self.weight = specification(target.weights, PerChannelRounding.with_args(learned=learned, eps=SMALLEST), axis=0)


def roundings(graph_module: fx.GraphModule) -> dict[Rounding, list[fx.Node]]:
    """Each rounding of a graph, in the order of its calls, and where it is called."""
    found: dict[Rounding, list[fx.Node]] = {}
    for node in graph_module.graph.find_nodes(op="call_module"):
        module = graph_module.get_submodule(str(node.target))
        if isinstance(module, Rounding):
            found.setdefault(module, []).append(node)
    return found


class _Round(torch.autograd.Function):
    """clamp(round(x / s) + z, low, high) - z, times s; arithmetic in the order of the operators that are exported.

    The gradient passes where nothing is cut off. That of the scale, with v = x / s, is the sum over what is
    rounded by it of

        round(v) - v  inside the range,  low - z or high - z  outside,

    times 1 / sqrt(N high) with N numbers of one image or one output channel.
    (LSQ, Esser et al., https://arxiv.org/abs/1902.08153.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        v = x * (1 / scale)
        integers = v.round().add_(zero_point)
        cut = integers.clamp(low, high)
        inside = cut == integers
        steps = cut.sub_(zero_point)
        ctx.save_for_backward(inside, steps - v * inside if ctx.needs_input_grad[1] else None)
        ctx.shape, ctx.share = scale.shape, (x[0].numel() * high) ** -0.5
        return steps * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inside, slope = ctx.saved_tensors
        scales = None if slope is None else (gradient * slope).sum_to_size(ctx.shape) * ctx.share
        return gradient * inside, scales, None, None, None
