"""What a rule has to say of one node, as a value."""

from typing import Literal

from pydantic.dataclasses import dataclass

from compress.architecture import STRICT

Cost = Literal["refused", "wrong", "slow", "inexact"]
"""The runtime does not take it, computes something else, takes longer, or rounds more than it has to."""


@dataclass(frozen=True, config=STRICT)
class Finding:
    """A node, the rule it breaks, what that costs and why, and the repair."""

    node: str
    rule: str
    cost: Cost
    why: str
    repair: str
