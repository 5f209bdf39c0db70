"""Training a picker: the loop, the choice of the best epoch, and a checkpoint after every epoch."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from siamese2d_engine import distributed
from siamese2d_engine.batches import Room, in_parts
from siamese2d_engine.data_parallel import in_parallel
from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path
from siamese2d_engine.picking.judge import Judge
from siamese2d_engine.picking.labels import unlabeled_prior
from siamese2d_engine.picking.network import Decoder, PickerNetwork
from siamese2d_engine.picking.objectives import (
    DEFAULT_WEIGHTS,
    OBJECTIVES,
    ge_binomial_penalty,
    ge_kl_penalty,
    is_expectation,
    pn,
)
from siamese2d_engine.picking.sampling import Sampler
from siamese2d_engine.picking.settings import Settings
from siamese2d_engine.progress import progress, work

AVERAGING = 0.97
RISING = 0.2
LARGEST_GRADIENT = 1.0
RECONSTRUCTED = 21
RECONSTRUCTIONS = 64


@dataclass
class State:
    """Where a training is, complete enough to go on with the same answer.

    Attributes
    ----------
    network : PickerNetwork
        Under training.
    shared : Module
        The same network; of several processes, each computes its part of a batch.
    average : PickerNetwork
        Running average of its weights, which is what is evaluated and kept.
    decoder : Decoder or None
    optimizer : Optimizer
    room : Room
        For the images of a step that go through the network at a time.
    density : float or None
        Expected particles per working pixel; None until estimated.
    share : float
        Running average of the mean probability of unlabeled pixels.
    epochs : list of dict
        ``epoch``, ``loss``, ``penalty``, ``found_at`` (the ranks at which held-out labels were found).
    best_epoch : int
        0 before the first.
    best : dict of str to Tensor
        Averaged weights of the best epoch.
    """

    network: PickerNetwork
    shared: nn.Module
    average: PickerNetwork
    decoder: Decoder | None
    optimizer: torch.optim.Optimizer
    room: Room
    density: float | None
    share: float = 0.5
    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


def start(network: PickerNetwork, settings: Settings, density: float | None) -> State:
    """State before the first epoch; `network` already has its first weights."""
    decoder = None
    if settings.autoencoder > 0:
        decoder = Decoder(network.architecture.channels[-1], min(RECONSTRUCTED, network.architecture.receptive_field))
        decoder.initialise(seeded_generator(settings.seed, -1))
        decoder.to(next(network.parameters()).device)
    parameters = [*network.parameters(), *(decoder.parameters() if decoder else [])]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    average = copy.deepcopy(network)
    # The decoder needs the features of whole batches: with it, each process computes all.
    shared = network if decoder else in_parallel(network)
    return State(network, shared, average, decoder, optimizer, Room(max(settings.windows, settings.crops)), density)


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Rate at `step` of `steps`: rising to `highest` over the first fifth, then half a cosine down to a hundredth."""
    done = (step + 0.5) / steps
    if done < RISING:
        return highest * done / RISING
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - RISING) / (1 - RISING))))


def in_warm_up(epoch: int, settings: Settings) -> bool:
    """Whether `epoch`, from 1, still takes unlabeled pixels for background."""
    return epoch <= round(settings.warm_up * settings.epochs)


def train_epoch(state: State, sampler: Sampler, settings: Settings, prior: float) -> tuple[float, float]:
    """One epoch; its mean loss and the mean penalty on the unlabeled pixels.

    Parameters
    ----------
    prior : float
        Expected share of particle pixels among all pixels.
    """
    epoch = len(state.epochs) + 1
    rng = np.random.default_rng(seed_from(settings.seed, epoch))
    unlabeled_share = unlabeled_prior(prior, sampler.labelled_share)
    state.network.train()
    sums = np.zeros(2)
    for step in progress(range(settings.steps), f"epoch {epoch}", unit="batch"):
        done, total = (epoch - 1) * settings.steps + step, settings.epochs * settings.steps
        rate = learning_rate(done, total, settings.learning_rate)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        loss, penalty = _gradients(state, sampler, settings, unlabeled_share, in_warm_up(epoch, settings), rng)
        if not math.isfinite(loss):
            raise InputError(f"Training diverged in epoch {epoch} (the loss is {loss}). Use a lower --learning-rate.")
        nn.utils.clip_grad_norm_([p for g in state.optimizer.param_groups for p in g["params"]], LARGEST_GRADIENT)
        state.optimizer.step()
        follow(state.average, state.network)
        sums += (loss, penalty)
    return float(sums[0]) / settings.steps, float(sums[1]) / settings.steps


def _gradients(state: State, sampler: Sampler, settings: Settings, prior: float, warm_up: bool,
               rng: np.random.Generator) -> tuple[float, float]:
    """Loss and penalty of a step, whose gradients are left in the network."""
    drawn = rng.bit_generator.state

    def attempt(rows: int) -> tuple[float, float, float]:
        # The same batch as in an attempt before.
        rng.bit_generator.state = drawn
        state.optimizer.zero_grad()
        loss, penalty, share = _step_loss(state, sampler, settings, prior, warm_up, rng, rows)
        loss.backward()
        return loss.item(), penalty, share

    # Several processes wait for one another in the middle of a step: none of them can begin again alone.
    alone = distributed.world() == 1
    loss, penalty, state.share = state.room.attempt(attempt) if alone else attempt(state.room.size)
    return loss, penalty


def _step_loss(state: State, sampler: Sampler, settings: Settings, prior: float, warm_up: bool,
               rng: np.random.Generator, rows: int) -> tuple[Tensor, float, float]:
    """Loss, penalty, and the new mean probability of unlabeled pixels; `rows` images go through the network at a time."""
    device = next(state.network.parameters()).device
    drawn = (*sampler.positives(settings.windows, rng), *sampler.unlabeled(settings.crops, settings.crop_outputs, rng))
    windows, inside, crops, free = (torch.from_numpy(a).to(device) for a in drawn)
    positive = in_parts(state.shared, windows, rows)[inside]
    features = None if state.decoder is None else in_parts(state.network.features, crops, rows)
    unlabeled = (in_parts(state.shared, crops, rows) if features is None else state.network.classify(features))[free]
    share = AVERAGING * state.share + (1 - AVERAGING) * float(torch.sigmoid(unlabeled.detach()).mean())
    samples = _in_samples(unlabeled, settings.sample, rng)
    loss = objective_loss(positive, samples, prior, settings, share, warm_up)
    if state.decoder is not None:
        loss = loss + settings.autoencoder * _reconstruction_loss(state, crops, features, rng)
    with torch.no_grad():
        penalty = ge_kl_penalty if settings.objective == "ge-kl" else ge_binomial_penalty
        return loss, float(penalty(samples, prior, share)), share


def objective_loss(positive: Tensor, unlabeled: Tensor, prior: float, settings: Settings, share: float | None,
                   warm_up: bool) -> Tensor:
    """The chosen objective, or positive-negative risk in the warm-up.

    Risks weighted by the prior are divided by it: positives then weigh 1 in every objective, and one learning rate
    suits all.
    """
    if warm_up:
        return pn(positive, unlabeled, prior) / prior
    if not is_expectation(settings.objective):
        return OBJECTIVES[settings.objective](positive, unlabeled, prior) / prior
    weight = DEFAULT_WEIGHTS[settings.objective] if settings.weight is None else settings.weight
    return OBJECTIVES[settings.objective](positive, unlabeled, prior, weight, share)


def _in_samples(logits: Tensor, sample: int, rng: np.random.Generator) -> Tensor:
    """`logits` `(n,)` in random order as rows of `sample`; what does not fill a row is left out."""
    size = min(sample, len(logits))
    rows = len(logits) // size
    order = torch.from_numpy(rng.permutation(len(logits))[:rows * size]).to(logits.device)
    return logits[order].view(rows, size)


def _reconstruction_loss(state: State, crops: Tensor, features: Tensor, rng: np.random.Generator) -> Tensor:
    """Mean squared difference between windows and what the decoder makes of their centres' features."""
    architecture = state.network.architecture
    n, _, rows, columns = features.shape
    k, i, j = (rng.integers(m, size=RECONSTRUCTIONS) for m in (n, rows, columns))
    first = architecture.margin - state.decoder.size // 2
    windows = [crops[a, first + architecture.stride * b:first + architecture.stride * b + state.decoder.size,
                     first + architecture.stride * c:first + architecture.stride * c + state.decoder.size]
               for a, b, c in zip(k, i, j)]
    return mse_loss(state.decoder(features[k, :, i, j]), torch.stack(windows))


@torch.no_grad()
def follow(average: PickerNetwork, network: PickerNetwork, kept: float = AVERAGING) -> None:
    """Move the running average of weights towards `network`; the share `kept` of the old one stays."""
    for mean, new in zip(average.parameters(), network.parameters()):
        mean.lerp_(new, 1 - kept)


def save_checkpoint(path: Path, state: State) -> None:
    """Write everything that the next epoch depends on, atomically; tensors and plain values only."""
    with atomic_path(path) as partial:
        torch.save({
            "network": state.network.state_dict(),
            "average": state.average.state_dict(),
            "decoder": state.decoder.state_dict() if state.decoder else {},
            "optimizer": state.optimizer.state_dict(),
            "density": state.density,
            "share": state.share,
            "epochs": state.epochs,
            "best_epoch": state.best_epoch,
            "best": state.best,
        }, partial)


def load_checkpoint(path: Path, state: State) -> None:
    """Put a checkpoint's content into `state`; InputError if the file is damaged. Nothing in it is executed."""
    device = next(state.network.parameters()).device
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
        state.network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        if state.decoder is not None:
            state.decoder.load_state_dict(saved["decoder"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.density, state.share, state.epochs = saved["density"], saved["share"], saved["epochs"]
        state.best_epoch, state.best = saved["best_epoch"], saved["best"]
    except Exception as error:
        raise InputError(f"{path}: this checkpoint can't be read ({type(error).__name__}). Start again with "
                         "--overwrite.") from error


def run_epochs(state: State, sampler: Sampler, settings: Settings, checkpoint: Path, judge: Judge,
               report: Callable[[dict], str]) -> None:
    """Train to the last epoch, or until held-out labels show no progress; `state.best` then holds the result.

    A checkpoint is written after every epoch. `report` says in words what is in an epoch's record.
    """
    with work("train-picker", settings.epochs, "epoch", done=len(state.epochs)) as meter:
        while not is_over(state, judge, settings):
            epoch = len(state.epochs) + 1
            loss, penalty = train_epoch(state, sampler, settings, judge.prior(state.density))
            found_at = judge.found_at(state.average)
            # Processes must not differ in the last digit of what they decide by.
            loss, penalty, found_at = distributed.from_main(lambda: (loss, penalty, found_at))
            state.epochs.append({"epoch": epoch, "loss": loss, "penalty": penalty, "found_at": found_at})
            if state.density is None and not in_warm_up(epoch + 1, settings):
                state.density = judge.survey(state.average).density
            if not state.best_epoch or _is_progress(state, judge):
                state.best_epoch = epoch
                state.best = {name: tensor.detach().clone() for name, tensor in state.average.state_dict().items()}
            if distributed.is_main():
                save_checkpoint(checkpoint, state)
            meter.advance(detail=report(state.epochs[-1]))


def is_over(state: State, judge: Judge, settings: Settings) -> bool:
    """Whether training is complete; it does not stop early during the warm-up."""
    epoch = len(state.epochs)
    waited = epoch - max(state.best_epoch, round(settings.warm_up * settings.epochs))
    return epoch >= settings.epochs or (judge.has_held_out and waited >= settings.patience)


def _is_progress(state: State, judge: Judge) -> bool:
    """Whether the last epoch is as good as the best, within one standard error of so few labels (Breiman et al. 1984).

    Later epochs, trained at lower rates, are better than a handful of held-out labels can tell; they go first unless
    they are clearly worse. Without held-out labels the last epoch is taken.
    """
    if not judge.has_held_out:
        return True
    scores = [judge.average_precision(epoch["found_at"], state.density) for epoch in state.epochs]
    return scores[-1] + judge.standard_error(scores[-1]) >= max(scores)
