"""What commands measure of files."""

import numpy as np

from compress.data.arrays import GREY, Part, assemble
from compress.data.normalise import normalise
from compress.measured import shown


def part(count):
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return Part(images, np.arange(count) % 2)


def test_parity_is_asked_on_calibration_images_too_where_those_for_validation_are_few():
    data = assemble("few", part(40), part(4), ("even", "odd"), seed=0)
    images, validation = shown(data, 128), data.learning.validation
    assert (len(validation), len(images)) == (4, 40)
    (pixels, _), *_ = validation.batches(4)
    assert np.array_equal(images[:4], normalise(pixels, GREY).numpy())
    assert len(shown(data, 3)) == 3
