"""Limits as options on a command line: `--max-size 500KB --min-speedup 3x`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pydantic

from compress.errors import UsageError
from compress.limit import RELATIVE, Limit, conditions

RATIO = re.compile(r"\s*[\d.]+(e[+-]?\d+)?\s*x\s*")


@dataclass(frozen=True)
class Demand:
    """A limit that has an option of its own: its metric and bound, and how its value is written."""

    metric: str
    bound: str
    example: str
    percentile: int = 50


DEMANDS: Mapping[str, Demand] = {
    "max_size": Demand("size", "max", "500KB"),
    "max_accuracy_drop": Demand("top1", "max_drop", "0.5pp"),
    "min_accuracy": Demand("top1", "min", "91%"),
    "min_speedup": Demand("latency", "min_speedup", "3x"),
    "max_latency": Demand("latency", "max", "2ms"),
    "max_p99": Demand("latency", "max", "2ms", 99),
    "max_peak_memory": Demand("peak_memory", "max", "64MB"),
    "max_macs": Demand("macs", "max", "10M"),
    "max_parameters": Demand("parameters", "max", "100k"),
    "min_sparsity": Demand("sparsity", "min", "50%"),
    "min_integer_macs": Demand("integer_macs", "min", "100%"),
    "min_parity": Demand("parity", "min", "100%"),
}
"""Limits that have an option of their own, by the option's name."""


def demanded(given: Mapping[str, str], scope: Mapping[str, str | int | None]) -> tuple[Limit, ...]:
    """The limits of options such as `--max-size 500KB`; `--max-size 0.5x` is half the baseline's.

    `scope` is what the others of a limit's fields are set to (candidate, runtime, batch, against, level), each
    where it means something for the metric or the bound. Raises UsageError naming the option that is wrong, or
    the one that means nothing to any limit.
    """
    narrowing = {name: value for name, value in scope.items() if value is not None}
    used: set[str] = set()
    made = []
    for option, text in given.items():
        demand = DEMANDS[option]
        bound = f"{demand.bound}_ratio" if demand.bound in ("max", "min") and RATIO.fullmatch(text) else demand.bound
        fields = {"candidate", "level", *conditions(demand.metric), *(["against"] if bound in RELATIVE else [])}
        own = {name: value for name, value in narrowing.items() if name in fields}
        used |= own.keys()
        try:
            made.append(
                Limit.model_validate({"metric": demand.metric, bound: text, "percentile": demand.percentile, **own})
            )
        except pydantic.ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise UsageError(f"--{option.replace('_', '-')}: {message}") from error
    for name in narrowing.keys() - used:
        raise UsageError(
            f"--{name} means nothing to the limits given as options: give one that it changes, such as --min-speedup 3x. "
            "Limits of a file or a preset say such things themselves."
        )
    return tuple(made)
