"""Projections of a volume by the Fourier slice theorem."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

IMAGES_PER_BATCH = 64
LARGE_VOLUME = 96  # voxels a side


class FourierVolume:
    """The Fourier transform of a volume, ready to be sliced.

    The volume is padded before its transform, which makes the samples of the transform denser, and divided by the
    Fourier transform of the trilinear kernel, ``sinc^2`` along each axis, which undoes the fading that interpolation
    between the samples would cause (gridding correction; Jackson et al. 1991, IEEE Trans. Med. Imaging 10, 473).

    Parameters
    ----------
    density
        ``(L, L, L)`` indexed ``[z, y, x]``, origin at voxel ``L // 2``.
    voxel_size
        Angstroms.
    padding
        Side of the padded volume over ``L``, at least; by default 3, or 2 for large volumes, to save memory. What is
        left of the error are faint copies of the volume around it, of relative strength ``(r / (padding L - r))^2`` at
        the distance ``r`` from the origin along an axis.
    """

    def __init__(self, density: np.ndarray | Tensor, voxel_size: float, padding: float | None = None):
        density = torch.as_tensor(density, dtype=torch.float32)
        padding = padding or (3.0 if len(density) <= LARGE_VOLUME else 2.0)
        self.voxel_size = voxel_size
        self.side = 2 * math.ceil(padding * len(density) / 2)
        self.transform = self._padded_transform(density)

    def _padded_transform(self, density: Tensor) -> Tensor:
        """Real and imaginary part ``(1, 2, side, side, side)``, zero frequency in the middle."""
        length = len(density)
        kernel = torch.sinc((torch.arange(length) - length // 2) / self.side) ** 2
        density = density / (kernel[:, None, None] * kernel[:, None] * kernel)
        padded = torch.zeros((self.side,) * 3)
        start = self.side // 2 - length // 2
        padded[start : start + length, start : start + length, start : start + length] = density
        transform = torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(padded)))
        return torch.view_as_real(transform).permute(3, 0, 1, 2)[None].contiguous()

    def slices(self, rotations: np.ndarray | Tensor, box: int, pixel_size: float) -> Tensor:
        """Fourier transforms of projections, centred in their images.

        A projection along the third row of ``A`` has the transform ``F(kx A[0] + ky A[1])``. The box and the pixel size
        are free: frequencies that the volume does not hold are zero.

        Parameters
        ----------
        rotations
            ``(n, 3, 3)``, see :mod:`siamese2d_engine.simulate.orientations`.
        box
            Side of the images, pixels.
        pixel_size
            Angstroms.

        Returns
        -------
        Tensor
            ``(n, box, box // 2 + 1)`` complex; ``irfft2`` of it is the line integral of the density (density times
            angstroms) with the volume's origin at pixel ``box // 2``.
        """
        rotations = torch.as_tensor(np.asarray(rotations), dtype=torch.float32)
        kx = torch.fft.rfftfreq(box).expand(box, -1)
        ky = torch.fft.fftfreq(box)[:, None].expand(-1, box // 2 + 1)
        points = torch.stack([kx, ky], dim=-1) * (self.side * self.voxel_size / pixel_size)
        # Moving the origin from pixel 0 to box // 2; and from sums over voxels to integrals, one dimension kept.
        factor = torch.polar(torch.ones_like(kx), -2 * math.pi * (box // 2) * (kx + ky))
        factor = factor * (self.voxel_size**3 / pixel_size**2) * _below_nyquist(box)
        batches = [self._interpolate(batch, points) for batch in rotations.split(IMAGES_PER_BATCH)]
        return torch.cat(batches) * factor

    def _interpolate(self, rotations: Tensor, points: Tensor) -> Tensor:
        """Trilinear interpolation of the transform at ``kx A[0] + ky A[1]``: ``(n, h, w)`` complex."""
        places = torch.einsum("hwa,nac->nhwc", points, rotations[:, :2])
        places = (places + self.side // 2) * (2 / (self.side - 1)) - 1
        n, h, w, _ = places.shape
        values = grid_sample(self.transform, places.reshape(1, n * h, w, 1, 3), align_corners=True)
        return torch.complex(values[0, 0], values[0, 1]).reshape(n, h, w)


def _below_nyquist(box: int) -> Tensor:
    """Mask without the Nyquist row and column of an even box: a shifted image has no real value for them."""
    mask = torch.ones(box, box // 2 + 1)
    if box % 2 == 0:
        mask[box // 2] = 0
        mask[:, box // 2] = 0
    return mask


def shift_ramp(shifts: np.ndarray | Tensor, box: int) -> Tensor:
    """Phase ramps ``(n, box, box // 2 + 1)`` that move images by ``shifts`` ``(n, 2)``, (x, y) in pixels."""
    shifts = torch.as_tensor(np.asarray(shifts), dtype=torch.float32)[:, :, None, None]
    kx, ky = torch.fft.rfftfreq(box), torch.fft.fftfreq(box)[:, None]
    phase = -2 * math.pi * (shifts[:, 0] * kx + shifts[:, 1] * ky)
    return torch.polar(torch.ones_like(phase), phase)
