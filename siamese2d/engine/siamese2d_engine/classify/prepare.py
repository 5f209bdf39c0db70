"""From particle images to masked, CTF-multiplied polar samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.classify.passes import PolarImages, Resolution
from siamese2d_engine.classify.polar import PolarGrid, harmonics_needed
from siamese2d_engine.ctf import CtfParameters, ctf_at
from siamese2d_engine.io.particles import ParticleImages
from siamese2d_engine.progress import progress

# Images read and transformed at once.
CHUNK = 256
BYTES_PER_SAMPLE = 8
# Least standard deviation of the background, as a fraction of the whole image's.
SMALLEST_BACKGROUND = 1e-2


@dataclass(frozen=True)
class CircularMask:
    """Soft circle around the centre of the box: 1 within `radius` pixels, 0 beyond ``radius + edge``."""

    box: int
    radius: float
    edge: float

    @property
    def outer(self) -> float:
        return self.radius + self.edge

    def weights(self) -> Tensor:
        """``(box, box)``, falling from 1 to 0 as a cosine."""
        axis = torch.arange(self.box, dtype=torch.float32) - self.box // 2
        distance = torch.hypot(axis[:, None], axis[None, :])
        return 0.5 + 0.5 * torch.cos(torch.pi * ((distance - self.radius) / self.edge).clamp(0, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """Scale images ``(n, box, box)`` so that what lies outside the circle has mean 0 and standard deviation 1."""
        outside = 1 - self.weights().to(images.device)
        outside = outside / outside.sum()
        centred = images - (images * outside).sum((-2, -1))[:, None, None]
        deviation = torch.sqrt((centred ** 2 * outside).sum((-2, -1)))
        # A background without any noise must not blow the particle up.
        floor = SMALLEST_BACKGROUND * centred.std((-2, -1))
        return centred / torch.maximum(deviation, floor).clamp_min(1e-30)[:, None, None]


def fourier_crop(images: Tensor, box: int) -> Tensor:
    """Resample square images to a smaller even `box`; values keep their sum, the centre stays at ``box // 2``."""
    old = images.shape[-1]
    if box >= old:
        return images
    half, middle = box // 2, old // 2
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(images, dim=(-2, -1))), dim=(-2, -1))
    low = spectrum[..., middle - half:middle + half, middle - half:middle + half].clone()
    # The lone frequencies of -box/2 have no partner at +box/2.
    low[..., 0, :] = 0
    low[..., :, 0] = 0
    small = torch.fft.ifft2(torch.fft.ifftshift(low, dim=(-2, -1))).real
    return torch.fft.fftshift(small, dim=(-2, -1))


def polar_grid(mask: CircularMask, rings: int) -> PolarGrid:
    """Grid for masked images: rings one Fourier pixel of the box apart, or wider where the mask is much smaller."""
    step = ring_step(mask)
    count = harmonics_needed(step * rings, mask.outer)
    return PolarGrid(mask.box, step, rings, 8 * int(np.ceil((count + 2) / 8)))


def ring_step(mask: CircularMask) -> float:
    """Distance between rings, cycles per pixel."""
    return 1 / min(mask.box, 2.4 * mask.outer)


def resolution(images: PolarImages, rings: int) -> Resolution:
    """The fewest angles and harmonics that the first `rings` need."""
    rings = min(rings, images.grid.rings)
    count = harmonics_needed(images.grid.step * rings, images.support)
    stride = max(s for s in (1, 2, 4) if s == 1 or images.grid.half_angles // s > count)
    return Resolution(rings, stride, min(count, images.grid.half_angles // stride - 1))


def transform(
    particles: ParticleImages, ctf: CtfParameters | None, mask: CircularMask, rings: int, pixel_size: float,
    device: torch.device, scratch: Path | None,
) -> PolarImages:
    """Polar samples of all particles.

    Parameters
    ----------
    particles
        ``n`` images.
    ctf
        Of the images, or None to work without.
    mask
        Applied to the images.
    rings
        Number of rings.
    pixel_size
        Angstroms.
    device
        Where the transform is done; the samples stay in main memory.
    scratch
        File for the samples, mapped into memory, where they are too many to be held; None to hold them.
    """
    grid = polar_grid(mask, rings)
    n, shape = len(particles), (len(particles), rings, grid.half_angles)
    # Fourier-cropped to just above the last ring; the grid is the same in cycles per field of view.
    small = min(mask.box, 2 * (int(np.ceil(rings * grid.step * mask.box)) + 2))
    small_grid = PolarGrid(small, grid.step * mask.box / small, rings, grid.half_angles)
    samples = (torch.empty(shape, dtype=torch.complex64) if scratch is None else
               torch.from_numpy(np.memmap(scratch, dtype=np.complex64, mode="w+", shape=shape)))
    ctf2, power = torch.ones(n, rings), torch.empty(n, rings)
    weights = mask.weights().to(device)
    kx, ky = (k.float().to(device) / pixel_size for k in grid.points)
    chunks = progress(particles.chunks(CHUNK), "transform", -(-n // CHUNK), "chunk")
    for positions, images in chunks:
        masked = mask.normalise(torch.as_tensor(images, device=device)) * weights
        spectrum = small_grid.sample(fourier_crop(masked, small))
        power[positions] = (spectrum.abs() ** 2).mean(-1).cpu()
        if ctf is not None:
            values = ctf_at(ctf.subset(positions), kx, ky)
            ctf2[positions] = (values ** 2).mean(-1).cpu()
            spectrum = spectrum * values
        samples[positions] = spectrum.cpu()
    radii = torch.as_tensor(grid.radii, dtype=torch.float32) * mask.box
    area = float((weights ** 2).mean())
    return PolarImages(grid, samples, ctf2, power, 2 * torch.pi * radii * grid.step * mask.box * area, mask.outer)


def sample_bytes(n: int, mask: CircularMask, rings: int) -> int:
    """Bytes that the polar samples of ``n`` particles need."""
    return n * rings * polar_grid(mask, rings).half_angles * BYTES_PER_SAMPLE
