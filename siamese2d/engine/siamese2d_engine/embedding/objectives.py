"""The three ways to say "similar": each yields the losses of one epoch and the loss on held-out particles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.embedding.batches import class_balanced, random_pairs, shuffled
from siamese2d_engine.embedding.losses import TripletLoss, contrastive_loss, nt_xent_loss
from siamese2d_engine.embedding.settings import Settings
from siamese2d_engine.embedding.views import Views

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
    """Two random views of a particle are similar, views of others are not (`nt_xent_loss`)."""

    def __init__(self, spectra: Tensor, views: Views, training: Tensor, held_out: Tensor, settings: Settings):
        self._spectra, self._views, self._settings = spectra, views, settings
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
        first, second = self._views.pair(self._spectra[batch.to(self._spectra.device)], generator)
        vectors = network(torch.cat([first, second]))
        return nt_xent_loss(*vectors.chunk(2), self._settings.temperature)


class Contrastive:
    """Pairs of one class are drawn together and pairs of different classes pushed apart (`contrastive_loss`).

    The recipe embeds two images for every pair. Here many pairs are drawn among the images of a batch, half of them
    forced to be of one class as there, which uses every image in several comparisons at no cost.
    """

    def __init__(self, spectra: Tensor, views: Views, labels: Tensor, training: Tensor, held_out: Tensor,
                 settings: Settings, round_number: int):
        self._spectra, self._views, self._settings = spectra, views, settings
        self._labels, self._training, self._held_out = labels, training, held_out
        self._round = round_number

    def steps(self, epoch: int) -> int:
        return len(self._batches(self._training, epoch))

    def losses(self, network: nn.Module, epoch: int) -> Iterator[Tensor]:
        for step, batch in enumerate(self._batches(self._training, epoch)):
            generator = seeded_generator(self._settings.seed, self._round, epoch, step)
            yield self._loss(network, batch, generator, self._settings.random_views)

    def validation_loss(self, network: nn.Module) -> float:
        generator = seeded_generator(self._settings.seed, self._round, VALIDATION, VALIDATION)
        batches = self._batches(self._held_out, VALIDATION)
        losses = [self._loss(network, batch, generator, False).item() * len(batch) for batch in batches]
        return sum(losses) / len(self._held_out)

    def _batches(self, positions: Tensor, epoch: int) -> list[Tensor]:
        generator = seeded_generator(self._settings.seed, self._round, epoch)
        return shuffled(positions, self._settings.batch_size, generator)

    def _loss(self, network: nn.Module, batch: Tensor, generator: torch.Generator, random_views: bool) -> Tensor:
        first, second, different = random_pairs(self._labels[batch], PAIRS_PER_PARTICLE * len(batch), generator)
        spectra = self._spectra[batch.to(self._spectra.device)]
        vectors = network(_one_view(self._views, spectra, generator if random_views else None))
        return contrastive_loss(vectors[first], vectors[second], different.to(vectors.device), self._settings.margin)


class Triplet:
    """Particles of a given class are nearer than those of other classes, by a margin (`TripletLoss`)."""

    def __init__(self, spectra: Tensor, views: Views, labels: Tensor, training: Tensor, held_out: Tensor,
                 settings: Settings):
        self._spectra, self._views, self._settings = spectra, views, settings
        self._labels, self._training, self._held_out = labels, training, held_out
        self._criterion = TripletLoss(settings.margin)

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
        spectra = self._spectra[batch.to(self._spectra.device)]
        images = _one_view(self._views, spectra, generator if self._settings.random_views else None)
        return self._criterion(network(images), self._labels[batch].to(images.device), mine=generator is not None)


def _one_view(views: Views, spectra: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random view to train on; without a generator the image itself, as it is embedded later, to validate on."""
    return views.plain(spectra) if generator is None else views.one(spectra, generator)
