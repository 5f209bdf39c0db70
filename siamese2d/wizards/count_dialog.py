"""A window to choose how many particles a micrograph holds, by looking at picks above a score."""

from dataclasses import dataclass

import numpy as np

from siamese2d.viewers.plots.circles import FIGURE_INCHES, CirclesPlot
from siamese2d.viewers.run_files import image_or_reason
from siamese2d.wizards.figure_dialog import FigureDialog

STEPS = 200
# Picks within this part of the diameter are on a marked particle.
NEAR = 0.4
# Marked particles below which their share among the picks says too little, and the share from which it counts.
FEWEST_MARKED, LOWEST_RECALL = 20, 0.3
# Of the marked particles that are found, where they are few.
KEPT = 0.9


@dataclass(frozen=True)
class PickedMicrograph:
    """Candidates of one micrograph.

    Attributes
    ----------
    name, path : str
        What to call it, and its file.
    positions : ndarray
        Of the candidates, pixels (x, y), `(n, 2)`.
    scores : ndarray
        `(n,)`.
    marked : ndarray
        Marked particles, pixels (x, y), `(m, 2)`; they need not be all.
    """

    name: str
    path: str
    positions: np.ndarray
    scores: np.ndarray
    marked: np.ndarray


@dataclass(frozen=True)
class PickedSample:
    """Some micrographs that were picked without labels.

    Attributes
    ----------
    micrographs : list of PickedMicrograph
    diameter, pixelSize : float
        Angstroms; of the micrographs.
    threshold : float
        Score that separates the candidates best.
    """

    micrographs: list[PickedMicrograph]
    diameter: float
    pixelSize: float
    threshold: float

    @property
    def scores(self) -> np.ndarray:
        """Of all candidates."""
        return np.concatenate([micrograph.scores for micrograph in self.micrographs])

    @property
    def marked(self) -> int:
        """Marked particles on these micrographs."""
        return sum(len(micrograph.marked) for micrograph in self.micrographs)

    def found(self, threshold: float) -> int:
        """Marked particles that lie near a candidate with this score or more."""
        return int((self._scores_at_marks() >= threshold).sum())

    def per_micrograph(self, threshold: float) -> float:
        """Candidates of this score or more for each micrograph."""
        return float((self.scores >= threshold).sum()) / len(self.micrographs)

    def best_threshold(self) -> float:
        """Score above which there are as many candidates as there are particles, as far as the marked ones tell.

        Above a score t lie n(t) candidates and a share R(t) of the marked particles; were all candidates particles,
        there would be n(t) / R(t) of them. False candidates only add to it: the smallest value counts, R being lowered
        by half a standard error, which makes up for the choice of the luckiest score (Blanchard, Lee & Scott 2010).
        Training counts the same way, with the scores of the trained picker. Fewer than 20 marked particles say too
        little for that: then it is `threshold`, or lower so that it keeps all but a tenth of those that are found.
        """
        marks, scores = np.sort(self._scores_at_marks())[::-1], np.sort(self.scores)[::-1]
        found = marks[np.isfinite(marks)]
        if self.marked < FEWEST_MARKED:
            lowest = np.quantile(found, 1 - KEPT, method="lower") if len(found) else np.inf
            return min(self.threshold, float(lowest))
        recall = np.arange(1, self.marked + 1) / self.marked
        usable = np.isfinite(marks) & (recall >= LOWEST_RECALL)
        if not usable.any():
            return self.threshold
        above = np.searchsorted(-scores, -marks, side="right")
        particles = (above / (recall - 0.5 * np.sqrt(recall * (1 - recall) / self.marked)))[usable].min()
        return float(scores[min(len(scores), round(particles)) - 1])

    def _scores_at_marks(self) -> np.ndarray:
        """The best score near each marked particle; minus infinity where there is no candidate."""
        best = []
        for micrograph in self.micrographs:
            for mark in micrograph.marked:
                near = np.linalg.norm(micrograph.positions - mark, axis=1) <= NEAR * self.diameter / self.pixelSize
                best.append(micrograph.scores[near].max(initial=-np.inf))
        return np.array(best, dtype=float)


class CountDialog(FigureDialog):
    """Picks without labels on some micrographs; the slider moves the score from which they count.

    Parameters
    ----------
    parent : tkinter widget
        Window of the form.
    title : str
        Of this window.
    sample : PickedSample
        With at least one candidate.
    """

    SIZE = FIGURE_INCHES

    def __init__(self, parent, title: str, sample: PickedSample):
        self._sample = sample
        low, high = float(sample.scores.min()), float(sample.scores.max())
        step = max((high - low) / STEPS, 1e-3)
        FigureDialog.__init__(self, parent, title, "Score of a particle", sample.best_threshold(), (low, high, step),
                              len(sample.micrographs))

    @property
    def count(self) -> float:
        """Particles for each micrograph."""
        return self._sample.per_micrograph(self.value)

    def _draw(self, page):
        shown = self._sample.micrographs[page]
        self._plot = CirclesPlot(image_or_reason(shown.path), shown.name, shown.positions[shown.scores >= self.value],
                                 self._sample.pixelSize, self._sample.diameter, self._figure)
        self._tell()

    def _changed(self):
        shown = self._sample.micrographs[self._number]
        self._plot.set_positions(shown.positions[shown.scores >= self.value])
        self._tell()

    def _tell(self):
        sample = self._sample
        marked = f" {sample.found(self.value)} of the {sample.marked} marked particles on them are among these." \
            if sample.marked else ""
        self._text.config(text=f"{self.count:.0f} particles in a micrograph, on average of {len(sample.micrographs)} "
                               f"that "
                               f"were picked without labels.{marked} Move the slider until the circles hold about as "
                               f"many "
                               "particles as you see; being wrong by half is no harm.")
