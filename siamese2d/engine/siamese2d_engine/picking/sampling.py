"""Training pixels: windows around labels, and random crops of whole micrographs for the unlabeled."""

from dataclasses import dataclass

import numpy as np

from siamese2d_engine.picking.labels import LABEL_RADIUS, label_mask
from siamese2d_engine.picking.network import Architecture


@dataclass(frozen=True)
class LabelledMicrograph:
    """A prepared micrograph with its labels.

    Attributes
    ----------
    image : ndarray, shape `(h, w)`
        As the network sees it.
    labels : ndarray, shape `(n, 2)`
        x, y of labelled particles in pixels of `image`.
    hidden : ndarray, shape `(m, 2)`
        Labels held out from training; their surroundings are neither positive nor unlabeled.
    """

    image: np.ndarray
    labels: np.ndarray
    hidden: np.ndarray


class Sampler:
    """Draws batches from prepared micrographs.

    Parameters
    ----------
    micrographs : list of LabelledMicrograph
    architecture : Architecture
        Fixes the windows' size and the grid of outputs.
    hidden_radius : float
        Pixels around hidden labels that are left out.
    """

    def __init__(self, micrographs: list[LabelledMicrograph], architecture: Architecture, hidden_radius: float):
        self.architecture = architecture
        # Windows around a label at the very edge reach this far beyond the picture.
        self.pad = architecture.margin + 2 * LABEL_RADIUS + 2 * architecture.stride
        self.shapes = [m.image.shape for m in micrographs]
        self.images = [np.pad(m.image, self.pad, mode="symmetric") for m in micrographs]
        self.positive = [self._padded(label_mask(m.image.shape, m.labels), False) for m in micrographs]
        self.excluded = [self._padded(label_mask(m.image.shape, m.hidden, hidden_radius), True) for m in micrographs]
        self.centres = [(i, *np.floor(xy + 0.5).astype(int)) for i, m in enumerate(micrographs) for xy in m.labels]

    def _padded(self, mask: np.ndarray, value: bool) -> np.ndarray:
        return np.pad(mask, self.pad, constant_values=value)

    @property
    def labelled_share(self) -> float:
        """Labelled pixels as a share of all."""
        return sum(int(mask.sum()) for mask in self.positive) / sum(h * w for h, w in self.shapes)

    def positives(self, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Windows around random labels.

        Returns
        -------
        images : ndarray, shape `(number, s, s)`
        masks : ndarray, shape `(number, o, o)`
            Outputs that lie in label discs.
        """
        stride = self.architecture.stride
        outputs = -(-(2 * LABEL_RADIUS + stride) // stride)
        windows = []
        for index in rng.integers(len(self.centres), size=number):
            i, x, y = self.centres[index]
            # The random phase lets every pixel of the disc fall on the grid of outputs.
            dy, dx = rng.integers(stride, size=2)
            image, positive, _ = self._cut(i, y - LABEL_RADIUS - dy, x - LABEL_RADIUS - dx, outputs)
            windows.append(_augment([image, positive], rng))
        images, masks = zip(*windows)
        return np.stack(images), np.stack(masks)

    def unlabeled(self, number: int, outputs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Crops at random places, all pixels of all micrographs being about equally likely.

        Returns
        -------
        images : ndarray, shape `(number, s, s)`
        masks : ndarray, shape `(number, o, o)`
            Outputs that carry no label and are not hidden.
        """
        images, positive, excluded = self.crops(number, outputs, rng)
        return images, ~(positive | excluded)

    def crops(self, number: int, outputs: int,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `unlabeled`, with two masks: outputs that lie in label discs, and those that are hidden."""
        stride = self.architecture.stride
        areas = np.array([h * w for h, w in self.shapes], dtype=float)
        outputs = min(outputs, *(-(-min(shape) // stride) for shape in self.shapes))
        drawn = []
        for i in rng.choice(len(areas), size=number, p=areas / areas.sum()):
            y, x = (rng.integers(max(1, n - stride * (outputs - 1))) for n in self.shapes[i])
            drawn.append(_augment(list(self._cut(i, y, x, outputs)), rng))
        images, positive, excluded = (np.stack(arrays) for arrays in zip(*drawn))
        return images, positive, excluded

    def _cut(self, i: int, y: int, x: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The input whose first output is centred at (y, x) of micrograph i, and the masks on the grid of outputs."""
        size, stride = self.architecture.input_size(outputs), self.architecture.stride
        top, left = y + self.pad - self.architecture.margin, x + self.pad - self.architecture.margin
        image = self.images[i][top:top + size, left:left + size]
        rows = slice(y + self.pad, y + self.pad + stride * (outputs - 1) + 1, stride)
        columns = slice(x + self.pad, x + self.pad + stride * (outputs - 1) + 1, stride)
        return image, self.positive[i][rows, columns], self.excluded[i][rows, columns]


def _augment(arrays: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """The same random quarter turn and mirror for all `arrays`; pixels are moved, never interpolated."""
    turns, mirror = rng.integers(4), rng.integers(2)
    turned = [np.rot90(a, turns) for a in arrays]
    return [a[:, ::-1] if mirror else a for a in turned]
