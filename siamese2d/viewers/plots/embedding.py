"""How the training of an embedding went, how many clusters it holds, and what it looks like."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from .curves import count_axis, draw_series, mark_point, mark_x, note
from .style import BARS, BLUE, GREEN, MUTED, ORANGE, SCORES, prepare, say, style

MAX_POINTS = 20_000
# Categories that a legend names.
NAMED = 20


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
                       names: list[str] | None = None, layout: dict | None = None,
                       figure: Figure | None = None) -> Figure:
    """Map of the embeddings, one dot for each particle.

    Parameters
    ----------
    embeddings : ndarray, `(n, d)`
        One row for each particle.
    values : ndarray, `(n,)`, optional
        A number of each particle, such as its defocus, that colours the dots; grey where it is NaN.
    value_name : str
        Name and unit of the values.
    names : list of str, optional
        Names of categories, the largest first; the values are then their numbers, from 0.
    layout : dict, optional
        Places made before: ``rows`` of the particles, ``x``, ``y``, and ``explained``, the share of the variance that
        they were made from. The first two principal components when not given.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    if layout is None:
        points, shares, rows = principal_plane(embeddings)
        axis_names = (f"principal component 1 ({shares[0]:.0%} of the variance)",
                      f"principal component 2 ({shares[1]:.0%})")
    else:
        points, rows = np.column_stack([layout["x"], layout["y"]]), np.asarray(layout["rows"], dtype=int)
        axis_names = (f"t-SNE 1 (of {layout['explained']:.0%} of the variance)", "t-SNE 2")
    with style():
        figure = prepare(figure, 8.0, 6.6)
        axes = figure.subplots()
        axes.set_title("Map of the embedding")
        if not len(points):
            say(axes, "There are no finite embeddings.")
            return figure
        size = float(np.clip(20_000 / len(points), 3, 16))
        chosen = None if values is None else np.asarray(values, dtype=float)[rows]
        _draw_dots(axes, points, chosen, value_name, names, size)
        axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
        axes.set_aspect("equal", adjustable="datalim")
        shown = f"{len(points):,} of {len(embeddings):,}" if len(points) < len(embeddings) else f"{len(points):,}"
        unknown = 0 if chosen is None else int(np.isnan(chosen).sum())
        grey = f"; grey: no {value_name.split(' ')[0]} ({unknown:,})" if unknown else ""
        note(axes, f"{shown} particles, {embeddings.shape[1]} dimensions{grey}")
    return figure


def _draw_dots(axes, points: np.ndarray, values: np.ndarray | None, label: str, names: list[str] | None,
               size: float) -> None:
    common = {"s": size, "linewidths": 0, "rasterized": True}
    if values is None:
        axes.scatter(*points.T, color=BLUE, alpha=0.6, **common)
        return
    known = np.isfinite(values)
    if not known.all():
        axes.scatter(*points[~known].T, color=BARS, alpha=0.6, **common)
    if names is None:
        dots = axes.scatter(*points[known].T, c=values[known], cmap=SCORES, alpha=0.6, **common)
        axes.figure.colorbar(dots, ax=axes, label=label, fraction=0.04, pad=0.02).solids.set_alpha(1)
        return
    # The first categories have colours of their own, the others share what is left.
    palette = colormaps["tab20"].colors
    colors = np.array([palette[int(number) % len(palette)] for number in values[known]]).reshape(-1, 3)
    axes.scatter(*points[known].T, c=colors, alpha=0.75, **common)
    for number, name in enumerate(names[:NAMED]):
        axes.scatter([], [], color=palette[number], s=28, label=name)
    more = f", {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    axes.legend(title=f"{label}{more}", loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
