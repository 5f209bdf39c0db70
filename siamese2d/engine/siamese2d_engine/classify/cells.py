"""Shifts that are tried, and the few combinations of shift, class and mirror that are worth a closer look."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Cells whose log-likelihood on the grid is this much below the image's best are not looked at closely.
HOPELESS = 12.0


@dataclass(frozen=True)
class ShiftGrid:
    """Shifts on a square grid within a circle, zero first.

    Attributes
    ----------
    points
        ``(s, 2)`` pixels (x, y).
    step
        Distance of neighbours, pixels.
    neighbours
        Indices of the points at -x, +x, -y and +y, ``(s, 4)``; a point's own index where there is none.
    log_prior
        Logarithm of how much likelier than the average point each one is beforehand, ``(s,)``.
    """

    points: Tensor
    step: float
    neighbours: Tensor
    log_prior: Tensor


def shift_grid(reach: float, step: float, spread: float = np.inf) -> ShiftGrid:
    """Shifts on a square grid of `step` pixels within a circle of `reach` pixels.

    Beforehand, shifts are normally distributed around zero, with a standard deviation along each axis of `spread`
    pixels (Scheres et al. 2005, J. Mol. Biol. 348, 139); where that is infinite, all are alike.
    """
    n = int(np.floor(reach / step + 1e-6))
    y, x = np.mgrid[-n:n + 1, -n:n + 1]
    inside = np.hypot(x, y) * step <= reach + 1e-6
    cells = np.stack([x[inside], y[inside]], axis=1)
    cells = cells[np.argsort(np.hypot(*cells.T), kind="stable")]
    index = {(x, y): i for i, (x, y) in enumerate(cells.tolist())}
    neighbours = [[index.get((x + dx, y + dy), i) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))]
                  for (x, y), i in index.items()]
    points = torch.as_tensor(cells * step, dtype=torch.float32)
    log_prior = -points.square().sum(1) / (2 * spread ** 2)
    log_prior -= torch.logsumexp(log_prior, 0) - np.log(len(points))
    return ShiftGrid(points, step, torch.as_tensor(neighbours), log_prior)


@dataclass
class Cells:
    """``x`` combinations of shift, class and mirror, a few for each image of a chunk.

    Attributes
    ----------
    image, slot
        Position of the image in the chunk, and rank among the image's cells.
    shift
        Index of the shift.
    moved
        The shift interpolated between the grid's points, ``(x, 2)`` pixels.
    gain
        What the interpolation and the shift's prior add to the log-likelihood.
    column
        Index of the class among those compared with.
    flip
        Whether the image is mirrored.
    """

    image: Tensor
    slot: Tensor
    shift: Tensor
    moved: Tensor
    gain: Tensor
    column: Tensor
    flip: Tensor


def likely_cells(scores: Tensor, best: int, grid: ShiftGrid) -> Cells:
    """Of each image, the classes that score best, each at its best shift.

    Averaging over neighbouring shifts instead would blur the averages by the step of the grid: the maximum of a
    parabola through a shift and its neighbours along each axis is taken.

    Parameters
    ----------
    scores
        Log-likelihoods ``(n, shifts, classes, mirrors)``, with the shifts' prior.
    best
        Most cells of an image.
    grid
        The shifts.
    """
    _, _, classes, mirrors = scores.shape
    peaks, at = (values.flatten(1) for values in scores.max(1))
    values, top = peaks.topk(min(best, classes * mirrors), dim=1)
    image, slot = (values > values[:, :1] - HOPELESS).nonzero(as_tuple=True)
    cell = top[image, slot]
    shift, column, flip = at[image, cell], cell // mirrors, cell % mirrors

    around = grid.neighbours.to(scores.device)[shift].view(-1, 2, 2)
    below, above = scores[image[:, None, None], around, column[:, None, None], flip[:, None, None]].unbind(2)
    curvature = below + above - 2 * values[image, slot][:, None]
    # On the border of the circle an axis lacks a neighbour.
    peaked = (around != shift[:, None, None]).all(2) & (curvature < 0)
    step = torch.where(peaked, 0.5 * (below - above) / curvature.clamp_max(-1e-12), 0).clamp(-0.5, 0.5)
    return Cells(image, slot, shift, grid.points.to(scores.device)[shift] + step * grid.step,
                 grid.log_prior.to(scores.device)[shift] - 0.5 * (curvature * step ** 2).sum(1), column, flip == 1)
