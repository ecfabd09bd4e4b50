"""Which inputs a layer can best do without, and its weights solved again: arithmetic on sums, without a network.

A layer computes y = x W from rows x (1, n), its patches with a one at the end, block by block. All that is needed
of the images are the sums A = sum x'x and B = sum x'y, which are as small for many images as for few (He et al.,
https://arxiv.org/abs/1707.06168; the optimal brain surgeon, https://doi.org/10.1109/ICNN.1993.298572).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

import torch
from torch import Tensor

RIDGE = 1e-3
"""Pull at the weights, as a share of the mean square of a layer's inputs; nothing pulls at the bias."""
RIDGES = (RIDGE, 1e-2, 1e-1, 1.0, 10.0, 1e3)
"""Those that are tried where weights are solved for; with the last one little but the bias changes."""
TINY = 1e-9
"""What keeps a sum of squares from being zero, as a share of the number of rows."""
CANDIDATES = 32
"""How many channels are looked at closely between two passes over all of them."""


@dataclass
class Moments:
    """Running sums over rows, in float64: A (blocks, n, n), B (blocks, n, m), and sum y^2 (blocks, m)."""

    inputs: Tensor
    products: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, blocks: int, inputs: int, outputs: int) -> "Moments":
        """Nothing seen yet of a layer with so many inputs, the one at the end among them, and outputs in each block."""
        shapes = (blocks, inputs, inputs), (blocks, inputs, outputs), (blocks, outputs)
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in some rows x (blocks, rows, n) and y (blocks, rows, m)."""
        self.inputs += x.mT @ x
        self.products += x.mT @ y
        self.squares += y.double().square().sum(1)

    @property
    def rows(self) -> Tensor:
        """How many rows there were: the sum of the squared ones."""
        return self.inputs[0, -1, -1]

    def ridge(self, share: float = RIDGE) -> Tensor:
        """What is added to the diagonal of A, (blocks, n), for a pull of a `share` of the inputs' mean square."""
        squares = self.inputs.diagonal(dim1=1, dim2=2)[:, :-1]
        pull = share * squares.mean(1, keepdim=True) + TINY * self.rows
        return torch.cat([pull.expand_as(squares), torch.zeros_like(pull)], 1)

    def error(self, weights: Tensor) -> float:
        """sum |x W - y|^2 for W (blocks, n, m)."""
        return float((weights * (self.inputs @ weights - 2 * self.products)).sum() + self.squares.sum())

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.inputs + other.inputs, self.products + other.products, self.squares + other.squares)


def solve(moments: Moments, weights: Tensor, ridge: float = RIDGE, *, bias: bool = True) -> Tensor:
    """The W (blocks, n, m) of least sum |x W - y|^2 + ridge |W - weights|^2; without `bias` its last row is zero."""
    used = slice(None) if bias else slice(-1)
    pull = moments.ridge(ridge)[:, used]
    factor = torch.linalg.cholesky(moments.inputs[:, used, used] + torch.diag_embed(pull))
    solved = torch.zeros_like(weights)
    solved[:, used] = torch.cholesky_solve(moments.products[:, used] + pull[..., None] * weights[:, used], factor)
    return solved


def fit(moments: Moments, unseen: Moments, weights: Tensor, *, bias: bool = True) -> Tensor:
    """Weights solved for on all rows, with the ridge that, on `moments` alone, serves the `unseen` ones best.

    Where rows are few for so many inputs, the weights there were are worth more than what fits the rows.
    """
    best = min(RIDGES, key=lambda ridge: unseen.error(solve(moments, weights, ridge, bias=bias)))
    return solve(moments + unseen, weights, best, bias=bias)


@dataclass(frozen=True)
class Reader:
    """A layer of one block, as `eliminate` needs it: P = (A + ridge)^-1, (n, n), and W = P B, (n, m).

    `scale` (m,) divides its outputs to give them a variance of one over all rows together.
    """

    inverse: Tensor
    weights: Tensor
    scale: Tensor

    @classmethod
    def of(cls, moments: Moments) -> "Reader":
        """The layer whose inputs and outputs have these moments."""
        squares = moments.squares[0] - moments.products[0, -1].square() / moments.rows
        scale = squares.clamp_min(TINY * moments.rows).sqrt()
        inverse = torch.linalg.inv(moments.inputs[0] + torch.diag_embed(moments.ridge()[0]))
        return cls(inverse, inverse @ (moments.products[0] / scale), scale)

    def among(self, piece: Tensor) -> "Reader":
        """Its inputs `piece` (k,) alone, which tell what losing some of them costs while all others stay."""
        return Reader(self.inverse[piece][:, piece], self.weights[piece], self.scale)

    def costs(self, pieces: Tensor) -> Tensor:
        """tr(W_s' P_ss^-1 W_s) for each s of `pieces` (channels, k): what losing those inputs adds to the error."""
        held, blocks = self.weights[pieces], self.inverse[pieces[:, :, None], pieces[:, None, :]]
        costs: Tensor = (held * torch.linalg.solve(blocks, held)).sum((1, 2))
        return costs

    def without(self, piece: Tensor) -> "Reader":
        """The layer once the inputs `piece` (k,) are lost: P - P_:s P_ss^-1 P_s: and W - P_:s P_ss^-1 W_s."""
        rows, held = self.inverse[piece], self.weights[piece]
        share = torch.linalg.solve(rows[:, piece], rows).mT
        return Reader(self.inverse - share @ rows, self.weights - share @ held, self.scale)


@dataclass(frozen=True)
class Elimination:
    """The order in which channels are best dropped, the error once each is gone, and each reader's W (n, m) when half are.

    An error is the share of a reader's output variance that is lost, summed over outputs and readers.
    """

    order: tuple[int, ...]
    errors: tuple[float, ...]
    halfway: tuple[Tensor, ...]


def eliminate(readers: Sequence[Reader], pieces: Sequence[Tensor]) -> Elimination:
    """Drop channels one by one, each time the one whose loss the readers make up for best; the last one stays.

    `pieces[r]` (channels, k) says which of reader r's inputs each of the two or more channels is. Losing a channel
    is taken to make no other one cheaper to lose: those that are dear are looked at again only now and then.
    """
    count = len(pieces[0])
    left, half = torch.ones(count, dtype=torch.bool), count // 2
    order: list[int] = []
    added: list[float] = []
    halfway: tuple[Tensor, ...] = ()
    while len(order) < count - 1:
        channels = left.nonzero().flatten()
        costs, ranks = _costs(readers, [piece[channels] for piece in pieces]).sort(stable=True)
        few, dear = channels[ranks[:CANDIDATES]], costs[CANDIDATES:]
        most = (half if len(order) < half else count - 1) - len(order)
        going, prices = _cheapest(readers, [piece[few] for piece in pieces], float(dear[0]) if len(dear) else inf, most)
        dropped = few[going]
        order += dropped.tolist()
        added += prices
        left[dropped] = False
        readers = [reader.without(piece[dropped].flatten()) for reader, piece in zip(readers, pieces, strict=True)]
        if len(order) == half:
            halfway = tuple(reader.weights * reader.scale for reader in readers)
    return Elimination(tuple(order), tuple(accumulate(added)), halfway)


def _cheapest(
    readers: Sequence[Reader], pieces: Sequence[Tensor], limit: float, most: int
) -> tuple[list[int], list[float]]:
    """Which channels go one by one, and what each adds to the error: at most `most`, none but the first dearer than `limit`."""
    readers = [reader.among(piece.flatten()) for reader, piece in zip(readers, pieces, strict=True)]
    pieces = [torch.arange(piece.numel()).view(piece.shape) for piece in pieces]
    left = list(range(len(pieces[0])))
    order: list[int] = []
    added: list[float] = []
    while len(order) < most and left:
        costs = _costs(readers, [piece[left] for piece in pieces])
        least = int(costs.argmin())
        if order and costs[least] > limit:
            break
        added.append(float(costs[least]))
        order.append(left.pop(least))
        readers = [reader.without(piece[order[-1]]) for reader, piece in zip(readers, pieces, strict=True)]
    return order, added


def _costs(readers: Sequence[Reader], pieces: Sequence[Tensor]) -> Tensor:
    """What losing each channel adds to the error of all readers, (channels,)."""
    return torch.stack([reader.costs(piece) for reader, piece in zip(readers, pieces, strict=True)]).sum(0)
