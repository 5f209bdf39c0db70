"""Pairs and triplets that are drawn one by one, each with its own images, as in the original recipes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from siamese2d_engine.devices import seeded_generator
from siamese2d_engine.embedding.batches import random_pairs, random_triplets
from siamese2d_engine.embedding.losses import contrastive_loss, drawn_triplet_loss
from siamese2d_engine.embedding.objectives import VALIDATION, one_view
from siamese2d_engine.embedding.recipe_views import ViewMaker
from siamese2d_engine.embedding.settings import Settings

# Comparisons of the validation for every held-out particle.
VALIDATION_DRAWS = 16
CHUNK = 512


class DrawnComparisons:
    """Contrastive pairs, half of them forced to be of one class, or triplets; a particle is drawn first once in an
    epoch on average.

    Parameters
    ----------
    data, views
        What is trained on ``(n, ...)``, and what makes views of a part of it.
    labels
        Classes ``(n,)``.
    training, held_out
        Positions in `data`.
    round_number
        Of the contrastive rounds.
    """

    def __init__(self, data: Tensor, views: ViewMaker, labels: Tensor, training: Tensor, held_out: Tensor,
                 settings: Settings, round_number: int):
        self._data, self._views, self._settings = data, views, settings
        self._labels, self._training, self._held_out = labels, training, held_out
        self._round = round_number

    def steps(self, epoch: int) -> int:
        """Number of losses that `losses` yields."""
        return max(1, round(len(self._training) / self._settings.batch_size))

    def losses(self, network: nn.Module, epoch: int) -> Iterator[Tensor]:
        """Losses of the steps of an epoch, each with its gradient graph."""
        for step in range(self.steps(epoch)):
            generator = seeded_generator(self._settings.seed, self._round, epoch, step)
            members, different = self._draw(self._training, self._settings.batch_size, generator)
            images = one_view(self._views, self._data, torch.cat(members), generator)
            yield self._loss(network(images).chunk(len(members)), different)

    def validation_loss(self, network: nn.Module) -> float:
        """Loss on held-out particles, by the same draws at every call."""
        generator = seeded_generator(self._settings.seed, self._round, VALIDATION, VALIDATION)
        members, different = self._draw(self._held_out, VALIDATION_DRAWS * len(self._held_out), generator)
        # Each particle is embedded once, however often it is drawn.
        vectors = torch.cat([network(one_view(self._views, self._data, part, None))
                             for part in self._held_out.split(CHUNK)])
        places = [torch.searchsorted(self._held_out, part).to(vectors.device) for part in members]
        return self._loss([vectors[place] for place in places], different).item()

    def _draw(self, positions: Tensor, count: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor | None]:
        """The first, second (and third) particles, and for pairs whether they are of different classes."""
        labels = self._labels[positions]
        if self._settings.mode == "triplet":
            return [positions[part] for part in random_triplets(labels, count, generator)], None
        first, second, different = random_pairs(labels, count, generator)
        return [positions[first], positions[second]], different

    def _loss(self, vectors: list[Tensor] | tuple[Tensor, ...], different: Tensor | None) -> Tensor:
        if different is None:
            return drawn_triplet_loss(*vectors, self._settings.margin)
        return contrastive_loss(*vectors, different.to(vectors[0].device), self._settings.margin)
