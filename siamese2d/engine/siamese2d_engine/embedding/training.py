"""The training loop: optimiser, schedule, early stopping, and a checkpoint after every epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from siamese2d_engine import distributed
from siamese2d_engine.data_parallel import in_parallel
from siamese2d_engine.embedding.objectives import Objective
from siamese2d_engine.embedding.settings import Settings
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.models import load_model, save_model
from siamese2d_engine.progress import progress as show_progress
from siamese2d_engine.progress import work

WARM_UP = 0.2
MOMENTUM = 0.9
CHECKPOINT_KIND = "embedding-checkpoint"


@dataclass
class Progress:
    """Where a training is: enough to go on with the same answer.

    Attributes
    ----------
    round : int
        Of the contrastive mode, from 1; 1 in the other modes.
    records : list of dict
        ``epoch``, ``round``, ``loss``, ``validation_loss`` of the epochs done, in all rounds.
    labels : Tensor
        Classes of the particles in this round; empty in self-supervised mode.
    best : dict of str to Tensor
        Weights of the round's epoch with the lowest validation loss.
    """

    round: int
    records: list[dict]
    labels: Tensor
    best: dict[str, Tensor]

    @property
    def of_round(self) -> list[dict]:
        """Records of the present round."""
        return [record for record in self.records if record["round"] == self.round]

    @property
    def best_epoch(self) -> int:
        """Epoch of the present round with the lowest validation loss; 0 before the first."""
        done = self.of_round
        return min(done, key=lambda record: record["validation_loss"])["epoch"] if done else 0


def train_round(network: nn.Module, objective: Objective, settings: Settings, progress: Progress,
                checkpoint: Path) -> None:
    """Train `network` to the end of the round that `progress` is in, and leave the best weights in it.

    Parameters
    ----------
    network
        With the weights to start from.
    objective, settings
        What to train for; epochs, learning rate, patience.
    progress
        State before; updated. If it has epochs of this round, the weights and the optimiser come from `checkpoint`.
    checkpoint
        Written after every epoch.

    Raises
    ------
    InputError
        When the loss is no longer finite.
    """
    optimizer = _optimizer(network, settings)
    epoch = len(progress.of_round)
    if epoch:
        _restore(checkpoint, network, optimizer)
    shared = in_parallel(network)
    label = f"train, round {progress.round} of {settings.rounds}" if settings.mode == "contrastive" else "train"
    with work(label, settings.epochs, "epoch", done=epoch) as meter:
        while epoch < settings.epochs and epoch - progress.best_epoch < settings.patience:
            epoch += 1
            try:
                loss = _train_epoch(shared, objective, optimizer, settings, epoch)
                shared.eval()
                with torch.no_grad():
                    validation_loss = objective.validation_loss(shared)
            except torch.OutOfMemoryError as error:
                # Smaller ones would be another training: losses and normalisation compare all of a batch.
                raise InputError(
                    f"--batch-size {settings.batch_size}: the GPU's memory is not enough for such batches. Close other "
                    "programs that use it, lower --batch-size, take a GPU with more memory, or compute with "
                    "--device cpu.") from error
            # Processes must not differ in the last digit of what they decide by.
            loss, validation_loss = distributed.from_main(lambda: (loss, validation_loss))
            if not (math.isfinite(loss) and math.isfinite(validation_loss)):
                raise InputError(f"The loss is not finite in epoch {epoch}. Lower --learning-rate.")
            record = {"epoch": epoch, "round": progress.round, "loss": loss, "validation_loss": validation_loss}
            progress.records.append(record)
            if progress.best_epoch == epoch:
                progress.best = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
            if distributed.is_main():
                _save(checkpoint, network, optimizer, progress)
            meter.advance(detail=f"loss {loss:.4f}, held out {validation_loss:.4f}")
    network.load_state_dict(progress.best)
    network.eval()


def _optimizer(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), lr=settings.learning_rate, momentum=MOMENTUM)
    return torch.optim.Adam(network.parameters(), lr=settings.learning_rate)


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Rate of `step` (from 0) of `steps`: linear up over the first fifth, then half a cosine down to 1 % of
    `highest`."""
    warm_up = max(1.0, WARM_UP * steps)
    if step < warm_up:
        return highest * (step + 1) / (warm_up + 1)
    position = (step - warm_up) / max(1.0, steps - warm_up)
    return highest * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * position)))


def load_progress(checkpoint: Path) -> Progress:
    """The state that a checkpoint holds, without weights of network and optimiser."""
    header, tensors = load_model(checkpoint, CHECKPOINT_KIND)
    return Progress(header["round"], header["records"], tensors["labels"], _part(tensors, "best."))


def _train_epoch(network: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, settings: Settings,
                 epoch: int) -> float:
    network.train()
    per_epoch = objective.steps(epoch)
    before, steps = (epoch - 1) * per_epoch, settings.epochs * per_epoch
    total = 0.0
    for step, loss in enumerate(show_progress(objective.losses(network, epoch), f"epoch {epoch}", per_epoch, "batch")):
        if settings.schedule == "cosine":
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(before + step, steps, settings.learning_rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / per_epoch


def _save(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors["labels"] = progress.labels
    save_model(path, {"kind": CHECKPOINT_KIND, "round": progress.round, "records": progress.records}, tensors)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    _, tensors = load_model(path, CHECKPOINT_KIND)
    network.load_state_dict(_part(tensors, "network."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer.").items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
