"""Residual networks (He et al. 2016, CVPR) for images of one channel, with the names of torchvision's weights."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import relu

from siamese2d_engine.devices import seed_from
from siamese2d_engine.errors import InputError

# Particles that give a network with random weights the scale of its activations.
CALIBRATION, CALIBRATION_BATCH = 256, 64
# Draws that no round of training has.
RANDOM_WEIGHTS = -3


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a short cut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _short_cut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features of features."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, beside a short cut; the stride is that of the 3 x 3 one."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _short_cut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features of features."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        return relu(self.bn3(self.conv3(y)) + self.downsample(x))


BLOCKS = {18: (BasicBlock, (2, 2, 2, 2)), 50: (Bottleneck, (3, 4, 6, 3))}


class ResNet(nn.Module):
    """Features ``(n, 512)`` (18 layers) or ``(n, 2048)`` (50 layers) of images ``(n, h, w)``: means over the last map.

    Parameters
    ----------
    depth : int
        18 or 50.
    small_stem : bool
        Start with a 3 x 3 convolution of stride 1 in place of 7 x 7 of stride 2, for small images.
    """

    def __init__(self, depth: int, small_stem: bool = False):
        super().__init__()
        block, counts = BLOCKS[depth]
        self.conv1 = (nn.Conv2d(1, 64, 3, 1, 1, bias=False) if small_stem else
                      nn.Conv2d(1, 64, 7, 2, 3, bias=False))
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for number, count in enumerate(counts):
            width, layer = 64 * 2**number, []
            for position in range(count):
                layer.append(block(inputs, width, 2 if number > 0 and position == 0 else 1))
                inputs = width * block.expansion
            setattr(self, f"layer{number + 1}", nn.Sequential(*layer))
        self.features = inputs

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.maxpool(relu(self.bn1(self.conv1(images[:, None]))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(-2, -1))


def load_backbone(path: str | os.PathLike, depth: int) -> ResNet:
    """A network with weights from a file as torchvision writes it, in evaluation mode.

    The three colours of its first convolution are summed, which is what three equal channels would give.

    Parameters
    ----------
    path
        ``.safetensors``, or a state dictionary of ``torch.save`` (read without running anything in it).
    depth
        18 or 50.

    Raises
    ------
    InputError
        When the file can't be read or holds weights of another network.
    """
    path = Path(path)
    tensors = {name: tensor for name, tensor in _read_weights(path).items() if not name.startswith("fc.")}
    network = ResNet(depth)
    first = tensors.get("conv1.weight")
    if isinstance(first, Tensor) and first.ndim == 4:
        tensors["conv1.weight"] = first.sum(dim=1, keepdim=True)
    try:
        network.load_state_dict(tensors)
    except (RuntimeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(f"{path}: these are no weights of a ResNet-{depth} with torchvision's names "
                         f"({lines[min(1, len(lines) - 1)][:120]}). Give the file of that network.") from error
    return network.eval().requires_grad_(False)


def random_backbone(depth: int, images: Tensor, seed: int) -> ResNet:
    """A network with random weights, in evaluation mode; its batch norms have the statistics of `images` ``(n, h,
    w)``, without which the activations of random layers would grow from block to block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, RANDOM_WEIGHTS))
        network = ResNet(depth)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    network = network.to(images.device)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        # None: the plain mean over batches.
        norm.momentum = None
    with torch.no_grad():
        for batch in images[:CALIBRATION].split(CALIBRATION_BATCH):
            network(batch)
    return network.eval().requires_grad_(False)


def _short_cut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: the file of backbone weights does not exist. Check --backbone.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{path}: can't be read as weights. Give a .safetensors file, or the .pth file that "
                         "torchvision distributes.") from error
    if not isinstance(tensors, dict):
        raise InputError(f"{path}: holds no dictionary of weights. Give the .pth file that torchvision distributes.")
    return tensors
