"""Images as exact samples of their Fourier transform on rings, and the angular harmonics of each ring.

A centred image ``I(x)``, ``x`` from the box centre in pixels, has the transform ``F(k) = sum_x I(x) exp(-2 pi i k.x)``.
It is sampled at ``k = (q cos t, q sin t)`` for the rings ``q`` and for angles ``t`` of half a circle; the other half is
its complex conjugate, since images are real. The ring's harmonics are ``c_m = mean over t of F(q, t) exp(-i m t)`` for
``m >= 0``; ``c_-m = (-1)^m conj(c_m)``. Then

* rotating the image by ``psi`` multiplies ``c_m`` by ``exp(-i m psi)``,
* mirroring it in x (``t -> pi - t``) conjugates ``c_m``,
* shifting it, ``I(x - o)``, multiplies the samples by ``exp(-2 pi i k.o)``.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PolarGrid:
    """Rings and angles, in pixels of the images that are handed to `sample`.

    Parameters
    ----------
    box
        Side of the images, pixels.
    step
        Distance between rings, cycles per pixel; the first ring lies at one step.
    rings
        Number of rings.
    half_angles
        Number of angles on half a circle.
    """

    box: int
    step: float
    rings: int
    half_angles: int

    @cached_property
    def radii(self) -> np.ndarray:
        """Cycles per pixel of each ring, ``(rings,)``."""
        return self.step * np.arange(1, self.rings + 1)

    @cached_property
    def points(self) -> tuple[Tensor, Tensor]:
        """Frequencies ``(kx, ky)`` of the samples in cycles per pixel, each ``(rings, half_angles)``, float64."""
        angles = np.pi * np.arange(self.half_angles) / self.half_angles
        kx, ky = np.outer(self.radii, np.cos(angles)), np.outer(self.radii, np.sin(angles))
        return torch.as_tensor(kx), torch.as_tensor(ky)

    @cached_property
    def matrix(self) -> Tensor:
        """Non-uniform Fourier matrix ``(box * box, 2 * rings * half_angles)``: real parts, then imaginary parts."""
        x = torch.arange(self.box, dtype=torch.float64) - self.box // 2
        kx, ky = (k.reshape(1, -1) for k in self.points)
        # The exponential of a sum is the product of exponentials: box, not box squared, of them are needed.
        along_x, along_y = (torch.exp(-2j * torch.pi * x[:, None] * k) for k in (kx, ky))
        full = (along_y[:, None, :] * along_x[None, :, :]).reshape(self.box**2, -1)
        return torch.cat([full.real, full.imag], dim=1).float()

    def shift_step(self, cycles: float, rings: int) -> float:
        """Pixels by which an image moves while the phase on the last of `rings` turns by `cycles`."""
        return cycles / (self.step * rings)

    def sample(self, images: Tensor) -> Tensor:
        """Transform of images ``(n, box, box)`` at the grid's points, ``(n, rings, half_angles)`` complex64."""
        flat = images.reshape(len(images), -1) @ self.matrix.to(images.device)
        parts = flat.view(len(images), 2, self.rings, self.half_angles)
        return torch.complex(parts[:, 0], parts[:, 1])

    def ramps(self, shifts: Tensor) -> Tensor:
        """Factors ``(s, rings, half_angles)`` complex64 that move images by ``shifts`` ``(s, 2)`` (x, y) in pixels."""
        angles = torch.pi * torch.arange(self.half_angles, device=shifts.device) / self.half_angles
        along = shifts[:, :1] * torch.cos(angles) + shifts[:, 1:] * torch.sin(angles)
        phase = -2 * torch.pi * self.step * along
        first = torch.polar(torch.ones_like(phase), phase)
        # The rings are multiples of the first one, so their factors are its powers: sines are slow.
        result = torch.empty(len(shifts), self.rings, self.half_angles, dtype=first.dtype, device=shifts.device)
        result[:, 0] = first
        for ring in range(1, self.rings):
            torch.mul(result[:, ring - 1], first, out=result[:, ring])
        return result


class Harmonics:
    """Angular harmonics of the rings and the rotation transform back, as matrix products.

    Even and odd harmonics are kept apart: on half a circle the even ones come from the real part of the samples alone,
    the odd ones from the imaginary part, and a turn by pi changes only the sign of the odd ones. Both halve the work.
    The even ones come first in every array.

    Parameters
    ----------
    count
        Number of harmonics, m = 0 .. count - 1; at most `half_angles`.
    half_angles
        Samples on half a circle.
    """

    def __init__(self, count: int, half_angles: int, device: torch.device | str = "cpu"):
        self.count, self.half_angles = count, half_angles
        even, odd = np.arange(0, count, 2), np.arange(1, count, 2)
        self.orders = torch.as_tensor(np.concatenate([even, odd]), device=device)
        self.n_even = len(even)
        # In a sum over all m of products of two real images' harmonics, m and -m give the same.
        self.multiplicity = torch.where(self.orders == 0, 1.0, 2.0)
        t = np.pi * np.arange(half_angles) / half_angles
        analysis_even = np.exp(-1j * np.outer(even, t)) / half_angles
        analysis_odd = 1j * np.exp(-1j * np.outer(odd, t)) / half_angles
        # Factors of the real and the imaginary part of each sample, next to each other as the samples lie in memory.
        matrix = np.zeros((2 * count, half_angles, 2), dtype=np.float32)
        matrix[:2 * len(even), :, 0] = np.concatenate([analysis_even.real, analysis_even.imag])
        matrix[2 * len(even):, :, 1] = np.concatenate([analysis_odd.real, analysis_odd.imag])
        self._analysis = torch.as_tensor(matrix.reshape(2 * count, -1), device=device)

    def analyse(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Harmonics of samples ``(..., half_angles)``.

        Returns
        -------
        tuple of Tensor
            Of the even and of the odd orders: real parts, then imaginary parts, each ``(2 * orders, ...)``.
        """
        parts = self._analysis @ torch.view_as_real(samples).reshape(-1, 2 * self.half_angles).T
        parts = parts.view(-1, *samples.shape[:-1])
        return parts[:2 * self.n_even], parts[2 * self.n_even:]

    def join(self, even: Tensor, odd: Tensor) -> Tensor:
        """One complex array ``(count, ...)`` from what `analyse` returns."""
        (er, ei), (dr, di) = even.chunk(2), odd.chunk(2)
        return torch.complex(torch.cat([er, dr]), torch.cat([ei, di]))

    def synthesise(self, harmonics: Tensor) -> Tensor:
        """Samples ``(K, rings, half_angles)`` complex64 of harmonics ``(count, rings, K)``: `analyse` undone."""
        weighted = (harmonics * self.multiplicity[:, None, None]).permute(2, 1, 0)
        angles = torch.pi / self.half_angles * torch.arange(self.half_angles, device=self.orders.device)
        turns = self.rotation_matrix(angles)
        # c_m exp(imt) and its partner at -m add up to a real number for even m and to an imaginary one for odd m.
        even = (weighted[..., :self.n_even] @ turns[:, :self.n_even].T).real
        odd = (weighted[..., self.n_even:] @ turns[:, self.n_even:].T).imag
        return torch.complex(even.contiguous(), odd.contiguous())

    @property
    def rotations(self) -> int:
        """Rotations from 0 to pi that a search tries: a quarter more than the highest order needs."""
        return int(np.ceil(1.25 * self.count))

    @cached_property
    def half_turn(self) -> tuple[Tensor, Tensor]:
        """For the even and the odd orders ``[cos(m psi), sin(m psi)]`` at `rotations` angles from 0 to pi.

        Each is ``(rotations, 2 * orders)``.
        """
        step = torch.pi / self.rotations
        matrix = self.rotation_matrix(step * torch.arange(self.rotations, device=self.orders.device))
        even, odd = matrix[:, :self.n_even], matrix[:, self.n_even:]
        return torch.cat([even.real, even.imag], dim=1), torch.cat([odd.real, odd.imag], dim=1)

    def rotation_matrix(self, rotations: Tensor) -> Tensor:
        """``exp(i m psi)`` as ``(rotations, count)`` complex64."""
        phase = rotations[:, None].float() * self.orders.float()
        return torch.polar(torch.ones_like(phase), phase)


def harmonics_needed(radius: float, support: float) -> int:
    """Harmonics, m = 0 .. count - 1, that a ring of `radius` cycles per pixel has for images within `support` pixels.

    The transform of a point at distance s turns as ``exp(-2 pi i q s cos t)``, whose harmonics are Bessel functions
    ``J_m(2 pi q s)``: negligible for m above the argument by a few.
    """
    argument = 2 * np.pi * radius * support
    return int(np.ceil(argument + 1.0 * argument ** (1 / 3) + 1))
