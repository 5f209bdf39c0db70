"""One pass over the images: search poses against the averages, and sum the aligned images for the next averages."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.batches import Room
from siamese2d_engine.classify.averages import Sums
from siamese2d_engine.classify.cells import Cells, ShiftGrid, likely_cells
from siamese2d_engine.classify.polar import Harmonics, PolarGrid
from siamese2d_engine.classify.search import (Matrices, Poses, References, best_over_rotations, mirror_,
                                              rotation_profile, shift_before_rotation)
from siamese2d_engine.progress import work

# Poses with less of the posterior than this are left out of the sums.
SMALLEST_WEIGHT = 1e-2
# An image's closer looks take the memory of this many comparisons for each ring.
CLOSER = 4


@dataclass
class PolarImages:
    """Images on a polar grid.

    Attributes
    ----------
    grid
        Where the samples lie, in pixels of the particle images.
    samples
        ``CTF F``, ``(n, rings, half_angles)`` complex64.
    ctf2
        Mean of ``CTF^2`` on each ring, ``(n, rings)``.
    power
        Mean of ``|F|^2`` on each ring, ``(n, rings)``.
    pixels
        Independent Fourier pixels of each ring that the mask leaves, ``(rings,)``.
    support
        Radius in pixels within which the images differ from zero.
    """

    grid: PolarGrid
    samples: Tensor
    ctf2: Tensor
    power: Tensor
    pixels: Tensor
    support: float

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Resolution:
    """How far out a pass looks: the first rings, every `stride`-th angle, and harmonics m < `count`."""

    rings: int
    stride: int
    count: int

    def harmonics(self, grid: PolarGrid, device: torch.device | str) -> Harmonics:
        return Harmonics(self.count, grid.half_angles // self.stride, device)

    def grid(self, full: PolarGrid) -> PolarGrid:
        return PolarGrid(full.box, full.step, self.rings, full.half_angles // self.stride)

    def of(self, samples: Tensor) -> Tensor:
        return samples[..., :self.rings, ::self.stride]


@dataclass(frozen=True)
class PassSettings:
    """What one pass does.

    Attributes
    ----------
    search, sum
        Resolutions of the comparison and of the sums; the sums' is what the next pass can search.
    shifts
        Tried around each image's present shift.
    best
        Poses kept for each image.
    mirror
        Compare with the mirror images of the averages, too.
    room
        For the numbers of the largest temporary array: bounds the memory.
    """

    search: Resolution
    sum: Resolution
    shifts: ShiftGrid
    best: int
    mirror: bool
    room: Room


@dataclass
class PassResult:
    """Poses, the sums of the aligned images, and each image's best score in each class it was compared with.

    The scores are log-likelihoods without the classes' offsets, ``(n, K)``; minus infinity where not compared.
    """

    poses: Poses
    sums: Sums
    scores: Tensor


@dataclass
class Averages:
    """What images are compared with.

    Attributes
    ----------
    harmonics
        Of the averages, ``(count, rings, K)`` at the search's resolution; their device is where the work is done.
    denominators
        What the sums were divided by, ``(K, rings)``.
    noise
        Power of the noise on each ring, ``(rings,)``.
    offsets
        Added to the log-likelihood of each class, ``(K,)``.
    """

    harmonics: Tensor
    denominators: Tensor
    noise: Tensor
    offsets: Tensor


def align(
    images: PolarImages, centres: Tensor, present: Poses, averages: Averages,
    candidates: list[tuple[Tensor, Tensor]], settings: PassSettings,
) -> PassResult:
    """Compare images with averages; several processes share the images.

    Parameters
    ----------
    images
        ``n`` of them.
    centres
        Shifts around which to search, ``(n, 2)`` pixels.
    present
        Poses with which the images went into the averages.
    averages
        To compare with.
    candidates
        Pairs of image indices and class indices, equally many classes in each: who is compared with whom.
    settings
        The pass.
    """
    device = averages.harmonics.device
    total = averages.harmonics.shape[2]
    comparison = _Comparison(images, present, averages, settings, device)
    result = PassResult(
        Poses.empty(len(images), settings.best),
        Sums(total, settings.sum.count, settings.sum.rings, device),
        torch.full((len(images), total), -torch.inf),
    )
    shared = [distributed.share(indices) for indices, _ in candidates]
    order = torch.cat(shared)
    pair = torch.repeat_interleave(torch.arange(len(shared)), torch.tensor([len(indices) for indices in shared]))
    table = torch.stack([classes for _, classes in candidates])
    compared = len(settings.shifts.points) * table.shape[1]
    per_image = 4 * max(compared, CLOSER * settings.search.rings) * settings.search.count

    # Chunks go through the pairs in order: the last one's factors are all that is needed again.
    @lru_cache(maxsize=1)
    def matrices(number: int) -> Matrices:
        return comparison.references.matrices(table[number].to(device))

    def compare(rows: slice) -> int:
        chunk, classes = order[rows], table[pair[rows]]
        poses, scores, summands = comparison.align(chunk, centres[chunk].to(device), pair[rows], classes, matrices)
        result.poses.put(chunk, poses)
        result.scores[chunk[:, None], classes] = scores.cpu()
        # Last: a chunk that failed and is done again is added once.
        result.sums.add(*summands)
        return len(chunk)

    with work("align", len(order), "particle") as meter:
        for done in settings.room.batches(compare, len(order), per_image) if len(order) else ():
            meter.advance(done)
    result.sums.complete()
    distributed.add(*vars(result.poses).values())
    distributed.highest(result.scores)
    return result


class _Comparison:
    """What all chunks of a pass share."""

    def __init__(
        self, images: PolarImages, present: Poses, averages: Averages, settings: PassSettings, device: torch.device
    ):
        search = settings.search
        self.images, self.present, self.averages = images, present, averages
        self.settings, self.device = settings, device
        self.harmonics = search.harmonics(images.grid, device)
        self.sum_harmonics = settings.sum.harmonics(images.grid, device)
        self.ring_weights = images.pixels[:search.rings].to(device) / averages.noise[:search.rings]
        self.scale = self.ring_weights * self.harmonics.multiplicity[:, None]
        self.shifts, self.log_prior = settings.shifts.points.to(device), settings.shifts.log_prior.to(device)
        self.search_grid, self.sum_grid = search.grid(images.grid), settings.sum.grid(images.grid)
        self.references = References(averages.harmonics, self.shifts, self.ring_weights, self.harmonics,
                                     self.search_grid)
        # Finer than the search, so that peaks are met within a few per cent.
        rotations = 4 * self.harmonics.rotations
        self.psi = 2 * torch.pi * torch.arange(rotations, device=device) / rotations
        self.profile_matrix = self.harmonics.rotation_matrix(self.psi)
        self.sum_matrix = self.sum_harmonics.rotation_matrix(self.psi).conj()

    def align(
        self, chunk: Tensor, centres: Tensor, pair: Tensor, classes: Tensor, matrices: Callable[[int], Matrices]
    ) -> tuple[Poses, Tensor, tuple[Tensor, ...]]:
        """The best poses of a chunk of images, the scores by class, and what goes into the sums (see `Sums.add`).

        Each image is compared with its row of `classes`, ``(n, C)``; images of the same `pair` ``(n,)``, which stand
        next to each other, with the same classes, whose factors `matrices` gives.
        """
        samples = self.settings.search.of(self.images.samples[chunk]).to(self.device) * self.search_grid.ramps(centres)
        ctf2 = self.images.ctf2[chunk, :self.settings.search.rings].to(self.device)
        parts = self.harmonics.analyse(samples)
        numbers = classes.to(self.device)
        scores = self._correlations(parts, pair, matrices).view(len(chunk), len(self.shifts), numbers.shape[1], -1)
        offsets = self.averages.offsets[numbers]
        scores += (offsets - 0.5 * (ctf2 @ self.references.power.T).gather(1, numbers))[:, None, :, None]
        scores += self.log_prior[:, None, None]
        by_class = scores.amax((1, 3)) - offsets

        cells = likely_cells(scores, self.settings.best, self.settings.shifts)
        images = self.harmonics.join(*parts).permute(1, 0, 2)
        found = numbers[cells.image, cells.column]
        profile, own = self._profiles(chunk, images, ctf2, cells, found)
        by_class = self._with_own_scores(by_class, cells, own, profile)
        poses, summands = self._posterior(chunk, centres, cells, found, profile)
        return poses, by_class, summands

    def _correlations(
        self, parts: tuple[Tensor, Tensor], pair: Tensor, matrices: Callable[[int], Matrices]
    ) -> Tensor:
        """See `best_over_rotations`, pair by pair."""
        numbers, sizes = pair.unique_consecutive(return_counts=True)
        images = zip(*(part.split(sizes.tolist(), dim=1) for part in parts))
        return torch.cat([best_over_rotations(own, matrices(number), self.harmonics, self.settings.mirror)
                          for number, own in zip(numbers.tolist(), images)])

    def _profiles(
        self, chunk: Tensor, images: Tensor, ctf2: Tensor, cells: Cells, classes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of the cells at all rotations ``(x, rotations)``, and which are of the image's own class.

        An image is compared with the average of its own class without itself: its own noise, found again in the
        average, would hold it where it is.
        """
        reference, power = self.references.by_shift[cells.shift, classes], self.references.power[classes]
        index = chunk.to(self.device)[cells.image]
        own = (classes == self.present.classes[chunk, 0].to(self.device)[cells.image]).nonzero()[:, 0]
        if len(own):
            part, remaining = self._own_part(index[own].cpu(), ctf2[cells.image[own]], self.shifts[cells.shift[own]])
            # (A - p Y / D) D / (D - p CTF^2) is the average of the others.
            others = (reference[own] - part * self.scale) * remaining[:, None]
            reference[own] = others
            power[own] = (torch.view_as_real(others).square().sum(-1) / self.scale).sum(1)
        profile = rotation_profile(images[cells.image], mirror_(reference, cells.flip), self.profile_matrix)
        return profile + (cells.gain - 0.5 * (ctf2[cells.image] * power).sum(-1))[:, None], own

    def _with_own_scores(self, by_class: Tensor, cells: Cells, own: Tensor, profile: Tensor) -> Tensor:
        """Scores by class where the own class's is the one of its average without the image."""
        peaks = by_class.new_full((len(by_class), self.settings.best), -torch.inf)
        peaks[cells.image[own], cells.slot[own]] = profile[own].amax(1)
        result = by_class.clone()
        result[cells.image[own], cells.column[own]] = peaks.amax(1)[cells.image[own]]
        return result

    def _own_part(self, index: Tensor, ctf2: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
        """The images' parts in their classes' averages moved by ``-shifts``, and what to multiply the rest by.

        Only the best pose counts. ``(x, count, rings)`` and ``(x, rings)``.
        """
        pose = self.present.single(index, 0, self.device)
        moved = replace(pose, shifts=pose.shifts - shift_before_rotation(shifts[:, None], pose.psi, pose.flips))
        own = aligned_harmonics(self.images, index, moved, self.settings.search, self.harmonics)
        denominator = self.averages.denominators[pose.classes[:, 0]]
        remaining = denominator / (denominator - pose.weights * ctf2).clamp_min(1e-3 * denominator)
        return own * (pose.weights / denominator)[:, None], remaining

    def _posterior(
        self, chunk: Tensor, centres: Tensor, cells: Cells, classes: Tensor, profile: Tensor
    ) -> tuple[Poses, tuple[Tensor, ...]]:
        """Poses from the cells' log-likelihoods, and summands in which each rotation counts by its probability."""
        shape = len(chunk), self.settings.best
        offsets = self.averages.offsets[classes]
        profile = profile + offsets[:, None]

        def by_image(values: Tensor, empty: float | int | bool) -> Tensor:
            table = values.new_full((*shape, *values.shape[1:]), empty)
            table[cells.image, cells.slot] = values
            return table

        best, peak = profile.max(1)
        highest = by_image(best, -torch.inf).amax(1)
        odds = torch.exp(profile - highest[cells.image, None])
        total = by_image(odds.sum(1), 0).sum(1)
        odds = odds / total[cells.image, None]
        weights = odds.sum(1)
        psi = _refined_peak(profile, peak, self.psi)
        shifts = shift_before_rotation(cells.moved, psi, cells.flip) + centres[cells.image]

        heavy = (weights > SMALLEST_WEIGHT).nonzero()[:, 0]
        summands = self._summands(chunk, cells.image[heavy], classes[heavy], cells.flip[heavy], shifts[heavy],
                                  weights[heavy], odds[heavy])
        table = by_image(weights, 0)
        order = table.argsort(dim=1, descending=True, stable=True)
        pick = lambda values, empty: by_image(values, empty).gather(1, order)
        moved = by_image(shifts, 0).gather(1, order[..., None].expand(-1, -1, 2))
        offset = pick(offsets, 0)[:, 0]
        return Poses(pick(classes, 0), pick(cells.flip, False), pick(psi, 0), moved, table.gather(1, order),
                     highest + torch.log(total / profile.shape[1]) - offset), summands

    def _summands(
        self, chunk: Tensor, image: Tensor, classes: Tensor, flips: Tensor, shifts: Tensor, weights: Tensor,
        odds: Tensor,
    ) -> tuple[Tensor, ...]:
        index = chunk.to(self.device)[image]
        samples = self.settings.sum.of(self.images.samples[index.cpu()]).to(self.device) * self.sum_grid.ramps(shifts)
        harmonics = self.sum_harmonics.join(*self.sum_harmonics.analyse(samples)).permute(1, 0, 2)
        turns = torch.complex(odds @ self.sum_matrix.real, odds @ self.sum_matrix.imag)
        ctf2 = self.images.ctf2[chunk, :self.settings.sum.rings].to(self.device)[image]
        return classes, flips, weights, harmonics * turns[..., None], ctf2


def _refined_peak(profile: Tensor, peak: Tensor, psi: Tensor) -> Tensor:
    """Angle of the maximum of the parabola through the highest sample and its two neighbours."""
    n = profile.shape[-1]
    at = lambda step: profile.gather(-1, ((peak + step) % n)[..., None])[..., 0]
    before, centre, after = at(-1), at(0), at(1)
    curvature = (before - 2 * centre + after).clamp_max(-1e-12)
    return psi[peak] + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5) * (2 * torch.pi / n)


def sum_poses(
    images: PolarImages, poses: Poses, classes: int, resolution: Resolution, room: Room, device: torch.device
) -> Sums:
    """Sums of the images in given poses, without a search; several processes share the images."""
    harmonics = resolution.harmonics(images.grid, device)
    sums = Sums(classes, resolution.count, resolution.rings, device)
    mine = distributed.share(torch.arange(len(images)))

    def add(rows: slice) -> int:
        chunk = mine[rows]
        image, slot = (poses.weights[chunk] > SMALLEST_WEIGHT).nonzero(as_tuple=True)
        index = chunk[image]
        pose = poses.single(index, slot, device)
        aligned = aligned_harmonics(images, index, pose, resolution, harmonics, mirrored=False)
        sums.add(pose.classes[:, 0], pose.flips[:, 0], pose.weights[:, 0],
                 aligned * pose.weights[..., None], images.ctf2[index, :resolution.rings].to(device))
        return len(chunk)

    with work("sum", len(mine), "particle") as meter:
        for done in room.batches(add, len(mine), 8 * resolution.count * resolution.rings):
            meter.advance(done)
    sums.complete()
    return sums


def aligned_harmonics(
    images: PolarImages, index: Tensor, pose: Poses, resolution: Resolution, harmonics: Harmonics, mirrored: bool = True
) -> Tensor:
    """Harmonics ``(x, count, rings)`` of images moved into their classes' frames.

    Parameters
    ----------
    index
        Of the images, ``(x,)``.
    pose
        One of each, ``(x, 1)``, on the device of the harmonics.
    mirrored
        Mirror where the pose says so.
    """
    device = harmonics.orders.device
    grid = resolution.grid(images.grid)
    samples = resolution.of(images.samples[index]).to(device) * grid.ramps(pose.shifts[:, 0])
    turn = harmonics.rotation_matrix(pose.psi[:, 0]).conj()
    result = harmonics.join(*harmonics.analyse(samples)).permute(1, 0, 2) * turn[:, :, None]
    return mirror_(result, pose.flips[:, 0]) if mirrored else result
