"""Encoders: from prepared images ``(n, w, w)`` to vectors ``(n, d)``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from siamese2d_engine.embedding.backbone_network import FrozenResNet50, SmallResNet18
from siamese2d_engine.embedding.steerable import SteerableFilters
from siamese2d_engine.errors import InputError


class SteerableNetwork(nn.Module):
    """Exactly invariant to rotations in the plane (by multiples of the angular step) and, with `mirror`, to mirroring.

    The image is written in steerable functions ``h_q(r) exp(i m phi)``; filters mix the radial functions of each
    angular order m, which gives the responses of learnt filters of full size at all rotations. The responses, plus a
    bias and rectified, are pooled over the angle by mean, mean square and maximum, and go through two dense layers.
    Rotating the image shifts the responses along the angle, mirroring it reverses them (conjugate coefficients), so the
    pooled features do not change.

    Parameters
    ----------
    working_box : int
        Width of the images.
    dimensions : int
        Of the output.
    rings, harmonics : int
        Radial functions; largest angular order.
    channels, angles, hidden : int
        Filters; samples of the angle; width of the first dense layer.
    mirror : bool
        Give an image and its mirror image the same vector.
    """

    invariant = True

    def __init__(self, working_box: int, dimensions: int, rings: int = 12, harmonics: int = 10, channels: int = 64,
                 angles: int = 32, hidden: int = 128, mirror: bool = True):
        super().__init__()
        self.mirror = mirror
        self.filters = SteerableFilters(working_box, rings, harmonics, channels, angles)
        self.head = nn.Sequential(
            nn.BatchNorm1d(3 * channels), nn.Linear(3 * channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, dimensions),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of images ``(n, w, w)``."""
        real, imaginary = self.filters.analyse(images)
        pooled = self._pooled(self.filters(real, imaginary))
        if self.mirror:
            pooled = (pooled + self._pooled(self.filters(real, -imaginary))) / 2
        return self.head(pooled)

    def _pooled(self, responses: Tensor) -> Tensor:
        """Invariants ``(n, 3 channels)`` of responses ``(n, channels, angles)``."""
        positive = relu(responses)
        # The maximum is taken before rectifying, so that filters that fit nowhere still have a gradient.
        return torch.cat([positive.mean(dim=-1), positive.square().mean(dim=-1), responses.max(dim=-1).values], dim=1)


class OriginalNetwork(nn.Module):
    """The small network of the first Siamese recipe for this task: three 3 x 3 convolutions and three dense layers.

    Reflection-padded convolutions 1-4-8-8, each with ReLU and batch normalisation, then 500-100-`dimensions` (20
    there). It knows nothing of rotations: they must come as random views.
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


NETWORKS = {"steerable": SteerableNetwork, "original": OriginalNetwork, "resnet50": FrozenResNet50,
            "resnet18": SmallResNet18}


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
        raise InputError(f"The network '{name}' of the model has parameters unknown to this version ({error}). Update "
                         "the engine, or train again.") from error
