"""Peaks, suppression, sub-pixel centres."""

import numpy as np
import pytest

from siamese2d_engine.picking.candidates import _without_mirrored, from_micrograph, to_micrograph
from siamese2d_engine.picking.peaks import find_peaks, suppress


def _bumps(shape, bumps, width=2.0):
    y, x = np.mgrid[:shape[0], :shape[1]]
    image = np.zeros(shape)
    for cx, cy, height in bumps:
        image = np.maximum(image, height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width ** 2)))
    return image.astype(np.float32)


def test_peaks_come_best_first_with_subpixel_centres():
    bumps = [(10.3, 20.7, 2.0), (40.0, 31.5, 3.0), (0.0, 0.0, 1.0), (59.0, 49.0, 1.5)]
    peaks = find_peaks(_bumps((50, 60), bumps), radius=6, floor=0.5)
    expected = sorted(bumps, key=lambda b: -b[2])
    np.testing.assert_allclose(peaks[:, :2], [b[:2] for b in expected], atol=0.1)
    np.testing.assert_allclose(peaks[:, 2], [b[2] for b in expected], atol=0.1)


def test_no_two_peaks_are_closer_than_the_radius():
    rng = np.random.default_rng(0)
    for radius in (2.5, 7, 11):
        peaks = find_peaks(rng.normal(size=(80, 90)).astype(np.float32), radius, -10)
        distances = np.hypot(*(peaks[:, None, :2] - peaks[None, :, :2]).transpose(2, 0, 1))
        np.fill_diagonal(distances, np.inf)
        assert len(peaks) > 10 and distances.min() >= radius


def test_the_floor_is_a_floor():
    assert len(find_peaks(_bumps((30, 30), [(15, 15, 1.0)]), 5, 1.5)) == 0


def test_suppression_keeps_what_only_a_suppressed_point_was_near_to():
    points = np.array([[0.0, 0], [4, 0], [8, 0]])
    assert suppress(points, 5).tolist() == [0, 2]


def test_equal_neighbours_give_one_peak():
    scores = np.zeros((20, 20), dtype=np.float32)
    scores[10, 9:12] = 1
    assert len(find_peaks(scores, 5, 0.5)) == 1


def test_coordinates_survive_the_change_of_scale():
    points = np.array([[0.0, 0.0], [-0.5, 511.5], [100.25, 3.0]])
    scale = (1024 / 513, 2.0)
    np.testing.assert_allclose(from_micrograph(to_micrograph(points, scale), scale), points)
    # The corner of the first pixel stays the corner.
    assert to_micrograph(np.array([[-0.5, -0.5]]), scale)[0] == pytest.approx([-0.5, -0.5])


def test_peaks_at_the_edge_lose_what_the_mirror_image_gave_them():
    # x, y, logit in a picture 100 wide and 80 high: on the edge, a quarter diameter inside, far inside, below typical.
    peaks = np.array([[0.0, 40.0, 2.0], [50, 74, 1.0], [50, 40, 0.5], [99, 40, -9.0]])
    corrected = _without_mirrored(peaks, (80, 100), -6.0, -20.0)
    assert corrected.tolist() == [[50, 40, 0.5], [50, 74, -6 + 0.75 * 7], [0, 40, -6 + 0.5 * 8], [99, 40, -9]]
    assert len(_without_mirrored(peaks, (80, 100), -6.0, -1.0)) == 2
    assert _without_mirrored(peaks[:0], (80, 100), -6.0, -1.0).shape == (0, 3)
