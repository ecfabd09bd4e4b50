"""Rules about the network itself, also of a graph without integers."""

from collections.abc import Iterator

import onnx_ir as ir

from compress.lint.finding import Finding
from compress.lint.graph import constant, kind, title, users
from compress.quantize.target import Target


def batch_norm(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Batch norms that could have been folded into a layer, or that look at the batch."""
    for node in model.graph:
        if node.op_type != "BatchNormalization":
            continue
        if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
            yield Finding(
                title(node),
                "batch-norm",
                "wrong",
                "it is in training mode: an image's answer depends on the others in its batch.",
                "Export the network in inference mode (network.eval()).",
            )
            continue
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        if kind(before) == "conv" and before is not None and len(users(before.outputs[0])) == 1:
            stored = constant(before.inputs[1]) is not None
            yield Finding(
                title(node),
                "batch-norm",
                "slow",
                f"it could be part of {title(before)}, and keeps {target.runtime} from rounding once after it.",
                "Fold it (--fix)." if stored else "Fold it before quantizing: compress fold, then compress quantize.",
            )


def dynamic_shape(model: ir.Model, target: Target) -> Iterator[Finding]:
    """Inputs of which more than the batch size is free."""
    for value in model.graph.inputs:
        free = [axis for axis, extent in enumerate(value.shape or ()) if axis and not isinstance(extent, int)]
        if free and not value.is_initializer():
            yield Finding(
                str(value.name),
                "dynamic-shape",
                "slow",
                f"axes {', '.join(map(str, free))} are free, so {target.runtime} can plan neither memory nor kernels ahead.",
                "Export it for one image size; only the batch size (axis 0) should be free.",
            )
