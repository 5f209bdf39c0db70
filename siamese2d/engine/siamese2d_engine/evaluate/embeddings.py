"""How well vectors of particles keep known classes apart."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

SUBSAMPLE = 5000
STARTS = 10
LARGEST_NEIGHBOURHOOD = 10


def matched_accuracy(labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of particles whose cluster stands for their class, clusters being matched to classes one to one as well as
    possible (Kuhn 1955, Naval Research Logistics; also called clustering accuracy).

    Parameters
    ----------
    labels, truth
        ``(n,)`` clusters and classes. Clusters beyond the number of classes match none.
    """
    clusters, cluster = np.unique(labels, return_inverse=True)
    classes, known = np.unique(truth, return_inverse=True)
    counts = np.zeros((len(clusters), len(classes)), dtype=int)
    np.add.at(counts, (cluster, known), 1)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))


def cosine_matrix(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine between the members of each two classes.

    Vectors are taken from their mean over all particles, without which a common part would make all alike. A particle
    is not compared with itself.

    Parameters
    ----------
    vectors, labels
        ``(n, d)``, ``(n,)``.

    Returns
    -------
    tuple of ndarray
        Classes ``(k,)`` and the matrix ``(k, k)``; the diagonal of a class of one is NaN.
    """
    classes, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    sums = np.zeros((len(classes), unit.shape[1]))
    np.add.at(sums, place, unit)
    own = np.bincount(place, weights=np.square(unit).sum(axis=1))
    pairs = np.outer(sizes, sizes).astype(float) - np.diag(sizes)
    with np.errstate(invalid="ignore"):
        return classes, (sums @ sums.T - np.diag(own)) / pairs


def diagonal_dominance(matrix: np.ndarray) -> float:
    """Mean over classes of their own cosine less the largest with another; above 0, members are nearest to their own
    class. Classes of one are left out; 0 for a single class."""
    others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
    margins = np.diag(matrix) - others.max(axis=1)
    margins = margins[np.isfinite(margins)]
    return float(margins.mean()) if len(margins) else 0.0


def cluster(vectors: np.ndarray, classes: int, seed: int, centres: int | None = None) -> np.ndarray:
    """Clusters ``(n,)`` from 0 by k-means, the best of 10 starts.

    Parameters
    ----------
    vectors
        ``(n, d)``.
    classes
        Number of clusters.
    seed
        Of the starts.
    centres
        Over-cluster first: k-means to so many centres, and these to `classes` by spectral clustering; every particle
        takes the class of its centre (MiLoPYP).
    """
    if centres is None:
        return KMeans(classes, n_init=STARTS, random_state=seed).fit(vectors).labels_
    fine = KMeans(centres, n_init=1, random_state=seed).fit(vectors)
    # Neighbours (a centre is its own first one) that stay inside a class when classes have equal numbers of centres.
    neighbours = int(np.clip(centres // classes, 2, LARGEST_NEIGHBOURHOOD))
    grouping = SpectralClustering(classes, affinity="nearest_neighbors", n_neighbors=neighbours, random_state=seed)
    return grouping.fit(fine.cluster_centers_).labels_[fine.labels_]


def embedding_scores(vectors: np.ndarray, truth: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict:
    """Scores of vectors and of clusters made from them.

    Parameters
    ----------
    vectors, truth, labels
        ``(n, d)``, true classes ``(n,)``, clusters ``(n,)``.
    seed
        Of the particles that the silhouette is measured on, when there are many.

    Returns
    -------
    dict
        ``accuracy`` (`matched_accuracy`), ``ari``, ``nmi``, ``silhouette`` (of the true classes in the vectors; None
        for a single class), ``classes``, ``cosine`` (matrix), ``diagonal_dominance``.
    """
    rows = np.random.default_rng(seed).permutation(len(vectors))[:SUBSAMPLE]
    several = 1 < len(np.unique(truth[rows])) < len(rows)
    classes, matrix = cosine_matrix(vectors, truth)
    return {
        "accuracy": matched_accuracy(labels, truth),
        "ari": float(adjusted_rand_score(truth, labels)),
        "nmi": float(normalized_mutual_info_score(truth, labels)),
        "silhouette": float(silhouette_score(vectors[rows], truth[rows])) if several else None,
        "classes": classes.tolist(),
        "cosine": [[None if np.isnan(value) else float(value) for value in row] for row in matrix],
        "diagonal_dominance": diagonal_dominance(matrix),
    }
