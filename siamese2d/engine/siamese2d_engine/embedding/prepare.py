"""From particle images as extracted to the small, centred spectra that networks and features see.

Spectra are those of ``torch.fft.rfft2`` after ``ifftshift``: the image centre (pixel ``n // 2``) is the origin, so that
a shift is a phase ramp and a random half of the coefficients is again an image of the same particle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.ctf import CtfParameters, ctf_grid
from siamese2d_engine.embedding.centring import shift_spectra
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.particles import IMAGE, ParticleSet, ctf_parameters
from siamese2d_engine.progress import progress

CHUNK = 1024
# A model is used on particles of another pixel size when the best even box matches its scale this well.
LARGEST_SCALE_ERROR = 0.02


@dataclass(frozen=True)
class Preparation:
    """What is done to every particle image before a network sees it; part of a model's header.

    Attributes
    ----------
    box, pixel_size : int, float
        Of the particles that the model was trained on; pixels, angstroms per pixel.
    working_box : int
        Even width of the images that the network sees, pixels.
    phase_flip : bool
        Correct the sign of the CTF where the particles have one.
    mask_radius : float
        Of the soft circular mask, working pixels.
    """

    box: int
    pixel_size: float
    working_box: int
    phase_flip: bool
    mask_radius: float

    @property
    def working_pixel_size(self) -> float:
        """Angstroms per pixel of the images that the network sees."""
        return self.pixel_size * _even(self.box) / self.working_box

    def to_header(self) -> dict:
        """JSON-serialisable form."""
        return asdict(self)

    @classmethod
    def for_particles(cls, particles: ParticleSet, working_box: int, phase_flip: bool,
                      mask_diameter: float | None) -> Preparation:
        """Preparation of these particles for training; `mask_diameter` in angstroms, by default the whole box."""
        working_box = _even(min(working_box, particles.box))
        largest = working_box / 2 - 1
        radius = largest
        if mask_diameter is not None:
            radius = min(largest, mask_diameter / 2 / (particles.pixel_size * _even(particles.box) / working_box))
            if radius < 4:
                raise InputError(f"--mask-diameter {mask_diameter:g}: less than 8 of the {working_box} pixels that the "
                                 "network sees. Give the particle's diameter in angstroms, or extract smaller boxes.")
        return cls(particles.box, particles.pixel_size, working_box, phase_flip, radius)

    def input_box(self, particles: ParticleSet, report: Callable[[str], None]) -> int:
        """Width in pixels of the part of these particles' images that covers the field of view of the model.

        Raises
        ------
        InputError
            When their pixels are too coarse for the model, or no even width brings them to its scale.
        """
        same_scale = abs(particles.pixel_size / self.pixel_size - 1) < 1e-3
        if particles.box == self.box and same_scale:
            return _even(self.box)
        field = self.working_box * self.working_pixel_size
        box = 2 * round(field / particles.pixel_size / 2)
        if box < self.working_box:
            raise InputError(f"The particles have {particles.pixel_size:g} A per pixel, coarser than the "
                             f"{self.working_pixel_size:g} A that the model sees. Extract them with less downsampling, "
                             "or train a model on them.")
        error = abs(box * particles.pixel_size / field - 1)
        if error > LARGEST_SCALE_ERROR:
            raise InputError(f"The particles ({particles.box} pixels of {particles.pixel_size:g} A) can't be brought "
                             f"to the scale of the model ({self.box} pixels of {self.pixel_size:g} A) within "
                             f"{100 * LARGEST_SCALE_ERROR:g} %. Scale them first, or train a model on them.")
        report(f"The model was trained on boxes of {self.box} pixels of {self.pixel_size:g} A; these particles of "
               f"{particles.box} pixels of {particles.pixel_size:g} A are cut or padded to {box} pixels and rescaled "
               f"to it (scale within {100 * error:.1f} %).")
        return box


def read_spectra(particles: ParticleSet, preparation: Preparation, report: Callable[[str], None],
                 rows: np.ndarray | None = None) -> Tensor:
    """Read, check, normalise, phase-flip and Fourier-crop particles.

    Parameters
    ----------
    particles, preparation
        What, and how.
    report
        Called with sentences that the user should see.
    rows
        Positions in the set that `particles` are (for messages), by default ``0..n-1``.

    Returns
    -------
    Tensor
        Complex ``(n, w, w // 2 + 1)``; the images have variance 1 over the working box. Not centred, not masked.

    Raises
    ------
    InputError
        When an image is constant or holds values that are not finite, or the scale doesn't fit the model.
    """
    box = preparation.input_box(particles, report)
    ctf = ctf_parameters(particles) if preparation.phase_flip else None
    if preparation.phase_flip and ctf is None:
        report("The particles have no CTF (no rlnDefocusU): phases are not flipped.")
    width = preparation.working_box
    spectra = torch.empty(len(particles), width, width // 2 + 1, dtype=torch.complex64)
    chunks = progress(particles.images.chunks(CHUNK), "prepare", len(particles), "particle",
                      count=lambda chunk: len(chunk[0]))
    for positions, images in chunks:
        _check(images, positions if rows is None else rows[positions], particles, positions)
        chunk_ctf = None if ctf is None else ctf.subset(positions)
        spectra[torch.as_tensor(positions)] = _spectra(torch.from_numpy(images), box, particles.pixel_size, chunk_ctf,
                                                       width)
    return spectra


def _spectra(images: Tensor, box: int, pixel_size: float, ctf: CtfParameters | None, working_box: int) -> Tensor:
    spectra = torch.fft.rfft2(torch.fft.ifftshift(_cut_or_pad(_standardise(images), box), dim=(-2, -1)))
    if ctf is not None:
        # A CTF of exactly zero keeps its phase; torch.sign would remove the coefficient.
        spectra = torch.where(ctf_grid(ctf, box, pixel_size) < 0, -spectra, spectra)
    return unit_variance(crop_spectra(spectra, working_box))


def crop_spectra(spectra: Tensor, box: int) -> Tensor:
    """Low-frequency part ``(..., box, box // 2 + 1)`` of half spectra of square images; Nyquist terms and mean are
    zero."""
    half = box // 2
    low = torch.cat([spectra[..., :half, : half + 1], spectra[..., -half:, : half + 1]], dim=-2)
    low[..., half, :] = 0
    low[..., :, half] = 0
    low[..., 0, 0] = 0
    return low


def to_images(spectra: Tensor) -> Tensor:
    """Images ``(..., w, w)`` of half spectra ``(..., w, w // 2 + 1)``, origin at pixel ``w // 2``."""
    width = spectra.shape[-2]
    return torch.fft.fftshift(torch.fft.irfft2(spectra, s=(width, width)), dim=(-2, -1))


def to_spectra(images: Tensor) -> Tensor:
    """Half spectra of images, the inverse of `to_images`."""
    return torch.fft.rfft2(torch.fft.ifftshift(images, dim=(-2, -1)))


def unit_variance(spectra: Tensor) -> Tensor:
    """Scale each half spectrum so that its image has variance 1 (Parseval; columns other than 0 and Nyquist count
    twice)."""
    width = spectra.shape[-2]
    counts = torch.full((spectra.shape[-1],), 2.0, device=spectra.device)
    counts[0] = 1
    counts[-1] = 1
    power = (spectra.abs().square() * counts).sum(dim=(-2, -1), keepdim=True) / width**4
    return spectra / power.sqrt().clamp_min(1e-12)


def soft_mask(width: int, radius: float, edge: float = 3.0) -> Tensor:
    """Circular mask ``(width, width)``: 1 up to `edge` pixels within `radius`, falling as a cosine to 0 at `radius`."""
    axis = torch.arange(width, dtype=torch.float32) - width // 2
    distance = torch.hypot(axis[:, None], axis[None, :])
    return 0.5 + 0.5 * torch.cos(torch.pi * ((distance - radius + edge) / edge).clamp(0, 1))


def given_shifts(particles: ParticleSet, preparation: Preparation) -> Tensor | None:
    """Shifts ``(n, 2)`` (x, y) in working pixels from ``rlnOriginXAngst``, ``rlnOriginYAngst``; None where there are
    none."""
    columns = ("rlnOriginXAngst", "rlnOriginYAngst")
    if not set(columns) <= set(particles.table):
        return None
    values = particles.table[list(columns)].to_numpy(np.float32)
    return torch.from_numpy(values / np.float32(preparation.working_pixel_size))


def align(spectra: Tensor, shifts: Tensor, angles: Tensor, flips: Tensor) -> Tensor:
    """Apply the alignment of RELION's columns: shift, rotate, then mirror.

    Parameters
    ----------
    spectra
        Complex ``(n, w, w // 2 + 1)``.
    shifts
        ``(n, 2)`` added to the content's position, working pixels.
    angles
        ``(n,)`` psi in radians: content moves to ``x' = R(psi) (x + shift)``.
    flips
        ``(n,)`` bool: then mirrored in x.
    """
    images = to_images(shift_spectra(spectra, shifts))
    return to_spectra(rotate(images, angles, flips))


def rotate(images: Tensor, angles: Tensor, flips: Tensor) -> Tensor:
    """Rotate the content of images ``(n, w, w)`` by ``R(angle)`` about pixel ``w // 2``, then mirror in x where
    `flips`.

    Bicubic interpolation; pixels from outside the image are 0.
    """
    width = images.shape[-1]
    axis = torch.arange(width, dtype=images.dtype, device=images.device) - width // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x = torch.where(flips[:, None, None], -x, x)
    c, s = torch.cos(angles)[:, None, None], torch.sin(angles)[:, None, None]
    # An output pixel takes its value from R(-angle) of its position.
    source = torch.stack([c * x + s * y, -s * x + c * y], dim=-1)
    grid = (2 * (source + width // 2) + 1) / width - 1
    return torch.nn.functional.grid_sample(images[:, None], grid, mode="bicubic", align_corners=False)[:, 0]


def _even(number: int) -> int:
    return number - number % 2


def _check(images: np.ndarray, rows: np.ndarray, particles: ParticleSet, positions: np.ndarray) -> None:
    finite = np.isfinite(images).all(axis=(1, 2))
    # The range of an image tells constant ones apart without rounding, which a variance of a large offset would suffer.
    flat = images.max(axis=(1, 2)) == images.min(axis=(1, 2))
    for bad, what in ((~finite, "holds values that are not finite (NaN or infinite)"), (flat, "is constant")):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            name = particles.table[IMAGE].iloc[positions[first]]
            raise InputError(f"Particle row {rows[first] + 1} ({name}): the image {what}. Remove this particle, or "
                             "extract it again.")


def _standardise(images: Tensor) -> Tensor:
    mean = images.mean(dim=(-2, -1), keepdim=True)
    return (images - mean) / images.std(dim=(-2, -1), keepdim=True)


def _cut_or_pad(images: Tensor, box: int) -> Tensor:
    """The central ``box x box`` pixels, with zeros (the mean) around where the images are smaller."""
    missing = box // 2 - images.shape[-1] // 2
    after = box - images.shape[-1] - missing
    return torch.nn.functional.pad(images, (missing, after, missing, after))
