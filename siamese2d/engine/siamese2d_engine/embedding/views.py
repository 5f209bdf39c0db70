"""Random views of a particle: what a network must learn to ignore.

Two views of one noisy image share its noise, and a network tells images apart by their noise more easily than by what
they show. So each view keeps a random half of the Fourier coefficients and a pair keeps complementary halves:
stationary noise is then independent between the two, and only the particle is common.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese2d_engine.embedding.centring import shift_spectra
from siamese2d_engine.embedding.prepare import rotate, to_images


@dataclass(frozen=True)
class Views:
    """Draws views from spectra.

    Attributes
    ----------
    mask : Tensor
        ``(w, w)``, applied last.
    shift : float
        Largest random shift along each axis, working pixels.
    rotate, mirror : bool
        Random rotation by any angle, random mirror image. Needless for networks that are invariant by construction.
    """

    mask: Tensor
    shift: float
    rotate: bool
    mirror: bool

    def plain(self, spectra: Tensor) -> Tensor:
        """The masked images themselves, ``(n, w, w)``."""
        return to_images(spectra) * self.mask

    def pair(self, spectra: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views ``(n, w, w)`` of each particle from complementary halves of its spectrum."""
        keep = random_half(spectra, generator)
        return self._view(spectra * keep, generator), self._view(spectra * ~keep, generator)

    def one(self, spectra: Tensor, generator: torch.Generator) -> Tensor:
        """One view ``(n, w, w)`` of each particle, from a random half of its spectrum."""
        return self._view(spectra * random_half(spectra, generator), generator)

    def _view(self, spectra: Tensor, generator: torch.Generator) -> Tensor:
        n, device = len(spectra), spectra.device
        shifts = self.shift * (2 * torch.rand(n, 2, generator=generator) - 1)
        # Half of the coefficients carry half of the variance.
        images = to_images(shift_spectra(spectra, shifts.to(device))) * 2**0.5
        if self.rotate or self.mirror:
            angles = 2 * torch.pi * torch.rand(n, generator=generator) * self.rotate
            flips = (torch.rand(n, generator=generator) < 0.5) & self.mirror
            images = rotate(images, angles.to(device), flips.to(device))
        return images * self.mask


def random_half(spectra: Tensor, generator: torch.Generator) -> Tensor:
    """Random choice ``(n, w, w // 2 + 1)`` of half of the coefficients, the same for the two of a conjugate pair."""
    keep = torch.rand(spectra.shape, generator=generator) < 0.5
    # In column 0 a coefficient and its conjugate are stored both.
    half = spectra.shape[-2] // 2
    keep[:, half + 1:, 0] = keep[:, 1:half, 0].flip(-1)
    return keep.to(spectra.device)
