"""Simulated micrographs to learn from, no two alike: particles, what is no particle, noise and treatment all vary."""

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.picking.inputs import WORKING_DIAMETER, flatten, resample, working_shape
from siamese2d_engine.picking.pretrain.particles import random_blob, random_particle
from siamese2d_engine.picking.sampling import LabelledMicrograph
from siamese2d_engine.simulate.micrographs import MicrographPlan, plan_micrograph, render_micrograph
from siamese2d_engine.simulate.noise import shape_noise, squared_frequency
from siamese2d_engine.simulate.projection import FourierVolume
from siamese2d_engine.simulate.volumes import PseudoProtein, make_proteins, sample_density

# Rendered pixels: side of a micrograph, and diameter that a user would state.
SIZE = 640
DIAMETER = 28.0
# Angstroms that the diameter stands for: the CTF's rings are wide beside small particles and narrow beside large ones.
SMALLEST, LARGEST = 90.0, 400.0
# True diameter over the stated one: users say it within so much.
STATED = (0.8, 1.15)
# Diameter of smaller proteins and fragments, which are no particles, over the particle's.
DECOY = (0.25, 0.6)
DECOYS_IN = 0.6
MOST_DECOYS = 3
# Share of the micrograph that particles and decoys cover.
COVER = (0.03, 0.40)
SIGNAL_TO_NOISE = (0.02, 0.6)
# Shares of the micrographs with further noise, smoothed by a denoiser, and with strong contamination.
FURTHER_NOISE_IN, DENOISED_IN, CONTAMINATED_IN = 0.5, 0.25, 0.5
# Proteins that the particles of one epoch are built from; making one takes as long as a micrograph.
CHAINS = 6
NO_LABELS = np.zeros((0, 2))


def make_scenes(seed: int, epoch: int, number: int) -> list[LabelledMicrograph]:
    """Prepared micrographs with all particles labelled, the same for the same arguments."""
    chains = make_proteins(CHAINS, 1.0, seed_from(seed, epoch) % 2**31)
    return [_scene(chains, seed_from(seed, epoch, i), i) for i in range(number)]


def _scene(chains: list[PseudoProtein], seed: int, index: int) -> LabelledMicrograph:
    rng = np.random.default_rng(seed)
    pixel_size = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))) / DIAMETER
    volumes, contrasts = _volumes(chains, pixel_size, rng)
    plan = _plan(index, pixel_size, contrasts, rng)
    snr = float(np.exp(rng.uniform(*np.log(SIGNAL_TO_NOISE))))
    generator = seeded_generator(seed, 1)
    image = render_micrograph(plan, volumes, SIZE, pixel_size, DIAMETER * pixel_size, snr, generator).numpy()
    image = _treated(image, plan.gain, pixel_size, generator, rng)
    corner = rng.integers(int(DIAMETER), size=2)
    image = image[corner[1]:SIZE - int(DIAMETER) + corner[1], corner[0]:SIZE - int(DIAMETER) + corner[0]]
    small = resample(image, working_shape(image.shape, DIAMETER))
    factor = small.shape[0] / image.shape[0]
    centres = (plan.positions[plan.species == 0] - corner + 0.5) * factor - 0.5
    inside = ((centres > -0.5) & (centres < np.array(small.shape)[::-1] - 0.5)).all(axis=1)
    return LabelledMicrograph(flatten(small, WORKING_DIAMETER), centres[inside], NO_LABELS)


def _volumes(chains: list[PseudoProtein], pixel_size: float,
             rng: np.random.Generator) -> tuple[list[FourierVolume], list[float]]:
    """The particle, then decoys; and the contrast of each."""
    diameter = DIAMETER * pixel_size * rng.uniform(*STATED)
    models, contrasts = [random_particle(chains, diameter, rng)], [1.0]
    if rng.random() < DECOYS_IN:
        for _ in range(rng.integers(1, MOST_DECOYS + 1)):
            share = rng.uniform(*DECOY)
            blob = rng.integers(2)
            models.append(random_blob(share * diameter, rng) if blob else
                          random_particle(chains, share * diameter, rng))
            # A smaller thing is thinner; as bright as the particle it is hardest to tell.
            contrasts.append(rng.uniform(0.5, 1.5) / share)
    volumes = [sample_density(model, pixel_size) for model in models]
    return [FourierVolume(v.density, v.voxel_size, padding=2.0) for v in volumes], contrasts


def _plan(index: int, pixel_size: float, contrasts: list[float], rng: np.random.Generator) -> MicrographPlan:
    """Where everything lies: species 0 is the particle."""
    area = np.pi / 4 * DIAMETER**2
    count = int(np.exp(rng.uniform(*np.log(COVER))) * SIZE**2 / area)
    # Neighbours may come closer than their diameter.
    spacing = DIAMETER * pixel_size * rng.uniform(0.75, 1.1)
    plan = plan_micrograph(index, SIZE, pixel_size, count, 1, spacing, int(rng.integers(2**31)))
    n = len(plan.positions)
    share = rng.uniform(0.4, 0.9) if len(contrasts) > 1 else 1.0
    species = np.where(rng.random(n) < share, 0, rng.integers(1, max(2, len(contrasts)), size=n))
    factor = rng.uniform(1, 4) if rng.random() < CONTAMINATED_IN else 1.0
    ice = [replace(blob, strength=factor * blob.strength) for blob in plan.ice]
    return replace(plan, species=species, amplitudes=plan.amplitudes * np.array(contrasts)[species], ice=ice)


def _treated(image: np.ndarray, gain: float, pixel_size: float, generator: torch.Generator,
             rng: np.random.Generator) -> np.ndarray:
    """Noise of another colour, and the blur of a denoiser."""
    if rng.random() < FURTHER_NOISE_IN:
        s2 = squared_frequency(*image.shape, pixel_size)
        colour = torch.exp(-s2 * (pixel_size * rng.uniform(0, 4)) ** 2)
        noise = shape_noise(torch.randn(image.shape, generator=generator), colour).numpy()
        image = image + gain * rng.uniform(0, 0.6) * noise
    if rng.random() < DENOISED_IN:
        image = ndimage.gaussian_filter(image, rng.uniform(0.5, 2.5))
    return image
