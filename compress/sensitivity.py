"""What each part of a network alone can give up, as a document beside its checkpoint, and how that is found again."""

from pathlib import Path
from typing import Literal, get_args

from pydantic.dataclasses import dataclass

from compress import document
from compress.architecture import STRICT
from compress.errors import Refusal

KIND, FORMAT = "compress sensitivity", 1
Structure = Literal["channels", "weights"]
HALF = 0.5


@dataclass(frozen=True, config=STRICT)
class Sensitivity:
    """What was measured: for each part, a figure for each of `ratios`, the shares of itself it gave up.

    `measure` top1: per cent of `images` validation images answered right; distance: |f' - f| / |f| over all logits,
    for weights that have seen those images. `whole` is the figure of the untouched network.
    """

    checkpoint: str
    data: str
    structure: Structure
    criterion: str
    ratios: tuple[float, ...]
    images: int
    seed: int
    measure: Literal["top1", "distance"]
    whole: float
    parts: dict[str, tuple[float, ...]]
    refusals: tuple[Refusal, ...]

    def harm(self, part: str) -> tuple[float, ...]:
        """What each share costs: points of top-1 lost, or the distance."""
        return tuple(self.whole - figure if self.measure == "top1" else figure for figure in self.parts[part])

    @property
    def middle(self) -> float:
        """The measured share that lies nearest to half."""
        return min(self.ratios, key=lambda ratio: abs(ratio - HALF))

    def layer(self, name: str) -> float | None:
        """What the middle share of a layer costs, of its worst group where it makes several; None where it was not asked."""
        place = self.ratios.index(self.middle)
        found = [self.harm(part)[place] for part in self.parts if part.partition(" (")[0] == name]
        return max(found, default=None)


def beside(checkpoint: Path, structure: Structure) -> Path:
    """Where the sensitivity of a checkpoint's file is kept."""
    return checkpoint.with_name(f"{checkpoint.stem}.sensitivity.{structure}.json")


def kept(folder: Path, fingerprint: str) -> tuple[Sensitivity, ...]:
    """The sensitivities in a folder that are of the checkpoint with this fingerprint, that of channels first.

    Raises CompressError where one of the documents cannot be read.
    """
    documents = [path for each in get_args(Structure) for path in sorted(folder.glob(f"*.sensitivity.{each}.json"))]
    found = [document.read(path, KIND, FORMAT, Sensitivity) for path in documents]
    return tuple(each for each in found if each.checkpoint == fingerprint and each.parts)
