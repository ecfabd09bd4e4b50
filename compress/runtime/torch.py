"""Sessions of checkpoints, run by torch."""

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from compress import checkpoint
from compress.build import build
from compress.device import use
from compress.errors import CompressError, UsageError, unknown
from compress.networks import UserNetwork
from compress.prune.narrow import layout_of
from compress.runtime.session import Images, Inside, Logits, Point, require_fit
from compress.runtime.torch_variant import EAGER, Variant, prepared, products, require


def open_checkpoint(
    path: Path, *, threads: int = 1, device: str = "cpu", user: UserNetwork | None = None, way: Variant = EAGER
) -> "TorchSession":
    """A session of the checkpoint at `path`; of a quantized one it simulates the integers in floating point.

    `way` says how torch runs it.
    """
    use(device, None)
    found = checkpoint.load(path)
    return TorchSession(build(found, user), found.architecture.input_shape, threads=threads, device=device, way=way)


class TorchSession:
    """A session of a network in memory, which has to be in inference mode already."""

    def __init__(
        self,
        network: nn.Module,
        input_shape: tuple[int, int, int],
        *,
        threads: int = 1,
        device: str = "cpu",
        way: Variant = EAGER,
    ) -> None:
        if device != "cpu" and isinstance(network, fx.GraphModule):
            raise CompressError(
                f"a quantized network is a graph made for the CPU, and {device} was asked for. "
                "Use the device cpu, or export it and run the file in the runtime it was quantized for."
            )
        require(way, device, integers=isinstance(network, fx.GraphModule))
        if way.dtype != torch.float32 or way.channels_last:
            network = copy.deepcopy(network).to(dtype=way.dtype, memory_format=way.layout)  # type: ignore[call-overload]  # its stubs know one at a time
        self.network = network if device == "cpu" else network.to(device)
        self.way = way
        self._answering = prepared(self.network, way)
        self.input_shape = input_shape
        self.threads = threads
        self.device = device

    def __call__(self, images: Images) -> Logits:
        """The logits of a batch; torch computes with this session's threads and is then given its own back."""
        logits: Logits = self._answer(self._answering, images).float().cpu().numpy()
        return logits

    def device_seconds(self, images: Images) -> float:
        """How long the GPU computes for a batch, by its own clock, the copies left out; raises UsageError on a CPU."""
        if not self.device.startswith("cuda"):
            raise UsageError("a CPU has no clock of its own. Give --device cuda.")
        require_fit(images, self.input_shape)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.inference_mode(), products(self.way, self.device), torch.cuda.device(self.device):
            copied = self._copied(images)
            start.record()
            self._answering(copied)
            end.record()
            end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def outputs(self, names: Sequence[str]) -> Inside:
        """Outputs of modules by their name (`layer1.0.conv1`); in a quantized network, of its graph's nodes.

        A module that is never called, or returns something else than one tensor, is left out.
        """
        if isinstance(self.network, fx.GraphModule):
            nodes = [node.name for node in self.network.graph.nodes]
            _require(names, nodes, "node")
            return partial(self._inside_graph, names)
        _require(names, dict(self.network.named_modules()), "layer")
        return partial(self._inside, names)

    def points(self) -> tuple[Point, ...]:
        """The modules in their order in the network, which is nearly always that of its calls; of a quantized network, its graph's nodes."""
        if isinstance(self.network, fx.GraphModule):
            nodes = [node for node in self.network.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
            return tuple(Point(node.name, _multiplies(node), tuple(user.name for user in node.users)) for node in nodes)
        modules = [(name, module) for name, module in self.network.named_modules() if name]
        leaves = [name for name, module in modules if not any(True for _ in module.children())]
        following = dict(itertools.pairwise(leaves))
        return tuple(
            Point(name, layout_of(module) is not None, (following[name],) if name in following else ())
            for name, module in modules
        )

    def close(self) -> None:
        """Let go of the network."""
        del self.network, self._answering

    def _answer(self, network: Any, images: Images) -> torch.Tensor:
        require_fit(images, self.input_shape)
        with torch.inference_mode(), _threads(self.threads), products(self.way, self.device):
            answer: torch.Tensor = network(self._copied(images))
        return answer

    def _copied(self, images: Images) -> torch.Tensor:
        copied = torch.from_numpy(images).to(self.device, self.way.dtype)
        return copied.contiguous(memory_format=self.way.layout)

    def _inside(self, names: Sequence[str], images: Images) -> dict[str, NDArray[np.generic]]:
        kept: dict[str, NDArray[np.generic]] = {}

        def keep(name: str, module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                kept[name] = output.float().cpu().numpy()

        with contextlib.ExitStack() as hooks:
            for name in names:
                hook = self.network.get_submodule(name).register_forward_hook(partial(keep, name))
                hooks.callback(hook.remove)
            self(images)
        return kept

    def _inside_graph(self, names: Sequence[str], images: Images) -> dict[str, NDArray[np.generic]]:
        kept: dict[str, NDArray[np.generic]] = {}

        class Keeping(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                output = super().run_node(n)
                if n.name in names:
                    kept[n.name] = output.cpu().numpy()
                return output

        assert isinstance(self.network, fx.GraphModule)
        self._answer(Keeping(self.network).run, images)
        return kept


def _multiplies(node: fx.Node) -> bool:
    """Whether a node of a traced network is a layer: a convolution or a linear layer."""
    return any(word in str(node.target) for word in ("aten.conv", "aten.linear", "aten.addmm", "aten.matmul"))


def _require(names: Sequence[str], known: Any, kind: str) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give torch `count` threads for a while: their number is global, and training beside a session needs its own."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
