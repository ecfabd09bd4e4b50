from pathlib import Path

import pydantic
import pytest

from compress import limit
from compress.errors import UsageError
from compress.limit import Limit


def read(tmp_path: Path, text: str) -> tuple[Limit, ...]:
    (tmp_path / "gate.yaml").write_text(text)
    return limit.read(tmp_path / "gate.yaml")


def test_a_limits_file_is_read_in_its_order(tmp_path: Path) -> None:
    first, second = read(
        tmp_path,
        "limits:\n  - {metric: size, max: 500KB}\n  - {metric: latency, min_speedup: 3, batch: 64, level: warn}\n",
    )
    assert (first.bound.value, first.bound.unit, first.bound.upper) == (500_000, "B", True)
    assert (second.bound.value, second.bound.upper, second.batch, second.level) == (3, False, 64, "warn")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("metric: top1\n    max_drop: 5mb/s", "gate.yaml:3:15: limits.0.max_drop: cannot read '5mb/s': 'mb/s' is no unit that fits. Write it as 3pp."),
        ("metric: size\n    max: 5mb/s", "gate.yaml:3:10: limits.0.max: cannot read '5mb/s': 'mb/s' is no unit that fits. Write it as 3B, 3KB, 3MB,"),
        ("metric: size\n    max: 500", "gate.yaml:3:10: limits.0.max: cannot read '500': it has no unit."),
        ("metric: sise\n    max: 5KB", "gate.yaml:2:13: limits.0.metric: unknown metric 'sise': did you mean size? There are: allocated_memory,"),
        ("metric: size\n    maxx: 5KB", "gate.yaml:3:5: limits.0.maxx: there is no such key; did you mean max?"),
        ("metric: size", "gate.yaml:2:5: limits.0: a limit needs exactly one of max, min, max_drop, max_ratio, min_ratio, min_speedup; it has none."),
        ("metric: size\n    max: 5KB\n    max_ratio: 0.5x", "gate.yaml:2:5: limits.0: a limit needs exactly one of max, min, max_drop, max_ratio, min_ratio, min_speedup; it has max and max_ratio."),
        ("metric: size\n    max_drop: 1pp", "max_drop is for percentages such as top1; limit size with max or max_ratio."),
        ("metric: size\n    min_speedup: 2x", "min_speedup is for latency; limit size with max_ratio or min_ratio."),
        ("metric: size\n    max: 1KB\n    percentile: 99", "percentile is for max and min of latency: ratios are of medians."),
        ("metric: latency\n    min_speedup: 2x\n    percentile: 99", "percentile is for max and min of latency"),
        ("metric: size\n    max: 1KB\n    against: main.json", "max is absolute and needs no report to be against"),
        ("metric: latency\n    min_speedup: 0x", "limits.0.min_speedup: 0x is no bound for latency: it has to be above zero."),
        ("metric: size\n    max: -1KB", "-1KB is no bound for size: it has to be above zero."),
        ("metric: latency_ratio\n    max: 1x", "unknown metric 'latency_ratio'"),
        ("metric: size\n    max: 1KB\n    batch: 64", "size is the same for every batch; leave batch out."),
        ("metric: macs\n    max: 1M\n    runtime: onnxruntime", "macs is the same for every runtime; leave runtime out."),
        ("metric: parity\n    min_ratio: 1x", "parity is a share of hops that passed; limit it with min"),
        ("metric: size\n    max: 1KB\n    batch: 0", "limits.0.batch: Input should be greater than or equal to 1 (it is 0)"),
        ("metric: size\n    max: 1KB\n    level: fatal", "limits.0.level: Input should be 'error' or 'warn' (it is 'fatal')"),
    ],
)  # fmt: skip
def test_a_wrong_limit_is_named_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, f"limits:\n  - {line}\n")
    assert said in str(caught.value)
    assert str(caught.value).startswith("gate.yaml:")
    assert "\n" not in str(caught.value)


def test_a_limit_says_what_it_demands() -> None:
    assert str(Limit(metric="latency", max="2ms", percentile=99)) == "p99 latency: at most 2ms"
    assert str(Limit(metric="latency", min_speedup="3x")) == "latency: speed-up at least 3x"
    assert str(Limit(metric="macs", max=1234567)) == "macs: at most 1234567"
    assert (
        str(Limit(metric="size", max_ratio="1.02x", against="main.json"))
        == "size: ratio at most 1.02x against main.json"
    )


def test_the_bound_itself_is_within_it() -> None:
    assert Limit(metric="size", max="1KB").bound.keeps(1000)
    assert not Limit(metric="size", max="1KB").bound.keeps(1001)
    assert Limit(metric="top1", min="91%").bound.keeps(91)
    assert not Limit(metric="top1", min="91%").bound.keeps(90.99)


def test_a_limit_survives_being_written_and_read() -> None:
    for each in (
        Limit(metric="size", max="500KB", level="warn"),
        Limit(metric="latency", min_speedup="2x", runtime="onnxruntime", batch=64),
    ):
        assert Limit.model_validate(each.model_dump(mode="json")) == each


def test_limits_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Limit(metric="size", max="1KB").max = "2KB"  # type: ignore[misc]


@pytest.mark.parametrize("name", limit.PRESETS)
def test_every_preset_is_there_by_name_and_says_who_set_it(name: str) -> None:
    assert limit.preset(name)
    assert limit.PRESETS[name].source.startswith("https://")


def test_the_tiny_benchmark_asks_for_85_per_cent() -> None:
    [demand] = limit.preset("mlperf-tiny-ic")
    assert (demand.metric, demand.bound.value, demand.bound.upper) == ("top1", 85, False)


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown preset 'mlperf': did you mean mlperf-tiny-ic"):
        limit.preset("mlperf")
