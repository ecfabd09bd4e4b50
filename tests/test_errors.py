"""Messages that tell the user how to repair."""

import pytest

from compress.errors import CheckFailed, CompressError, Inconclusive, ResourceError, UsageError, missing_extra, unknown


@pytest.mark.parametrize(
    ("kind", "code"), [(CompressError, 3), (UsageError, 2), (CheckFailed, 1), (Inconclusive, 4), (ResourceError, 5)]
)
def test_each_kind_of_failure_has_its_exit_code(kind, code):
    assert kind("x").exit_code == code


def test_an_unknown_name_gets_the_nearest_and_all_that_exist():
    message = str(unknown("network", "resnet21", ["resnet20", "resnet56", "vgg16"]))
    assert "unknown network 'resnet21': did you mean resnet20" in message
    assert "There are: resnet20, resnet56, vgg16." in message


def test_a_long_list_is_counted_and_not_poured_out():
    assert str(unknown("network", "qqq", [f"network{number}" for number in range(100)])).endswith("There are 100.")


def test_a_missing_package_names_the_extra_that_brings_it():
    assert "compress-cnn[openvino]" in str(missing_extra("openvino", "openvino", "the openvino runtime"))
