import random

import pytest
import torch
from random_cnn import SHAPE, law, random_cnn, unexplained
from torch import nn
from torch.nn import functional as F

from compress import networks
from compress.architecture import Architecture
from compress.errors import CompressError, UsageError
from compress.prune.groups import find_groups, lost, titled
from compress.prune.labels import pairs
from compress.prune.narrow import narrow, remove, size_of


def reasons(network, shape=(3, 8, 8), **options):
    return {refusal.layer: refusal.reason for refusal in find_groups(network, shape, **options)[1]}


def torchvision(name, size=64):
    return networks.create(Architecture("torchvision", name, {"num_classes": 10}, (3, size, size)))


@pytest.mark.parametrize("seed", range(60))
def test_a_random_cnn_without_some_channels_is_the_one_that_does_not_hear_them(seed):
    network = random_cnn(seed)
    groups, refusals = find_groups(network, SHAPE)
    assert groups, "silently left unpruned"
    assert not unexplained(network, groups, refusals)

    draw = random.Random(seed)
    going = lost({group: draw.sample(range(group.channels), draw.randrange(group.channels)) for group in groups})
    difference, allowed, change = law(network, remove(network, going), going, seed)
    assert difference <= allowed
    assert change > 100 * allowed, "nothing was removed, so nothing was shown"


@pytest.mark.parametrize("seed", range(0, 60, 6))
def test_widths_and_weights_alone_rebuild_a_random_cnn_bit_for_bit(seed):
    network = random_cnn(seed)
    groups, _ = find_groups(network, SHAPE)
    going = lost({group: range(group.channels // 2) for group in groups})
    narrowed = remove(network, going)
    rebuilt = narrow(random_cnn(seed), {layer: size_of(narrowed.get_submodule(layer)) for layer in going})
    rebuilt.load_state_dict(narrowed.state_dict())
    images = torch.rand(2, *SHAPE)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), narrowed(images))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_groups_are_those_of_torch_pruning_where_that_can_follow(name):
    pruning = pytest.importorskip("torch_pruning")
    network = torchvision(name)
    names = {layer: name for name, layer in network.named_modules()}
    graph = pruning.DependencyGraph().build_dependency(network, torch.rand(1, 3, 64, 64), verbose=False)
    groups, refusals = find_groups(network, (3, 64, 64))
    assert [refusal.reason for refusal in refusals] == ["they are the network's answers"]
    for group in groups:
        root = network.get_submodule(group.name)
        theirs = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, [1])
        found = {
            (names[item.dep.target.module], *sorted(item.idxs)) for item in theirs if item.dep.target.module in names
        }
        assert found == {(member.layer, *member.places[1]) for member in group.members}


@pytest.mark.parametrize(
    ("name", "groups", "fixed"),
    [("densenet121", 120, 1), ("googlenet", 57, 1), ("regnet_y_400mf", 37, 1), ("shufflenet_v2_x1_0", 18, 22)],
)
def test_hard_families_are_followed(name, groups, fixed):
    found, refusals = find_groups(torchvision(name), (3, 64, 64))
    assert (len(found), len(refusals)) == (groups, fixed)


def test_inner_channels_of_a_cifar_resnet_can_go_and_padded_shortcuts_say_why_not():
    network = networks.create(Architecture("compress", "resnet20", {"num_classes": 10}, (3, 32, 32)))
    groups, refusals = find_groups(network, (3, 32, 32))
    assert [group.name for group in groups] == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    why = {refusal.layer: refusal.reason for refusal in refusals}
    assert "constant_pad_nd" in why["conv1"]
    assert why["linear"] == "they are the network's answers"
    assert len(why) == 11


class Net(nn.Module):
    """Two convolutions and a linear layer around `between`, which stands for anything a user may write."""

    def __init__(self, between=F.relu, second=8):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(second, 8, 3, padding=1)
        self.linear = nn.Linear(8, 4)
        self.between = between

    def forward(self, x):
        return self.linear(F.relu(self.second(self.between(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("between", "words"),
    [
        (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1))[:, 1:-1], "counts on their number, in a call of 'constant_pad_nd'"),
        (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), "in a call of 'split'"),
        (lambda x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8), "in a call of 'view'"),
        (lambda x: F.layer_norm(x, x.shape[1:]), "in a call of 'native_layer_norm'"),
        (lambda x: x * x.mean(1, keepdim=True), "in a call of 'mean'"),
        (lambda x: x.softmax(1), "in a call of '_softmax'"),
        (lambda x: x * torch.arange(8.0).view(1, 8, 1, 1), "a constant of the forward pass is combined with them"),
        (lambda x: torch.where(torch.tensor(x.shape[1] == 8), x, 2 * x), "depends on how many channels it has"),
        (lambda x: x if x.shape[1] == 8 else x.cuda_or_else(), "fails without some of its channels: AttributeError"),
    ],
)
def test_what_cannot_be_followed_or_breaks_the_law_is_refused_by_name(between, words):
    why = reasons(Net(between))
    assert words in why["first"]
    assert "second" not in why, "only what is in the way is refused"


def test_one_channel_and_channels_normalised_together_stay():
    assert reasons(Net(nn.GroupNorm(1, 8)))["first"] == "all its channels go together, so none can"
    network = Net(lambda x: x * torch.sigmoid(x[:, :1]))
    assert "'slice'" in reasons(network)["first"]


def test_the_images_channels_stay():
    network = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(96, 4))
    assert reasons(network)["0"] == "they are the network's inputs"


@pytest.mark.parametrize(
    "between",
    [nn.ZeroPad2d(1), nn.ConstantPad2d((1, 0, 2, 0), 0.5), nn.ReflectionPad2d(1), nn.ReplicationPad2d((1, 2, 0, 0))],
)
def test_padding_the_image_moves_no_channel(between):
    assert "first" not in reasons(Net(between))


class Tied(nn.Module):
    """Convolutions of their own around two that share their filters."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.last = (nn.Conv2d(size, 8, 3, padding=1) for size in (3, 8, 8, 8))
        self.third.weight = self.second.weight
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        for layer in (self.first, self.second, self.third, self.last):
            x = F.relu(layer(x))
        return self.linear(x.mean((2, 3)))


def test_layers_that_share_their_weights_keep_their_channels_and_what_the_others_have_can_go():
    groups, _ = find_groups(Tied(), (3, 8, 8))
    assert [group.name for group in groups] == ["last"]
    why = reasons(Tied())
    assert why["second"] == "second shares its weight with third"
    assert why["first"] == "second shares its weight with third"


class Scaled(nn.Module):
    """A parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        return x * self.scale


def test_a_bare_parameter_is_named():
    assert reasons(Net(Scaled()))["first"] == "between.scale, a bare parameter, is combined with them"


class Auxiliary(Net):
    """A second classifier that only training uses."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout2d(), nn.Flatten(), nn.Linear(512, 4))

    def forward(self, x):
        middle = self.first(x)
        answer = self.linear(F.relu(self.second(F.relu(middle))).mean((2, 3)))
        return (answer, self.head(middle)) if self.training else answer


def test_a_layer_that_only_training_uses_is_narrowed_with_what_it_reads():
    network = Auxiliary().eval()
    groups, refusals = find_groups(network, (3, 8, 8))
    assert {member.layer for member in groups[0].members} == {"first", "second", "head.0"}
    assert {refusal.layer: refusal.reason for refusal in refusals}["head.0"] == "only training uses it"
    narrowed = remove(network, lost({groups[0]: (0, 1, 2)}))
    assert all(answer.shape == (2, 4) for answer in narrowed.train()(torch.rand(2, 3, 8, 8)))


def test_a_network_that_fails_in_training_is_refused_where_training_uses_more_layers():
    network = Auxiliary().eval()
    network.head[3] = nn.Linear(7, 4)
    with pytest.raises(CompressError, match=r"inference never uses head.0, head.3, and training, which may, fails"):
        find_groups(network, (3, 8, 8))


def test_layers_that_are_never_called_say_so():
    network = Net()
    network.unused = nn.Linear(3, 3)
    assert reasons(network)["unused"] == "the forward pass never calls it"


def test_excluded_layers_stay_as_they_are():
    network = torchvision("resnet18")
    groups, refusals = find_groups(network, (3, 64, 64), exclude=("layer1", "layer2.0.conv1"))
    touched = {member.layer for group in groups for member in group.members}
    assert not any(layer.startswith("layer1") or layer == "layer2.0.conv1" for layer in touched)
    assert {refusal.layer: refusal.reason for refusal in refusals}["layer1.0.conv1"] == "layer1.0.conv1 was excluded"
    with pytest.raises(UsageError, match=r"unknown layer 'layer2\.0\.conv'"):
        find_groups(network, (3, 64, 64), exclude=("layer2.0.conv",))


def test_a_network_for_other_images_is_refused():
    with pytest.raises(CompressError, match=r"cannot answer an image of \(1, 8, 8\)"):
        find_groups(Net(), (1, 8, 8))


def test_a_network_for_large_images_is_followed_on_small_ones_where_it_can_answer_them():
    sizes = []
    network = Net(lambda x: F.relu(x) if sizes.append(x.shape[-1]) is None else x)
    groups, _ = find_groups(network, (3, 224, 224))
    assert set(sizes) == {56}
    assert groups == find_groups(network, (3, 8, 8))[0]
    fixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 63 * 63, 4))
    (group,), _ = find_groups(fixed, (3, 128, 128))
    assert group.members[1].places[2] == tuple(range(2 * 63 * 63, 3 * 63 * 63))


def test_flattened_and_concatenated_channels_are_found_where_they_went():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 4))
    (group,), _ = find_groups(network, (3, 8, 8))
    assert group.members[1].places[2] == tuple(range(18, 27))
    network = Net(second=16)
    network.between = lambda x: torch.cat([F.relu(x), torch.tanh(x)], 1)
    groups, _ = find_groups(network, (3, 8, 8))
    assert groups[0].members[1].places[2] == (2, 10)


def test_finding_groups_leaves_the_network_and_chance_as_they_were():
    network = random_cnn(5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.random.get_rng_state()
    assert find_groups(network, SHAPE) == find_groups(network, SHAPE)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_network_without_layers_has_no_groups():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x.mean((2, 3)) * self.scale

    assert find_groups(Scaled(), (3, 8, 8)) == ((), ())


def test_labels_that_meet_are_a_pair_once():
    met = pairs(torch.tensor([3, 1, 3, 0]), torch.tensor([5, 2, 5, 9]))
    assert met.tolist() == [[0, 1, 3], [9, 2, 5]]


class Parts(nn.Module):
    """A convolution to whose channels those of three others are added, a third each."""

    def __init__(self):
        super().__init__()
        self.whole = nn.Conv2d(3, 12, 3, padding=1)
        self.parts = nn.ModuleList(nn.Conv2d(3, 4, 3, padding=1) for _ in range(3))
        self.read = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.linear = nn.Linear(24, 4)

    def forward(self, x):
        whole, answers = self.whole(x), [part(x) for part in self.parts]
        read = [layer(answer) for layer, answer in zip(self.read, answers, strict=True)]
        return self.linear(torch.cat([F.relu(whole + torch.cat(answers, 1)), *read], 1).mean((2, 3)))


def test_the_groups_of_one_layer_keep_their_titles_whatever_is_excluded():
    every, _ = find_groups(Parts(), (3, 8, 8))
    some, _ = find_groups(Parts(), (3, 8, 8), exclude=("parts.1",))
    titles = [title for title in titled(every) if title.startswith("whole")]
    assert titles == ["whole (from 0)", "whole (from 4)", "whole (from 8)"]
    assert [title for title in titled(some) if title.startswith("whole")] == ["whole (from 0)", "whole (from 8)"]
    assert titled(some)["whole (from 8)"] == titled(every)["whole (from 8)"]
