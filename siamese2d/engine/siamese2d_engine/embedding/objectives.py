"""The ways to say "similar": each yields the losses of one epoch and the loss on held-out particles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.embedding.batches import class_balanced, random_pairs, shuffled
from siamese2d_engine.embedding.losses import (
    SupervisedContrastiveLoss,
    TripletLoss,
    contrastive_loss,
    nt_xent_loss,
    simsiam_loss,
)
from siamese2d_engine.embedding.recipe_views import ViewMaker
from siamese2d_engine.embedding.settings import Settings

# Draws of validation batches and views come from numbers that no epoch has.
VALIDATION = -1
PAIRS_PER_PARTICLE = 16


class Objective(Protocol):
    """What the training loop needs."""

    def steps(self, epoch: int) -> int:
        """Number of losses that `losses` yields."""

    def losses(self, network: nn.Module, epoch: int) -> Iterator[Tensor]:
        """Losses of the steps of an epoch, each with its gradient graph."""

    def validation_loss(self, network: nn.Module) -> float:
        """Loss on held-out particles, by the same draws at every call."""


class SelfSupervised:
    """Two random views of a particle are similar; views of others are not (`nt_xent_loss`), or one view tells the
    other (`simsiam_loss`).

    Parameters
    ----------
    data, views
        What is trained on ``(n, ...)``, and what makes views of a part of it.
    training, held_out
        Positions in `data`.
    """

    def __init__(self, data: Tensor, views: ViewMaker, training: Tensor, held_out: Tensor, settings: Settings):
        self._data, self._views, self._settings = data, views, settings
        self._training, self._held_out = training, held_out

    def steps(self, epoch: int) -> int:
        return len(self._batches(self._training, epoch))

    def losses(self, network: nn.Module, epoch: int) -> Iterator[Tensor]:
        for step, batch in enumerate(self._batches(self._training, epoch)):
            yield self._loss(network, batch, seeded_generator(self._settings.seed, epoch, step))

    def validation_loss(self, network: nn.Module) -> float:
        batches = self._batches(self._held_out, VALIDATION)
        generator = seeded_generator(self._settings.seed, VALIDATION, VALIDATION)
        losses = [self._loss(network, batch, generator).item() * len(batch) for batch in batches]
        return sum(losses) / len(self._held_out)

    def _batches(self, positions: Tensor, epoch: int) -> list[Tensor]:
        return shuffled(positions, self._settings.batch_size, seeded_generator(self._settings.seed, epoch))

    def _loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
        first, second = self._views.pair(self._data[batch.to(self._data.device)], generator)
        if self._settings.loss == "simsiam":
            projections, predictions = network(torch.cat([first, second]))
            return simsiam_loss(projections.chunk(2), predictions.chunk(2))
        vectors = network(torch.cat([first, second]))
        return nt_xent_loss(*vectors.chunk(2), self._settings.temperature)


class Contrastive:
    """Pairs of one class are drawn together and pairs of different classes pushed apart (`contrastive_loss`).

    The recipe embeds two images for every pair. Here many pairs are drawn among the images of a batch, half of them
    forced to be of one class as there, which uses every image in several comparisons at no cost.
    """

    def __init__(self, data: Tensor, views: ViewMaker, labels: Tensor, training: Tensor, held_out: Tensor,
                 settings: Settings, round_number: int):
        self._data, self._views, self._settings = data, views, settings
        self._labels, self._training, self._held_out = labels, training, held_out
        self._round = round_number

    def steps(self, epoch: int) -> int:
        return len(self._batches(self._training, epoch))

    def losses(self, network: nn.Module, epoch: int) -> Iterator[Tensor]:
        for step, batch in enumerate(self._batches(self._training, epoch)):
            generator = seeded_generator(self._settings.seed, self._round, epoch, step)
            yield self._loss(network, batch, generator, generator)

    def validation_loss(self, network: nn.Module) -> float:
        generator = seeded_generator(self._settings.seed, self._round, VALIDATION, VALIDATION)
        batches = self._batches(self._held_out, VALIDATION)
        losses = [self._loss(network, batch, generator, None).item() * len(batch) for batch in batches]
        return sum(losses) / len(self._held_out)

    def _batches(self, positions: Tensor, epoch: int) -> list[Tensor]:
        generator = seeded_generator(self._settings.seed, self._round, epoch)
        return shuffled(positions, self._settings.batch_size, generator)

    def _loss(self, network: nn.Module, batch: Tensor, pairs: torch.Generator,
              views: torch.Generator | None) -> Tensor:
        first, second, different = random_pairs(self._labels[batch], PAIRS_PER_PARTICLE * len(batch), pairs)
        vectors = network(one_view(self._views, self._data, batch, views))
        return contrastive_loss(vectors[first], vectors[second], different.to(vectors.device), self._settings.margin)


class Triplet:
    """Particles of a given class are nearer than those of other classes (`TripletLoss`,
    `SupervisedContrastiveLoss`)."""

    def __init__(self, data: Tensor, views: ViewMaker, labels: Tensor, training: Tensor, held_out: Tensor,
                 settings: Settings):
        self._data, self._views, self._settings = data, views, settings
        self._labels, self._training, self._held_out = labels, training, held_out
        self._criterion = (TripletLoss(settings.margin) if settings.loss == "triplet" else
                           SupervisedContrastiveLoss(settings.temperature))

    def steps(self, epoch: int) -> int:
        return len(self._batches(self._training, epoch))

    def losses(self, network: nn.Module, epoch: int) -> Iterator[Tensor]:
        for step, batch in enumerate(self._batches(self._training, epoch)):
            yield self._loss(network, batch, seeded_generator(self._settings.seed, epoch, step))

    def validation_loss(self, network: nn.Module) -> float:
        losses = [self._loss(network, batch, None).item() for batch in self._batches(self._held_out, VALIDATION)]
        return sum(losses) / len(losses)

    def _batches(self, positions: Tensor, epoch: int) -> list[Tensor]:
        seed = seed_from(self._settings.seed, epoch)
        batches = class_balanced(self._labels[positions], self._settings.batch_size, seed)
        return [positions[batch] for batch in batches]

    def _loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator | None) -> Tensor:
        images = one_view(self._views, self._data, batch, generator)
        return self._criterion(network(images), self._labels[batch].to(images.device), mine=generator is not None)


def one_view(views: ViewMaker, data: Tensor, batch: Tensor, generator: torch.Generator | None) -> Tensor:
    """Random views to train on; without a generator what is embedded later, to validate on."""
    chosen = data[batch.to(data.device)]
    return views.plain(chosen) if generator is None else views.one(chosen, generator)
