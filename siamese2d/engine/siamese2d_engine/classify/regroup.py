"""Fewer classes out of many: fine classes that look alike become one.

Fine classes hold one view of one species or conformation each. Their averages have little noise: grouping these keeps
apart what a comparison of single images with the final number of averages confuses. The groups are found by Ward's method
(Ward 1963, J. Am. Stat. Assoc. 58, 236), whose measure is what joining two classes loses of the log-likelihood.
"""

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, ward
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score
from torch import Tensor

from siamese2d_engine.classify.averages import Spectra
from siamese2d_engine.classify.cells import shift_grid
from siamese2d_engine.classify.passes import Averages, PassResult, PassSettings, PolarImages, Resolution, align
from siamese2d_engine.classify.schedule import SHIFT_CYCLES
from siamese2d_engine.classify.search import Poses, shift_before_rotation

# Shifts tried between two averages, in steps: both are centred. Frames need finer steps than losses.
REACH = 3.0
FINENESS = 4


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
    elements
        Numbers in the largest temporary array.
    """

    def __init__(
        self, averages: Tensor, spectra: Spectra, images: PolarImages, resolution: Resolution, mirror: bool, elements: int
    ):
        self.averages, self.noise = averages, spectra.noise
        harmonics = resolution.harmonics(images.grid, averages.device)
        rings = resolution.rings
        classes = averages.shape[2]
        grid = resolution.grid(images.grid)
        samples, pixels = harmonics.synthesise(averages).cpu(), images.pixels[:rings]
        self._images = PolarImages(grid, samples, torch.ones(classes, rings), samples.abs().square().mean(2), pixels,
                                   images.support)
        self._unit = SHIFT_CYCLES / (grid.step * rings)
        self._full = Resolution(rings, 1, resolution.count)
        self._mirror, self._elements = mirror, elements

    def losses(self, sizes: Tensor) -> np.ndarray:
        """Log-likelihood that joining each two of the classes loses, ``(K, K)``; `sizes` is ``(K,)``."""
        everyone = torch.arange(len(self._images))
        scores = self._compared([(everyone, everyone)], 1).scores
        # 2 score = 2 <A, B> - |B|^2, and |A - A|^2 = 0.
        own = 2 * scores.diagonal()
        distances = (own[:, None] - 2 * scores).double()
        distances = (0.5 * (distances + distances.T)).clamp_min(0).fill_diagonal_(0).numpy()
        n = sizes.clamp_min(1).double().numpy()
        return 0.5 * distances * n[:, None] * n / (n[:, None] + n)

    def frames(self, groups: Tensor, leaders: Tensor) -> Poses:
        """Poses ``(K, 1)`` that move each average into the frame of its group's leader; `groups` is ``(K,)``."""
        candidates = [((groups == number).nonzero()[:, 0], leader[None]) for number, leader in enumerate(leaders)]
        return self._compared(candidates, FINENESS).poses.relabelled(groups)

    def _compared(self, candidates: list[tuple[Tensor, Tensor]], fineness: int) -> PassResult:
        classes = len(self._images)
        ones = torch.ones(classes, len(self.noise), device=self.averages.device)
        references = Averages(self.averages, ones, self.noise, ones.new_zeros(classes))
        # An average is no part of any other.
        nowhere = Poses.empty(classes, 1).relabelled(torch.full((classes,), -1))
        shifts = shift_grid(REACH * self._unit, self._unit / fineness)
        settings = PassSettings(self._full, self._full, shifts, 1, self._mirror, self._elements)
        return align(self._images, torch.zeros(classes, 2), nowhere, references, candidates, settings)


def tree_of(losses: np.ndarray) -> np.ndarray:
    """The order in which Ward's method joins classes, as SciPy's linkage ``(K - 1, 4)``; `losses` is ``(K, K)``."""
    # Ward's method takes lengths: joining two of length d costs d^2 / 2.
    return ward(squareform(np.sqrt(2 * losses), checks=False))


def groups_of(tree: np.ndarray, wanted: int) -> Tensor:
    """At most `wanted` groups of classes, numbered from 0 without gaps, ``(K,)``."""
    _, groups = np.unique(fcluster(tree, wanted, "maxclust"), return_inverse=True)
    return torch.from_numpy(groups).long()


def grouping_curve(tree: np.ndarray, losses: np.ndarray, images: int) -> list[dict]:
    """What each number of groups would cost.

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
        For each number of groups ``k`` from 1 to ``K``: ``loss``, the mean log-likelihood of an image that is lost, and, but
        for the first and the last, ``silhouette`` of the classes in their groups (Rousseeuw 1987, J. Comput. Appl. Math. 20,
        53).
    """
    lost = np.concatenate([[0.0], np.cumsum(tree[:, 2] ** 2 / 2)])[::-1] / images
    lengths = np.sqrt(2 * losses)
    rows = []
    for k, loss in enumerate(lost, start=1):
        groups = groups_of(tree, k).numpy()
        inner = 1 < groups.max() + 1 < len(groups)
        silhouette = float(silhouette_score(lengths, groups, metric="precomputed")) if inner else None
        rows.append({"k": k, "loss": float(loss), "silhouette": silhouette})
    return rows


def leaders_of(groups: Tensor, sizes: Tensor) -> Tensor:
    """The largest class of each group."""
    count = int(groups.max()) + 1
    return torch.stack([torch.where(groups == number, sizes, -1).argmax() for number in range(count)])


def joined(poses: Poses, groups: Tensor, frames: Poses) -> Poses:
    """The best pose of each image, with its class's group as class and moved into the frame of the group's leader.

    Parameters
    ----------
    poses
        Of ``n`` images in fine classes.
    groups
        Of the classes, ``(K,)``.
    frames
        Of the averages, see `Alike.frames`.
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
