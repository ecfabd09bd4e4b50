"""What training makes small: functions of the logits, the teacher's logits and the labels."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Objective = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""(logits (N, classes), the teacher's logits or None, labels (N,)) -> the mean loss, one number."""


def cross_entropy(label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy with the labels, the target spread by `label_smoothing` in [0, 1) over all classes.

    (Szegedy et al., https://arxiv.org/abs/1512.00567, section 7.)
    """
    return lambda logits, teacher, labels: functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def distillation(task: Objective, share: float, temperature: float) -> Objective:
    """The student follows the teacher's softened answers and, for the rest, the task.

    share * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - share) * task, with `share` in
    [0, 1]; T^2 keeps the gradient's size the same at every temperature T.
    (Hinton, Vinyals and Dean, https://arxiv.org/abs/1503.02531.)
    """

    def loss(logits: Tensor, teacher: Tensor | None, labels: Tensor) -> Tensor:
        assert teacher is not None, "distillation was asked for and no teacher answered"
        divergence = functional.kl_div(
            functional.log_softmax(logits.float() / temperature, dim=1),
            functional.log_softmax(teacher.float() / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return share * temperature**2 * divergence + (1 - share) * task(logits, teacher, labels)

    return loss
