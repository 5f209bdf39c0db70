"""How many groups an embedding holds: k-means over a small range of k."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from siamese2d_engine.progress import progress

RANGE = (2, 3, 4, 6, 8, 12, 16, 24, 32)
SUBSAMPLE = 2000


def kmeans_labels(vectors: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Classes ``(n,)`` from 0 of vectors ``(n, d)`` by k-means, the best of 4 starts; one where all are the same."""
    if not np.ptp(vectors, axis=0).any():
        return np.zeros(len(vectors), dtype=int)
    return KMeans(classes, n_init=4, random_state=seed % 2**32).fit(vectors).labels_


def elbow(vectors: np.ndarray, seed: int) -> list[dict]:
    """Inertia per particle and silhouette for each k, on a subsample drawn from `seed`.

    Returns
    -------
    list of dict
        ``k``, ``inertia`` (mean squared distance to the centre), ``silhouette`` (-1 to 1, higher is better).
    """
    random = np.random.default_rng(seed)
    chosen = vectors[np.sort(random.choice(len(vectors), min(SUBSAMPLE, len(vectors)), replace=False))]
    distinct = len(np.unique(chosen, axis=0))
    rows = []
    for k in progress(RANGE, "elbow", unit="clustering"):
        # The silhouette needs fewer classes than particles.
        if k > min(distinct, len(chosen) // 4):
            break
        model = KMeans(k, n_init=2, random_state=seed % 2**32).fit(chosen)
        rows.append({"k": k, "inertia": float(model.inertia_ / len(chosen)),
                     "silhouette": float(silhouette_score(chosen, model.labels_))})
    return rows
