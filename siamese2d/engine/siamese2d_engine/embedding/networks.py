"""Encoders: from prepared images ``(n, w, w)`` to vectors ``(n, d)``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from siamese2d_engine.embedding.steerable import synthesis_matrices, steerable_basis
from siamese2d_engine.errors import InputError


class SteerableNetwork(nn.Module):
    """Exactly invariant to rotations in the plane (by multiples of the angular step) and, with `mirror`, to mirroring.

    The image is written in steerable functions ``h_q(r) exp(i m phi)``; filters mix the radial functions of each angular
    order m, which gives the responses of full-size learnt filters at all rotations. These go through a second, circular
    convolution along the angle, and are pooled over it by mean and maximum. Rotating the image shifts the responses along the
    angle, mirroring it reverses them (conjugate coefficients), so the pooled features do not change.

    Parameters
    ----------
    working_box : int
        Width of the images.
    rings, harmonics : int
        Radial functions; largest angular order.
    channels, angles, hidden : int
        Filters of both layers; samples of the angle; width of the dense layer.
    dimensions : int
        Of the output.
    mirror : bool
        Give an image and its mirror image the same vector.
    """

    invariant = True

    def __init__(self, working_box: int, dimensions: int, rings: int = 12, harmonics: int = 10, channels: int = 64,
                 angles: int = 32, hidden: int = 128, mirror: bool = True):
        super().__init__()
        self.mirror = mirror
        self.register_buffer("basis", steerable_basis(working_box, rings, harmonics), persistent=False)
        self.register_buffer("synthesis", synthesis_matrices(harmonics, angles), persistent=False)
        scale = math.sqrt(rings * (2 * harmonics + 1))
        self.filters = nn.Parameter(torch.randn(2, harmonics + 1, rings, channels) / scale)
        self.first_norm = nn.BatchNorm1d(channels)
        self.along_angle = nn.Conv1d(channels, channels, 3)
        self.second_norm = nn.BatchNorm1d(channels)
        self.head = nn.Sequential(
            nn.BatchNorm1d(2 * channels), nn.Linear(2 * channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, dimensions),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of images ``(n, w, w)``."""
        real, imaginary = torch.einsum("np,cpmq->cmnq", images.flatten(1), self.basis)
        responses = self._responses(real, imaginary)
        if self.mirror:
            responses = torch.cat([responses, self._responses(real, -imaginary)])
        angular = relu(self.first_norm(responses))
        angular = relu(self.second_norm(self.along_angle(pad(angular, (1, 1), mode="circular"))))
        pooled = torch.cat([angular.mean(dim=-1), angular.amax(dim=-1)], dim=1)
        if self.mirror:
            pooled = pooled.view(2, len(images), -1).mean(dim=0)
        return self.head(pooled)

    def _responses(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Responses ``(n, channels, angles)`` from coefficients ``(harmonics + 1, n, rings)``."""
        filter_real, filter_imaginary = self.filters
        mixed = torch.stack([real @ filter_real - imaginary @ filter_imaginary,
                             real @ filter_imaginary + imaginary @ filter_real])
        return torch.einsum("cmnk,cma->nka", mixed, self.synthesis)


class OriginalNetwork(nn.Module):
    """The small network of the first Siamese recipe for this task: three 3 x 3 convolutions and three dense layers.

    Reflection-padded convolutions 1-4-8-8, each with ReLU and batch normalisation, then 500-100-`dimensions` (20 there). It
    knows nothing of rotations: they must come as random views.
    """

    invariant = False

    def __init__(self, working_box: int, dimensions: int):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 4), (4, 8), (8, 8)):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(inputs, outputs, 3), nn.ReLU(), nn.BatchNorm2d(outputs)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Linear(8 * working_box * working_box, 500), nn.ReLU(), nn.Linear(500, 100), nn.ReLU(),
            nn.Linear(100, dimensions),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of images ``(n, w, w)``."""
        return self.dense(self.convolutions(images[:, None]).flatten(1))


NETWORKS = {"steerable": SteerableNetwork, "original": OriginalNetwork}


def build_network(name: str, parameters: dict) -> nn.Module:
    """A network by the name and the parameters that a model's header holds.

    Raises
    ------
    InputError
        When this version doesn't know the network or its parameters.
    """
    if name not in NETWORKS:
        raise InputError(f"The model has the network '{name}', unknown to this version. Networks: "
                         f"{', '.join(NETWORKS)}. Update the engine, or train again.")
    try:
        return NETWORKS[name](**parameters)
    except TypeError as error:
        raise InputError(f"The network '{name}' of the model has parameters unknown to this version ({error}). Update the "
                         "engine, or train again.") from error
