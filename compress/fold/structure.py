"""Which batch norms can be folded, and the structure of the network once they are."""

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from compress.errors import CompressError, Refusal
from compress.fold.batchnorm import absorb
from compress.trace import module_of, trace

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CALLS = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.linear.default,
}
PADDED = {torch.ops.aten.conv1d.padding, torch.ops.aten.conv2d.padding, torch.ops.aten.conv3d.padding}
TRAINING = 5
"""Where `batch_norm` is told to use the statistics of the batch."""


def find_pairs(
    network: nn.Module, input_shape: tuple[int, int, int]
) -> tuple[tuple[tuple[str, str], ...], tuple[Refusal, ...]]:
    """The (layer, batch norm) pairs that can be folded, in call order, and why every other batch norm stays.

    A pair can be folded when the batch norm is the layer's only reader and neither is called twice.
    Raises CompressError where the network cannot be traced, and for a batch norm that has its statistics from the batch.
    """
    pairs: list[tuple[str, str]] = []
    refusals: list[Refusal] = []
    graph = trace(network, input_shape).graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    uses = Counter(module_of(node.args[1]) for node in calls if node.target in CALLS | PADDED)
    norms = [node for node in calls if node.target is torch.ops.aten.batch_norm.default]
    norm_uses = Counter(module_of(node.args[3]) for node in norms)
    for node in norms:
        name, source = module_of(node.args[3]) or module_of(node.args[1]), node.args[0]
        if node.args[TRAINING]:
            raise CompressError(
                f"the batch norm {name} normalises by the images it is given also in inference, so that an answer depends on the "
                "images beside it, and there is nothing to fold. Leave `.train()` and training=True out of `forward`, and keep "
                "running statistics."
            )
        layer = module_of(source.args[1]) if source.target in CALLS | PADDED else ""
        if name in (refusal.layer for refusal in refusals):
            continue
        if not layer:
            refusals.append(Refusal(name, f"it follows {_word(source.target)}, not a convolution or linear layer"))
        elif len(source.users) > 1:
            refusals.append(Refusal(name, f"the output of {layer} is read elsewhere too"))
        elif uses[layer] > 1 or norm_uses[name] > 1:
            refusals.append(Refusal(name, f"{layer if uses[layer] > 1 else name} is called more than once"))
        elif not isinstance(network.get_submodule(layer), LAYERS) or not _known(network.get_submodule(name)):
            refusals.append(Refusal(name, "it or its layer is not a plain torch module"))
        else:
            pairs.append((layer, name))
    return tuple(pairs), tuple(refusals)


def strip(network: nn.Module, pairs: Iterable[tuple[str, str]]) -> nn.Module:
    """Give `network` the structure of a folded one, in place: a bias on each layer, nothing where its batch norm was.

    The new biases are zero until weights are loaded. Raises CompressError for a name the network does not have.
    """
    for layer_name, norm_name in pairs:
        try:
            layer, norm = network.get_submodule(layer_name), network.get_submodule(norm_name)
        except AttributeError as error:
            raise CompressError(
                f"the folded layer does not exist in this network: {error}. The checkpoint belongs to another network."
            ) from error
        if not isinstance(layer, LAYERS) or not isinstance(norm, NORMS):
            raise CompressError(
                f"{norm_name} cannot have been folded into {layer_name}: the checkpoint belongs to another network."
            )
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0], dtype=layer.weight.dtype))
        network.set_submodule(norm_name, after(norm))
    return network


def fold(weights: Mapping[str, Tensor], network: nn.Module, pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """The weights of `network` with each batch norm absorbed into the layer before it."""
    folded = dict(weights)
    for layer, norm in pairs:
        weight, bias = absorb(
            folded[f"{layer}.weight"],
            folded.get(f"{layer}.bias"),
            folded.pop(f"{norm}.running_mean"),
            folded.pop(f"{norm}.running_var"),
            folded.pop(f"{norm}.weight", None),
            folded.pop(f"{norm}.bias", None),
            network.get_submodule(norm).eps,  # type: ignore[arg-type]  # find_pairs saw to it that this is a batch norm
        )
        folded.pop(f"{norm}.num_batches_tracked", None)
        folded |= {f"{layer}.weight": weight, f"{layer}.bias": bias}
    return folded


def after(norm: nn.Module) -> nn.Module:
    """What a batch norm does besides normalising: nothing, or what its own layers do (timm's bring their activation)."""
    layers = list(norm.children())
    return nn.Sequential(*layers) if layers else nn.Identity()


def _known(norm: nn.Module) -> bool:
    """Whether a module is a batch norm and, after that, nothing but its own layers; tried where its class is not torch's own."""
    if type(norm) in NORMS or not isinstance(norm, NORMS) or after(norm).state_dict():
        return type(norm) in NORMS
    extents = next(
        extents for kind, extents in zip(NORMS, ((), (3, 3), (3, 3, 3)), strict=True) if isinstance(norm, kind)
    )
    x = torch.randn(2, norm.num_features, *extents, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return torch.equal(after(norm)(plain), norm(x))


def _word(target: object) -> str:
    """What a call is named: its operator, or where it is none, its input."""
    return str(getattr(target, "_opname", None) or getattr(target, "__name__", target))
