"""The stage ``train``: particles in, an embedding model and the particles' vectors out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from siamese2d_engine.devices import seed_from
from siamese2d_engine.embedding.centring import fit_profile
from siamese2d_engine.embedding.centring_network import CentringNetwork, train_centring
from siamese2d_engine.embedding.elbow import elbow, kmeans_labels
from siamese2d_engine.embedding.features import invariant_features, pca_features
from siamese2d_engine.embedding.inference import (
    EmbeddingModel,
    centred,
    embed_spectra,
    given_alignment,
    load_embedding_model,
    roughly_centred,
    save_embedding_model,
)
from siamese2d_engine.embedding.networks import NETWORKS, build_network
from siamese2d_engine.embedding.objectives import Contrastive, Objective, SelfSupervised, Triplet
from siamese2d_engine.embedding.prepare import Preparation, read_spectra, soft_mask
from siamese2d_engine.embedding.settings import Architecture, Settings
from siamese2d_engine.embedding.split import random_split, stratified_split
from siamese2d_engine.embedding.training import Progress, load_progress, train_round
from siamese2d_engine.embedding.views import Views
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path, write_json
from siamese2d_engine.io.particles import ParticleSet
from siamese2d_engine.runs import Run

FEWEST_PARTICLES = 20
CLASS_COLUMN = "rlnClassNumber"


def train_embedding(run: Run, particles: ParticleSet, source: Path, settings: Settings, architecture: Architecture,
                    device: torch.device | str = "cpu", start: Path | None = None) -> None:
    """Train an encoder and embed the particles that it was trained on.

    Writes ``embedding.safetensors``, ``embeddings.npy`` and ``training.json`` into the run's folder, and keeps
    ``checkpoint.safetensors`` while training, to resume from.

    Parameters
    ----------
    run, particles, source
        Where to, what, and the file that the particles came from (for messages).
    settings, architecture
        How. With `start`, network, dimensions and preparation come from that model.
    device
        Where to compute.
    start
        A model to go on from.

    Raises
    ------
    InputError
        When there are too few particles, a bad one, or no usable classes in triplet mode.
    """
    _check_count(particles, source)
    labels = given_classes(particles, source) if settings.mode == "triplet" else None
    model = load_embedding_model(start) if start else _new_model(particles, architecture, settings)
    model = replace(model, mode=settings.mode, unit_length=settings.mode != "contrastive")
    spectra = _prepare(run, particles, model, start is None, settings.seed, device)
    checkpoint = run.path("checkpoint.safetensors")
    work = _Work(model, spectra, settings, architecture if start is None else None, device)
    progress = load_progress(checkpoint) if checkpoint.exists() else Progress(1, [], work.first_labels(labels), {})
    while True:
        network = work.network(progress.round)
        objective = work.objective(progress, labels is not None)
        train_round(network, objective, settings, progress, checkpoint, _print_record)
        model.network = network
        if progress.round >= _rounds(settings):
            break
        vectors = embed_spectra(model, spectra, device)
        next_labels = torch.as_tensor(kmeans_labels(vectors, settings.classes, settings.seed)).long()
        progress = Progress(progress.round + 1, progress.records, next_labels, {})
    _write(run, model, progress, spectra, settings, device, len(particles))
    checkpoint.unlink(missing_ok=True)


def given_classes(particles: ParticleSet, source: Path) -> np.ndarray:
    """Classes ``(n,)`` from 0, from the particles' table.

    Raises
    ------
    InputError
        When the column is missing or damaged, there is one class only, or a class has one member.
    """
    if CLASS_COLUMN not in particles.table:
        raise InputError(f"{source}: no column {CLASS_COLUMN}, which triplet mode learns from. Give particles with "
                         "classes (the output of a 2D classification), or train with --mode self-supervised.")
    numbers = pd.to_numeric(particles.table[CLASS_COLUMN], errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise InputError(f"{source}, particle row {bad[0] + 1}: {CLASS_COLUMN} is not a number. Mend or remove the "
                         "row.")
    classes, labels, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"{source}: all particles are in class {classes[0]:g}. Triplet mode needs at least two "
                         "classes; take more classes, or train with --mode self-supervised.")
    if sizes.min() < 2:
        alone = ", ".join(f"{number:g}" for number in classes[sizes < 2][:10])
        raise InputError(f"{source}: classes with a single particle ({alone}). A triplet needs two particles of a "
                         "class: remove these particles, or merge their classes.")
    if (sizes >= 3).sum() < 2:
        raise InputError(f"{source}: fewer than two classes with three particles or more, so that none can be held "
                         "out. Give more particles for each class.")
    return labels


def _check_count(particles: ParticleSet, source: Path) -> None:
    if len(particles) < FEWEST_PARTICLES:
        raise InputError(f"{source}: {len(particles)} particles are too few to train on (at least {FEWEST_PARTICLES}; "
                         "hundreds to learn anything). Give more particles, or use a model trained before.")


def _new_model(particles: ParticleSet, architecture: Architecture, settings: Settings) -> EmbeddingModel:
    preparation = Preparation.for_particles(particles, architecture.working_box, architecture.phase_flip,
                                            architecture.mask_diameter)
    parameters = {"working_box": preparation.working_box, "dimensions": architecture.dimensions}
    aligned = settings.mode == "triplet" and given_alignment(particles, preparation) is not None
    network = build_network(architecture.network, parameters)
    profile = torch.zeros(preparation.working_box // 2 + 1)
    return EmbeddingModel(architecture.network, parameters, network, preparation, profile,
                          CentringNetwork(preparation.working_box), aligned, True, settings.mode, {})


def _prepare(run: Run, particles: ParticleSet, model: EmbeddingModel, fit: bool, seed: int,
             device: torch.device | str) -> Tensor:
    """Prepared and centred spectra; `fit` learns the model's centring first."""
    spectra = read_spectra(particles, model.preparation, run.warn).to(device)
    if fit:
        model.profile = fit_profile(spectra).cpu()
        model.centring = train_centring(roughly_centred(spectra, model), seed, device)
    if model.aligned and given_alignment(particles, model.preparation) is not None:
        print("The particles are aligned by their columns rlnAnglePsi, rlnOriginXAngst and rlnOriginYAngst.",
              flush=True)
    return centred(spectra, particles, model)


class _Work:
    """Makes the networks, the labels and the objectives of the rounds."""

    def __init__(self, model: EmbeddingModel, spectra: Tensor, settings: Settings, architecture: Architecture | None,
                 device: torch.device | str):
        self._model, self._spectra, self._settings, self._device = model, spectra, settings, device
        self._new = architecture is not None
        self._start = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        invariant = NETWORKS[model.network_name].invariant
        mask = soft_mask(model.preparation.working_box, model.preparation.mask_radius).to(spectra.device)
        free = not invariant and not model.aligned
        self._views = Views(mask, settings.shift * model.preparation.working_box, rotate=free, mirror=free)

    def network(self, round_number: int) -> nn.Module:
        """A network for a round: new weights from (seed, round), or those of the model to start from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(self._settings.seed, round_number))
            network = build_network(self._model.network_name, self._model.network_parameters)
        if not self._new:
            network.load_state_dict(self._start)
        return network.to(self._device)

    def first_labels(self, given: np.ndarray | None) -> Tensor:
        """Labels of the first round: given, by k-means, or none in self-supervised mode."""
        settings = self._settings
        if given is not None:
            return torch.as_tensor(given).long()
        if settings.mode != "contrastive":
            return torch.zeros(0, dtype=torch.long)
        if settings.classes > len(self._spectra) // 2:
            raise InputError(f"--classes {settings.classes}: more than half of the {len(self._spectra)} particles. "
                             "Give fewer classes, or more particles.")
        if not self._new:
            features = embed_spectra(self._model, self._spectra, self._device)
        else:
            images = self._views.plain(self._spectra)
            invariant = settings.first_labels == "invariant"
            features = (invariant_features(images) if invariant else pca_features(images, 20)).cpu().numpy()
        return torch.as_tensor(kmeans_labels(features, settings.classes, settings.seed)).long()

    def objective(self, progress: Progress, given: bool) -> Objective:
        """What to train for in the present round."""
        settings, count = self._settings, len(self._spectra)
        if given:
            split = stratified_split(progress.labels.numpy(), 0.2, settings.seed)
            return Triplet(self._spectra, self._views, progress.labels, *split, settings)
        split = random_split(count, max(4, count // 10), settings.seed)
        if settings.mode == "contrastive":
            return Contrastive(self._spectra, self._views, progress.labels, *split, settings, progress.round)
        return SelfSupervised(self._spectra, self._views, *split, settings)


def _rounds(settings: Settings) -> int:
    return settings.rounds if settings.mode == "contrastive" else 1


def _print_record(record: dict) -> None:
    print(f"round {record['round']}, epoch {record['epoch']}: loss {record['loss']:.4f}, held out "
          f"{record['validation_loss']:.4f}", flush=True)


def _write(run: Run, model: EmbeddingModel, progress: Progress, spectra: Tensor, settings: Settings,
           device: torch.device | str, count: int) -> None:
    vectors = embed_spectra(model, spectra, device)
    with atomic_path(run.path("embeddings.npy")) as partial:
        np.save(partial, vectors)
    record = {
        "mode": settings.mode, "network": model.network_name, "particles": count, "dimensions": model.dimensions,
        "epochs": progress.records, "best_epoch": progress.best_epoch, "rounds": progress.round,
    }
    model.training = record
    save_embedding_model(run.path("embedding.safetensors"), model)
    groups = elbow(vectors, settings.seed)
    write_json(run.path("training.json"), {**record, "device": str(device), "elbow": groups})
    best = progress.of_round[progress.best_epoch - 1]
    run.results.update(particles=count, best_epoch=progress.best_epoch, validation_loss=best["validation_loss"])
