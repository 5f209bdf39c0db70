"""The views that the original recipes train on. They share the particle's noise, unlike those of `views`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from siamese2d_engine.embedding.prepare import to_images
from siamese2d_engine.embedding.views import Views

VIEWS = ("halves", "plain", "noisy", "patches")
# Standard deviation of the noise that is added, that of the image being 1.
NOISE = 0.5
# Of `PatchViews`: shift in pixels, side of the crop, relative contrast, brightness in standard deviations, side of a
# dropped corner as a fraction of the width and how often one is dropped. MiLoPYP names the operations, not all sizes.
PATCH_SHIFT, SMALLEST_CROP, CONTRAST, BRIGHTNESS, CORNER, DROPPED = 1.0, 0.8, 0.2, 0.2, 0.25, 0.5


class ViewMaker(Protocol):
    """What the objectives need; `batch` is a part of what is trained on."""

    def plain(self, batch: Tensor) -> Tensor:
        """What is embedded after the training."""

    def one(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """One random view of each particle."""

    def pair(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two random views of each particle."""


@dataclass(frozen=True)
class PlainViews:
    """The masked images themselves, ``(n, w, w)``, from spectra."""

    mask: Tensor

    def plain(self, spectra: Tensor) -> Tensor:
        """See `ViewMaker`."""
        return to_images(spectra) * self.mask

    def one(self, spectra: Tensor, generator: torch.Generator) -> Tensor:
        """See `ViewMaker`; nothing is drawn."""
        return self.plain(spectra)

    def pair(self, spectra: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `ViewMaker`."""
        return self.one(spectra, generator), self.one(spectra, generator)


class NoisyViews(PlainViews):
    """The images with more Gaussian noise."""

    def one(self, spectra: Tensor, generator: torch.Generator) -> Tensor:
        """See `ViewMaker`."""
        images = to_images(spectra)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + NOISE * noise) * self.mask


class PatchViews(PlainViews):
    """Shifts by about a pixel, quarter turns, mirror images, resized crops, jitter of contrast and brightness, and
    dropped corners (MiLoPYP: Huang, Zhou & Bartesaghi 2024, Nature Methods)."""

    def one(self, spectra: Tensor, generator: torch.Generator) -> Tensor:
        """See `ViewMaker`."""
        images = to_images(spectra)
        n, width, device = len(images), images.shape[-1], images.device

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return (low + (high - low) * torch.rand(*shape, generator=generator)).to(device)

        images = self._cropped(images, uniform(SMALLEST_CROP, 1, n), uniform(-1, 1, n, 2),
                               uniform(-PATCH_SHIFT, PATCH_SHIFT, n, 2))
        turns = torch.randint(4, (n,), generator=generator).to(device)
        turned = torch.stack([images.rot90(k, (-2, -1)) for k in range(4)])
        images = turned[turns, torch.arange(n, device=device)]
        images = torch.where(uniform(0, 1, n, 1, 1) < 0.5, images.flip(-1), images)
        images = images * uniform(1 - CONTRAST, 1 + CONTRAST, n, 1, 1) + uniform(-BRIGHTNESS, BRIGHTNESS, n, 1, 1)
        corner = (uniform(0, CORNER, n, 1, 1) * width).round() * (uniform(0, 1, n, 1, 1) < DROPPED)
        axis = torch.arange(width, device=device)
        outside = (axis[None, :, None] < corner) & (axis[None, None, :] < corner)
        flips = uniform(0, 1, 2, n, 1, 1) < 0.5
        outside = torch.where(flips[0], outside.flip(-1), outside)
        outside = torch.where(flips[1], outside.flip(-2), outside)
        return images * ~outside * self.mask

    def _cropped(self, images: Tensor, side: Tensor, place: Tensor, shift: Tensor) -> Tensor:
        """Squares of relative size `side` ``(n,)`` at relative `place` ``(n, 2)``, moved by `shift` pixels, enlarged to
        the images' size."""
        centre = place * (1 - side[:, None]) + 2 * shift / images.shape[-1]
        zero = torch.zeros_like(side)
        matrix = torch.stack([torch.stack([side, zero, centre[:, 0]], dim=1),
                              torch.stack([zero, side, centre[:, 1]], dim=1)], dim=1)
        grid = torch.nn.functional.affine_grid(matrix, images[:, None].shape, align_corners=False)
        return torch.nn.functional.grid_sample(images[:, None], grid, mode="bilinear", align_corners=False)[:, 0]


class CachedViews:
    """Views of particles whose features are known: ``(n, copies, d)``, the first copy that of the plain image."""

    def plain(self, features: Tensor) -> Tensor:
        """See `ViewMaker`."""
        return features[:, 0]

    def one(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """See `ViewMaker`."""
        copy = torch.randint(features.shape[1], (len(features),), generator=generator).to(features.device)
        return features[torch.arange(len(features), device=features.device), copy]

    def pair(self, features: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """See `ViewMaker`."""
        return self.one(features, generator), self.one(features, generator)


def make_views(name: str, mask: Tensor, shift: float, turn: bool) -> ViewMaker:
    """Views by name.

    Parameters
    ----------
    name
        One of `VIEWS`.
    mask
        ``(w, w)``.
    shift
        Largest random shift, working pixels, and
    turn
        whether to turn and mirror at random: of ``halves`` only, the others are those of their recipes.
    """
    if name == "halves":
        return Views(mask, shift, rotate=turn, mirror=turn)
    return {"plain": PlainViews, "noisy": NoisyViews, "patches": PatchViews}[name](mask)
