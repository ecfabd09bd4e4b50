"""What measuring the time decided, kept beside an unfinished run: measured again after a kill, it might decide otherwise."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress import document, storage
from compress.architecture import STRICT
from compress.checkpoint import Checkpoint
from compress.device import is_first
from compress.pipeline import Resources, steps_folder
from compress.prune.rounds import another_run

if TYPE_CHECKING:
    from compress.prune.step import Prune

KIND, FORMAT = "compress latency decision", 1
Measured = tuple[dict[str, int], str]
"""How many channels of each group go, or which blocks, by name and in their order; and what there is to say of it."""


@dataclass(frozen=True, config=STRICT)
class Decision:
    """What goes of the checkpoint with this fingerprint, for a step with these settings, and what was measured."""

    checkpoint: str
    settings: str
    going: dict[str, Annotated[int, Field(ge=1)]]
    note: str


def decided(
    step: "Prune", checkpoint: Checkpoint, resources: Resources, names: Collection[str], measure: Callable[[], Measured]
) -> Measured:
    """What `measure` decides, or has decided in an earlier run that was killed while it trained.

    `names` are those there are. Raises CompressError where another run left the file.
    """
    if not step.epochs or resources.partial is None:
        return measure()
    folder = steps_folder(resources.partial)
    path, settings = folder / "00-latency.json", f"{step.model_dump_json()}, seed {resources.seed}"
    if not path.exists():
        going, note = measure()
        if is_first():
            document.write(
                storage.folder(folder) / path.name,
                KIND,
                FORMAT,
                Decision(checkpoint.fingerprint, settings, going, note),
            )
        return going, note
    found = document.read(path, KIND, FORMAT, Decision)
    if (found.checkpoint, found.settings) != (checkpoint.fingerprint, settings) or not set(names).issuperset(
        found.going
    ):
        raise another_run(path)
    return found.going, found.note
