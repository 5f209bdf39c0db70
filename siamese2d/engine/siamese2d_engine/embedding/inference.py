"""An embedding model: its file, and vectors of particles by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from siamese2d_engine import distributed
from siamese2d_engine.batches import Room
from siamese2d_engine.embedding.averages import AverageCentring
from siamese2d_engine.embedding.centring import find_shifts, shift_spectra
from siamese2d_engine.embedding.centring_network import CentringNetwork, apply_centring
from siamese2d_engine.embedding.networks import build_network
from siamese2d_engine.embedding.prepare import (
    Preparation,
    align,
    given_shifts,
    read_spectra,
    soft_mask,
    to_images,
)
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.models import load_model, save_model
from siamese2d_engine.io.particles import ParticleSet
from siamese2d_engine.progress import progress

KIND = "embedding"
# Particles whose spectra are in memory at a time.
CHUNK = 4096


@dataclass
class EmbeddingModel:
    """A trained encoder with all that is needed to use it.

    Attributes
    ----------
    network_name, network_parameters : str, dict
        For `build_network`.
    network : Module
        With its weights, in evaluation mode.
    preparation : Preparation
        Of the images.
    profile : Tensor
        ``(w // 2 + 1,)`` for the first, rough centring.
    centring : CentringNetwork
        For the second, fine one.
    averages : AverageCentring or None
        For the third, of models that know classes.
    centre : bool
        Centre particles before embedding.
    aligned : bool
        Trained on images aligned by their columns; particles that have such columns are aligned before embedding.
    unit_length : bool
        The vectors are compared by their direction, and scaled to length 1.
    mode : str
        Of the training.
    training : dict
        Record of the training.
    """

    network_name: str
    network_parameters: dict
    network: nn.Module
    preparation: Preparation
    profile: Tensor
    centring: CentringNetwork
    averages: AverageCentring | None
    centre: bool
    aligned: bool
    unit_length: bool
    mode: str
    training: dict

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self.network_parameters["dimensions"]


def save_embedding_model(path: str | os.PathLike, model: EmbeddingModel) -> None:
    """Write a model file (safetensors with a JSON header)."""
    header = {
        "kind": KIND, "architecture": model.network_name, "parameters": model.network_parameters,
        "preparation": model.preparation.to_header(), "pixel_size": model.preparation.pixel_size,
        "box": model.preparation.box, "dimensions": model.dimensions, "mode": model.mode, "centre": model.centre,
        "averages": 0 if model.averages is None else model.averages.classes, "aligned": model.aligned,
        "unit_length": model.unit_length, "training": model.training,
    }
    tensors = {f"network.{name}": tensor for name, tensor in model.network.state_dict().items()}
    tensors |= {f"centring.{name}": tensor for name, tensor in model.centring.state_dict().items()}
    if model.averages is not None:
        tensors |= {f"averages.{name}": tensor for name, tensor in model.averages.state_dict().items()}
    save_model(path, header, tensors | {"profile": model.profile})


def load_embedding_model(path: str | os.PathLike) -> EmbeddingModel:
    """Read a model file.

    Raises
    ------
    InputError
        If the file is missing, damaged, no embedding, or from a version with other networks.
    """
    header, tensors = load_model(path, KIND)
    try:
        network = build_network(header["architecture"], header["parameters"])
        preparation = Preparation(**header["preparation"])
        centring = CentringNetwork(preparation.working_box)
        averages = AverageCentring(preparation.working_box, header["averages"]) if header["averages"] else None
        parts = {"network.": network, "centring.": centring} | ({"averages.": averages} if averages else {})
        for part, module in parts.items():
            module.load_state_dict({name.removeprefix(part): tensor for name, tensor in tensors.items()
                                    if name.startswith(part)})
        return EmbeddingModel(header["architecture"], header["parameters"], network.eval(), preparation,
                              tensors["profile"], centring.eval(), averages, header["centre"], header["aligned"],
                              header["unit_length"], header["mode"], header["training"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: the model doesn't fit this version of the engine ({str(error).splitlines()[0]}). "
                         "Train it again.") from error


def embed(model_path: str | os.PathLike, particles: ParticleSet, device: torch.device | str = "cpu",
          batch_size: int = 512, report: Callable[[str], None] = print) -> np.ndarray:
    """Vectors of particles by a model file.

    Parameters
    ----------
    model_path
        A file that the stage ``train`` wrote.
    particles
        Of any box; particles of another pixel size than the model's are rescaled.
    device
        Where to compute.
    batch_size
        Particles at a time in the network.
    report
        Called with sentences that the user should see, for instance that the particles are rescaled.

    Returns
    -------
    ndarray
        float32 ``(n, d)`` in the order of `particles`; of length 1 where the model compares directions.

    Raises
    ------
    InputError
        When the model doesn't fit, or a particle is constant or not finite.
    """
    return embed_particles(load_embedding_model(model_path), particles, device, batch_size, report)


def embed_particles(model: EmbeddingModel, particles: ParticleSet, device: torch.device | str = "cpu",
                    batch_size: int = 512, report: Callable[[str], None] = print) -> np.ndarray:
    """As `embed`, by a model in memory; several processes share the particles."""
    if model.aligned and given_alignment(particles, model.preparation) is None:
        report("The model was trained on aligned particles; these have no alignment, so they are "
               f"{'centred only' if model.centre else 'taken as they are'}.")
    vectors = torch.zeros(len(particles), model.dimensions)
    said: set[str] = set()

    def report_once(message: str) -> None:
        if message not in said:
            said.add(message)
            report(message)

    mine = distributed.share(range(len(particles)))
    for start in range(mine.start, mine.stop, CHUNK):
        rows = np.arange(start, min(start + CHUNK, mine.stop))
        part = particles.subset(rows)
        spectra = read_spectra(part, model.preparation, report_once, rows).to(device)
        vectors[rows] = torch.from_numpy(embed_spectra(model, centred(spectra, part, model), device, batch_size))
    distributed.add(vectors)
    return vectors.numpy()


def centred(spectra: Tensor, particles: ParticleSet, model: EmbeddingModel) -> Tensor:
    """Prepared spectra of particles, aligned by their columns if the model wants that, else centred by the model, or
    left where they are by a model that centres nothing."""
    alignment = given_alignment(particles, model.preparation) if model.aligned else None
    if alignment is not None:
        return align(spectra, *(part.to(spectra.device) for part in alignment))
    if not model.centre:
        return spectra
    spectra = apply_centring(model.centring, roughly_centred(spectra, model))
    return spectra if model.averages is None else model.averages.to(spectra.device).centre(spectra)


def roughly_centred(spectra: Tensor, model: EmbeddingModel) -> Tensor:
    """Spectra centred by correlation with the model's profile."""
    return shift_spectra(spectra, find_shifts(spectra, model.profile.to(spectra.device)))


def given_alignment(particles: ParticleSet, preparation: Preparation) -> tuple[Tensor, Tensor, Tensor] | None:
    """Shifts, angles and flips for `align` from the particles' columns; None where they have no psi or origin."""
    shifts = given_shifts(particles, preparation)
    if shifts is None or "rlnAnglePsi" not in particles.table:
        return None
    angles = torch.deg2rad(torch.from_numpy(particles.table["rlnAnglePsi"].to_numpy(np.float32).copy()))
    flips = torch.zeros(len(particles), dtype=torch.bool)
    if "rlnIsFlip" in particles.table:
        flips = torch.from_numpy(particles.table["rlnIsFlip"].to_numpy(float) > 0)
    return shifts, angles, flips


def embed_shared(model: EmbeddingModel, spectra: Tensor, device: torch.device | str = "cpu") -> np.ndarray:
    """Vectors ``(n, d)`` of prepared and centred spectra that all processes hold; they share the work."""
    mine = torch.from_numpy(embed_spectra(model, distributed.share(spectra), device))
    return distributed.joined(mine, len(spectra)).numpy()


def embed_spectra(model: EmbeddingModel, spectra: Tensor, device: torch.device | str = "cpu",
                  batch_size: int = 512) -> np.ndarray:
    """Vectors ``(n, d)`` of prepared and centred spectra; by this process alone."""
    network = model.network.to(device).eval()
    mask = soft_mask(model.preparation.working_box, model.preparation.mask_radius).to(device)

    def vectors_of(rows: slice) -> Tensor:
        return network(to_images(spectra[rows].to(device)) * mask).cpu()

    with torch.inference_mode():
        batches = Room(batch_size).batches(vectors_of, len(spectra))
        joined = torch.cat(list(progress(batches, "embed", len(spectra), "particle", count=len)))
    return (torch.nn.functional.normalize(joined) if model.unit_length else joined).numpy()
