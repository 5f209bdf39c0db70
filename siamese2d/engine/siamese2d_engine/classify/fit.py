"""Particles that fit nowhere: those that match their class no better than noise does, and those unlike the others.

The **match** of a particle is what the average of its class explains of it, in standard deviations of the noise,
``<Y, A> / sqrt(<CTF A, CTF A>)`` with products weighted by the noise. It is compared with that of simulated noise.

Neighbours, ice and carbon match better than noise does, and are odd in three other ways: the average leaves a
**residual** at low frequency, where other signal stands out; they **lack** the average's detail; and they are found
**far out** in their boxes. Each is measured by how most particles are, in standard deviations, and what is odd in two
ways, each by chance possible, is odd. Little is set apart where nothing is wrong.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.batches import Room
from siamese2d_engine.classify.passes import PolarImages, aligned_harmonics
from siamese2d_engine.classify.prepare import PolarTransform, first_rings, resolution
from siamese2d_engine.classify.schedule import SHIFT_CYCLES
from siamese2d_engine.classify.search import Poses
from siamese2d_engine.ctf import CtfParameters
from siamese2d_engine.progress import progress
from siamese2d_engine.runs import Run

# Rings on which the residual is looked at, the first of those that hold detail, and of those that tell the level of an
# image's noise.
LOW_RINGS = 3
DETAIL_RING = 4
NOISE_RING = 10
# Particles without which the usual can't be told from the odd.
FEWEST = 200
# Of the matches of simulated noise; and matches between the second of them and the largest that are looked at.
QUANTILES = np.array([0.25, 0.5, 0.75])
PLACES = 100
# Part of the images with about the same match that must be noise.
SURE = 0.8
# Standard deviations, all ways together, beyond which a particle is odd; and at most so many count for lying far out,
# which happens to particles, too.
ODD = 3.0
FAR = 2.5
# Of normally distributed numbers, the standard deviation over the median distance from the middle.
ROBUST = 1.4826
ITERATIONS = 6
LARGEST_LEVEL = 3.0
NOISE_IMAGES = 200
NO_MATCH, UNLIKE = "matches_no_class", "unlike_others"


@dataclass
class Match:
    """How ``n`` images match their classes.

    Attributes
    ----------
    match
        Standard deviations of the noise, ``(n,)``.
    left, explained, shared
        Mean power of the residual, of the average times the CTF, and mean product of this with the image, on each ring
        in units of the noise, ``(n, rings)``.
    shift
        Distance from the middle of the box in steps of the search on the last ring, ``(n,)``.
    """

    match: np.ndarray
    left: np.ndarray
    explained: np.ndarray
    shared: np.ndarray
    shift: np.ndarray

    def __len__(self) -> int:
        return len(self.match)

    def rows(self, chosen: np.ndarray) -> "Match":
        """Of some of the images."""
        return Match(*(value[chosen] for value in vars(self).values()))

    @staticmethod
    def joined(parts: "list[Match]") -> "Match":
        return Match(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Match)))


def matches(
    images: PolarImages, poses: Poses, averages: Tensor, noise: Tensor, denominators: Tensor | None, room: Room
) -> Match:
    """How images match the averages of their classes.

    Parameters
    ----------
    images
        ``n`` of them.
    poses
        The first of each image counts.
    averages
        Harmonics ``(count, rings, K)``; their device is where the work is done.
    noise
        Power of the noise on each ring, ``(rings,)``.
    denominators
        Where the images went into the averages, what the sums were divided by ``(K, rings)``: each image is then
        compared with the average of the others.
    room
        For the numbers of the largest temporary array.
    """
    device, rings = averages.device, averages.shape[1]
    at = resolution(images, rings)
    harmonics = at.harmonics(images.grid, device)
    multiplicity = harmonics.multiplicity[:, None]
    by_class = averages.permute(2, 0, 1)
    noise = noise.to(device)
    pixels = images.pixels[:rings].to(device)
    everyone = torch.arange(len(images))
    step = images.grid.shift_step(SHIFT_CYCLES, rings)

    def match_of(rows: slice) -> Match:
        index = everyone[rows]
        classes = poses.classes[index, 0].to(device)
        aligned = aligned_harmonics(images, index, poses.single(index, 0, device), at, harmonics)
        ctf2 = images.ctf2[index, :rings].to(device)
        own = by_class[classes]
        if denominators is not None:
            total = denominators[classes]
            own = (own * total[:, None] - aligned) / (total - ctf2).clamp_min(1e-3 * total)[:, None]
        product = ((aligned.conj() * own).real * multiplicity).sum(1)
        explained = (torch.view_as_real(own).square().sum(-1) * multiplicity).sum(1) * ctf2
        weights = pixels / noise
        strength = (explained * weights).sum(1).clamp_min(1e-30).sqrt()
        left = images.power[index, :rings].to(device) - 2 * product + explained
        shift = poses.shifts[index, 0].norm(dim=1) / step
        return Match(*(value.cpu().numpy() for value in (
            (product * weights).sum(1) / strength, left / noise, explained / noise, product / noise, shift)))

    parts = room.batches(match_of, len(images), 4 * at.count * rings)
    return Match.joined(list(progress(parts, "compare with classes", len(images), "particle", count=len)))


def oddness(match: Match, pixels: np.ndarray) -> np.ndarray:
    """How odd each image is, in standard deviations: root of the sum of squares over all ways, ``(n,)``.

    Parameters
    ----------
    match
        Of the images.
    pixels
        Independent Fourier pixels of the rings, ``(rings,)``.
    """
    ways = np.stack([residual(match, pixels), lack_of_detail(match, pixels), np.minimum(far_out(match.shift), FAR)])
    return np.sqrt((np.maximum(ways, 0) ** 2).sum(0))


def residual(match: Match, pixels: np.ndarray) -> np.ndarray:
    """How large the residual of each image is, in robust standard deviations of its logarithm, ``(n,)``.

    Averages blur what differs between their members, which leaves a part of the signal: on each ring, the usual
    residual is a line over the explained power. The residual over the usual one, averaged over the rings, is about
    log-normal.
    """
    rings = len(pixels)
    high, low = slice(min(NOISE_RING, rings - 1), rings), slice(0, min(LOW_RINGS, rings))
    level = (match.left[:, high] @ pixels[high] / pixels[high].sum()).clip(1 / LARGEST_LEVEL, LARGEST_LEVEL)[:, None]
    left, explained = match.left[:, low] / level, match.explained[:, low] / level
    weights, usual = pixels[low], np.ones(len(left), dtype=bool)
    for _ in range(ITERATIONS):
        expected = np.stack([_line(x, y, usual) for x, y in zip(explained.T, left.T)], axis=1)
        logarithm = np.log(np.maximum((left / expected) @ weights / weights.sum(), 1e-6))
        found = _standardized(logarithm)
        usual = found < ODD
    return found


def lack_of_detail(match: Match, pixels: np.ndarray) -> np.ndarray:
    """How much less of its average's detail each image has than most, in robust standard deviations, ``(n,)``.

    The match on the rings with detail has the noise's standard deviation of 1, and that of the contrast, which grows
    with the average's strength.
    """
    detail = slice(min(DETAIL_RING, len(pixels) - 1), len(pixels))
    power = (match.explained[:, detail] @ pixels[detail]).clip(1e-12)
    shared = match.shared[:, detail] @ pixels[detail]
    missing = (np.median(shared / power) * power - shared) / np.sqrt(power)
    of_contrast = max(ROBUST**2 * np.median(missing**2) - 1, 0.0) / np.median(power)
    return _standardized(missing / np.sqrt(1 + of_contrast * power))


def far_out(shift: np.ndarray) -> np.ndarray:
    """How far out images lie, as the standard deviations beyond which as few normally distributed numbers lie, ``(n,)``.

    Shifts of half a step of the search are nowhere far.

    Parameters
    ----------
    shift
        Distances from the middle in such steps, ``(n,)``; usual are those of normally distributed shifts.
    """
    # Half of them lie within the root of 2 log 2 standard deviations.
    square = max(np.median(shift**2) / (2 * np.log(2)), 0.25)
    beyond = torch.from_numpy(np.exp(-shift.astype(np.float64) ** 2 / (2 * square)))
    return -torch.special.ndtri(beyond.clamp_min(torch.finfo(beyond.dtype).tiny)).numpy()


def _standardized(values: np.ndarray) -> np.ndarray:
    distance = values - np.median(values)
    return distance / max(ROBUST * np.median(np.abs(distance)), 1e-6)


def _line(x: np.ndarray, y: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The least-squares line through chosen points, at all points; level where it would fall."""
    x_mean, y_mean = x[chosen].mean(), y[chosen].mean()
    spread = ((x[chosen] - x_mean) ** 2).sum()
    slope = max(0.0, ((x[chosen] - x_mean) * (y[chosen] - y_mean)).sum() / max(spread, 1e-30))
    return np.maximum(y_mean + slope * (x - x_mean), 0.2 * max(np.median(y), 1e-6))


def noise_floor(match: Match, pixels: np.ndarray, noise: Tensor) -> Tensor:
    """Power of the noise alone on each ring, ``(rings,)``.

    `noise`, the mean residual, holds what the averages do not explain and other signal, too. What the images with
    little residual have is noise: the quarter of a chi-square distribution.
    """
    degrees = torch.from_numpy(np.maximum(2 * pixels, 2)).double()
    quarter = torch.from_numpy(np.quantile(match.left, 0.25, axis=0)) / (chi_square_quantile(degrees, 0.25) / degrees)
    return noise.cpu() * quarter.float().clamp(1e-3, 1)


def chi_square_quantile(degrees: Tensor, probability: float) -> Tensor:
    """Quantile, at most the mean, of chi-square distributions with so many degrees of freedom, ``(n,)`` float64."""
    # By bisection: SciPy has it, but takes long to import for these few numbers.
    low, high = torch.zeros_like(degrees), degrees
    for _ in range(60):
        middle = (low + high) / 2
        below = torch.special.gammainc(degrees / 2, middle / 2) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def smallest_match(match: np.ndarray, of_noise: np.ndarray) -> float:
    """The match below which nearly all images are noise; minus infinity where noise is not found.

    Below each quantile ``q`` of the matches of simulated noise lie at least the part ``q`` of the noise images, so that
    their number is at most that of the images below it over ``q``; the least of these numbers is taken. The limit is
    where noise stops to be nearly all of the images with about that match (the local false discovery rate of Efron
    2004, J. Am. Stat. Assoc. 99, 96).

    Parameters
    ----------
    match
        Of the images, ``(n,)``.
    of_noise
        Of simulated noise, ``(m,)``.
    """
    quarters = np.quantile(of_noise, QUANTILES)
    amount = (np.searchsorted(np.sort(match), quarters) / QUANTILES).min()
    window = (quarters[2] - quarters[0]) / 2

    def around(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        ordered = np.sort(values)
        return np.searchsorted(ordered, places + window) - np.searchsorted(ordered, places - window)

    places = np.linspace(quarters[1], of_noise.max(), PLACES)
    noise = amount / len(of_noise) * around(of_noise, places)
    is_noise = (noise > SURE * around(match, places)) & (noise >= 1)
    beyond = np.flatnonzero(~is_noise)
    last = beyond[0] - 1 if len(beyond) else PLACES - 1
    return float(places[last]) if last >= 0 else -np.inf


def reasons(match: Match, pixels: np.ndarray, of_noise: np.ndarray) -> np.ndarray:
    """Why each image fits nowhere: `NO_MATCH`, `UNLIKE`, or empty text where it does fit, ``(n,)``.

    If none fitted, as in a set of noise alone, there would be no classes: all are then kept.

    Parameters
    ----------
    match
        Of the images.
    pixels
        Independent Fourier pixels of the rings.
    of_noise
        Of simulated noise, ``(m,)``.
    """
    found = np.full(len(match.match), "", dtype=object)
    found[oddness(match, pixels) > ODD] = UNLIKE
    found[match.match < smallest_match(match.match, of_noise)] = NO_MATCH
    return found if (found == "").any() else np.full_like(found, "")


def tell(run: Run, reasons: np.ndarray) -> None:
    """Warn of what is set apart, if there is something."""
    unmatched, unlike = (int((reasons == reason).sum()) for reason in (NO_MATCH, UNLIKE))
    if unmatched + unlike:
        run.warn(f"{unmatched + unlike} of {len(reasons)} particles fit nowhere: {unmatched} match their class no "
                 f"better than noise does, {unlike} are unlike the others by other signal, lack of detail or place. They "
                 "are listed in set_apart.star with the class that is nearest.")


def columns(match: Match) -> dict[str, np.ndarray]:
    """Columns of the particles' table."""
    return {"siamese2dFit": match.match}


def simulated_noise(
    transform: PolarTransform, ctf: CtfParameters | None, noise: Tensor, generator: torch.Generator
) -> PolarImages:
    """Images of noise alone.

    Parameters
    ----------
    transform
        Of the images.
    ctf
        Of images, which is given to the noise in turn; None to work without.
    noise
        Power on the first rings, ``(rings,)``.
    generator
        Of the noise.
    """
    box = transform.mask.box
    pixels = torch.randn(NOISE_IMAGES, box, box, generator=generator).numpy()
    chosen = None if ctf is None else ctf.subset(np.arange(NOISE_IMAGES) % len(ctf))
    samples, ctf2, power = transform.particles(pixels, chosen)
    rings = len(noise)
    scale = noise / power.mean(0)[:rings].clamp_min(1e-30)
    images = first_rings(transform.gathered(samples, ctf2, power), rings)
    return replace(images, samples=images.samples * scale.sqrt()[:, None], power=images.power * scale)
