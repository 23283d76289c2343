"""Pictures as they might be met elsewhere: placed, coloured, drawn and lit differently. On whole batches."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from .architecture import MEAN, STD

LUMA = (0.299, 0.587, 0.114)


def augment(pictures: torch.Tensor, may_flip: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """(B, 4, H, W) uint8 RGBA -> (B, 3, H, W) float32, normalised."""
    x = pictures.float().div_(255)
    x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], 1)  # premultiplied: interpolation keeps edges clean
    x = _placed(x, may_flip, rng)
    x = torch.cat([_recoloured(x, rng), x[:, 3:]], 1)
    x = _over_background(x, rng)
    x = _drawn(x, rng)
    x = _blurred(x, rng)
    return normalised(x)


def on_white(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 4, H, W) uint8 RGBA -> the same over white, normalised: how the model is tested."""
    x = pictures.float() / 255
    return normalised(x[:, :3] * x[:, 3:] + 1 - x[:, 3:])


def normalised(x: torch.Tensor) -> torch.Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _uniform(rng: torch.Generator, n: int, low: float, high: float) -> torch.Tensor:
    return torch.rand(n, generator=rng) * (high - low) + low


def _chosen(rng: torch.Generator, n: int, share: float) -> torch.Tensor:
    return torch.rand(n, generator=rng) < share


def _placed(x: torch.Tensor, may_flip: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Turned by up to 25 degrees, scaled, squeezed, sheared, shifted, mirrored."""
    n = len(x)
    angle = _uniform(rng, n, -1, 1).pow(3) * math.radians(25)
    zoom, squeeze = _uniform(rng, n, 0.85, 1.35), _uniform(rng, n, 0.88, 1.12)
    shear = _uniform(rng, n, -0.12, 0.12)
    mirror = torch.where(_chosen(rng, n, 0.5) & may_flip, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    grid = torch.stack(
        [
            torch.stack([cos * squeeze * mirror, -sin + shear, _uniform(rng, n, -0.2, 0.2)], 1),
            torch.stack([sin * mirror, cos / squeeze, _uniform(rng, n, -0.2, 0.2)], 1),
        ],
        1,
    )
    return functional.grid_sample(
        x, functional.affine_grid(grid, list(x.shape), align_corners=False), align_corners=False
    )


def _recoloured(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Hue, saturation, brightness, contrast as one linear map a picture; premultiplied colours."""
    n, luma = len(x), torch.tensor(LUMA)
    hue = torch.randn(n, generator=rng) * 0.25
    hue = torch.where(_chosen(rng, n, 0.12), _uniform(rng, n, -math.pi, math.pi), hue)
    saturation = _uniform(rng, n, 0.4, 1.5)
    saturation = torch.where(_chosen(rng, n, 0.12), torch.zeros(n), saturation)
    # Rotation about the grey axis, then towards or away from grey.
    axis, eye = torch.full((3, 3), 1 / 3), torch.eye(3)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    c, s = hue.cos().view(n, 1, 1), hue.sin().view(n, 1, 1)
    rotation = c * eye + (1 - c) * axis + s * cross
    grey = luma.expand(3, 3)
    k = saturation.view(n, 1, 1)
    matrix = (k * eye + (1 - k) * grey) @ rotation
    contrast = _uniform(rng, n, 0.7, 1.3).view(n, 1, 1)
    brightness = (_uniform(rng, n, -0.15, 0.15).view(n, 1, 1) + 0.5 * (1 - contrast)).unsqueeze(-1)
    colours = torch.einsum("nij,njhw->nihw", matrix * contrast, x[:, :3]) + brightness * x[:, 3:]
    return torch.minimum(colours.clamp_(min=0), x[:, 3:])


def _over_background(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """White mostly, else one colour, else two that run into each other."""
    n, _, height, width = x.shape
    first, second = torch.rand(2, n, 3, 1, 1, generator=rng)
    ramp = torch.linspace(0, 1, width).view(1, 1, 1, width)
    across = first * (1 - ramp) + second * ramp
    across = torch.where(_chosen(rng, n, 0.5).view(n, 1, 1, 1), across, across.transpose(2, 3))
    plain = _chosen(rng, n, 0.65).view(n, 1, 1, 1)
    background = torch.where(plain, first.expand_as(across), across.expand(n, 3, height, width))
    background = torch.where(_chosen(rng, n, 0.55).view(n, 1, 1, 1), torch.ones(1), background)
    return x[:, :3] + background * (1 - x[:, 3:])


def _drawn(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Some as outlines, some in two tones: style taken away, the shape left."""
    luma = torch.tensor(LUMA).view(1, 3, 1, 1)
    kind = torch.rand(len(x), generator=rng)
    outlined = (kind < 0.10).nonzero()[:, 0]
    if len(outlined):
        part = x[outlined]
        across = functional.pad((part[..., 1:] - part[..., :-1]).abs().amax(1, True), (0, 1))
        down = functional.pad((part[..., 1:, :] - part[..., :-1, :]).abs().amax(1, True), (0, 0, 0, 1))
        edges = functional.max_pool2d(torch.maximum(across, down), 2, 1)
        edges = functional.pad(edges, (0, 1, 0, 1)) * _uniform(rng, len(part), 1.5, 6).view(-1, 1, 1, 1)
        x[outlined] = (1 - edges.clamp(0, 1)).expand(-1, 3, -1, -1)
    toned = ((kind > 0.10) & (kind < 0.16)).nonzero()[:, 0]
    if len(toned):
        grey = (x[toned] * luma).sum(1, True)
        x[toned] = torch.sigmoid((grey - grey.mean((2, 3), True)) * 25).expand(-1, 3, -1, -1)
    inverted = ((kind > 0.07) & (kind < 0.13)).view(-1, 1, 1, 1)  # half of the outlines, half of the tones
    return torch.where(inverted & _chosen(rng, len(x), 0.5).view(-1, 1, 1, 1), 1 - x, x)


def _blurred(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    soft = _chosen(rng, len(x), 0.15).nonzero()[:, 0]
    if len(soft):
        x[soft] = functional.avg_pool2d(functional.pad(x[soft], (1, 1, 1, 1), mode="replicate"), 3, 1)
    noisy = _chosen(rng, len(x), 0.1).nonzero()[:, 0]
    if len(noisy):
        x[noisy] = (x[noisy] + torch.randn(x[noisy].shape, generator=rng) * 0.05).clamp_(0, 1)
    return x
