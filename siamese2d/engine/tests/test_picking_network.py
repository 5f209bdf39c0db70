"""The network's stated receptive field and grid, and that windows, tiles and whole micrographs score alike."""

import numpy as np
import pytest
import torch

from siamese2d_engine.errors import InputError
from siamese2d_engine.picking.candidates import find_candidates
from siamese2d_engine.picking.network import ARCHITECTURES, Architecture, Decoder, PickerNetwork
from siamese2d_engine.picking.scoring import score_map, score_window


def _network(name="small", seed=0):
    network = PickerNetwork(ARCHITECTURES[name])
    generator = torch.Generator().manual_seed(seed)
    network.initialise(generator)
    with torch.no_grad():
        network.head.weight.normal_(generator=generator)
    return network


def _image(height, width, seed=1):
    return np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_receptive_field_is_what_the_output_depends_on(name):
    network = _network(name)
    size = network.architecture.input_size(3)
    image = torch.zeros(1, size, size, requires_grad=True)
    network(image)[0, 1, 1].backward()
    rows = np.flatnonzero(image.grad[0].abs().sum(1).numpy())
    centre = network.architecture.margin + network.architecture.stride
    assert (rows[0], rows[-1]) == (centre - network.architecture.margin, centre + network.architecture.margin)
    assert network.architecture.receptive_field == 2 * network.architecture.margin + 1


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_dense_scores_equal_windowed_scores(name):
    network, image = _network(name), _image(61, 74)
    stride, margin = network.architecture.stride, network.architecture.margin
    dense = score_map(network, image)
    padded = np.pad(image, margin, mode="symmetric")
    for i, j in [(0, 0), (3, 7), (15, 20), (dense.shape[0] - 1, dense.shape[1] - 1)]:
        y, x = stride * i, stride * j
        window = padded[y:y + network.architecture.receptive_field, x:x + network.architecture.receptive_field]
        assert score_window(network, torch.from_numpy(window.copy())).item() == pytest.approx(dense[i, j], abs=1e-4)


def test_score_map_covers_the_image_on_the_grid():
    assert score_map(_network(), _image(41, 50)).shape == (21, 25)


def test_tiles_are_seamless():
    network, image = _network(), _image(150, 131)
    whole, tiled = (score_map(network, image, tile=t) for t in (10_000, 17))
    np.testing.assert_allclose(tiled, whole, atol=1e-4)
    a, b = (find_candidates(network, image, 0.0, tile=t) for t in (10_000, 17))
    assert len(a) > 10
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_scores_turn_with_the_image():
    network, image = _network(), _image(81, 81)
    turned = score_map(network, np.rot90(image).copy())
    np.testing.assert_allclose(turned, np.rot90(score_map(network, image)), atol=1e-4)


def test_architecture_survives_the_header():
    for architecture in ARCHITECTURES.values():
        assert Architecture.from_dict(architecture.as_dict()) == architecture


@pytest.mark.parametrize("change", [{"kernels": [3]}, {"strides": "x"}, {"dilations": [0] * 6}])
def test_inconsistent_architecture_is_refused(change):
    with pytest.raises(InputError):
        Architecture.from_dict({**ARCHITECTURES["small"].as_dict(), **change})


def test_first_scores_are_undecided():
    network = PickerNetwork(ARCHITECTURES["small"])
    network.initialise(torch.Generator().manual_seed(0))
    assert network(torch.randn(2, 41, 41)).abs().max().item() == 0


def test_decoder_returns_windows():
    assert Decoder(32, 21)(torch.zeros(5, 32)).shape == (5, 21, 21)
