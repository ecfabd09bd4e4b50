"""Numbers with units as people write and read them: `500KB`, `2ms`, `0.5pp`, `3x`.

Units are those of `measurement.METRICS`, and `pp`, points: the difference of two percentages.
1 KB is 1000 bytes, 1 KiB is 1024.
"""

import math
import re

SCALES: dict[str, dict[str, float]] = {
    "B": {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "s": {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1},
    "J": {"mJ": 1e-3, "J": 1},
    "%": {"%": 1},
    "pp": {"pp": 1},
    "x": {"": 1, "x": 1},
    "1": {"": 1, "k": 1e3, "M": 1e6, "G": 1e9},
    "images/s": {"images/s": 1},
}
"""For each unit, how it may be written, and how many of the unit each stands for."""

SHOWN: dict[str, tuple[tuple[float, str], ...]] = {
    "B": ((1e9, " GB"), (1e6, " MB"), (1e3, " KB"), (1, " B")),
    "s": ((1, " s"), (1e-3, " ms"), (1e-6, " µs")),
    "J": ((1, " J"), (1e-3, " mJ")),
    "x": ((1, "x"),),
    "1": ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")),
    "images/s": ((1e6, " M images/s"), (1e3, " k images/s"), (1, " images/s")),
}


def parse(text: str | float, unit: str) -> float:
    """What `text` stands for, in `unit`: parse("500KB", "B") is 500000.0.

    A bare number is read where the unit has none to write ("x" and "1"). Raises ValueError saying which units fit.
    """
    scales = SCALES[unit]
    found = re.fullmatch(r"\s*([+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(\D*?)\s*", str(text))
    if found and not math.isfinite(float(found[1])):
        found = None
    if not found or found[2] not in scales:
        fitting = [f"3{suffix}" for suffix in scales]
        listed = " or ".join(filter(None, (", ".join(fitting[:-1]), fitting[-1])))
        wrong = (
            f"{found[2]!r} is no unit that fits"
            if found and found[2]
            else "it has no unit"
            if found
            else "it is no finite number"
        )
        raise ValueError(f"cannot read {str(text)!r}: {wrong}. Write it as {listed}.")
    return float(found[1]) * scales[found[2]]


def counted(count: int, thing: str) -> str:
    """A count of things as people write it: `1 image`, `2 images`."""
    return f"{count} {thing}{'s' * (count != 1)}"


def show(value: float, unit: str) -> str:
    """A value for people, three digits or two decimals: `274 KB`, `12.2 ms`, `91.73 %`, `-0.21 pp`, `2.20x`."""
    if unit == "%":
        return f"{value:.2f} %"
    if unit == "pp":
        return f"{round(value, 2) + 0.0:+.2f} pp" if round(value, 2) else "0.00 pp"
    steps = SHOWN[unit]
    size = abs(value) or 1.0
    scale, suffix = next((step for step in steps if size >= 0.9995 * step[0]), steps[-1])
    scaled = value / scale
    if abs(scaled) >= 99.95 or (scale == 1 and unit in ("B", "1") and scaled == int(scaled)):
        return f"{scaled:.0f}{suffix}"
    return f"{scaled:#.3g}{suffix}"
