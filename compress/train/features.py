"""Following a teacher inside: what named layers of the student answer is drawn to what the teacher's answer."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from compress.errors import CompressError, unknown
from compress.train.objectives import Objective

Distance = Callable[[Tensor, Tensor], Tensor]
"""What a layer of the student and of the teacher answer, (N, C, H, W) each -> how far apart they are, one number."""


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared difference, for layers of the same width. (FitNets, https://arxiv.org/abs/1412.6550.)"""
    return functional.mse_loss(student, teacher)


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean over images of ||Q_s / |Q_s| - Q_t / |Q_t|||^2, with Q the sum over channels of squares at each place.

    Widths may differ, heights and widths of the maps not. (Zagoruyko and Komodakis, https://arxiv.org/abs/1612.03928.)
    """
    maps = [functional.normalize(each.square().sum(1).flatten(1)) for each in (student, teacher)]
    return (maps[0] - maps[1]).square().sum(1).mean()


DISTANCES: dict[str, Distance] = {"attention": attention, "hint": hint}


def listen(network: nn.Module, layers: Sequence[str]) -> dict[str, Tensor]:
    """A mapping that holds, after each forward pass of `network`, what the named layers answered in it.

    Raises UsageError for a layer the network does not have.
    """
    heard: dict[str, Tensor] = {}
    modules = dict(network.named_modules())

    def note(name: str, module: nn.Module, inputs: object, output: Tensor) -> None:
        heard[name] = output

    for name in layers:
        if name not in modules:
            raise unknown("layer", name, filter(None, modules))
        modules[name].register_forward_hook(partial(note, name))
    return heard


def matching(
    task: Objective, student: dict[str, Tensor], teacher: dict[str, Tensor], weight: float, kind: str
) -> Objective:
    """The task plus `weight` times the distance (a name in `DISTANCES`) between each layer of student and teacher.

    `student` and `teacher` are what `listen` returned. Raises CompressError where a layer's answers cannot be compared.
    """

    def loss(logits: Tensor, answer: Tensor | None, labels: Tensor) -> Tensor:
        total = task(logits, answer, labels)
        for name, ours in student.items():
            theirs = teacher[name]
            if ours.dim() < 3 or ours.shape[2:] != theirs.shape[2:] or (kind == "hint" and ours.shape != theirs.shape):
                raise CompressError(
                    f"the layer {name} answers {tuple(ours.shape)} in the student and {tuple(theirs.shape)} in the teacher: "
                    f"{kind} cannot compare them. Name layers with maps of the same size"
                    + (", or use attention, which takes any width." if kind == "hint" else ".")
                )
            total = total + weight * DISTANCES[kind](ours.float(), theirs.float())
        return total

    return loss
