"""The stage ``assign``: new particles into given classes."""

import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from siamese2d_engine import distributed
from siamese2d_engine.classify import fit, quality
from siamese2d_engine.classify.assignment import Assigner, Assignments, Calibration, harmonics_of
from siamese2d_engine.classify.given_classes import GivenClasses, read_given_classes
from siamese2d_engine.classify.inputs import (circular_mask, ctf_of, largest_shift, number_of_rings,
                                              tell_unusable, unusable_images, with_resolved_paths)
from siamese2d_engine.classify.passes import PolarImages
from siamese2d_engine.classify.prepare import CHUNK, CircularMask, PolarTransform, resolution
from siamese2d_engine.classify.realspace import Alignment, class_averages
from siamese2d_engine.classify.results import (ClassImages, unusable_rows, wrapped, write_classes, write_members,
                                               write_report)
from siamese2d_engine.classify.schedule import Recipe
from siamese2d_engine.ctf import CtfParameters
from siamese2d_engine.devices import seeded_generator
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.models import load_model, save_model
from siamese2d_engine.io.particles import ParticleImages, ParticleSet
from siamese2d_engine.progress import progress
from siamese2d_engine.runs import Run

# Particles assigned between two savings.
BLOCK = 4096
# Particles that the scale of the averages is found from.
CALIBRATED = 400
# Of the box.
LARGEST_SHIFT = 0.08
BLOCKS = "blocks"
KIND = "assignments"
CALIBRATION, CALIBRATION_KIND = "calibration.safetensors", "calibration"
REASONS = ("", "constant", "not_finite")


@dataclass(frozen=True)
class Settings:
    """How particles are assigned.

    Attributes
    ----------
    classes_pixel_size
        Angstroms per pixel of the averages; None for what their file says.
    mirror
        A particle may be mirrored to fit a class.
    mask_diameter
        Angstroms; None for 0.8 of the box.
    max_shift
        How far from the box's centre particles may lie, angstroms; None for 0.08 of the box.
    max_resolution
        Angstroms; None for what the assignment needs.
    ignore_ctf
        Work as if images had no CTF.
    set_apart
        Put particles that fit nowhere into no class.
    new_averages
        Write averages of the new members instead of the given ones.
    seed
        Of the simulated noise that particles are compared with.
    """

    classes_pixel_size: float | None = None
    mirror: bool = True
    mask_diameter: float | None = None
    max_shift: float | None = None
    max_resolution: float | None = None
    ignore_ctf: bool = False
    set_apart: bool = True
    new_averages: bool = False
    seed: int = 0


def assign_particles(
    run: Run, source: Path, particles: ParticleSet, classes: Path, calibration: Path | None, settings: Settings,
    device: torch.device,
) -> None:
    """Assign particles to given classes and write everything into the run's folder.

    Parameters
    ----------
    run
        The run.
    source
        STAR file that the particles were read from: the images' paths may be relative to its folder.
    particles
        To be assigned; images that can't be, and those that fit nowhere, are written to ``set_apart.star``.
    classes
        STAR file or stack of the averages.
    calibration
        File of another run with the same classes: noise and scale of the averages are taken from it, not from the
        particles.
    settings
        See `Settings`.
    device
        Where to compute.

    Raises
    ------
    InputError
        If nothing can be assigned, or averages or a setting do not fit the particles.
    """
    particles = replace(particles, table=with_resolved_paths(particles.table, source))
    mask = circular_mask(particles.box, particles.pixel_size, settings.mask_diameter)
    given = read_given_classes(classes, settings.classes_pixel_size, particles.box, particles.pixel_size, mask)
    if given.rescaled:
        run.warn(given.rescaled)
    rings = number_of_rings(mask, particles.pixel_size, settings.max_resolution)
    # Nyquist frequency of coarser averages ends the comparison.
    rings = min(rings, number_of_rings(mask, particles.pixel_size, max(given.finest, 2 * particles.pixel_size)))
    rings = rings if settings.max_resolution else min(rings, Recipe.last)
    polar = PolarTransform(mask, rings, particles.pixel_size, device)
    reach = largest_shift(particles, settings.max_shift, LARGEST_SHIFT)
    assigner = Assigner(polar.sample(given.masked(mask)), reach, settings.mirror, device)
    ctf = ctf_of(run, particles, settings.ignore_ctf)
    blocks = _Blocks(run, particles, ctf, polar, assigner, calibration)
    found = blocks.all()
    tell_unusable(run, particles, found.bad)

    usable = found.bad == ""
    good, ctf = particles.subset(usable), None if ctf is None else ctf.subset(usable)
    matches = found.matches.rows(usable)
    reasons = np.full(len(good), "", dtype=object)
    if settings.set_apart and len(good) >= fit.FEWEST:
        of_noise = blocks.matches_of_noise(matches, seeded_generator(settings.seed, 0))
        reasons = fit.reasons(matches, polar.pixels.numpy(), of_noise)
        fit.tell(run, reasons)
    places, alignment = given.filled[found.assignments.classes.numpy()[usable]], _alignment(found.assignments, usable)
    alignment = replace(alignment, classes=places)
    members = np.flatnonzero(reasons == "")
    sizes = np.bincount(places[members], minlength=len(given.numbers))
    if settings.new_averages:
        written = _new_averages(good.images.subset(members), None if ctf is None else ctf.subset(members),
                                alignment[members], given, mask, good.pixel_size, device)
    else:
        written = ClassImages(given.images, given.numbers, None)
    if not distributed.is_main():
        return
    write_classes(run, written, sizes, good.pixel_size, given.table)
    columns = {"rlnMaxValueProbDistribution": found.assignments.confidence.numpy()[usable], **fit.columns(matches)}
    write_members(run, good, given.numbers[places], alignment, columns, reasons, unusable_rows(particles, found.bad))
    write_report(run, mask, good.pixel_size, [_record(polar, found.assignments, usable, len(given.filled))], written)
    blocks.clean()
    run.results.update(particles=len(members), set_apart=len(particles) - len(members), classes=len(given.numbers))


@dataclass
class _Found:
    """What is known of ``n`` particles: poses, matches, and why they can't be used (empty text where they can)."""

    assignments: Assignments
    matches: fit.Match
    bad: np.ndarray

    def save(self, path: Path) -> None:
        arrays = {**vars(self.matches), "bad": np.array([REASONS.index(reason) for reason in self.bad])}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_model(path, {"kind": KIND}, vars(self.assignments) | tensors)

    @staticmethod
    def load(path: Path) -> "_Found":
        _, tensors = load_model(path, KIND)
        assignments = Assignments(*(tensors[field.name] for field in fields(Assignments)))
        matches = fit.Match(*(tensors[field.name].numpy() for field in fields(fit.Match)))
        return _Found(assignments, matches, np.array(REASONS, dtype=object)[tensors["bad"].numpy()])

    @staticmethod
    def joined(parts: "list[_Found]") -> "_Found":
        columns = zip(*(vars(part.assignments).values() for part in parts))
        return _Found(Assignments(*(torch.cat(values) for values in columns)),
                      fit.Match.joined([part.matches for part in parts]), np.concatenate([part.bad for part in parts]))


class _Blocks:
    """Assigns particles block by block; what is done is saved, so that a killed run goes on where it was.

    Several processes share the blocks, and read what the others have saved.
    """

    def __init__(
        self, run: Run, particles: ParticleSet, ctf: CtfParameters | None, polar: PolarTransform, assigner: Assigner,
        calibration: Path | None,
    ):
        self.run, self.particles, self.ctf, self.polar, self.assigner = run, particles, ctf, polar, assigner
        self.calibration = self._calibration(calibration)

    def all(self) -> _Found:
        """Of all particles, in order."""
        total = len(self.particles)
        blocks = np.split(np.arange(total), np.arange(BLOCK, total, BLOCK))
        left = distributed.from_main(lambda: [rows for rows in blocks if not self._path(rows).exists()])
        left = distributed.share(left)
        for rows in progress(left, "assign", sum(map(len, left)), "particle", count=len):
            self._assign(rows)
        distributed.wait()
        found = _Found.joined([_Found.load(self._path(rows)) for rows in blocks])
        # Before the main process cleans up.
        distributed.wait()
        return found

    def matches_of_noise(self, matches: fit.Match, generator: torch.Generator) -> np.ndarray:
        """How images of noise alone match the averages, ``(m,)``; the noise is that in images with such matches."""
        noise = fit.noise_floor(matches, self.polar.pixels.numpy(), self.calibration.noise)
        images = fit.simulated_noise(self.polar, self.ctf, noise, generator)
        return self._matches(images, self.assigner.assign(images, self.calibration)).match

    def clean(self) -> None:
        """Remove what was saved."""
        shutil.rmtree(self.run.path(BLOCKS))

    def _calibration(self, given: Path | None) -> Calibration:
        path = self.run.path(CALIBRATION)
        if given is not None and distributed.is_main():
            tensors = load_model(given, CALIBRATION_KIND)[1]
            if any(len(values) != len(self.polar.pixels) for values in tensors.values()):
                raise InputError(f"{given}: made with images, a mask or a resolution other than these. Use the file of a run "
                                 "with the same classes and settings.")
            save_model(path, {"kind": CALIBRATION_KIND}, tensors)
        if distributed.is_main() and not path.exists():
            total = len(self.particles)
            rows = np.unique(np.linspace(0, total - 1, CALIBRATED).astype(int))
            images, bad = self._images(rows)
            if (bad != "").all():
                tell_unusable(self.run, self.particles.subset(rows), bad)
            good = torch.from_numpy(bad == "")
            images = self.polar.gathered(images.samples[good], images.ctf2[good], images.power[good])
            save_model(path, {"kind": CALIBRATION_KIND}, vars(self.assigner.calibrate(images)))
        distributed.wait()
        return Calibration(**load_model(path, CALIBRATION_KIND)[1])

    def _path(self, rows: np.ndarray) -> Path:
        return self.run.path(BLOCKS, f"{rows[0]:010d}.safetensors")

    def _assign(self, rows: np.ndarray) -> None:
        images, bad = self._images(rows)
        assignments = self.assigner.assign(images, self.calibration)
        _Found(assignments, self._matches(images, assignments), bad).save(self._path(rows))

    def _images(self, rows: np.ndarray) -> tuple[PolarImages, np.ndarray]:
        """Some particles, unusable ones as empty images, and why these are unusable."""
        parts, reasons = [], []
        for some in np.split(rows, np.arange(CHUNK, len(rows), CHUNK)):
            pixels = self.particles.images.read(some)
            bad = unusable_images(pixels)
            pixels[bad != ""] = 0
            parts.append(self.polar.particles(pixels, None if self.ctf is None else self.ctf.subset(some)))
            reasons.append(bad)
        return self.polar.gathered(*(torch.cat(values) for values in zip(*parts))), np.concatenate(reasons)

    def _matches(self, images: PolarImages, assignments: Assignments) -> fit.Match:
        at, calibration = resolution(images, images.grid.rings), self.calibration
        averages = harmonics_of(self.assigner.samples, at, images, self.assigner.device)
        averages = averages * calibration.factors.to(averages.device)[:, None]
        return fit.matches(images, assignments.poses, averages, calibration.noise, None, self.assigner.room)


def _alignment(assignments: Assignments, chosen: np.ndarray) -> Alignment:
    return Alignment(assignments.classes.numpy(), wrapped(assignments.psi.double().numpy()),
                     assignments.shifts.double().numpy(), assignments.flips.numpy())[chosen]


def _new_averages(
    images: ParticleImages, ctf: CtfParameters | None, alignment: Alignment, given: GivenClasses, mask: CircularMask,
    pixel_size: float, device: torch.device,
) -> ClassImages:
    """Averages of the members in the frames of the given classes; those without members stay empty."""
    averages = class_averages(images, ctf, alignment, len(given.numbers), mask, pixel_size, device)
    correlation = quality.ring_correlation(*(averages.halves * mask.weights().to(device)))
    return ClassImages(quality.filtered(averages.whole, correlation), given.numbers, correlation)


def _record(polar: PolarTransform, assignments: Assignments, usable: np.ndarray, classes: int) -> dict:
    """The assignment as the one pass of a history."""
    return {
        "pass": 1, "classes": classes, "rings": polar.grid.rings, "frequency": float(polar.grid.radii[-1]),
        "log_likelihood": float(assignments.log_likelihood[usable].double().mean()),
        "confidence": float(assignments.confidence[usable].mean()), "changed": 1.0,
    }
