"""Two integers of four bits in a byte: how a checkpoint holds weights that run from -7 to 7."""

import torch
from torch import Tensor

from compress.sparsity import ODD

HIGHEST = 7


def packs(low: int, high: int) -> bool:
    """Whether integers of this range go two to a byte."""
    return low >= -HIGHEST and high <= HIGHEST


def packed_shape(shape: torch.Size) -> torch.Size:
    """(outputs, bytes) of a weight of that shape."""
    return torch.Size((shape[0], (shape[1:].numel() + 1) // 2))


def pack(integers: Tensor) -> Tensor:
    """int8 integers from -7 to 7 as uint8 (outputs, bytes), the first of each two in the lower half."""
    halves = (integers.flatten(1) & 15).to(torch.uint8)
    halves = torch.nn.functional.pad(halves, (0, halves.shape[1] % 2), value=ODD)
    return halves[:, ::2] | halves[:, 1::2] << 4


def unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    """The int8 integers of that shape."""
    halves = torch.stack((packed & 15, packed >> 4), 2).flatten(1).to(torch.int8)[:, : shape[1:].numel()]
    return torch.where(halves > HIGHEST, halves - 16, halves).reshape(shape)
