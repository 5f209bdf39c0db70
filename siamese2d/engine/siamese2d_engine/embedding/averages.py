"""What an aligned classification knows, for a network that places particles without aligning them.

The averages of aligned classes are matched filters: the largest response of an image to them over all rotations and
mirror images tells which average it looks like, and the small shift that raises this response the most is its centre.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamese2d_engine.embedding.centring import shift_spectra
from siamese2d_engine.embedding.prepare import align, soft_mask, to_images
from siamese2d_engine.embedding.steerable import SteerableFilters, coefficients

RINGS, HARMONICS, ANGLES = 12, 14, 32
# Shifts that are tried along each axis, pixels that the network sees.
SHIFTS = (-1.0, 0.0, 1.0)
CHUNK = 512


class AverageCentring(nn.Module):
    """Moves particles, roughly centred before, to where they fit the best of some averages best.

    Parameters
    ----------
    working_box : int
        Width of the images.
    classes : int
        Number of averages.
    """

    def __init__(self, working_box: int, classes: int):
        super().__init__()
        self.filters = SteerableFilters(working_box, RINGS, HARMONICS, classes, ANGLES)

    @property
    def classes(self) -> int:
        """Number of averages."""
        return self.filters.weights.shape[-1]

    def responses(self, images: Tensor) -> Tensor:
        """Largest responses ``(n, classes)`` of images ``(n, w, w)`` over rotations and mirror images."""
        real, imaginary = self.filters.analyse(images)
        return torch.maximum(self.filters(real, imaginary).amax(dim=-1), self.filters(real, -imaginary).amax(dim=-1))

    def centre(self, spectra: Tensor) -> Tensor:
        """Spectra ``(n, w, w // 2 + 1)`` moved by the best of the `SHIFTS` along both axes."""
        with torch.inference_mode():
            return torch.cat([self._centre(chunk) for chunk in spectra.split(CHUNK)]).clone()

    def _centre(self, spectra: Tensor) -> Tensor:
        width = spectra.shape[-2]
        mask = soft_mask(width, width / 2 - 1).to(spectra.device)
        offsets = torch.tensor([(x, y) for x in SHIFTS for y in SHIFTS], device=spectra.device)
        fits = [self.responses(to_images(shift_spectra(spectra, offset.expand(len(spectra), 2))) * mask).amax(dim=1)
                for offset in offsets]
        return shift_spectra(spectra, offsets[torch.stack(fits).argmax(dim=0)])


def average_centring(spectra: Tensor, labels: Tensor, alignment: tuple[Tensor, Tensor, Tensor]) -> AverageCentring:
    """Matched filters from particles and their alignment to their classes.

    Parameters
    ----------
    spectra
        ``(n, w, w // 2 + 1)``.
    labels
        Classes ``(n,)`` from 0, each with members.
    alignment
        Shifts, angles and flips for `align`.
    """
    width, classes = spectra.shape[-2], int(labels.max()) + 1
    centring = AverageCentring(width, classes).to(spectra.device)
    place = labels.to(spectra.device)
    sums = torch.zeros((classes, *spectra.shape[1:]), dtype=spectra.dtype, device=spectra.device)
    for rows in torch.arange(len(spectra)).split(CHUNK):
        sums.index_add_(0, place[rows], align(spectra[rows], *(part[rows].to(spectra.device) for part in alignment)))
    averages = to_images(sums / torch.bincount(place)[:, None, None]) * soft_mask(width, width / 2 - 1).to(place.device)
    weights = coefficients(averages, centring.filters.basis).conj().permute(1, 2, 0)
    weights = torch.stack([weights.real, weights.imag])
    with torch.no_grad():
        centring.filters.weights.copy_(weights / _filter_norms(weights, centring.filters.basis))
        centring.filters.bias.zero_()
    return centring.eval().requires_grad_(False)


def _filter_norms(weights: Tensor, basis: Tensor) -> Tensor:
    """Norms ``(classes,)`` of filters as images: the standard deviation of their responses to white noise of variance
    1."""
    both = torch.where(torch.arange(HARMONICS + 1, device=weights.device) > 0, 2.0, 1.0)[:, None, None]
    signs = torch.tensor([1.0, -1.0], device=weights.device)[:, None, None, None]
    images = torch.einsum("cpmq,cmqk->kp", basis, signs * both * weights)
    return images.norm(dim=1).clamp_min(1e-12)
