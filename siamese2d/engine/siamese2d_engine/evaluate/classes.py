"""How good 2D classes are against the truth: identities and viewing directions of their members."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

JUNK = 0  # species of what is no particle


def species_scores(labels: np.ndarray, species: np.ndarray) -> dict:
    """How well classes keep species, and junk, apart.

    A class is taken to be what most of its members are.

    Parameters
    ----------
    labels
        ``(n,)`` class of each particle; particles in no class form one of their own.
    species
        ``(n,)`` true species, 0 for junk.

    Returns
    -------
    dict
        ``purity`` (fraction of particles in a class of their species; junk is a species), ``nmi``, ``ari``,
        ``junk_recall`` and ``junk_precision`` (of junk in classes that are junk; None where there is none).
    """
    predicted = majority_species(labels, species)
    junk, predicted_junk = species == JUNK, predicted == JUNK
    both = int((junk & predicted_junk).sum())
    return {
        "purity": float((predicted == species).mean()),
        "nmi": float(normalized_mutual_info_score(species, labels)),
        "ari": float(adjusted_rand_score(species, labels)),
        "junk_recall": both / int(junk.sum()) if junk.any() else None,
        "junk_precision": both / int(predicted_junk.sum()) if predicted_junk.any() else None,
    }


def majority_species(labels: np.ndarray, species: np.ndarray) -> np.ndarray:
    """For each particle, the most frequent species ``(n,)`` of its class; of equals, the lowest number, junk last."""
    predicted = np.empty_like(species)
    for label in np.unique(labels):
        members = labels == label
        values, counts = np.unique(species[members], return_counts=True)
        ties = values[counts == counts.max()]
        predicted[members] = ties[-1] if len(ties) == 1 else ties[ties != JUNK][0]
    return predicted


def angles_to_mean(directions: np.ndarray, mirror: bool) -> np.ndarray:
    """Angles of the members of one class to their mean direction.

    Parameters
    ----------
    directions
        ``(n, 3)`` unit vectors.
    mirror
        Take a view and its mirror image, which is the view from the opposite side, for the same. The mean is then the
        axis that is closest in the sense of least squares: the first eigenvector of ``sum v v^T``.

    Returns
    -------
    ndarray
        ``(n,)`` degrees.
    """
    if mirror:
        axis = np.linalg.eigh(directions.T @ directions)[1][:, -1]
        cosines = np.abs(directions @ axis)
    else:
        mean = directions.mean(axis=0)
        cosines = directions @ (mean / max(float(np.linalg.norm(mean)), 1e-12))
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def angular_spread(labels: np.ndarray, directions: np.ndarray, mirror: bool) -> float | None:
    """Mean angle of particles to the mean direction of their class, degrees.

    Classes of a single particle are left out: their spread says nothing. None when no others are left.

    Parameters
    ----------
    labels
        ``(n,)``; those below 1 are no class.
    directions
        ``(n, 3)`` viewing directions.
    mirror
        See :func:`angles_to_mean`.
    """
    classes, sizes = np.unique(labels[labels >= 1], return_counts=True)
    angles = [angles_to_mean(directions[labels == label], mirror) for label in classes[sizes >= 2]]
    return float(np.concatenate(angles).mean()) if angles else None


def class_rows(labels: np.ndarray, species: np.ndarray, directions: np.ndarray | None) -> list[dict]:
    """One row for each class, largest first: number, size, species of most members, purity, spread in degrees."""
    predicted = majority_species(labels, species)
    rows = []
    for label in np.unique(labels[labels >= 1]):
        members = labels == label
        row = {
            "class": int(label),
            "size": int(members.sum()),
            "species": int(predicted[members][0]),
            "purity": float((species[members] == predicted[members]).mean()),
        }
        if directions is not None:
            real = members & (species != JUNK)
            spreads = (angular_spread(labels[real], directions[real], mirror) for mirror in (False, True))
            row["spread"], row["spread_mirror"] = spreads
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["size"], row["class"]))
