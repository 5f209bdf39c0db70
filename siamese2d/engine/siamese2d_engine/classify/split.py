"""More classes out of fewer, and other classes in place of bad ones.

Both divide a class along the main variation of its aligned members. What that would gain is measured as a difference of
log-likelihoods of averages; dissolving a class loses what its members score less in their second best class.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.classify.averages import Spectra
from siamese2d_engine.classify.passes import PolarImages, Resolution, aligned_harmonics
from siamese2d_engine.classify.search import Poses

SMALLEST_CLASS = 4
# Members that tell how a class varies; the others, so many at a time, go to the half that they resemble more.
MOST_MEMBERS = 10_000
POWER_ITERATIONS = 20
# Of a division, by comparing each member with the two averages.
REFINEMENTS = 5
# A single image's loss counts up to this, so that a few odd ones do not keep a class alive.
LARGEST_LOSS = 50.0


@dataclass
class Divisions:
    """How each class would be divided.

    Attributes
    ----------
    upper
        True for images that would leave their class, ``(n,)``.
    gains
        Log-likelihood that dividing each class would gain, ``(K,)``.
    """

    upper: Tensor
    gains: Tensor


def divisions(
    images: PolarImages, poses: Poses, averages: Tensor, spectra: Spectra, resolution: Resolution,
    generator: torch.Generator,
) -> Divisions:
    """Divide each class at the median of its members' first principal component; several processes share the classes.

    The residual of a member, ``CTF F - CTF^2 A``, is weighted by the noise on each ring, so that the component with
    the most variance above the noise comes first.

    Parameters
    ----------
    poses
        The first of each image counts.
    averages
        ``(count, rings, K)`` at `resolution`.
    spectra
        Noise and signal, ``(rings,)``.
    generator
        Starts the power iteration.
    """
    harmonics = resolution.harmonics(images.grid, averages.device)
    weight = images.pixels[:resolution.rings].to(averages.device) / spectra.noise
    ratio = spectra.noise / spectra.signal
    scale = torch.sqrt(weight * harmonics.multiplicity[:, None])
    labels = poses.classes[:, 0]
    result = Divisions(torch.zeros(len(images), dtype=torch.bool), torch.zeros(averages.shape[2]))
    mine = distributed.share(range(averages.shape[2]))
    for number in range(averages.shape[2]):
        members = (labels == number).nonzero()[:, 0]
        if len(members) < SMALLEST_CLASS:
            continue
        start = torch.randn(2 * averages[:, :, number].numel(), generator=generator)
        if number not in mine:
            continue

        def parts_of(index: Tensor) -> Halves:
            aligned = aligned_harmonics(images, index, poses.single(index, 0, averages.device), resolution, harmonics)
            return Halves(aligned * scale, images.ctf2[index, :resolution.rings].to(averages.device), ratio)

        some, *others = members[_spread(len(members))].split(MOST_MEMBERS)
        parts = parts_of(some)
        residual = torch.view_as_real(parts.aligned - parts.ctf2[:, None] * averages[:, :, number] * scale).flatten(1)
        upper = upper_half(first_component(residual, start.to(residual)))
        for _ in range(REFINEMENTS):
            before, upper = upper, parts.refined(upper)
            if torch.equal(before, upper):
                break
        result.upper[some] = upper.cpu()
        for index in others:
            result.upper[index] = (parts.preference(upper, parts_of(index)) > 0).cpu()
        gain = parts.likelihood(upper) + parts.likelihood(~upper) - parts.likelihood(torch.ones_like(upper))
        result.gains[number] = gain.cpu() * len(members) / len(some)
    distributed.add(result.upper, result.gains)
    return result


def _spread(count: int) -> Tensor:
    """An order of so many members in which any `MOST_MEMBERS` in a row are from all over the set."""
    steps = -(-count // MOST_MEMBERS)
    return torch.cat([torch.arange(first, count, steps) for first in range(steps)])


class Halves:
    """The members of one class, to be divided into two: ``(n, count, rings)`` weighted harmonics and their CTF^2."""

    def __init__(self, aligned: Tensor, ctf2: Tensor, ratio: Tensor):
        self.aligned, self.ctf2, self.ratio = aligned, ctf2, ratio

    def likelihood(self, chosen: Tensor) -> Tensor:
        """What the average of the chosen members explains of them."""
        power = (self.aligned[chosen].sum(0).abs() ** 2).sum(0)
        return 0.5 * (power / (self.ctf2[chosen].sum(0) + self.ratio)).sum()

    def refined(self, upper: Tensor) -> Tensor:
        """Each member with the half whose average it resembles more, neither of them less than a quarter."""
        preference = self.preference(upper, self)
        n = len(upper)
        count = int((preference > 0).sum().clamp(-(-n // 4), n - -(-n // 4)))
        result = torch.zeros_like(upper)
        result[preference.argsort(descending=True, stable=True)[:count]] = True
        return result

    def preference(self, upper: Tensor, others: "Halves") -> Tensor:
        """How much more others resemble the average of the upper half than that of the lower one, ``(m,)``."""
        return others._scores(self._average(upper)) - others._scores(self._average(~upper))

    def _average(self, chosen: Tensor) -> Tensor:
        return self.aligned[chosen].sum(0) / (self.ctf2[chosen].sum(0) + self.ratio)

    def _scores(self, average: Tensor) -> Tensor:
        likeness = (self.aligned.flatten(1) @ average.conj().flatten()).real
        return likeness - 0.5 * self.ctf2 @ (average.abs() ** 2).sum(0)


def first_component(rows: Tensor, start: Tensor) -> Tensor:
    """Coordinates ``(n,)`` of `rows` ``(n, d)`` along the direction of largest variance, by power iteration."""
    rows = rows - rows.mean(0)
    direction = start
    for _ in range(POWER_ITERATIONS):
        direction = rows.T @ (rows @ direction)
        direction = direction / direction.norm().clamp_min(1e-30)
    return rows @ direction


def upper_half(coordinates: Tensor) -> Tensor:
    """True for the half of the coordinates above their median."""
    upper = torch.zeros(len(coordinates), dtype=torch.bool, device=coordinates.device)
    upper[coordinates.argsort(stable=True)[(len(coordinates) + 1) // 2:]] = True
    return upper


def divide_classes(labels: Tensor, found: Divisions, wanted: int) -> tuple[Tensor, Tensor]:
    """Divide the classes that gain most by it, until there are `wanted`.

    Returns
    -------
    tuple of Tensor
        New labels ``(n,)``, and for each new class the old one that it comes from, ``(wanted,)``.
    """
    classes = len(found.gains)
    sizes = torch.bincount(labels, minlength=classes)
    gains = torch.where(sizes >= 2, found.gains, -torch.inf)
    divided = gains.argsort(descending=True, stable=True)[:wanted - classes]
    labels = labels.clone()
    for new, old in enumerate(divided.tolist(), start=classes):
        labels[(labels == old) & found.upper] = new
    return labels, torch.cat([torch.arange(classes), divided])


def replace_classes(labels: Tensor, scores: Tensor, found: Divisions, most: float) -> tuple[Tensor, Tensor]:
    """Dissolve classes that others could stand in for, and divide those that gain more by it.

    Parameters
    ----------
    labels
        Present classes, ``(n,)``.
    scores
        Of each image in each class, ``(n, K)``.
    found
        Divisions of the present classes.
    most
        Fraction of the classes that may be replaced; at least one class may.

    Returns
    -------
    tuple of Tensor
        New labels, and for each class the old one that it comes from, ``(K,)``.
    """
    classes = scores.shape[1]
    own = scores.gather(1, labels[:, None])[:, 0]
    second, substitute = scores.scatter(1, labels[:, None], -torch.inf).max(1)
    losses = torch.zeros(classes).index_add_(0, labels, (own - second).nan_to_num(LARGEST_LOSS).clamp(0, LARGEST_LOSS))
    new, origins = labels.clone(), torch.arange(classes)
    touched: set[int] = set()
    least = losses.argsort(stable=True).tolist()
    for divided in found.gains.argsort(descending=True, stable=True).tolist()[:max(1, int(most * classes))]:
        dissolved = next((c for c in least if c not in touched and c != divided), None)
        if dissolved is None or divided in touched or found.gains[divided] <= losses[dissolved]:
            break
        touched |= {divided, dissolved}
        members = labels == dissolved
        new[members] = substitute[members]
        new[(labels == divided) & found.upper] = dissolved
        origins[dissolved] = divided
    return new, origins


def unfold_classes(poses: Poses, classes: int, wanted: int) -> tuple[Poses, Tensor]:
    """Classes of images and mirror images made into two each; the smallest stay whole where fewer are wanted.

    Parameters
    ----------
    poses
        The first of each image counts.
    classes, wanted
        Present number of classes, and the new one: at most twice as many.

    Returns
    -------
    tuple
        The best pose of each image, none of them mirrored, and for each new class the old one that it comes from.
    """
    labels, flips = poses.classes[:, 0], poses.flips[:, 0]
    divided = torch.bincount(labels, minlength=classes).argsort(descending=True, stable=True)[:wanted - classes]
    number = torch.full((classes,), -1)
    number[divided] = torch.arange(classes, classes + len(divided))
    moves = flips & (number[labels] >= 0)
    unfolded = poses.relabelled(torch.where(moves, number[labels], labels))
    # If A is the class of the mirrored images, their own is its mirror image, which they meet at the same rotation.
    unfolded.flips[:] = False
    return unfolded, torch.cat([torch.arange(classes), divided])
