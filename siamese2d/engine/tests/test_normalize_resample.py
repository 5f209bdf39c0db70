"""Fourier cropping against closed forms."""

import numpy as np
import pytest

from siamese2d_engine.errors import InputError
from siamese2d_engine.normalize.resample import check_factor, cropped_size, downsample, fourier_crop


def cosine(shape, ky, kx, phase=0.0):
    """``cos(2 pi (ky y / h + kx x / w) + phase)``: whole waves over the image."""
    y, x = np.arange(shape[0])[:, None] / shape[0], np.arange(shape[1]) / shape[1]
    return np.cos(2 * np.pi * (ky * y + kx * x) + phase)


@pytest.mark.parametrize("ky, kx", [(0, 0), (3, 5), (-7, 2), (11, 15), (0, 15), (-11, 0)])
def test_cosine_below_nyquist_stays_a_cosine(ky, kx):
    small = fourier_crop(cosine((72, 80), ky, kx, 0.7), (24, 32))
    np.testing.assert_allclose(small, cosine((24, 32), ky, kx, 0.7), atol=1e-12)


@pytest.mark.parametrize("ky, kx", [(12, 0), (0, 16), (12, 16), (-12, 3), (20, 1), (1, 30), (35, 39)])
def test_cosine_at_or_above_nyquist_is_removed(ky, kx):
    np.testing.assert_allclose(fourier_crop(cosine((72, 80), ky, kx, 0.7), (24, 32)), 0, atol=1e-12)


def test_odd_sizes_one_axis_and_batches():
    images = np.stack([cosine((45, 51), 4, -6), cosine((45, 51), 2, 1, 0.3)])
    np.testing.assert_allclose(fourier_crop(images, (30, 20))[1], cosine((30, 20), 2, 1, 0.3), atol=1e-12)
    np.testing.assert_allclose(fourier_crop(images, (45, 20))[0], cosine((45, 20), 4, -6), atol=1e-12)
    assert fourier_crop(images, (45, 51)) is images
    assert fourier_crop(images.astype(np.float32), (30, 20)).dtype == np.float32


@pytest.mark.parametrize("size, factor, expected", [
    (1024, 1, (1024, 1024)),
    (1023, 1, (1023, 1023)),
    (1024, 2, (1024, 512)),
    (3838, 2, (3836, 1918)),
    (1200, 4, (1200, 300)),
    (1000, 3, (996, 332)),
    (1000, 1.5, (999, 666)),
])
def test_sizes(size, factor, expected):
    assert cropped_size(size, factor) == expected


@pytest.mark.parametrize("factor", [1.37, 2.5, 3.3, 7.0])
@pytest.mark.parametrize("size", [400, 1111, 4092])
def test_kept_part_is_the_new_size_times_the_factor_to_half_a_pixel(size, factor):
    kept, reduced = cropped_size(size, factor)
    assert reduced % 2 == 0
    assert abs(kept - reduced * factor) <= 0.5
    assert 0 <= size - kept < 2 * factor + 0.5


def test_downsample_keeps_positions():
    """A smooth blob at x of the input lies at x / factor of the result."""
    y, x = np.mgrid[:210, :254]
    image = np.exp(-((x - 150.0) ** 2 + (y - 90.0) ** 2) / (2 * 8.0**2))
    small = downsample(image, 3)
    rows, columns = np.mgrid[: small.shape[0], : small.shape[1]]
    assert (columns * small).sum() / small.sum() == pytest.approx(150 / 3, abs=1e-3)
    assert (rows * small).sum() / small.sum() == pytest.approx(90 / 3, abs=1e-3)
    assert small.max() == pytest.approx(1.0, abs=1e-3)


def test_enlarging_is_refused():
    with pytest.raises(InputError, match="1 or more"):
        check_factor(0.5)
