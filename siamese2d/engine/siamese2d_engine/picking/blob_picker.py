"""Picking particles of known size without any label: blobs, then a filter learned from the best of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from siamese2d_engine.picking.blobs import difference_of_gaussians, even_contrast, noise_units, robust_width
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.oddities import Usual, feature_maps, features, usual
from siamese2d_engine.picking.peaks import find_peaks
from siamese2d_engine.picking.ring_filter import apply_filter, learn_filter
from siamese2d_engine.picking.unlabeled_view import View

ROUNDS = 3
# Share of the candidates, the best, that the filter is learned from.
SEEDS = 0.1
# Weight of the plain blob beside the learned filter: keeps the pick on the whole particle, not on a strong part of it.
BLOB_WEIGHT = 0.5
# Two particles' centres are at least this many diameters apart.
SEPARATION = 0.6
FLOOR = 0.5
# Ratio of the curvatures across and along an edge beyond which a peak lies on an edge (Lowe 2004, Int. J. Comput. Vis.
# 60, 91: tr(H)^2 / det(H) below (r + 1)^2 / r).
EDGE_RATIO = 8.0


@dataclass(frozen=True)
class BlobPicker:
    """What was learned from some micrographs of a set; picks any of them.

    Attributes
    ----------
    diameters : tuple of float
        In pixels of the views, the smallest first.
    filters : tuple
        A learned filter, ``(k, k)``, for each diameter; None where too few particles of that size were found.
    usual : Usual or None
        How candidates look; None while that is not known.
    """

    diameters: tuple[float, ...]
    filters: tuple[np.ndarray | None, ...]
    usual: Usual | None

    def pick(self, view: View) -> np.ndarray:
        """Candidates of a view.

        Returns
        -------
        ndarray
            ``(n, 4)``: x, y in pixels of the view, score in widths of the noise, diameter in pixels of the view; best
            first.
        """
        return self._pick(_Maps.of(view, self.diameters))

    def _pick(self, maps: "_Maps") -> np.ndarray:
        candidates = self._candidates(maps)
        return candidates if self.usual is None else candidates[~self.usual.is_odd(maps.features(candidates))]

    def _candidates(self, maps: "_Maps") -> np.ndarray:
        found = []
        for diameter, kernel in zip(self.diameters, self.filters):
            scores = maps.scores(diameter, kernel)
            peaks = find_peaks(scores, SEPARATION * diameter, FLOOR)
            peaks = peaks[is_blob(scores, peaks)]
            found.append(np.column_stack([peaks, np.full(len(peaks), diameter)]))
        return best_of_sizes(np.concatenate(found))


@dataclass(frozen=True)
class _Maps:
    """What does not change from round to round: the image, its blobs and its features for each diameter."""

    image: np.ndarray
    blobs: dict[float, np.ndarray]
    looks: dict[float, np.ndarray]

    @classmethod
    def of(cls, view: View, diameters: Sequence[float]) -> "_Maps":
        image = even_contrast(view.flat, diameters[-1])
        return cls(image, {d: noise_units(difference_of_gaussians(image, d), d) for d in diameters},
                   {d: feature_maps(view.flat, view.strength, d) for d in diameters})

    def scores(self, diameter: float, kernel: np.ndarray | None) -> np.ndarray:
        """Scores with a noise of width 1."""
        scores = self.blobs[diameter]
        if kernel is not None:
            scores = BLOB_WEIGHT * scores + noise_units(apply_filter(self.image, kernel), diameter)
        return scores / np.float32(max(robust_width(scores), np.finfo(np.float32).tiny))

    def features(self, candidates: np.ndarray) -> np.ndarray:
        """Features of candidates, ``(n, 4)``, with windows of each one's own size."""
        values = np.empty((len(candidates), 4))
        for diameter, maps in self.looks.items():
            own = candidates[:, 3] == diameter
            values[own] = features(maps, candidates[own, :2])
        return values


def learn_blobs(views: Sequence[View], diameters: Sequence[float]) -> BlobPicker:
    """Learn how the particles look from the best blobs of some micrographs.

    Parameters
    ----------
    views : sequence of View
    diameters : sequence of float
        The smallest first, in any unit: that of the views makes it `WORKING_DIAMETER` pixels.
    """
    sizes = tuple(WORKING_DIAMETER * diameter / diameters[0] for diameter in diameters)
    sample = [_Maps.of(view, sizes) for view in views]
    picker = BlobPicker(sizes, (None,) * len(sizes), None)
    for _ in range(ROUNDS):
        picker = _with_usual(picker, sample)
        candidates = [picker._pick(maps) for maps in sample]
        images = [maps.image for maps in sample]
        filters = [learn_filter(images, _seeds(candidates, size), size) for size in sizes]
        picker = BlobPicker(sizes, tuple(filters), None)
    return _with_usual(picker, sample)


def is_blob(scores: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Which peaks `(n, 3)` given as x, y, score of a map are no ridges, by the Hessian at the nearest pixel."""
    if not len(peaks):
        return np.zeros(0, dtype=bool)
    padded = np.pad(scores, 1, mode="edge")
    rows, columns = (np.clip(np.floor(peaks[:, i] + 0.5).astype(int), 0, n - 1) + 1 for i, n in ((1, scores.shape[0]),
                                                                                                (0, scores.shape[1])))

    def at(dy: int, dx: int) -> np.ndarray:
        return padded[rows + dy, columns + dx]

    yy, xx = at(1, 0) + at(-1, 0) - 2 * at(0, 0), at(0, 1) + at(0, -1) - 2 * at(0, 0)
    xy = (at(1, 1) + at(-1, -1) - at(1, -1) - at(-1, 1)) / 4
    determinant = xx * yy - xy**2
    return (determinant > 0) & ((xx + yy) ** 2 < (EDGE_RATIO + 1) ** 2 / EDGE_RATIO * determinant)


def best_of_sizes(candidates: np.ndarray) -> np.ndarray:
    """Candidates `(n, 4)` given as x, y, score, diameter without those that a better one of any size overlaps."""
    candidates = candidates[np.argsort(-candidates[:, 2], kind="stable")]
    alive = np.ones(len(candidates), dtype=bool)
    sizes = np.unique(candidates[:, 3])
    if len(sizes) < 2:
        return candidates
    for i in range(len(candidates)):
        if alive[i]:
            rest = slice(i + 1, None)
            distance = np.hypot(*(candidates[rest, :2] - candidates[i, :2]).T)
            alive[rest] &= distance >= SEPARATION * (candidates[rest, 3] + candidates[i, 3]) / 2
    return candidates[alive]


def _seeds(candidates: Sequence[np.ndarray], size: float) -> list[np.ndarray]:
    """Positions of the best candidates of one size."""
    own = [found[found[:, 3] == size] for found in candidates]
    scores = np.concatenate([found[:, 2] for found in own])
    limit = np.quantile(scores, 1 - SEEDS) if len(scores) else 0.0
    return [found[found[:, 2] >= limit, :2] for found in own]


def _with_usual(picker: BlobPicker, sample: Sequence[_Maps]) -> BlobPicker:
    found = [picker._candidates(maps) for maps in sample]
    scores = np.concatenate([candidates[:, 2] for candidates in found])
    if not len(scores):
        return picker
    values = np.concatenate([maps.features(candidates) for maps, candidates in zip(sample, found)])
    return replace(picker, usual=usual(values, scores))
