"""The stage ``classify``: particles into aligned 2D classes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans

from siamese2d_engine.classify import quality
from siamese2d_engine.classify.engine import Classifier, State
from siamese2d_engine.classify.prepare import CHUNK, CircularMask, ring_step, sample_bytes, transform
from siamese2d_engine.classify.realspace import Alignment, HalfAverages, class_averages
from siamese2d_engine.classify.schedule import Recipe, schedule
from siamese2d_engine.classify.state_file import load_state, save_state
from siamese2d_engine.ctf import CtfParameters
from siamese2d_engine.embedding.inference import embed
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import write_json
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.micrographs import resolve
from siamese2d_engine.io.particles import ParticleSet, ctf_parameters, write_particles
from siamese2d_engine.io.star import write_star
from siamese2d_engine.runs import Run

DEFAULT_MASK = 0.8      # of the box
MASK_EDGE = 0.05        # of the box
DEFAULT_REACH = 0.08    # of the box
SMALLEST_BOX = 16
FEWEST_RINGS = 4
EMBEDDING_BATCH = 256
SAMPLES = "samples.dat"
STATE = "state.safetensors"


@dataclass(frozen=True)
class Settings:
    """How particles are classified.

    Attributes
    ----------
    classes
        Number of classes; None for one for every 100 particles, from 10 to 100.
    mirror
        Put an image and its mirror image into one class.
    mask_diameter
        Angstroms; None for 0.8 of the box.
    max_shift
        How far from the box's centre particles may lie, angstroms; None for 0.08 of the box.
    max_resolution
        Angstroms; None for what the classification needs.
    ignore_ctf
        Work as if images had no CTF.
    passes
        Passes at the last resolution.
    memory
        Gigabytes (10^9 bytes) that the transformed images may take before they are kept in a file.
    seed
        Of the random start.
    """

    classes: int | None = None
    mirror: bool = True
    mask_diameter: float | None = None
    max_shift: float | None = None
    max_resolution: float | None = None
    ignore_ctf: bool = False
    passes: int = Recipe.finish
    memory: float = 4.0
    seed: int = 0


def classify_particles(
    run: Run, source: Path, particles: ParticleSet, settings: Settings, model: Path | None, device: torch.device
) -> None:
    """Classify particles and write everything into the run's folder.

    Parameters
    ----------
    run
        The run.
    source
        STAR file that the particles were read from: the images' paths may be relative to its folder.
    particles
        To be classified; images that can't be are written to ``set_apart.star``.
    settings
        See `Settings`.
    model
        Embedding whose clusters are the starting classes, or None for a random start.
    device
        Where to compute.

    Raises
    ------
    InputError
        If nothing can be classified, or a setting does not fit the particles.
    """
    particles = replace(particles, table=with_resolved_paths(particles.table, source))
    good = _set_apart(run, particles)
    mask = circular_mask(good.box, good.pixel_size, settings.mask_diameter)
    rings = number_of_rings(mask, good.pixel_size, settings.max_resolution)
    classes = number_of_classes(len(good), settings.classes)
    ctf = _ctf(run, good, settings.ignore_ctf)
    last = Recipe.last if settings.max_resolution is None else rings
    steps = schedule(classes, rings, settings.mirror, Recipe(last=last, finish=settings.passes))
    rings = max(max(step.rings, step.doubtful_rings) for step in steps)

    scratch = run.path(SAMPLES) if sample_bytes(len(good), mask, rings) > settings.memory * 1e9 else None
    images = transform(good.images, ctf, mask, rings, good.pixel_size, device, scratch)
    reach = (settings.max_shift or DEFAULT_REACH * good.box * good.pixel_size) / good.pixel_size
    classifier = Classifier(images, steps, reach, settings.seed, device)
    state_path = run.path(STATE)
    if state_path.exists():
        state = load_state(state_path, device)
    else:
        state = classifier.start(starting_labels(run, model, good, steps[0].classes, settings.seed, device))
    state = classifier.run(state, lambda done: _after_pass(done, len(steps), good.pixel_size, state_path))
    del images, classifier

    alignment, confidence, kept = final_alignment(state)
    if kept < classes:
        run.warn(f"{classes - kept} of {classes} classes ended empty; {kept} are written.")
    averages = class_averages(good.images, ctf, alignment, kept, mask, good.pixel_size, device)
    _write(run, good, state, alignment, confidence, averages, mask)
    for path in (state_path, run.path(SAMPLES)):
        path.unlink(missing_ok=True)
    run.results.update(particles=len(good), set_apart=len(particles) - len(good), classes=kept)


def circular_mask(box: int, pixel_size: float, diameter: float | None) -> CircularMask:
    """The mask for a diameter in angstroms, by default `DEFAULT_MASK` of the box.

    Raises
    ------
    InputError
        If the box is too small to work with, or the mask does not fit into it.
    """
    if box < SMALLEST_BOX:
        raise InputError(f"The particles' box of {box} pixels is too small to be classified; {SMALLEST_BOX} or more are "
                         "needed. Extract with a larger box or less downsampling.")
    radius = DEFAULT_MASK * box / 2 if diameter is None else diameter / pixel_size / 2
    if radius > box / 2:
        raise InputError(f"--mask-diameter {diameter:g}: larger than the box of {box} pixels = {box * pixel_size:g} A. "
                         "Give the particle's diameter in angstroms, or check the pixel size.")
    if radius < 4:
        raise InputError(f"--mask-diameter {diameter:g}: only {2 * radius:.1f} pixels of {pixel_size:g} A. Give the "
                         "particle's diameter in angstroms, or extract with less downsampling.")
    return CircularMask(box, radius, min(MASK_EDGE * box, max(1.0, box / 2 - radius)))


def number_of_rings(mask: CircularMask, pixel_size: float, max_resolution: float | None) -> int:
    """Rings up to `max_resolution` angstroms, by default up to just below the Nyquist frequency.

    Raises
    ------
    InputError
        If that is too coarse to tell anything apart.
    """
    highest = 0.49 if max_resolution is None else min(0.49, pixel_size / max_resolution)
    rings = int(highest / ring_step(mask))
    if rings < FEWEST_RINGS:
        raise InputError(f"--max-resolution {max_resolution:g}: too coarse for a mask of {2 * mask.radius * pixel_size:.0f} "
                         f"A; {pixel_size / (FEWEST_RINGS * ring_step(mask)):.0f} A or finer is needed.")
    return rings


def number_of_classes(particles: int, wanted: int | None) -> int:
    """The number of classes asked for, or by default one for every 100 particles, from 10 to 100.

    Raises
    ------
    InputError
        If there are fewer particles than classes.
    """
    if wanted is None:
        return max(1, min(particles // 5, int(np.clip(particles // 100, 10, 100))))
    if wanted > particles:
        raise InputError(f"--classes {wanted}: more classes than particles ({particles}). Ask for fewer.")
    return wanted


def starting_labels(
    run: Run, model: Path | None, particles: ParticleSet, classes: int, seed: int, device: torch.device
) -> torch.Tensor | None:
    """Clusters of the particles' embeddings, ``(n,)``; None without a model."""
    if model is None:
        return None
    embeddings = embed(model, particles, device, EMBEDDING_BATCH, report=run.warn)
    labels = KMeans(classes, n_init=4, random_state=seed).fit_predict(embeddings)
    return torch.as_tensor(labels, dtype=torch.long)


def final_alignment(state: State) -> tuple[Alignment, np.ndarray, int]:
    """The best poses with classes numbered by decreasing size from 0, the confidences, and the number of classes."""
    poses = state.poses
    old = poses.classes[:, 0].numpy()
    sizes = np.bincount(old, minlength=state.classes)
    order = np.argsort(-sizes, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    psi = poses.psi[:, 0].double().numpy()
    psi = np.mod(psi + np.pi, 2 * np.pi) - np.pi
    alignment = Alignment(number[old], psi, poses.shifts[:, 0].double().numpy(), poses.flips[:, 0].numpy())
    return alignment, state.confidence.numpy(), int((sizes > 0).sum())


def with_resolved_paths(table: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The table with image names that hold from the working directory, wherever the table is written."""
    parts = table["rlnImageName"].str.rpartition("@")
    paths = {name: str(resolve(name, source)) for name in parts[2].unique()}
    return table.assign(rlnImageName=parts[0] + parts[1] + parts[2].map(paths))


def _set_apart(run: Run, particles: ParticleSet) -> ParticleSet:
    """Particles that can be classified; the others are written to a table of their own, with the reason."""
    reasons = np.full(len(particles), "", dtype=object)
    for positions, images in particles.images.chunks(CHUNK):
        finite = np.isfinite(images).all(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            constant = images.max(axis=(1, 2)) == images.min(axis=(1, 2))
        reasons[positions[constant]] = "constant"
        reasons[positions[~finite]] = "not_finite"
    bad = reasons != ""
    if not bad.any():
        return particles
    first = np.flatnonzero(bad)[0]
    name = particles.table["rlnImageName"].iloc[first]
    if bad.all():
        raise InputError(f"All {len(particles)} particles are constant or hold values that are not finite, the first is "
                         f"{name}. Extract them again.")
    run.warn(f"{bad.sum()} of {len(particles)} particles are constant or hold values that are not finite (row {first + 1}, "
             f"{name}, is the first). They are not classified but listed in set_apart.star.")
    table = particles.table[bad].assign(siamese2dReason=reasons[bad])
    write_particles(run.path("set_apart.star"), table, particles.optics)
    return particles.subset(~bad)


def _ctf(run: Run, particles: ParticleSet, ignore: bool) -> CtfParameters | None:
    if ignore:
        return None
    ctf = ctf_parameters(particles)
    if ctf is None:
        run.warn("The particles have no CTF parameters: classified without correcting for the CTF.")
    return ctf


def _after_pass(state: State, total: int, pixel_size: float, path: Path) -> None:
    save_state(path, state)
    last = state.history[-1]
    print(f"pass {last['pass']}/{total}: {last['classes']} classes to {pixel_size / last['frequency']:.0f} A, "
          f"log-likelihood {last['log_likelihood']:.2f}, confidence {last['confidence']:.2f}, "
          f"{100 * last['changed']:.0f} % changed class", flush=True)


def _write(
    run: Run, particles: ParticleSet, state: State, alignment: Alignment, confidence: np.ndarray,
    averages: HalfAverages, mask: CircularMask,
) -> None:
    box, pixel_size, classes = particles.box, particles.pixel_size, len(averages.whole)
    weights = mask.weights().to(averages.whole.device)
    correlation = quality.ring_correlation(*(averages.halves * weights))
    sizes = np.bincount(alignment.classes, minlength=classes)
    stack = run.path("classes.mrcs")
    write_mrc(stack, quality.filtered(averages.whole, correlation).cpu().numpy(), pixel_size)
    write_star(run.path("classes.star"), {"classes": pd.DataFrame({
        "rlnReferenceImage": [f"{number:06d}@{stack}" for number in range(1, classes + 1)],
        "rlnClassNumber": np.arange(1, classes + 1),
        "siamese2dClassSize": sizes,
        "rlnClassDistribution": sizes / sizes.sum(),
        "rlnEstimatedResolution": quality.resolution_at(correlation, box, pixel_size),
        "siamese2dQuality": quality.quality(correlation).cpu().numpy(),
    })})
    origins = alignment.origins * pixel_size
    table = particles.table.assign(
        rlnClassNumber=alignment.classes + 1,
        rlnAnglePsi=np.degrees(alignment.psi),
        rlnOriginXAngst=origins[:, 0],
        rlnOriginYAngst=origins[:, 1],
        rlnIsFlip=alignment.flips.astype(int),
        rlnMaxValueProbDistribution=confidence,
    )
    write_particles(run.path("particles.star"), table, particles.optics)
    frequencies = (np.arange(1, box // 2 + 1) / (box * pixel_size)).tolist()
    write_json(run.path("classification.json"), {
        "box": box,
        "pixel_size": pixel_size,
        "mask_diameter": 2 * mask.radius * pixel_size,
        "frc_threshold": quality.THRESHOLD,
        "history": [{**record, "frequency": record["frequency"] / pixel_size} for record in state.history],
        "frc": [{"class": number, "frequency": frequencies, "frc": curve}
                for number, curve in enumerate(correlation.cpu().tolist(), start=1)],
    })
