"""Weights of four bits, two to a byte."""

import pytest
import torch

from compress.quantize.packing import pack, packed_shape, packs, unpack
from compress.sparsity import sparsity, zeros

SHAPES = [(4, 3, 3, 3), (5, 1, 3, 3), (2, 8), (1, 1)]


def integers(shape):
    """All of -7 to 7, at random."""
    return torch.randint(-7, 8, shape, generator=torch.Generator().manual_seed(0)).to(torch.int8)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_was_packed_is_unpacked_again(shape):
    given = integers(shape)
    packed = pack(given)
    assert packed.dtype == torch.uint8
    assert packed.shape == packed_shape(given.shape)
    assert unpack(packed, given.shape).equal(given)


def test_two_weights_take_a_byte():
    assert pack(integers((4, 4, 3, 3))).numel() == 4 * 4 * 3 * 3 / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_zeros_are_counted_in_packed_weights_as_in_plain_ones(shape):
    given = integers(shape)
    assert zeros(pack(given)) == zeros(pack(given).numpy()) == zeros(given)
    assert sparsity({"a.weight.integer": pack(given)}) == sparsity({"a.weight.integer": given})


def test_only_what_fits_four_bits_is_packed():
    assert packs(-7, 7)
    assert packs(-1, 1)
    assert not packs(-15, 15)
    assert not packs(-127, 127)
