"""Which layers to leave in float, so that accuracy falls by no more than is allowed and the fewest MACs are float."""

import dataclasses
from collections.abc import Callable, Mapping

from compress.errors import CompressError
from compress.progress import Progress
from compress.quantity import counted
from compress.quantize.draft import Draft, draft, with_biases
from compress.quantize.sequence import KINDS, arguments, calls
from compress.quantize.validation import Validation
from compress.trace import module_of


def sensitivity(whole: Draft, validation: Validation, progress: Progress) -> dict[str, float]:
    """For each quantized layer, how far the logits move when it alone is."""
    consumers: dict[str, set[int]] = {}
    held = {edge.tensor for edge in whole.result.quantization.edges if edge.tensor}
    for position, call in enumerate(calls(whole.result.traced)):
        weight = arguments(call)[1] if KINDS.get(call.target) in ("conv", "linear") else None
        if weight is not None and str(weight.target) in held:
            consumers.setdefault(module_of(weight), set()).add(position)
    found: dict[str, float] = {}
    for layer, positions in consumers.items():
        edges = (edge for edge in whole.result.quantization.edges if edge.consumer in positions)
        found[layer] = validation.distance(whole.result.graph(edges))
        progress("sensitivity", len(found), len(consumers), f"{layer}: {found[layer]:.3g}")
    return found


def within(
    limit: float, whole: Draft, plain: Draft, macs: Mapping[str, int], validation: Validation, progress: Progress
) -> Draft:
    """The draft that loses at most `limit` points of top-1 on validation, with few MACs left in float.

    `whole` has every layer quantized and repaired, `plain` is the same before biases were corrected. Raises
    CompressError with the least drop found where the limit cannot be met.
    """
    lost = validation.worth(whole.quantized).drop
    if lost <= limit:
        return dataclasses.replace(whole, remarks=(f"all layers in integers, top-1 {-lost:+.2f} pp on validation",))
    harm = sensitivity(whole, validation, progress)
    order = sorted(harm, key=lambda layer: -(harm[layer] ** 2) / max(1, macs.get(layer, 0)))
    made: dict[frozenset[str], Draft] = {}
    drops: dict[frozenset[str], float] = {}

    def drop(left: frozenset[str]) -> float:
        if left not in drops:
            reasons = {layer: f"for the largest drop: alone it moves the logits by {harm[layer]:.2%}" for layer in left}
            made[left] = leave(whole, plain, reasons)
            drops[left] = validation.worth(made[left].quantized).drop
            progress(
                "max-drop",
                len(drops),
                len(order),
                f"{counted(len(left), 'layer')} in float: {drops[left]:+.2f} points lost",
            )
        return drops[left]

    chosen = fewest(order, drop, limit, macs)
    if chosen is None:
        raise CompressError(
            f"a largest drop of {limit:g} pp was asked for, and the least that was reached on validation is "
            f"{min(drops.values(), default=lost):.2f} pp, with all layers but one left in float. Allow more, repair more "
            "(--adaround, --bias-correction), or train the network to be quantized."
        )
    share = sum(macs.get(layer, 0) for layer in chosen) / max(1, sum(macs.values()))
    remark = f"{counted(len(chosen), 'layer')} with {share:.1%} of the MACs left in float, top-1 {-drops[chosen]:+.2f} pp on validation"
    return dataclasses.replace(made[chosen], remarks=(remark,))


def fewest(
    order: list[str], drop: Callable[[frozenset[str]], float], limit: float, macs: Mapping[str, int]
) -> frozenset[str] | None:
    """The layers to leave in float: the shortest beginning of `order` that meets the limit, less what it can do without.

    None where all but the last do not meet it. A beginning that meets the limit is looked for by halving, as if
    leaving out more never lost more; every set that is returned was measured.
    """
    enough = len(order) - 1
    if enough < 1 or drop(frozenset(order[:enough])) > limit:
        return None
    short = 0
    while enough - short > 1:
        middle = (short + enough) // 2
        if drop(frozenset(order[:middle])) <= limit:
            enough = middle
        else:
            short = middle
    chosen = frozenset(order[:enough])
    for layer in sorted(order[: enough - 1], key=lambda layer: -macs.get(layer, 0)):
        if drop(chosen - {layer}) <= limit:
            chosen -= {layer}
    return chosen


def leave(whole: Draft, plain: Draft, reasons: Mapping[str, str]) -> Draft:
    """The draft with some layers in float as they were, the others with the integers and biases they have."""
    fresh = draft(plain.setting, plain.network, {**whole.left, **reasons})
    integers = {name: whole.result.tensors[name] for name in fresh.result.tensors if name.endswith(".integer")}
    repaired, kept = whole.network.state_dict(), {f"{layer}.bias" for layer in reasons}
    biases = {
        name: repaired[name]
        for name, tensor in plain.network.state_dict().items()
        if name not in kept and not tensor.equal(repaired[name])
    }
    return with_biases(dataclasses.replace(fresh, result=fresh.result.repaired(integers)), biases)
