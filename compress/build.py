"""From a checkpoint to a network: dense, then without blocks, narrowed, folded, and with its integers in place.

Everything downstream of a step goes through here, export included, so what is measured is what was saved.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compress import networks
from compress.architecture import Architecture
from compress.checkpoint import Checkpoint
from compress.errors import CompressError
from compress.fold.structure import strip
from compress.networks.weights import load, share
from compress.prune.blocks import bypass
from compress.prune.narrow import narrow

if TYPE_CHECKING:
    from compress.networks import UserNetwork

DRAWS = {Tensor.uniform_, Tensor.normal_, nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_}
COUNTER = "num_batches_tracked"


def build(checkpoint: Checkpoint, user: "UserNetwork | None" = None, *, shared: bool = False) -> nn.Module:
    """The network of a checkpoint, in inference mode, on the CPU.

    With `shared`, its parameters lie in the checkpoint's own memory: for a network that is looked at and never trained.

    A quantized one is a graph of its exported calls and cannot be trained; one prepared for that trains as
    any other. `user` is the function a
    network of the user's own comes from (`compress.networks.load_user`); no file is run without it.
    Raises CompressError where the weights are not those of the architecture.
    """
    architecture = checkpoint.architecture
    with _Undrawn():
        network = structure(architecture, user)
    if architecture.prepared is not None:
        from compress.quantize.qat_graph import prepare

        network = prepare(network, architecture.prepared, architecture.input_shape)
    _load(
        network,
        checkpoint.weights,
        {edge.tensor for edge in architecture.quantization.edges} if architecture.quantization else set(),
        shared,
    )
    network.eval()
    if architecture.quantization is not None:
        from compress.quantize.graph import insert

        return insert(network, architecture.quantization, checkpoint.weights, architecture.input_shape)
    return network


class _Undrawn(TorchFunctionMode):
    """Draws no random weights: all are loaded over, and drawing those of a large network takes longer than the rest."""

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leave a parameter that was to be drawn as it is."""
        given = kwargs or {}
        tensor = args[0] if args else given.get("tensor")
        if call in DRAWS and isinstance(tensor, nn.Parameter):
            return tensor
        return call(*args, **given)


def structure(architecture: Architecture, user: "UserNetwork | None" = None) -> nn.Module:
    """The network of an architecture with weights that mean nothing yet; in floating point, also of a quantized one."""
    network = bypass(networks.create(architecture, user), architecture.removed)
    return strip(narrow(network, architecture.widths), architecture.folded or ())


def _load(network: nn.Module, weights: Mapping[str, Tensor], integers: set[str | None], shared: bool) -> None:
    """Copy weights into a network, or have its parameters share them; tensors held as integers are left for the quantized graph to bring."""
    own = network.state_dict()
    extra = {f"{name}.{part}" for name in integers for part in ("integer", "scale")}
    extra |= {"quantization.scale", "quantization.zero_point"}
    missing = [name for name in own if name not in weights and name not in integers and not name.endswith(COUNTER)]
    unexpected = [name for name in weights if name not in own and name not in extra]
    shapes = [name for name, tensor in weights.items() if name in own and own[name].shape != tensor.shape]
    if missing or unexpected or shapes:
        found = [f"missing {', '.join(missing[:3])}"] * bool(missing)
        found += [f"unexpected {', '.join(unexpected[:3])}"] * bool(unexpected)
        found += [f"of another shape {', '.join(shapes[:3])}"] * bool(shapes)
        raise CompressError(
            f"the weights in this checkpoint are not those of its architecture: {'; '.join(found)}. "
            "The file was edited, or the network's code has changed since; make the checkpoint again."
        )
    (share if shared else load)(network, weights)
