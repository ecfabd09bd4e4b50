"""What training makes small, against numbers worked by hand."""

import math

import pytest
import torch

from compress.train.objectives import cross_entropy, distillation

LOGITS = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
LABEL = torch.tensor([0])


def test_cross_entropy_is_minus_the_log_of_the_right_probability():
    assert float(cross_entropy()(LOGITS, None, LABEL)) == pytest.approx(-math.log(0.7), rel=1e-6)


def test_label_smoothing_spreads_the_target_over_all_classes():
    # targets 0.8, 0.1, 0.1 for a smoothing of 0.3
    expected = -(0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1))
    assert float(cross_entropy(0.3)(LOGITS, None, LABEL)) == pytest.approx(expected, rel=1e-6)


def test_distillation_is_the_scaled_divergence_plus_the_task():
    teacher = torch.log(torch.tensor([[0.5, 0.4, 0.1]]))
    temperature, share = 2.0, 0.9

    def soft(values):
        powers = [value ** (1 / temperature) for value in values]
        return [power / sum(powers) for power in powers]

    p, q = soft([0.5, 0.4, 0.1]), soft([0.7, 0.2, 0.1])
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    expected = share * temperature**2 * divergence + (1 - share) * -math.log(0.7)
    found = float(distillation(cross_entropy(), share, temperature)(LOGITS, teacher, LABEL))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != pytest.approx(expected * 1.01, rel=1e-5)


def test_a_student_that_answers_as_its_teacher_has_nothing_left_to_learn_from_it():
    loss = distillation(cross_entropy(), 1.0, 4.0)(LOGITS, LOGITS, LABEL)
    assert float(loss) == pytest.approx(0, abs=1e-6)
