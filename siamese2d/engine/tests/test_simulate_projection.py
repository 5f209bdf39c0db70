"""Orientations and Fourier slices against hand-worked rotations and line integrals in real space."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from siamese2d_engine.simulate.orientations import random_angles, rotation_matrices, view_directions
from siamese2d_engine.simulate.projection import FourierVolume, shift_ramp
from siamese2d_engine.simulate.volumes import read_volume


def relion_matrix(rot, tilt, psi):
    """Written out as in Heymann, Chagoyen & Belnap 2005, J. Struct. Biol. 151, 196 (the convention of the field)."""
    ca, sa, cb, sb, cg, sg = np.cos(rot), np.sin(rot), np.cos(tilt), np.sin(tilt), np.cos(psi), np.sin(psi)
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def gaussians(places, sigma, box, voxel_size):
    """Sum of Gaussians of unit integral at `places` (x, y, z), on a grid with its origin at voxel box // 2."""
    axis = (np.arange(box) - box // 2) * voxel_size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    density = [np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * sigma**2)) for a, b, c in places]
    return sum(density) / (2 * np.pi * sigma**2) ** 1.5


def line_integral(places, rotation, sigma, box, pixel_size):
    """The same Gaussians integrated along the viewing direction, in closed form."""
    axis = (np.arange(box) - box // 2) * pixel_size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    projected = np.asarray(places) @ rotation.T
    images = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for a, b, _ in projected]
    return sum(images) / (2 * np.pi * sigma**2)


def projections(volume, angles, box, pixel_size):
    return torch.fft.irfft2(volume.slices(rotation_matrices(angles), box, pixel_size), s=(box, box)).numpy()


PLACES = [(20.0, 5.0, -12.0), (-15.0, 22.0, 8.0), (3.0, -18.0, 25.0), (-8.0, -9.0, -20.0), (0.0, 0.0, 0.0)]


def test_matrices_are_relions():
    angles = random_angles(20, np.random.default_rng(0))
    np.testing.assert_allclose(rotation_matrices(angles), [relion_matrix(*row) for row in angles], atol=1e-12)


def test_rotations_by_hand():
    quarter = np.pi / 2
    about_z = rotation_matrices([[quarter, 0, 0]])[0]
    np.testing.assert_allclose(about_z @ [1, 0, 0], [0, -1, 0], atol=1e-12)
    tilted = rotation_matrices([[0, quarter, 0]])[0]
    np.testing.assert_allclose(tilted @ [0, 0, 1], [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(tilted @ [1, 0, 0], [0, 0, 1], atol=1e-12)  # now along the beam


def test_the_view_direction_is_the_axis_of_integration():
    angles = random_angles(10, np.random.default_rng(1))
    views = view_directions(angles[:, 0], angles[:, 1])
    np.testing.assert_allclose(views, rotation_matrices(angles)[:, 2], atol=1e-12)
    # Two points behind each other along the view fall on one pixel, the centre; along another view they do not.
    for angle, view in zip(angles, views):
        volume = FourierVolume(gaussians([20 * view, -20 * view], 4.0, 32, 2.0), 2.0)
        image, other = projections(volume, [angle, angle + [0, 1.0, 0]], 32, 2.0)
        assert image[16, 16] > 0.95 * 2 / (2 * np.pi * 4.0**2)
        assert other[16, 16] < 0.2 * image[16, 16]


def test_psi_turns_as_the_alignment_undoes():
    """x' = R(psi) (x + origin) takes an image at psi to psi = 0."""
    rot, tilt, psi = 0.3, 1.1, 0.8
    turn = np.array([[np.cos(psi), -np.sin(psi)], [np.sin(psi), np.cos(psi)]])
    turned, straight = rotation_matrices([[rot, tilt, psi], [rot, tilt, 0.0]])
    for place in PLACES:
        np.testing.assert_allclose(turn @ (turned @ place)[:2], (straight @ place)[:2], atol=1e-9)


def test_random_orientations_are_uniform():
    angles = random_angles(20000, np.random.default_rng(2))
    matrices = rotation_matrices(angles)
    np.testing.assert_allclose(matrices.mean(axis=0), np.zeros((3, 3)), atol=0.02)
    views = view_directions(angles[:, 0], angles[:, 1])
    np.testing.assert_allclose(views.T @ views / len(views), np.eye(3) / 3, atol=0.01)


@pytest.mark.parametrize(
    "side, box, pixel_size", [(40, 40, 2.0), (41, 40, 2.0), (40, 48, 2.0), (40, 33, 2.5), (40, 90, 1.1)]
)
def test_slices_are_line_integrals(side, box, pixel_size):
    angles = random_angles(5, np.random.default_rng(3))
    images = projections(FourierVolume(gaussians(PLACES, 4.0, side, 2.0), 2.0), angles, box, pixel_size)
    exact = np.array([line_integral(PLACES, r, 4.0, box, pixel_size) for r in rotation_matrices(angles)])
    assert np.abs(images - exact).max() < 0.025 * exact.max()
    assert np.corrcoef(images.ravel(), exact.ravel())[0, 1] > 0.9995


def test_more_padding_is_more_exact():
    angles = random_angles(4, np.random.default_rng(4))
    density = gaussians(PLACES, 4.0, 36, 2.0)
    exact = np.array([line_integral(PLACES, r, 4.0, 36, 2.0) for r in rotation_matrices(angles)])
    errors = [
        np.abs(projections(FourierVolume(density, 2.0, padding), angles, 36, 2.0) - exact).max()
        for padding in (1, 2, 3)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_the_integral_of_the_density_is_kept():
    images = projections(
        FourierVolume(gaussians(PLACES, 4.0, 40, 2.0), 2.0), random_angles(3, np.random.default_rng(5)), 60, 1.5
    )
    # Interpolation leaves faint copies of the volume around it, most of all at zero frequency: a few percent.
    np.testing.assert_allclose(images.sum(axis=(1, 2)) * 1.5**2, len(PLACES), rtol=0.05)


def test_shifts_move_content_towards_larger_x_and_y():
    image = torch.zeros(12, 12)
    image[4, 3] = 1
    smooth = torch.fft.rfft2(image) * shift_ramp([[0.0, 0.0]], 12) * torch.exp(-4 * torch.fft.rfftfreq(12) ** 2)
    moved = torch.fft.irfft2(torch.fft.rfft2(image) * shift_ramp([[2.0, 5.0]], 12), s=(12, 12))[0]
    assert moved.argmax().item() == (4 + 5) * 12 + 3 + 2
    torch.testing.assert_close(torch.fft.irfft2(smooth, s=(12, 12))[0, 4].argmax(), torch.tensor(3))


def test_real_maps_agree_with_projection_in_real_space():
    """Rotate the map by interpolation and sum along z: an independent way, itself good to about a percent."""
    if "SIAMESE2D_TEST_DATA" not in os.environ:
        pytest.skip("SIAMESE2D_TEST_DATA is not set")
    volume = read_volume(Path(os.environ["SIAMESE2D_TEST_DATA"]) / "maps" / "clean70SRibosome_vol_65p.mrc", 5.0)
    box = len(volume.density)
    angles = random_angles(3, np.random.default_rng(6))
    images = projections(FourierVolume(volume.density, volume.voxel_size), angles, box, volume.voxel_size)
    for image, rotation in zip(images, rotation_matrices(angles)):
        axis = np.arange(box) - box // 2
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        places = np.stack([x, y, z], axis=-1) @ rotation + box // 2  # rotation^T applied: image frame to volume
        turned = map_coordinates(volume.density, places[..., ::-1].transpose(3, 0, 1, 2), order=3)
        expected = turned.sum(axis=0) * volume.voxel_size
        assert np.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.999
        assert np.abs(image - expected).max() < 0.03 * expected.max()
        assert image.sum() == pytest.approx(expected.sum(), rel=0.04)
