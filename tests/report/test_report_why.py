"""Why a speed-up is not the ratio of MACs: each cause is found from its evidence, and only then."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import recorded

from compress.measurement import Entry, Measurement, Node, Profile
from compress.report import causes, why
from compress.report import report as reports
from compress.report.why import Explanation

CONDITIONS: dict[str, str | int] = {"runtime": "onnxruntime", "device": "cpu", "batch": 64, "threads": 1}


def profiled(entry: Entry, slow: dict[str, float] | None = None, *more: Node) -> Entry:
    """The entry with a profile in which every layer takes a nanosecond a thousand MACs, some of them more."""
    nodes = tuple(
        Node(
            layer.name,
            "Conv",
            layer.name,
            layer.macs * 1e-12 * (slow or {}).get(layer.name, 1.0),
            "CPUExecutionProvider",
        )
        for layer in entry.layers
    )
    return replace(entry, profile=Profile(CONDITIONS, nodes + more))


def latencies(entry: Entry, small: float, large: float) -> Entry:
    """The entry with other latencies at batch 1 and 64."""
    given = {1: small, 64: large}
    return replace(
        entry,
        measurements=tuple(
            replace(each, values=(given[int(each.conditions["batch"])],) * 20) if each.metric == "latency" else each
            for each in entry.measurements
        ),
    )


def explained(folder: Path, candidate: Entry, *others: Entry, baseline: Entry | None = None) -> Explanation:
    entries = (
        latencies(baseline or profiled(recorded.entry()), 1e-4, 64e-4),
        latencies(candidate, 1e-4, 64e-4),
        *others,
    )
    return why.explain(reports.from_recordings([recorded.run(folder, *entries)]))[0]


def found(explanation: Explanation) -> dict[str, causes.Finding]:
    return {finding.cause: finding for finding in explanation.findings}


def half(**changes: object) -> Entry:
    """A candidate in floating point with half the inner channels, and as many times faster as it has fewer MACs."""
    return recorded.entry("half", keep=0.5, speedup=1.978, **changes)  # type: ignore[arg-type]


def test_a_candidate_that_is_as_fast_as_its_macs_say_has_only_the_channels_that_were_left(tmp_path: Path) -> None:
    explanation = explained(tmp_path, profiled(half()))
    assert explanation.expected == pytest.approx(1.978, rel=1e-3)
    assert explanation.verdict.endswith("as its MACs say")
    assert [*found(explanation)] == ["channels off the multiple"]


def test_channels_that_are_rounded_up_again_are_counted(tmp_path: Path) -> None:
    finding = found(explained(tmp_path, profiled(half())))["channels off the multiple"]
    # Three of the inner layers went from 16 to 8 channels, computed as 16: their MACs, a seventh of all, twice.
    own = [layer for layer in half().layers if layer.outputs == 8]
    assert finding.figures["layers"] == len(own) == 3
    assert finding.figures["share"] == pytest.approx(
        sum(each.macs for each in own) / sum(each.macs for each in half().layers)
    )


def test_time_above_the_macs_is_named_by_layer(tmp_path: Path) -> None:
    slow = profiled(half(), {"stage2.1.conv2": 9.0}, Node("Add", "Add", "", 2e-6))
    finding = found(explained(tmp_path, slow))["time above its MACs"]
    layer = next(each for each in half().layers if each.name == "stage2.1.conv2")
    assert finding.figures["seconds"] == pytest.approx(8 * layer.macs * 1e-12 + 2e-6)
    assert finding.evidence.index("stage2.1.conv2") < finding.evidence.index("between layers")


CASES: dict[str, Callable[[], Entry]] = {
    "layers left in float": lambda: _with_layer(profiled(recorded.int8()), "stage1.0.conv1", precision="fp32"),
    "integers computed in float": lambda: profiled(recorded.int8(integer=80.0)),
    "fallbacks": lambda: _on(profiled(recorded.int8()), "cuda"),
    "changes of layout and type": lambda: profiled(half(), None, Node("ReorderInput_3", "ReorderInput", "", 5e-6)),
    "work that MACs do not count": lambda: profiled(half(), None, Node("Add_3", "Add", "", 9e-6)),
    "layers bound by memory": lambda: profiled(half(), {"stem.conv": 9.0}),
    "INT8 not faster": lambda: profiled(recorded.int8(speedup=1.04)),
    "zeros are computed": lambda: _with(profiled(half()), Measurement("sparsity", (60.0,))),
    "not profiled": half,
}
"""An entry that shows each cause."""


def _with(entry: Entry, *more: Measurement) -> Entry:
    return replace(entry, measurements=(*entry.measurements, *more))


def _with_layer(entry: Entry, name: str, **changes: object) -> Entry:
    return replace(
        entry, layers=tuple(replace(each, **changes) if each.name == name else each for each in entry.layers)
    )  # type: ignore[arg-type]


def _on(entry: Entry, device: str) -> Entry:
    """The entry as measured on another device, its kernels still on the CPU."""
    assert entry.profile is not None
    measured = tuple(
        replace(each, conditions={**each.conditions, "device": device}) if "device" in each.conditions else each
        for each in entry.measurements
    )
    return replace(
        entry, measurements=measured, profile=replace(entry.profile, conditions={**CONDITIONS, "device": device})
    )


@pytest.mark.parametrize("cause", CASES)
def test_a_cause_is_found_where_it_is_shown_and_only_there(tmp_path: Path, cause: str) -> None:
    shown = CASES[cause]()
    baseline = _on(profiled(recorded.entry()), "cuda") if cause == "fallbacks" else None
    finding = found(explained(tmp_path / "shown", shown, baseline=baseline))[cause]
    assert finding.evidence and finding.remedy
    innocent = profiled(recorded.int8()) if shown.subject.precision == "int8" else profiled(half())
    assert cause not in found(explained(tmp_path / "innocent", innocent))


@pytest.mark.parametrize(("large", "bound"), [(0.5e-3, True), (32e-3, False)])
def test_a_latency_that_hardly_grows_with_the_batch_is_bound_by_launches(
    tmp_path: Path, large: float, bound: bool
) -> None:
    entries = profiled(recorded.entry()), latencies(profiled(half()), 0.5e-3, large)
    [explanation] = why.explain(reports.from_recordings([recorded.run(tmp_path, *entries)]))
    finding = found(explanation).get("bound by launches")
    assert (finding is not None) == bound
    if finding:
        assert finding.figures["seconds"] == pytest.approx(0.5e-3)


def test_int8_is_also_held_against_the_pruned_network_in_floating_point(tmp_path: Path) -> None:
    explanation = explained(tmp_path, profiled(recorded.pruned(speedup=2.0)), profiled(half()))
    assert "half" in found(explanation)["INT8 not faster"].evidence


def test_a_candidate_that_was_not_timed_against_the_baseline_has_nothing_to_explain(tmp_path: Path) -> None:
    untimed = replace(half(), measurements=tuple(e for e in half().measurements if e.metric != "latency_ratio"))
    explanation = explained(tmp_path, untimed)
    assert (explanation.measured, explanation.findings) == (None, ())
    assert "it was not timed against the baseline" in explanation.verdict


def test_a_file_against_itself_is_as_fast_as_its_macs_say_however_sharp_the_interval(tmp_path: Path) -> None:
    explanation = replace(explained(tmp_path, profiled(half())), expected=1.0, measured=1.003, interval=(1.001, 1.005))
    assert explanation.verdict.endswith("as its MACs say")
    assert replace(explanation, measured=1.02, interval=(1.01, 1.03)).verdict.endswith("more")


def test_the_document_holds_the_verdict_and_every_figure(tmp_path: Path) -> None:
    document = why.plain([explained(tmp_path, profiled(half()))])
    [explanation] = document["explanations"]
    assert explanation["verdict"].startswith("1.98x by MACs")
    assert explanation["findings"][0]["figures"]["multiple"] == 16
