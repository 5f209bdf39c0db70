"""Networks and features: shapes and the symmetries they promise."""

import numpy as np
import pytest
import torch

from siamese2d_engine.embedding.features import invariant_features, pca_features
from siamese2d_engine.embedding.networks import NETWORKS, OriginalNetwork, SteerableNetwork, build_network
from siamese2d_engine.embedding.steerable import coefficients, steerable_basis, synthesis_matrices
from siamese2d_engine.errors import InputError


def images(n=6, width=24, seed=0):
    """Smooth random images that vanish at the border and in the row and column without a mirror partner."""
    axis = torch.arange(width) - width // 2
    window = torch.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * (width / 6) ** 2)) 
    window = window * (axis[:, None] > -width / 2) * (axis[None] > -width / 2)
    noise = torch.randn(n, width, width, generator=torch.Generator().manual_seed(seed))
    return noise * window


def quarter_turn(x):
    """Rotation by 90 degrees about pixel width // 2, exact on the pixel grid: x'[y, x] = x[-x, y]."""
    turned = torch.zeros_like(x)
    turned[:, 1:, 1:] = torch.rot90(x[:, 1:, 1:], 1, dims=(1, 2))
    return turned


def mirrored(x):
    flipped = torch.zeros_like(x)
    flipped[:, :, 1:] = x[:, :, 1:].flip(2)
    return flipped


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = SteerableNetwork(24, dimensions=7)
    with torch.no_grad():
        # Batch statistics as after training, so that evaluation mode is no identity.
        for _ in range(3):
            net.train()(images(40))
    return net.eval()


def test_basis_is_steerable_with_unit_norm():
    basis = steerable_basis(24, 5, 4)
    centres = (torch.arange(5) + 0.5) * 11 / 5
    resolved = (torch.arange(5)[:, None] <= torch.pi * centres).float()
    assert resolved.sum() == 24
    torch.testing.assert_close(basis.square().sum((0, 1)), resolved)
    before, after = (coefficients(x, basis) for x in (images(), quarter_turn(images())))
    # rot90 turns towards -y: the phase is exp(+ i m pi / 2) in the convention exp(-i m phi).
    phase = torch.exp(1j * torch.pi / 2 * torch.arange(5))[None, :, None]
    torch.testing.assert_close(after, before * phase, atol=1e-4, rtol=0)


def test_synthesis_is_the_fourier_sum():
    c = np.random.default_rng(0).normal(size=(4, 2)) @ [1, 1j]
    c[0] = c[0].real
    matrices = synthesis_matrices(3, 16).double().numpy()
    values = c.real @ matrices[0] + c.imag @ matrices[1]
    angle = 2 * np.pi * np.arange(16) / 16
    expected = c[0].real + 2 * sum((c[m] * np.exp(1j * m * angle)).real for m in (1, 2, 3))
    np.testing.assert_allclose(values, expected, atol=2e-5)


def test_steerable_network_ignores_rotation_and_mirroring(network):
    with torch.no_grad():
        vectors = network(images())
        torch.testing.assert_close(network(quarter_turn(images())), vectors, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(network(mirrored(images())), vectors, atol=1e-3, rtol=1e-3)
        assert (vectors[0] - vectors[1]).norm() > 0.1 * vectors[0].norm()


def test_without_mirror_the_network_tells_hands_apart():
    torch.manual_seed(0)
    network = SteerableNetwork(24, dimensions=7, mirror=False).eval()
    with torch.no_grad():
        vectors = network(images())
        torch.testing.assert_close(network(quarter_turn(images())), vectors, atol=1e-4, rtol=1e-3)
        assert (network(mirrored(images())) - vectors).norm() > 1e-2 * vectors.norm()


def test_original_network_has_its_layers():
    network = OriginalNetwork(24, 20)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size) for c in convolutions] == [
        (1, 4, (3, 3)), (4, 8, (3, 3)), (8, 8, (3, 3))]
    dense = [m.out_features for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert dense == [500, 100, 20]
    assert network(images()).shape == (6, 20)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_built_by_name_and_learn(name):
    network = build_network(name, {"working_box": 24, "dimensions": 5})
    network(images()).square().sum().backward()
    learning = [p for p in network.parameters() if p.requires_grad]
    assert learning and all(p.grad is not None and torch.isfinite(p.grad).all() for p in learning)


def test_unknown_networks_are_refused():
    with pytest.raises(InputError, match="unknown to this version"):
        build_network("resnet1000", {})
    with pytest.raises(InputError, match="parameters unknown"):
        build_network("original", {"working_box": 24, "dimensions": 5, "depth": 3})


def test_invariant_features_ignore_rotation_and_mirroring():
    expected = invariant_features(images())
    torch.testing.assert_close(invariant_features(quarter_turn(images())), expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(invariant_features(mirrored(images())), expected, atol=1e-4, rtol=1e-3)


def test_pca_features_are_the_principal_components():
    x = images(30)
    flat = x.flatten(1).double().numpy()
    flat -= flat.mean(0)
    u, s, _ = np.linalg.svd(flat, full_matrices=False)
    features = pca_features(x, 4).numpy()
    np.testing.assert_allclose(np.abs(features[:, ::-1]), np.abs(u[:, :4] * s[:4]), atol=1e-3)
