"""From particle images to masked, CTF-multiplied polar samples."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.batches import Room
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
        outside = (1 - self.weights()).flatten().to(images.device)
        everywhere = torch.full_like(outside, 1 / len(outside))
        means = torch.stack([outside / outside.sum(), everywhere], dim=1)
        flat = images.flatten(1)
        flat = flat - flat @ means[:, :1]
        variance = flat.square() @ means - torch.cat([torch.zeros(len(flat), 1).to(flat), flat @ means[:, 1:]], 1) ** 2
        deviation, whole = variance.clamp_min(0).sqrt().unbind(1)
        # A background without any noise must not blow the particle up.
        scale = 1 / torch.maximum(deviation, SMALLEST_BACKGROUND * whole).clamp_min(1e-30)
        return (flat * scale[:, None]).view_as(images)


def fourier_crop(images: Tensor, box: int) -> Tensor:
    """Resample square images to a smaller even `box`; values keep their sum, the centre stays at ``box // 2``."""
    old = images.shape[-1]
    if box >= old:
        return images
    half = box // 2
    spectrum = torch.fft.rfft2(images)
    # The lone frequency of -box/2 has no partner at +box/2.
    low = torch.zeros(len(images), box, half + 1, dtype=spectrum.dtype, device=images.device)
    low[:, :half, :half] = spectrum[:, :half, :half]
    low[:, half + 1:, :half] = spectrum[:, old - half + 1:, :half]
    if old % 2:
        # In even boxes the centre lies at half the box; in an odd one, half a pixel before it.
        phase = torch.pi / old * torch.fft.fftfreq(box, 1 / box, device=images.device)
        ramp = torch.polar(torch.ones_like(phase), -phase)
        low *= ramp[:, None] * ramp[:half + 1]
    return torch.fft.irfft2(low, s=(box, box))


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


class PolarTransform:
    """Polar samples of one chunk of images after the other.

    Parameters
    ----------
    mask
        Applied to the images.
    rings
        Number of rings.
    pixel_size
        Angstroms.
    device
        Where the transform is done; its results are in main memory.
    """

    def __init__(self, mask: CircularMask, rings: int, pixel_size: float, device: torch.device):
        self.mask, self.device = mask, device
        self._room = Room(CHUNK)
        self.grid = polar_grid(mask, rings)
        # Fourier-cropped to just above the last ring; the grid is the same in cycles per field of view.
        self._small = min(mask.box, 2 * (int(np.ceil(rings * self.grid.step * mask.box)) + 2))
        self._small_grid = PolarGrid(self._small, self.grid.step * mask.box / self._small, rings, self.grid.half_angles)
        self._weights = mask.weights().to(device)
        self._kx, self._ky = (k.float().to(device) / pixel_size for k in self.grid.points)

    @property
    def pixels(self) -> Tensor:
        """Independent Fourier pixels of each ring that the mask leaves, ``(rings,)``."""
        radii = torch.as_tensor(self.grid.radii, dtype=torch.float32) * self.mask.box
        return 2 * torch.pi * radii * self.grid.step * self.mask.box * float((self._weights ** 2).mean())

    def sample(self, images: Tensor) -> Tensor:
        """Transform ``(n, rings, half_angles)`` of images ``(n, box, box)`` within the mask."""
        return self._small_grid.sample(fourier_crop(images.to(self.device) * self._weights, self._small))

    def particles(self, images: np.ndarray, ctf: CtfParameters | None) -> tuple[Tensor, Tensor, Tensor]:
        """``CTF F``, and the mean ``CTF^2`` and ``|F|^2`` of each ring, of particles ``(n, box, box)`` as they are."""
        def transformed(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            return self._particles(images[rows], None if ctf is None else ctf.subset(rows))

        return tuple(torch.cat(values) for values in zip(*self._room.batches(transformed, len(images))))

    def _particles(self, images: np.ndarray, ctf: CtfParameters | None) -> tuple[Tensor, Tensor, Tensor]:
        spectrum = self.sample(self.mask.normalise(torch.as_tensor(images, device=self.device)))
        power = torch.view_as_real(spectrum).square().sum(-1).mean(-1).cpu()
        if ctf is None:
            return spectrum.cpu(), torch.ones_like(power), power
        values = ctf_at(ctf, self._kx, self._ky)
        return (spectrum * values).cpu(), values.square().mean(-1).cpu(), power

    def gathered(self, samples: Tensor, ctf2: Tensor, power: Tensor) -> PolarImages:
        """What `particles` returned, of some or of all particles."""
        return PolarImages(self.grid, samples, ctf2, power, self.pixels, self.mask.outer)


def transform(
    particles: ParticleImages, ctf: CtfParameters | None, mask: CircularMask, rings: int, pixel_size: float,
    device: torch.device, scratch: Path | None,
) -> PolarImages:
    """Polar samples of all particles; several processes share the work, and the samples through the file.

    Parameters
    ----------
    particles
        ``n`` images.
    ctf
        Of the images, or None to work without.
    mask, rings, pixel_size, device
        See `PolarTransform`.
    scratch
        File for the samples, mapped into memory, where they are too many to be held or several processes need them;
        None to hold them.
    """
    polar = PolarTransform(mask, rings, pixel_size, device)
    n, shape = len(particles), (len(particles), rings, polar.grid.half_angles)
    samples = torch.empty(shape, dtype=torch.complex64) if scratch is None else _mapped(scratch, shape)
    ctf2, power = torch.zeros(n, rings), torch.zeros(n, rings)
    mine = distributed.share(range(n))
    chunks = progress(particles.chunks(CHUNK, mine), "transform", len(mine), "particle",
                      count=lambda chunk: len(chunk[0]))
    for positions, images in chunks:
        part = None if ctf is None else ctf.subset(positions)
        samples[positions], ctf2[positions], power[positions] = polar.particles(images, part)
    distributed.add(ctf2, power)
    return polar.gathered(samples, ctf2, power)


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
    """A new file as an array that all processes share."""
    if distributed.is_main():
        np.memmap(path, dtype=np.complex64, mode="w+", shape=shape)
    distributed.wait()
    return torch.from_numpy(np.memmap(path, dtype=np.complex64, mode="r+", shape=shape))


def first_rings(images: PolarImages, rings: int) -> PolarImages:
    """The same images on their first rings only."""
    grid = replace(images.grid, rings=rings)
    return PolarImages(grid, images.samples[:, :rings], images.ctf2[:, :rings], images.power[:, :rings],
                       images.pixels[:rings], images.support)


def sample_bytes(n: int, mask: CircularMask, rings: int) -> int:
    """Bytes that the polar samples of ``n`` particles need."""
    return n * rings * polar_grid(mask, rings).half_angles * BYTES_PER_SAMPLE
