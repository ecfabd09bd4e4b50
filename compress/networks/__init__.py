"""Where networks come from: our own families, torchvision's and timm's classifiers, or a function in the user's own file."""

from typing import TYPE_CHECKING

from compress.architecture import Architecture, Source
from compress.errors import CompressError
from compress.networks import own, timm, torchvision, user
from compress.networks.user import UserNetwork, load_user

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SOURCES", "UserNetwork", "create", "load_user", "outputs", "resolve"]

SOURCES = {"compress": own, "torchvision": torchvision, "timm": timm, "user": user}
"""Each source's module: `check(name)` refuses a name it does not have, `create(architecture, user)` makes the network."""


def resolve(name: str) -> tuple[Source, str]:
    """The source and the name in it of a network as a user types it.

    `resnet20`, `torchvision:resnet50`, `timm:resnet26d`, or `path/net.py:build`, whose file is not run here.
    Raises UsageError for a name there is not, CompressError for a torchvision network that does not classify.
    """
    prefix, _, rest = name.rpartition(":")
    if prefix == "torchvision":
        torchvision.check(rest)
        return "torchvision", rest
    if prefix == "timm":
        timm.check(rest)
        return "timm", rest
    if name.endswith(".py") or prefix.endswith(".py") or prefix == "user":
        return "user", user.split(name)[1]
    own.check(name)
    return "compress", name


def create(architecture: Architecture, user: UserNetwork | None = None, *, seed: int = 0) -> "nn.Module":
    """The dense network of an architecture with the random weights of `seed`, in inference mode, on the CPU.

    torch's global random state is as it was before. A network from the user's own file needs `user`, the
    function named on the command line this time; it is refused when its file is not the one recorded.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        SOURCES[architecture.source].check(architecture.name)
        network: nn.Module = SOURCES[architecture.source].create(architecture, user)
    return network.cpu().eval()


def outputs(network: "nn.Module", input_shape: tuple[int, int, int]) -> int:
    """How many classes a network answers for, found by showing it one image of `input_shape`.

    Raises CompressError where it cannot answer such an image, or answers with something other than logits.
    """
    import torch

    shape = "x".join(map(str, input_shape))
    try:
        with torch.inference_mode():
            logits = network(torch.zeros(1, *input_shape))
    except Exception as error:  # whatever the network's own code raises for an image it was not made for
        raise CompressError(
            f"the network cannot answer an image of {shape}: {type(error).__name__}: {error}. "
            "Give data with the image size and colours it was made for."
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape[:1] != (1,) or logits.dim() != 2:
        found = (
            f"a tensor of shape {tuple(logits.shape)}"
            if isinstance(logits, torch.Tensor)
            else f"a {type(logits).__name__}"
        )
        raise CompressError(
            f"the network answers one image of {shape} with {found}, not with logits of shape (1, classes). "
            "Only classifiers can be compressed; return the logits alone."
        )
    return int(logits.shape[1])
