"""The learnt centring: the symmetries it promises, and that it finds shifts."""

import pytest
import torch
from test_embedding_networks import images, mirrored, quarter_turn
from test_embedding_prepare import blobs

from siamese2d_engine.embedding import centring_network
from siamese2d_engine.embedding.centring import shift_spectra
from siamese2d_engine.embedding.centring_network import CentringNetwork, apply_centring, train_centring
from siamese2d_engine.embedding.prepare import crop_spectra, rotate, to_spectra


def test_found_centre_turns_and_mirrors_with_the_image():
    torch.manual_seed(0)
    network = CentringNetwork(24).eval()
    with torch.no_grad():
        x, y = network(images()).T
        assert x.abs().max() > 1e-3
        # quarter_turn moves content at (x, y) to (y, -x); mirrored moves it to (-x, y).
        torch.testing.assert_close(network(quarter_turn(images())), torch.stack([y, -x], 1), atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(network(mirrored(images())), torch.stack([-x, y], 1), atol=1e-5, rtol=1e-3)


def test_learnt_centring_undoes_shifts(monkeypatch):
    monkeypatch.setattr(centring_network, "STEPS", 80)
    monkeypatch.setattr(centring_network, "BATCH", 64)
    generator = torch.Generator().manual_seed(0)
    n, width = 200, 24
    angles = 2 * torch.pi * torch.rand(n, generator=generator)
    shifts = 1.5 * (2 * torch.rand(n, 2, generator=generator) - 1)
    shape = blobs(width, [(0, 0), (4, 1), (-3, 4)], 2.0).expand(n, -1, -1)
    drawing = rotate(shape, angles, torch.zeros(n, dtype=torch.bool))
    spectra = crop_spectra(to_spectra(drawing + 0.3 * torch.randn(drawing.shape, generator=generator)), width)
    network = train_centring(shift_spectra(spectra, shifts), 0, "cpu")
    still, moved = (apply_centring(network, s) for s in (spectra, shift_spectra(spectra, shifts)))
    # The same noisy image, centred from two positions, is the same image.
    error = (still - moved).abs().square().sum() / (spectra - shift_spectra(spectra, shifts)).abs().square().sum()
    assert error < 0.5
    again = train_centring(shift_spectra(spectra, shifts), 0, "cpu")
    for a, b in zip(network.parameters(), again.parameters()):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize("count", [3, 40])
def test_small_sets_train(count, monkeypatch):
    monkeypatch.setattr(centring_network, "STEPS", 3)
    spectra = crop_spectra(to_spectra(images(count)), 24)
    assert torch.isfinite(apply_centring(train_centring(spectra, 0, "cpu"), spectra).abs()).all()
