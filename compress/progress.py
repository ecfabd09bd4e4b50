"""How long work tells its caller how far it is: one function, called as often as there is news."""

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Called with the task's name, how much is done, how much there is, and a few live words ("loss 0.31")."""


def silent(task: str, done: int, total: int, detail: str = "") -> None:
    """The progress of a caller who does not want to know."""


Said = Callable[[str], None]
"""Called with a sentence when something is finished."""


def unsaid(line: str) -> None:
    """What a caller who does not want to know is told."""
