"""Networks around a residual network: a frozen one with a dense head, and a small one that is trained whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from siamese2d_engine.embedding.resnet import ResNet

FEATURE_CHUNK = 64


class FrozenResNet50(nn.Module):
    """A residual network of 50 layers that stays as it is, and a dense head that learns.

    The recipe of the triplet original: mean-pooled features, dense layers of the widths `hidden` with ReLU and batch
    normalisation each, and a last one to `dimensions`.

    Parameters
    ----------
    working_box : int
        Width of the images; the network takes any.
    dimensions : int
        Of the output.
    hidden : sequence of int
        Widths of the layers before the last.
    """

    invariant = False

    def __init__(self, working_box: int, dimensions: int, hidden: Sequence[int] = (512, 256)):
        super().__init__()
        self.backbone = ResNet(50).eval().requires_grad_(False)
        widths, layers = [self.backbone.features, *hidden], []
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.BatchNorm1d(outputs)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], dimensions))

    def forward(self, images: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of images ``(n, w, w)``."""
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """What the frozen part sees in images: ``(n, 2048)``."""
        with torch.no_grad():
            return torch.cat([self.backbone(chunk) for chunk in images.split(FEATURE_CHUNK)])

    def train(self, mode: bool = True) -> FrozenResNet50:
        """Training mode of the head; the backbone keeps its batch statistics."""
        super().train(mode)
        self.backbone.eval()
        return self


class SmallResNet18(nn.Module):
    """A residual network of 18 layers with a 3 x 3 stem and one dense layer to `dimensions`, trained whole.

    The encoder of MiLoPYP's exploration (Huang, Zhou & Bartesaghi 2024, Nature Methods). It knows nothing of rotations.
    """

    invariant = False

    def __init__(self, working_box: int, dimensions: int):
        super().__init__()
        self.backbone = ResNet(18, small_stem=True)
        self.dense = nn.Linear(self.backbone.features, dimensions)

    def forward(self, images: Tensor) -> Tensor:
        """Vectors ``(n, d)`` of images ``(n, w, w)``."""
        return self.dense(self.backbone(images))


class SimSiam(nn.Module):
    """An encoder with the projector (three layers) and the predictor (two layers) that SimSiam trains it with.

    Chen & He 2021, CVPR, section 3 and 4: all layers of the projector are batch-normalised, the predictor is a
    bottleneck of a quarter of the width. Both are left behind when the training ends.
    """

    def __init__(self, encoder: nn.Module, dimensions: int):
        super().__init__()
        self.encoder = encoder
        projector = []
        for last in (False, False, True):
            projector += [nn.Linear(dimensions, dimensions, bias=False), nn.BatchNorm1d(dimensions, affine=not last)]
            projector += [] if last else [nn.ReLU()]
        self.projector = nn.Sequential(*projector)
        narrow = max(4, dimensions // 4)
        self.predictor = nn.Sequential(nn.Linear(dimensions, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU(),
                                       nn.Linear(narrow, dimensions))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Projections and predictions, ``(n, d)`` each, of images ``(n, w, w)``."""
        projections = self.projector(self.encoder(images))
        return projections, self.predictor(projections)
