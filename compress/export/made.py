"""What a format makes of an ONNX graph, before it is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compress.export.settings import Settings


@dataclass(frozen=True)
class Made:
    """The bytes of a file, and by name those of the files beside it.

    Without its `parts` the file is not whole; what else lies `beside` it is for people to read and for the next
    export to go faster. `settings` say how it was made, and `tools` are the versions of what made it.
    """

    content: bytes
    parts: Mapping[str, bytes] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


def as_it_is(content: bytes, settings: Settings, path: Path) -> Made:
    """An ONNX file: the graph itself."""
    return Made(content)
