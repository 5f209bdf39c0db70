"""What a training sees: some particles or all, prepared, centred and held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine import distributed
from siamese2d_engine.devices import seed_from
from siamese2d_engine.embedding.averages import average_centring
from siamese2d_engine.embedding.backbone_network import FrozenResNet50
from siamese2d_engine.embedding.centring import fit_profile
from siamese2d_engine.embedding.centring_network import train_centring
from siamese2d_engine.embedding.inference import CHUNK, EmbeddingModel, centred, given_alignment, roughly_centred
from siamese2d_engine.embedding.prepare import read_spectra
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.particles import ParticleSet
from siamese2d_engine.runs import Run

# Spectra, and the copies of them that some steps need.
COPIES = 2.5
# Features that a frozen backbone keeps of each particle: of it and of two random views.
CACHED_FEATURES = 3 * 2048
# Particles that the centring is learnt from, evenly spread over the set.
CENTRED = 20_000
# Members that each class keeps when not all particles are trained on.
LEAST_MEMBERS = 3
# Draws that no epoch has.
CHOICE = -5


def trained_on(count: int, model: EmbeddingModel, memory: float, labels: np.ndarray | None, seed: int) -> np.ndarray:
    """Rows, in order, of the particles to train on: all, or as many drawn from `seed` as `memory` gigabytes hold.

    Parameters
    ----------
    count
        Number of particles.
    labels
        Their classes ``(count,)``, of which each keeps some members; None without classes.
    """
    most = max(LEAST_MEMBERS, int(memory * 1e9 / bytes_per_particle(model)))
    if count <= most:
        return np.arange(count)
    drawn = np.random.default_rng(seed_from(seed, CHOICE)).permutation(count)
    if labels is not None:
        by_class = drawn[np.argsort(labels[drawn], kind="stable")]
        sizes = np.bincount(labels)
        place = np.arange(count) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        drawn = np.concatenate([by_class[place < LEAST_MEMBERS], np.setdiff1d(drawn, by_class[place < LEAST_MEMBERS],
                                                                             assume_unique=True)])
    return np.sort(drawn[:most])


def bytes_per_particle(model: EmbeddingModel) -> float:
    """Memory that a training needs for each particle."""
    width = model.preparation.working_box
    features = CACHED_FEATURES * 4 if isinstance(model.network, FrozenResNet50) else 0
    return COPIES * width * (width // 2 + 1) * 8 + features


def training_spectra(run: Run, particles: ParticleSet, source: Path, model: EmbeddingModel, fit: bool, seed: int,
                     device: torch.device | str, labels: np.ndarray | None) -> Tensor:
    """Prepared and centred spectra ``(n, w, w // 2 + 1)``; several processes share the work.

    Parameters
    ----------
    run, particles, source
        For warnings, what, and the file that the particles came from (for messages).
    model
        Says how to prepare them; its centring is learnt here when `fit` asks for it.
    seed
        Of what is drawn.
    device
        Where to compute.
    labels
        Classes ``(n,)`` of which the averages are to centre the particles; None without them.
    """
    count = len(particles)
    mine = distributed.share(np.arange(count))
    part = particles if len(mine) == count else particles.subset(mine)
    spectra = distributed.joined(read_spectra(part, model.preparation, run.warn, mine), count).to(device)
    if fit and model.centre:
        some = spectra if count <= CENTRED else spectra[np.linspace(0, count - 1, CENTRED).astype(int)]
        model.profile = fit_profile(some).cpu()
        model.centring = train_centring(roughly_centred(some, model), seed, device)
    alignment = given_alignment(particles, model.preparation)
    if labels is not None:
        if alignment is None:
            raise InputError(f"{source}: no columns rlnAnglePsi, rlnOriginXAngst and rlnOriginYAngst, which averages "
                             "need. Give the particles of an aligned classification, or train with --filters random.")
        model.averages = average_centring(spectra, torch.as_tensor(labels), alignment)
    if model.aligned and alignment is not None:
        print("The particles are aligned by their columns rlnAnglePsi, rlnOriginXAngst and rlnOriginYAngst.",
              flush=True)
    own = distributed.share(spectra)
    for rows in np.array_split(np.arange(len(own)), -(-len(own) // CHUNK) or 1):
        own[rows[0]:rows[-1] + 1] = centred(own[rows[0]:rows[-1] + 1], part.subset(rows), model)
    return distributed.joined(own, count)
