"""The networks, the labels and the objectives of a training's rounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from siamese2d_engine import distributed
from siamese2d_engine.devices import seed_from, seeded_generator
from siamese2d_engine.embedding.backbone_network import FEATURE_CHUNK, FrozenResNet50, SimSiam
from siamese2d_engine.embedding.drawn_objectives import DrawnComparisons
from siamese2d_engine.embedding.elbow import kmeans_labels
from siamese2d_engine.embedding.features import invariant_features, pca_features
from siamese2d_engine.embedding.inference import EmbeddingModel, embed_shared
from siamese2d_engine.embedding.networks import NETWORKS, build_network
from siamese2d_engine.embedding.objectives import Contrastive, Objective, SelfSupervised, Triplet
from siamese2d_engine.embedding.prepare import soft_mask
from siamese2d_engine.embedding.recipe_views import CachedViews, PlainViews, ViewMaker, make_views
from siamese2d_engine.embedding.resnet import load_backbone, random_backbone
from siamese2d_engine.embedding.settings import Settings
from siamese2d_engine.embedding.split import random_split, stratified_split
from siamese2d_engine.embedding.training import Progress
from siamese2d_engine.errors import InputError
from siamese2d_engine.progress import progress as show_progress
from siamese2d_engine.runs import Run

# Random views of a particle whose features are computed once by a frozen backbone.
COPIES = 2
PCA_COMPONENTS = 20
# Draws that no epoch has.
CACHE = -4


@dataclass
class Work:
    """Makes what the rounds of a training need.

    Attributes
    ----------
    run : Run
        For warnings.
    model : EmbeddingModel
        With the network to start from; the backbone of a new one is set here.
    spectra : Tensor
        Prepared ``(n, w, w // 2 + 1)``.
    settings : Settings
        Of the training.
    new : bool
        The model is new: rounds start from random weights.
    device : device
        Where to compute.
    backbone : Path or None
        Weights of a residual network.
    """

    run: Run
    model: EmbeddingModel
    spectra: Tensor
    settings: Settings
    new: bool
    device: torch.device | str
    backbone: Path | None

    def __post_init__(self):
        model = self.model
        mask = soft_mask(model.preparation.working_box, model.preparation.mask_radius).to(self.spectra.device)
        free = not NETWORKS[model.network_name].invariant and not model.aligned
        self._plain = PlainViews(mask)
        shift = self.settings.shift * model.preparation.working_box
        self._views = make_views(self.settings.views, mask, shift, free)
        self._data = self.spectra
        self._frozen = isinstance(model.network, FrozenResNet50)
        if self._frozen:
            self._set_backbone()
            self._data, self._views = self._cached_features(), CachedViews()
        self._start = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}

    def trained(self, round_number: int) -> nn.Module:
        """What is trained in a round: a network with new weights from (seed, round), or with those of the model to
        start from; of a frozen one its head, with SimSiam a network inside its helpers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(self.settings.seed, round_number))
            network = build_network(self.model.network_name, self.model.network_parameters)
            trained = network
            if self.settings.loss == "simsiam":
                trained = SimSiam(network, self.model.dimensions)
        if not self.new:
            network.load_state_dict(self._start)
        elif self.model.averages is not None:
            known = self.model.averages.filters.weights
            with torch.no_grad():
                network.filters.weights[..., : known.shape[-1]] = known.cpu()
        return (network.head if self._frozen else trained).to(self.device)

    def encoder(self, trained: nn.Module) -> nn.Module:
        """The whole network with what was trained."""
        if self._frozen:
            self.model.network.head = trained
            return self.model.network
        return trained.encoder if isinstance(trained, SimSiam) else trained

    def first_labels(self, given: np.ndarray | None) -> Tensor:
        """Labels of the first round: given, by k-means, or none in self-supervised mode."""
        settings = self.settings
        if given is not None:
            return torch.as_tensor(given).long()
        if settings.mode != "contrastive":
            return torch.zeros(0, dtype=torch.long)
        if settings.classes > len(self.spectra) // 2:
            raise InputError(f"--classes {settings.classes}: more than half of the {len(self.spectra)} particles. "
                             "Give fewer classes, or more particles.")
        features = (self._first_features() if self.new else
                    embed_shared(self.model, self.spectra, self.device))
        found = distributed.from_main(lambda: kmeans_labels(features, settings.classes, settings.seed))
        return torch.as_tensor(found).long()

    def objective(self, progress: Progress) -> Objective:
        """What to train for in the present round."""
        settings, labels, count = self.settings, progress.labels, len(self.spectra)
        if settings.mode == "triplet":
            split = stratified_split(labels.numpy(), 0.2, settings.seed)
        else:
            split = random_split(count, max(4, count // 10), settings.seed)
        if settings.mode == "self-supervised":
            return SelfSupervised(self._data, self._views, *split, settings)
        if settings.comparisons == "drawn":
            return DrawnComparisons(self._data, self._views, labels, *split, settings, progress.round)
        if settings.mode == "triplet":
            return Triplet(self._data, self._views, labels, *split, settings)
        return Contrastive(self._data, self._views, labels, *split, settings, progress.round)

    def _first_features(self) -> np.ndarray:
        """Features ``(n, d)`` for the first clusters; invariant ones where there are no weights of a ResNet-18."""
        kind = self.settings.first_labels
        if kind == "resnet18" and self.backbone is None:
            self.run.warn("No --backbone with the weights of a ResNet-18: the first clusters come from features that "
                          "ignore rotations instead.")
            kind = "invariant"
        images = self._plain.plain(self.spectra)
        if kind == "resnet18":
            network = load_backbone(self.backbone, 18).to(images.device)
            with torch.inference_mode():
                return torch.cat([network(chunk) for chunk in images.split(FEATURE_CHUNK)]).cpu().numpy()
        return (invariant_features(images) if kind == "invariant" else
                pca_features(images, PCA_COMPONENTS)).cpu().numpy()

    def _set_backbone(self) -> None:
        network = self.model.network
        if self.new and self.backbone is not None:
            network.backbone = load_backbone(self.backbone, 50)
        elif self.new:
            self.run.warn("No --backbone with the weights of a ResNet-50: its features are those of random weights, "
                          "which tell particles apart less well than weights trained on photographs.")
            network.backbone = random_backbone(50, self._plain.plain(self.spectra), self.settings.seed)
        network.to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        return distributed.joined(self.model.network.features(distributed.share(images)), len(images))

    def _cached_features(self) -> Tensor:
        """Features ``(n, 1 + copies, d)`` of plain images and, where views are random, of some of them."""
        views: list[ViewMaker] = [self._plain] + [self._views] * (COPIES if self.settings.views != "plain" else 0)
        generator = seeded_generator(self.settings.seed, CACHE)
        columns = []
        for view in views:
            chunks = show_progress(self.spectra.split(FEATURE_CHUNK), "backbone", len(self.spectra), "particle",
                                   count=len)
            columns.append(torch.cat([self._features(view.one(chunk, generator).to(self.device)) for chunk in chunks]))
        return torch.stack(columns, dim=1)
