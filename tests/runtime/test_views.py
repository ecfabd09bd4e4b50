"""Several views of an image, and one answer."""

import numpy as np
import pytest

from compress.runtime.views import VIEWS, Averaged, views


class Corner:
    """A session whose logits are the first pixels of the upper left corner."""

    input_shape = (1, 16, 16)
    closed = 0

    def __call__(self, images):
        return images[:, 0, 0, :3].copy()

    def outputs(self, names):
        return lambda images: dict.fromkeys(names, images)

    def close(self):
        self.closed += 1


IMAGES = np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32)


def soft(logits):
    powers = np.exp(logits)
    return powers / powers.sum(1, keepdims=True)


def test_the_answer_is_the_mean_of_the_probabilities():
    found = Averaged(Corner(), "flip")(IMAGES)
    mirrored = IMAGES[:, 0, 0, ::-1][:, :3]
    assert np.exp(found) == pytest.approx((soft(IMAGES[:, 0, 0, :3]) + soft(mirrored)) / 2, rel=1e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize(("kind", "count"), [("none", 1), ("flip", 2), ("crops", 10)])
def test_every_view_is_another_and_has_the_shape_of_the_image(kind, count):
    found = views(IMAGES, kind)
    assert {each.shape for each in found} == {IMAGES.shape}
    assert len({each.tobytes() for each in found}) == count
    assert np.array_equal(found[0], IMAGES)


def test_a_corner_is_the_image_moved_with_its_edge_repeated():
    lower_right = views(IMAGES, "crops")[4]
    assert np.array_equal(lower_right[:, :, :-1, :-1], IMAGES[:, :, 1:, 1:])
    assert np.array_equal(lower_right[:, :, -1, :-1], IMAGES[:, :, -1, 1:])


@pytest.mark.parametrize("kind", VIEWS)
def test_a_network_sure_of_one_class_stays_finite_and_one_view_keeps_the_probabilities(kind):
    found = Averaged(Corner(), kind)(1000 * np.ones_like(IMAGES) * np.arange(16, dtype=np.float32))
    assert np.isfinite(found).all()
    assert soft(Averaged(Corner(), "none")(IMAGES)) == pytest.approx(soft(IMAGES[:, 0, 0, :3]), rel=1e-5)


def test_the_rest_is_the_sessions_own():
    session = Corner()
    averaged = Averaged(session, "flip")
    averaged.close()
    assert averaged.input_shape == (1, 16, 16) and session.closed == 1
    assert averaged.outputs(["a"])(IMAGES)["a"] is IMAGES
