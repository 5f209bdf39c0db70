"""Learn where the centre of a particle is, from shifts that are known because they were applied.

The correlation with one circular profile (`centring`) misses by a pixel or two, since noise moves its peak. A network
does better, and needs no truth to learn from: two independent halves of an image are shifted by different known
vectors, and the two centres that it finds must be that difference apart. This leaves open only a vector that depends on
the view, and the network settles for the one that is easiest to find.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from siamese2d_engine.data_parallel import in_parallel
from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.embedding.centring import shift_spectra
from siamese2d_engine.embedding.prepare import soft_mask, to_images
from siamese2d_engine.embedding.steerable import SteerableFilters
from siamese2d_engine.embedding.training import learning_rate
from siamese2d_engine.embedding.views import random_half
from siamese2d_engine.progress import progress

STEPS = 150
BATCH = 256
LEARNING_RATE = 3e-3
# Largest shift in training along each axis, as a fraction of the box.
REACH = 1 / 16
# Each pass leaves a smaller shift for the next.
PASSES = 2
CHUNK = 512
# Draws that no epoch of the embedding has.
CENTRING = -2


class CentringNetwork(nn.Module):
    """Shift ``(n, 2)`` (x, y), in pixels, that brings images ``(n, w, w)`` to their centre.

    Responses of steerable filters, rectified, have a first harmonic along the angle: a vector for each filter that
    turns with the image. Their sum, with complex weights that depend on invariants of the responses, turns with it too.
    The mean over the image and its mirror image, mirrored back, makes the result follow mirroring.

    Parameters
    ----------
    working_box : int
        Width of the images.
    channels, hidden : int
        Number of filters; width of the dense layer.
    """

    ANGLES = 32

    def __init__(self, working_box: int, channels: int = 48, hidden: int = 128):
        super().__init__()
        self.filters = SteerableFilters(working_box, rings=12, harmonics=10, channels=channels, angles=self.ANGLES)
        self.gate = nn.Sequential(nn.BatchNorm1d(2 * channels), nn.Linear(2 * channels, hidden), nn.ReLU(),
                                  nn.Linear(hidden, 2 * channels))
        # Start from small shifts.
        with torch.no_grad():
            self.gate[-1].weight.mul_(0.1)
        angle = 2 * torch.pi * torch.arange(self.ANGLES) / self.ANGLES
        self.register_buffer("directions", torch.stack([angle.cos(), angle.sin()], dim=1) * 2 / self.ANGLES,
                             persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        real, imaginary = self.filters.analyse(images)
        x, y = self._vector(real, imaginary)
        mirrored_x, mirrored_y = self._vector(real, -imaginary)
        return torch.stack([x + mirrored_x, y - mirrored_y], dim=1) / 2

    def _vector(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        responses = relu(self.filters(real, imaginary))
        x, y = (responses @ self.directions).unbind(dim=-1)
        invariants = torch.cat([responses.mean(dim=-1), responses.max(dim=-1).values], dim=1)
        weight_x, weight_y = self.gate(invariants).chunk(2, dim=1)
        return (weight_x * x - weight_y * y).sum(dim=1), (weight_x * y + weight_y * x).sum(dim=1)


def train_centring(spectra: Tensor, seed: int, device: torch.device | str) -> CentringNetwork:
    """Train on roughly centred half spectra ``(n, w, w // 2 + 1)``; the network is in evaluation mode."""
    width = spectra.shape[-2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, CENTRING))
        network = CentringNetwork(width).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    shared = in_parallel(network)
    mask = soft_mask(width, width / 2 - 1).to(device)
    shared.train()
    for step in progress(range(STEPS), "learn centres", unit="step"):
        generator = seeded_generator(seed, CENTRING, step)
        batch = torch.randint(len(spectra), (min(BATCH, len(spectra)),), generator=generator)
        loss = _loss(shared, spectra[batch.to(spectra.device)].to(device), mask, generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, LEARNING_RATE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def apply_centring(network: CentringNetwork, spectra: Tensor) -> Tensor:
    """Spectra moved to the centres that the network finds, in `PASSES` passes."""
    mask = soft_mask(spectra.shape[-2], spectra.shape[-2] / 2 - 1).to(spectra.device)
    network = network.to(spectra.device).eval()
    with torch.inference_mode():
        for _ in range(PASSES):
            shifts = torch.cat([network(to_images(chunk) * mask) for chunk in spectra.split(CHUNK)])
            spectra = shift_spectra(spectra, shifts)
    return spectra.clone()


def _loss(network: CentringNetwork, spectra: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared distance in pixels between the centres found in the two halves, after undoing the known shifts."""
    keep = random_half(spectra, generator)
    reach = REACH * spectra.shape[-2]
    shifts = [(reach * (2 * torch.rand(len(spectra), 2, generator=generator) - 1)).to(spectra.device) for _ in range(2)]
    halves = [shift_spectra(spectra * part, shift) for part, shift in zip((keep, ~keep), shifts)]
    # Half of the coefficients carry half of the variance.
    found = network(to_images(torch.cat(halves)) * mask * 2**0.5) + torch.cat(shifts)
    first, second = found.chunk(2)
    return (first - second).square().sum(dim=1).mean()
