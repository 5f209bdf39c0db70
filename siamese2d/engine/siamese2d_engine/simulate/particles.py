"""Stacks of particle images with known species, orientation, shift and junk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.ctf import CtfParameters, ctf_grid
from siamese2d_engine.simulate.junk import random_carbon, random_ice
from siamese2d_engine.simulate.micrographs import noise_generator
from siamese2d_engine.simulate.noise import envelope, noise_power, shape_noise, squared_frequency
from siamese2d_engine.simulate.optics import random_ctf
from siamese2d_engine.simulate.orientations import random_angles, rotation_matrices, view_directions
from siamese2d_engine.simulate.projection import FourierVolume, shift_ramp
from siamese2d_engine.simulate.volumes import Volume, make_proteins, sample_density

CHUNK = 256  # images drawn together; fixed, because the noise is seeded by chunk
PARTICLES_PER_MICROGRAPH = 100
JUNK_KINDS = ("empty", "pair", "ice", "edge")
BORDER = 2  # pixels inside the border whose mean is the background


@dataclass
class ParticleTruth:
    """What each of ``n`` images shows.

    Parameters
    ----------
    species
        ``(n,)`` from 1; 0 is junk.
    junk
        ``(n,)`` kind of junk, an index of ``JUNK_KINDS``; -1 for particles.
    angles
        ``(n, 3)`` rot, tilt, psi in radians.
    shifts
        ``(n, 2)`` (x, y) of the particle from the centre of its box, pixels. RELION's origin is the opposite.
    amplitudes
        ``(n,)`` relative contrast.
    micrographs
        ``(n,)`` number of the micrograph, from 0; its particles share a defocus.
    ctf
        CTF parameters of each image; None without CTF.
    """

    species: np.ndarray
    junk: np.ndarray
    angles: np.ndarray
    shifts: np.ndarray
    amplitudes: np.ndarray
    micrographs: np.ndarray
    ctf: CtfParameters | None

    def __len__(self) -> int:
        return len(self.species)

    @property
    def view_directions(self) -> np.ndarray:
        """Viewing directions ``(n, 3)``, unit vectors in the volume's frame."""
        return view_directions(self.angles[:, 0], self.angles[:, 1])


@dataclass
class SimulatedParticles:
    """Images ``(n, box, box)`` float32, bright on dark, noise of variance 1 about 0; pixel size in angstroms; truth."""

    images: np.ndarray
    pixel_size: float
    truth: ParticleTruth


def plan_particles(
    count: int, species: int, max_shift: float, junk: float = 0.0, ctf: bool = True, seed: int = 0
) -> ParticleTruth:
    """Decide what each image shows.

    Parameters
    ----------
    count
        Number of images.
    species
        Number of volumes, all equally frequent.
    max_shift
        Largest shift along x and y, pixels.
    junk
        Fraction of images that show no single particle.
    ctf
        Whether the images are affected by a CTF.
    """
    rng = np.random.default_rng([seed, 4])
    junk_count = round(junk * count)
    labels = np.concatenate([np.arange(count - junk_count) % species + 1, np.zeros(junk_count, dtype=int)])
    rng.shuffle(labels)
    micrographs = np.arange(count) // PARTICLES_PER_MICROGRAPH
    optics = random_ctf(int(micrographs[-1]) + 1, rng).subset(micrographs)
    return ParticleTruth(
        species=labels,
        junk=np.where(labels == 0, rng.integers(len(JUNK_KINDS), size=count), -1),
        angles=random_angles(count, rng),
        shifts=rng.uniform(-max_shift, max_shift, size=(count, 2)),
        amplitudes=np.exp(0.1 * rng.normal(size=count)),
        micrographs=micrographs,
        ctf=optics if ctf else None,
    )


class ParticleRenderer:
    """Draws the images of a plan, a chunk at a time.

    Parameters
    ----------
    truth
        The plan.
    volumes
        One for each species.
    box, pixel_size
        Of the images, pixels and angstroms.
    snr
        Variance of the signal with its CTF, over the whole box, over the variance of the noise; mean of the particles.
    coloured
        Noise with a spectrum rather than white.
    seed
        Of the noise.
    """

    def __init__(
        self,
        truth: ParticleTruth,
        volumes: list[Volume],
        box: int,
        pixel_size: float,
        snr: float,
        coloured: bool = True,
        seed: int = 0,
    ):
        self.truth, self.box, self.pixel_size, self.coloured, self.seed = truth, box, pixel_size, coloured, seed
        self.radius = max(volume.diameter for volume in volumes) / pixel_size / 2
        self.volumes = [FourierVolume(volume.density, volume.voxel_size) for volume in volumes]
        self.s2 = squared_frequency(box, box, pixel_size)
        self.scale = self._scale(snr)

    def chunks(self):
        """Yield ``(start, images)`` until all images are drawn."""
        for number, start in enumerate(range(0, len(self.truth), CHUNK)):
            rows = np.arange(start, min(start + CHUNK, len(self.truth)))
            yield start, self._noisy(rows, noise_generator(self.seed, number)).numpy()

    def clean(self, rows: np.ndarray, with_ctf: bool = True) -> Tensor:
        """Signal ``(k, box, box)`` of some images without noise, in units of the noise's standard deviation."""
        transform = self._scattering(rows)
        if with_ctf:
            transform = transform * self._transfer(rows)
        return self.scale * torch.fft.irfft2(transform, s=(self.box, self.box))

    def _scale(self, snr: float) -> float:
        particles = np.flatnonzero(self.truth.species > 0)[:CHUNK]
        if not len(particles):
            return 1.0
        self.scale = 1.0
        return float(torch.sqrt(snr / self.clean(particles).var(dim=(1, 2)).mean()))

    def _transfer(self, rows: np.ndarray) -> Tensor:
        if self.truth.ctf is None:
            return envelope(self.s2)
        return ctf_grid(self.truth.ctf.subset(rows), self.box, self.pixel_size) * envelope(self.s2)

    def _scattering(self, rows: np.ndarray) -> Tensor:
        """Transforms of the shifted projections; junk of the kind 'pair' has two particles, other junk none."""
        transform = torch.zeros(len(rows), self.box, self.box // 2 + 1, dtype=torch.complex64)
        rotations = rotation_matrices(self.truth.angles[rows])
        for number, volume in enumerate(self.volumes):
            own = np.flatnonzero(self.truth.species[rows] == number + 1)
            if len(own):
                transform[own] = volume.slices(rotations[own], self.box, self.pixel_size)
        transform *= shift_ramp(self.truth.shifts[rows], self.box)
        for place in np.flatnonzero(self.truth.junk[rows] == JUNK_KINDS.index("pair")):
            transform[place] = self._pair(rows[place])
        return transform * torch.as_tensor(self.truth.amplitudes[rows], dtype=torch.float32)[:, None, None]

    def _pair(self, row: int) -> Tensor:
        """Two particles beside each other, the centre of the box between them."""
        rng = np.random.default_rng([self.seed, 5, int(row)])
        rotations = rotation_matrices(random_angles(2, rng))
        towards, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.1) * self.radius
        places = distance * np.array([[np.cos(towards), np.sin(towards)], [-np.cos(towards), -np.sin(towards)]])
        volumes = [self.volumes[i] for i in rng.integers(len(self.volumes), size=2)]
        slices = [
            volume.slices(rotation[None], self.box, self.pixel_size) for volume, rotation in zip(volumes, rotations)
        ]
        return (torch.cat(slices) * shift_ramp(places, self.box)).sum(dim=0)

    def _noisy(self, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        images = self.clean(rows)
        for place, row in enumerate(rows):
            self._paint_junk(images[place], int(row))
        noise = torch.randn(images.shape, generator=generator)
        images += shape_noise(noise, self._noise_power(rows)) if self.coloured else noise
        return images - self._background(images)

    def _noise_power(self, rows: np.ndarray) -> Tensor:
        ctf = None if self.truth.ctf is None else ctf_grid(self.truth.ctf.subset(rows), self.box, self.pixel_size)
        return noise_power(self.s2, ctf)

    def _paint_junk(self, image: Tensor, row: int) -> None:
        kind = JUNK_KINDS[self.truth.junk[row]] if self.truth.junk[row] >= 0 else None
        rng = np.random.default_rng([self.seed, 6, row])
        if kind == "ice":
            for blob in random_ice(
                int(rng.integers(1, 4)), self.box, self.box, (0.15 * self.radius, 0.6 * self.radius), rng
            ):
                blob.paint(image)
        elif kind == "edge":
            edge = random_carbon(self.box, self.box, rng)
            edge.offset *= rng.uniform(-0.6, 0.6)
            edge.paint(image, torch.zeros_like(image))

    def _background(self, images: Tensor) -> Tensor:
        """Mean of the border of each image, ``(k, 1, 1)``."""
        border = torch.ones(self.box, self.box, dtype=torch.bool)
        border[BORDER:-BORDER, BORDER:-BORDER] = False
        return images[:, border].mean(dim=1)[:, None, None]


def make_volumes(species: int, diameter: float, pixel_size: float, seed: int) -> list[Volume]:
    """Densities of made-up proteins on a grid of the images' pixel size."""
    return [sample_density(protein, pixel_size) for protein in make_proteins(species, diameter, seed)]


def simulate_particles(
    count: int,
    box: int = 64,
    pixel_size: float = 4.0,
    species: int = 3,
    snr: float = 0.1,
    max_shift: float = 8.0,
    junk: float = 0.0,
    ctf: bool = True,
    coloured: bool = True,
    diameter: float | None = None,
    volumes: list[Volume] | None = None,
    seed: int = 0,
) -> SimulatedParticles:
    """Simulate a stack of particle images in memory.

    Parameters
    ----------
    count
        Number of images.
    box, pixel_size
        Pixels and angstroms.
    species
        Number of made-up proteins; ignored when `volumes` are given.
    snr
        Variance of the signal over the whole box over the variance of the noise.
    max_shift
        Largest shift along x and y, angstroms.
    junk
        Fraction of junk.
    ctf, coloured
        Switch off for plain projections, and for white noise.
    diameter
        Of the largest protein, angstroms; 0.65 of the box by default.
    volumes
        Densities to project instead of made-up proteins.
    seed
        The same seed gives the same images.
    """
    if volumes is None:
        volumes = make_volumes(species, diameter or default_diameter(box, pixel_size), pixel_size, seed)
    truth = plan_particles(count, len(volumes), max_shift / pixel_size, junk, ctf, seed)
    renderer = ParticleRenderer(truth, volumes, box, pixel_size, snr, coloured, seed)
    return SimulatedParticles(np.concatenate([images for _, images in renderer.chunks()]), pixel_size, truth)


def default_diameter(box: int, pixel_size: float) -> float:
    """Diameter in angstroms of made-up proteins that leaves room for shifts in the box."""
    return 0.65 * box * pixel_size
