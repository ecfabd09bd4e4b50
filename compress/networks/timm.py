"""timm's classifiers, by the names of its architectures, where the extra `timm` is installed.

Only names in timm's own list are taken: it would fetch others from where they point to. Nothing is downloaded; weights
are a file that the user gives.
"""

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress import document
from compress.architecture import STRICT, Architecture
from compress.errors import CompressError, missing_extra, unknown

if TYPE_CHECKING:
    from torch import nn

    from compress.networks.user import UserNetwork


@dataclass(frozen=True, config=STRICT)
class Arguments:
    """What an architecture of this source may say beyond its name."""

    num_classes: int = Field(ge=2, le=100_000)


def check(name: str) -> None:
    """Refuse a name that is not in timm's list; ResourceError where timm is not installed."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise missing_extra("timm", "timm", f"the network timm:{name}") from error
    known = timm.list_models()
    if name not in known:
        raise unknown("timm network", name, known)


def create(architecture: Architecture, user: "UserNetwork | None") -> "nn.Module":
    """The network with random weights, for images of the architecture's number of channels."""
    import timm

    arguments = document.validate(Arguments, architecture.arguments, f"the arguments of {architecture.title}")
    colours = architecture.input_shape[0]
    try:
        network: nn.Module = timm.create_model(
            architecture.name, pretrained=False, num_classes=arguments.num_classes, in_chans=colours
        )
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise CompressError(
            f"timm cannot make {architecture.title} for {arguments.num_classes} classes and {colours} colours: {error}. "
            "Give other data, or another network."
        ) from error
    return network
