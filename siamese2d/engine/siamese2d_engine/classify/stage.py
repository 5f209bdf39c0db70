"""The stage ``classify``: particles into aligned 2D classes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans

from siamese2d_engine import distributed
from siamese2d_engine.classify import fit, quality
from siamese2d_engine.classify.assignment import Assigner, Calibration
from siamese2d_engine.classify.engine import Classifier, State
from siamese2d_engine.classify.inputs import (circular_mask, ctf_of, largest_shift, number_of_rings,
                                              tell_unusable, unusable, with_resolved_paths)
from siamese2d_engine.classify.polar import Harmonics
from siamese2d_engine.classify.prepare import PolarTransform, first_rings, sample_bytes, transform
from siamese2d_engine.classify.realspace import Alignment, class_averages
from siamese2d_engine.classify.results import (ClassImages, unusable_rows, wrapped, write_classes, write_members,
                                               write_report)
from siamese2d_engine.classify.schedule import Recipe, schedule
from siamese2d_engine.classify.shifts import FARTHEST, spread_of_shifts
from siamese2d_engine.classify.state_file import load_state, save_state
from siamese2d_engine.ctf import CtfParameters
from siamese2d_engine.devices import seeded_generator
from siamese2d_engine.embedding.inference import embed
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.particles import ParticleSet
from siamese2d_engine.progress import work
from siamese2d_engine.runs import Run

EMBEDDING_BATCH = 256
SAMPLES = "samples.dat"
STATE = "state.safetensors"
# Fine classes for each final one, and particles that each should have.
FINER = 5
SMALLEST_FINE_CLASS = 12
# Of the box; no farther is searched than particles are found to lie.
LARGEST_SHIFT = 0.12


@dataclass(frozen=True)
class Settings:
    """How particles are classified.

    Attributes
    ----------
    classes
        Number of classes; None for one for every 100 particles, from 10 to 100.
    fine_classes
        Made first and then grouped by likeness, fewer where poses are unsure; 0 for none, None for five times
        `classes`.
    mirror
        Put an image and its mirror image into one class.
    mask_diameter
        Angstroms; None for 0.8 of the box.
    max_shift
        How far from the box's centre particles may lie, angstroms; None for 0.12 of the box.
    max_resolution
        Angstroms; None for what the classification needs.
    ignore_ctf
        Work as if images had no CTF.
    set_apart
        Take particles that fit nowhere out of the classes.
    passes
        Passes at the last resolution.
    memory
        Gigabytes (10^9 bytes) that the transformed images may take before they are kept in a file, where several
        processes always keep them.
    seed
        Of the random start.
    """

    classes: int | None = None
    fine_classes: int | None = None
    mirror: bool = True
    mask_diameter: float | None = None
    max_shift: float | None = None
    max_resolution: float | None = None
    ignore_ctf: bool = False
    set_apart: bool = True
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
    bad = unusable(particles)
    tell_unusable(run, particles, bad)
    good = particles.subset(bad == "")
    mask = circular_mask(good.box, good.pixel_size, settings.mask_diameter)
    rings = number_of_rings(mask, good.pixel_size, settings.max_resolution)
    classes = number_of_classes(len(good), settings.classes)
    ctf = ctf_of(run, good, settings.ignore_ctf)
    last = Recipe.last if settings.max_resolution is None else rings
    fine = number_of_fine_classes(len(good), classes, settings.fine_classes)
    passes = schedule(classes, fine, rings, settings.mirror, Recipe(last=last, finish=settings.passes))
    rings = passes.rings

    fits = distributed.world() == 1 and sample_bytes(len(good), mask, rings) <= settings.memory * 1e9
    scratch = None if fits else run.path(SAMPLES)
    images = transform(good.images, ctf, mask, rings, good.pixel_size, device, scratch)
    reach = largest_shift(good, settings.max_shift, LARGEST_SHIFT)
    classifier = Classifier(images, passes, reach, settings.seed, device)
    state_path = run.path(STATE)
    if state_path.exists():
        state = load_state(state_path, device)
    else:
        state = classifier.start(starting_labels(run, model, good, passes.first[0].classes, settings.seed, device))
    state = classifier.run(state, lambda done: _after_pass(done, good.pixel_size, state_path))
    matches, reasons = _fit(run, state, classifier, PolarTransform(mask, rings, good.pixel_size, device), ctf, settings)
    del images, classifier

    alignment, confidence, kept = final_alignment(state, reasons == "")
    if kept < classes:
        run.warn(f"{classes - kept} of {classes} classes ended empty; {kept} are written.")
    members = np.flatnonzero(reasons == "")
    averages = class_averages(good.images.subset(members), None if ctf is None else ctf.subset(members),
                              alignment[members], kept, mask, good.pixel_size, device)
    correlation = quality.ring_correlation(*(averages.halves * mask.weights().to(device)))
    if not distributed.is_main():
        return
    written = ClassImages(quality.filtered(averages.whole, correlation), np.arange(1, kept + 1), correlation)
    sizes = np.bincount(alignment.classes[members], minlength=kept)
    write_classes(run, written, sizes, good.pixel_size)
    numbers = np.where(alignment.classes < kept, alignment.classes + 1, 0)
    columns = {"rlnMaxValueProbDistribution": confidence, **fit.columns(matches)}
    write_members(run, good, numbers, alignment, columns, reasons, unusable_rows(particles, bad))
    write_report(run, mask, good.pixel_size, state.history, written, state.grouping)
    for path in (state_path, run.path(SAMPLES)):
        path.unlink(missing_ok=True)
    run.results.update(particles=len(members), set_apart=len(particles) - len(members), classes=kept)


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


def number_of_fine_classes(particles: int, classes: int, wanted: int | None) -> int:
    """Classes to make before the final ones, no more than `classes` for none.

    By default five times as many, fewer where these would be too small for averages that tell, and none where there
    would not be two for each final class, or this is the only one.
    """
    if wanted is not None:
        return min(wanted, particles)
    fine = min(FINER * classes, particles // SMALLEST_FINE_CLASS)
    return fine if classes > 1 and fine >= 2 * classes else 0


def starting_labels(
    run: Run, model: Path | None, particles: ParticleSet, classes: int, seed: int, device: torch.device
) -> torch.Tensor | None:
    """Clusters of the particles' embeddings, ``(n,)``; None without a model."""
    if model is None:
        return None
    embeddings = embed(model, particles, device, EMBEDDING_BATCH, report=run.warn)
    with work("cluster embeddings"):
        labels = distributed.from_main(
            lambda: KMeans(classes, n_init=4, random_state=seed).fit_predict(embeddings))
    return torch.as_tensor(labels, dtype=torch.long)


def final_alignment(state: State, members: np.ndarray) -> tuple[Alignment, np.ndarray, int]:
    """The best poses, the confidences, and the number of classes that have members.

    Classes are numbered from 0 by decreasing number of `members` (``(n,)`` bool), empty ones last.
    """
    poses = state.poses
    old = poses.classes[:, 0].numpy()
    sizes = np.bincount(old[members], minlength=state.classes)
    order = np.argsort(-sizes, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    psi = wrapped(poses.psi[:, 0].double().numpy())
    alignment = Alignment(number[old], psi, poses.shifts[:, 0].double().numpy(), poses.flips[:, 0].numpy())
    return alignment, state.confidence.numpy(), int((sizes > 0).sum())


def _fit(
    run: Run, state: State, classifier: Classifier, polar: PolarTransform, ctf: CtfParameters | None, settings: Settings
) -> tuple[fit.Match, np.ndarray]:
    """How the particles match their classes, and why each fits nowhere: empty text where it does fit."""
    noise, images = state.spectra.noise, first_rings(classifier.images, state.at.rings)
    found = fit.matches(images, state.poses, state.averages, noise, state.denominators, classifier.room)
    if not settings.set_apart or len(images) < fit.FEWEST:
        return found, np.full(len(images), "", dtype=object)
    whole = Harmonics(state.at.count, images.grid.half_angles, classifier.device)
    reach = min(classifier.reach, FARTHEST * spread_of_shifts(state.poses))
    assigner = Assigner(whole.synthesise(state.averages), reach, settings.mirror, classifier.device)
    generator = seeded_generator(settings.seed, state.step)
    pixels = images.pixels.numpy()
    of_noise = fit.simulated_noise(polar, ctf, fit.noise_floor(found, pixels, noise), generator)
    poses = assigner.assign(of_noise, Calibration(torch.ones(len(noise)), noise.cpu())).poses
    of_noise = fit.matches(of_noise, poses, state.averages, noise, None, assigner.room)
    reasons = fit.reasons(found, pixels, of_noise.match)
    fit.tell(run, reasons)
    return found, reasons


def _after_pass(state: State, pixel_size: float, path: Path) -> str:
    """Save the state; how it is."""
    if distributed.is_main():
        save_state(path, state)
    last = state.history[-1]
    return (f"{last['classes']} classes to {pixel_size / last['frequency']:.0f} A, "
            f"log-likelihood {last['log_likelihood']:.2f}, confidence {last['confidence']:.2f}, "
            f"{100 * last['changed']:.0f} % changed class")
