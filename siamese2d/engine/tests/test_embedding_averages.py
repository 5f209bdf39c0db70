"""Averages of aligned classes as filters: their responses, the centres they find, and networks that start from them."""

import numpy as np
import pytest
import torch
from test_embedding_prepare import blobs, particle_set
from test_embedding_stage import SPECIES, separation

from siamese2d_engine.cli.main import main
from siamese2d_engine.embedding import centring_network
from siamese2d_engine.embedding.averages import average_centring
from siamese2d_engine.embedding.centring import shift_spectra
from siamese2d_engine.embedding.inference import embed, load_embedding_model
from siamese2d_engine.embedding.prepare import rotate, soft_mask, to_images, to_spectra
from siamese2d_engine.embedding.steerable import coefficients
from siamese2d_engine.io.particles import read_particles

WIDTH = 24


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(centring_network, "STEPS", 20)
    monkeypatch.setattr(centring_network, "BATCH", 32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def shapes():
    return torch.stack([blobs(WIDTH, centres, 2.0) for centres in SPECIES])


def turned(images, seed=0):
    """Images in random rotations, some mirrored."""
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * torch.pi * torch.rand(len(images), generator=generator)
    return rotate(images, angles, torch.rand(len(images), generator=generator) < 0.5)


def centring_of_shapes():
    labels = torch.arange(30) % 3
    unmoved = torch.zeros(len(labels), 2), torch.zeros(len(labels)), torch.zeros(len(labels), dtype=torch.bool)
    return average_centring(to_spectra(shapes()[labels]), labels, unmoved)


def test_each_shape_fits_its_own_average_best_in_any_rotation():
    labels = torch.arange(60) % 3
    images = turned(shapes()[labels]) * soft_mask(WIDTH, WIDTH / 2 - 1)
    unit = images / images.flatten(1).norm(dim=1)[:, None, None]
    fits = centring_of_shapes().responses(unit)
    torch.testing.assert_close(fits.argmax(dim=1), labels)
    # Filters of unit norm: nothing fits better than its own image.
    assert (fits.amax(dim=1) < 1.001).all() and (fits.amax(dim=1) > 0.85).all()


def test_a_response_is_a_correlation_with_the_average():
    torch.manual_seed(0)
    images = torch.randn(5, WIDTH, WIDTH)
    centring = centring_of_shapes()
    real, imaginary = centring.filters.analyse(images)
    at_zero = centring.filters(real, imaginary)[:, :, 0]
    basis = centring.filters.basis
    known = coefficients(shapes() * soft_mask(WIDTH, WIDTH / 2 - 1), basis)
    both = torch.where(torch.arange(known.shape[1]) > 0, 2.0, 1.0)[:, None]
    products = (coefficients(images, basis)[:, None] * known.conj()[None] * both).real.sum(dim=(-2, -1))
    torch.testing.assert_close((at_zero / products).std(dim=0) / (at_zero / products).mean(dim=0), torch.zeros(3),
                               atol=1e-3, rtol=0)
    # Each filter has unit norm: its response to white noise of variance 1 has variance 1.
    many = torch.randn(4000, WIDTH, WIDTH)
    assert centring.filters(*centring.filters.analyse(many))[:, :, 0].std(dim=0) == pytest.approx(1, abs=0.05)


def test_small_shifts_are_undone():
    labels = torch.arange(60) % 3
    spectra = to_spectra(turned(shapes()[labels]))
    generator = torch.Generator().manual_seed(1)
    shifts = torch.randint(-1, 2, (60, 2), generator=generator).float()
    found = centring_of_shapes().centre(shift_spectra(spectra, shifts))
    error = (to_images(found) - to_images(spectra)).flatten(1).norm(dim=1)
    before = (to_images(shift_spectra(spectra, shifts)) - to_images(spectra)).flatten(1).norm(dim=1)
    moved = shifts.abs().sum(dim=1) > 0
    assert (error[moved] < 0.2 * before[moved]).float().mean() > 0.9


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Particles of three shapes, turned and off-centre, with the alignment that undoes it."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(60) % 3
    generator = torch.Generator().manual_seed(0)
    psi = 360 * torch.rand(60, generator=generator)
    shifts = 2 * torch.rand(60, 2, generator=generator) - 1
    # Content of the aligned image, turned back and moved back: x = R(-psi) x' - origin.
    images = rotate(shapes()[labels], -torch.deg2rad(psi), torch.zeros(60, dtype=torch.bool))
    images = to_images(shift_spectra(to_spectra(images), -shifts))
    images = images + 0.3 * torch.randn(images.shape, generator=generator)
    origins = (3.0 * shifts).numpy()
    particle_set(tmp_path, images, rlnClassNumber=labels + 1, rlnAnglePsi=psi.numpy(), rlnOriginXAngst=origins[:, 0],
                 rlnOriginYAngst=origins[:, 1], rlnIsFlip=np.zeros(60, int))
    return tmp_path, labels


OPTIONS = ("--working-box", "24", "--dimensions", "6", "--batch-size", "32", "--threads", "1", "--epochs", "4")


def train(*arguments):
    return main(["train", "--particles", "particles.star", "--out", "out", *OPTIONS, *arguments])


def test_new_particles_without_alignment_group_as_the_classes(folder, capsys):
    path, labels = folder
    assert train("--preset", "aligned-classes") == 0
    model = load_embedding_model("out/embedding.safetensors")
    assert model.averages.classes == 3 and not model.aligned
    assert (model.network.filters.weights.shape[-1], model.network_parameters["harmonics"]) == (64, 14)
    again = embed("out/embedding.safetensors", read_particles("particles.star"), report=lambda message: None)
    np.testing.assert_allclose(again, np.load("out/embeddings.npy"), atol=2e-5)
    new = np.arange(45) % 3
    images = turned(shapes()[new], seed=5)
    images = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(6))
    particles = particle_set(path / "new", images)
    messages = []
    vectors = embed("out/embedding.safetensors", particles, report=messages.append)
    assert separation(vectors, new) > 3
    assert not any("centred only" in message for message in messages)


def test_a_model_with_averages_is_gone_on_from(folder):
    assert train("--preset", "aligned-classes", "--epochs", "1") == 0
    assert main(["train", "--particles", "particles.star", "--out", "second", *OPTIONS, "--model",
                 "out/embedding.safetensors"]) == 0
    first, second = (load_embedding_model(f"{out}/embedding.safetensors") for out in ("out", "second"))
    torch.testing.assert_close(first.averages.filters.weights, second.averages.filters.weights)


def test_averages_need_an_alignment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    particle_set(tmp_path, turned(shapes()[torch.arange(60) % 3]), rlnClassNumber=np.arange(60) % 3 + 1)
    assert train("--preset", "aligned-classes") == 2
    message = capsys.readouterr().err
    assert "particles.star: no columns rlnAnglePsi" in message and "--filters random" in message
    assert train("--preset", "aligned-classes", "--no-centre", "--overwrite") == 2
    assert "--no-centre: averages centre particles" in capsys.readouterr().err
