"""What each part of a network can give up is found again by the checkpoint it is of."""

from dataclasses import replace
from pathlib import Path

import pytest

from compress import document
from compress.errors import CompressError
from compress.sensitivity import FORMAT, KIND, Sensitivity, beside, kept

FOUND = Sensitivity(
    "sha256:one", "sha256:data", "channels", "l2", (0.25, 0.6, 0.75), 100, 0, "top1", 90.0,
    {"conv1": (89.0, 85.0, 60.0), "conv2 (1)": (90.0, 80.0, 70.0), "conv2 (2)": (90.0, 88.0, 70.0)}, (),
)  # fmt: skip


def test_a_layer_costs_what_its_worst_group_does_at_the_share_nearest_to_half() -> None:
    assert FOUND.middle == 0.6
    assert (FOUND.layer("conv1"), FOUND.layer("conv2"), FOUND.layer("conv")) == (5.0, 10.0, None)
    assert replace(FOUND, measure="distance", parts={"conv1": (0.1, 0.2, 0.3)}).layer("conv1") == 0.2


def test_those_of_the_same_checkpoint_are_found_channels_first(tmp_path: Path) -> None:
    weights = replace(FOUND, structure="weights", parts={"conv1": (90.0, 89.0, 88.0)})
    for name, found in (("b", FOUND), ("a", replace(FOUND, checkpoint="sha256:other")), ("a", weights)):
        document.write(beside(tmp_path / f"{name}.safetensors", found.structure), KIND, FORMAT, found)
    assert kept(tmp_path, "sha256:one") == (FOUND, weights)
    assert kept(tmp_path, "sha256:none") == ()


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    beside(tmp_path / "net.safetensors", "channels").write_text("{")
    with pytest.raises(CompressError, match=r"net\.sensitivity\.channels\.json is not JSON"):
        kept(tmp_path, "sha256:one")
