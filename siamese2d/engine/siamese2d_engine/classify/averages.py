"""Sums over aligned images, and the averages, noise and signal spectra that follow from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.classify.polar import Harmonics


class Sums:
    """CTF-weighted sums of aligned images for each class.

    Attributes
    ----------
    numerator
        ``sum p CTF F``, ``(K, count, rings)`` complex64; without mirrored images until `complete`.
    weight
        ``sum p CTF^2``, ``(K, rings)``.
    size
        ``sum p`` over all classes, a number ``()``.
    """

    def __init__(self, classes: int, count: int, rings: int, device: torch.device | str = "cpu"):
        # Plain images, then those of which the sum is mirrored in the end: once for all of them.
        self._numerators = torch.zeros(2 * classes, count, rings, dtype=torch.complex64, device=device)
        self.weight = torch.zeros(classes, rings, device=device)
        self.size = torch.zeros((), device=device)

    @property
    def classes(self) -> int:
        return len(self.weight)

    @property
    def numerator(self) -> Tensor:
        return self._numerators[:self.classes]

    def add(self, classes: Tensor, flips: Tensor, weights: Tensor, images: Tensor, ctf2: Tensor) -> None:
        """Add ``x`` poses of images.

        Parameters
        ----------
        classes, flips
            ``(x,)``.
        weights
            Posterior probabilities ``(x,)``.
        images
            Harmonics of ``CTF F`` rotated into the class's frame, times the weight, before mirroring,
            ``(x, count, rings)``.
        ctf2
            ``CTF^2`` of the rings, ``(x, rings)``.
        """
        slot, weight, size = flips.long() * self.classes + classes, ctf2 * weights[:, None], weights.sum()
        # All or nothing: from here on no memory is asked for.
        self._numerators.index_add_(0, slot, images)
        self.weight.index_add_(0, classes, weight)
        self.size += size

    def complete(self) -> None:
        """Add the sums of all processes, and to each class its mirrored images."""
        distributed.add(self._numerators, self.weight, self.size)
        self.numerator.add_(self._numerators[self.classes:].conj())


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
    ratio = spectra.noise / spectra.signal.clamp_min(1e-12 * float(spectra.noise.max()))
    denominator = sums.weight + ratio
    average = sums.numerator / denominator[:, None, :]
    return average.permute(1, 2, 0).contiguous(), denominator


def estimate_spectra(sums: Sums, averages: Tensor, image_power: Tensor, harmonics: Harmonics) -> Spectra:
    """Noise from what the averages leave of the images, signal from the power of the averages.

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
    by_class = averages.permute(2, 0, 1)
    multiplicity = harmonics.multiplicity[None, :, None]
    shared = (multiplicity * (sums.numerator.conj() * by_class).real).sum((0, 1))
    explained = (sums.weight * (multiplicity * by_class.abs() ** 2).sum(1)).sum(0)
    noise = (image_power - 2 * shared + explained) / sums.size
    noise = noise.clamp_min(1e-3 * image_power / sums.size)
    return Spectra(signal=_signal(sums, noise, multiplicity), noise=noise)


def _signal(sums: Sums, noise: Tensor, multiplicity: Tensor) -> Tensor:
    """Mean power of the classes' signal: the power of the plain averages less what noise adds to them."""
    weight = sums.weight
    usable = (weight > 1e-3 * weight.amax(0, keepdim=True)).float()
    power = (multiplicity * (sums.numerator / weight.clamp_min(1e-6)[:, None, :]).abs() ** 2).sum(1)
    # Well determined classes count more.
    trust = usable * weight
    signal = (trust * (power - noise / weight.clamp_min(1e-6))).sum(0) / trust.sum(0).clamp_min(1e-6)
    return signal.clamp_min(1e-3 * (trust * power).sum(0) / trust.sum(0).clamp_min(1e-6))
