"""Made-up proteins, maps from files, noise and junk."""

import mrcfile
import numpy as np
import pytest
import torch

from siamese2d_engine.ctf import ctf_grid
from siamese2d_engine.errors import InputError
from siamese2d_engine.simulate.junk import CarbonEdge, IceBlob
from siamese2d_engine.simulate.noise import noise_power, shape_noise, slow_background, squared_frequency
from siamese2d_engine.simulate.optics import random_ctf
from siamese2d_engine.simulate.volumes import make_proteins, read_volume, sample_density

DIAMETER = 160.0


@pytest.fixture(scope="module")
def proteins():
    return make_proteins(4, DIAMETER, seed=3)


def test_proteins_have_the_wanted_sizes_about_their_centre_of_mass(proteins):
    assert proteins[0].diameter == DIAMETER
    assert len({protein.diameter for protein in proteins}) == 4
    for protein in proteins:
        np.testing.assert_allclose(np.average(protein.positions, axis=0, weights=protein.weights), 0, atol=1e-6)
        reach = np.linalg.norm(protein.positions, axis=1).max() + 2 * protein.sigma
        assert reach == pytest.approx(protein.diameter / 2)


def test_chains_keep_clear_of_themselves(proteins):
    for protein in proteins:
        gaps = np.linalg.norm(protein.positions[:, None] - protein.positions, axis=2)
        np.fill_diagonal(gaps, np.inf)
        nearest = gaps.min(axis=1)
        # Every pseudo-atom has a neighbour one step off, none nearer than 0.85 steps.
        assert nearest.min() > 0.84 * np.percentile(nearest, 99)
        assert len(protein.positions) > 100


def test_the_same_seed_makes_the_same_proteins(proteins):
    again = make_proteins(2, DIAMETER, seed=3)
    np.testing.assert_array_equal(again[1].positions, proteins[1].positions)
    assert make_proteins(1, DIAMETER, seed=4)[0].positions[:50].tolist() != proteins[0].positions[:50].tolist()


def test_no_protein_is_symmetric(proteins):
    """Low correlation with itself turned by half a turn about any of 40 axes."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(40, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for protein in proteins:
        turned = [protein.positions @ (2 * np.outer(axis, axis) - np.eye(3)) for axis in axes]
        assert max(overlap(protein.positions, other, 8.0) for other in turned) < 0.93


def test_proteins_are_comparable_in_mass(proteins):
    masses = sorted(float(sample_density(protein, 8.0).density.sum()) for protein in proteins)
    assert masses[-1] < 3 * masses[0]


def overlap(one, other, width):
    """Correlation of two clouds of points, each point a Gaussian of this width."""

    def product(a, b):
        a, b = a[::5], b[::5]
        return np.exp(-np.square(a[:, None] - b).sum(axis=2) / (4 * width**2)).sum()

    return product(one, other) / np.sqrt(product(one, one) * product(other, other))


def test_sampled_density_is_the_sum_of_gaussians(proteins):
    protein = proteins[3]
    volume = sample_density(protein, 5.0)
    box = len(volume.density)
    sigma = max(protein.sigma, 4.0)
    rng = np.random.default_rng(1)
    voxels = rng.integers(box // 4, 3 * box // 4, size=(40, 3))
    places = (voxels - box // 2) * 5.0
    exact = [
        np.sum(protein.weights * np.exp(-np.square(protein.positions - p).sum(1) / (2 * sigma**2))) for p in places
    ]
    values = volume.density[voxels[:, 2], voxels[:, 1], voxels[:, 0]]
    np.testing.assert_allclose(values / values.max(), np.array(exact) / max(exact), atol=1e-5)
    assert np.abs(volume.density[0]).max() < 1e-3  # the margin is empty


def test_maps_are_read_into_a_cube(tmp_path):
    density = -np.ones((20, 24, 18), dtype=np.float32)
    density[10, 12, 9] = 5.0
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(density)
        file.voxel_size = 3.0
    volume = read_volume(tmp_path / "map.mrc", 1.0)
    assert volume.density.shape == (24, 24, 24) and volume.voxel_size == pytest.approx(3.0) and volume.name == "map"
    assert np.unravel_index(volume.density.argmax(), (24, 24, 24)) == (12, 12, 12)
    assert volume.density.min() == 0.0


def test_a_map_without_voxel_size_takes_the_given_one(tmp_path):
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(np.random.default_rng(0).random((16, 16, 16), dtype=np.float32))
        file.voxel_size = 0.0
    assert read_volume(tmp_path / "map.mrc", 4.5).voxel_size == 4.5


@pytest.mark.parametrize(
    "data, words",
    [
        (np.ones((30, 30), dtype=np.float32), "not a volume"),
        (np.full((16, 16, 16), np.nan, dtype=np.float32), "not finite"),
        (np.full((16, 16, 16), -1, dtype=np.float32), "no positive density"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_bad_maps_are_named(tmp_path, data, words):
    with mrcfile.new(tmp_path / "bad.mrc") as file:
        file.set_data(data)
    with pytest.raises(InputError, match=f"bad.mrc.*{words}"):
        read_volume(tmp_path / "bad.mrc", 4.0)


def test_files_that_are_no_maps(tmp_path):
    with pytest.raises(InputError, match="missing.mrc: the file does not exist"):
        read_volume(tmp_path / "missing.mrc", 4.0)
    (tmp_path / "text.mrc").write_text("hello")
    with pytest.raises(InputError, match="text.mrc: can't be read"):
        read_volume(tmp_path / "text.mrc", 4.0)


@pytest.mark.parametrize("height, width", [(96, 128), (97, 99)])
def test_shaped_noise_has_its_spectrum_and_unit_variance(height, width):
    generator = torch.Generator().manual_seed(0)
    power = 0.2 + 1 / (1 + 400 * squared_frequency(height, width, 1.0))
    noise = shape_noise(torch.randn(60, height, width, generator=generator), power)
    assert noise.var().item() == pytest.approx(1.0, abs=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=1e-6)
    measured = torch.fft.rfft2(noise).abs().square().mean(dim=0)
    ratio = (measured / power)[1:-1, 1:-1]
    low, high = ratio[:6, :6].mean(), ratio[20:40, 20:40].mean()
    assert (low / high).item() == pytest.approx(1.0, abs=0.08)


def test_noise_has_thon_rings():
    ctf = ctf_grid(random_ctf(1, np.random.default_rng(0)), 64, 4.0)[0]
    s2 = squared_frequency(64, 64, 4.0)
    ring = (s2 > 0.03**2) & (s2 < 0.09**2)
    excess = noise_power(s2, ctf) - noise_power(s2, torch.zeros_like(ctf))
    assert np.corrcoef(excess[ring].numpy(), ctf[ring].square().numpy())[0, 1] > 0.8


def test_the_background_is_slow():
    background = slow_background(128, 100, torch.Generator().manual_seed(1))
    assert background.shape == (128, 100)
    assert background.std().item() == pytest.approx(1.0, abs=1e-3)
    assert background.diff(dim=0).abs().max() < 0.15 and background.diff(dim=1).abs().max() < 0.2


def test_ice_is_painted_where_it_is():
    image = torch.zeros(80, 120)
    IceBlob(x=90.0, y=30.0, radius=12.0, aspect=0.5, angle=0.0, strength=2.0).paint(image)
    assert image[30, 90] > 1.9 and image[30, 100] > 1.0  # long axis along x
    assert image[41, 90] < 0.5 and image[70, 20] == 0.0


def test_ice_may_stick_out_of_the_image():
    image = torch.zeros(40, 40)
    for x, y in [(-3.0, 5.0), (45.0, 45.0), (500.0, 500.0), (-200.0, -200.0)]:
        IceBlob(x=x, y=y, radius=10.0, aspect=1.0, angle=0.3, strength=1.0).paint(image)
    assert image[5, 0] > 0.8 and image.isfinite().all()


def test_carbon_lies_beyond_its_edge():
    edge = CarbonEdge(angle=0.0, offset=20.0, bend=0.0, strength=1.0, texture=0.5)
    image = torch.zeros(100, 100)
    edge.paint(image, torch.zeros(100, 100))
    assert image[:, 80:].mean() > 0.95 and image[:, :55].abs().max() < 0.01
    assert (
        edge.depth(torch.tensor([30.0]), torch.tensor([0.0])) < 0 < edge.depth(torch.tensor([0.0]), torch.tensor([0.0]))
    )
