"""Full-size averages and their quality against closed forms."""

import numpy as np
import pytest
import torch

from siamese2d_engine.classify.quality import filtered, quality, resolution_at, ring_correlation
from siamese2d_engine.classify.realspace import Alignment, align_images, aligned_ctf, twice_as_large
from siamese2d_engine.ctf import CtfParameters, ctf_at

BOX = 32


def gaussian(x0, y0, width=2.0, box=BOX):
    y, x = np.mgrid[:box, :box] - box // 2
    return np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))


@pytest.mark.parametrize("box", [32, 31])
@pytest.mark.parametrize("psi, origin, flip", [(0.0, (0, 0), False), (0.9, (1.3, -2.2), False), (-2.4, (0.5, 3), True)])
def test_aligned_image_is_where_the_convention_says(box, psi, origin, flip):
    x0, y0 = 6.0, -3.0
    image = torch.as_tensor(gaussian(x0, y0, box=box), dtype=torch.float32)[None]
    moved = align_images(image, torch.tensor([psi], dtype=torch.float32), torch.tensor([origin], dtype=torch.float32),
                         torch.tensor([flip]))[0]
    x, y = x0 + origin[0], y0 + origin[1]
    new_x, new_y = np.cos(psi) * x - np.sin(psi) * y, np.sin(psi) * x + np.cos(psi) * y
    expected = gaussian(-new_x if flip else new_x, new_y, box=box)
    np.testing.assert_allclose(moved.numpy(), expected, atol=0.01)


def test_twice_as_large_keeps_the_pixels():
    image = torch.as_tensor(gaussian(3, 1), dtype=torch.float32)[None]
    np.testing.assert_allclose(twice_as_large(image)[0, ::2, ::2], image[0], atol=1e-4)


@pytest.mark.parametrize("flip", [False, True])
def test_astigmatism_turns_with_the_image(flip):
    ctf = CtfParameters(20000.0, 15000.0, 0.3, 300.0, 2.7, 0.1, 0.0)
    psi = 0.8
    turned = aligned_ctf(ctf, Alignment(np.array([0]), np.array([psi]), np.zeros((1, 2)), np.array([flip])))
    kx, ky = torch.tensor([0.03, -0.02], dtype=torch.float64), torch.tensor([0.01, 0.045], dtype=torch.float64)
    # The aligned image at k' = R(psi) k (then mirrored) is the original at k.
    new_x, new_y = np.cos(psi) * kx - np.sin(psi) * ky, np.sin(psi) * kx + np.cos(psi) * ky
    torch.testing.assert_close(ctf_at(turned, -new_x if flip else new_x, new_y), ctf_at(ctf, kx, ky))


def test_ring_correlation_by_hand():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 16, 16))
    found = ring_correlation(torch.as_tensor(first[None]).float(), torch.as_tensor(second[None]).float())[0]
    f, g = np.fft.fft2(first), np.fft.fft2(second)
    k = np.fft.fftfreq(16, 1 / 16)
    ring = np.round(np.hypot(k[:, None], k[None, :])).astype(int)
    for number in (1, 3, 7, 8):
        chosen = ring == number
        expected = (f[chosen] * g[chosen].conj()).sum().real / np.sqrt(
            (abs(f[chosen]) ** 2).sum() * (abs(g[chosen]) ** 2).sum())
        assert float(found[number - 1]) == pytest.approx(expected, abs=1e-5)


def test_resolution_is_where_the_curve_crosses():
    curves = torch.tensor([[1.0, 0.8, 0.2, 0.0], [0.3, 0.9, 0.9, 0.9], [1.0, 1.0, 0.9, 0.7]])
    # The first crosses half-way between rings 2 and 3.
    assert resolution_at(curves, 8, 2.0) == pytest.approx([16 / 2.5, 16.0, 16 / 4])


def test_quality_ranks_by_what_the_halves_share():
    scores = quality(torch.tensor([[1.0, 0.9, 0.1], [0.9, 0.2, -0.3], [0.0, -0.1, 0.0]]))
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert float(scores[2]) == 0


def test_filter_keeps_what_is_certain_and_removes_what_is_not():
    image = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(filtered(image, torch.ones(1, 8))[0].mean(), image.mean())
    nothing = filtered(image, torch.zeros(1, 8))
    torch.testing.assert_close(nothing, image.mean().expand(1, 16, 16), atol=1e-5, rtol=0)
