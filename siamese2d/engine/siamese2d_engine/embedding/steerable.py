"""Steerable functions on small images: rotation of the image is a phase of its coefficients."""

import math

import torch
from torch import Tensor, nn


def steerable_basis(width: int, rings: int, harmonics: int) -> Tensor:
    """Radial hat functions times ``exp(-i m phi)``, each of unit norm over the pixels.

    Functions that turn faster than pixels can follow at their radius (m > pi r) are zero, and so are the functions with
    m > 0 at the centre pixel, which has no angle.

    Parameters
    ----------
    width
        Of the square images; the centre is pixel ``width // 2``.
    rings
        Number of radial functions, evenly spaced up to ``width / 2 - 1``.
    harmonics
        Largest angular order m.

    Returns
    -------
    Tensor
        ``(2, width * width, harmonics + 1, rings)``, real and imaginary part.
    """
    axis = torch.arange(width, dtype=torch.float64) - width // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    radius, angle = torch.hypot(x, y).flatten(), torch.atan2(y, x).flatten()
    step = (width / 2 - 1) / rings
    centres = (torch.arange(rings) + 0.5) * step
    hats = (1 - (radius[:, None] - centres).abs() / step).clamp_min(0)
    phases = torch.arange(harmonics + 1) * angle[:, None]
    functions = torch.stack([torch.cos(phases), -torch.sin(phases)])[..., None] * hats[None, :, None, :]
    orders = torch.arange(harmonics + 1)
    functions = functions * ((orders == 0) | (radius[:, None] > 0))[None, :, :, None]
    functions = functions * (orders[:, None] <= torch.pi * centres)
    norm = functions.square().sum(dim=(0, 1), keepdim=True).sqrt()
    return (functions / norm.clamp_min(1e-12)).float()


def coefficients(images: Tensor, basis: Tensor) -> Tensor:
    """Complex coefficients ``(n, harmonics + 1, rings)`` of images ``(n, w, w)``."""
    real, imaginary = torch.einsum("np,cpmq->cnmq", images.flatten(1), basis)
    return torch.complex(real, imaginary)


def synthesis_matrices(harmonics: int, angles: int) -> Tensor:
    """Matrices ``(2, harmonics + 1, angles)`` that turn real and imaginary parts into values along the angle.

    ``g(a) = Re sum_m c_m w_m exp(i m a)`` with weight 1 for m = 0 and 2 for the others (both signs of m).
    """
    order = torch.arange(harmonics + 1)
    phases = order[:, None] * (2 * torch.pi * torch.arange(angles) / angles)
    weights = torch.where(order > 0, 2.0, 1.0)[:, None]
    return torch.stack([weights * torch.cos(phases), -weights * torch.sin(phases)])


class SteerableFilters(nn.Module):
    """Learnt filters of full size, applied at all rotations.

    Parameters
    ----------
    width : int
        Of the images.
    rings, harmonics : int
        Radial functions; largest angular order.
    channels, angles : int
        Number of filters; rotations of each.
    """

    def __init__(self, width: int, rings: int, harmonics: int, channels: int, angles: int):
        super().__init__()
        self.register_buffer("basis", steerable_basis(width, rings, harmonics), persistent=False)
        self.register_buffer("synthesis", synthesis_matrices(harmonics, angles), persistent=False)
        scale = math.sqrt(rings * (2 * harmonics + 1))
        self.weights = nn.Parameter(torch.randn(2, harmonics + 1, rings, channels) / scale)
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def analyse(self, images: Tensor) -> Tensor:
        """Real and imaginary coefficients ``(2, harmonics + 1, n, rings)`` of images ``(n, w, w)``.

        The mirror image (in y) has the conjugate coefficients.
        """
        return torch.einsum("np,cpmq->cmnq", images.flatten(1), self.basis)

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Responses ``(n, channels, angles)`` to coefficients ``(harmonics + 1, n, rings)``."""
        weight_real, weight_imaginary = self.weights
        mixed = torch.stack([real @ weight_real - imaginary @ weight_imaginary,
                             real @ weight_imaginary + imaginary @ weight_real])
        return torch.einsum("cmnk,cma->nka", mixed, self.synthesis) + self.bias
