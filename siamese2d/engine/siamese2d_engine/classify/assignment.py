"""New images into given classes: a coarse comparison with all averages proposes poses, a fine one decides.

The coarse comparison sees few rings, and of these only the harmonics that the averages have; it tries all shifts,
rotations, classes and mirrors. Each of the few best combinations of class and mirror is then moved to its pose and
compared on all rings with small shifts and rotations around it. The log-likelihoods are those of `search`.

Given averages have another scale and sharpness than the model assumes: filters, a missing correction for the CTF. One
factor for each ring, common to all averages, and the power of the noise are found from some of the images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese2d_engine.batches import Room
from siamese2d_engine.classify.cells import likely_cells, shift_grid
from siamese2d_engine.classify.passes import PolarImages, Resolution, aligned_harmonics
from siamese2d_engine.classify.prepare import resolution
from siamese2d_engine.classify.schedule import SHIFT_CYCLES, WIDE_CYCLES
from siamese2d_engine.classify.search import (Poses, References, best_over_rotations, mirror_, rotation_profile,
                                              shift_before_rotation)
from siamese2d_engine.classify.truncation import power_by_order, sufficient_harmonics, truncated

# Rings of the coarse comparison.
COARSE_RINGS = 10
# Part of the averages' weighted power in the harmonics that the coarse comparison leaves out.
NEGLECTED_POWER = 0.005
# Combinations of class and mirror that the fine comparison decides between, at most.
PROPOSALS = 8
# Steps around a proposal's pose: shifts within this many steps, and rotations to both sides.
NEAR = 1.5
TURNS = 5
# The first guess: part of the images' power that the averages explain.
FIRST_SIGNAL = 0.1
CALIBRATIONS = 2


@dataclass(frozen=True)
class Calibration:
    """How given averages relate to the images.

    Attributes
    ----------
    factors
        That multiply the averages on each ring, ``(rings,)``.
    noise
        Power of the noise on each ring, ``(rings,)``.
    """

    factors: Tensor
    noise: Tensor


@dataclass
class Assignments:
    """The best pose of each of ``n`` images.

    Attributes
    ----------
    classes, flips, psi, shifts
        As in `Poses`, but of one pose: ``(n,)`` and ``(n, 2)``.
    confidence
        Probability of the class among those proposed, ``(n,)``.
    log_likelihood
        Relative to an empty average, ``(n,)``.
    """

    classes: Tensor
    flips: Tensor
    psi: Tensor
    shifts: Tensor
    confidence: Tensor
    log_likelihood: Tensor

    @property
    def poses(self) -> Poses:
        """The same as poses with weight 1, ``(n, 1)``."""
        return Poses(self.classes[:, None], self.flips[:, None], self.psi[:, None], self.shifts[:, None],
                     torch.ones(len(self.classes), 1), self.log_likelihood)


class Assigner:
    """Assigns images to averages.

    Parameters
    ----------
    samples
        Of the averages on the images' grid, ``(K, rings, half_angles)``.
    reach
        Radius of the search for shifts around the box's centre, pixels.
    mirror
        Compare with the mirror images of the averages, too.
    device
        Where to compute.
    """

    def __init__(self, samples: Tensor, reach: float, mirror: bool, device: torch.device):
        self.samples, self.reach, self.mirror, self.device = samples, reach, mirror, device
        self.room = Room.on(device)

    def calibrate(self, images: PolarImages) -> Calibration:
        """Factors and noise by assigning some images several times, each time with what the last one found."""
        harmonics = resolution(images, images.grid.rings).harmonics(images.grid, self.device)
        averages = harmonics_of(self.samples, resolution(images, images.grid.rings), images, self.device)
        power = (averages.abs() ** 2 * harmonics.multiplicity[:, None, None]).sum(0).T
        mean_power = images.power.mean(0)[:len(power.T)]
        signal = images.ctf2.mean(0)[:len(power.T)] * power.mean(0).cpu()
        found = Calibration((FIRST_SIGNAL * mean_power / signal.clamp_min(1e-30)).sqrt() * (signal > 0), mean_power)
        for _ in range(CALIBRATIONS):
            found = self._calibrated(images, self.assign(images, found), averages, power, mean_power)
        return found

    def _calibrated(
        self, images: PolarImages, assigned: Assignments, averages: Tensor, power: Tensor, mean_power: Tensor
    ) -> Calibration:
        """The factors with which the averages explain the images best, and what they leave of the images."""
        at = resolution(images, images.grid.rings)
        harmonics = at.harmonics(images.grid, self.device)
        everyone = torch.arange(len(images))

        def shared_power(rows: slice) -> Tensor:
            index = everyone[rows]
            aligned = aligned_harmonics(images, index, assigned.poses.single(index, 0, self.device), at, harmonics)
            own = averages[:, :, assigned.classes[index].to(self.device)].permute(2, 0, 1)
            return ((aligned.conj() * own).real * harmonics.multiplicity[:, None]).sum((0, 1)).cpu()

        shared = sum(self.room.batches(shared_power, len(images), _per_image(at)))
        explained = (images.ctf2[:, :at.rings] * power.cpu()[assigned.classes]).sum(0)
        factors = (shared / explained.clamp_min(1e-30)).clamp_min(0) * (explained > 0)
        noise = mean_power - (2 * factors * shared - factors ** 2 * explained) / len(images)
        return Calibration(factors, noise.clamp_min(1e-3 * mean_power))

    def assign(self, images: PolarImages, calibration: Calibration) -> Assignments:
        """The best class and pose of each image."""
        comparison = _Comparison(self, images, calibration)
        everyone, each = torch.arange(len(images)), _per_image(comparison.fine)
        parts = self.room.batches(lambda rows: comparison.assign(everyone[rows]), len(images), each)
        return Assignments(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts))))


def _per_image(at: Resolution) -> int:
    """Numbers in an image's largest temporary array on all rings."""
    return 4 * at.rings * at.count


def harmonics_of(samples: Tensor, at: Resolution, images: PolarImages, device: torch.device) -> Tensor:
    """Harmonics ``(count, rings, K)`` of averages."""
    harmonics = at.harmonics(images.grid, device)
    return harmonics.join(*harmonics.analyse(at.of(samples).to(device))).permute(0, 2, 1)


class _Comparison:
    """What all chunks of images share."""

    def __init__(self, assigner: Assigner, images: PolarImages, calibration: Calibration):
        self.images, self.device, self.mirror = images, assigner.device, assigner.mirror
        grid, noise = images.grid, calibration.noise.to(self.device)
        weights = images.pixels.to(self.device) / noise
        factors = calibration.factors.to(self.device)[:, None]

        at = resolution(images, COARSE_RINGS)
        averages = harmonics_of(assigner.samples, at, images, self.device) * factors[:at.rings]
        orders = at.harmonics(grid, self.device).orders
        power = power_by_order(averages, orders, weights[:at.rings])
        count = sufficient_harmonics(power, NEGLECTED_POWER * float(power.sum()))
        self.coarse = truncated(at, grid.half_angles, count)
        self.coarse_harmonics = self.coarse.harmonics(grid, self.device)
        self.shifts = shift_grid(assigner.reach, grid.shift_step(WIDE_CYCLES, at.rings))
        self.coarse_references = References(
            averages[orders < count], self.shifts.points.to(self.device), weights[:at.rings], self.coarse_harmonics,
            self.coarse.grid(grid))
        self.matrices = self.coarse_references.matrices(torch.arange(averages.shape[2], device=self.device))
        rotations = 4 * self.coarse_harmonics.rotations
        self.psi = 2 * torch.pi * torch.arange(rotations, device=self.device) / rotations
        self.profile_matrix = self.coarse_harmonics.rotation_matrix(self.psi)

        self.fine = resolution(images, grid.rings)
        self.harmonics = self.fine.harmonics(grid, self.device)
        averages = harmonics_of(assigner.samples, self.fine, images, self.device) * factors
        self.refinements = [_Refinement(averages, weights, self, fineness) for fineness in (1, 2)]
        self.room, self.per_image = assigner.room, 4 * len(self.shifts.points) * averages.shape[2] * count

    def assign(self, index: Tensor) -> Assignments:
        """The best class and pose of some images."""
        found = list(self.room.batches(lambda rows: self._proposals(index[rows]), len(index), self.per_image))
        counts, proposals = torch.cat([counts for counts, _ in found]), _joined([poses for _, poses in found])
        first = counts.cumsum(0) - counts
        image = torch.repeat_interleave(torch.arange(len(index), device=self.device), counts)
        scores, poses = self.refinements[0].refine(self.images, index[image.cpu()], proposals)

        table = scores.new_full((len(index), PROPOSALS), -torch.inf)
        table[image, torch.arange(len(image), device=self.device) - first[image]] = scores
        best, place = table.max(1)
        chosen = first + place
        odds = torch.exp(scores - best[image])
        same = poses.classes[:, 0] == poses.classes[chosen, 0][image]
        total, own = (torch.zeros_like(best).index_add_(0, image, values) for values in (odds, odds * same))
        scores, poses = self.refinements[1].refine(self.images, index, _rows(poses, chosen))
        return Assignments(*(value.cpu() for value in (
            poses.classes[:, 0], poses.flips[:, 0], poses.psi[:, 0], poses.shifts[:, 0], own / total, scores)))

    def _proposals(self, index: Tensor) -> tuple[Tensor, Poses]:
        """The number of proposals for each of some images, and these, image after image: ``(x, 1)``."""
        samples = self.coarse.of(self.images.samples[index]).to(self.device)
        ctf2 = self.images.ctf2[index, :self.coarse.rings].to(self.device)
        parts = self.coarse_harmonics.analyse(samples)
        references = self.coarse_references
        scores = best_over_rotations(parts, self.matrices, self.coarse_harmonics, self.mirror)
        power = references.power
        scores = scores.view(len(index), len(self.shifts.points), len(power), -1)
        scores = scores - 0.5 * (ctf2 @ power.T)[:, None, :, None]
        cells = likely_cells(scores, PROPOSALS, self.shifts)
        reference = mirror_(references.by_shift[cells.shift, cells.column], cells.flip)
        images = self.coarse_harmonics.join(*parts).permute(1, 0, 2)
        psi = self.psi[rotation_profile(images[cells.image], reference, self.profile_matrix).argmax(1)]
        shifts = shift_before_rotation(cells.moved, psi, cells.flip)
        ones = torch.ones(len(psi), 1, device=self.device)
        proposals = Poses(cells.column[:, None], cells.flip[:, None], psi[:, None], shifts[:, None], ones, ones[:, 0])
        return torch.bincount(cells.image, minlength=len(index)), proposals


def _joined(parts: list[Poses]) -> Poses:
    return Poses(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts))))


def _rows(poses: Poses, rows: Tensor) -> Poses:
    return Poses(*(value[rows] for value in vars(poses).values()))


class _Refinement:
    """Small shifts and rotations around given poses.

    Parameters
    ----------
    averages
        Harmonics ``(count, rings, K)`` on all rings.
    weights
        Of the rings.
    comparison
        The images' harmonics.
    fineness
        The steps are divided by this.
    """

    def __init__(self, averages: Tensor, weights: Tensor, comparison: _Comparison, fineness: int):
        self.fine, self.harmonics, self.grid = comparison.fine, comparison.harmonics, comparison.images.grid
        unit = self.grid.shift_step(SHIFT_CYCLES, self.fine.rings) / fineness
        self.shifts = shift_grid(NEAR * unit, unit)
        device = averages.device
        references = References(averages, self.shifts.points.to(device), weights, self.harmonics,
                                self.fine.grid(self.grid))
        # (K, count, 2 rings, 2 s): real and imaginary part of conj(image) reference, from both parts of the image.
        by_class = references.by_shift.permute(1, 2, 3, 0)
        self.references = torch.cat([torch.cat([by_class.real, by_class.imag], 3),
                                     torch.cat([by_class.imag, -by_class.real], 3)], 2)
        self.power = references.power
        self.turn = torch.pi / (2 * self.harmonics.rotations) / fineness
        turns = self.turn * torch.arange(-TURNS, TURNS + 1, device=device)
        turns = self.harmonics.rotation_matrix(turns)
        self.turns = torch.cat([turns.real, -turns.imag], dim=1)

    def refine(self, images: PolarImages, index: Tensor, poses: Poses) -> tuple[Tensor, Poses]:
        """Log-likelihoods ``(x,)`` and refined poses of ``x`` images."""
        order = poses.classes[:, 0].argsort(stable=True)
        poses, index = _rows(poses, order), index[order.cpu()]
        classes = poses.classes[:, 0]
        aligned = aligned_harmonics(images, index, poses, self.fine, self.harmonics).permute(1, 0, 2)
        aligned = torch.cat([aligned.real, aligned.imag], dim=2)
        series = aligned.new_empty(2, len(aligned), len(index), len(self.shifts.points))
        start = 0
        for number, size in enumerate(torch.bincount(classes, minlength=len(self.references)).tolist()):
            rows = slice(start, start + size)
            if size:
                parts = torch.bmm(aligned[:, rows], self.references[number])
                series[0, :, rows], series[1, :, rows] = parts.chunk(2, dim=2)
            start += size
        scores = (self.turns @ series.flatten(0, 1).flatten(1)).view(len(self.turns), len(index), -1)
        best, turn, moved = self._peak(scores)
        ctf2 = images.ctf2[index, :self.fine.rings].to(best.device)
        best = best - 0.5 * (ctf2 * self.power[classes]).sum(1)
        back = order.argsort()
        return best[back], _rows(self._moved(poses, turn, moved), back)

    def _peak(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maxima of scores ``(turns, x, s)``: the values, the turns in radians and the shifts in pixels."""
        turns, n, shifts = scores.shape
        by_image = scores.permute(1, 0, 2)
        best, place = by_image.flatten(1).max(1)
        row, column = place // shifts, place % shifts
        each = torch.arange(n, device=scores.device)

        def peak(below: Tensor, above: Tensor, inside: Tensor) -> Tensor:
            curvature = below + above - 2 * best
            step = 0.5 * (below - above) / curvature.clamp_max(-1e-12)
            return torch.where(inside & (curvature < 0), step.clamp(-0.5, 0.5), 0)

        inside = (row > 0) & (row < turns - 1)
        angle = peak(by_image[each, (row - 1).clamp_min(0), column],
                     by_image[each, (row + 1).clamp_max(turns - 1), column], inside)
        around = self.shifts.neighbours.to(scores.device)[column]
        moves = [peak(by_image[each, row, around[:, a]], by_image[each, row, around[:, a + 1]],
                      (around[:, a] != column) & (around[:, a + 1] != column)) for a in (0, 2)]
        points = self.shifts.points.to(scores.device)[column] + self.shifts.step * torch.stack(moves, dim=1)
        return best, (row - TURNS + angle) * self.turn, points

    def _moved(self, poses: Poses, turn: Tensor, moved: Tensor) -> Poses:
        """Poses turned and then shifted in the class's frame."""
        flips = poses.flips[:, 0]
        psi = poses.psi[:, 0] + torch.where(flips, -turn, turn)
        shifts = poses.shifts[:, 0] + shift_before_rotation(moved, psi, flips)
        return Poses(poses.classes, poses.flips, psi[:, None], shifts[:, None], poses.weights, poses.log_likelihood)
