"""Curves for TensorBoard, where it is installed."""

import importlib.util

import pytest
from tiny_training import checkpoint, resources, task

from compress.errors import ResourceError
from compress.train.loop import State
from compress.train.scalars import scalars
from compress.train.step import Train

INSTALLED = importlib.util.find_spec("tensorboard") is not None


@pytest.mark.skipif(INSTALLED, reason="TensorBoard is installed")
def test_without_tensorboard_the_extra_is_named_before_the_first_step(tmp_path):
    data, seen = task(), []
    step = Train(epochs=1, batch=16, tensorboard=str(tmp_path))
    with pytest.raises(
        ResourceError, match=r"--tensorboard needs the package 'tensorboard'.*compress-cnn\[tensorboard\]"
    ):
        step(checkpoint(data), resources(data, progress=lambda *told: seen.append(told)))
    assert not seen


@pytest.mark.skipif(not INSTALLED, reason="TensorBoard is not installed: python -m pip install tensorboard")
def test_every_epoch_is_written_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write, state = scalars(tmp_path), State()
    for loss in (3.0, 2.0):
        write(state)
        state.curves.setdefault("train_loss", []).append(loss)
        write(state)
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("train_loss")
    assert [(event.step, event.value) for event in found] == [(1, 3.0), (2, 2.0)]
