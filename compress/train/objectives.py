"""What training makes small: functions of the logits, the teacher's logits and the labels."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Objective = Callable[[Tensor, Tensor | None, Tensor], Tensor]
"""(logits (N, classes), the teacher's logits or None, labels (N,) or targets (N, classes)) -> the mean loss, one number."""


def cross_entropy(label_smoothing: float = 0.0, weights: Tensor | None = None) -> Objective:
    """Cross-entropy with the labels, the target spread by `label_smoothing` in [0, 1) over all classes.

    With `weights` (classes,), class c counts weights[c] times; the sum is divided by the number of images, not
    by the weights met, so that a batch in pieces gives the gradient of the whole.
    (Szegedy et al., https://arxiv.org/abs/1512.00567, section 7.)
    """

    def loss(logits: Tensor, teacher: Tensor | None, labels: Tensor) -> Tensor:
        weight = None if weights is None else weights.to(logits.device)
        total = functional.cross_entropy(
            logits.float(), labels, weight, reduction="sum", label_smoothing=label_smoothing
        )
        return total / len(logits)

    return loss


def focal(gamma: float, label_smoothing: float = 0.0, weights: Tensor | None = None) -> Objective:
    """Cross-entropy in which images that are answered well already count little.

    sum over classes c of -weights[c] t_c (1 - p_c)^gamma log p_c, with p = softmax(logits) and the target t;
    gamma = 0 is cross-entropy. (Lin et al., https://arxiv.org/abs/1708.02002.)
    """

    def loss(logits: Tensor, teacher: Tensor | None, labels: Tensor) -> Tensor:
        classes = logits.shape[1]
        target = functional.one_hot(labels, classes) if labels.dim() == 1 else labels
        target = (1 - label_smoothing) * target + label_smoothing / classes
        log_p = functional.log_softmax(logits.float(), dim=1)
        terms = target * (1 - log_p.exp()) ** gamma * log_p
        return -(terms if weights is None else terms * weights.to(logits.device)).sum() / len(logits)

    return loss


def balanced(labels: Tensor, classes: int) -> Tensor:
    """Class weights by which every class counts the same in all: N / (classes * N_c), for labels (N,)."""
    return len(labels) / (classes * torch.bincount(labels, minlength=classes))


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
