"""Compare images with class averages over all rotations, a set of shifts and the mirror; keep the best few poses.

The log-likelihood of image ``F`` given average ``A``, up to a constant of the image, is

    sum over rings q of w_q [ Re <Y, A rotated> - CTF^2_q |A|^2_q / 2 ],   Y = CTF * F,

with ``<.,.>`` and ``|.|^2`` means over the ring and ``w_q`` the number of independent Fourier pixels on the ring over
the noise power (Scheres et al. 2005, J. Mol. Biol. 348, 139, in Fourier space with the CTF). The first term for all
rotations is a Fourier series in the rotation whose coefficients are products of harmonics (see `polar`): a batch of
matrix products over the rings, one for each harmonic, and one matrix product over the harmonics.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.classify.polar import Harmonics


class References:
    """Averages prepared for the comparison: the weights of rings and harmonics are multiplied in.

    Parameters
    ----------
    averages
        Harmonics ``(count, rings, K)`` complex64, even orders first.
    weights
        ``w_q`` for each ring, ``(rings,)``.
    harmonics
        The grid's harmonics.
    """

    def __init__(self, averages: Tensor, weights: Tensor, harmonics: Harmonics):
        weighted = averages * (weights[None, :, None] * harmonics.multiplicity[:, None, None])
        parts = weighted[:harmonics.n_even], weighted[harmonics.n_even:]
        # Re sum_m exp(i m psi) conj(Y) A = direct + crossed, with
        #   direct  = sum_m cos(m psi) [re re'] + sin(m psi) [im re'],
        #   crossed = sum_m cos(m psi) [im im'] - sin(m psi) [re im'].
        # Mirroring A conjugates it, which changes the sign of `crossed` alone.
        self.direct = [torch.cat([part.real, part.real]).contiguous() for part in parts]
        self.crossed = [torch.cat([part.imag, -part.imag]).contiguous() for part in parts]
        # (K, count, rings), to be gathered by class for single poses
        self.by_class = weighted.permute(2, 0, 1).contiguous()
        self.power = (averages.abs() ** 2 * harmonics.multiplicity[:, None, None]).sum(0).T * weights

    def subset(self, classes: Tensor) -> "References":
        """Only some classes, in the order given."""
        part = object.__new__(References)
        part.direct = [array[:, :, classes].contiguous() for array in self.direct]
        part.crossed = [array[:, :, classes].contiguous() for array in self.crossed]
        part.by_class, part.power = self.by_class[classes], self.power[classes]
        return part


def best_over_rotations(
    parts: tuple[Tensor, Tensor], refs: References, harmonics: Harmonics, mirror: bool
) -> Tensor:
    """Largest correlation over all rotations.

    Parameters
    ----------
    parts
        Harmonics of ``n`` images as `Harmonics.analyse` gives them, each ``(2 * orders, n, rings)``.
    refs
        ``K`` references.
    mirror
        Also compare with the references' mirror images.

    Returns
    -------
    Tensor
        ``(n, K, 2)`` with the mirror last, or ``(n, K, 1)`` without.
    """
    n, classes = parts[0].shape[1], refs.power.shape[0]
    series = [[], []]
    for images, direct, crossed, matrix in zip(parts, refs.direct, refs.crossed, harmonics.half_turn):
        swapped = torch.cat([images[len(images) // 2:], images[:len(images) // 2]])
        first = torch.bmm(images, direct)
        if mirror:
            series[1].append(matrix @ torch.bmm(swapped, crossed).view(len(images), -1))
        else:
            first.baddbmm_(swapped, crossed)
        series[0].append(matrix @ first.view(len(images), -1))
    # psi and psi + pi differ in the sign of the odd harmonics, so |odd| covers both.
    even, odd = series[0]
    if not mirror:
        return (odd.abs_().add_(even)).amax(0).view(n, classes, 1)
    crossed_even, crossed_odd = series[1]
    plain = (odd + crossed_odd).abs_().add_(even).add_(crossed_even).amax(0)
    flipped = odd.sub_(crossed_odd).abs_().add_(even).sub_(crossed_even).amax(0)
    return torch.stack([plain, flipped], dim=-1).view(n, classes, 2)


def rotation_profile(images: Tensor, references: Tensor, rotation_matrix: Tensor) -> Tensor:
    """Correlation at given rotations, for single pairs.

    Parameters
    ----------
    images, references
        Harmonics ``(x, count, rings)`` complex64; the references weighted.
    rotation_matrix
        ``exp(i m psi)``, ``(rotations, count)``.

    Returns
    -------
    Tensor
        ``(x, rotations)``.
    """
    series = (images.conj() * references).sum(-1)
    return series.real @ rotation_matrix.real.T - series.imag @ rotation_matrix.imag.T


@dataclass
class Poses:
    """The best few poses of ``n`` images, best first.

    Attributes
    ----------
    classes, flips
        ``(n, T)`` int64 and bool.
    psi
        Rotation of the best angle of each, radians, ``(n, T)``.
    shifts
        ``(n, T, 2)`` pixels (x, y).
    weights
        Posterior probability, rows sum to 1, ``(n, T)``.
    log_likelihood
        Of the image, summed over the poses, relative to an empty average, ``(n,)``.
    """

    classes: Tensor
    flips: Tensor
    psi: Tensor
    shifts: Tensor
    weights: Tensor
    log_likelihood: Tensor

    @staticmethod
    def empty(n: int, best: int) -> "Poses":
        """All in class 0, unmoved, with weight 0."""
        return Poses(torch.zeros(n, best, dtype=torch.long), torch.zeros(n, best, dtype=torch.bool),
                     torch.zeros(n, best), torch.zeros(n, best, 2), torch.zeros(n, best), torch.zeros(n))

    def put(self, indices: Tensor, part: "Poses") -> None:
        """Write the poses of some images."""
        for name, value in vars(self).items():
            value[indices] = getattr(part, name).to(value.device)

    def padded(self, best: int) -> "Poses":
        """With `best` poses for each image: where there are fewer, the last is repeated with weight 0."""
        missing = best - self.classes.shape[1]
        if missing <= 0:
            return self
        repeat = lambda value: torch.cat([value, value[:, -1:].expand(-1, missing, *value.shape[2:])], dim=1)
        weights = torch.nn.functional.pad(self.weights, (0, missing))
        return Poses(repeat(self.classes), repeat(self.flips), repeat(self.psi), repeat(self.shifts), weights,
                     self.log_likelihood)

    def relabelled(self, classes: Tensor) -> "Poses":
        """The best pose of each image alone, with other classes ``(n,)``."""
        return Poses(classes[:, None].clone(), self.flips[:, :1].clone(), self.psi[:, :1].clone(),
                     self.shifts[:, :1].clone(), torch.ones(len(classes), 1), self.log_likelihood)

    @property
    def confidence(self) -> Tensor:
        """Posterior probability of the best pose's class, ``(n,)``."""
        return (self.weights * (self.classes == self.classes[:, :1])).sum(1).clamp(0, 1)


def shift_grid(reach: float, step: float) -> Tensor:
    """Shifts ``(s, 2)`` on a square grid of `step` pixels within a circle of `reach` pixels; zero first."""
    n = int(np.floor(reach / step + 1e-6))
    y, x = np.mgrid[-n:n + 1, -n:n + 1] * step
    inside = np.hypot(x, y) <= reach + 1e-6
    points = np.stack([x[inside], y[inside]], axis=1)
    return torch.as_tensor(points[np.argsort(np.hypot(*points.T), kind="stable")], dtype=torch.float32)
