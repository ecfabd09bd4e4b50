"""What training makes small, against numbers worked by hand."""

import math

import pytest
import torch

from compress.train.objectives import balanced, cross_entropy, distillation, focal

LOGITS = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
LABEL = torch.tensor([0])
SOFT = torch.tensor([[0.6, 0.4, 0.0]])


def test_cross_entropy_is_minus_the_log_of_the_right_probability():
    assert float(cross_entropy()(LOGITS, None, LABEL)) == pytest.approx(-math.log(0.7), rel=1e-6)


def test_cross_entropy_takes_soft_targets():
    expected = -(0.6 * math.log(0.7) + 0.4 * math.log(0.2))
    assert float(cross_entropy()(LOGITS, None, SOFT)) == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_spreads_the_target_over_all_classes():
    # targets 0.8, 0.1, 0.1 for a smoothing of 0.3
    expected = -(0.8 * math.log(0.7) + 0.1 * math.log(0.2) + 0.1 * math.log(0.1))
    assert float(cross_entropy(0.3)(LOGITS, None, LABEL)) == pytest.approx(expected, rel=1e-6)


def test_class_weights_multiply_and_a_batch_in_pieces_gives_the_loss_of_the_whole():
    logits, labels, weights = LOGITS.repeat(3, 1), torch.tensor([0, 1, 1]), torch.tensor([1.0, 3.0, 1.0])
    loss = cross_entropy(weights=weights)
    expected = -(math.log(0.7) + 3 * math.log(0.2) + 3 * math.log(0.2)) / 3
    assert float(loss(logits, None, labels)) == pytest.approx(expected, rel=1e-6)
    pieces = loss(logits[:1], None, labels[:1]) / 3 + loss(logits[1:], None, labels[1:]) * 2 / 3
    assert float(pieces) == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_make_every_class_count_the_same():
    labels = torch.tensor([0, 0, 0, 1])
    weights = balanced(labels, 2)
    assert weights.tolist() == pytest.approx([4 / 6, 4 / 2])
    assert float(weights[labels].sum()) == pytest.approx(4)


def test_focal_loss_passes_over_what_is_answered_well():
    expected = (1 - 0.7) ** 2 * -math.log(0.7)
    assert float(focal(2.0)(LOGITS, None, LABEL)) == pytest.approx(expected, rel=1e-5)
    assert float(focal(2.0)(LOGITS, None, LABEL)) != pytest.approx(1.01 * expected, rel=1e-5)
    soft = 0.6 * 0.3**2 * -math.log(0.7) + 0.4 * 0.8**2 * -math.log(0.2)
    assert float(focal(2.0)(LOGITS, None, SOFT)) == pytest.approx(soft, rel=1e-5)


@pytest.mark.parametrize("target", [LABEL, SOFT])
def test_focal_loss_without_focus_is_cross_entropy(target):
    weights = torch.tensor([0.5, 2.0, 1.0])
    ours, theirs = (make(LOGITS, None, target) for make in (focal(0.0, 0.1, weights), cross_entropy(0.1, weights)))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


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
