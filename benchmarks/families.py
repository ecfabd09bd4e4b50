"""The families of CNNs that the other scripts go through, with images and weights for those that come without."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress import storage
from compress.build import build
from compress.checkpoint import Checkpoint
from compress.data.load import load
from compress.data.splits import Data
from compress.prune.recalibrate import batch_norms, recalibrate

TORCHVISION = (
    *("alexnet", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121"),
    *("googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x1_0"),
    *("squeezenet1_1", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"),
    "convnext_tiny",
)
TIMM = (
    *("resnetv2_50", "repvgg_a0", "ghostnet_100", "hrnet_w18_small", "darknet53", "cspresnet50", "dla34"),
    *("tf_mixnet_s", "res2net50_26w_4s", "vovnet39a"),
)
NETWORKS = [*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM)]
IMAGES, CLASSES = 160, 4


def blotches(keep: Path, side: int) -> Data:
    """Images of coloured blotches, each class a pattern of its own under noise, written once."""
    path = storage.folder(keep) / f"blotches-{side}.npz"
    if not path.exists():
        draw, labels = torch.Generator().manual_seed(0), np.arange(IMAGES) % CLASSES
        patterns, noise = (torch.rand(many, 3, 7, 7, generator=draw) for many in (CLASSES, IMAGES))
        coarse = (2 * patterns[labels] + noise) / 3
        images = (nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255).byte()
        arrays = {"images": images.movedim(1, 3).numpy(), "labels": labels}
        np.savez(path, **{f"{part}_{name}": array for part in ("train", "test") for name, array in arrays.items()})
    return load(f"npz:{path}")


def lively(start: Checkpoint, images: Tensor, labels: Tensor) -> Checkpoint:
    """Random weights of which every layer's signal is of order one, and a classifier that tells the images apart.

    Batch norms shift by one (RepVGG's by a third, for three of them are added up before each ReLU), so that most of a signal passes the ReLU behind. Without, random layers one upon the other
    are chaotic: fifty of them make a rounded last digit into other answers, which no trained network does.
    (Yang et al., https://arxiv.org/abs/1902.08129.)
    """
    network = build(start)
    with torch.no_grad():
        for norm in batch_norms(network):
            norm.bias.fill_(1 / 3 if "repvgg" in start.architecture.name else 1.0)
        if not batch_norms(network):
            draw = torch.Generator().manual_seed(0)
            for module in network.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=draw)
        for name, parameter in network.named_parameters():
            if name.endswith(("layer_scale", "gamma")):  # made to begin near zero
                parameter.fill_(0.3)
        recalibrate(network, images.split(32))
    return with_classifier(dataclasses.replace(start, weights=network.state_dict()), images, labels)


def with_classifier(start: Checkpoint, images: Tensor, labels: Tensor) -> Checkpoint:
    """Its last layer solved by ridge least squares for the images (N, C, H, W): 1 for the class (N), 0 for others."""
    network, heard = build(start), []
    last = [module for module in network.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    last.register_forward_pre_hook(lambda _, given: heard.append(given[0].detach()))
    with torch.no_grad():
        network(images)
        features = heard[0].flatten(2).mean(2) if heard[0].dim() > 2 else heard[0]
        centre = features.mean(0)
        inputs, wanted = (features - centre).double(), nn.functional.one_hot(labels, CLASSES).double()
        products = inputs @ inputs.T
        ridge = 1e-2 * products.diagonal().mean() * torch.eye(len(inputs), dtype=torch.float64)
        weight = (wanted - wanted.mean(0)).T @ torch.linalg.solve(products + ridge, inputs)
        last.weight.copy_(weight.reshape(last.weight.shape))
        if last.bias is not None:
            last.bias.copy_(wanted.mean(0) - weight @ centre.double())
    return dataclasses.replace(start, weights=network.state_dict())
