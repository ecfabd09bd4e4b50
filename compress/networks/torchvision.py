"""torchvision's classifiers, by their names in `torchvision.models`, and the weights it publishes for them.

Networks with auxiliary heads (googlenet, inception_v3) are made without: the heads answer in training only.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress import document
from compress.architecture import STRICT, Architecture
from compress.data.spec import DatasetSpec, Preprocessing
from compress.errors import CompressError, ResourceError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compress.networks.user import UserNetwork

AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Networks with auxiliary heads, and how the names of the heads' tensors begin."""

OTHERS = {
    "detection": "finds objects in an image",
    "segmentation": "labels every pixel of an image",
    "video": "reads clips of video",
    "optical_flow": "estimates the motion between two images",
    "quantization": "is quantized already; give the float network of the name without quantized_",
}
"""The kinds of network torchvision has besides classifiers, and what each does instead."""

RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
"""Tensor names in torchvision's older files (DenseNet, vision transformers), and what they are called now."""


@dataclass(frozen=True, config=STRICT)
class Arguments:
    """What an architecture of this source may say beyond its name.

    `transform_input`, of the networks with auxiliary heads: whether the network itself turns ImageNet's
    normalisation into the one its published weights were trained with.
    """

    num_classes: int = Field(ge=2, le=100_000)
    transform_input: bool | None = None


def check(name: str) -> None:
    """Refuse a network that does not classify, saying what it does instead, and a name there is not."""
    from torchvision import models

    classifiers = models.list_models(module=models)
    if name in classifiers:
        return
    for kind, purpose in OTHERS.items():
        if name in models.list_models(module=getattr(models, kind)):
            raise CompressError(
                f"torchvision's {name} does not classify images: it {purpose}. Give a float classifier."
            )
    raise unknown("torchvision classifier", name, classifiers)


def create(architecture: Architecture, user: "UserNetwork | None") -> "nn.Module":
    """The network with random weights."""
    from torchvision import models

    if architecture.input_shape[0] != 3:
        raise CompressError(
            f"{architecture.title} reads images of 3 colours, and these have {architecture.input_shape[0]}. "
            "Give colour images, or a network of your own with --network path/net.py:build."
        )
    arguments = document.validate(Arguments, architecture.arguments, f"the arguments of {architecture.title}")
    options: dict[str, Any] = {"num_classes": arguments.num_classes}
    if architecture.name in AUXILIARY:
        options |= {"aux_logits": False, "init_weights": False, "transform_input": bool(arguments.transform_input)}
    network: nn.Module = models.get_model(architecture.name, weights=None, **options)
    return network


def published_arguments(name: str) -> dict[str, Any]:
    """What an architecture says besides its classes when torchvision's own weights go into it."""
    return {"transform_input": True} if name in AUXILIARY else {}


def modernise(name: str, state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """A state dict of any age under today's tensor names, without auxiliary heads."""
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(AUXILIARY.get(name, ("\0",)))}
    for pattern, replacement in RENAMED:
        kept = {pattern.sub(replacement, key): tensor for key, tensor in kept.items()}
    return kept


def find(name: str, weights: str) -> Any:
    """The published weights `DEFAULT`, `IMAGENET1K_V1`, ... of a network, as torchvision's own enum member."""
    known = _published(name)
    if weights not in known:
        raise unknown(f"weights of torchvision:{name}", weights, known)
    return known[weights]


def recognise(name: str, digest: str) -> Any | None:
    """The published weights a file holds, by the SHA-256 of its bytes, or None."""
    start = digest.removeprefix("sha256:")
    return next((weights for weights in _published(name).values() if start.startswith(_hash(weights))), None)


def download(weights: Any) -> Path:
    """The published file in torch's download cache, fetched where it is not there yet; ResourceError where it cannot be."""
    import torch

    file: str = weights.url.rpartition("/")[2]
    path = Path(str(torch.hub.get_dir())) / "checkpoints" / file
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), _hash(weights))
    except (OSError, RuntimeError) as error:
        raise ResourceError(
            f"cannot download {weights.url}: {error}. Check the connection, or fetch that file on another machine and "
            f"import it: compress import {file} --network torchvision:NAME -o base.safetensors"
        ) from error
    return path


def _published(name: str) -> dict[str, Any]:
    """Every set of weights torchvision publishes for a classifier, but those that hold no classifier (VGG-16's features)."""
    from torchvision import models

    members = models.get_model_weights(name).__members__
    return {label: weights for label, weights in members.items() if weights.meta["categories"]}


def _hash(weights: Any) -> str:
    """The first digits of a published file's SHA-256, which torchvision puts at the end of its name."""
    return str(weights.url).rpartition("-")[2].removesuffix(".pth")


def described(weights: Any) -> DatasetSpec:
    """The data published weights were trained on, with their preprocessing; its digest is empty, no image was seen."""
    transforms = weights.transforms()
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    preprocessing = Preprocessing(
        "rgb", tuple(transforms.mean), tuple(transforms.std), resize, transforms.interpolation.value, crop
    )
    return DatasetSpec("imagenet", tuple(weights.meta["categories"]), (3, crop, crop), preprocessing, digest="")
