"""What curves say."""

import pytest

from compress.train.diagnosis import ADVICE, diagnose, explained
from compress.train.stopping import smoothed


def curves(train, validation=(), loss=None):
    found = {"train_loss": tuple(loss or [1.0] * len(train)), "train_top1": tuple(map(float, train))}
    return found | ({"validation_top1": tuple(map(float, validation))} if validation else {})


CASES = {
    "divergence": curves([50, 60, 40], [50, 60, 40], [1.0, 0.8, 1.3]),
    "over-fitting": curves([80, 90, 95, 99], [80, 85, 84, 83]),
    "under-fitting": curves([50, 55, 60], [50, 56, 60]),
    "good fit": curves([80, 90, 95], [80, 88, 91]),
}


@pytest.mark.parametrize("verdict", ADVICE)
def test_each_verdict_is_found_and_comes_with_what_would_help(verdict):
    assert diagnose(CASES[verdict])[-1] == verdict
    assert explained(CASES[verdict])[-1].endswith(f": {ADVICE[verdict]}")


def test_a_wide_gap_is_over_fitting_even_while_validation_rises():
    assert diagnose(curves([80, 99], [60, 70]))[-1] == "over-fitting"


def test_a_gap_with_validation_still_rising_is_a_good_fit():
    assert diagnose(curves([85, 92, 97, 99], [80, 85, 88, 90]))[-1] == "good fit"


def test_without_validation_no_gap_is_read():
    assert diagnose(curves([50, 99])) == ("under-fitting", "good fit")
    assert "validation" not in " ".join(explained(curves([50, 99])))


def test_each_stretch_of_epochs_is_one_line():
    lines = explained(curves([50, 60, 85, 95], [50, 61, 84, 90.5]))
    assert lines[0] == "epochs 1 to 2: under-fitting (train top-1 1.0 points below validation)"
    assert lines[1].startswith("epochs 3 to 4: good fit (train top-1 4.5 points above validation): ")


def test_every_option_advised_exists():
    import re

    from compress.train.step import Train

    named = set(re.findall(r"--([a-z-]+)", " ".join(ADVICE.values())))
    assert named and {name.replace("-", "_") for name in named} <= set(Train.model_fields)


def test_smoothing_worked_by_hand():
    assert smoothed([4.0, 8.0, 2.0], 0.5) == 0.5 * 6 + 0.5 * 2
    assert smoothed([4.0, 8.0], 0.0) == 8.0
