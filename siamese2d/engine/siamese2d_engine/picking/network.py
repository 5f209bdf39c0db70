"""The picker's network: fully convolutional, without padding, with a stated receptive field and output grid.

Every score depends on exactly one window of `Architecture.receptive_field` pixels, whether the network is given that
window alone or a whole micrograph: dense and windowed scoring are the same computation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from siamese2d_engine.errors import InputError

SLOPE = 0.1
LISTS = ("channels", "kernels", "strides", "dilations")


@dataclass(frozen=True)
class Architecture:
    """Layers of a picker, from input to features; a 1 x 1 convolution to one logit follows.

    Attributes
    ----------
    channels, kernels, strides, dilations : tuple of int
        One entry for each convolution.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def receptive_field(self) -> int:
        """Width in input pixels of the window that one score sees; odd."""
        field, step = 1, 1
        for kernel, stride, dilation in zip(self.kernels, self.strides, self.dilations):
            field += (kernel - 1) * dilation * step
            step *= stride
        return field

    @property
    def stride(self) -> int:
        """Input pixels between neighbouring scores."""
        step = 1
        for stride in self.strides:
            step *= stride
        return step

    @property
    def margin(self) -> int:
        """Input pixels that a window reaches beyond its central one."""
        return self.receptive_field // 2

    def input_size(self, outputs: int) -> int:
        """Width of the input that gives `outputs` scores in a row."""
        return self.stride * (outputs - 1) + self.receptive_field

    def as_dict(self) -> dict:
        """For the header of a model file."""
        return {name: list(getattr(self, name)) for name in LISTS}

    @staticmethod
    def from_dict(values: dict) -> "Architecture":
        """The inverse of `as_dict`; InputError if the entries do not fit together."""
        try:
            lists = {name: tuple(int(v) for v in values[name]) for name in LISTS}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The model's architecture can't be read ({error}). Train the picker again.") from error
        if len({len(v) for v in lists.values()}) != 1 or min(min(v, default=0) for v in lists.values()) < 1:
            raise InputError("The model's architecture is not consistent. Train the picker again.")
        return Architecture(**lists)


# Particles have a diameter of 20 pixels at the working scale: receptive fields of 1.5, 3 and 4.6 diameters.
ARCHITECTURES = {
    "small": Architecture((16, 32, 32, 32, 32, 32), (5, 3, 3, 3, 3, 3), (1, 2, 1, 1, 1, 1), (1, 1, 1, 1, 2, 2)),
    "medium": Architecture((16, 32, 32, 32, 32, 32, 32), (5, 3, 3, 3, 3, 3, 3), (1, 2, 1, 1, 1, 1, 1),
                           (1, 1, 1, 2, 4, 2, 1)),
    "large": Architecture((16, 32, 32, 32, 32, 32, 32, 32), (5, 3, 3, 3, 3, 3, 3, 3), (1, 2, 1, 1, 1, 1, 1, 1),
                          (1, 1, 1, 2, 4, 8, 2, 1)),
}


class PickerNetwork(nn.Module):
    """Convolutions with leaky rectifiers, residual where the size allows, then one logit for each output pixel."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        inputs = (1, *architecture.channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, k, stride=s, dilation=d) for i, o, k, s, d in
            zip(inputs, architecture.channels, architecture.kernels, architecture.strides, architecture.dilations))
        self.head = nn.Conv2d(architecture.channels[-1], 1, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights (He et al. 2015); the last layer starts at zero, so that all probabilities start at 1/2."""
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight, a=SLOPE, generator=generator)
            nn.init.zeros_(convolution.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def invert(self) -> None:
        """From now on answer an image as its negative was answered before."""
        self.convolutions[0].weight.neg_()

    def features(self, images: Tensor) -> Tensor:
        """`(n, h, w)` images to `(n, channels, h', w')` features."""
        x = images[:, None]
        for convolution in self.convolutions:
            y = convolution(x)
            if convolution.stride == (1, 1) and convolution.in_channels == convolution.out_channels:
                cut = (x.shape[-1] - y.shape[-1]) // 2
                y = y + x[..., cut:x.shape[-2] - cut, cut:x.shape[-1] - cut]
            x = leaky_relu(y, SLOPE)
        return x

    def classify(self, features: Tensor) -> Tensor:
        """`(n, channels, h, w)` features to `(n, h, w)` logits."""
        return self.head(features)[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        """`(n, h, w)` images to `(n, h', w')` logits; output `i` is centred at input ``margin + stride i``."""
        return self.classify(self.features(images))


class Decoder(nn.Module):
    """From one pixel's features back to the window around it: the autoencoder branch."""

    def __init__(self, channels: int, size: int, hidden: int = 64):
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, size * size))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        for layer in (self.layers[0], self.layers[2]):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """`(n, channels)` features to `(n, size, size)` windows."""
        return self.layers(features).view(-1, self.size, self.size)
