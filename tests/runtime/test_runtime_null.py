"""A session whose cost is known."""

import numpy as np
import pytest

from compress.errors import CompressError
from compress.runtime import null, open_session
from compress.runtime.null import Clock, Cost, NullSession


def test_a_run_takes_exactly_what_it_is_told_to():
    clock = Clock()
    costs = iter([0.5, 0.25])
    session = NullSession(lambda: next(costs), clock)
    session(np.zeros((1, 1, 2, 2), np.float32))
    assert clock() == 500_000_000
    session(np.zeros((9, 1, 2, 2), np.float32))
    assert clock() == 750_000_000


def test_the_logits_are_the_pixels():
    session = NullSession(lambda: 0.0, Clock(), (1, 2, 2), classes=6)
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    assert session(images).tolist() == [[0, 1, 2, 3, 0, 1], [4, 5, 6, 7, 4, 5]]
    assert NullSession(lambda: 0.0, Clock(), classes=2)(images).tolist() == [[0, 1], [4, 5]]


def test_a_session_from_a_file_has_the_files_noise_and_none_unless_asked(tmp_path):
    def times(cost):
        null.write(tmp_path / "a.null", cost)
        session = open_session("null", tmp_path / "a.null")
        taken = []
        for _ in range(200):
            before = null.CLOCK()
            session(np.zeros((1, *cost.input_shape), np.float32))
            taken.append(null.CLOCK() - before)
        return np.log(np.array(taken) / 1e9)

    assert times(Cost(seconds=0.002)) == pytest.approx(np.log(0.002))
    noisy = times(Cost(seconds=0.002, noise=0.1, seed=3))
    assert noisy.std() == pytest.approx(0.1, rel=0.15)  # three standard errors of a spread from 200 values
    assert np.array_equal(noisy, times(Cost(seconds=0.002, noise=0.1, seed=3)))


def test_a_cost_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "a.null"
    null.write(path, Cost())
    path.write_text(path.read_text().replace('"seconds": 0.001', '"seconds": 0'))
    with pytest.raises(CompressError, match="seconds"):
        open_session("null", path)
