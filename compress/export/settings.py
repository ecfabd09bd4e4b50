"""How a checkpoint is exported, as a value; each format reads what concerns it."""

from typing import Literal

from pydantic.dataclasses import dataclass

from compress.architecture import STRICT
from compress.errors import UsageError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PackageName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True, config=STRICT)
class Settings:
    """What is asked of an export; `precision` and `batch` of every format, the rest of an engine.

    `precision` None is what the checkpoint is held in; `batch` is the only number of images it takes
    at a time, None for any: for those an engine's `batches` say. `batches` are the fewest images at a time, the number an
    engine is tuned for, and the most; `compute_capability` is that of its GPU ("8.6"), None the GPU here;
    `workspace` is the most memory, in bytes, one of its layers may use while it runs; `tolerated` the share of
    its layers, 0 to 1, that may be built in another type than was asked for. `package` chooses between the two
    TensorRT packages where both are installed.
    """

    precision: Precision | None = None
    batch: int | None = None
    batches: tuple[int, int, int] = (1, 8, 64)
    compute_capability: str | None = None
    workspace: int = 2**30
    tolerated: float = 0.0
    package: PackageName | None = None

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"a batch of {self.batch} images was asked for. Give 1 or more, or leave it free.")
        least, tuned, most = self.batches
        if not 1 <= least <= tuned <= most:
            raise UsageError(
                f"batches of {least}, {tuned} and {most} images were asked for. "
                "Give the fewest at a time, the number to tune for and the most, in this order."
            )


DEFAULT = Settings()
