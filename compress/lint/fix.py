"""Repairing a graph as far as that keeps what it computes, and proving it in ONNX Runtime.

The function an INT8 graph stands for is itself with real numbers in place of its integers: nothing rounded, and
nothing cut off but where a ReLU has been left to the integers, which then start at zero. Its noise is how far its
logits are from that, over how much those differ between images: |g(x) - r(x)| / |r(x) - mean r|. A repair stays
if the logits stay, or, where it rounds elsewhere, if the noise does. A bound on the logits alone would mean
nothing there: an input changed by a millionth moves those of an INT8 graph further than most repairs do.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from compress.errors import CompressError
from compress.export import onnx_file
from compress.lint.finding import Finding
from compress.lint.graph import DEQUANTIZE, EIGHT_BITS, quantizers, read, users
from compress.lint.repairs import REPAIRS, ROUNDS
from compress.lint.rules import lint
from compress.quantize.target import Target
from compress.runtime.onnxruntime import OnnxSession
from compress.runtime.session import Images, Logits

EXACT = 1e-4
"""How far logits may move, over how much they differ between images: what the order of FP32 sums makes."""
GROWTH = 1.1
"""How many times its noise a graph may have after a repair that rounds elsewhere, which changes it by chance."""
IMAGES = 64


@dataclass(frozen=True)
class Repair:
    """What was done about a rule: to how many nodes, and the noise before and after; undone where not `kept`."""

    rule: str
    nodes: int
    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Repaired:
    """The bytes of the repaired graph, what was done, and the findings that are left."""

    content: bytes
    repairs: tuple[Repair, ...]
    left: tuple[Finding, ...]


def repair(content: bytes, target: Target, images: Images | None = None, ignore: Collection[str] = ()) -> Repaired:
    """A graph of checked ONNX bytes with every repair that keeps what it computes, proved a rule at a time.

    Nothing is done about rules ignored. `images` are what the proof is run on, (N, C, H, W) as the graph takes them; without any, it is run on noise.
    Raises CompressError where there is something to repair and the graph cannot be run, or has one answer for all
    images, which proves nothing.
    """
    rules = [rule for rule in REPAIRS if rule not in (*ignore, *target.spares)]
    if not any(REPAIRS[rule](read(content), target) for rule in rules):
        return Repaired(content, (), lint(content, target, ignore))
    if images is None:
        session = OnnxSession(content, optimise=False)
        size = session.batch or IMAGES
        shape = (-(-IMAGES // size) * size, *session.input_shape)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    ideal = _answers(_unrounded(content), images)
    spread = float(np.linalg.norm(ideal - ideal.mean(axis=0)))
    if not spread > EXACT * float(np.linalg.norm(ideal)):
        raise CompressError(
            "the graph has one answer for all images, so nothing proves that a repair keeps what it computes. "
            "Look at its weights; an untrained or damaged network does this."
        )

    def far(one: Logits, other: Logits) -> float:
        return float(np.linalg.norm(one - other)) / spread

    repairs, logits = [], _answers(content, images)
    for rule in rules:
        model = read(content)
        nodes = REPAIRS[rule](model, target)
        if nodes:
            changed = _write(model)
            answers = _answers(changed, images)
            before, after = far(logits, ideal), far(answers, ideal)
            kept = far(answers, logits) <= EXACT or (rule in ROUNDS and after <= before * GROWTH)
            repairs.append(Repair(rule, nodes, before, after, kept))
            content, logits = (changed, answers) if kept else (content, logits)
    OnnxSession(content)  # the proof runs without ONNX Runtime's rewriting; deployed, it is rewritten
    return Repaired(content, tuple(repairs), lint(content, target, ignore))


def _answers(content: bytes, images: Images) -> Logits:
    """The logits as the graph is written, as many images at a time as it takes."""
    session = OnnxSession(content, optimise=False)
    size = session.batch or len(images)
    return np.concatenate([session(images[start : start + size]) for start in range(0, len(images), size)])


def _unrounded(content: bytes) -> bytes:
    """The graph without the Q/DQ of its activations; those whose range starts at zero stand for a ReLU too, and cut."""
    model = read(content)
    for node, found in tuple(quantizers(model)):
        readers, ends = users(node.outputs[0]), EIGHT_BITS.get(found.dtype)
        if ends is None or found.scale.size > 1 or any(reader.op_type != DEQUANTIZE for reader in readers):
            continue
        lowest = 0 if found.zero_point[0] == ends[0] else -np.inf
        highest = (ends[1] - ends[0]) * found.scale[0] if lowest == 0 else np.inf
        limits = [
            ir.val(f"{node.outputs[0].name}/{each}", const_value=ir.tensor(np.float32(each)))
            for each in (lowest, highest)
        ]
        for limit in limits:
            model.graph.register_initializer(limit)
        cut = ir.node("Clip", [node.inputs[0], *limits])
        node.graph.insert_before(node, cut)
        for reader in readers:
            cut.outputs[0].dtype, cut.outputs[0].shape = ir.DataType.FLOAT, reader.outputs[0].shape
            ir.convenience.replace_all_uses_with(reader.outputs[0], cut.outputs[0], replace_graph_outputs=True)
    return _write(model)


def _write(model: ir.Model) -> bytes:
    """The checked bytes of a changed graph, without the nodes nothing reads any more."""
    common.RemoveUnusedNodesPass()(model)
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    onnx_file.check(content, "the repaired graph")
    return content
