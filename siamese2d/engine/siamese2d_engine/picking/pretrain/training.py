"""Training of the shipped weights on simulated micrographs, where every particle is known."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.evaluate.picks import score_picks
from siamese2d_engine.io.atomic import atomic_path
from siamese2d_engine.picking.candidates import find_candidates
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.network import ARCHITECTURES, PickerNetwork
from siamese2d_engine.picking.pretrain.scenes import make_scenes
from siamese2d_engine.picking.sampling import LabelledMicrograph, Sampler
from siamese2d_engine.picking.training import follow, learning_rate
from siamese2d_engine.progress import progress

# Of an epoch, which has its own micrographs; of a step.
SCENES, STEPS = 24, 150
CROPS, CROP_OUTPUTS = 4, 64
HIGHEST_RATE = 2e-3
WEIGHT_DECAY = 1e-4
AVERAGING = 0.995
# Micrographs that no epoch trains on, to watch progress by.
CHECKED = 16
FLOOR = -8.0


@dataclass
class Pretraining:
    """Where a pretraining is.

    Attributes
    ----------
    network, average : PickerNetwork
        Under training, and the running average of its weights, which is what is kept.
    optimizer : Optimizer
    epoch : int
        Epochs done.
    """

    network: PickerNetwork
    average: PickerNetwork
    optimizer: torch.optim.Optimizer
    epoch: int = 0


def begin(architecture: str, seed: int) -> Pretraining:
    """A pretraining from random weights; `architecture` is a key of `network.ARCHITECTURES`."""
    network = PickerNetwork(ARCHITECTURES[architecture])
    network.initialise(seeded_generator(seed, 0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=HIGHEST_RATE, weight_decay=WEIGHT_DECAY)
    return Pretraining(network, copy.deepcopy(network), optimizer)


def train_epoch(state: Pretraining, epochs: int, seed: int) -> float:
    """One epoch of `epochs` on micrographs of its own; its mean loss."""
    rng = np.random.default_rng(seed_from(seed, state.epoch, -1))
    sampler = Sampler(make_scenes(seed, state.epoch, SCENES), state.network.architecture, WORKING_DIAMETER / 2)
    total = 0.0
    for step in progress(range(STEPS), f"epoch {state.epoch + 1}", unit="batch"):
        rate = learning_rate(state.epoch * STEPS + step, epochs * STEPS, HIGHEST_RATE)
        state.optimizer.param_groups[0]["lr"] = rate
        images, positive, _ = sampler.crops(CROPS, CROP_OUTPUTS, rng)
        logits = state.network(torch.from_numpy(images))
        loss = binary_cross_entropy_with_logits(logits, torch.from_numpy(positive).float())
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        follow(state.average, state.network, AVERAGING)
        total += loss.item()
    state.epoch += 1
    return total / STEPS


def average_precision(network: PickerNetwork, scenes: list[LabelledMicrograph]) -> float:
    """Of the network's candidates in micrographs whose particles are all labelled, within half a diameter."""
    found = [find_candidates(network, scene.image, FLOOR, orientations=1) for scene in scenes]
    return score_picks([f[:, :2] for f in found], [f[:, 2] for f in found], [scene.labels for scene in scenes],
                       WORKING_DIAMETER / 2).average_precision


def save(path: Path, state: Pretraining) -> None:
    """Write everything that the next epoch depends on, atomically."""
    with atomic_path(path) as partial:
        torch.save({"network": state.network.state_dict(), "average": state.average.state_dict(),
                    "optimizer": state.optimizer.state_dict(), "epoch": state.epoch}, partial)


def load(path: Path, state: Pretraining) -> None:
    """Put what `save` wrote into `state`."""
    saved = torch.load(path, weights_only=True)
    state.network.load_state_dict(saved["network"])
    state.average.load_state_dict(saved["average"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.epoch = saved["epoch"]
