"""The CTF against its formula written out by hand in float64."""

import math

import numpy as np
import pytest
import torch

from siamese2d_engine.ctf import CtfParameters, ctf_at, ctf_grid, frequency_grid, wavelength
from siamese2d_engine.errors import InputError


def by_hand(kx, ky, u, v, angle, kilovolts, cs_mm, contrast, shift):
    """Mindell & Grigorieff 2003, eqs. 3-5, for one point; overall sign so that bright particles are positive."""
    lam = 12.2643247 / math.sqrt(kilovolts * 1e3 * (1 + 0.978466e-6 * kilovolts * 1e3))
    s = math.hypot(kx, ky)
    defocus = 0.5 * (u + v + (u - v) * math.cos(2 * (math.atan2(ky, kx) - angle)))
    chi = math.pi * lam * s**2 * (defocus - 0.5 * lam**2 * s**2 * cs_mm * 1e7) + shift
    return math.sqrt(1 - contrast**2) * math.sin(chi) + contrast * math.cos(chi)


def parameters(n=1, **changed):
    values = dict(
        defocus_u=18000.0,
        defocus_v=16500.0,
        astigmatism_angle=0.4,
        voltage=300.0,
        cs=2.7,
        amplitude_contrast=0.1,
        phase_shift=0.0,
    )
    values.update(changed)
    values["defocus_u"] = np.broadcast_to(values["defocus_u"], n)
    return CtfParameters(**values)


def test_wavelength_from_the_constants_of_nature():
    planck, mass, charge, light = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    energy = charge * np.array([100e3, 200e3, 300e3])
    expected = planck / np.sqrt(2 * mass * energy * (1 + energy / (2 * mass * light**2))) * 1e10
    np.testing.assert_allclose(wavelength(np.array([100.0, 200.0, 300.0])), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 1.2])
@pytest.mark.parametrize("contrast", [0.0, 0.07, 1.0])
def test_every_point_equals_the_formula(shift, contrast):
    rng = np.random.default_rng(0)
    kx, ky = rng.uniform(-0.3, 0.3, size=(2, 40))
    images = [
        (18000.0, 16500.0, 0.4, 300.0, 2.7),
        (9000.0, 9900.0, -1.1, 200.0, 2.0),
        (-3000.0, -3000.0, 0.0, 100.0, 0.01),
    ]
    u, v, angle, kilovolts, cs = np.array(images).T
    ours = ctf_at(CtfParameters(u, v, angle, kilovolts, cs, contrast, shift), torch.as_tensor(kx), torch.as_tensor(ky))
    expected = [[by_hand(x, y, *image, contrast, shift) for x, y in zip(kx, ky)] for image in images]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-9)


def test_single_precision_is_enough_at_high_resolution():
    grid = ctf_grid(parameters(), 256, 1.0)
    exact = ctf_grid(parameters(), 256, 1.0, dtype=torch.float64)
    assert grid.dtype == torch.float32
    np.testing.assert_allclose(grid.numpy(), exact.numpy(), atol=5e-4)


def test_particles_are_bright_for_underfocus():
    centre = ctf_at(parameters(amplitude_contrast=0.1), torch.zeros(1), torch.zeros(1))
    assert centre.item() == pytest.approx(0.1)
    first_ring = ctf_at(parameters(amplitude_contrast=0.0), torch.tensor([0.02]), torch.zeros(1))
    assert first_ring.item() > 0.3


def test_grid_has_the_layout_of_rfft():
    box, pixel_size = 10, 2.5
    grid = ctf_grid(parameters(2), box, pixel_size, dtype=torch.float64)
    assert grid.shape == (2, 10, 6)
    ky, kx = np.fft.fftfreq(box, pixel_size), np.fft.rfftfreq(box, pixel_size)
    for row, column in [(0, 0), (3, 4), (8, 2), (9, 5)]:
        point = by_hand(kx[column], ky[row], 18000.0, 16500.0, 0.4, 300.0, 2.7, 0.1, 0.0)
        assert grid[1, row, column].item() == pytest.approx(point, abs=1e-9)
    frequencies = frequency_grid(box, pixel_size)
    np.testing.assert_allclose(frequencies[0][4].numpy(), kx, rtol=1e-6)
    np.testing.assert_allclose(frequencies[1][:, 2].numpy(), ky, rtol=1e-6)


def test_astigmatism_turns_with_its_angle():
    angle = torch.linspace(0, 2 * math.pi, 50, dtype=torch.float64)
    kx, ky, turn = 0.08 * torch.cos(angle), 0.08 * torch.sin(angle), 0.7
    turned_x, turned_y = 0.08 * torch.cos(angle + turn), 0.08 * torch.sin(angle + turn)
    before = ctf_at(parameters(astigmatism_angle=0.4), kx, ky)
    after = ctf_at(parameters(astigmatism_angle=0.4 + turn), turned_x, turned_y)
    np.testing.assert_allclose(before.numpy(), after.numpy(), atol=1e-10)
    assert before.std() > 0.05  # it does depend on the direction


def test_defocus_u_lies_along_the_astigmatism_angle():
    along = ctf_at(parameters(), torch.tensor(0.05 * math.cos(0.4)), torch.tensor(0.05 * math.sin(0.4)))
    round_one = ctf_at(parameters(defocus_v=18000.0), torch.tensor(0.05), torch.tensor(0.0))
    assert along.item() == pytest.approx(round_one.item(), abs=1e-5)


def test_single_numbers_are_repeated_and_subsets_keep_their_rows():
    three = parameters(3, defocus_u=[1e4, 2e4, 3e4])
    assert len(three) == 3 and three.voltage.shape == (3,) and three.voltage.dtype == np.float64
    chosen = three.subset([2, 0])
    np.testing.assert_array_equal(chosen.defocus_u, [3e4, 1e4])
    np.testing.assert_array_equal(three.subset(three.defocus_u > 1.5e4).defocus_u, [2e4, 3e4])


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"voltage": 0.0}, "voltage"),
        ({"amplitude_contrast": 10.0}, "amplitude contrast"),
        ({"defocus_v": np.ones(2)}, "one value for each image"),
    ],
)
def test_bad_parameters_are_named(changed, words):
    with pytest.raises(InputError, match=words):
        parameters(3, **changed)
