"""How the training of an embedding went, how many clusters it holds, and what it looks like."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.path import Path

from .curves import count_axis, draw_series, mark_point, mark_x, note
from .style import BARS, BLUE, GREEN, MUTED, ORANGE, PURPLE, SCORES, prepare, say, style

MAX_POINTS = 50_000
# Embeddings that are compared at a time.
CHUNK = 500
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
            mark_x(axes, best[0], f"best epoch: {best[0]}{_after(len(epochs) - best[0])}", color=GREEN)
        starts = [number for number, of_round, before in zip(numbers[1:], rounds[1:], rounds) if of_round != before]
        for k, start in enumerate(starts):
            axes.axvline(start - 0.5, color=MUTED, linestyle=":", linewidth=1, label=None if k else "new round")
        count_axis(axes, "epoch")
        axes.set_ylabel("loss")
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.legend()
    return figure


def _after(epochs: int) -> str:
    if not epochs:
        return ", the last"
    return f"; the {epochs} after it {'was' if epochs == 1 else 'were'} no better"


def plot_cluster_count(rows: list[dict], chosen: int | None = None, figure: Figure | None = None) -> Figure:
    """Elbow and silhouette: how well the embedding falls into k clusters, for several k.

    Parameters
    ----------
    rows : list of dict
        ``k``; ``inertia``, the mean squared distance to the cluster centres, which falls with k and slower beyond the
        natural number; ``silhouette``, -1 to 1, the higher, the better are the clusters apart (Rousseeuw 1987).
    chosen : int, optional
        Number of classes that was taken, which is marked too.
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
            if chosen is not None:
                mark_x(axes, chosen, f"classification: k = {chosen}", color=PURPLE)
            axes.legend()
    return figure


@dataclass(frozen=True)
class MapPoints:
    """Dots of a map, one for each particle that is drawn.

    Attributes
    ----------
    places : ndarray, `(m, 2)`
    rows : ndarray of int, `(m,)`
        Row of `embeddings` of each dot.
    axis_names : (str, str)
    within : callable
        ``within(polygon)`` returns the rows, ascending, of all particles that belong into a closed polygon `(p, 2)`,
        also of those that are not drawn.
    undrawn : str
        How those that are not drawn are placed; empty when all are drawn.
    """

    places: np.ndarray
    rows: np.ndarray
    axis_names: tuple[str, str]
    within: Callable[[np.ndarray], np.ndarray]
    undrawn: str = ""


def principal_plane(embeddings: np.ndarray, seed: int = 0) -> MapPoints:
    """Map of the embeddings on their two directions of largest variance.

    Parameters
    ----------
    embeddings : ndarray, `(n, d)`
        Rows that are not finite are left out; of more than 50,000, so many are drawn, chosen with `seed`.
    seed : int
    """
    finite = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    rows = finite
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_POINTS, replace=False))
    chosen = np.asarray(embeddings[rows], dtype=np.float64)
    centre = chosen.mean(axis=0) if len(rows) else np.zeros(embeddings.shape[1])
    variances, axes = np.linalg.eigh((chosen - centre).T @ (chosen - centre))
    plane = np.zeros((embeddings.shape[1], 2))
    plane[:, :min(2, len(variances))] = axes[:, ::-1][:, :2]
    shares = np.zeros(2)
    if variances.sum() > 0:
        shares[:min(2, len(variances))] = variances[::-1][:2] / variances.sum()

    def within(polygon):
        path = Path(polygon)
        found = [part[path.contains_points((np.asarray(embeddings[part], dtype=np.float64) - centre) @ plane)]
                 for part in np.array_split(finite, math.ceil(len(finite) / CHUNK) or 1)]
        return np.concatenate(found)

    names = (f"principal component 1 ({shares[0]:.0%} of the variance)", f"principal component 2 ({shares[1]:.0%})")
    return MapPoints((chosen - centre) @ plane, rows, names, within,
                     "those not drawn have their own places" if len(rows) < len(finite) else "")


def neighbour_map(embeddings: np.ndarray, layout: dict) -> MapPoints:
    """Map that t-SNE made before; particles that it left out belong to the dot whose embedding is nearest.

    Parameters
    ----------
    embeddings : ndarray, `(n, d)`
    layout : dict
        ``rows`` of the particles, ``x``, ``y``, and ``explained``, the share of the variance that the places were made
        from.
    """
    rows = np.asarray(layout["rows"], dtype=int)
    places = np.column_stack([layout["x"], layout["y"]])
    finite = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
    others = np.setdiff1d(finite, rows)

    @cache
    def owners():
        return _nearest(embeddings, others, rows)

    def within(polygon):
        inside = Path(polygon).contains_points(places)
        if not inside.any() or not len(others):
            return np.sort(rows[inside])
        return np.sort(np.concatenate([rows[inside], others[inside[owners()]]]))

    names = (f"t-SNE 1 (of {layout['explained']:.0%} of the variance)", "t-SNE 2")
    return MapPoints(places, rows, names, within,
                     "those not drawn go with the most similar one that is" if len(others) else "")


def _nearest(embeddings: np.ndarray, others: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Position in `drawn` of the row nearest to each row of `others`."""
    targets = np.asarray(embeddings[drawn], dtype=np.float32)
    squares = np.einsum("ij,ij->i", targets, targets)
    parts = np.array_split(others, math.ceil(len(others) / CHUNK))
    return np.concatenate([np.argmin(squares - 2 * np.asarray(embeddings[part], dtype=np.float32) @ targets.T, axis=1)
                           for part in parts])


def plot_embedding_map(points: MapPoints, count: int, dimensions: int, values: np.ndarray | None = None,
                       value_name: str = "", names: list[str] | None = None, figure: Figure | None = None) -> Figure:
    """Map of the embeddings, one dot for each particle.

    Parameters
    ----------
    points : MapPoints
    count, dimensions : int
        Embeddings that there are, and numbers in each.
    values : ndarray, `(n,)`, optional
        A number of each particle, such as its defocus, that colours the dots; grey where it is NaN.
    value_name : str
        Name and unit of the values.
    names : list of str, optional
        Names of categories, the largest first; the values are then their numbers, from 0.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure
    """
    with style():
        figure = prepare(figure, 8.0, 6.6)
        axes = figure.subplots()
        axes.set_title("Map of the embedding")
        if not len(points.rows):
            say(axes, "There are no finite embeddings.")
            return figure
        chosen = None if values is None else np.asarray(values, dtype=float)[points.rows]
        _draw_dots(axes, points.places, chosen, value_name, names, dot_size(len(points.rows)))
        axes.set(xlabel=points.axis_names[0], ylabel=points.axis_names[1])
        axes.set_aspect("equal", adjustable="datalim")
        shown = f"{len(points.rows):,} of {count:,}" if len(points.rows) < count else f"{count:,}"
        unknown = 0 if chosen is None else int(np.isnan(chosen).sum())
        grey = f"; grey: no {value_name.split(' ')[0]} ({unknown:,})" if unknown else ""
        note(axes, f"{shown} particles, {dimensions} dimensions{grey}")
    return figure


def dot_size(count: int) -> float:
    """Area of each of `count` dots, square points."""
    return float(np.clip(20_000 / count, 3, 16))


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
