"""Full-size class averages: images moved by their alignment and summed, corrected for the CTF."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.batches import Room
from siamese2d_engine.classify.prepare import CHUNK, CircularMask
from siamese2d_engine.ctf import CtfParameters, ctf_grid
from siamese2d_engine.io.particles import ParticleImages
from siamese2d_engine.progress import progress

# Added to the summed CTF^2, as a fraction of its mean, so that zeros of the CTF are not amplified.
WIENER_FLOOR = 0.1


@dataclass(frozen=True)
class Alignment:
    """Class and in-plane pose of ``n`` images.

    The aligned image has its content at ``R(psi) (x + origin)``; with `flips` it is then mirrored in x.

    Attributes
    ----------
    classes
        0 .. K - 1, ``(n,)``.
    psi
        Radians, ``(n,)``.
    origins
        Pixels (x, y), ``(n, 2)``.
    flips
        ``(n,)`` bool.
    """

    classes: np.ndarray
    psi: np.ndarray
    origins: np.ndarray
    flips: np.ndarray

    def __getitem__(self, rows) -> "Alignment":
        return Alignment(self.classes[rows], self.psi[rows], self.origins[rows], self.flips[rows])


@dataclass
class HalfAverages:
    """Averages of two halves of each class and of all its members.

    Attributes
    ----------
    halves
        ``(2, K, box, box)``, not filtered.
    whole
        ``(K, box, box)``, not filtered.
    """

    halves: Tensor
    whole: Tensor


def align_images(images: Tensor, psi: Tensor, origins: Tensor, flips: Tensor) -> Tensor:
    """Move images into their class's frame.

    The images are sampled by cubic interpolation after being made twice as large in Fourier space, where it is
    accurate up to the original Nyquist frequency; what comes from outside the box is zero.

    Parameters
    ----------
    images
        ``(n, box, box)``.
    psi, origins, flips
        See `Alignment`.
    """
    box = images.shape[-1]
    axis = torch.arange(box, dtype=images.dtype, device=images.device) - box // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cosine, sine = torch.cos(psi)[:, None, None], torch.sin(psi)[:, None, None]
    x = torch.where(flips[:, None, None], -x, x)
    # The inverse of x' = R(psi) (x + origin).
    source_x = cosine * x + sine * y - origins[:, 0, None, None]
    source_y = cosine * y - sine * x - origins[:, 1, None, None]
    positions = torch.stack([source_x, source_y], dim=-1) + box // 2
    large = twice_as_large(images)
    return torch.nn.functional.grid_sample(
        large[:, None], 4 * positions / (2 * box - 1) - 1, mode="bicubic", padding_mode="zeros", align_corners=True)[:, 0]


def twice_as_large(images: Tensor) -> Tensor:
    """Images ``(n, box, box)`` on a grid of half the spacing, ``(n, 2 box, 2 box)``, by zero padding in Fourier space.

    Pixel ``2 i`` of the result lies where pixel ``i`` lay.
    """
    box = images.shape[-1]
    spectrum = torch.fft.rfft2(images)
    half = (box - 1) // 2
    padded = torch.zeros(len(images), 2 * box, box + 1, dtype=spectrum.dtype, device=images.device)
    padded[:, :half + 1, :half + 1] = spectrum[:, :half + 1, :half + 1]
    padded[:, 2 * box - half:, :half + 1] = spectrum[:, box - half:, :half + 1]
    return 4 * torch.fft.irfft2(padded, s=(2 * box, 2 * box))


def class_averages(
    particles: ParticleImages, ctf: CtfParameters | None, alignment: Alignment, classes: int, mask: CircularMask,
    pixel_size: float, device: torch.device,
) -> HalfAverages:
    """Averages of aligned members, ``sum CTF F / (sum CTF^2 + floor)`` in the classes' frames; several processes share
    the members.

    Parameters
    ----------
    particles
        ``n`` images.
    ctf
        Of the images, or None for plain averages.
    alignment
        Of the images.
    classes
        ``K``.
    mask
        What lies outside it sets the images' zero and scale.
    pixel_size
        Angstroms.
    device
        Where to compute.
    """
    box = particles.box
    sums = torch.zeros(2 * classes, box, box, device=device)
    weights = torch.zeros(2 * classes, box, box // 2 + 1, device=device)
    mine = distributed.share(range(len(particles)))
    chunks = progress(particles.chunks(CHUNK, mine), "average", len(mine), "particle",
                      count=lambda chunk: len(chunk[0]))

    def add(positions: np.ndarray, images: np.ndarray) -> None:
        part = alignment[positions]
        own_ctf = None if ctf is None else ctf.subset(positions)
        aligned, power = _aligned(images, own_ctf, part, mask, pixel_size, device)
        slot = torch.as_tensor(positions % 2 * classes + part.classes, device=device)
        # All or nothing: from here on no memory is asked for.
        sums.index_add_(0, slot, aligned)
        weights.index_add_(0, slot, power)

    room = Room(CHUNK)
    for positions, images in chunks:
        list(room.batches(lambda rows: add(positions[rows], images[rows]), len(positions)))
    distributed.add(sums, weights)
    sums, weights = sums.view(2, classes, box, box), weights.view(2, classes, box, -1)
    return HalfAverages(_corrected(sums, weights), _corrected(sums.sum(0), weights.sum(0)))


def _aligned(
    images: np.ndarray, ctf: CtfParameters | None, alignment: Alignment, mask: CircularMask, pixel_size: float,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Images times their CTF, ``(n, box, box)``, and ``CTF^2``, ``(n, box, box // 2 + 1)``, in their classes' frames."""
    box, poses = mask.box, (alignment.psi, alignment.origins, alignment.flips)
    psi, origins, flips = (torch.as_tensor(values, device=device) for values in poses)
    normal = mask.normalise(torch.as_tensor(images, device=device))
    if ctf is None:
        power = torch.ones(len(normal), box, box // 2 + 1, device=device)
    else:
        normal = torch.fft.irfft2(torch.fft.rfft2(normal) * ctf_grid(ctf, box, pixel_size, device), s=(box, box))
        power = ctf_grid(aligned_ctf(ctf, alignment), box, pixel_size, device) ** 2
    return align_images(normal, psi.float(), origins.float(), flips), power


def aligned_ctf(ctf: CtfParameters, alignment: Alignment) -> CtfParameters:
    """The CTF of aligned images: the astigmatism turns with the image and is mirrored with it."""
    angle = ctf.astigmatism_angle + alignment.psi
    return replace(ctf, astigmatism_angle=np.where(alignment.flips, np.pi - angle, angle))


def _corrected(sums: Tensor, weights: Tensor) -> Tensor:
    """``sums / (weights + floor)`` in Fourier space, for images ``(..., box, box)``."""
    box = sums.shape[-1]
    floor = WIENER_FLOOR * weights.mean((-2, -1), keepdim=True)
    spectrum = torch.fft.rfft2(torch.fft.ifftshift(sums, dim=(-2, -1)))
    corrected = spectrum / (weights + floor).clamp_min(1e-6)
    return torch.fft.fftshift(torch.fft.irfft2(corrected, s=(box, box)), dim=(-2, -1))
