"""Particles of many kinds to learn from: made-up proteins, alone, in symmetric complexes and as hollow shells."""

import numpy as np

from siamese2d_engine.simulate.volumes import PseudoProtein

# Rotational symmetry of complexes; 1 is a single chain.
FOLDS = (1, 1, 1, 2, 3, 4, 6, 7)
# Shares of hollow shells and of globules; the rest is built from chains.
SHELL_SHARE, GLOBULE_SHARE = 0.15, 0.3
BEADS = 600
# Width of a pseudo-atom over the diameter, about that of a made-up protein's.
BEAD = 0.03


def random_particle(chains: list[PseudoProtein], diameter: float, rng: np.random.Generator) -> PseudoProtein:
    """A particle of random shape that fits in a sphere of `diameter` angstroms about its centre of mass.

    Parameters
    ----------
    chains
        Proteins of any size to build it from.
    """
    kind = rng.random()
    if kind < SHELL_SHARE + GLOBULE_SHARE:
        return _fitted("body", *_body(kind < SHELL_SHARE, rng), diameter)
    chain = chains[int(rng.integers(len(chains)))]
    fold = int(rng.choice(FOLDS))
    if fold == 1:
        return _fitted(chain.name, _squeezed(chain.positions, rng), chain.weights, diameter)
    places, weights = _complex(chain, fold, bool(rng.integers(2)), rng)
    return _fitted(f"{chain.name} x {fold}", places, weights, diameter)


def random_blob(diameter: float, rng: np.random.Generator) -> PseudoProtein:
    """Something small and featureless: one ball, or a rod of up to four."""
    balls = int(rng.integers(1, 5))
    spacing = rng.uniform(0.6, 1.0)
    places = np.zeros((balls, 3))
    places[:, 0] = spacing * np.arange(balls)
    cloud = places[:, None] + 0.35 * rng.normal(size=(balls, 60, 3))
    return _fitted("blob", cloud.reshape(-1, 3), np.ones(60 * balls), diameter)


def _body(hollow: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pseudo-atoms in an ellipsoid or in its shell, and their weights, which vary across it in lumps."""
    directions = rng.normal(size=(BEADS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    inner = rng.uniform(0.5, 0.8) if hollow else 0.0
    radii = rng.uniform(inner**3, 1.0, size=(BEADS, 1)) ** (1 / 3)
    axes = np.array([1.0, *rng.uniform(0.9 if hollow else 0.5, 1.0, size=2)])
    places = directions * radii
    lumps, width = rng.uniform(-0.8, 0.8, size=(12, 3)), rng.uniform(0.2, 0.5)
    distances = np.linalg.norm(places[:, None] - lumps, axis=2)
    return places * axes, 0.3 + (rng.uniform(0, 2, size=12) * np.exp(-((distances / width) ** 2) / 2)).sum(axis=1)


def _squeezed(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From elongated to compact: some chains are drawn towards a ball."""
    radii = np.linalg.norm(places, axis=1, keepdims=True)
    return places * (radii / radii.max() + 0.05) ** -rng.uniform(0, 0.5)


def _complex(chain: PseudoProtein, fold: int, dihedral: bool,
             rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Copies of a chain around an axis, and those turned over for a dihedral complex."""
    radius = chain.diameter / 2
    places = chain.positions + np.array([rng.uniform(0.3, 0.5) * (fold / 2) ** 0.7 * radius, 0, 0])
    turns = 2 * np.pi * np.arange(fold) / fold
    copies = np.concatenate([places @ _about_z(turn).T for turn in turns])
    weights = np.tile(chain.weights, fold)
    if dihedral:
        copies[:, 2] += rng.uniform(0.3, 0.8) * radius
        copies, weights = np.concatenate([copies, copies * [1, -1, -1]]), np.tile(weights, 2)
    return copies, weights


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _fitted(name: str, places: np.ndarray, weights: np.ndarray, diameter: float) -> PseudoProtein:
    """Pseudo-atoms moved to their centre of mass and scaled to the diameter."""
    places = places - np.average(places, axis=0, weights=weights)
    sigma = BEAD * diameter
    places = places * (diameter / 2 - 2 * sigma) / np.linalg.norm(places, axis=1).max()
    return PseudoProtein(name, places, weights, sigma, diameter)
