"""What fits nowhere, given averages at another scale, and harmonics that suffice: closed forms and planted sets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm

from siamese2d_engine.batches import Room
from siamese2d_engine.classify import fit
from siamese2d_engine.classify.given_classes import resampled
from siamese2d_engine.classify.inputs import circular_mask
from siamese2d_engine.classify.passes import aligned_harmonics
from siamese2d_engine.classify.prepare import PolarTransform, fourier_crop, resolution
from siamese2d_engine.classify.search import Poses

RINGS = 12


def gaussian(box, scale, x=3.0, y=-2.0, width=3.0):
    rows, columns = np.mgrid[:box, :box] - box // 2
    return np.exp(-((columns - scale * x) ** 2 + (rows - scale * y) ** 2) / (2 * (scale * width) ** 2))


@pytest.mark.parametrize("old, new, step", [(32, 48, 2 / 3), (32, 24, 4 / 3), (33, 40, 1.0), (40, 33, 0.9)])
def test_resampled_images_are_drawn_at_the_new_points(old, new, step):
    images = torch.as_tensor(np.stack([gaussian(old, 1.0), gaussian(old, 1.0, -4, 1)]))
    wanted = np.stack([gaussian(new, 1 / step), gaussian(new, 1 / step, -4, 1)])
    np.testing.assert_allclose(resampled(images, new, step).numpy(), wanted, atol=2e-3)


def test_resampling_fills_with_zeros_beyond_the_old_field():
    image = torch.ones(1, 16, 16)
    large = resampled(image, 32, 1.0)[0]
    assert large[8:24, 8:24].sub(1).abs().max() < 1e-5
    assert large[:8].abs().max() == 0 and large[:, 24:].abs().max() == 0


@pytest.mark.parametrize("old", [40, 41])
def test_fourier_crop_keeps_what_it_can_show(old):
    """A wide Gaussian, which has nothing at the frequencies that are left out; values keep their sum."""
    small = fourier_crop(torch.as_tensor(gaussian(old, 1.0))[None].float(), 20)[0]
    centres = (np.arange(20) - 10) * old / 20
    wanted = np.exp(-((centres[None] - 3) ** 2 + (centres[:, None] + 2) ** 2) / 18)
    np.testing.assert_allclose(small.numpy(), wanted * (old / 20) ** 2, atol=3e-2)


def test_noise_is_told_from_weak_particles():
    rng = np.random.default_rng(0)
    null, noise, real = rng.normal(3.3, 0.5, 500), rng.normal(3.3, 0.5, 300), rng.normal(8, 1.5, 2000)
    limit = fit.smallest_match(np.concatenate([noise, real]), null)
    assert (noise < limit).mean() > 0.95 and (real < limit).mean() < 0.01


def test_without_noise_nothing_matches_too_little():
    rng = np.random.default_rng(1)
    null = rng.normal(3.3, 0.5, 500)
    assert fit.smallest_match(rng.normal(15, 3, 3000), null) == -np.inf
    weak = rng.normal(6, 1.3, 3000)          # the tail of weak particles reaches into what noise matches
    assert (weak < fit.smallest_match(weak, null)).mean() < 0.03


def test_noise_alone_stays_in_classes():
    """There would be no classes without it."""
    rng = np.random.default_rng(6)
    match, pixels = planted_match(rng, 400, 16, 0.0)
    match.match[:] = rng.normal(2.0, 0.3, 400)
    assert (fit.reasons(match, pixels, rng.normal(3.3, 0.5, 500)) == "").all()


def planted_match(rng, n, rings, error, contrast=0.1):
    """Residuals of noise on rings with some pixels, and of a part of the signal that the average misses."""
    pixels = 6.0 * np.arange(1, rings + 1)
    explained = rng.gamma(2.0, 1.0, (n, 1)) * np.exp(-np.arange(rings) / 3)
    left = rng.chisquare(2 * pixels, (n, rings)) / (2 * pixels) * (1 + error * explained)
    noise = rng.normal(size=(n, rings)) * np.sqrt(explained / pixels)
    shared = explained * (1 + contrast * rng.normal(size=(n, 1))) + noise
    return fit.Match(np.full(n, 20.0), left, explained, shared, rng.rayleigh(3.0, n)), pixels


def test_other_signal_is_odd_and_larger_particles_are_not():
    rng = np.random.default_rng(2)
    match, pixels = planted_match(rng, 2000, 16, 0.3)
    usual = fit.residual(match, pixels)
    assert (usual > fit.ODD).mean() < 0.005
    strong = match.explained[:, 0] > np.quantile(match.explained[:, 0], 0.9)
    assert (usual[strong] > fit.ODD).mean() < 0.02
    match.left[:100, :fit.LOW_RINGS] += 2.0
    assert (fit.residual(match, pixels)[:100] > fit.ODD).mean() > 0.9


def test_noisier_images_are_not_odd():
    rng = np.random.default_rng(3)
    match, pixels = planted_match(rng, 1000, 16, 0.0)
    match.left[:50] *= 1.8
    assert (fit.residual(match, pixels)[:50] > fit.ODD).mean() < 0.1


@pytest.mark.parametrize("contrast", [0.0, 0.1, 0.4])
def test_images_with_detail_lack_none_whatever_their_contrast(contrast):
    """By chance as many are beyond two standard deviations as of normally distributed numbers: 2.3 %."""
    match, pixels = planted_match(np.random.default_rng(7), 4000, 16, 0.0, contrast)
    lack = fit.lack_of_detail(match, pixels)
    assert (lack > 2).mean() == pytest.approx(norm.sf(2), abs=0.01)
    strong = match.explained[:, 0] > np.quantile(match.explained[:, 0], 0.9)
    assert (lack[strong] > 2).mean() == pytest.approx(norm.sf(2), abs=0.025)


def test_images_without_detail_lack_it_by_its_strength():
    """Without differences in contrast, the deficit is the average's strength on the rings with detail."""
    match, pixels = planted_match(np.random.default_rng(8), 100_000, 16, 0.0, 0.0)
    match.shared[:50, fit.DETAIL_RING:] = 0
    strength = np.sqrt((match.explained[:50, fit.DETAIL_RING:] * pixels[fit.DETAIL_RING:]).sum(1))
    np.testing.assert_allclose(fit.lack_of_detail(match, pixels)[:50], strength, rtol=0.1)


def test_as_few_lie_far_out_as_normally_distributed_numbers():
    shift = np.random.default_rng(9).rayleigh(3.0, 100_000)
    expected = norm.isf(np.exp(-shift ** 2 / 18))
    np.testing.assert_allclose(fit.far_out(shift), expected, atol=0.1)


def test_nothing_is_far_out_by_parts_of_a_step():
    found = fit.far_out(np.array([0.0] * 98 + [0.3, 0.6]))
    assert found.max() == pytest.approx(norm.isf(np.exp(-0.6 ** 2 / 0.5)), rel=1e-6) and found.max() < 1
    assert (fit.far_out(np.zeros(9)) < 0).all()


def test_oddness_adds_up_what_is_odd_in_several_ways():
    rng = np.random.default_rng(10)
    match, pixels = planted_match(rng, 2000, 16, 0.3)
    match.shift[0] = 1e3
    ways = [fit.residual(match, pixels), fit.lack_of_detail(match, pixels), fit.far_out(match.shift).clip(max=fit.FAR)]
    expected = np.sqrt(sum(way.clip(min=0) ** 2 for way in ways))
    np.testing.assert_allclose(fit.oddness(match, pixels), expected, rtol=1e-9)
    assert ways[2][0] == fit.FAR < fit.ODD, "far out alone is not odd"
    assert (expected > fit.ODD).mean() < 0.015


def test_noise_floor_is_that_of_the_images_without_other_signal():
    rng = np.random.default_rng(4)
    match, pixels = planted_match(rng, 2000, 16, 0.0)
    match.left[:300] *= 4
    mean = match.left.mean(0)
    # The mean residual is the unit of what is left.
    scaled = replace(match, left=match.left / mean, explained=match.explained / mean)
    floor = fit.noise_floor(scaled, pixels, torch.as_tensor(mean))
    np.testing.assert_allclose(floor.numpy(), 1.0, atol=0.2)
    assert (mean > 1.3).all()


@pytest.fixture(scope="module")
def few():
    """Noisy images of one average at known poses, with their polar samples."""
    rng = np.random.default_rng(5)
    box, n = 32, 20
    mask = circular_mask(box, 4.0, None)
    average = gaussian(box, 1.0) - 0.5 * gaussian(box, 1.0, -4, 5)
    images = average[None] + rng.normal(size=(n, box, box))
    polar = PolarTransform(mask, RINGS, 4.0, torch.device("cpu"))
    poses = Poses.empty(n, 1)
    samples = polar.gathered(*polar.particles(images.astype(np.float32), None))
    return polar, samples, poses, polar.sample(torch.as_tensor(average)[None].float())


def test_quantiles_are_those_of_the_chi_square_distribution():
    degrees = torch.tensor([2, 2.5, 10, 66.6, 2e4], dtype=torch.float64)
    for probability in (0.05, 0.25, 0.5):
        expected = chi2.ppf(probability, degrees.numpy())
        np.testing.assert_allclose(fit.chi_square_quantile(degrees, probability), expected, rtol=1e-6)


def test_match_and_residual_are_sums_over_samples(few):
    polar, images, poses, sample = few
    at = resolution(images, RINGS)
    harmonics = at.harmonics(images.grid, "cpu")
    averages = harmonics.join(*harmonics.analyse(at.of(sample))).permute(0, 2, 1)
    noise = torch.linspace(1, 2, RINGS)
    found = fit.matches(images, poses, averages, noise, None, Room(10**6))
    pixels = polar.pixels.numpy().astype(float)
    f, a = images.samples.numpy(), sample.numpy()
    product, power = (f.conj() * a).real.mean(-1), (np.abs(a) ** 2).mean(-1)
    weights = pixels / noise.numpy()
    np.testing.assert_allclose(found.match, (product @ weights) / np.sqrt(power[0] @ weights), rtol=2e-2, atol=2e-2)
    left = (np.abs(f - a) ** 2).mean(-1) / noise.numpy()
    np.testing.assert_allclose(found.left, left, rtol=2e-2, atol=1e-2)
    np.testing.assert_allclose(found.shared, product / noise.numpy(), rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(found.shift, 0)


def test_an_image_is_compared_with_the_average_of_the_others(few):
    _, images, poses, _ = few
    at = resolution(images, RINGS)
    harmonics = at.harmonics(images.grid, "cpu")
    every = torch.arange(len(images))
    aligned = aligned_harmonics(images, every, poses, at, harmonics)
    total = torch.full((1, RINGS), len(images) + 5.0)
    averages = (aligned.sum(0) / total)[..., None]
    noise = torch.ones(RINGS)
    found = fit.matches(images, poses, averages, noise, total, Room(10**6))
    others = (aligned.sum(0) - aligned[3]) / (total - 1)
    alone = fit.matches(images, poses, others[..., None], noise, None, Room(10**6))
    assert found.match[3] == pytest.approx(alone.match[3], rel=1e-4)
    np.testing.assert_allclose(found.left[3], alone.left[3], rtol=1e-4)


def test_simulated_noise_has_the_power_asked_for(few):
    polar = few[0]
    noise = torch.linspace(3, 1, RINGS)
    images = fit.simulated_noise(polar, None, noise, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(images.power.mean(0).numpy(), noise.numpy(), rtol=1e-4)
    np.testing.assert_allclose((images.samples.abs() ** 2).mean((0, 2)).numpy(), noise.numpy(), rtol=1e-4)
