"""Which layer of a network each kernel that a runtime calls belongs to, and how long it takes."""

import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from compress.runtime.integer import PRODUCTS

MULTIPLIES = re.compile("Conv|Gemm|MatMul|FullyConnected", re.IGNORECASE)
"""How runtimes call the kernels that do a layer's multiply-accumulates."""
ADDED = re.compile(r"(_nchwc|_token_\d+)+$")
"""What ONNX Runtime appends to the name of the node a kernel was made from."""
FEWEST, MOST, SECONDS = 8, 40, 2.0
"""Runs that are observed, as many as fit into the seconds; the first of them is not counted."""
PERCENTILE = 25
"""Which of a kernel's times stands for it: as in a benchmark, one that little else was going on at."""


def observed(run: Callable[[], object]) -> int:
    """Repeat a run as often as its kernels are to be timed; returns how often that was."""
    begun, done = time.perf_counter(), 0
    while done < FEWEST or (done < MOST and time.perf_counter() - begun < SECONDS):
        run()
        done += 1
    return done


def steady(seconds: Sequence[float]) -> float:
    """The time that stands for a kernel, of those in all runs."""
    return float(np.percentile(seconds[1:] or seconds, PERCENTILE))


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, each node that has no name called by its first output, as runtimes do."""
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    return model


def layers(model: onnx.ModelProto, kernels: Mapping[str, str]) -> dict[str, str]:
    """The layer of each kernel that multiplies, of `kernels` by name with their operators.

    A fused kernel goes by one of its nodes, often the last, or by what that gives: its layer is then the nearest one before
    that node which no other kernel goes by.
    """
    nodes = {node.name: node for node in model.graph.node}
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, str] = {}
    fused: dict[str, onnx.NodeProto] = {}
    for name, operator in kernels.items():
        called = ADDED.sub("", name)
        node = nodes.get(called) or makers.get(called)
        if node is None or not MULTIPLIES.search(operator):
            continue
        if node.op_type in PRODUCTS:
            found[name] = node.name
        else:
            fused[name] = node
    taken = set(found.values())
    for name, node in fused.items():
        if (nearest := _before(node, makers, taken)) is not None:
            found[name] = nearest
            taken.add(nearest)
    return {name: layer(node) for name, node in found.items()}


def layer(node: str) -> str:
    """The layer a node belongs to by its name, `layer1.0.conv1` for `layer1.0.conv1/Conv`; without a module, the name itself."""
    return node.rpartition("/")[0] or node


def _before(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], taken: set[str]) -> str | None:
    """The name of the nearest product that a node's inputs come from and that is not taken."""
    waiting, seen = deque([node]), {node.name}
    while waiting:
        current = waiting.popleft()
        if current.op_type in PRODUCTS and current.name not in taken:
            return str(current.name)
        for source in (makers.get(name) for name in current.input):
            if source is not None and source.name not in seen:
                seen.add(source.name)
                waiting.append(source)
    return None
