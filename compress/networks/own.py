"""Our own networks, for small images."""

import pkgutil
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress import document
from compress.architecture import STRICT, Architecture
from compress.errors import unknown

if TYPE_CHECKING:
    from torch import nn

    from compress.networks.user import UserNetwork

NETWORKS = {
    "resnet20": "compress.networks.cifar_resnet:resnet20",
    "resnet32": "compress.networks.cifar_resnet:resnet32",
    "resnet44": "compress.networks.cifar_resnet:resnet44",
    "resnet56": "compress.networks.cifar_resnet:resnet56",
    "resnet110": "compress.networks.cifar_resnet:resnet110",
    "mobilenetv2": "compress.networks.cifar_mobilenet:mobilenetv2",
    "mobilenetv2_half": "compress.networks.cifar_mobilenet:mobilenetv2_half",
    "vgg16_bn": "compress.networks.cifar_vgg:vgg16_bn",
    "digits_cnn": "compress.networks.digits_cnn:digits_cnn",
}
"""Each name's function of (image channels, classes)."""


@dataclass(frozen=True, config=STRICT)
class Arguments:
    """What an architecture of this source may say beyond its name."""

    num_classes: int = Field(ge=2, le=100_000)


def check(name: str) -> None:
    """Raise UsageError for a name that is not in the table, with the nearest ones and the other sources."""
    if name not in NETWORKS:
        raise unknown("network", name, [*NETWORKS, "torchvision:NAME", "timm:NAME", "path/FILE.py:FUNCTION"])


def create(architecture: Architecture, user: "UserNetwork | None") -> "nn.Module":
    """The network with random weights, for images of the architecture's number of channels."""
    arguments = document.validate(Arguments, architecture.arguments, f"the arguments of {architecture.title}")
    network: nn.Module = pkgutil.resolve_name(NETWORKS[architecture.name])(
        architecture.input_shape[0], arguments.num_classes
    )
    return network
