"""Whole micrographs with particles, ice, carbon, background and noise, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.ctf import CtfParameters, ctf_at
from siamese2d_engine.devices import seeded_generator
from siamese2d_engine.simulate.junk import CarbonEdge, IceBlob, random_carbon, random_ice
from siamese2d_engine.simulate.noise import envelope, noise_power, shape_noise, slow_background, squared_frequency
from siamese2d_engine.simulate.optics import random_ctf
from siamese2d_engine.simulate.orientations import random_angles, rotation_matrices
from siamese2d_engine.simulate.projection import FourierVolume, shift_ramp

BOX_OVER_DIAMETER = 1.5  # box in which particles are projected, and in which their signal is measured for the SNR
CLEARANCE = 0.9  # distance of neighbours over the diameter, at least
ONE_CARBON_EDGE_IN = 4  # micrographs
TRIES_PER_PARTICLE = 60
MEAN_COUNT = 20.0  # of empty ice in standard deviations of the noise: that of 400 electrons per pixel


@dataclass
class MicrographPlan:
    """Everything random about one micrograph except its noise; lengths in pixels, angles in radians.

    Parameters
    ----------
    positions
        ``(n, 2)`` (x, y) of the particles' centres.
    species
        ``(n,)`` index of the volume, from 0.
    angles
        ``(n, 3)`` rot, tilt, psi.
    amplitudes
        ``(n,)`` contrast of each particle relative to the mean.
    ctf
        Parameters of the one image.
    ice, carbon
        What is no particle.
    gain
        Of the detector, which counts: recorded = gain * (`MEAN_COUNT` - scattering - noise). Dose and ice thickness
        scale the whole image, level and contrast alike.
    """

    positions: np.ndarray
    species: np.ndarray
    angles: np.ndarray
    amplitudes: np.ndarray
    ctf: CtfParameters
    ice: list[IceBlob]
    carbon: CarbonEdge | None
    gain: float


def particle_box(diameter: float, pixel_size: float) -> int:
    """Even side in pixels of the box that a particle is projected in; `diameter` in angstroms."""
    return 2 * int(np.ceil(BOX_OVER_DIAMETER * diameter / pixel_size / 2))


def plan_micrograph(
    index: int, size: int, pixel_size: float, particles: int, species: int, diameter: float, seed: int
) -> MicrographPlan:
    """Decide what micrograph number `index` (from 0) shows; depends on nothing but the arguments.

    Particles lie at least ``0.9 * diameter`` apart, whole inside the image and beside the junk. Where no more find room
    there are fewer of them.

    Parameters
    ----------
    size
        Side of the square micrograph, pixels.
    pixel_size
        Angstroms.
    particles
        Wanted number.
    species
        Number of volumes, all equally frequent.
    diameter
        Of the largest particle, angstroms.
    """
    rng = np.random.default_rng([seed, 2, index])
    radius = diameter / pixel_size / 2
    carbon = random_carbon(size, size, rng) if index % ONE_CARBON_EDGE_IN == ONE_CARBON_EDGE_IN - 1 else None
    large = random_ice(int(rng.integers(2, 6)), size, size, (1.2 * radius, 2.5 * radius), rng)
    small = random_ice(int(rng.integers(3, 9)), size, size, (0.15 * radius, 0.35 * radius), rng)
    positions = _place(particles, size, radius, large + small, carbon, rng)
    n = len(positions)
    return MicrographPlan(
        positions=positions,
        species=rng.integers(species, size=n),
        angles=random_angles(n, rng),
        amplitudes=np.exp(0.1 * rng.normal(size=n)),
        ctf=random_ctf(1, rng),
        ice=large + small,
        carbon=carbon,
        gain=rng.uniform(5, 15),
    )


def _place(
    count: int, size: int, radius: float, ice: list[IceBlob], carbon: CarbonEdge | None, rng: np.random.Generator
) -> np.ndarray:
    """Random places ``(n, 2)``, n <= count, clear of each other, of the border and of the junk."""
    tried = rng.uniform(radius, size - 1 - radius, size=(TRIES_PER_PARTICLE * count, 2))
    x, y = torch.from_numpy(tried.T)
    free = torch.ones(len(tried), dtype=torch.bool)
    for blob in ice:
        free &= blob.depth(x, y) > radius
    if carbon is not None:
        free &= carbon.depth(x - size / 2, y - size / 2) > 1.5 * radius
    placed = np.empty((count, 2))
    used = 0
    for place in tried[free.numpy()]:
        if used == count:
            break
        if (np.square(placed[:used] - place).sum(axis=1) >= (2 * radius * CLEARANCE) ** 2).all():
            placed[used], used = place, used + 1
    return placed[:used]


def render_micrograph(
    plan: MicrographPlan,
    volumes: list[FourierVolume],
    size: int,
    pixel_size: float,
    diameter: float,
    snr: float,
    generator: torch.Generator,
) -> Tensor:
    """The micrograph ``(size, size)`` as a camera records it: dark particles, arbitrary gain.

    Parameters
    ----------
    volumes
        One for each species.
    snr
        Mean variance of the signal in the particles' boxes (1.5 diameters) over the variance of the noise.
    generator
        Of the noise.
    """
    box = particle_box(diameter, pixel_size)
    s2 = squared_frequency(size, size, pixel_size)
    kx = torch.fft.rfftfreq(size, pixel_size).expand(size, -1)
    ky = torch.fft.fftfreq(size, pixel_size)[:, None].expand_as(kx)
    ctf = ctf_at(plan.ctf, kx, ky)[0]
    scattering = project_particles(plan, volumes, size, box, pixel_size)
    signal = torch.fft.irfft2(torch.fft.rfft2(scattering) * ctf * envelope(s2), s=(size, size))
    image = signal * _signal_scale(signal, plan.positions, box, snr)
    image += shape_noise(torch.randn(size, size, generator=generator), noise_power(s2, ctf))
    _add_junk(image, plan, s2, pixel_size, generator)
    image += 0.5 * slow_background(size, size, generator)
    return plan.gain * (MEAN_COUNT - image)


def project_particles(
    plan: MicrographPlan, volumes: list[FourierVolume], size: int, box: int, pixel_size: float
) -> Tensor:
    """Sum ``(size, size)`` of all particles' projections at their places, without CTF and noise."""
    canvas = torch.zeros(size + 2 * box, size + 2 * box)  # room for boxes that stick out
    whole = np.round(plan.positions).astype(int)
    rotations = rotation_matrices(plan.angles)
    for number, volume in enumerate(volumes):
        rows = np.flatnonzero(plan.species == number)
        if not len(rows):
            continue
        transform = volume.slices(rotations[rows], box, pixel_size)
        transform = transform * shift_ramp(plan.positions[rows] - whole[rows], box)
        images = torch.fft.irfft2(transform, s=(box, box))
        for row, image in zip(rows, images):
            left, top = whole[row] + box - box // 2
            canvas[top : top + box, left : left + box] += float(plan.amplitudes[row]) * image
    return canvas[box:-box, box:-box]


def _signal_scale(signal: Tensor, positions: np.ndarray, box: int, snr: float) -> float:
    """Factor that gives the signal in the particles' boxes the mean variance `snr`."""
    corners = np.maximum(np.round(positions).astype(int) - box // 2, 0)
    variances = [float(signal[y : y + box, x : x + box].var()) for x, y in corners]
    return float(np.sqrt(snr / np.mean(variances))) if variances else 1.0


def _add_junk(image: Tensor, plan: MicrographPlan, s2: Tensor, pixel_size: float, generator: torch.Generator) -> None:
    for blob in plan.ice:
        blob.paint(image)
    if plan.carbon is not None:
        grain = torch.exp(-s2 * (12 * pixel_size) ** 2)  # carbon texture some ten pixels wide
        plan.carbon.paint(image, shape_noise(torch.randn(image.shape, generator=generator), grain))


def noise_generator(seed: int, index: int) -> torch.Generator:
    """The generator of the noise of micrograph (or chunk of particles) number `index`."""
    return seeded_generator(seed, 3, index)
