import copy

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import UsageError
from compress.prune.recalibrate import batch_norms, recalibrate


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 3)
    )


def test_statistics_become_those_of_what_reaches_the_batch_norm():
    net, images = network(), torch.rand(64, 3, 8, 8)
    recalibrate(net, images.split(16))
    with torch.no_grad():
        reaching = [net[0](part) for part in images.split(16)]
    assert torch.allclose(
        net[1].running_mean, torch.stack([part.mean((0, 2, 3)) for part in reaching]).mean(0), atol=1e-6
    )
    assert torch.allclose(
        net[1].running_var, torch.stack([part.var((0, 2, 3)) for part in reaching]).mean(0), rtol=1e-5
    )
    assert (net[1].momentum, net.training, net[3].training) == (0.3, False, False)


def test_what_the_statistics_were_before_does_not_matter():
    images = torch.rand(32, 3, 8, 8)
    one, other = network(), network()
    other[1].running_mean.fill_(7)
    recalibrate(one, images.split(8))
    recalibrate(other, images.split(8))
    assert torch.equal(one[1].running_mean, other[1].running_mean)
    other[1].running_mean.mul_(1.01)
    assert not torch.allclose(one[1].running_mean, other[1].running_mean)


def test_only_statistics_change_and_only_one_pass_is_made():
    net = network()
    before = copy.deepcopy(net.state_dict())
    recalibrate(net, iter([torch.rand(8, 3, 8, 8)]))
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_one_image_is_too_few_for_a_batch_norm_of_single_values_and_enough_for_one_of_maps():
    recalibrate(network(), [torch.rand(1, 3, 8, 8)])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
    with pytest.raises(UsageError, match=r"measured on one image, .*: give `images` of two at least"):
        recalibrate(flat, [torch.rand(1, 3, 2, 2)])
    recalibrate(flat, [torch.rand(2, 3, 2, 2)])


def test_batch_norms_without_statistics_are_left_out():
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3))
    assert batch_norms(net) == [net[1]]


@pytest.mark.timeout(120)
def test_recalibration_wins_back_accuracy_on_a_trained_network(cifar10, resnet20_weights):
    from safetensors.torch import load_file

    from compress import networks
    from compress.architecture import Architecture
    from compress.pipeline import Resources
    from compress.prune.allocation import lowest
    from compress.prune.criteria import score_groups
    from compress.prune.groups import find_groups, lost
    from compress.prune.narrow import remove

    dense = networks.create(Architecture("compress", "resnet20", {"num_classes": 10}, (3, 32, 32)))
    dense.load_state_dict(load_file(resnet20_weights), strict=False)
    arrays = np.load(cifar10)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = (torch.tensor(arrays["train_images"][:1024]).permute(0, 3, 1, 2) / 255 - mean) / std
    labels = torch.tensor(arrays["train_labels"][512:1024].astype(np.int64))
    groups, _ = find_groups(dense, (3, 32, 32))
    scores, _ = score_groups(dense, groups, "l2", Resources())
    plain = remove(dense, lost(lowest(scores, {group: group.channels // 2 for group in groups})))
    recalibrated = copy.deepcopy(plain)
    recalibrate(recalibrated, images[:512].split(128))

    def top1(net):
        with torch.no_grad():
            return (net(images[512:]).argmax(1) == labels).float().mean().item()

    assert top1(dense) > 0.98
    assert top1(recalibrated) > top1(plain) + 0.2
