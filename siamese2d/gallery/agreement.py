"""How far two classifications of the same particles agree."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Agreement:
    """Two classifications compared on the particles that are in both, matched by their objId.

    Attributes
    ----------
    rows, columns : ndarray of int, `(a,)`, `(b,)`
        Class numbers of the first and of the second classification that share particles, those of the first by size;
        those of the second in the order of their partners, then those without one.
    counts : ndarray of int, `(a, b)`
        Particles in row class and column class.
    partners : ndarray of int, `(m, 2)`
        Positions in `rows` and `columns` of matched classes: each class has at most one partner, and the matches have
        as many particles in common as possible.
    only_first, only_second : int
        Particles that are in one classification alone.
    """

    rows: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    partners: np.ndarray
    only_first: int
    only_second: int

    @property
    def common(self) -> int:
        """Particles that are in both."""
        return int(self.counts.sum())

    @property
    def matched(self) -> int:
        """Particles that are in matched classes."""
        return int(self.counts[tuple(self.partners.T)].sum())

    @property
    def rand_index(self) -> float:
        """Adjusted Rand index, see :func:`adjusted_rand_index`."""
        return adjusted_rand_index(self.counts)


def compare(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> Agreement:
    """Compare two classifications.

    Parameters
    ----------
    first, second : (ndarray of int, ndarray of int)
        Ids of particles, each at most once, and of their classes, as
        :func:`~siamese2d.gallery.class_list.read_assignment` returns them.
    """
    common, in_first, in_second = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    rows, row = np.unique(first[1][in_first], return_inverse=True)
    columns, column = np.unique(second[1][in_second], return_inverse=True)
    counts = np.zeros((len(rows), len(columns)), dtype=int)
    np.add.at(counts, (row, column), 1)
    by_size = np.argsort(-counts.sum(axis=1), kind="stable")
    rows, counts = rows[by_size], counts[by_size]
    matched = np.column_stack(linear_sum_assignment(counts, maximize=True)).astype(int).reshape(-1, 2)
    matched = matched[counts[tuple(matched.T)] > 0]
    rest = np.setdiff1d(np.arange(len(columns)), matched[:, 1])
    rest = rest[np.argsort(-counts.sum(axis=0)[rest], kind="stable")]
    shown = np.concatenate([matched[:, 1], rest]).astype(int)
    partners = np.column_stack([matched[:, 0], np.arange(len(matched))]).astype(int)
    return Agreement(rows, columns[shown], counts[:, shown], partners,
                     len(first[0]) - len(common), len(second[0]) - len(common))


def adjusted_rand_index(counts: np.ndarray) -> float:
    """Agreement of two partitions by their table: 1 when they are the same, about 0 when by chance.

    Hubert and Arabie 1985, equation 5: pairs of items that are together in both, corrected by their expectation.

    Parameters
    ----------
    counts : ndarray of int, `(a, b)`
        Items in class i of the first and j of the second.
    """
    pairs = float(_pairs(counts).sum())
    first, second = (float(_pairs(counts.sum(axis=axis)).sum()) for axis in (1, 0))
    total = float(_pairs(counts.sum()))
    if total == 0:
        return 1.0
    expected, highest = first * second / total, (first + second) / 2
    # Both put all into one class, or both each item into one of its own.
    return 1.0 if highest == expected else (pairs - expected) / (highest - expected)


def _pairs(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, dtype=np.float64)
    return counts * (counts - 1) / 2
