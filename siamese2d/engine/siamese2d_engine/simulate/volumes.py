"""Volumes to project: made-up proteins, and density maps from files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from siamese2d_engine.errors import InputError

BEADS_ACROSS = 18  # spacing of the chain: this many beads along the diameter
RELATIVE_DIAMETERS = (1.0, 0.85, 0.95, 0.75)
SHAPES = ("lobes", "arch", "club", "tripod")


@dataclass
class PseudoProtein:
    """A made-up protein: a chain of equal Gaussian pseudo-atoms.

    Parameters
    ----------
    name
        Shape and number.
    positions
        ``(m, 3)`` centres ``(x, y, z)`` in angstroms, the centre of mass at the origin.
    weights
        ``(m,)`` integrated density of each pseudo-atom.
    sigma
        Standard deviation of the Gaussians, angstroms.
    diameter
        Of the smallest sphere about the origin that holds all pseudo-atoms, angstroms.
    """

    name: str
    positions: np.ndarray
    weights: np.ndarray
    sigma: float
    diameter: float


@dataclass
class Volume:
    """Density ``(L, L, L)`` indexed ``[z, y, x]``, origin at voxel ``L // 2``, with its voxel size in angstroms."""

    name: str
    density: np.ndarray
    voxel_size: float
    diameter: float


def make_proteins(count: int, diameter: float, seed: int) -> list[PseudoProtein]:
    """Asymmetric proteins of different shapes and sizes.

    Each is a self-avoiding chain that fills an envelope of overlapping spheres (its domains); every domain has its own
    density, and none of the envelopes has a symmetry.

    Parameters
    ----------
    count
        How many species.
    diameter
        Of the largest, angstroms.
    seed
        The same seed makes the same proteins; those of a smaller `count` are the first of a larger one.
    """
    return [_make_protein(index, diameter, np.random.default_rng([seed, 1, index])) for index in range(count)]


def _make_protein(index: int, diameter: float, rng: np.random.Generator) -> PseudoProtein:
    shape = SHAPES[index % len(SHAPES)]
    wanted = diameter * RELATIVE_DIAMETERS[index % len(SHAPES)]
    centres, radii = _envelope(shape, rng)
    positions = _self_avoiding_chain(centres, radii, 2 * _extent(centres, radii) / BEADS_ACROSS, rng)
    weights = rng.uniform(0.7, 1.3, size=len(radii))[_nearest_domain(positions, centres, radii)]
    positions -= np.average(positions, axis=0, weights=weights)
    sigma = 0.55 * wanted / BEADS_ACROSS
    positions *= (wanted / 2 - 2 * sigma) / np.linalg.norm(positions, axis=1).max()
    return PseudoProtein(f"{shape}-{index + 1}", positions, weights, sigma, wanted)


def _envelope(shape: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``(d, 3)`` and radii ``(d,)`` of a protein's domains, in arbitrary units, moved a little at random."""
    if shape == "lobes":
        spheres = [(0, 0, 0, 0.24), (0.32, 0.08, 0.05, 0.19), (-0.16, 0.31, 0.10, 0.15), (-0.12, -0.15, 0.32, 0.13)]
    elif shape == "arch":
        turns = np.radians(np.linspace(0, 235, 7))
        spheres = [(0.36 * np.cos(t), 0.36 * np.sin(t), 0.05 * t, 0.21 - 0.012 * i) for i, t in enumerate(turns)]
        spheres += [(0.36, -0.04, -0.22, 0.16)]
    elif shape == "club":
        spheres = [(x, 0.03 * np.sin(9 * x), 0, 0.15) for x in np.linspace(-0.45, 0.25, 6)]
        spheres += [(0.32, 0.06, 0.04, 0.24), (-0.33, 0.20, -0.06, 0.12), (0.00, -0.15, 0.14, 0.11)]
    else:
        spheres = [(0, 0, 0, 0.21)]
        for length, end, towards in (
            (0.42, 0.20, (1, 0.1, 0.2)),
            (0.36, 0.15, (-0.6, 0.9, 0.1)),
            (0.30, 0.12, (-4, -7, -8)),
        ):
            unit = np.array(towards) / np.linalg.norm(towards)
            spheres += [(*(length * part * unit), 0.13 + part * (end - 0.13)) for part in (0.4, 0.7, 1.0)]
    spheres = np.array(spheres, dtype=np.float64)
    return spheres[:, :3] + rng.normal(scale=0.015, size=(len(spheres), 3)), spheres[:, 3]


def _extent(centres: np.ndarray, radii: np.ndarray) -> float:
    return float((np.linalg.norm(centres, axis=1) + radii).max())


def _nearest_domain(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Index of the sphere that each point lies deepest in."""
    return (np.linalg.norm(points[:, None] - centres, axis=2) / radii).argmin(axis=1)


def _self_avoiding_chain(
    centres: np.ndarray, radii: np.ndarray, spacing: float, rng: np.random.Generator
) -> np.ndarray:
    """Fill the envelope with a random walk of steps `spacing` that keeps clear of itself.

    At a dead end the walk goes on from any earlier bead; it stops when 80 starts in a row are dead ends.
    """
    beads = np.empty((20000, 3))
    beads[0], used, tip, dead_ends = centres[0], 1, centres[0], 0
    while dead_ends < 80 and used < len(beads):
        steps = rng.normal(size=(24, 3))
        candidates = tip + spacing * steps / np.linalg.norm(steps, axis=1, keepdims=True)
        inside = (np.linalg.norm(candidates[:, None] - centres, axis=2) < radii).any(axis=1)
        candidates = candidates[inside]
        near = beads[:used][(np.abs(beads[:used] - tip) < 2 * spacing).all(axis=1)]
        clear = (np.linalg.norm(candidates[:, None] - near, axis=2) > 0.85 * spacing).all(axis=1)
        if clear.any():
            tip = candidates[clear][0]
            beads[used], used, dead_ends = tip, used + 1, 0
        else:
            tip = beads[rng.integers(used)]
            dead_ends += 1
    return beads[:used].copy()


def sample_density(protein: PseudoProtein, voxel_size: float) -> Volume:
    """The protein's density on a grid that holds it with a margin.

    A sum of Gaussians, each separable: one matrix product over the pseudo-atoms. Their width is at least 0.8 voxels, so
    that the grid can carry them.
    """
    sigma = max(protein.sigma, 0.8 * voxel_size)
    box = 2 * int(np.ceil((protein.diameter / 2 + 4 * sigma) / voxel_size)) + 2
    axis = (np.arange(box) - box // 2) * voxel_size
    along = np.exp(-((axis[None, None] - protein.positions.T[:, :, None]) ** 2) / (2 * sigma**2))
    x, y, z = along / (np.sqrt(2 * np.pi) * sigma)
    plane = (z[:, :, None] * y[:, None, :]).reshape(len(z), box * box)
    density = (plane.T @ (protein.weights[:, None] * x)).reshape(box, box, box)
    return _scaled(Volume(protein.name, density, voxel_size, protein.diameter))


def read_volume(path: str | Path, default_voxel_size: float) -> Volume:
    """Read a density map to project.

    Negative density (solvent) is set to zero, what lies outside the inscribed sphere is faded out, and maps that are no
    cube are padded to one.

    Parameters
    ----------
    path
        MRC file.
    default_voxel_size
        Angstroms, used where the file's header has none.

    Raises
    ------
    InputError
        If the file is no readable volume, or holds no positive density.
    """
    density, voxel_size = _read_map(Path(path))
    density = _pad_to_cube(np.maximum(density, 0))
    box = len(density)
    axis = np.arange(box) - box // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    density = density * np.clip((box / 2 - radius) / 3, 0, 1)
    if not density.max() > 0:
        raise InputError(f"{path}: the map holds no positive density. Give a map with bright protein.")
    voxel_size = voxel_size or default_voxel_size
    diameter = 2 * voxel_size * float(radius[density > 0.1 * density.max()].max())
    return _scaled(Volume(Path(path).stem, density, voxel_size, diameter))


def _read_map(path: Path) -> tuple[np.ndarray, float]:
    try:
        with warnings.catch_warnings():
            # Old programs leave marks of the format out; what matters is checked below.
            warnings.simplefilter("ignore")
            with mrcfile.open(path, permissive=True) as file:
                data, voxel_size = file.data, float(file.voxel_size.x)
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file does not exist. Check --volume.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as an MRC volume ({error}).") from error
    if data is None or data.ndim != 3 or min(data.shape) < 8:
        shape = None if data is None else data.shape
        raise InputError(f"{path}: not a volume of at least 8 voxels a side (its shape is {shape}). Give a 3D map.")
    density = np.asarray(data, dtype=np.float64)
    if not np.isfinite(density).all():
        raise InputError(f"{path}: the map holds values that are not finite. Give a map without NaN.")
    return density, voxel_size


def _pad_to_cube(density: np.ndarray) -> np.ndarray:
    box = max(density.shape) + max(density.shape) % 2
    cube = np.zeros((box, box, box))
    corner = [box // 2 - size // 2 for size in density.shape]
    cube[tuple(slice(start, start + size) for start, size in zip(corner, density.shape))] = density
    return cube


def _scaled(volume: Volume) -> Volume:
    """Volume whose typical protein density is 1, so that species mix at comparable contrast."""
    inside = volume.density[volume.density > 0.1 * volume.density.max()]
    density = (volume.density / np.percentile(inside, 90)).astype(np.float32)
    return Volume(volume.name, density, volume.voxel_size, volume.diameter)
