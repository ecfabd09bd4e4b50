"""A run's curves as TensorBoard shows them."""

from collections.abc import Callable
from pathlib import Path

from compress.errors import missing_extra
from compress.train.loop import State


def scalars(folder: Path) -> Callable[[State], None]:
    """A function for the loop that writes each epoch's figures below `folder` as soon as they are there.

    Raises ResourceError where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise missing_extra("tensorboard", "tensorboard", "--tensorboard") from error
    writer = SummaryWriter(str(folder))
    written = 0

    def write(state: State) -> None:
        nonlocal written
        epochs = len(state.curves.get("train_loss", ()))
        if epochs > written:
            for name, values in state.curves.items():
                for epoch in range(written, epochs):
                    writer.add_scalar(name, values[epoch], epoch + 1)
            writer.flush()
            written = epochs

    return write
