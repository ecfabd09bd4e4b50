"""Whether data and a network go together."""

from compress.architecture import Architecture
from compress.data.spec import DatasetSpec
from compress.errors import CompressError


def fits(
    spec: DatasetSpec, architecture: Architecture, made_for: DatasetSpec | None = None, outputs: int | None = None
) -> None:
    """Raise CompressError where images of `spec` cannot be shown to a network, or its answers mean other classes.

    `made_for` is the data of the network's checkpoint; `outputs` the number of logits it answers with, where
    that is known better than from the architecture.
    """
    if spec.image_shape != architecture.input_shape:
        raise CompressError(
            f"the images of {spec.name} are {_shape(spec.image_shape)}, and the network {architecture.title} was made for "
            f"{_shape(architecture.input_shape)}. Give data of that size, or import the network for this data."
        )
    outputs = outputs or architecture.arguments.get("num_classes")
    if outputs is not None and outputs != len(spec.classes):
        raise CompressError(
            f"{spec.name} has {len(spec.classes)} classes, and the network {architecture.title} answers for {outputs}: "
            "its logits and these labels do not mean the same. Give data with the classes the network was trained on."
        )
    if made_for and made_for.classes != spec.classes and set(made_for.classes) == set(spec.classes):
        raise CompressError(
            f"{spec.name} has the classes the network was trained on in another order (label 0 is {spec.classes[0]!r} and "
            f"was {made_for.classes[0]!r}). Name the folders or class_names as they were."
        )


def _shape(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))
