"""One pass over the images: search poses against the averages, and sum the aligned images for the next averages."""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese2d_engine.classify.averages import Sums
from siamese2d_engine.classify.polar import Harmonics, PolarGrid
from siamese2d_engine.classify.search import Poses, References, best_over_rotations, rotation_profile

# Poses with less of the posterior than this are left out of the sums.
SMALLEST_WEIGHT = 3e-3
# Poses with more of it than this are taken out of the average that their image is compared with.
OWN_WEIGHT = 0.05


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
        Tried around each image's present shift, ``(s, 2)`` pixels.
    best
        Poses kept for each image.
    mirror
        Compare with the mirror images of the averages, too.
    elements
        Numbers in the largest temporary array: bounds the memory.
    """

    search: Resolution
    sum: Resolution
    shifts: Tensor
    best: int
    mirror: bool
    elements: int


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
    """Compare images with averages.

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
        Pairs of image indices and class indices: who is compared with whom.
    settings
        The pass.
    """
    device = averages.harmonics.device
    total = averages.harmonics.shape[2]
    comparison = _Comparison(images, present, averages, settings, device)
    refs = References(averages.harmonics, comparison.ring_weights, comparison.harmonics)
    result = PassResult(
        Poses.empty(len(images), settings.best),
        Sums(total, settings.sum.count, settings.sum.rings, device),
        torch.full((len(images), total), -torch.inf),
    )
    for indices, classes in candidates:
        part, numbers = refs.subset(classes.to(device)), classes.to(device)
        per_image = 4 * len(settings.shifts) * len(classes) * settings.search.count
        for chunk in indices.split(max(1, settings.elements // per_image)):
            poses, rotations, scores = comparison.poses(chunk, centres[chunk].to(device), part, numbers)
            comparison.add(result.sums, chunk, poses, rotations)
            result.poses.put(chunk, poses)
            result.scores[chunk[:, None], classes[None, :]] = scores.cpu()
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
        self.shifts = settings.shifts.to(device)
        self.search_grid, self.sum_grid = search.grid(images.grid), settings.sum.grid(images.grid)
        self.shift_ramps = self.search_grid.ramps(self.shifts)
        # Twice as fine as the search: the highest harmonic's peak is then met within 8 %, the usual ones' within 2 %.
        rotations = 4 * self.harmonics.half_angles
        self.psi = 2 * torch.pi * torch.arange(rotations, device=device) / rotations
        self.profile_matrix = self.harmonics.rotation_matrix(self.psi)
        self.sum_matrix = self.sum_harmonics.rotation_matrix(self.psi).conj()

    def poses(self, chunk: Tensor, centres: Tensor, refs: References, numbers: Tensor) -> tuple[Poses, Tensor, Tensor]:
        """The best poses of a chunk of images, the means of ``exp(-i m psi)`` over each, and the scores by class."""
        samples = self.settings.search.of(self.images.samples[chunk]).to(self.device)
        ctf2 = self.images.ctf2[chunk, :self.settings.search.rings].to(self.device)
        shifted = (samples * self.search_grid.ramps(centres))[:, None] * self.shift_ramps
        parts = self.harmonics.analyse(shifted)
        flat = tuple(part.view(len(part), -1, part.shape[-1]) for part in parts)
        scores = best_over_rotations(flat, refs, self.harmonics, self.settings.mirror)
        scores = scores.view(len(chunk), len(self.shifts), len(numbers), -1)
        offsets = self.averages.offsets[numbers]
        scores = scores + (offsets - 0.5 * ctf2 @ refs.power.T)[:, None, :, None]
        by_class = scores.amax((1, 3)) - offsets
        shift, local, flip = _best_cells(scores, self.settings.best)
        profile, own_best = self._profiles(chunk, samples, ctf2, parts, refs, numbers, shift, local, flip)
        by_class = self._without_own_part(chunk, by_class, own_best, numbers)
        weights, rotations, psi, score, total = self._posterior(profile + offsets[local][..., None])
        order = weights.argsort(dim=1, descending=True, stable=True)
        pick = lambda values: values.gather(1, order)
        poses = Poses(
            classes=numbers[pick(local)], flips=pick(flip) == 1, psi=pick(psi),
            shifts=self.shifts[pick(shift)] + centres[:, None], weights=pick(weights),
            log_likelihood=score + torch.log(total) - offsets[pick(local)[:, 0]],
        )
        rotations = rotations.gather(1, order[..., None].expand(-1, -1, rotations.shape[-1]))
        return poses.padded(self.settings.best), rotations, by_class

    def _profiles(self, chunk, samples, ctf2, parts, refs, numbers, shift, local, flip) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of single cells at all rotations ``(n, T, rotations)``, and of these the own class's best.

        An image is compared with the average of its own class without itself: its own noise, found again in the average,
        would hold it where it is.
        """
        image = torch.arange(len(shift), device=self.device)[:, None].expand_as(shift)
        chosen = self.harmonics.join(*(part[:, image, shift] for part in parts)).permute(1, 2, 0, 3)
        reference, power = refs.by_class[local], refs.power[local]
        own_classes = self.present.classes[chunk, 0].to(self.device)
        mine = numbers[local] == own_classes[:, None]
        row, slot = mine.nonzero(as_tuple=True)
        own, remaining = self._own_part(chunk, samples, ctf2)
        # (A - p Y / D) D / (D - p CTF^2) is the average of the others.
        others = (reference[row, slot] - own[row] * self.scale) * remaining[row, None]
        reference[row, slot] = others
        power[row, slot] = (torch.view_as_real(others).square().sum(-1) / self.scale).sum(1)
        reference = torch.where((flip == 1)[..., None, None], reference.conj(), reference)
        profile = rotation_profile(chosen.flatten(0, 1), reference.flatten(0, 1), self.profile_matrix)
        profile = profile.view(*shift.shape, -1) - 0.5 * (ctf2[:, None] * power).sum(-1)[..., None]
        return profile, torch.where(mine, profile.amax(-1), -torch.inf).amax(1)

    def _own_part(self, chunk: Tensor, samples: Tensor, ctf2: Tensor) -> tuple[Tensor, Tensor]:
        """Each image's part of its class's average ``(n, count, rings)``, and what to multiply the rest by ``(n, rings)``."""
        present = self.present
        weights = torch.where(present.classes[chunk] == present.classes[chunk, :1], present.weights[chunk], 0)
        own = torch.zeros(len(chunk), self.harmonics.count, ctf2.shape[1], dtype=torch.complex64, device=self.device)
        for slot in range(weights.shape[1]):
            rows = (weights[:, slot] > OWN_WEIGHT).nonzero()[:, 0]
            if len(rows):
                moved = aligned_harmonics(self.images, chunk[rows], present, slot, self.settings.search, self.harmonics)
                own[rows.to(self.device)] += moved * weights[rows, slot].to(self.device)[:, None, None]
        weight = torch.where(weights > OWN_WEIGHT, weights, 0).sum(1).to(self.device)
        denominator = self.averages.denominators[present.classes[chunk, 0].to(self.device)]
        remaining = denominator / (denominator - weight[:, None] * ctf2).clamp_min(1e-3 * denominator)
        return own / denominator[:, None], remaining

    def _without_own_part(self, chunk: Tensor, by_class: Tensor, best: Tensor, numbers: Tensor) -> Tensor:
        """Scores by class where the own class's is the one of its average without the image."""
        own_classes = self.present.classes[chunk, 0].to(self.device)
        mine = (numbers == own_classes[:, None]) & torch.isfinite(best)[:, None]
        return torch.where(mine, best[:, None], by_class)

    def _posterior(self, profile: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Weights ``(n, T)``, means of ``exp(-i m psi)`` ``(n, T, count)``, best psi, best score and mean odds."""
        best, peak = profile.max(-1)
        highest = best.amax(1)
        odds = torch.exp(profile - highest[:, None, None])
        total = odds.sum((1, 2))
        posterior = odds / total[:, None, None]
        rotations = posterior.to(torch.complex64).flatten(0, 1) @ self.sum_matrix
        psi = _refined_peak(profile, peak, self.psi)
        return posterior.sum(-1), rotations.view(*peak.shape, -1), psi, highest, total / profile.shape[-1]

    def add(self, sums: Sums, chunk: Tensor, poses: Poses, rotations: Tensor) -> None:
        """Add a chunk's poses to the sums, each rotation with its probability."""
        image, slot = (poses.weights > SMALLEST_WEIGHT).nonzero(as_tuple=True)
        index = chunk.to(self.device)[image]
        samples = self.settings.sum.of(self.images.samples[chunk].to(self.device))[image]
        samples = samples * self.sum_grid.ramps(poses.shifts[image, slot])
        harmonics = self.sum_harmonics.join(*self.sum_harmonics.analyse(samples)).permute(1, 0, 2)
        ctf2 = self.images.ctf2[chunk, :self.settings.sum.rings].to(self.device)[image]
        sums.add(index % 2, poses.classes[image, slot], poses.flips[image, slot], poses.weights[image, slot],
                 harmonics * rotations[image, slot][..., None], ctf2)


def _best_cells(scores: Tensor, best: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of shift, class and mirror ``(n, T)`` of the highest of ``scores`` ``(n, shifts, classes, mirrors)``."""
    _, _, classes, mirrors = scores.shape
    flat = scores.flatten(1)
    top = flat.topk(min(best, flat.shape[1]), dim=1).indices
    return top // (mirrors * classes), top // mirrors % classes, top % mirrors


def _refined_peak(profile: Tensor, peak: Tensor, psi: Tensor) -> Tensor:
    """Angle of the maximum of the parabola through the highest sample and its two neighbours."""
    n = profile.shape[-1]
    at = lambda step: profile.gather(-1, ((peak + step) % n)[..., None])[..., 0]
    before, centre, after = at(-1), at(0), at(1)
    curvature = (before - 2 * centre + after).clamp_max(-1e-12)
    return psi[peak] + (0.5 * (before - after) / curvature).clamp(-0.5, 0.5) * (2 * torch.pi / n)


def sum_poses(
    images: PolarImages, poses: Poses, classes: int, resolution: Resolution, elements: int, device: torch.device
) -> Sums:
    """Sums of the images in given poses, without a search."""
    harmonics = resolution.harmonics(images.grid, device)
    sums = Sums(classes, resolution.count, resolution.rings, device)
    for chunk in torch.arange(len(images)).split(max(1, elements // (8 * resolution.count * resolution.rings))):
        image, slot = (poses.weights[chunk] > SMALLEST_WEIGHT).nonzero(as_tuple=True)
        index = chunk[image]
        weights = poses.weights[index, slot].to(device)
        aligned = aligned_harmonics(images, index, poses, slot, resolution, harmonics, mirrored=False)
        sums.add((index % 2).to(device), poses.classes[index, slot].to(device), poses.flips[index, slot].to(device),
                 weights, aligned * weights[:, None, None], images.ctf2[index, :resolution.rings].to(device))
    return sums


def aligned_harmonics(
    images: PolarImages, index: Tensor, poses: Poses, slot: Tensor | int, resolution: Resolution,
    harmonics: Harmonics, mirrored: bool = True,
) -> Tensor:
    """Harmonics ``(x, count, rings)`` of images moved into their class's frame by their pose number `slot`."""
    device = harmonics.orders.device
    grid = resolution.grid(images.grid)
    samples = resolution.of(images.samples[index]).to(device) * grid.ramps(poses.shifts[index, slot].to(device))
    turn = harmonics.rotation_matrix(poses.psi[index, slot].to(device)).conj()
    result = harmonics.join(*harmonics.analyse(samples)).permute(1, 0, 2) * turn[:, :, None]
    if not mirrored:
        return result
    return torch.where(poses.flips[index, slot].to(device)[:, None, None], result.conj(), result)
