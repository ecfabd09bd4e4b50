"""Networks exported once for all tests here."""

import pytest
from awake import ARCHITECTURES, awake, images

from compress.export.onnx import export


@pytest.fixture(scope="session")
def nets():
    """For the name of an architecture: a checkpoint, its ONNX bytes, and 16 images as an array."""
    made = {}

    def get(name):
        if name not in made:
            checkpoint = awake(ARCHITECTURES[name])
            made[name] = checkpoint, export(checkpoint), images(ARCHITECTURES[name].input_shape, 16).numpy()
        return made[name]

    return get
