"""The stage ``train``: particles in, an embedding model and the particles' vectors out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from siamese2d_engine import distributed
from siamese2d_engine.embedding.averages import HARMONICS
from siamese2d_engine.embedding.centring_network import CentringNetwork
from siamese2d_engine.embedding.elbow import elbow, kmeans_labels
from siamese2d_engine.embedding.inference import (
    EmbeddingModel,
    embed_particles,
    embed_shared,
    given_alignment,
    load_embedding_model,
    save_embedding_model,
)
from siamese2d_engine.embedding.map import two_step_map
from siamese2d_engine.embedding.networks import build_network
from siamese2d_engine.embedding.prepare import Preparation
from siamese2d_engine.embedding.settings import Architecture, Settings
from siamese2d_engine.embedding.training import Progress, load_progress, train_round
from siamese2d_engine.embedding.training_data import trained_on, training_spectra
from siamese2d_engine.embedding.work import Work
from siamese2d_engine.errors import InputError
from siamese2d_engine.evaluate.embeddings import cosine_matrix, diagonal_dominance
from siamese2d_engine.io.atomic import atomic_path, write_json
from siamese2d_engine.io.particles import ParticleSet
from siamese2d_engine.runs import Run

FEWEST_PARTICLES = 20
# Filters that a network has at least, when others start from the averages of classes.
LEAST_FILTERS = 64
CLASS_COLUMN = "rlnClassNumber"


def train_embedding(run: Run, particles: ParticleSet, source: Path, settings: Settings, architecture: Architecture,
                    device: torch.device | str = "cpu", start: Path | None = None,
                    backbone: Path | None = None) -> None:
    """Train an encoder and embed the particles. Where these are too many to be held, it is trained on some of them.

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
    backbone
        Weights of a residual network: of the network ``resnet50``, or for the first labels ``resnet18``.

    Raises
    ------
    InputError
        When there are too few particles, a bad one, or no usable classes in triplet mode.
    """
    _check_count(particles, source)
    labels, numbers = given_classes(particles, source) if settings.mode == "triplet" else (None, None)
    classes = 0 if labels is None else int(labels.max()) + 1
    model = load_embedding_model(start) if start else _new_model(particles, architecture, settings, classes)
    model = replace(model, mode=settings.mode, unit_length=settings.mode != "contrastive")
    averages = start is None and architecture.filters == "averages"
    rows = trained_on(len(particles), model, settings.memory, labels, settings.seed)
    chosen = particles
    if len(rows) < len(particles):
        run.warn(f"{len(rows)} of {len(particles)} particles, drawn at random, fit into --memory {settings.memory:g} "
                 "and are trained on; all are embedded.")
        chosen, labels = particles.subset(rows), None if labels is None else labels[rows]
    spectra = training_spectra(run, chosen, source, model, start is None, settings.seed, device,
                               labels if averages else None)
    checkpoint = run.path("checkpoint.safetensors")
    work = Work(run, model, spectra, settings, start is None, device, backbone)
    progress = load_progress(checkpoint) if checkpoint.exists() else Progress(1, [], work.first_labels(labels), {})
    while True:
        trained = work.trained(progress.round)
        train_round(trained, work.objective(progress), settings, progress, checkpoint)
        model.network = work.encoder(trained)
        if progress.round >= _rounds(settings):
            break
        vectors = embed_shared(model, spectra, device)
        found = distributed.from_main(lambda: kmeans_labels(vectors, settings.classes, settings.seed))
        next_labels = torch.as_tensor(found).long()
        progress = Progress(progress.round + 1, progress.records, next_labels, {})
    if chosen is particles:
        vectors = embed_shared(model, spectra, device)
    else:
        del spectra, work
        vectors = embed_particles(model, particles, device, report=run.warn)
    if distributed.is_main():
        _write(run, model, progress, vectors, rows, numbers, settings, device)
        checkpoint.unlink(missing_ok=True)


def _best_clusters(vectors: np.ndarray, groups: list[dict], seed: int) -> np.ndarray:
    """Clusters of as many classes as the silhouette finds; one where there is no elbow."""
    if not groups:
        return np.zeros(len(vectors), dtype=int)
    return kmeans_labels(vectors, max(groups, key=lambda row: row["silhouette"])["k"], seed)


def _cosine_record(vectors: np.ndarray, labels: np.ndarray) -> dict:
    classes, matrix = cosine_matrix(vectors, labels)
    return {
        "classes": classes.tolist(),
        "matrix": [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in matrix],
        "diagonal_dominance": diagonal_dominance(matrix),
    }


def given_classes(particles: ParticleSet, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Classes ``(n,)`` from 0, from the particles' table, and the number ``(K,)`` that each has there.

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
    return labels, classes.astype(int)


def _check_count(particles: ParticleSet, source: Path) -> None:
    if len(particles) < FEWEST_PARTICLES:
        raise InputError(f"{source}: {len(particles)} particles are too few to train on (at least {FEWEST_PARTICLES}; "
                         "hundreds to learn anything). Give more particles, or use a model trained before.")


def _new_model(particles: ParticleSet, architecture: Architecture, settings: Settings, classes: int) -> EmbeddingModel:
    preparation = Preparation.for_particles(particles, architecture.working_box, architecture.phase_flip,
                                            architecture.mask_diameter)
    parameters = {"working_box": preparation.working_box, "dimensions": architecture.dimensions}
    if architecture.hidden is not None:
        parameters["hidden"] = list(architecture.hidden)
    averages = architecture.filters == "averages"
    if averages:
        parameters |= {"harmonics": HARMONICS, "channels": max(LEAST_FILTERS, classes)}
    # With averages, particles are brought to them in the same way in training and later, when nothing is known.
    aligned = (settings.mode == "triplet" and not averages and
               given_alignment(particles, preparation) is not None)
    network = build_network(architecture.network, parameters)
    profile = torch.zeros(preparation.working_box // 2 + 1)
    return EmbeddingModel(architecture.network, parameters, network, preparation, profile,
                          CentringNetwork(preparation.working_box), None, architecture.centre, aligned, True,
                          settings.mode, {})


def _rounds(settings: Settings) -> int:
    return settings.rounds if settings.mode == "contrastive" else 1


def _write(run: Run, model: EmbeddingModel, progress: Progress, vectors: np.ndarray, rows: np.ndarray,
           numbers: np.ndarray | None, settings: Settings, device: torch.device | str) -> None:
    """The files; `rows` are the particles that were trained on, `numbers` those of given classes."""
    with atomic_path(run.path("embeddings.npy")) as partial:
        np.save(partial, vectors)
    record = {
        "mode": settings.mode, "network": model.network_name, "particles": len(rows), "dimensions": model.dimensions,
        "epochs": progress.records, "best_epoch": progress.best_epoch, "rounds": progress.round,
    }
    model.training = record
    save_embedding_model(run.path("embedding.safetensors"), model)
    groups = elbow(vectors, settings.seed)
    trained = vectors[rows]
    if not groups:
        run.warn("All particles have the same vector, so nothing tells them apart. Are they copies of one image?")
    labels = progress.labels.numpy() if len(progress.labels) else _best_clusters(trained, groups, settings.seed)
    labels = labels + 1 if numbers is None else numbers[labels]
    plane = {"map": two_step_map(vectors, settings.seed)} if settings.plot else {}
    content = {**record, "device": str(device), "elbow": groups, "cosine": _cosine_record(trained, labels), **plane}
    write_json(run.path("training.json"), content)
    best = progress.of_round[progress.best_epoch - 1]
    run.results.update(particles=len(vectors), best_epoch=progress.best_epoch, validation_loss=best["validation_loss"])
