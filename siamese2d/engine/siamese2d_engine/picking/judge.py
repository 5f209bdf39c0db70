"""What held-out labels say about a network."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from siamese2d_engine import distributed
from siamese2d_engine.picking.candidates import find_candidates
from siamese2d_engine.picking.gap import Gap, find_gap
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.labels import class_prior
from siamese2d_engine.picking.network import PickerNetwork
from siamese2d_engine.picking.precision_recall import Ranking, average_precision, rank
from siamese2d_engine.picking.prior import estimate_particles
from siamese2d_engine.picking.sampling import LabelledMicrograph
from siamese2d_engine.progress import progress

MATCH_RADIUS = 0.4 * WORKING_DIAMETER
# Logits below which nothing is looked at.
FLOOR = -12.0


@dataclass(frozen=True)
class Survey:
    """What the scores of all candidates in the labelled micrographs say.

    Attributes
    ----------
    density : float
        Particles per working pixel.
    gap : Gap or None
        Between the logits of particles and everything else; None where they do not stand apart.
    """

    density: float
    gap: Gap | None


@dataclass(frozen=True)
class Judge:
    """Ranks a network's candidates against labels that it was not trained on.

    Attributes
    ----------
    micrographs : list of LabelledMicrograph
        Their `hidden` labels are the judge's; candidates on their other labels are left out of the ranking.
    has_held_out : bool
        False where labels were too few to hold any out: the hidden labels are then the training labels.
    guess : float
        Particles per working pixel to assume while they are not known.
    census : list of LabelledMicrograph
        Micrographs whose number of particles is estimated; all their labels are `hidden`.
    smallest : float
        Diameter of the smallest particles over that of the largest.
    """

    micrographs: list[LabelledMicrograph]
    has_held_out: bool
    guess: float
    census: list[LabelledMicrograph]
    smallest: float = 1.0

    @property
    def pixels(self) -> int:
        return sum(m.image.size for m in self.micrographs)

    @property
    def labels(self) -> int:
        return sum(len(m.hidden) for m in self.micrographs)

    @property
    def trained_labels(self) -> int:
        return sum(len(m.labels) for m in self.micrographs)

    def expected(self, density: float | None) -> float:
        """Particles in the judge's micrographs that are not training labels."""
        return max((self.guess if density is None else density) * self.pixels - self.trained_labels,
                   self.labels)

    def prior(self, density: float | None) -> float:
        """Share of pixels in discs of particles."""
        return class_prior(self.guess if density is None else density, 1.0)

    def ranking(self, network: PickerNetwork, orientations: int = 4) -> Ranking:
        """Candidates of all micrographs against the held-out labels."""
        return self._ranking(network, self.micrographs, orientations)

    def found_at(self, network: PickerNetwork) -> list[int]:
        """Ranks, from 1, at which the held-out labels are found; empty without held-out labels."""
        if not self.has_held_out:
            return []
        return [int(i) + 1 for i in np.flatnonzero(self.ranking(network, orientations=1).hits)]

    def average_precision(self, found_at: list[int], density: float | None) -> float:
        """Estimated average precision of an epoch with these `found_at`."""
        return average_precision(found_at, self.labels, self.expected(density))

    def standard_error(self, average_precision: float) -> float:
        """Of an average precision, about: that of a share of the labels, with one label added on either side."""
        found, missed = average_precision * self.labels + 1, (1 - average_precision) * self.labels + 1
        return math.sqrt(found * missed / (self.labels + 2) ** 3)

    def survey(self, network: PickerNetwork, orientations: int = 1) -> Survey:
        """Number of particles, and the gap between their scores and others.

        Particles are counted above the gap. Where there is none they are estimated from all labels by
        `estimate_particles` (training labels are found a little too easily, but the few held-out ones alone would err
        more), and are the guess where that can't tell.
        """
        ranking = self._ranking(network, self.census, orientations, floor=-math.inf)
        gap = find_gap(ranking)
        particles = estimate_particles(ranking) if gap is None else float((ranking.scores >= gap.score).sum())
        pixels = sum(m.image.size for m in self.census)
        return Survey(self.guess if particles is None else particles / pixels, gap)

    def _ranking(self, network: PickerNetwork, micrographs: list[LabelledMicrograph], orientations: int,
                 floor: float = FLOOR) -> Ranking:
        """Candidates against hidden labels; those on other labels are left out. Processes share the micrographs."""
        mine = [_without(find_candidates(network, m.image, floor, orientations, smallest=self.smallest), m.labels)
                for m in progress(distributed.share(micrographs), "score")]
        candidates = [found for part in distributed.gather(mine) for found in part]
        return rank(candidates, [m.hidden for m in micrographs], MATCH_RADIUS * self.smallest)


def _without(candidates: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if not len(labels) or not len(candidates):
        return candidates
    distance, _ = cKDTree(labels).query(candidates[:, :2])
    return candidates[distance > MATCH_RADIUS]
