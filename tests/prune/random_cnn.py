"""Random small CNNs, drawn from a seed: every way of joining layers that pruning has to follow, and the law it keeps."""

import random
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from compress.prune.masks import mask
from compress.prune.narrow import layout_of, per_channel

SHAPE = (3, 12, 12)


class Plain(nn.Module):
    """Convolution, norm, activation."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.outputs = draw.choice([5, 7, 8, 12, 16, 19])
        self.conv = nn.Conv2d(
            inputs,
            self.outputs,
            draw.choice([1, 3]),
            padding="same",
            dilation=draw.choice([1, 1, 2]),
            bias=draw.random() < 0.5,
            padding_mode=draw.choice(["zeros", "zeros", "reflect"]),
        )
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
    """A shortcut, as it is, pooled, normed, or through a convolution, around two or three layers."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.first = Plain(draw, inputs)
        self.middle = draw.choice([Blocky, Plain])(draw, self.first.outputs)
        self.outputs = draw.choice([inputs, 8, 11])
        self.last = nn.Conv2d(self.middle.outputs, self.outputs, 1)
        straight = draw.choice([nn.Identity(), nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(inputs), nn.PReLU(inputs)])
        self.shortcut = straight if self.outputs == inputs else nn.Conv2d(inputs, self.outputs, 1, bias=False)

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
    """Squeeze and excitation, by linear layers or convolutions, and a map of the image that multiplies every channel."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.outputs = inputs
        self.flat = draw.random() < 0.5
        layer = nn.Linear if self.flat else partial(nn.Conv2d, kernel_size=1)
        self.down, self.up = layer(inputs, 6), layer(6, inputs)
        self.where = nn.Conv2d(inputs, 1, 1)

    def forward(self, x):
        squeezed = x.mean((2, 3)) if self.flat else F.adaptive_avg_pool2d(x, 1)
        gate = torch.sigmoid(self.up(F.relu(self.down(squeezed))))
        return x * (gate[:, :, None, None] if self.flat else gate) * torch.sigmoid(self.where(x))


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


class Split(nn.Module):
    """One convolution whose answer is cut in two: half gates the other (GLU), or the halves go different ways."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.outputs = draw.choice([4, 7])
        self.both = nn.Conv2d(inputs, 2 * self.outputs, 3, padding=1)
        self.glu = draw.random() < 0.5
        self.further = nn.Conv2d(self.outputs, self.outputs, 1)

    def forward(self, x):
        if self.glu:
            return F.glu(self.both(x), 1)
        left, right = torch.split(self.both(x), self.outputs, 1)
        return F.relu(left) + self.further(right)


class Twice(nn.Module):
    """One convolution used twice in a row, or on two branches that are added or set side by side."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.kind = draw.choice(["row", "added", "beside"])
        self.other = Plain(draw, inputs)
        self.equal = nn.Conv2d(self.other.outputs, inputs, 1)
        self.shared = nn.Conv2d(inputs, inputs if self.kind == "row" else draw.choice([6, 9]), 3, padding=1)
        self.outputs = self.shared.out_channels * (2 if self.kind == "beside" else 1)

    def forward(self, x):
        other = self.equal(self.other(x))
        if self.kind == "row":
            return self.shared(F.relu(self.shared(x))) + other
        sides = F.relu(self.shared(x)), torch.tanh(self.shared(other))
        return torch.cat(sides, 1) if self.kind == "beside" else sides[0] + sides[1]


class ChannelsLast(nn.Module):
    """ConvNeXt's block: depthwise, then a norm over channels and two linear layers on the last axis, scaled and added."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.outputs = inputs
        self.depthwise = nn.Conv2d(inputs, inputs, 5, padding=2, groups=inputs)
        self.norm = draw.choice([nn.LayerNorm, nn.Identity])(inputs)
        self.up, self.down = nn.Linear(inputs, 11), nn.Linear(11, inputs)
        self.scale = nn.Parameter(torch.rand(inputs))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class Strided(nn.Module):
    """Half the size by a stride, beside a pooled shortcut, and sometimes up again through a shuffle of pixels."""

    def __init__(self, draw, inputs):
        super().__init__()
        self.first = Plain(draw, inputs)
        self.outputs = draw.choice([6, 9])
        self.up = draw.random() < 0.5
        width = self.outputs * (4 if self.up else 1)
        self.down = nn.Conv2d(self.first.outputs, width, 3, stride=2, padding=1)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, width, 1))
        self.pixels = nn.PixelShuffle(2) if self.up else nn.Dropout(0.1)

    def forward(self, x):
        return self.pixels(F.relu(self.down(self.first(x)) + self.shortcut(x)))


KINDS = [Plain, Blocky, Residual, Concatenated, Gated, Shuffled, Padded, Resized, Split, Twice, ChannelsLast, Strided]


class RandomCnn(nn.Module):
    """Four to six blocks and a head: pooled, flattened, with a hidden layer, or a convolution over classes."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)
        blocks = [Blocky(draw, 3) if draw.random() < 0.2 else Plain(draw, 3)]
        left = list(KINDS)
        for _ in range(draw.choice([2, 3, 4])):
            kind = draw.choice(left)
            blocks.append(kind(draw, blocks[-1].outputs))
            if kind is Strided:  # once is enough for these small images
                left.remove(kind)
        blocks.append(Plain(draw, blocks[-1].outputs))
        self.blocks = nn.Sequential(*blocks)
        self.head = draw.choice(["pool", "flatten", "hidden", "convolution"])
        width = blocks[-1].outputs
        if self.head == "convolution":
            self.classifier = nn.Conv2d(width, 5, 1)
        elif self.head == "hidden":
            self.classifier = nn.Sequential(nn.Linear(width, 10), nn.ReLU(), nn.Dropout(0.1), nn.Linear(10, 5))
        else:
            self.classifier = nn.Linear(width * (16 if self.head == "flatten" else 1), 5)

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


def makers(network):
    """The layers that make channels of their own."""
    return {name for name, layer in network.named_modules() if (layout := layout_of(layer)) and not per_channel(layout)}


def unexplained(network, groups, refusals):
    """The layers that make channels of which none can go, and of which nothing says why."""
    narrowed = {member.layer for group in groups for member in group.members if member.side == "outputs"}
    return makers(network) - narrowed - {refusal.layer for refusal in refusals}


@torch.no_grad()
def law(network, narrowed, going, seed):
    """How far a network without the channels that are `going` is from the one that does not hear them, and two scales.

    Returns the largest difference of their logits in float64, the largest that rounding allows, and what the
    channels change at all: where that is no more, nothing was shown.
    """
    images = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    network = network.double()
    full, masked, found = network(images), mask(network, going)(images), narrowed.double()(images)
    if found.shape != masked.shape:
        return float("inf"), 0.0, 0.0
    # Sums of at most 10^3 products in at most 20 layers.
    allowed = 20 * 1e3 * 2**-53 * masked.abs().max()
    return float((found - masked).abs().max()), float(allowed), float((full - masked).abs().max())
