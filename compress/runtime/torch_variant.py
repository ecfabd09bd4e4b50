"""The ways torch can run a network: eager, compiled or as a CUDA graph, in which numbers, in which layout.

A way is written behind the runtime's name, `torch:compile+channels-last+bf16`, and recorded with every figure as its runtime.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import nn

from compress.errors import CompressError, ResourceError, UsageError, unknown

Mode = Literal["eager", "compile", "cuda-graph"]
Precision = Literal["fp32", "tf32", "fp16", "bf16"]
CHANNELS_LAST = "channels-last"
TYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
AMPERE = (8, 0)
"""The compute capability from which a GPU has TF32 and BF16."""

Answer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Variant:
    """A way to run a network.

    `fp32` computes in FP32 throughout; `tf32` lets a GPU round the factors of products to 10 bits; `fp16` and `bf16`
    hold weights and activations in 16 bits. `compile` compiles for each batch size, `cuda-graph` records one.
    """

    mode: Mode = "eager"
    precision: Precision = "fp32"
    channels_last: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """What weights and activations are held in."""
        return TYPES.get(self.precision, torch.float32)

    @property
    def layout(self) -> torch.memory_format:
        """How four-dimensional tensors lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


EAGER = Variant()
"""How torch runs a network that nothing is said of."""


def variant(words: str) -> Variant:
    """The way that words joined by "+" name, what they do not say as in `Variant`; raises UsageError for others."""
    modes, precisions = get_args(Mode), get_args(Precision)
    given = words.split("+") if words else []
    for word in given:
        if word not in (*modes, *precisions, CHANNELS_LAST):
            raise unknown("way to run torch", word, (*modes, *precisions, CHANNELS_LAST))
    chosen = []
    for kind in (modes, precisions):
        found = [word for word in given if word in kind]
        if len(found) > 1:
            raise UsageError(f"torch:{words} asks for {' and '.join(found)}: give one of {', '.join(kind)}.")
        chosen.append(found[0] if found else kind[0])
    return Variant(cast(Mode, chosen[0]), cast(Precision, chosen[1]), CHANNELS_LAST in given)


def require(way: Variant, device: str, integers: bool) -> None:
    """Raise where a network cannot be run this way: for the device, or because it simulates integers (`integers`)."""
    if integers and way != EAGER:
        raise UsageError(
            "a quantized checkpoint is run by torch in eager FP32 only, where it simulates the integers exactly. "
            "Use the runtime torch, or export it and run the file."
        )
    if not device.startswith("cuda"):
        if way.mode == "cuda-graph" or way.precision == "tf32":
            asked = "a CUDA graph" if way.mode == "cuda-graph" else "TF32"
            raise UsageError(f"{asked} was asked for on the device {device}: it is NVIDIA's. Give --device cuda.")
        if way.mode == "compile" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise ResourceError(
                "torch.compile on a CPU needs a C++ compiler, and there is none here. Install g++, or use torch."
            )
    elif way.precision in ("tf32", "bf16") and torch.cuda.get_device_capability(device) < AMPERE:
        name = torch.cuda.get_device_name(device)
        raise CompressError(
            f"{way.precision} was asked for, and {name} has none (compute capability 8.0 has). Use fp16 or fp32."
        )


def prepared(network: nn.Module, way: Variant) -> Answer:
    """What answers images that lie on the network's device already; `network` is of the way's type and layout."""
    if way.mode == "compile":
        return cast(Answer, torch.compile(network, dynamic=False))
    return _Graphs(network) if way.mode == "cuda-graph" else network


@contextlib.contextmanager
def products(way: Variant, device: str) -> Iterator[None]:
    """Let products of FP32 numbers on a GPU be rounded to TF32 or not for a while: torch's own default does it for convolutions."""
    if not device.startswith("cuda"):
        yield
        return
    # Not the newer `fp32_precision`: what torch.compile reads are these two, and reading them fails once that is set.
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = way.precision == "tf32"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


class _Graphs:
    """A network recorded as one CUDA graph for each shape of its input: a replay launches all kernels at once."""

    WARM_UP = 3
    """Runs before the recording, in which libraries choose their kernels and take their memory."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._recorded: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The logits, in memory that the next call writes to again."""
        shape = tuple(images.shape)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(images)
        graph, given, answer = self._recorded[shape]
        given.copy_(images)
        graph.replay()
        return answer

    def _record(self, images: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        given = images.clone()
        with torch.cuda.device(images.device):
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(self.WARM_UP):
                    self._network(given)
            current.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                answer = self._network(given)
        return graph, given, answer
