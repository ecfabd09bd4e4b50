import pytest

from compress.demand import DEMANDS, demanded
from compress.errors import UsageError
from compress.limit import Limit


@pytest.mark.parametrize("name", DEMANDS)
def test_every_option_has_an_example_that_is_a_limit(name: str) -> None:
    [made] = demanded({name: DEMANDS[name].example}, {})
    assert made.metric == DEMANDS[name].metric
    assert made.bound.name == DEMANDS[name].bound


def test_a_multiple_is_of_the_baselines() -> None:
    size, speed, memory = demanded({"max_size": "0.5x", "min_speedup": "3x", "max_peak_memory": "1.1 x"}, {})
    assert (size.bound.name, size.bound.value) == ("max_ratio", 0.5)
    assert (speed.bound.name, speed.bound.value) == ("min_speedup", 3)
    assert (memory.bound.name, memory.bound.value) == ("max_ratio", 1.1)


def test_options_are_narrowed_where_it_means_something() -> None:
    scope = {"candidate": "int8.onnx", "runtime": "onnxruntime", "batch": 64, "against": "main.json", "level": "warn"}
    size, speed, accuracy = demanded({"max_size": "500KB", "min_speedup": "3x", "max_accuracy_drop": "1pp"}, scope)
    assert size == Limit(metric="size", max="500KB", candidate="int8.onnx", level="warn")
    assert speed == Limit(
        metric="latency", min_speedup="3x", candidate="int8.onnx", runtime="onnxruntime", batch=64, against="main.json", level="warn"
    )  # fmt: skip
    assert accuracy == Limit(
        metric="top1", max_drop="1pp", candidate="int8.onnx", runtime="onnxruntime", against="main.json", level="warn"
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "max_size",
            "5mb/s",
            "--max-size: cannot read '5mb/s': 'mb/s' is no unit that fits. Write it as 3B, 3KB, 3MB,",
        ),
        ("max_size", "500", "--max-size: cannot read '500': it has no unit."),
        ("max_p99", "2MB", "--max-p99: cannot read '2MB': 'MB' is no unit that fits. Write it as 3us"),
        ("max_p99", "1.1x", "--max-p99: percentile is for max and min of latency: ratios are of medians."),
        ("min_sparsity", "half", "--min-sparsity: cannot read 'half'"),
        ("min_speedup", "0x", "--min-speedup: 0x is no bound for latency"),
        ("min_parity", "0.9x", "--min-parity: parity is a share of hops that passed"),
    ],
)
def test_a_wrong_option_is_named(name: str, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        demanded({name: text}, {})
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("given", "scope"),
    [
        ({"max_size": "500KB"}, {"against": "main.json"}),
        ({"max_size": "500KB"}, {"batch": 64}),
        ({"min_accuracy": "90%"}, {"batch": 64}),
        ({}, {"candidate": "int8.onnx"}),
    ],
)
def test_an_option_that_changes_no_limit_is_refused(given: dict[str, str], scope: dict[str, str | int]) -> None:
    with pytest.raises(UsageError, match=f"--{next(iter(scope))} means nothing to the limits given as options"):
        demanded(given, scope)
