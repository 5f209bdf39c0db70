#!/usr/bin/env python3
"""2D classification on sets with a known truth: ours, ablations of it, clustering of pixels, of features and of
published embeddings, RELION and ASPIRE where installed.

The methods that assign put the particles into given classes instead (``--given``), those of another set, say.

Each SET is a folder with ``particles.star``, ``particles.mrcs`` and ``truth.npz``, which holds either ``R``
(``(n, 3, 3)``, the last row is the viewing direction) or ``view`` (``(n, 3)``), and for mixtures ``species`` (``(n,)``). With
``--junk`` the highest species number is junk. Every method runs in a process of its own, so that CPU seconds and peak
memory are its own; the peak of a method that starts another program is at least that of this Python, some 400 MB.
Afterwards the averages of methods that align are made anew from their poses, by one code for all, for the Fourier ring
correlation of halves. Prints a table and writes JSON.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from siamese2d_engine.classify import assign_stage, assignment, engine, quality, stage
from siamese2d_engine.classify.inputs import DEFAULT_MASK, circular_mask
from siamese2d_engine.classify.realspace import Alignment, class_averages
from siamese2d_engine.classify.schedule import SHIFT_CYCLES, Recipe
from siamese2d_engine.embedding.centring import find_shifts, fit_profile, shift_spectra
from siamese2d_engine.embedding.features import invariant_features
from siamese2d_engine.embedding.prepare import Preparation, read_spectra, soft_mask, to_images
from siamese2d_engine.evaluate.classes import angular_spread, majority_species
from siamese2d_engine.export.stage import RELION, export_particles
from siamese2d_engine.io.atomic import write_json
from siamese2d_engine.io.particles import ctf_parameters, read_particles
from siamese2d_engine.io.star import read_star
from siamese2d_engine.runs import Run


# Side of the images that features are made of, pixels.
WORKING_BOX = 32
# Of ASPIRE: it keeps at most so many of the two, its own defaults.
STEERABLE_COMPONENTS, BISPECTRUM_COMPONENTS = 400, 300
# It takes the logarithm of eigenvalues, and those that vanish make all its features noise.
SMALLEST_EIGENVALUE = 1e-6

POSE_COLUMNS = ["rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"]


@dataclass(frozen=True)
class Members:
    """Class of each particle from 1, 0 for those that are set apart, and its pose: psi in degrees, origin in angstroms,
    flip; None from methods that do not align."""

    labels: np.ndarray
    poses: np.ndarray | None = None


def ours(star: Path, args: argparse.Namespace, folder: Path, **changed) -> Members:
    """Classes by the stage ``classify``."""
    settings = stage.Settings(classes=args.classes, mirror=args.mirror, seed=args.seed, **changed)
    with Run(folder / "run", "classify", {}, [star]) as run:
        stage.classify_particles(run, star, read_particles(star), settings, None, torch.device(args.device))
    return members_of(folder / "run" / "particles.star", star)


def assigned(star: Path, args: argparse.Namespace, folder: Path, **changed) -> Members:
    """Classes by the stage ``assign``, with other constants of the search."""
    for name, value in changed.items():
        setattr(assignment, name, value)
    settings = assign_stage.Settings(mirror=args.mirror, seed=args.seed)
    with Run(folder / "run", "assign", {}, [star, args.given]) as run:
        assign_stage.assign_particles(run, star, read_particles(star), args.given, None, settings,
                                      torch.device(args.device))
    return members_of(folder / "run" / "particles.star", star)


def members_of(result: Path, star: Path) -> Members:
    """What a table of results says of the particles of `star`, which it may have in another order."""
    table = read_star(result)["particles"].set_index("rlnImageName")
    # A result's stack may have another path, but images keep their places in it.
    table.index = image_places(table.index.to_series())
    table = table.reindex(image_places(read_particles(star).table["rlnImageName"])).fillna(0)
    flips = table.get("rlnIsFlip", np.zeros(len(table)))
    return Members(table["rlnClassNumber"].to_numpy(int), np.column_stack([table[POSE_COLUMNS], flips]).astype(float))


def image_places(names) -> list[int]:
    return names.str.partition("@")[0].astype(int).tolist()


def with_recipe(change: Callable[[Recipe, argparse.Namespace], Recipe]):
    """Ours with another schedule."""
    def method(star, args, folder):
        original = stage.Recipe
        stage.Recipe = lambda **given: change(original(**given), args)
        stage.Recipe.last = original.last
        return ours(star, args, folder)
    return method


def without_balance(star, args, folder):
    engine.balanced_offsets = lambda scores, offsets, strength: torch.zeros_like(offsets)
    return ours(star, args, folder)


def clusters(vectors: np.ndarray, args: argparse.Namespace) -> Members:
    """By k-means."""
    return Members(KMeans(args.classes, n_init=1, random_state=args.seed).fit_predict(vectors) + 1)


def pixels(star: Path, args: argparse.Namespace, folder: Path, components: int | None = None) -> Members:
    """k-means of the images as they are, or of their principal components."""
    particles = read_particles(star)
    rows = particles.images.read(np.arange(len(particles))).reshape(len(particles), -1)
    if components:
        rows = PCA(components, random_state=args.seed).fit_transform(rows)
    return clusters(rows, args)


def invariants(star: Path, args: argparse.Namespace, folder: Path) -> Members:
    """k-means of steerable coefficients' moduli, which turning and mirroring leave as they are, of centred images."""
    particles = read_particles(star)
    preparation = Preparation.for_particles(particles, WORKING_BOX, True, None)
    spectra = read_spectra(particles, preparation, print)
    spectra = shift_spectra(spectra, find_shifts(spectra, fit_profile(spectra)))
    mask = soft_mask(preparation.working_box, preparation.mask_radius)
    vectors = invariant_features(to_images(spectra) * mask).numpy()
    return clusters(vectors, args)


def embedded(star: Path, args: argparse.Namespace, folder: Path, *options: str) -> Members:
    """k-means of the vectors of ``train``."""
    subprocess.run([sys.executable, "-m", "siamese2d_engine", "train", "--particles", str(star),
                    "--out", str(folder / "train"),
                    "--seed", str(args.seed), "--threads", str(args.threads), *options], check=True)
    vectors = np.load(folder / "train" / "embeddings.npy")
    return clusters(vectors, args)


def aspire(star: Path, args: argparse.Namespace, folder: Path) -> Members:
    """k-means of ASPIRE's rotation invariants (bispectra of steerable principal components, Zhao & Singer 2014).

    Its own result are the nearest neighbours of each particle in these, not classes. It takes particles to be centred.
    """
    # Not everyone has it.
    from aspire.basis import Coef, FSPCABasis
    from aspire.classification import RIRClass2D
    from aspire.source import RelionSource

    source = RelionSource(star)
    if "rlnDefocusU" in read_particles(star).table:
        source = source.phase_flip()
    source = source.normalize_background().whiten().cache()
    basis = FSPCABasis(source, components=STEERABLE_COMPONENTS)
    eigenvalues = np.ravel(basis.eigvals)
    usable = int((eigenvalues > SMALLEST_EIGENVALUE * eigenvalues.max()).sum())
    if usable < STEERABLE_COMPONENTS:
        basis = FSPCABasis(source, components=usable)
    classifier = RIRClass2D(source, basis, bispectrum_components=min(BISPECTRUM_COMPONENTS, basis.components),
                            seed=args.seed)
    vectors, _ = classifier.bispectrum(Coef(basis, basis.spca_coef))
    return clusters(np.column_stack([vectors.real, vectors.imag]), args)


def relion(star: Path, args: argparse.Namespace, folder: Path) -> Members:
    """RELION's 25 iterations of expectation maximisation, on what the stage ``export`` writes for it."""
    particles = read_particles(star)
    with Run(folder / "export", "export", {}, [star]) as run:
        export_particles(run, star, particles, None, RELION)
    diameter = DEFAULT_MASK * particles.box * particles.pixel_size
    ctf = ["--ctf"] if "rlnDefocusU" in particles.table else []
    # With seed 0 the particles' order is not drawn at random.
    subprocess.run(
        ["relion_refine", "--i", str(folder / "export" / "particles.star"), "--o", str(folder / "run"), "--K",
         str(args.classes), "--iter", "25", "--particle_diameter", f"{diameter:.0f}", "--tau2_fudge", "2",
         "--flatten_solvent", "--zero_mask", "--psi_step", "10", "--offset_range", "5", "--offset_step", "2", "--norm",
         "--scale", "--oversampling", "1", "--j", str(args.threads), "--random_seed", str(args.seed + 1), *ctf],
        check=True, stdout=subprocess.DEVNULL)
    return members_of(folder / "run_it025_data.star", star)


METHODS = {
    "ours": ours,
    "ours, all particles kept": lambda star, args, folder: ours(star, args, folder, set_apart=False),
    "assign": assigned,
    "assign, all rings and shifts": lambda star, args, folder: assigned(
        star, args, folder, COARSE_RINGS=stage.Recipe.last, NEGLECTED_POWER=0.0, WIDE_CYCLES=SHIFT_CYCLES),
    "assign, all harmonics": lambda star, args, folder: assigned(star, args, folder, NEGLECTED_POWER=0.0),
    "assign, 8 rings": lambda star, args, folder: assigned(star, args, folder, COARSE_RINGS=8),
    "assign, best proposal": lambda star, args, folder: assigned(star, args, folder, PROPOSALS=1),
    "ours, no CTF": lambda star, args, folder: ours(star, args, folder, ignore_ctf=True),
    "ours, all classes at once": with_recipe(lambda recipe, args: replace(recipe, first_classes=args.classes)),
    "ours, no replacement": with_recipe(lambda recipe, args: replace(recipe, replacements=0)),
    "ours, no pruning": with_recipe(lambda recipe, args: replace(recipe, candidates=args.classes)),
    "ours, no balance": without_balance,
    "ours, no fine classes": lambda star, args, folder: ours(star, args, folder, fine_classes=0),
    "k-means on pixels": pixels,
    "k-means on 50 PCA components": lambda star, args, folder: pixels(star, args, folder, 50),
    "k-means on rotation invariants": invariants,
    "train, self-supervised": embedded,
    "train, contrastive-original": lambda star, args, folder: embedded(star, args, folder,
                                                                       "--preset", "contrastive-original"),
    "train, milopyp": lambda star, args, folder: embedded(star, args, folder, "--preset", "milopyp"),
    "ASPIRE": aspire,
    "RELION": relion,
}


def scores(labels: np.ndarray, truth: dict, junk: bool) -> dict:
    """Spread in degrees, and for mixtures NMI, ARI, purity and junk recall and precision by majority.

    Particles that were set apart (label 0) have no spread, and are predicted to be junk.
    """
    directions = truth["view"] if "view" in truth else truth["R"][:, 2]
    species = truth.get("species", np.zeros(len(labels), int))
    real = species < species.max() if junk else np.ones(len(labels), bool)
    members, apart = real & (labels > 0), labels == 0
    sizes = np.bincount(labels[~apart])
    result = {
        "spread": angular_spread(labels[members], directions[members], mirror=False),
        "spread_mirror": angular_spread(labels[members], directions[members], mirror=True),
        "classes": int((sizes > 0).sum()),
        "smallest": int(sizes[sizes > 0].min()),
        "set_apart": int(apart.sum()),
    }
    if len(np.unique(species)) > 1:
        # The evaluation calls junk 0.
        named = np.where(real, species + 1, 0)
        predicted = np.where(apart, 0, majority_species(labels, named))
        result |= {
            "purity": float((predicted == named).mean()),
            "NMI": float(normalized_mutual_info_score(species, labels)),
            "ARI": float(adjusted_rand_score(species, predicted)),
        }
    if junk:
        found = (predicted == 0) & ~real
        result |= {"junk_recall": float(found.sum() / (~real).sum()),
                   "junk_precision": float(found.sum() / max(1, (predicted == 0).sum()))}
    return result


def median_resolution(members: Members, star: Path) -> float | None:
    """Resolution at which halves of a class correlate by 0.5, the median over the particles, angstroms.

    The halves are particles of even and odd place, aligned by what the method knew of both: good for comparing methods.
    """
    if members.poses is None:
        return None
    whole = read_particles(star)
    kept = np.flatnonzero(members.labels > 0)
    particles, classes = whole.subset(kept), members.labels[kept] - 1
    psi, x, y, flips = members.poses[kept].T
    alignment = Alignment(classes, np.radians(psi), np.column_stack([x, y]) / particles.pixel_size, flips > 0.5)
    mask = circular_mask(particles.box, particles.pixel_size, None)
    averages = class_averages(particles.images, ctf_parameters(particles), alignment, classes.max() + 1, mask,
                              particles.pixel_size, torch.device("cpu"))
    correlation = quality.ring_correlation(*(averages.halves * mask.weights()))
    resolutions = np.array(quality.resolution_at(correlation, particles.box, particles.pixel_size))
    return float(np.median(resolutions[classes]))


def measure(name: str, folder: Path, args: argparse.Namespace) -> dict:
    """Run one method in its own process."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "members.npz"
        command = [sys.executable, __file__, str(folder), "--single", name, "--members", str(output), "--classes",
                   str(args.classes), "--seed", str(args.seed), "--threads", str(args.threads), "--device", args.device,
                   "--mirror" if args.mirror else "--no-mirror", *(["--given", str(args.given)] if args.given else [])]
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=None if args.verbose else subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            return {"method": name, "set": folder.name, "error": f"exit status {os.waitstatus_to_exitcode(status)}"}
        elapsed = time.monotonic() - started
        found = dict(np.load(output))
        truth, members = dict(np.load(folder / "truth.npz")), Members(found["labels"], found.get("poses"))
        return {
            "method": name, "set": folder.name, "K": args.classes, "seed": args.seed,
            **scores(members.labels, truth, args.junk),
            "resolution": median_resolution(members, folder / "particles.star"),
            "cpu_seconds": usage.ru_utime + usage.ru_stime, "wall_seconds": elapsed,
            "peak_mb": usage.ru_maxrss / 1024,
        }


def run_single(folder: Path, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as scratch:
        members = METHODS[args.single](folder / "particles.star", args, Path(scratch))
    poses = {} if members.poses is None else {"poses": members.poses}
    np.savez(args.members, labels=members.labels, **poses)


def not_installed() -> dict[str, str]:
    """Methods that can't run here, with the reason."""
    missing = {}
    if not shutil.which("relion_refine"):
        missing["RELION"] = "relion_refine is not on the path"
    if importlib.util.find_spec("aspire") is None:
        missing["ASPIRE"] = "this Python has no package aspire"
    return missing


def table_row(result: dict) -> str:
    if "error" in result:
        return f"{result['set']:8} {result['method']:32} {result['error']}"
    extra = "".join(f" {key} {result[key]:.3f}" for key in ("purity", "NMI", "ARI", "junk_recall", "junk_precision")
                    if key in result)
    resolution = "    -" if result["resolution"] is None else f"{result['resolution']:5.1f}"
    return (f"{result['set']:8} {result['method']:32} K {result['K']:3} seed {result['seed']} | spread {result['spread']:5.1f} "
            f"modulo mirror {result['spread_mirror']:5.1f} | FRC 0.5 {resolution} A | "
            f"classes {result['classes']:3} smallest {result['smallest']:4} "
            f"apart {result['set_apart']:4} | "
            f"CPU {result['cpu_seconds']:6.1f} s wall {result['wall_seconds']:6.1f} s peak {result['peak_mb']:5.0f} MB{extra}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, metavar="SET")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["ours", "k-means on 50 PCA components"])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--given", type=Path, metavar="PATH", help="classes.star or stack of averages, to assign to")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--junk", action="store_true", help="the highest species number is junk")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("classify2d.json"))
    parser.add_argument("--verbose", action="store_true", help="show what the methods print")
    parser.add_argument("--single", help=argparse.SUPPRESS)
    parser.add_argument("--members", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.given = args.given and args.given.resolve()
    if args.given is None and any(name.startswith("assign") for name in args.methods):
        parser.error("--given: the methods that assign need classes")
    if args.single:
        run_single(args.sets[0].resolve(), args)
        return
    missing = not_installed()
    results = []
    for folder in args.sets:
        for name in args.methods:
            if name in missing:
                print(f"{folder.name:8} {name}: {missing[name]}", flush=True)
                continue
            for args.seed in args.seeds:
                results.append(measure(name, folder.resolve(), args))
                print(table_row(results[-1]), flush=True)
                write_json(args.json, results)


if __name__ == "__main__":
    main()
