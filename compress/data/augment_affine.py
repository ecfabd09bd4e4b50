"""Training images turned, moved, sheared and resized, each by its own draw."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def affine(
    images: Tensor, generator: Generator, rotation: float, translation: float, shear: float, scaling: float
) -> Tensor:
    """Warp each image by chance: up to `rotation` degrees, `translation` of its size, `shear` degrees, 1 +- `scaling`."""
    angle, x, y, across, along, size = 2 * torch.rand(6, len(images), generator=generator) - 1
    height, width = images.shape[2:]
    shift = torch.stack([x * translation * width, y * translation * height], 1)
    return warp(images, angle * rotation, shift, 1 + size * scaling, shear * torch.stack([across, along], 1))


def warp(images: Tensor, angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Rotate, shear and scale about the centre, then move; as torchvision's `affine`, with one draw for each image.

    An output pixel p shows the input at M^-1 (p - shift), between four pixels linearly, black from outside;
    M = scale R(angle) Y(shear_y) X(shear_x), in pixels from the centre. `angle` (N,) and `shear` (N, 2) are
    in degrees, `shift` (N, 2) in pixels (x, y), `scale` (N,) a factor.
    """
    turned, (across, along) = angle.deg2rad(), shear.deg2rad().unbind(1)
    one, zero = torch.ones_like(turned), torch.zeros_like(turned)
    rotate = _matrices(turned.cos(), -turned.sin(), turned.sin(), turned.cos())
    matrix = (
        scale[:, None, None]
        * rotate
        @ _matrices(one, zero, -along.tan(), one)
        @ _matrices(one, -across.tan(), zero, one)
    )
    back = torch.linalg.inv(matrix)
    # affine_grid counts from -1 to 1 along each side, not in pixels
    sides = torch.tensor([images.shape[3], images.shape[2]]) / 2
    theta = torch.cat([back * sides / sides[:, None], -(back @ shift[:, :, None]) / sides[:, None]], 2)
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round_().to(torch.uint8)


def _matrices(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[[a, b], [c, d]] for each image: (N, 2, 2)."""
    return torch.stack([a, b, c, d], 1).reshape(-1, 2, 2)
