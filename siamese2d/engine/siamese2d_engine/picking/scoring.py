"""Score maps of prepared micrographs: in tiles, averaged over the eight orientations."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.batches import Room
from siamese2d_engine.picking.network import PickerNetwork

# Scores across one tile; a tile's layers then take some 100 MB.
TILE, SMALLEST_TILE = 256, 16
ORIENTATIONS = tuple((turns, mirror) for mirror in (False, True) for turns in range(4))


def score_map(network: PickerNetwork, image: np.ndarray, orientations: int = 4, tile: int = TILE) -> np.ndarray:
    """Logits over a prepared micrograph.

    The image is continued by its mirror image, so that particles at the border are scored too. Tiles overlap by the
    receptive field, so the result does not depend on them.

    Parameters
    ----------
    network : PickerNetwork
    image : ndarray, shape `(h, w)`
        A prepared micrograph.
    orientations : int
        Average over this many quarter turns and mirror images, 1 to 8.
    tile : int
        Scores across one tile; fewer where the memory of the GPU ends.

    Returns
    -------
    ndarray, shape `(ceil(h / stride), ceil(w / stride))`
        float32; element `[i, j]` belongs to pixel `[stride i, stride j]` of `image`.
    """
    return Room(tile).attempt(lambda size: _score_map(network, image, orientations, size), SMALLEST_TILE)


def _score_map(network: PickerNetwork, image: np.ndarray, orientations: int, tile: int) -> np.ndarray:
    architecture = network.architecture
    stride, margin = architecture.stride, architecture.margin
    outputs = [-(-n // stride) for n in image.shape]
    # Pixels at the far side make every output's window whole; they are of no weight for those inside.
    far = [stride * (o - 1) + 1 - n + margin for o, n in zip(outputs, image.shape)]
    padded = np.pad(image, [(margin, max(0, f)) for f in far], mode="symmetric")
    scores = np.empty(outputs, dtype=np.float32)
    device = next(network.parameters()).device
    for rows, columns in _tiles(outputs, tile):
        patch = padded[_inputs(rows, architecture), _inputs(columns, architecture)]
        window = torch.from_numpy(patch.copy()).to(device)
        scores[rows, columns] = score_window(network, window, orientations).cpu().numpy()
    return scores


@torch.no_grad()
def score_window(network: PickerNetwork, window: Tensor, orientations: int = 4) -> Tensor:
    """Logits of one input `(h, w)` whose sides are ``Architecture.input_size(n)``, averaged over orientations."""
    total = 0
    for turns, mirror in ORIENTATIONS[:orientations]:
        turned = torch.rot90(window, turns, (0, 1))
        logits = network((turned.flip(1) if mirror else turned)[None])[0]
        total = total + torch.rot90(logits.flip(1) if mirror else logits, -turns, (0, 1))
    return total / orientations


def _tiles(outputs: list[int], tile: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, outputs[0], tile):
        for left in range(0, outputs[1], tile):
            yield slice(top, min(top + tile, outputs[0])), slice(left, min(left + tile, outputs[1]))


def _inputs(outputs: slice, architecture) -> slice:
    start = architecture.stride * outputs.start
    return slice(start, start + architecture.input_size(outputs.stop - outputs.start))
