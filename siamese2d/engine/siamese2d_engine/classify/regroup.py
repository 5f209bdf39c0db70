"""Fewer classes out of many: fine classes that look alike become one.

Fine classes hold one view of one species or conformation each. Their averages have little noise: grouping these keeps
apart what a comparison of single images with the final number of averages confuses. The groups are found by Ward's
method (Ward 1963, J. Am. Stat. Assoc. 58, 236), whose measure is what joining two classes loses of the log-likelihood,
and improved by k-means over the classes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, ward
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score
from torch import Tensor

from siamese2d_engine.batches import Room
from siamese2d_engine.classify.averages import Spectra
from siamese2d_engine.classify.cells import ShiftGrid, shift_grid
from siamese2d_engine.classify.passes import (Averages, PassResult, PassSettings, PolarImages, Resolution, align,
                                              aligned_harmonics)
from siamese2d_engine.classify.schedule import SHIFT_CYCLES
from siamese2d_engine.classify.search import Poses, shift_before_rotation

# Shifts tried between two averages, in steps: both are centred. Frames are found again in finer steps around the best.
REACH = 3.0
FINENESS = 4
# Rounds of k-means after Ward's method, which never parts what it has joined.
ROUNDS = 3
# What groups cost is told for all numbers of them below this one; larger ones grow by this part of theirs.
STEPS = 20


class Alike:
    """Compares class averages with each other over rotations, small shifts and the mirror.

    Parameters
    ----------
    averages
        ``(count, rings, K)`` at `resolution`.
    spectra
        Noise of the images, ``(rings,)``.
    images
        Whose averages they are.
    resolution
        Of the averages.
    mirror
        Whether an average and its mirror image are alike.
    room
        For the numbers of the largest temporary array.
    """

    def __init__(
        self, averages: Tensor, spectra: Spectra, images: PolarImages, resolution: Resolution, mirror: bool, room: Room
    ):
        self.averages, self.noise = averages, spectra.noise
        self._harmonics = harmonics = resolution.harmonics(images.grid, averages.device)
        rings = resolution.rings
        classes = averages.shape[2]
        grid = resolution.grid(images.grid)
        samples, pixels = harmonics.synthesise(averages).cpu(), images.pixels[:rings]
        self._images = PolarImages(grid, samples, torch.ones(classes, rings), samples.abs().square().mean(2), pixels,
                                   images.support)
        self._unit = grid.shift_step(SHIFT_CYCLES, rings)
        self._wide = shift_grid(REACH * self._unit, self._unit)
        self._full = Resolution(rings, 1, resolution.count)
        self._mirror, self._room = mirror, room

    def losses(self, sizes: Tensor) -> np.ndarray:
        """Log-likelihood that joining each two of the classes loses, ``(K, K)``; `sizes` is ``(K,)``."""
        distances = self._distances(self.averages)
        distances = (distances + distances.T).fill_diagonal_(0).numpy()
        n = sizes.clamp_min(1).double().numpy()
        return 0.5 * distances * n[:, None] * n / (n[:, None] + n)

    def settled(self, groups: Tensor, sizes: Tensor) -> tuple[Tensor, Poses]:
        """Groups after some rounds of k-means over the classes, and the poses that move the classes into them.

        Parameters
        ----------
        groups
            Numbers of the classes' groups to begin with, ``(K,)``.
        sizes
            Of the classes, ``(K,)``.

        Returns
        -------
        tuple
            The new groups ``(K,)``, none of them empty, and poses ``(K, 1)``.
        """
        frames = self.frames(groups, self.averages[:, :, leaders_of(groups, sizes)])
        for _ in range(ROUNDS):
            means = self._means(groups, frames, sizes)
            groups = nearest_groups(self._distances(means), groups, sizes)
            frames = self.frames(groups, means)
        return groups, frames

    def frames(self, groups: Tensor, references: Tensor) -> Poses:
        """Poses ``(K, 1)`` that move each class into the frame of its group's reference.

        `groups` is ``(K,)``, `references` are harmonics ``(count, rings, groups)``.
        """
        candidates = [((groups == number).nonzero()[:, 0], torch.tensor([number]))
                      for number in range(references.shape[2])]
        coarse = self._compared(references, candidates, self._wide, torch.zeros(len(groups), 2)).poses
        fine = shift_grid(self._unit, self._unit / FINENESS)
        return self._compared(references, candidates, fine, coarse.shifts[:, 0]).poses.relabelled(groups)

    def _distances(self, references: Tensor) -> Tensor:
        """Half the squared distance of each class from references, in units of the noise, ``(K, references)``."""
        everyone = torch.arange(len(self._images)), torch.arange(references.shape[2])
        centres = torch.zeros(len(self._images), 2)
        scores = self._compared(references, [everyone], self._wide, centres).scores
        # The score is <A, B> - |B|^2 / 2.
        power = self._images.power * self._images.pixels / self.noise.cpu()
        return (0.5 * power.sum(1, keepdim=True).double() - scores).clamp_min(0)

    def _means(self, groups: Tensor, frames: Poses, sizes: Tensor) -> Tensor:
        """Averages ``(count, rings, groups)`` of the groups' members, which count as many times as they have images."""
        device = self.averages.device
        everyone = torch.arange(len(groups))
        moved = aligned_harmonics(self._images, everyone, frames.to(device), self._full, self._harmonics)
        weights = sizes.clamp_min(1).to(moved.real)
        total = torch.zeros(int(groups.max()) + 1, device=device).index_add_(0, groups.to(device), weights)
        sums = torch.zeros(len(total), *moved.shape[1:], dtype=moved.dtype, device=device)
        sums.index_add_(0, groups.to(device), moved * weights[:, None, None])
        return (sums / total[:, None, None]).permute(1, 2, 0).contiguous()

    def _compared(
        self, references: Tensor, candidates: list[tuple[Tensor, Tensor]], shifts: ShiftGrid, centres: Tensor
    ) -> PassResult:
        classes = len(self._images)
        ones = torch.ones(references.shape[2], len(self.noise), device=references.device)
        # An average is no part of any other.
        nowhere = Poses.empty(classes, 1).relabelled(torch.full((classes,), -1))
        settings = PassSettings(self._full, self._full, shifts, 1, self._mirror, self._room)
        return align(self._images, centres, nowhere, Averages(references, ones, self.noise, ones.new_zeros(len(ones))),
                     candidates, settings)


def nearest_groups(distances: Tensor, groups: Tensor, sizes: Tensor) -> Tensor:
    """The group that each class costs least in; the largest class of each group stays.

    A class moves the mean of a group that it leaves away from the others, and that of one that it joins towards itself:
    distances count ``N / (N - n)`` and ``N / (N + n)`` times (Hartigan and Wong 1979, Appl. Stat. 28, 100).

    Parameters
    ----------
    distances
        Squared, of the classes from the groups' means, ``(K, groups)``.
    groups
        Present ones, ``(K,)``.
    sizes
        Of the classes, ``(K,)``.
    """
    n = sizes.clamp_min(1).to(distances)
    total = n.new_zeros(distances.shape[1]).index_add_(0, groups, n)
    costs = distances * total / (total + n[:, None])
    own = torch.arange(len(groups))
    # Alone in its group, a class is the mean itself.
    rest = (total[groups] - n).clamp_min(torch.finfo(n.dtype).tiny)
    costs[own, groups] = distances[own, groups] * total[groups] / rest
    found = costs.argmin(1)
    leaders = leaders_of(groups, sizes)
    found[leaders] = groups[leaders]
    return found


def tree_of(losses: np.ndarray) -> np.ndarray:
    """The order in which Ward's method joins classes, as SciPy's linkage ``(K - 1, 4)``; `losses` is ``(K, K)``."""
    # Ward's method takes lengths: joining two of length d costs d^2 / 2.
    return ward(squareform(np.sqrt(2 * losses), checks=False))


def groups_of(tree: np.ndarray, wanted: int) -> Tensor:
    """At most `wanted` groups of classes, numbered from 0 without gaps, ``(K,)``."""
    _, groups = np.unique(fcluster(tree, wanted, "maxclust"), return_inverse=True)
    return torch.from_numpy(groups).long()


def grouping_curve(tree: np.ndarray, losses: np.ndarray, images: int) -> list[dict]:
    """What numbers of groups would cost: all small ones, then each some 5 % larger than the one before.

    Parameters
    ----------
    tree
        See `tree_of`.
    losses
        ``(K, K)``.
    images
        In all classes.

    Returns
    -------
    list of dict
        For numbers of groups ``k`` from 1 to ``K``: ``loss``, the mean log-likelihood of an image that is lost, and,
        but for the first and the last, ``silhouette`` of the classes in their groups (Rousseeuw 1987, J. Comput. Appl.
        Math. 20, 53).
    """
    lost = np.concatenate([[0.0], np.cumsum(tree[:, 2] ** 2 / 2)])[::-1] / images
    lengths = np.sqrt(2 * losses)
    rows = []
    for k in _numbers_up_to(len(lost)):
        groups = groups_of(tree, k).numpy()
        inner = 1 < groups.max() + 1 < len(groups)
        silhouette = float(silhouette_score(lengths, groups, metric="precomputed")) if inner else None
        rows.append({"k": k, "loss": float(lost[k - 1]), "silhouette": silhouette})
    return rows


def _numbers_up_to(most: int) -> Iterator[int]:
    """All numbers from 1 where they are small, then each a few per cent larger than the one before; `most` last."""
    k = 1
    while k < most:
        yield k
        k += 1 + k // STEPS
    yield most


def leaders_of(groups: Tensor, sizes: Tensor) -> Tensor:
    """The largest class of each group."""
    count = int(groups.max()) + 1
    return torch.stack([torch.where(groups == number, sizes, -1).argmax() for number in range(count)])


def joined(poses: Poses, groups: Tensor, frames: Poses) -> Poses:
    """The best pose of each image, with its class's group as class and moved into the group's frame.

    Parameters
    ----------
    poses
        Of ``n`` images in fine classes.
    groups
        Of the classes, ``(K,)``.
    frames
        Of the classes, see `Alike.frames`.
    """
    labels = poses.classes[:, 0]
    best = poses.relabelled(groups[labels])
    then = frames.single(labels, 0, labels.device)
    # First the image's own turn and mirror, then the average's: a mirrored image turns the other way.
    best.shifts += shift_before_rotation(then.shifts, best.psi, best.flips)
    best.psi += torch.where(best.flips, -then.psi, then.psi)
    best.flips ^= then.flips
    return best


def joined_scores(scores: Tensor, groups: Tensor) -> Tensor:
    """Log of the summed likelihoods of each group's classes, ``(n, groups)`` from ``(n, K)``."""
    count = int(groups.max()) + 1
    return torch.stack([torch.logsumexp(scores[:, groups == number], dim=1) for number in range(count)], dim=1)
