"""Centre particles without knowing their orientation.

Every image is correlated with one circularly symmetric profile, the rotational average of the set, and moved to the
best position. The centre that is found depends on the view but not on the in-plane rotation or mirror image, which is
what rotation-invariant features need: particles seen from one direction get one centre. Invariant features decay fast
with off-centre distance (a harmonic of order m turns by m times the shift over the radius), so this matters more than
the choice of the features.
"""

import torch
from torch import Tensor

from siamese2d_engine.ctf import frequency_grid

# Low-pass of the correlation: standard deviation of the Gaussian as a fraction of the sampling frequency.
LOW_PASS = 0.22
# Farthest centre that is looked for, as a fraction of the box.
REACH = 0.1
ITERATIONS = 4
CHUNK = 2048


def fit_profile(spectra: Tensor) -> Tensor:
    """Circular profile of a set and centres of its particles in turns.

    Parameters
    ----------
    spectra
        Complex ``(n, w, w // 2 + 1)``.

    Returns
    -------
    Tensor
        Radial profile ``(w // 2 + 1,)`` of the centred average image, by distance in pixels.
    """
    profile = _radial_profile(spectra.mean(dim=0))
    for _ in range(ITERATIONS):
        shifts = find_shifts(spectra, profile)
        profile = _radial_profile(shift_spectra(spectra, shifts).mean(dim=0))
    return profile


def find_shifts(spectra: Tensor, profile: Tensor) -> Tensor:
    """Shifts ``(n, 2)`` (x, y) in pixels that bring each particle to the centre.

    The correlation's peak within `REACH` of the box centre, refined by a parabola along each axis.
    """
    return torch.cat([_find_shifts(chunk, profile) for chunk in spectra.split(CHUNK)])


def shift_spectra(spectra: Tensor, shifts: Tensor) -> Tensor:
    """Move the content of images by `shifts` ``(n, 2)`` (x, y) pixels: ``F(k) exp(-2 pi i k x)``."""
    ky_kx = _frequencies(spectra)
    phase = -2 * torch.pi * (ky_kx[1] * shifts[:, 0, None, None] + ky_kx[0] * shifts[:, 1, None, None])
    return spectra * torch.polar(torch.ones_like(phase), phase)


def _frequencies(spectra: Tensor) -> tuple[Tensor, Tensor]:
    kx, ky = frequency_grid(spectra.shape[-2], 1.0, spectra.device)
    return ky, kx


def _find_shifts(spectra: Tensor, profile: Tensor) -> Tensor:
    width = spectra.shape[-2]
    ky, kx = _frequencies(spectra)
    reference = torch.fft.rfft2(torch.fft.ifftshift(_circular_image(profile, width))).real
    low_pass = torch.exp(-(kx**2 + ky**2) / (2 * LOW_PASS**2))
    correlation = torch.fft.irfft2(spectra * reference * low_pass, s=(width, width))
    correlation = torch.fft.fftshift(correlation, dim=(-2, -1))
    reach = max(1, round(REACH * width))
    centre = width // 2
    window = correlation[:, centre - reach: centre + reach + 1, centre - reach: centre + reach + 1]
    best = window.flatten(1).argmax(dim=1)
    row = best // (2 * reach + 1) + centre - reach
    column = best % (2 * reach + 1) + centre - reach
    particle = torch.arange(len(spectra), device=spectra.device)
    at = correlation[particle, row, column]
    x = column + _parabola(correlation[particle, row, column - 1], at, correlation[particle, row, column + 1])
    y = row + _parabola(correlation[particle, row - 1, column], at, correlation[particle, row + 1, column])
    return centre - torch.stack([x, y], dim=1)


def _parabola(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Position, within half a pixel, of the maximum of the parabola through three samples; 0 where it has none."""
    curvature = 2 * middle - left - right
    offset = (right - left) / (2 * curvature.clamp_min(1e-12))
    return torch.where(curvature > 0, offset.clamp(-0.5, 0.5), torch.zeros_like(offset))


def _radial_profile(spectrum: Tensor) -> Tensor:
    width = spectrum.shape[-2]
    image = torch.fft.fftshift(torch.fft.irfft2(spectrum, s=(width, width)))
    ring = _ring_index(width, spectrum.device)
    sums = torch.zeros(width // 2 + 1, device=spectrum.device).index_add_(0, ring.flatten(), image.flatten())
    counts = torch.bincount(ring.flatten(), minlength=width // 2 + 1)
    profile = sums / counts
    # The corners beyond the last ring are background.
    profile[-1] = 0
    return profile


def _circular_image(profile: Tensor, width: int) -> Tensor:
    return profile[_ring_index(width, profile.device)]


def _ring_index(width: int, device: torch.device) -> Tensor:
    axis = torch.arange(width, device=device, dtype=torch.float32) - width // 2
    return torch.hypot(axis[:, None], axis[None, :]).round().long().clamp_max(width // 2)
