"""Which of a network's modules are residual blocks that can go, found in its exported calls and not by their classes.

Such a module answers a(x + f(x)) for what it is given, x; f is its branch, a nothing or an activation. Without the
branch it answers a(x). Where that is x itself, because there is no a or a has been applied to x before, the
identity can stand in its place.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.errors import Refusal, unknown
from compress.prune.blocks import bypass
from compress.prune.groups import trial
from compress.prune.narrow import twin
from compress.prune.recalibrate import recalibrate
from compress.trace import trace

ADDITIONS = {torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor}


@dataclass(frozen=True)
class Block:
    """What a module is given, and the activations it applies to the sum, in their order."""

    source: fx.Node
    activations: tuple[fx.Node, ...]

    def rest(self, x: Tensor) -> Tensor:
        """a(x): what the module answers without its branch."""
        for node in self.activations:
            operation: Any = node.target
            x = operation(*(x if isinstance(argument, fx.Node) else argument for argument in node.args), **node.kwargs)
        return x


def find_blocks(
    network: nn.Module, input_shape: tuple[int, int, int], exclude: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """The residual blocks the identity can stand for, in call order, and why every other module that adds stays.

    A block is the innermost such module around an addition. `exclude` names modules that are to stay as they are,
    with all in them. Raises UsageError for a name the network does not have, CompressError where it cannot be traced.
    """
    names = [name for name, _ in network.named_modules() if name]
    for name in exclude:
        if name not in names:
            raise unknown("module", name, names)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, *input_shape, generator=generator)
    tried = trial(network, generator)
    recalibrate(tried, [images.double()])
    traced = trace(tried.float(), input_shape)
    blocks, reasons = _adding(traced.graph)
    seen = _Watching(traced, {block.source for block in blocks.values()}).watch(images)
    for name, block in blocks.items():
        x = seen[block.source]
        if any(f"{name}.".startswith(f"{other}.") for other in exclude):
            reasons[name] = "it was excluded"
        elif inside := [other for other in exclude if other.startswith(f"{name}.")]:
            reasons[name] = f"{inside[0]} in it was excluded"
        elif not torch.equal(block.rest(x.clone()), x):
            reasons[name] = "without its branch it still changes what it is given"
    reasons |= _failing(network, [name for name in blocks if name not in reasons], images)
    found = tuple(name for name in blocks if name not in reasons)
    return found, tuple(Refusal(name, reason) for name, reason in reasons.items())


def _adding(graph: fx.Graph) -> tuple[dict[str, Block], dict[str, str]]:
    """The modules that answer a(x + f(x)), and why other modules that add two activations do not."""
    inside: dict[str, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        for name in _around(node):
            inside[name].append(node)
    blocks: dict[str, Block] = {}
    reasons: dict[str, str] = {}
    for node in graph.nodes:
        if node.target in ADDITIONS and sum(map(_activation, node.all_input_nodes)) == 2:
            innermost = reason = ""
            for name in reversed(_around(node)):
                found = _block(inside[name])
                if isinstance(found, Block):
                    blocks[name] = found
                    break
                innermost, reason = innermost or name, reason or found
            else:
                reasons[innermost or "the network itself"] = reason or "it adds outside of any module"
    return blocks, reasons


def _block(nodes: Sequence[fx.Node]) -> Block | str:
    """What a module that makes these calls is as a residual block, or why it is none."""
    within = set(nodes)
    given = {
        source for node in nodes for source in node.all_input_nodes if source not in within and _activation(source)
    }
    answers = [node for node in nodes if any(user not in within for user in node.users)]
    if len(given) != 1 or len(answers) != 1:
        return f"it is given {len(given)} activations and answers with {len(answers)}, not one with one"
    (x,) = given
    if x.meta["val"].shape[1:] != answers[0].meta["val"].shape[1:]:
        return "its answer has another shape than what it is given"
    path = _shortcut(answers[0], x)
    if path is None:
        return "what it is given does not reach the sum unchanged"
    return Block(x, tuple(node for node in path if node.target not in ADDITIONS))


def _shortcut(node: fx.Node, x: fx.Node) -> tuple[fx.Node, ...] | None:
    """The sums and activations on the way from `x` to `node`, in their order; None where something else lies on it."""
    if node is x:
        return ()
    sums = node.target in ADDITIONS
    alone = len(node.all_input_nodes) == 1 and torch.Tag.pointwise in getattr(node.target, "tags", ())
    for source in node.all_input_nodes if sums or alone else ():
        path = _shortcut(source, x)
        if path is not None:
            return (*path, node)
    return None


def _around(node: fx.Node) -> list[str]:
    """The modules a call was made in, the outermost first, without the network itself."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]


def _activation(node: fx.Node) -> bool:
    return node.op in ("placeholder", "call_function") and isinstance(node.meta.get("val"), Tensor)


def _failing(network: nn.Module, names: Sequence[str], images: Tensor) -> Mapping[str, str]:
    """Those modules without which the forward pass fails, and how: all are tried at once, and one by one where that fails."""
    try:
        with torch.no_grad():
            bypass(twin(network), names)(images)
    except Exception as error:  # whatever the network's own code raises
        if len(names) == 1:
            return {names[0]: f"the forward pass fails without it: {type(error).__name__}: {error}"}
        return {name: reason for each in names for name, reason in _failing(network, [each], images).items()}
    return {}


class _Watching(fx.Interpreter):
    """Runs a graph and keeps what some of its calls answered."""

    def __init__(self, graph_module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self.wanted = wanted
        self.seen: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Make one call."""
        result = super().run_node(n)
        if n in self.wanted:
            self.seen[n] = result.clone()  # later calls may change it in place
        return result

    def watch(self, images: Tensor) -> dict[fx.Node, Tensor]:
        """Run on a batch of images; what was wanted, by call."""
        with torch.no_grad():
            self.run(images)
        return self.seen
