"""What lies in micrographs and is no particle: ice crystals and the edge of the carbon film.

Everything here is painted as extra scattering, positive, in units of the noise's standard deviation; it comes out dark
in a micrograph as recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class IceBlob:
    """A contaminating ice crystal: an ellipse with a soft border and a fainter rim."""

    x: float
    y: float
    radius: float
    aspect: float
    angle: float
    strength: float

    def depth(self, x: Tensor, y: Tensor) -> Tensor:
        """How far points lie outside the crystal, pixels, roughly; negative inside."""
        u, v = x - self.x, y - self.y
        c, s = np.cos(self.angle), np.sin(self.angle)
        along, across = c * u + s * v, (c * v - s * u) / self.aspect
        return torch.sqrt(along**2 + across**2) - self.radius

    def paint(self, image: Tensor) -> None:
        """Add it to an image ``(h, w)``, in place."""
        reach = int(1.5 * self.radius + 20)
        top, left = max(0, int(self.y) - reach), max(0, int(self.x) - reach)
        part = image[top : max(0, int(self.y) + reach), left : max(0, int(self.x) + reach)]
        y = torch.arange(part.shape[0])[:, None] + top
        x = torch.arange(part.shape[1]) + left
        depth = self.depth(x, y)
        part += self.strength * (torch.sigmoid(-depth / 2) - 0.35 * torch.exp(-(((depth - 5) / 3) ** 2)))


@dataclass
class CarbonEdge:
    """The edge of the carbon film: everything beyond a bent line is darker and rougher, with a bright fringe."""

    angle: float
    offset: float
    bend: float
    strength: float
    texture: float

    def depth(self, x: Tensor, y: Tensor) -> Tensor:
        """Signed distance of points from the edge, pixels, negative on the carbon."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        along = c * y - s * x
        return self.offset + self.bend * torch.sin(along / 150) - (c * x + s * y)

    def paint(self, image: Tensor, rough: Tensor) -> None:
        """Add it to an image ``(h, w)``, in place; `rough` is noise of variance 1 for the film's texture."""
        height, width = image.shape
        depth = self.depth(torch.arange(width) - width / 2, torch.arange(height)[:, None] - height / 2)
        film = torch.sigmoid(-depth / 1.5)
        image += film * (self.strength + self.texture * rough) - self.strength * torch.exp(-(((depth - 5) / 3) ** 2))


def random_ice(
    count: int, height: int, width: int, radii: tuple[float, float], rng: np.random.Generator
) -> list[IceBlob]:
    """Ice crystals at random places; `radii` bound their size in pixels."""
    return [
        IceBlob(
            x=rng.uniform(0, width),
            y=rng.uniform(0, height),
            radius=rng.uniform(*radii),
            aspect=rng.uniform(0.6, 1.0),
            angle=rng.uniform(0, np.pi),
            strength=rng.uniform(1.0, 2.5),
        )
        for _ in range(count)
    ]


def random_carbon(height: int, width: int, rng: np.random.Generator) -> CarbonEdge:
    """A carbon edge that covers some 5 to 20 % of an image."""
    return CarbonEdge(
        angle=rng.uniform(0, 2 * np.pi),
        offset=rng.uniform(0.30, 0.42) * min(height, width),
        bend=0.03 * min(height, width),
        strength=rng.uniform(0.8, 1.4),
        texture=rng.uniform(0.3, 0.6),
    )
