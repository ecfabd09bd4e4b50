import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import quantity
from compress.measurement import METRICS


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("500KB", "B", 500_000), ("1.5 MB", "B", 1_500_000), ("1KiB", "B", 1024), ("12B", "B", 12), ("2ms", "s", 0.002),
        ("80us", "s", 8e-5), ("80µs", "s", 8e-5), ("1s", "s", 1), ("91.5%", "%", 91.5), ("0.5pp", "pp", 0.5), ("3x", "x", 3),
        (".95x", "x", 0.95), (3, "x", 3), ("41.4M", "1", 41.4e6), ("272k", "1", 272_000), (1000.0, "1", 1000),
        ("900images/s", "images/s", 900), ("1e3 images/s", "images/s", 1000), ("-1pp", "pp", -1),
    ],
)  # fmt: skip
def test_quantities_are_read_with_their_units(text: str | float, unit: str, value: float) -> None:
    assert quantity.parse(text, unit) == pytest.approx(value, rel=1e-12)
    assert quantity.parse(text, unit) != pytest.approx(value * 1.01, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("5mb/s", "B", "'mb/s' is no unit that fits. Write it as 3B, 3KB, 3MB, 3GB, 3KiB, 3MiB or 3GiB."),
        ("500", "B", "it has no unit"),
        ("5kb", "B", "'kb' is no unit that fits"),
        ("0.5%", "pp", "'%' is no unit that fits. Write it as 3pp."),
        ("2", "s", "it has no unit. Write it as 3us, 3µs, 3ms or 3s."),
        ("fast", "s", "it is no finite number"),
        ("nan", "x", "it is no finite number"),
        ("1e999", "1", "it is no finite number"),
        ("", "x", "it is no finite number"),
        (math.inf, "x", "it is no finite number"),
    ],
)
def test_what_cannot_be_read_names_the_units_that_fit(text: str | float, unit: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^cannot read ") as caught:
        quantity.parse(text, unit)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (274_400, "B", "274 KB"), (999_600, "B", "1.00 MB"), (812, "B", "812 B"), (0, "B", "0 B"), (1e13, "B", "10000 GB"),
        (0.0122, "s", "12.2 ms"), (5.2e-4, "s", "520 µs"), (0, "s", "0.00 s"), (91.73, "%", "91.73 %"), (-0.21, "pp", "-0.21 pp"),
        (0.001, "pp", "0.00 pp"), (-0.001, "pp", "0.00 pp"), (2.2, "x", "2.20x"), (0.95, "x", "0.950x"), (272_474, "1", "272 k"),
        (10, "1", "10"), (40.8e6, "1", "40.8 M"), (5244, "images/s", "5.24 k images/s"), (-6060, "B", "-6.06 KB"),
    ],
)  # fmt: skip
def test_values_are_shown_with_three_digits(value: float, unit: str, text: str) -> None:
    assert quantity.show(value, unit) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_thing_is_told_in_the_singular(count: int, text: str) -> None:
    assert quantity.counted(count, "image") == text


@given(st.sampled_from(["B", "s", "x", "1"]), st.floats(1e-5, 9.9e11))
def test_what_is_shown_reads_back_as_nearly_the_same(unit: str, value: float) -> None:
    if unit in ("B", "1"):
        value = max(1.0, round(value))
    shown = quantity.show(value, unit).replace(" ", "")
    assert quantity.parse(shown, unit) == pytest.approx(value, rel=0.0051)
    assert quantity.parse(shown, unit) != pytest.approx(value * 1.011, rel=0.0051)


def test_every_unit_that_is_measured_can_be_read_and_shown() -> None:
    for metric in METRICS.values():
        assert metric.unit in quantity.SCALES
        assert quantity.show(1.0, metric.unit)
