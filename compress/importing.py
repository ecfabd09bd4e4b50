"""From plain weights to a checkpoint."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress import networks, storage
from compress.architecture import Architecture, Source
from compress.checkpoint import Checkpoint, Record, TrainedOn, require_finite
from compress.data.fits import fits
from compress.data.spec import DatasetSpec
from compress.errors import UsageError
from compress.networks import UserNetwork, torchvision

if TYPE_CHECKING:
    from torch import Tensor

CLASSES = {"compress": 10, "torchvision": 1000, "timm": 1000}
"""How many classes a network of a source is taken to have where no data says so: CIFAR-10's and ImageNet's."""


def import_checkpoint(
    weights: Path | str | None,
    network: str,
    spec: DatasetSpec | None = None,
    input_shape: tuple[int, int, int] | None = None,
    *,
    trained_on: TrainedOn = "all",
    user: UserNetwork | None = None,
    seed: int = 0,
) -> Checkpoint:
    """A checkpoint of a network, named as `networks.resolve` takes it, with the given weights.

    `weights` is a file (`.pth`, `.pt`, `.safetensors`); or the name torchvision publishes weights under, such
    as "DEFAULT", which are downloaded; or None for the random weights of `seed`, to train from nothing.
    `spec` is the data the network is for; without one, `input_shape` (C, H, W) says what its images are.
    Weights that torchvision publishes, also as a file, bring their own preprocessing. `trained_on` says
    whether the weights have seen the validation split ("all") or not ("train").

    Raises CompressError where weights, network and data do not go together, or the weights hold NaN.
    """
    from compress.networks.weights import load, match

    source, name = networks.resolve(network)
    if source == "user":
        user = user or networks.load_user(network)
    state, origin, published = _read(weights, source, name)
    arguments: dict[str, Any] = {}
    if published is not None:
        spec, arguments = _shown(spec, torchvision.described(published)), torchvision.published_arguments(name)
    if source in CLASSES:
        arguments["num_classes"] = len(spec.classes) if spec else CLASSES[source]
    code = user.digest if source == "user" and user else None
    architecture = Architecture(source, name, arguments, _input_shape(spec, input_shape), code=code)

    module = networks.create(architecture, user, seed=seed)
    if state is None:
        tensors, trained_on = dict(module.state_dict()), "train"
        notes: tuple[str, ...] = ("these weights are random: train before anything is measured",)
    else:
        tensors, notes = match(state, module, architecture.title), ()
        require_finite(tensors, str(weights))
        load(module, tensors)
    outputs = networks.outputs(module, architecture.input_shape)
    if spec is not None:
        fits(spec, architecture, outputs=outputs)
    settings = {**origin, "network": architecture.title, "trained_on": trained_on}
    return Checkpoint(architecture, tensors, spec, trained_on, (Record("import", settings, seed, None, notes=notes),))


def _read(
    weights: Path | str | None, source: Source, name: str
) -> "tuple[dict[str, Tensor] | None, dict[str, str | None], Any | None]":
    """The state dict, what the history says of its file, and torchvision's own description where it published that file."""
    from compress.networks.weights import read_state_dict

    if weights is None:
        return None, {"weights": None, "digest": None}, None
    path, published = Path(weights), None
    if isinstance(weights, str) and not path.suffix:
        if source != "torchvision":
            raise UsageError(
                f"{weights!r} names published weights, and only torchvision's networks have those. Give a file."
            )
        published = torchvision.find(name, weights)
        path = torchvision.download(published)
    state = read_state_dict(path)
    origin: dict[str, str | None] = {"weights": path.name, "digest": storage.digest_file(path)}
    if source == "torchvision":
        state = torchvision.modernise(name, state)
        published = published or torchvision.recognise(name, str(origin["digest"]))
    return state, origin, published


def _shown(spec: DatasetSpec | None, published: DatasetSpec) -> DatasetSpec:
    """The data as published weights want it shown: resized and cropped as they say, unless it is taken as it is."""
    if spec is None:
        return published
    if spec.preprocessing.crop is not None:
        return dataclasses.replace(spec, preprocessing=published.preprocessing, image_shape=published.image_shape)
    mean, std = published.preprocessing.mean, published.preprocessing.std
    return dataclasses.replace(spec, preprocessing=dataclasses.replace(spec.preprocessing, mean=mean, std=std))


def _input_shape(spec: DatasetSpec | None, input_shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if spec is None:
        if input_shape is None:
            raise UsageError("nothing says what images the network reads: give --data NAME, or --input-shape 3,32,32.")
        return input_shape
    if input_shape not in (None, spec.image_shape):
        raise UsageError(
            f"the input shape {input_shape} is not that of {spec.name}, {spec.image_shape}. Give only one of the two."
        )
    return spec.image_shape
