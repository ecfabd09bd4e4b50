import dataclasses

import pytest

from compress.architecture import Architecture
from compress.data.fits import fits
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import CompressError

SPEC = DatasetSpec("pets", ("cat", "dog"), (3, 32, 32), Preprocessing("rgb", (0.5,) * 3, (0.5,) * 3), "")
NETWORK = Architecture("compress", "resnet20", {"num_classes": 2}, (3, 32, 32))
OWN = Architecture("user", "build", {}, (3, 32, 32))


def test_data_of_the_networks_shape_and_classes_fits():
    fits(SPEC, NETWORK)
    fits(SPEC, NETWORK, made_for=SPEC)
    fits(SPEC, OWN)
    fits(SPEC, OWN, outputs=2)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 32, 28), (3, 224, 224)])
def test_images_of_another_shape_are_refused(shape):
    text = "x".join(map(str, shape))
    with pytest.raises(
        CompressError, match=f"the images of pets are {text}, and the network resnet20 was made for 3x32x32"
    ):
        fits(dataclasses.replace(SPEC, image_shape=shape), NETWORK)


@pytest.mark.parametrize("classes", [("cat", "dog", "eel"), ("cat",)])
def test_another_number_of_classes_is_refused(classes):
    spec = dataclasses.replace(SPEC, classes=classes)
    with pytest.raises(CompressError, match=f"pets has {len(classes)} classes, and the network resnet20 answers for 2"):
        fits(spec, NETWORK)
    with pytest.raises(CompressError, match="user:build answers for 2"):
        fits(spec, OWN, outputs=2)


def test_the_same_classes_in_another_order_are_refused():
    turned = dataclasses.replace(SPEC, classes=("dog", "cat"))
    with pytest.raises(CompressError, match=r"in another order \(label 0 is 'dog' and was 'cat'\)"):
        fits(turned, NETWORK, made_for=SPEC)
