"""What a fit sees of an image: samples, values without information, dead and hot pixels."""

import numpy as np
import pytest

from siamese2d_engine.errors import InputError
from siamese2d_engine.normalize.pixels import (
    BINS,
    histogram,
    repair_pixels,
    sample_positions,
    summary_histogram,
    take_sample,
)


def noise(shape=(200, 200), mean=100.0, sigma=5.0, seed=0):
    return (mean + sigma * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def test_positions_are_spread_over_the_image():
    positions = sample_positions(1000, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(positions // 10, np.arange(100))
    np.testing.assert_array_equal(sample_positions(50, 100, np.random.default_rng(0)), np.arange(50))


def test_location_and_spread():
    sample = take_sample(noise().ravel())
    assert sample.median == pytest.approx(100, abs=0.1)
    assert sample.spread == pytest.approx(5, rel=0.02)
    assert sample.fill_share == 0
    assert sample.resolution == 0


@pytest.mark.parametrize("image", [
    np.full(400, 3.0), np.r_[np.zeros(990), np.arange(10)], np.r_[np.full(9999, 7.0), 0.0],
])
def test_images_without_information_are_refused(image):
    with pytest.raises(InputError, match="value"):
        take_sample(image)


def test_padding_and_saturation_are_left_out():
    image = noise().ravel()
    image[:6000] = 0
    image[6000:10000] = 112
    sample = take_sample(image)
    np.testing.assert_array_equal(sample.fill_values, [0, 112])
    assert sample.fill_share == pytest.approx(0.25, abs=1e-3)
    assert sample.median == pytest.approx(100, abs=0.2)


def test_low_counts_are_no_padding():
    counts = np.random.default_rng(0).poisson(1.5, 50_000)
    sample = take_sample(counts)
    assert len(sample.fill_values) == 0
    assert sample.resolution == 1


@pytest.mark.parametrize("values", [
    noise().ravel(),
    np.round(noise().ravel()),
    np.round(noise(sigma=900.0, mean=20_000.0).ravel()),
])
def test_histogram_keeps_mean_and_spread(values):
    pixels = histogram(take_sample(values))
    assert pixels.values.shape == pixels.weights.shape == (BINS,)
    assert pixels.weights.sum() == len(values)
    mean, deviation = np.mean(values, dtype=float), np.std(values, dtype=float)
    found = np.average(pixels.values, weights=pixels.weights)
    assert found == pytest.approx(mean, abs=0.01 * deviation)
    variance = np.average((pixels.values - found) ** 2, weights=pixels.weights)
    assert np.sqrt(variance) == pytest.approx(deviation, rel=5e-3)
    # The differential entropy of a Gaussian, which the histogram estimates.
    assert pixels.best == pytest.approx(-0.5 * np.log(2 * np.pi * np.e * deviation**2), abs=0.015)


def test_histogram_leaves_out_extreme_pixels():
    values = np.r_[noise().ravel(), np.full(50, 1e6)]
    assert histogram(take_sample(values)).values.max() < 200


def test_dead_and_hot_pixels_and_lines_are_replaced_and_areas_kept():
    image = noise()
    bad = [(10, 10), (0, 0), (199, 57), (100, 101)]
    for row, column in bad:
        image[row, column] = 1e5
    image[:, 30] = 0
    image[60:90, 60:90] = 20
    repaired, number = repair_pixels(image, take_sample(image.ravel()))
    assert all(abs(repaired[place] - 100) < 25 for place in bad)
    assert np.abs(repaired[:, 30] - 100).max() < 25
    assert (repaired[61:89, 61:89] == 20).all()
    assert len(bad) + 200 <= number <= len(bad) + 200 + 30
    untouched = np.ones(image.shape, dtype=bool)
    untouched[:, 30], untouched[59:91, 59:91] = False, False
    for place in bad:
        untouched[place] = False
    np.testing.assert_array_equal(repaired[untouched], image[untouched])


def test_clean_image_is_returned_as_it_is():
    image = noise(sigma=5.0).clip(90, 110)
    assert repair_pixels(image, take_sample(image.ravel()))[0] is image


def test_summary_histogram_covers_the_pixels():
    drawn = summary_histogram(noise().ravel())
    assert len(drawn["edges"]) == len(drawn["counts"]) + 1 == 201
    assert sum(drawn["counts"]) > 0.998 * 200 * 200
    constant = summary_histogram(np.full(10, 2.0))
    assert sum(constant["counts"]) == 10
