"""The particle diameter, estimated from the labels when the user does not give it."""

import numpy as np

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import X, Y
from siamese2d_engine.io.images import read_image
from siamese2d_engine.io.micrographs import MicrographSet

MICROGRAPHS = 20          # more do not sharpen the profile
WIDEST_SHARE = 8          # profiles reach to this part of the image
EDGE_SHARE = 0.1          # of the strongest deviation: where a particle ends
FEWEST_LABELS = 5
LEAST_SIGNAL = 4.0         # standard deviations of the profile's noise


def estimate_diameter(micrographs: MicrographSet, groups: list) -> float:
    """Diameter of labelled particles in angstroms.

    The windows around the labels are averaged, then averaged over angles. Underfocus gives a particle a fringe of the
    opposite contrast, so it ends where its radial profile first comes back to the background.

    Parameters
    ----------
    micrographs : MicrographSet
    groups : list of DataFrame
        Labels of each micrograph.

    Raises
    ------
    InputError
        If there are too few labels away from the borders, or the profile does not rise above its noise.
    """
    labelled = [i for i, rows in enumerate(groups) if len(rows)][:MICROGRAPHS]
    profiles = [_profile(micrographs, i, groups[i][[X, Y]].to_numpy(float)) for i in labelled]
    profiles = [(profile, count) for profile, count in profiles if count]
    labels = sum(count for _, count in profiles)
    if labels < FEWEST_LABELS:
        raise InputError(f"Only {labels} labels lie far enough from the borders to estimate the particle diameter. "
                         "Pass --diameter in angstroms.")
    length = min(len(profile) for profile, _ in profiles)
    mean = np.average([profile[:length] for profile, _ in profiles], axis=0, weights=[count for _, count in profiles])
    return round(2 * profile_edge(mean) * float(micrographs.pixel_sizes[labelled[0]]), 1)


def radial_profile(image: np.ndarray) -> np.ndarray:
    """Mean of the pixels of each ring around the centre of an odd square image, ``(h // 2 + 1,)``."""
    half = image.shape[0] // 2
    y, x = np.mgrid[-half:half + 1, -half:half + 1]
    ring = np.hypot(x, y).round().astype(int)
    inside = ring <= half
    return np.bincount(ring[inside], image[inside]) / np.bincount(ring[inside])


def profile_edge(profile: np.ndarray) -> float:
    """Radius in pixels at which a particle's radial profile first comes back to the background.

    Raises
    ------
    InputError
        If nothing stands out of the background.
    """
    half = len(profile) // 2
    deviation = profile - np.median(profile[half:])
    # The noise of a ring falls with the square root of its pixels: weighted like this, all rings are equally noisy.
    weighted = deviation * np.sqrt(np.maximum(np.arange(len(profile)), 1))
    peak = int(np.abs(weighted[:half]).argmax())
    signed = deviation * np.sign(deviation[peak])
    below = np.flatnonzero(signed[peak:] < EDGE_SHARE * signed[peak])
    if not len(below) or np.abs(weighted[peak]) < LEAST_SIGNAL * np.std(weighted[half:]):
        raise InputError("The labelled particles do not stand out enough to estimate their diameter. Pass --diameter "
                         "in angstroms.")
    return float(peak + below[0])


def _profile(micrographs: MicrographSet, i: int, positions: np.ndarray) -> tuple[np.ndarray, int]:
    """Mean radial profile around the labels of one micrograph, in its standard deviations, and their number."""
    try:
        image = read_image(micrographs.paths[i])
    except InputError:
        # Reported when the micrographs are prepared for training.
        return np.zeros(1), 0
    half = min(image.shape) // WIDEST_SHARE
    centres = np.rint(positions).astype(int)
    height, width = image.shape
    inside = ((centres >= half) & (centres < np.array([width, height]) - half)).all(axis=1)
    windows = [image[y - half:y + half + 1, x - half:x + half + 1] for x, y in centres[inside]]
    if not windows:
        return np.zeros(half + 1), 0
    # Each window's own level is removed, so that slow gradients of the micrograph do not enter.
    average = np.mean([window - window.mean() for window in windows], axis=0) / image.std()
    return radial_profile(average), len(windows)
