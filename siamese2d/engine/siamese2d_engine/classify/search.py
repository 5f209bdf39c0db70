"""Compare images with class averages over all rotations, a set of shifts and the mirror; keep the best few poses.

The log-likelihood of image ``F`` given average ``A``, up to a constant of the image, is

    sum over rings q of w_q [ Re <Y, A rotated> - CTF^2_q |A|^2_q / 2 ],   Y = CTF * F,

with ``<.,.>`` and ``|.|^2`` means over the ring and ``w_q`` the number of independent Fourier pixels on the ring over
the noise power (Scheres et al. 2005, J. Mol. Biol. 348, 139, in Fourier space with the CTF). The first term for all
rotations is a Fourier series in the rotation whose coefficients are products of harmonics (see `polar`): a batch of
matrix products over the rings, one for each harmonic, and one matrix product over the harmonics.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from siamese2d_engine.classify.polar import Harmonics, PolarGrid

# Numbers of an array, and references in it, that a processor works on at a time: few enough for its cache, where the
# next operation finds them.
CACHED, ACROSS = 2**18, 1024

# Of references, for even and odd orders each, see `References.matrices`.
Matrices: TypeAlias = tuple[list[Tensor], list[Tensor]]


class References:
    """Averages in all positions tried, with the weights of rings and harmonics multiplied in.

    Moving the few averages instead of the many images leaves one analysis for each image. An average moved by ``-s``
    stands for the image moved by ``s`` after its rotation.

    Parameters
    ----------
    averages
        Harmonics ``(count, rings, K)`` complex64, even orders first.
    shifts
        ``(s, 2)`` pixels.
    weights
        ``w_q`` for each ring, ``(rings,)``.
    harmonics, grid
        Of the averages.
    """

    def __init__(self, averages: Tensor, shifts: Tensor, weights: Tensor, harmonics: Harmonics, grid: PolarGrid):
        samples = harmonics.synthesise(averages) * grid.ramps(-shifts)[:, None]
        moved = harmonics.join(*harmonics.analyse(samples))
        scale = weights[:, None] * harmonics.multiplicity
        # (s, K, count, rings), to be gathered for single poses
        self.by_shift = moved.permute(1, 2, 0, 3) * scale.T
        self.power = (averages.abs() ** 2 * harmonics.multiplicity[:, None, None]).sum(0).T * weights
        self._n_even = harmonics.n_even

    def matrices(self, classes: Tensor) -> Matrices:
        """Factors of the correlation with some classes, for even and odd orders each ``(2 * orders, rings, s * K)``.

        Re sum_m exp(i m psi) conj(Y) A = direct + crossed, with

            direct  = sum_m cos(m psi) [re re'] + sin(m psi) [im re'],
            crossed = sum_m cos(m psi) [im im'] - sin(m psi) [re im'].

        Mirroring A conjugates it, which changes the sign of `crossed` alone.
        """
        chosen = self.by_shift[:, classes].permute(2, 3, 0, 1).flatten(2)
        parts = chosen[:self._n_even], chosen[self._n_even:]
        direct = [torch.cat([part.real, part.real]) for part in parts]
        crossed = [torch.cat([part.imag, -part.imag]) for part in parts]
        return direct, crossed


def best_over_rotations(
    parts: tuple[Tensor, Tensor], matrices: Matrices, harmonics: Harmonics, mirror: bool
) -> Tensor:
    """Largest correlation over all rotations.

    Parameters
    ----------
    parts
        Harmonics of ``n`` images as `Harmonics.analyse` gives them, each ``(2 * orders, n, rings)``.
    matrices
        Of ``x`` references, see `References.matrices`.
    mirror
        Also compare with the references' mirror images.

    Returns
    -------
    Tensor
        ``(n, x, 2)`` with the mirror last, or ``(n, x, 1)`` without.
    """
    n, count = parts[0].shape[1], matrices[0][0].shape[2]
    swapped = [torch.cat([part[len(part) // 2:], part[:len(part) // 2]]) for part in parts]
    peaks = parts[0].new_empty(n, count, 2 if mirror else 1)
    for rows, columns in _tiles(n, count, harmonics.rotations, peaks.device):
        products = [(torch.bmm(part[:, rows], direct[..., columns]), other[:, rows], crossed[..., columns])
                    for part, other, direct, crossed in zip(parts, swapped, *matrices)]
        for number, sign in enumerate((1, -1) if mirror else (1,)):
            # psi and psi + pi differ in the sign of the odd harmonics, so |odd| covers both.
            even, odd = (matrix @ torch.baddbmm(plain, other, crossed, alpha=sign).flatten(1)
                         for matrix, (plain, other, crossed) in zip(harmonics.half_turn, products))
            tile = peaks[rows, columns, number]
            tile.copy_(odd.abs_().add_(even).amax(0).view(tile.shape))
    return peaks


def _tiles(rows: int, columns: int, numbers: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """Tiles of a table whose entries need so many `numbers` each; on a GPU all of it."""
    down, across = max(1, rows), columns
    if device.type == "cpu":
        across = -(-columns // -(-columns // ACROSS))
        down = max(1, CACHED // (numbers * across))
    for left in range(0, columns, across):
        for top in range(0, rows, down):
            yield slice(top, top + down), slice(left, left + across)


def mirror_(harmonics: Tensor, flips: Tensor) -> Tensor:
    """Mirror those of the images ``(x, ...)`` for which `flips` ``(x,)`` says so, in place."""
    sign = torch.where(flips, -1.0, 1.0)
    torch.view_as_real(harmonics)[..., 1] *= sign.view(-1, *[1] * (harmonics.dim() - 1))
    return harmonics


def rotation_profile(images: Tensor, references: Tensor, rotation_matrix: Tensor) -> Tensor:
    """Correlation at given rotations, for single pairs.

    Parameters
    ----------
    images, references
        Harmonics ``(..., count, rings)`` complex64; the references weighted.
    rotation_matrix
        ``exp(i m psi)``, ``(rotations, count)``.

    Returns
    -------
    Tensor
        ``(..., rotations)``.
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

    def single(self, indices: Tensor, slot: Tensor | int, device: torch.device | str) -> "Poses":
        """One pose of each of some images, number `slot`, as ``(x, 1)`` on a device."""
        chosen = {name: value[indices, slot][:, None] for name, value in vars(self).items() if name != "log_likelihood"}
        return Poses(**chosen, log_likelihood=self.log_likelihood[indices]).to(device)

    def to(self, device: torch.device | str) -> "Poses":
        return Poses(*(value.to(device) for value in vars(self).values()))

    def put(self, indices: Tensor, part: "Poses") -> None:
        """Write the poses of some images."""
        for name, value in vars(self).items():
            value[indices] = getattr(part, name).to(value.device)

    def relabelled(self, classes: Tensor) -> "Poses":
        """The best pose of each image alone, with other classes ``(n,)``."""
        return Poses(classes[:, None].clone(), self.flips[:, :1].clone(), self.psi[:, :1].clone(),
                     self.shifts[:, :1].clone(), torch.ones(len(classes), 1), self.log_likelihood)

    @property
    def confidence(self) -> Tensor:
        """Posterior probability of the best pose's class, ``(n,)``."""
        return (self.weights * (self.classes == self.classes[:, :1])).sum(1).clamp(0, 1)


def shift_before_rotation(shifts: Tensor, psi: Tensor, flips: Tensor) -> Tensor:
    """Shifts ``(..., 2)`` of an average turned into those of the image before its rotation and mirroring."""
    x, y = torch.where(flips, -shifts[..., 0], shifts[..., 0]), shifts[..., 1]
    cos, sin = torch.cos(psi), torch.sin(psi)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)


def shift_after_rotation(shifts: Tensor, psi: Tensor, flips: Tensor) -> Tensor:
    """Shifts ``(..., 2)`` of images turned into those of their average: the inverse of `shift_before_rotation`."""
    x, y = shifts[..., 0], shifts[..., 1]
    cos, sin = torch.cos(psi), torch.sin(psi)
    turned = cos * x - sin * y
    return torch.stack([torch.where(flips, -turned, turned), sin * x + cos * y], dim=-1)
