import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.errors import CompressError
from compress.networks.weights import load, match, read_state_dict, share


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def same(left, right):
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


class Opens:
    """What reading a file must never do: create a file of its own."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("envelope", [None, "state_dict", "model"])
def test_a_state_dict_is_read_out_of_what_training_scripts_wrap_around_it(tmp_path, prefix, envelope):
    state = network().state_dict()
    wrapped = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, envelope: wrapped} if envelope else wrapped, tmp_path / "weights.pth")
    assert same(read_state_dict(tmp_path / "weights.pth"), state)


def test_safetensors_and_torch_files_hold_the_same(tmp_path):
    state = dict(network().state_dict())
    save_file(state, tmp_path / "weights.safetensors")
    assert same(dict(sorted(read_state_dict(tmp_path / "weights.safetensors").items())), dict(sorted(state.items())))


def test_a_layer_that_is_called_module_keeps_its_name(tmp_path):
    torch.save({"module.weight": torch.ones(1), "head.weight": torch.ones(1)}, tmp_path / "weights.pt")
    assert set(read_state_dict(tmp_path / "weights.pt")) == {"module.weight", "head.weight"}


def test_a_pickled_module_is_refused_with_what_it_would_have_run(tmp_path):
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(CompressError, match=r"reading it would run .*torch\.nn\.modules\.linear\.Linear"):
        read_state_dict(tmp_path / "module.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_runs_code_is_refused_and_runs_nothing(tmp_path, zipped):
    torch.save({"a": Opens(tmp_path / "ran")}, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CompressError, match="mkdir" if zipped else "read safely"):
        read_state_dict(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    torch.save(network().state_dict(), path) if suffix == ".pth" else save_file(network().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CompressError, match="cut short"):
        read_state_dict(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_missing_file_is_refused(tmp_path, suffix):
    with pytest.raises(CompressError, match="cannot read the weights"):
        read_state_dict(tmp_path / f"none{suffix}")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    "content, said",
    [
        ({}, "holds nothing, not a state dict"),
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({"weight": torch.ones(1), "epoch": 3}, "no plain state dict: epoch is a int"),
        ({"weight": torch.eye(3).to_sparse()}, "no plain state dict: weight is a sparse or quantized tensor"),
        ({3: torch.ones(1)}, "no plain state dict: 3 is a tensor without a name"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CompressError, match=said):
        read_state_dict(tmp_path / "weights.pth")


def test_matching_gives_the_tensors_in_the_networks_order_and_types():
    state = {name: tensor.double() for name, tensor in reversed(network().state_dict().items())}
    state = {name: tensor.long() if name.endswith("tracked") else tensor for name, tensor in state.items()}
    matched = match(state, network(), "it")
    own = network().state_dict()
    assert list(matched) == list(own)
    assert all(matched[name].dtype == own[name].dtype for name in own)
    assert all(torch.equal(matched[name].double(), state[name].double()) for name in own)


def test_missing_batch_counters_are_zero():
    state = {
        name: tensor for name, tensor in network().state_dict().items() if not name.endswith("num_batches_tracked")
    }
    assert match(state, network(), "it")["1.num_batches_tracked"] == 0


def test_missing_and_unexpected_tensors_are_listed_with_the_nearest():
    state = network().state_dict()
    state["3.wieght"] = state.pop("3.weight")
    with pytest.raises(CompressError) as caught:
        match(state, network(), "the net")
    assert "do not fit the net" in str(caught.value)
    assert "1 missing: 3.weight (nearest: 3.wieght); 1 unexpected: 3.wieght (nearest: 3.weight)" in str(caught.value)


def test_only_the_first_ten_are_listed_and_the_rest_counted():
    state = network().state_dict() | {f"other{number:02d}": torch.ones(1) for number in range(13)}
    with pytest.raises(CompressError) as caught:
        match(state, network(), "it")
    assert "13 unexpected: other00, " in str(caught.value)
    assert "other09, and 3 more" in str(caught.value)
    assert "other10" not in str(caught.value)


def test_tensors_of_another_shape_or_kind_are_listed():
    state = network().state_dict()
    state["3.weight"], state["3.bias"] = torch.zeros(5, 4), torch.zeros(2, dtype=torch.int8)
    with pytest.raises(CompressError) as caught:
        match(state, network(), "it")
    assert (
        "2 unlike: 3.weight is float32 (5, 4) and not float32 (2, 4), 3.bias is int8 (2,) and not float32 (2,)"
        in str(caught.value)
    )


def test_loading_copies_the_weights_and_passes_over_the_others():
    weights = match(network().state_dict(), network(), "it")
    target = network()
    load(target, weights | {"elsewhere": torch.ones(1)})
    assert same(target.state_dict(), weights)
    target[3].bias.data += 1
    assert not torch.equal(weights["3.bias"], target[3].bias)


def test_sharing_copies_no_parameter_and_every_buffer():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
            self.second = self.first

    source, network = Tied(), Tied()
    weights = {name: tensor + 1 for name, tensor in source.state_dict().items()}
    weights["second.weight"], weights["second.bias"] = weights["first.weight"], weights["first.bias"]
    before = {name: tensor.clone() for name, tensor in weights.items()}
    share(network, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.first.weight.data_ptr() == weights["first.weight"].data_ptr()
    assert network.second.weight is network.first.weight, "what was one parameter is still one"
    network.norm.running_mean.add_(1)
    assert torch.equal(weights["norm.running_mean"], before["norm.running_mean"])
