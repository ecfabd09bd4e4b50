"""Every rule, and looking a graph through for all of them."""

from collections.abc import Callable, Collection, Iterator

import onnx_ir as ir

from compress.errors import unknown
from compress.lint import integers, network, placement
from compress.lint.finding import Finding
from compress.lint.graph import read
from compress.quantize.target import Target

Rule = Callable[[ir.Model, Target], Iterator[Finding]]

RULES: dict[str, Rule] = {
    "operator-form": integers.operator_form,
    "activation-type": integers.activation_type,
    "unused-range": integers.unused_range,
    "weight-type": integers.weight_type,
    "bias-type": integers.bias_type,
    "bias-overflow": integers.bias_overflow,
    "residual": placement.residual,
    "rounded-twice": placement.rounded_twice,
    "shared-scale": placement.shared_scale,
    "not-quantized": placement.not_quantized,
    "float-island": placement.float_island,
    "batch-norm": network.batch_norm,
    "dynamic-shape": network.dynamic_shape,
}
"""Each rule: what in a graph costs something in a target, node by node."""


def lint(content: bytes, target: Target, ignore: Collection[str] = ()) -> tuple[Finding, ...]:
    """What in a graph of checked ONNX bytes costs something in a target, but for rules ignored or spared; () for nothing.

    The inside of branches and loops is not looked at. Raises UsageError for an ignored rule there is not.
    """
    for name in ignore:
        if name not in RULES:
            raise unknown("rule", name, RULES)
    model, skipped = read(content), {*ignore, *target.spares}
    return tuple(finding for name, rule in RULES.items() if name not in skipped for finding in rule(model, target))
