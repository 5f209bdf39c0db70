"""Features that need no training: what contrastive rounds start from, and what a network must beat."""

import torch
from torch import Tensor

from siamese2d_engine.embedding.steerable import coefficients, steerable_basis

RINGS, HARMONICS = 12, 10
CHUNK = 2048


def invariant_features(images: Tensor) -> Tensor:
    """Moduli of the steerable coefficients, ``(n, 12 * 11)``: unchanged by rotation in the plane and by mirroring."""
    basis = steerable_basis(images.shape[-1], RINGS, HARMONICS).to(images.device)
    return torch.cat([coefficients(chunk, basis).abs().flatten(1) for chunk in images.split(CHUNK)])


def pca_features(images: Tensor, components: int) -> Tensor:
    """The first principal components ``(n, components)`` of pixels; they mix views with rotations in the plane."""
    pixels = images.flatten(1) - images.flatten(1).mean(dim=0)
    covariance = pixels.T @ pixels / len(pixels)
    _, directions = torch.linalg.eigh(covariance.double())
    return pixels @ directions[:, -components:].float()
