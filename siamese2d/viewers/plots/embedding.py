"""How the training of an embedding went, how many clusters it holds, and what it looks like."""

import math

import numpy as np
from matplotlib.figure import Figure

from .curves import count_axis, draw_series, mark_point, mark_x, note
from .style import BLUE, GREEN, MUTED, ORANGE, SCORES, prepare, say, style

MAX_POINTS = 20_000


def plot_embedding_training(epochs: list[dict], best_epoch: int | None = None, figure: Figure | None = None) -> Figure:
    """Training and validation loss over the epochs of all rounds, the best epoch of the last round marked.

    Parameters
    ----------
    epochs : list of dict
        ``epoch``, ``loss`` and, where there is one, ``validation_loss`` and ``round``; the count of the epochs begins
        again in every round.
    best_epoch : int or None
        The epoch of the last round whose weights were kept.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    with style():
        figure = prepare(figure, 7.2, 4.2)
        axes = figure.subplots()
        axes.set_title("Loss of the embedding")
        if not epochs:
            say(axes, "No epoch has finished yet.")
            return figure
        numbers, rounds = range(1, len(epochs) + 1), [entry.get("round", 1) for entry in epochs]
        draw_series(axes, numbers, [entry.get("loss") for entry in epochs], "training", BLUE)
        validation = [entry.get("validation_loss") for entry in epochs]
        if any(value is not None and math.isfinite(value) for value in validation):
            draw_series(axes, numbers, validation, "validation", ORANGE)
        best = [number for number, entry, of_round in zip(numbers, epochs, rounds)
                if of_round == rounds[-1] and entry["epoch"] == best_epoch]
        if best:
            mark_x(axes, best[0], f"best epoch: {best[0]}", color=GREEN)
        starts = [number for number, of_round, before in zip(numbers[1:], rounds[1:], rounds) if of_round != before]
        for k, start in enumerate(starts):
            axes.axvline(start - 0.5, color=MUTED, linestyle=":", linewidth=1, label=None if k else "new round")
        count_axis(axes, "epoch")
        axes.set_ylabel("loss")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.legend()
    return figure


def plot_cluster_count(rows: list[dict], figure: Figure | None = None) -> Figure:
    """Elbow and silhouette: how well the embedding falls into k clusters, for several k.

    Parameters
    ----------
    rows : list of dict
        ``k``; ``inertia``, the mean squared distance to the cluster centres, which falls with k and slower beyond the
        natural number; ``silhouette``, -1 to 1, the higher, the better are the clusters apart (Rousseeuw 1987).
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
        Two axes, side by side; the highest silhouette is marked in both.
    """
    with style():
        figure = prepare(figure, 9.6, 4.2)
        left, right = figure.subplots(1, 2)
        best = max(rows, key=lambda row: row["silhouette"], default=None)
        for axes, key, title, label, color in (
                (left, "inertia", "Elbow", "mean squared distance to the centre", BLUE),
                (right, "silhouette", "Silhouette", "mean silhouette (higher is better)", GREEN)):
            axes.set_title(title)
            if best is None:
                say(axes, "Not measured: there are too few particles.")
                continue
            axes.plot([row["k"] for row in rows], [row[key] for row in rows], marker="o", markersize=4, color=color)
            axes.set_ylabel(label)
            count_axis(axes, "number of clusters")
            mark_point(axes, best["k"], best[key], f"highest silhouette: k = {best['k']}")
            axes.legend()
    return figure


def principal_plane(embeddings: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project the embeddings on their two directions of largest variance.

    Parameters
    ----------
    embeddings : ndarray, `(n, d)`
        Of which at most 20,000, drawn with `seed`, are used.
    seed : int
        Of the draw.

    Returns
    -------
    points : ndarray, `(m, 2)`
        Coordinates in the plane; NaN rows of the input are left out.
    shares : ndarray, `(2,)`
        Share of the total variance that each axis holds.
    rows : ndarray, `(m,)`
        Row of `embeddings` of every point.
    """
    rows = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_POINTS, replace=False))
    centred = np.asarray(embeddings[rows], dtype=np.float64)
    if not len(rows):
        return np.empty((0, 2)), np.zeros(2), rows
    centred -= centred.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    two = axes[:, ::-1][:, :2]
    points, total = centred @ two, variances.sum()
    missing = 2 - points.shape[1]
    shares = variances[::-1][:2] / total if total > 0 else np.zeros(two.shape[1])
    return np.pad(points, ((0, 0), (0, missing))), np.pad(shares, (0, missing)), rows


def plot_embedding_map(embeddings: np.ndarray, values: np.ndarray | None = None, value_name: str = "",
                       figure: Figure | None = None) -> Figure:
    """Map of the embeddings: their first two principal components, one dot for each particle.

    Parameters
    ----------
    embeddings : ndarray, `(n, d)`
        One row for each particle.
    values : ndarray, `(n,)`, optional
        A number of each particle, such as its defocus, that colours the dots.
    value_name : str
        Name and unit of the values.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    points, shares, rows = principal_plane(embeddings)
    with style():
        figure = prepare(figure, 8.0, 6.6)
        axes = figure.subplots()
        axes.set_title("Map of the embedding")
        if not len(points):
            say(axes, "There are no finite embeddings.")
            return figure
        size = float(np.clip(20_000 / len(points), 3, 16))
        dots = axes.scatter(*points.T, s=size, linewidths=0, alpha=0.6, rasterized=True,
                            **({"color": BLUE} if values is None else {"c": np.asarray(values)[rows], "cmap": SCORES}))
        if values is not None:
            figure.colorbar(dots, ax=axes, label=value_name, fraction=0.04, pad=0.02).solids.set_alpha(1)
        axes.set(xlabel=f"principal component 1 ({shares[0]:.0%} of the variance)",
                 ylabel=f"principal component 2 ({shares[1]:.0%})")
        axes.set_aspect("equal", adjustable="datalim")
        shown = f"{len(points):,} of {len(embeddings):,}" if len(points) < len(embeddings) else f"{len(points):,}"
        note(axes, f"{shown} particles, {embeddings.shape[1]} dimensions")
    return figure
