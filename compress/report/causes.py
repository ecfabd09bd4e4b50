"""The causes that keep a network from being as many times faster as it has fewer multiply-accumulates.

Each looks for its evidence in what was recorded and says nothing where there is none.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field

from compress.measurement import Layer, Node, Profile, by_operator
from compress.quantity import show
from compress.quantize.target import TARGETS
from compress.report.comparison import Row, Speed

AVOIDABLE, UNCOUNTED = 0.02, 0.10
"""Share of the time from which a cause counts: one that could be avoided, and one that MACs do not count."""
FIXED = 0.3
"""Share of the smallest batch's latency that does not depend on the images, from which starting kernels is the cost."""
HEAVY = 2.0
"""How many times its share of the MACs a layer's share of the time is where something else than arithmetic binds it."""
FASTER = 1.05
"""What INT8 has to be faster by than the same network in floating point."""
MULTIPLES = {"onnxruntime": TARGETS["onnxruntime-cpu"].round_to, "openvino": TARGETS["openvino"].round_to}
ON_GPU = TARGETS["tensorrt"].round_to
"""Multiples of channels that are computed anyway, by runtime on the CPU and on a GPU."""
REFORMATS = ("reorder", "transpose", "quantizelinear", "dequantizelinear", "fakequantize", "cast", "convert", "memcpy")
"""Operators that change how numbers are held and compute nothing, in the words of any runtime."""


@dataclass(frozen=True)
class Finding:
    """A cause, what shows it, what can be done, and the figures: shares from 0 to 1, times in seconds, ratios, counts."""

    cause: str
    evidence: str
    remedy: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What a cause is looked for in: a candidate, the baseline, all rows, and the speed that is being explained."""

    row: Row
    baseline: Row
    every: Sequence[Row]
    speed: Speed

    @property
    def profile(self) -> Profile | None:
        """Where the candidate's time goes, under the conditions of the speed."""
        return self.of(self.row)

    def of(self, row: Row) -> Profile | None:
        """Where a row's time goes under these conditions; None where that was not recorded."""
        profile = row.candidate.profile
        return profile if profile and profile.conditions == self.speed.conditions else None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The candidate's layers."""
        return self.row.candidate.layers


def lost(case: Case) -> Iterator[Finding]:
    """Where the time goes that a latency in proportion to the MACs would not have: layer by layer, beside the baseline."""
    before, after = case.of(case.baseline), case.profile
    if before is None or after is None:
        yield Finding("not profiled", "no recording has a profile of this candidate and of the baseline",
                      "benchmark both in onnxruntime or openvino, which tell where their time goes")  # fmt: skip
        return
    old = {layer.name: layer for layer in case.baseline.candidate.layers}
    pairs = [(layer, old[layer.name]) for layer in case.layers if layer.name in old and old[layer.name].macs]
    excess = {
        layer.name: (after.layer(layer.name) or 0.0) - (before.layer(layer.name) or 0.0) * layer.macs / one.macs
        for layer, one in pairs
    }
    kept = sum(layer.macs for layer, _ in pairs) / (sum(one.macs for _, one in pairs) or 1)
    excess["between layers"] = _rest(after, case.layers) - kept * _rest(before, case.baseline.candidate.layers)
    total = sum(excess.values())
    if total > AVOIDABLE * after.seconds:
        most = sorted(excess.items(), key=lambda item: -item[1])[:4]
        said = ", ".join(f"{name} {show(seconds, 's')}" for name, seconds in most if seconds > 0)
        yield Finding(
            "time above its MACs",
            f"{show(total, 's')} of {show(after.seconds, 's')} are more than the baseline's time cut like its MACs, most in {said}",
            "look at these layers first",
            {"seconds": total, "share": total / after.seconds},
        )


def channels(case: Case) -> Iterator[Finding]:
    """Layers narrowed to a number of channels that the runtime rounds up again."""
    conditions = case.speed.conditions
    multiple = MULTIPLES.get(str(conditions.get("runtime")), 16)
    if not str(conditions.get("device", "cpu")).startswith("cpu"):
        multiple = ON_GPU
    old = {layer.name: layer.outputs for layer in case.baseline.candidate.layers}
    odd = [each for each in case.layers if each.outputs % multiple and old.get(each.name, each.outputs) != each.outputs]
    total = sum(layer.macs for layer in case.layers)
    if odd and total:
        more = (
            sum(each.macs * (math.ceil(each.outputs / multiple) * multiple / each.outputs - 1) for each in odd) / total
        )
        yield Finding(
            "channels off the multiple",
            f"{_count(odd, 'narrowed layer')} with channels that are no multiple of {multiple}, such as {odd[0].name} with "
            f"{odd[0].outputs}; rounded up, {more:.1%} more MACs",
            f"prune to multiples of {multiple} (round_to)",
            {"layers": len(odd), "multiple": multiple, "share": more},
        )  # fmt: skip


def floats(case: Case) -> Iterator[Finding]:
    """Layers of a quantized network that are computed in floating point."""
    precise = [layer for layer in case.layers if layer.precision != "int8"]
    if len(precise) == len(case.layers):
        return
    total = sum(layer.macs for layer in case.layers) or 1
    share, time = sum(layer.macs for layer in precise) / total, _share(case.profile, {layer.name for layer in precise})
    if share > AVOIDABLE or time > AVOIDABLE:
        yield Finding(
            "layers left in float",
            f"{len(precise)} of {len(case.layers)} layers, {share:.1%} of the MACs and {time:.1%} of the time: {_names(precise)}",
            "see why under 'Layers left alone', or quantize for this runtime's target",
            {"layers": len(precise), "macs": share, "time": time},
        )
    integer = case.row.median("integer_macs")
    if integer is not None and 100 * (1 - share) - integer > 100 * AVOIDABLE:
        yield Finding(
            "integers computed in float",
            f"{integer:.1f} % of the MACs run in integer kernels, and {100 * (1 - share):.1f} % are stored as integers",
            "compress lint FILE.onnx names the places",
            {"integer_macs": integer / 100, "stored": 1 - share},
        )


def fallbacks(case: Case) -> Iterator[Finding]:
    """Kernels that another backend ran than the one asked for, or that have no fast implementation."""
    device = str(case.speed.conditions.get("device", "cpu"))
    slow = "CPUExecutionProvider" if device.startswith("cuda") else "ref"
    away = [node for node in _nodes(case.profile) if node.provider.startswith(slow)]
    share = _of(away, case.profile)
    if share > AVOIDABLE:
        yield Finding(
            "fallbacks",
            f"{_count(away, 'kernel')} ({_operators(away)}) with {share:.1%} of the time ran on {away[0].provider}",
            "write that part of the network with other operators, or use another runtime",
            {"kernels": len(away), "share": share},
        )


def reformats(case: Case) -> Iterator[Finding]:
    """Kernels that only change layout or number type, and those that MACs do not count."""
    rest = [node for node in _nodes(case.profile) if not node.layer]
    moving = [node for node in rest if node.operator.lower().startswith(REFORMATS)]
    computing = [node for node in rest if node not in moving]
    if (share := _of(moving, case.profile)) > AVOIDABLE:
        yield Finding(
            "changes of layout and type",
            f"{_count(moving, 'kernel')} ({_operators(moving)}) with {share:.1%} of the time that compute nothing",
            "compress lint --fix takes out what it can; layers in float between integer ones cost two changes each",
            {"kernels": len(moving), "share": share},
        )
    if (share := _of(computing, case.profile)) > UNCOUNTED:
        yield Finding(
            "work that MACs do not count",
            f"{_count(computing, 'kernel')} ({_operators(computing)}) with {share:.1%} of the time",
            "it shrinks with the channels that are added or pooled, not with those inside a block",
            {"kernels": len(computing), "share": share},
        )


def launches(case: Case) -> Iterator[Finding]:
    """A latency that hardly grows with the batch: t = fixed + images * each, from the smallest and the largest."""
    wanted = {key: value for key, value in case.speed.conditions.items() if key != "batch"}
    timed = {
        speed.batch: speed.sample.measurement.median
        for speed in case.row.speeds
        if {key: value for key, value in speed.conditions.items() if key != "batch"} == wanted
    }
    small, large = min(timed), max(timed)
    if small == large:
        return
    fixed = (timed[small] * large - timed[large] * small) / (large - small)
    share = fixed / timed[small]
    if share > FIXED:
        yield Finding(
            "bound by launches",
            f"{show(fixed, 's')} of the {show(timed[small], 's')} at batch {small} do not depend on the images "
            f"({show(timed[large], 's')} at batch {large})",
            "use larger batches, fewer layers, or CUDA graphs on a GPU; fewer channels do not help here",
            {"seconds": fixed, "share": share, "batch": small},
        )


def memory(case: Case) -> Iterator[Finding]:
    """Layers whose share of the time is far above their share of the MACs."""
    total = sum(layer.macs for layer in case.layers) or 1
    shares = {layer.name: (_share(case.profile, {layer.name}), layer.macs / total) for layer in case.layers}
    heavy = {name: each for name, each in shares.items() if each[0] > max(AVOIDABLE, HEAVY * each[1])}
    if heavy:
        name, (time, macs) = max(heavy.items(), key=lambda item: item[1][0] - item[1][1])
        yield Finding(
            "layers bound by memory",
            f"{_count(heavy, 'layer')} with {sum(t for t, _ in heavy.values()):.1%} of the time and {sum(m for _, m in heavy.values()):.1%} "
            f"of the MACs; {name} takes {time:.1%} for {macs:.1%}",
            "prune or widen them by time, not by MACs (a latency target); large images with few channels are the usual cause",
            {"layers": len(heavy), "time": sum(t for t, _ in heavy.values()), "macs": sum(m for _, m in heavy.values())},
        )  # fmt: skip


def integers(case: Case) -> Iterator[Finding]:
    """INT8 that is not faster than the same network in floating point."""
    if case.row.candidate.subject.precision != "int8" or not case.speed.speedup:
        return
    macs = case.row.median("macs")
    for other in case.every:
        speed = other.speed(case.speed)
        if other.candidate.subject.precision == "int8" or other.median("macs") != macs or speed is None or macs is None:
            continue
        before = 1.0 if other is case.baseline else speed.speedup[0] if speed.speedup else None
        if before and case.speed.speedup[0] / before < FASTER:
            times = case.speed.speedup[0] / before
            yield Finding(
                "INT8 not faster",
                f"INT8 is {show(times, 'x')} as fast as {other.name}, which has the same MACs in floating point",
                "this processor or runtime has no faster integer kernels for these shapes: keep floating point, or try another runtime",
                {"ratio": times},
            )


def zeros(case: Case) -> Iterator[Finding]:
    """Weights that are zero and are multiplied with all the same."""
    before, after = case.baseline.median("sparsity") or 0.0, case.row.median("sparsity") or 0.0
    if after - before > 100 * UNCOUNTED:
        yield Finding(
            "zeros are computed",
            f"{after:.1f} % of the weights are zero ({before:.1f} % of the baseline's), and no runtime here skips them",
            "remove channels instead: compress prune",
            {"sparsity": after / 100},
        )


CAUSES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    lost, channels, floats, fallbacks, reformats, launches, memory, integers, zeros,
)  # fmt: skip
"""Every cause that is looked for, in the order they are said."""


def _count(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _nodes(profile: Profile | None) -> tuple[Node, ...]:
    return profile.nodes if profile else ()


def _of(nodes: Iterable[Node], profile: Profile | None) -> float:
    """The share of all time that some kernels take."""
    return sum(node.seconds for node in nodes) / profile.seconds if profile and profile.seconds else 0.0


def _share(profile: Profile | None, layers: set[str]) -> float:
    return _of([node for node in _nodes(profile) if node.layer in layers], profile)


def _rest(profile: Profile, layers: Sequence[Layer]) -> float:
    """Seconds between the layers."""
    names = {layer.name for layer in layers}
    return sum(node.seconds for node in profile.nodes if node.layer not in names)


def _operators(nodes: Sequence[Node]) -> str:
    return ", ".join([*by_operator(nodes)][:3])


def _names(layers: Sequence[Layer], most: int = 3) -> str:
    more = f" and {len(layers) - most} more" if len(layers) > most else ""
    return ", ".join(layer.name for layer in layers[:most]) + more
