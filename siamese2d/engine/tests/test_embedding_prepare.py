"""Preparation of particle images: cropping, scaling, phases, centring, alignment, random views."""

import numpy as np
import pandas as pd
import pytest
import torch

from siamese2d_engine.ctf import ctf_grid
from siamese2d_engine.embedding.centring import find_shifts, fit_profile, shift_spectra
from siamese2d_engine.embedding.inference import given_alignment
from siamese2d_engine.embedding.prepare import (
    Preparation,
    align,
    crop_spectra,
    given_shifts,
    read_spectra,
    rotate,
    soft_mask,
    to_images,
    to_spectra,
    unit_variance,
)
from siamese2d_engine.embedding.views import Views, random_half
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import ctf_parameters, read_particles, write_particles


def blobs(width, centres, sigma=2.0):
    """Image with Gaussian blobs at (x, y) from its centre pixel."""
    axis = np.arange(width) - width // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    image = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2)) for cx, cy in centres)
    return torch.tensor(image, dtype=torch.float32)


def particle_set(folder, images, pixel_size=3.0, **columns):
    write_mrc(folder / "stack.mrcs", np.asarray(images, np.float32), pixel_size)
    table = pd.DataFrame({"rlnImageName": [f"{i + 1:06d}@{folder / 'stack.mrcs'}" for i in range(len(images))],
                          "rlnOpticsGroup": 1, **columns})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"], "rlnVoltage": [300.0],
                           "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1],
                           "rlnImagePixelSize": [pixel_size]})
    write_particles(folder / "particles.star", table, optics)
    return read_particles(folder / "particles.star")


def no_report(message):
    raise AssertionError(message)


def centroid(image):
    axis = torch.arange(image.shape[-1], dtype=torch.float32) - image.shape[-1] // 2
    weights = image.clamp_min(0)
    moments = torch.stack([(weights.sum(-2) * axis).sum(-1), (weights.sum(-1) * axis).sum(-1)], -1)
    return moments / weights.sum((-2, -1))[..., None]


def test_cropped_spectrum_is_the_image_on_a_coarser_grid():
    spectrum = crop_spectra(to_spectra(blobs(48, [(6, -4)], 4.0)[None]), 24)
    expected = blobs(24, [(3, -2)], 2.0)
    image = to_images(spectrum)[0] / 4
    torch.testing.assert_close(image - image.mean(), expected - expected.mean(), atol=1e-3, rtol=0)


def test_unit_variance_by_parseval():
    images = torch.randn(5, 20, 20, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 6)[:, None, None]
    scaled = to_images(unit_variance(crop_spectra(to_spectra(images), 16)))
    torch.testing.assert_close(scaled.square().mean((-2, -1)), torch.ones(5), rtol=1e-4, atol=0)


def test_phases_are_flipped_where_the_ctf_is_negative(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    particles = particle_set(tmp_path, images, rlnDefocusU=[20000.0, 30000.0, 15000.0],
                             rlnDefocusV=[19000.0, 30500.0, 15000.0], rlnDefocusAngle=[0.0, 30.0, 60.0])
    preparation = Preparation.for_particles(particles, 32, True, None)
    flipped = read_spectra(particles, preparation, no_report)
    plain = read_spectra(particles, Preparation.for_particles(particles, 32, False, None), no_report)
    sign = torch.sign(ctf_grid(ctf_parameters(particles), 32, 3.0))
    assert (sign < 0).any()
    torch.testing.assert_close(flipped, plain * sign)


def test_particles_without_ctf_work_and_it_is_said(tmp_path):
    particles = particle_set(tmp_path, np.random.default_rng(0).normal(size=(2, 32, 32)))
    messages = []
    read_spectra(particles, Preparation.for_particles(particles, 24, True, None), messages.append)
    assert len(messages) == 1 and "no CTF" in messages[0]


@pytest.mark.filterwarnings("ignore:Data array contains:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad, what", [(np.nan, "not finite"), (np.inf, "not finite"), (7.0, "constant")])
def test_bad_particle_is_named(tmp_path, bad, what):
    images = np.random.default_rng(0).normal(size=(4, 32, 32))
    images[2] = bad
    particles = particle_set(tmp_path, images)
    with pytest.raises(InputError, match=f"row 3 .*stack.mrcs.*{what}"):
        read_spectra(particles, Preparation.for_particles(particles, 32, True, None), lambda message: None)


@pytest.mark.parametrize("width, pixel_size", [(64, 2.0), (40, 4.0), (96, 2.0)])
def test_other_boxes_and_pixel_sizes_come_to_the_scale_of_the_model(tmp_path, width, pixel_size):
    """The same particle at other samplings gives the same spectrum, up to the noise-free rounding of the box."""
    scale = 3.0 / pixel_size
    centres = [(5, -3), (-6, 2)]
    reference = blobs(40, centres, 2.5)
    other = blobs(width, [(x * scale, y * scale) for x, y in centres], 2.5 * scale)
    model_particles = particle_set(tmp_path / "a", reference[None], 3.0)
    preparation = Preparation.for_particles(model_particles, 20, False, None)
    expected = to_images(read_spectra(model_particles, preparation, no_report))[0]
    messages = []
    others = particle_set(tmp_path / "b", other[None], pixel_size)
    scaled = to_images(read_spectra(others, preparation, messages.append))[0]
    correlation = torch.corrcoef(torch.stack([expected.flatten(), scaled.flatten()]))[0, 1]
    assert correlation > 0.97
    assert len(messages) == 1 and "rescaled" in messages[0]


def test_pixels_coarser_than_the_model_are_refused(tmp_path):
    images = np.random.default_rng(0).normal(size=(1, 32, 32))
    preparation = Preparation(box=64, pixel_size=2.0, working_box=32, phase_flip=False, mask_radius=15)
    with pytest.raises(InputError, match="coarser"):
        read_spectra(particle_set(tmp_path, images, 8.0), preparation, no_report)


def test_mask_is_one_inside_and_zero_from_its_radius():
    mask = soft_mask(32, 12, 3)
    assert mask[16, 16] == 1 and mask[16, 16 + 9] == 1
    assert mask[16, 16 + 12] == pytest.approx(0, abs=1e-6) and 0.4 < soft_mask(32, 12, 4)[16, 16 + 10] < 0.6


def test_shift_moves_content_by_subpixels():
    image = blobs(32, [(1, 2)])
    moved = to_images(shift_spectra(to_spectra(image[None]), torch.tensor([[2.5, -3.25]])))[0]
    torch.testing.assert_close(centroid(moved), torch.tensor([3.5, -1.25]), atol=0.01, rtol=0)


def test_centres_are_found_whatever_the_rotation():
    generator = torch.Generator().manual_seed(0)
    n, width = 60, 32
    angles = 2 * torch.pi * torch.rand(n, generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5
    shifts = 2.4 * (2 * torch.rand(n, 2, generator=generator) - 1)
    images = rotate(blobs(width, [(0, 0), (4, 1), (-3, 4)], 3.0).expand(n, -1, -1), angles, flips)
    images = images + 0.5 * torch.randn(images.shape, generator=generator)
    spectra = shift_spectra(crop_spectra(to_spectra(images), width), shifts)
    found = find_shifts(spectra, fit_profile(spectra))
    # The centre that is found may differ from the origin of the drawing, by one vector that turns with the particle.
    error = found + shifts
    c, s = torch.cos(angles), torch.sin(angles)
    x = torch.where(flips, -error[:, 0], error[:, 0])
    turned = torch.stack([c * x + s * error[:, 1], -s * x + c * error[:, 1]], 1)
    assert (turned - turned.mean(0)).norm(dim=1).mean() < 0.5
    assert shifts.norm(dim=1).mean() > 1.5


def test_alignment_columns_bring_particles_together(tmp_path):
    """Content at x goes to R(psi) (x + origin), then is mirrored: the rule of the developer's guide, on a drawn
    image."""
    width, pixel = 48, 2.0
    points = np.array([[9.0, 2.0], [-4.0, -8.0], [-2.0, 6.0]])
    psi, origin, flips = np.array([0.0, 70.0, 200.0]), np.array([[0, 0], [3.0, -2.0], [-4.0, 1.0]]), np.array([0, 0, 1])
    images = []
    for angle, shift, flip in zip(np.radians(psi), origin, flips):
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        target = points * [-1, 1] if flip else points
        images.append(blobs(width, target @ rotation - shift, 2.0).numpy())
    particles = particle_set(tmp_path, images, pixel, rlnAnglePsi=psi, rlnOriginXAngst=origin[:, 0] * pixel,
                             rlnOriginYAngst=origin[:, 1] * pixel, rlnIsFlip=flips)
    preparation = Preparation.for_particles(particles, 48, False, None)
    spectra = read_spectra(particles, preparation, no_report)
    aligned = to_images(align(spectra, *given_alignment(particles, preparation))).flatten(1)
    assert (torch.corrcoef(aligned) > 0.98).all()
    assert torch.corrcoef(to_images(spectra).flatten(1)).min() < 0.5


def test_no_alignment_columns_no_alignment(tmp_path):
    particles = particle_set(tmp_path, np.random.default_rng(0).normal(size=(2, 32, 32)))
    preparation = Preparation.for_particles(particles, 32, False, None)
    assert given_shifts(particles, preparation) is None and given_alignment(particles, preparation) is None


def test_random_half_keeps_images_real_and_halves_complementary():
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, 16, 16, generator=generator)
    spectra = crop_spectra(to_spectra(images), 16)
    keep = random_half(spectra, generator)
    assert 0.4 < keep.float().mean() < 0.6
    first, second = to_images(spectra * keep), to_images(spectra * ~keep)
    torch.testing.assert_close(first + second, to_images(spectra), atol=1e-5, rtol=0)
    torch.testing.assert_close(to_spectra(first), spectra * keep, atol=1e-4, rtol=0)


def test_noise_of_the_two_views_is_independent():
    noise = crop_spectra(to_spectra(torch.randn(400, 16, 16, generator=torch.Generator().manual_seed(0))), 16)
    views = Views(torch.ones(16, 16), 0.0, False, False)
    first, second = views.pair(noise, torch.Generator().manual_seed(1))
    assert abs((first * second).mean() / noise.abs().square().mean() * 256) < 0.01
    assert first.var() == pytest.approx(float(to_images(noise).var()), rel=0.05)
    again = views.pair(noise, torch.Generator().manual_seed(1))
    torch.testing.assert_close(again[0], first, atol=0, rtol=0)


def test_views_turn_and_mirror_only_when_asked():
    spectra = to_spectra(blobs(32, [(8, 0)]).expand(200, -1, -1))
    mask = soft_mask(32, 15)
    generator = torch.Generator().manual_seed(0)
    still = centroid(Views(mask, 0.0, False, False).one(spectra, generator).square())
    turned = centroid(Views(mask, 0.0, True, False).one(spectra, generator).square())
    mirrored = centroid(Views(mask, 0.0, False, True).one(spectra, generator).square())
    assert (still[:, 0] > 0).all() and still[:, 0].mean() > 4
    assert turned.mean(0).norm() < 1.5 and turned.norm(dim=1).mean() > 3
    assert 0.35 < (mirrored[:, 0] < 0).float().mean() < 0.65 and mirrored[:, 1].abs().mean() < 1.5
