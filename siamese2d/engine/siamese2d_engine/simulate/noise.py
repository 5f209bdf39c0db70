"""Noise with a spectrum, and a background that varies slowly."""

from __future__ import annotations

import torch
from torch import Tensor

ENVELOPE_B_FACTOR = 150.0  # square angstroms; resolution falls off as exp(-B s^2 / 4)
LOW_FREQUENCY_LENGTH = 50.0  # angstroms; noise rises at lengths above this
SHOT_NOISE, LOW_FREQUENCY_NOISE, ICE_NOISE = 0.35, 1.0, 0.6  # power at zero frequency, before scaling


def squared_frequency(height: int, width: int, pixel_size: float) -> Tensor:
    """Squares ``(height, width // 2 + 1)`` of the spatial frequencies of ``rfft2``, 1/angstrom^2."""
    kx = torch.fft.rfftfreq(width, pixel_size)
    ky = torch.fft.fftfreq(height, pixel_size)[:, None]
    return kx**2 + ky**2


def envelope(s2: Tensor) -> Tensor:
    """Fall-off of the contrast with the squared frequency `s2` in 1/angstrom^2."""
    return torch.exp(-ENVELOPE_B_FACTOR / 4 * s2)


def noise_power(s2: Tensor, ctf: Tensor | None) -> Tensor:
    """Power spectrum of a micrograph's noise, in arbitrary units.

    White shot noise, a part that rises towards low frequencies, and ice that has been imaged by the same CTF, which
    gives the spectrum its Thon rings.

    Parameters
    ----------
    s2
        Squared frequencies ``(h, w // 2 + 1)``, 1/angstrom^2.
    ctf
        ``(..., h, w // 2 + 1)``; without it the ice has a smooth spectrum.
    """
    ice = envelope(s2) ** 2 * (0.5 if ctf is None else ctf**2)
    return SHOT_NOISE + LOW_FREQUENCY_NOISE / (1 + LOW_FREQUENCY_LENGTH**2 * s2) + ICE_NOISE * ice


def shape_noise(white: Tensor, power: Tensor) -> Tensor:
    """Give white noise of variance 1 a power spectrum, with an expected variance of 1 and no mean.

    Parameters
    ----------
    white
        ``(..., h, w)``.
    power
        ``(..., h, w // 2 + 1)`` in the layout of ``rfft2``.
    """
    height, width = white.shape[-2:]
    power = power.clone()
    power[..., 0, 0] = 0
    # rfft2 keeps one of each pair of opposite frequencies: the columns in between count twice.
    counts = torch.full((width // 2 + 1,), 2.0)
    counts[0] = 1
    if width % 2 == 0:
        counts[-1] = 1
    mean_power = (power * counts).sum(dim=(-2, -1), keepdim=True) / (height * width)
    return torch.fft.irfft2(torch.fft.rfft2(white) * (power / mean_power).sqrt(), s=(height, width))


def slow_background(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Uneven illumination and ice thickness: a few random waves about as long as the image, ``(h, w)``, variance 1."""
    y = torch.linspace(-1, 1, height)[:, None]
    x = torch.linspace(-1, 1, width)
    waves = torch.rand(6, 4, generator=generator)
    background = torch.zeros(height, width)
    for fx, fy, phase, weight in waves.tolist():
        background += (0.3 + weight) * torch.cos(4 * (fx - 0.5) * x + 4 * (fy - 0.5) * y + 6.2832 * phase)
    background -= background.mean()
    return background / background.std().clamp_min(1e-6)
