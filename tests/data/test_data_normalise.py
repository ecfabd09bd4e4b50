import pytest
import torch
from torchvision.transforms import functional as F

from compress.data.normalise import normalise
from compress.data.spec import Preprocessing

RGB = Preprocessing("rgb", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_every_byte_is_normalised_as_torchvision_does_it():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    expected = F.normalize(F.convert_image_dtype(images), RGB.mean, RGB.std)
    assert torch.equal(normalise(images, RGB), expected)


def test_the_images_given_stay_as_they_are():
    images = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2)
    normalise(images, RGB)
    assert torch.equal(images, torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2))


def test_images_that_were_scaled_already_are_refused():
    with pytest.raises(TypeError, match="takes uint8 images"):
        normalise(torch.rand(1, 3, 2, 2), RGB)
