"""Random small CNNs, drawn from a seed: every way of joining layers that pruning has to follow."""

import random

import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.outputs = draw.choice([5, 7, 8, 12, 16, 19])
        self.conv = nn.Conv2d(inputs, self.outputs, draw.choice([1, 3]), padding="same", bias=draw.random() < 0.5)
        self.norm = draw.choice(
            [nn.BatchNorm2d, nn.Identity, lambda n: nn.InstanceNorm2d(n, affine=True), lambda n: nn.GroupNorm(n, n)]
        )(self.outputs)
        self.activation = draw.choice(
            [nn.ReLU(inplace=True), nn.SiLU(), nn.Hardswish(), nn.PReLU(self.outputs), nn.PReLU(), nn.Sigmoid()]
        )

    def forward(self, x):
        return self.activation(self.norm(self.conv(x)))


class Blocky(nn.Module):
    """Layers that work on channels in blocks: grouped and depthwise convolutions of any multiplier, a group norm."""

    def __init__(self, draw, inputs):
        super().__init__()
        blocks = draw.choice([n for n in range(1, inputs + 1) if inputs % n == 0])
        self.outputs = blocks * draw.choice([1, 2, 3])
        self.conv = nn.Conv2d(inputs, self.outputs, 3, padding=1, groups=blocks)
        self.norm = nn.GroupNorm(
            draw.choice([n for n in range(1, self.outputs + 1) if self.outputs % n == 0]), self.outputs
        )

    def forward(self, x):
        return F.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """A shortcut, as it is or through a convolution, around two or three layers."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.first = Plain(draw, inputs)
        self.middle = draw.choice([Blocky, Plain])(draw, self.first.outputs)
        self.outputs = draw.choice([inputs, 8, 11])
        self.last = nn.Conv2d(self.middle.outputs, self.outputs, 1)
        self.shortcut = nn.Identity() if self.outputs == inputs else nn.Conv2d(inputs, self.outputs, 1, bias=False)

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.last(self.middle(self.first(x))))


class Concatenated(nn.Module):
    """Branches side by side, the input among them, then a norm over all."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.branches = nn.ModuleList(draw.choice([Plain, Blocky])(draw, inputs) for _ in range(draw.choice([1, 2])))
        self.outputs = inputs + sum(branch.outputs for branch in self.branches)
        self.norm = nn.BatchNorm2d(self.outputs)

    def forward(self, x):
        return self.norm(torch.cat([*(branch(x) for branch in self.branches), x], 1))


class Gated(nn.Module):
    """Squeeze and excitation, and a map of the image that multiplies every channel."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.outputs = inputs
        self.down, self.up = nn.Linear(inputs, 6), nn.Linear(6, inputs)
        self.where = nn.Conv2d(inputs, 1, 1)

    def forward(self, x):
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return x * gate[:, :, None, None] * torch.sigmoid(self.where(x))


class Shuffled(nn.Module):
    """Half the channels pass by, the others are worked on, and all are shuffled: their number is fixed by the code."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.into = nn.Conv2d(inputs, 8, 1)
        self.inner = Plain(draw, 4)
        self.back = nn.Conv2d(self.inner.outputs, 4, 1)
        self.outputs = 8

    def forward(self, x):
        left, right = self.into(x).chunk(2, 1)
        x = torch.cat([left, self.back(self.inner(right))], 1)
        return x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


class Padded(nn.Module):
    """A shortcut padded with zeros (option A), and a bare parameter on every channel."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.inner = Plain(draw, inputs)
        self.outputs = inputs + 4
        self.back = nn.Conv2d(self.inner.outputs, self.outputs, 3, padding=1)
        self.scale = nn.Parameter(torch.rand(self.outputs, 1, 1))

    def forward(self, x):
        return F.pad(x, (0, 0, 0, 0, 2, 2)) + self.scale * self.back(self.inner(x))


class Resized(nn.Module):
    """Down by pooling, up by a transposed convolution, whose channels may come in blocks, or by interpolation."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.first = Plain(draw, inputs)
        blocks = draw.choice([n for n in range(1, self.first.outputs + 1) if self.first.outputs % n == 0])
        self.outputs = blocks * draw.choice([1, 2])
        self.up = nn.ConvTranspose2d(self.first.outputs, self.outputs, 2, 2, groups=blocks)
        self.interpolate = draw.random() < 0.5

    def forward(self, x):
        x = F.max_pool2d(self.first(x), 2)
        return self.up(x) if not self.interpolate else F.avg_pool2d(self.up(F.interpolate(x, scale_factor=2.0)), 2)


class RandomCnn(nn.Module):
    """Three to five blocks and a head: pooled, flattened, or a convolution over classes."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)
        first = Blocky(draw, 3) if draw.random() < 0.2 else Plain(draw, 3)
        kinds = [Plain, Blocky, Residual, Concatenated, Gated, Shuffled, Padded, Resized]
        blocks = [first]
        for _ in range(draw.choice([2, 3, 4])):
            blocks.append(draw.choice(kinds)(draw, blocks[-1].outputs))
        blocks.append(Plain(draw, blocks[-1].outputs))
        self.blocks = nn.Sequential(*blocks)
        self.head = draw.choice(["pool", "flatten", "convolution"])
        if self.head == "convolution":
            self.classifier = nn.Conv2d(blocks[-1].outputs, 5, 1)
        else:
            self.classifier = nn.Linear(blocks[-1].outputs * (16 if self.head == "flatten" else 1), 5)

    def forward(self, x):
        x = self.blocks(x)
        if self.head == "convolution":
            return self.classifier(x).mean((2, 3))
        x = F.adaptive_avg_pool2d(x, 4 if self.head == "flatten" else 1)
        return self.classifier(torch.flatten(x, 1))


def random_cnn(seed):
    """The network of a seed, in inference mode, with the weights and norm statistics of that seed too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = RandomCnn(seed).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return network
