"""What the stages ``classify`` and ``assign`` do with their particles first."""

from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine import distributed
from siamese2d_engine.classify.prepare import CHUNK, CircularMask, ring_step
from siamese2d_engine.ctf import CtfParameters
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.micrographs import resolve
from siamese2d_engine.io.particles import ParticleSet, ctf_parameters
from siamese2d_engine.runs import Run

DEFAULT_MASK = 0.8      # of the box
MASK_EDGE = 0.05        # of the box
SMALLEST_BOX = 16
FEWEST_RINGS = 4


def circular_mask(box: int, pixel_size: float, diameter: float | None) -> CircularMask:
    """The mask for a diameter in angstroms, by default `DEFAULT_MASK` of the box.

    Raises
    ------
    InputError
        If the box is too small to work with, or the mask does not fit into it.
    """
    if box < SMALLEST_BOX:
        raise InputError(f"The particles' box of {box} pixels is too small to be classified; {SMALLEST_BOX} or more are "
                         "needed. Extract with a larger box or less downsampling.")
    radius = DEFAULT_MASK * box / 2 if diameter is None else diameter / pixel_size / 2
    if radius > box / 2:
        raise InputError(f"--mask-diameter {diameter:g}: larger than the box of {box} pixels = {box * pixel_size:g} A. "
                         "Give the particle's diameter in angstroms, or check the pixel size.")
    if radius < 4:
        raise InputError(f"--mask-diameter {diameter:g}: only {2 * radius:.1f} pixels of {pixel_size:g} A. Give the "
                         "particle's diameter in angstroms, or extract with less downsampling.")
    return CircularMask(box, radius, min(MASK_EDGE * box, max(1.0, box / 2 - radius)))


def largest_shift(particles: ParticleSet, wanted: float | None, default: float) -> float:
    """How far from the box's centre particles may lie, pixels; `wanted` is in angstroms, `default` of the box."""
    return default * particles.box if wanted is None else wanted / particles.pixel_size


def number_of_rings(mask: CircularMask, pixel_size: float, max_resolution: float | None) -> int:
    """Rings up to `max_resolution` angstroms, by default up to just below the Nyquist frequency.

    Raises
    ------
    InputError
        If that is too coarse to tell anything apart.
    """
    highest = 0.49 if max_resolution is None else min(0.49, pixel_size / max_resolution)
    rings = int(highest / ring_step(mask))
    if rings < FEWEST_RINGS:
        raise InputError(f"--max-resolution {max_resolution:g}: too coarse for a mask of {2 * mask.radius * pixel_size:.0f} "
                         f"A; {pixel_size / (FEWEST_RINGS * ring_step(mask)):.0f} A or finer is needed.")
    return rings


def with_resolved_paths(table: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The table with image names that hold from the working directory, wherever the table is written."""
    parts = table["rlnImageName"].str.rpartition("@")
    paths = {name: str(resolve(name, source)) for name in parts[2].unique()}
    return table.assign(rlnImageName=parts[0] + parts[1] + parts[2].map(paths))


def unusable(particles: ParticleSet) -> np.ndarray:
    """Why each particle can't be worked with, ``constant`` or ``not_finite``; empty text for the others: ``(n,)``."""
    mine = distributed.share(range(len(particles)))
    reasons = [unusable_images(images) for _, images in particles.images.chunks(CHUNK, mine)]
    return np.concatenate([reason for part in distributed.gather(reasons) for reason in part])


def unusable_images(images: np.ndarray) -> np.ndarray:
    """Why each of some images ``(n, box, box)`` can't be worked with; see `unusable`."""
    reasons = np.full(len(images), "", dtype=object)
    with np.errstate(invalid="ignore"):
        reasons[images.max(axis=(1, 2)) == images.min(axis=(1, 2))] = "constant"
        reasons[~np.isfinite(images.sum(axis=(1, 2)))] = "not_finite"
    return reasons


def tell_unusable(run: Run, particles: ParticleSet, reasons: np.ndarray) -> None:
    """Warn of particles that can't be worked with, if there are some.

    Raises
    ------
    InputError
        If there are no others.
    """
    bad = np.flatnonzero(reasons != "")
    if len(bad) == len(particles):
        raise InputError(f"All {len(particles)} particles are constant or hold values that are not finite, the first is "
                         f"{particles.table['rlnImageName'].iloc[0]}. Extract them again.")
    if len(bad):
        name = particles.table["rlnImageName"].iloc[bad[0]]
        run.warn(f"{len(bad)} of {len(particles)} particles are constant or hold values that are not finite (row "
                 f"{bad[0] + 1}, {name}, is the first). They are not classified but listed in set_apart.star.")


def ctf_of(run: Run, particles: ParticleSet, ignore: bool) -> CtfParameters | None:
    """CTF of the particles; None, which is said, where they have none, or where it is to be ignored."""
    if ignore:
        return None
    ctf = ctf_parameters(particles)
    if ctf is None:
        run.warn("The particles have no CTF parameters: classified without correcting for the CTF.")
    return ctf
