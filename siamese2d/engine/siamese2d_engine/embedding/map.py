"""Particles in a plane, for a plot: principal components first, t-SNE of them second."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from siamese2d_engine.progress import work

SUBSAMPLE = 2000
COMPONENTS = 30
PERPLEXITY = 30.0


def two_step_map(vectors: np.ndarray, seed: int) -> dict:
    """Places of particles in a plane by PCA and then t-SNE (van der Maaten & Hinton 2008, JMLR).

    Parameters
    ----------
    vectors
        ``(n, d)``; of many, 2,000 are drawn from `seed`.

    Returns
    -------
    dict
        ``rows`` (positions in `vectors`), ``x``, ``y``, and ``explained``, the share of the variance that the principal
        components hold.
    """
    random = np.random.default_rng(seed)
    rows = np.sort(random.choice(len(vectors), min(SUBSAMPLE, len(vectors)), replace=False))
    chosen = vectors[rows].astype(np.float64)
    if (chosen == chosen[0]).all():
        return {"rows": rows.tolist(), "x": [0.0] * len(rows), "y": [0.0] * len(rows), "explained": 1.0}
    pca = PCA(min(COMPONENTS, chosen.shape[1], len(rows) - 1), svd_solver="full")
    reduced = pca.fit_transform(chosen)
    with work("map"):
        places = TSNE(2, perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init=_start(reduced),
                      random_state=seed % 2**32).fit_transform(reduced)
    return {"rows": rows.tolist(), "x": places[:, 0].round(3).tolist(), "y": places[:, 1].round(3).tolist(),
            "explained": float(pca.explained_variance_ratio_.sum())}


def _start(reduced: np.ndarray) -> np.ndarray:
    """The first two components, small, as t-SNE wants its start."""
    plane = np.zeros((len(reduced), 2))
    plane[:, : min(2, reduced.shape[1])] = reduced[:, :2]
    return 1e-4 * plane / reduced[:, 0].std()
