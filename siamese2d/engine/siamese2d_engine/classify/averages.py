"""Sums over aligned images, and the averages, noise and signal spectra that follow from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.classify.polar import Harmonics


class Sums:
    """CTF-weighted sums of aligned images for each class, kept for two halves of the images.

    ``numerator`` is ``sum p CTF F``, ``(2, K, count, rings)`` complex64; ``weight`` is ``sum p CTF^2``,
    ``(2, K, rings)``; ``sizes`` is ``sum p``, ``(2, K)``.
    """

    def __init__(self, classes: int, count: int, rings: int, device: torch.device | str = "cpu"):
        # A slot for each half, mirror and class: the mirror's sum is conjugated once, in the end.
        self._numerator = torch.zeros(4 * classes, count, rings, dtype=torch.complex64, device=device)
        self.weight = torch.zeros(2 * classes, rings, device=device)
        self.sizes = torch.zeros(2 * classes, device=device)
        self.classes = classes

    def add(self, half: Tensor, classes: Tensor, flips: Tensor, weights: Tensor, images: Tensor, ctf2: Tensor) -> None:
        """Add ``x`` poses of images.

        Parameters
        ----------
        half, classes, flips
            ``(x,)``; half is 0 or 1.
        weights
            Posterior probabilities ``(x,)``.
        images
            Harmonics of ``CTF F`` rotated into the class's frame, times the weight, before mirroring,
            ``(x, count, rings)``.
        ctf2
            ``CTF^2`` of the rings, ``(x, rings)``.
        """
        slot = half * self.classes + classes
        mirrored, weight = flips.long() * 2 * self.classes + slot, ctf2 * weights[:, None]
        # All or nothing: from here on no memory is asked for.
        self._numerator.index_add_(0, mirrored, images)
        self.weight.index_add_(0, slot, weight)
        self.sizes.index_add_(0, slot, weights)

    def bring_together(self) -> None:
        """Add the sums of all processes."""
        distributed.add(self._numerator, self.weight, self.sizes)

    @property
    def numerator(self) -> Tensor:
        plain, flipped = self._numerator.view(2, 2, self.classes, *self._numerator.shape[1:])
        return plain + flipped.conj()

    def halves(self) -> tuple[Tensor, Tensor, Tensor]:
        """Numerator ``(2, K, count, rings)``, weight ``(2, K, rings)`` and sizes ``(2, K)``."""
        return self.numerator, self.weight.view(2, self.classes, -1), self.sizes.view(2, self.classes)


@dataclass
class Spectra:
    """Power of signal and noise on each ring, in the units of the samples, ``(rings,)``."""

    signal: Tensor
    noise: Tensor

    def first(self, rings: int) -> "Spectra":
        """Of the first rings only."""
        return Spectra(self.signal[:rings], self.noise[:rings])


def wiener(sums: Sums, spectra: Spectra) -> tuple[Tensor, Tensor]:
    """The most probable averages for Gaussian noise and signal.

    ``sum p CTF F / (sum p CTF^2 + noise / signal)`` (Scheres 2012, J. Mol. Biol. 415, 406).

    Returns
    -------
    tuple of Tensor
        Averages ``(count, rings, K)`` complex64, and the denominators ``(K, rings)``.
    """
    numerator, weight, _ = sums.halves()
    ratio = spectra.noise / spectra.signal.clamp_min(1e-12 * float(spectra.noise.max()))
    denominator = weight.sum(0) + ratio
    average = numerator.sum(0) / denominator[:, None, :]
    return average.permute(1, 2, 0).contiguous(), denominator


def estimate_spectra(sums: Sums, averages: Tensor, image_power: Tensor, harmonics: Harmonics) -> Spectra:
    """Noise from what the averages leave of the images, signal from what two halves of each class share.

    Parameters
    ----------
    sums
        Of ``n`` images.
    averages
        ``(count, rings, K)`` that are taken out of the images.
    image_power
        Sum over the images of the rings' mean power, ``(rings,)``.
    harmonics
        Of the sums.
    """
    numerator, weight, sizes = sums.halves()
    n = sizes.sum()
    both = averages.permute(2, 0, 1)
    multiplicity = harmonics.multiplicity[None, :, None]
    shared = (multiplicity * (numerator.sum(0).conj() * both).real).sum((0, 1))
    explained = (weight.sum(0) * (multiplicity * both.abs() ** 2).sum(1)).sum(0)
    noise = (image_power - 2 * shared + explained) / n
    noise = noise.clamp_min(1e-3 * image_power / n)
    return Spectra(signal=_signal(numerator, weight, noise, multiplicity), noise=noise)


def _signal(numerator: Tensor, weight: Tensor, noise: Tensor, multiplicity: Tensor) -> Tensor:
    """Mean power of the classes' signal: the power of the plain averages less what noise adds to them."""
    weight = weight.sum(0)
    usable = (weight > 1e-3 * weight.amax(0, keepdim=True)).float()
    power = (multiplicity * (numerator.sum(0) / weight.clamp_min(1e-6)[:, None, :]).abs() ** 2).sum(1)
    # Well determined classes count more.
    trust = usable * weight
    signal = (trust * (power - noise / weight.clamp_min(1e-6))).sum(0) / trust.sum(0).clamp_min(1e-6)
    return signal.clamp_min(1e-3 * (trust * power).sum(0) / trust.sum(0).clamp_min(1e-6))
