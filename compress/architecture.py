"""What a network is, as data: enough to rebuild it without its original code having run."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic.dataclasses import dataclass

Source = Literal["compress", "torchvision", "timm", "user"]
STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


Extent = Annotated[int, pydantic.Field(ge=1, le=1 << 20)]
"""One size of what a network is given."""


@dataclass(frozen=True, config=STRICT)
class Edge:
    """One place where a quantized network holds integers: an argument of one call.

    `consumer` is the call's position in the exported call sequence, `argument` the position among its
    flattened arguments. An activation edge (`tensor` is None) reads its scale and zero point from row
    `quantizer` of the checkpoint's tensors `quantization.scale` and `quantization.zero_point`. A weight edge
    names the state-dict `tensor` it replaces, whose integers lie in `TENSOR.integer` and scales, one for each
    index of `axis`, in `TENSOR.scale`. A bias edge (int32) names the float `tensor` it is rounded from, on the
    scale of the call's input times that of its weight.
    """

    consumer: int
    argument: int
    dtype: Literal["uint8", "int8", "int32"]
    low: int
    high: int
    quantizer: int | None = None
    tensor: str | None = None
    axis: int | None = None

    @property
    def bits(self) -> int:
        """How many bits its range takes."""
        return (self.high - self.low).bit_length()


@dataclass(frozen=True, config=STRICT)
class Quantization:
    """How a network is quantized: for which target, on which edges of which call sequence.

    `operators` is the digest of the exported sequence of operators; a network that traces to another
    sequence (another torch, an edited file) is refused rather than quantized in the wrong places.
    """

    target: str
    operators: str
    edges: tuple[Edge, ...]


@dataclass(frozen=True, config=STRICT)
class Prepared:
    """How a network that trains rounds its numbers to the integers of a target (quantization-aware training).

    `folded` lists the (layer, batch norm) pairs that are one layer there; `operators` is the digest of the
    calls of the network so folded. The range of the i-th rounding, in the order of those calls, lies in the
    checkpoint's tensors `quantization.I.min_val` and `max_val`; learned step sizes in `quantization.I.step`.
    `norms` and `ranges` are the shares of a training after which batch-norm statistics and ranges are held.
    """

    target: str
    operators: str
    folded: tuple[tuple[str, str], ...]
    step_sizes: Literal["observed", "learned"]
    norms: float
    ranges: float
    weight_bits: int = 8
    activation_bits: int = 8


@dataclass(frozen=True, config=STRICT)
class Architecture:
    """A network as data.

    `input_shape` is (channels, height, width). `removed` names residual blocks in whose place the identity
    stands. `widths` maps a narrowed layer to its (inputs, outputs).
    `masked` names layers whose weights hold pruned zeros in place. `folded` lists (layer, batch norm)
    pairs, the batch norm absorbed into the layer; None is a network not folded yet, () one that had
    nothing to fold. `code` is the digest of the user's own file where
    `source` is "user". `prepared` is None but for a network on its way to integers.
    """

    source: Source
    name: str
    arguments: dict[str, Any]
    input_shape: tuple[Extent, Extent, Extent]
    removed: tuple[str, ...] = ()
    widths: dict[str, tuple[int, int]] = pydantic.Field(default_factory=dict)
    masked: tuple[str, ...] = ()
    folded: tuple[tuple[str, str], ...] | None = None
    quantization: Quantization | None = None
    code: str | None = None
    prepared: Prepared | None = None

    @pydantic.model_serializer(mode="wrap")
    def _plain(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`removed` and `prepared` only where there is something to say: the fingerprint of every other network stays."""
        plain: dict[str, Any] = handler(self)
        return {name: value for name, value in plain.items() if value or name not in ("removed", "prepared")}

    @property
    def title(self) -> str:
        """The name a user would type: `resnet20`, `torchvision:resnet18`, `user:build`."""
        return self.name if self.source == "compress" else f"{self.source}:{self.name}"

    @property
    def precision(self) -> str:
        """What the network's arithmetic is held in: `fp32`, `int8`, or by the bits of weights and activations, `w4a8`."""
        if self.quantization is None:
            return "fp32"
        weights = min((edge.bits for edge in self.quantization.edges if edge.tensor), default=8)
        activations = min((edge.bits for edge in self.quantization.edges if not edge.tensor), default=8)
        return "int8" if weights == activations == 8 else f"w{weights}a{activations}"
