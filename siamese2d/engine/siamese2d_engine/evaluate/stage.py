"""Evaluations as runs: read, score, print a table, write ``evaluation.json``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from siamese2d_engine.errors import InputError
from siamese2d_engine.evaluate.classes import JUNK, angular_spread, class_rows, species_scores
from siamese2d_engine.evaluate.embeddings import cluster, embedding_scores
from siamese2d_engine.evaluate.matching import micrograph_key
from siamese2d_engine.evaluate.picks import score_picks
from siamese2d_engine.evaluate.tables import (
    COORDINATES,
    MICROGRAPH,
    class_labels,
    match_particles,
    label_values,
    pick_scores,
    read_classified,
    read_micrograph_keys,
    read_true_particles,
    read_truth,
    read_vectors,
    split_by_micrograph,
    true_directions,
    true_species,
)
from siamese2d_engine.io.atomic import read_json, write_json
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.runs import Run

RESULT = "evaluation.json"


def evaluate_picks_to(
    out: Path,
    *,
    coordinates: Path,
    truth: Path,
    radius: float,
    micrographs: Path | None = None,
    where: dict[str, str] | None = None,
    truth_scale: float = 1.0,
    overwrite: bool = False,
) -> dict:
    """Score picked coordinates against true ones.

    Parameters
    ----------
    out
        Folder of the run.
    coordinates, truth
        STAR or CSV.
    radius
        Farthest that a pick may lie from its particle, pixels.
    micrographs
        STAR file of the micrographs to score; by default those that the truth knows.
    where
        Rows of the truth to use, by the values of columns.
    truth_scale
        Factor from the truth's pixels to those of the coordinates.
    overwrite
        As for every run.

    Returns
    -------
    dict
        What ``evaluation.json`` holds.

    Raises
    ------
    InputError
        If a file can't be read, or no true particle lies in these micrographs.
    """
    where = where or {}
    parameters = {"radius": radius, "where": where, "truth_scale": truth_scale}
    inputs = [path for path in (coordinates, truth, micrographs) if path is not None]
    with Run(out, "evaluate picks", parameters, inputs, overwrite) as run:
        if not run.finished:
            result = _evaluate_picks(coordinates, truth, radius, micrographs, where, truth_scale)
            if result["ignored_picks"]:
                run.warn(f"{result['ignored_picks']} picks lie in micrographs that are not scored.")
            write_json(run.path(RESULT), result)
        result = read_json(run.path(RESULT))
    print(_picks_table(result))
    return result


def _evaluate_picks(
    coordinates: Path, truth_path: Path, radius: float, micrographs: Path | None, where: dict, truth_scale: float
) -> dict:
    picks = read_coordinates(coordinates)
    truth = read_truth(truth_path, where, truth_scale)
    if micrographs is None:
        keys = list(dict.fromkeys(truth[MICROGRAPH].map(micrograph_key)))
    else:
        keys = read_micrograph_keys(micrographs)
    picks["score"] = pick_scores(picks, coordinates)
    found, true = split_by_micrograph(picks, keys), split_by_micrograph(truth, keys)
    if not any(map(len, true)):
        raise InputError(f"{truth_path}: no true particle lies in the micrographs of {micrographs}. Check their names.")
    if not any(map(len, found)):
        raise InputError(
            f"{coordinates}: no pick lies in the scored micrographs (their first is '{keys[0]}', the picks' "
            f"first is '{picks[MICROGRAPH].iloc[0]}'). Give picks of the same micrographs."
        )
    scores = score_picks(
        [group[COORDINATES].to_numpy(float) for group in found],
        [group["score"].to_numpy(float) for group in found],
        [group[COORDINATES].to_numpy(float) for group in true],
        radius,
    )
    ignored = len(picks) - sum(map(len, found))
    return {"kind": "picks", "radius": radius, "micrographs": len(keys), "ignored_picks": ignored, **scores.as_dict()}


def evaluate_classes_to(
    out: Path,
    *,
    particles: Path,
    truth: Path,
    radius: float | None = None,
    where: dict[str, str] | None = None,
    truth_scale: float = 1.0,
    overwrite: bool = False,
) -> dict:
    """Score 2D classes against the true species and viewing directions.

    Parameters
    ----------
    out
        Folder of the run.
    particles
        STAR file with class numbers.
    truth
        STAR file with species and angles, of the same images or of the same micrographs.
    radius
        Farthest that a particle may lie from its true place, pixels, where images are not matched by name.
    where, truth_scale, overwrite
        As for picks.

    Returns
    -------
    dict
        What ``evaluation.json`` holds.

    Raises
    ------
    InputError
        If a file can't be read, or particles and truth do not belong together.
    """
    where = where or {}
    parameters = {"radius": radius, "where": where, "truth_scale": truth_scale}
    with Run(out, "evaluate classes", parameters, [particles, truth], overwrite) as run:
        if not run.finished:
            write_json(run.path(RESULT), _evaluate_classes(particles, truth, radius, where, truth_scale))
        result = read_json(run.path(RESULT))
    print(_classes_table(result))
    return result


def _evaluate_classes(
    particles_path: Path, truth_path: Path, radius: float | None, where: dict, truth_scale: float
) -> dict:
    particles = read_classified(particles_path)
    truth = read_true_particles(truth_path, where, truth_scale)
    matched = match_particles(particles, truth, radius, (particles_path, truth_path))
    labels = class_labels(particles, particles_path)
    species = true_species(truth, matched, truth_path)
    directions = true_directions(truth, matched, truth_path)
    real = species != JUNK
    spread = None if directions is None else angular_spread(labels[real], directions[real], mirror=False)
    mirror = None if directions is None else angular_spread(labels[real], directions[real], mirror=True)
    sizes = np.unique(labels[labels >= 1], return_counts=True)[1]
    return {
        "kind": "classes",
        "particles": len(particles),
        "matched": int((matched >= 0).sum()),
        "junk": int((species == JUNK).sum()),
        "unassigned": int((labels < 1).sum()),
        "classes": len(sizes),
        "smallest_class": int(sizes.min()) if len(sizes) else 0,
        "largest_class": int(sizes.max()) if len(sizes) else 0,
        **species_scores(np.maximum(labels, 0), species),
        "spread": spread,
        "spread_mirror": mirror,
        "per_class": class_rows(labels, species, directions),
    }


def evaluate_embedding_to(
    out: Path,
    *,
    particles: Path,
    embeddings: Path,
    truth: Path,
    label: str,
    classes: int | None = None,
    centres: int | None = None,
    radius: float | None = None,
    where: dict[str, str] | None = None,
    truth_scale: float = 1.0,
    seed: int = 0,
    overwrite: bool = False,
) -> dict:
    """Score vectors of particles, and k-means on them, against known classes.

    Parameters
    ----------
    out
        Folder of the run.
    particles, embeddings
        STAR file, and ``(n, d)`` vectors of its rows as NumPy file.
    truth
        STAR file with the column `label`, of the same images or of the same micrographs.
    label
        Column with the true classes, numbers or words.
    classes
        K of k-means, by default as many as there are true classes.
    centres
        Over-cluster to so many first, see :func:`siamese2d_engine.evaluate.embeddings.cluster`.
    radius, where, truth_scale, overwrite
        As for classes.
    seed
        Of k-means.

    Returns
    -------
    dict
        What ``evaluation.json`` holds.

    Raises
    ------
    InputError
        If a file can't be read, files do not belong together, or there are more classes than particles.
    """
    where = where or {}
    parameters = {
        "radius": radius, "where": where, "truth_scale": truth_scale, "label": label, "classes": classes,
        "centres": centres, "seed": seed,
    }
    with Run(out, "evaluate embedding", parameters, [particles, embeddings, truth], overwrite) as run:
        if not run.finished:
            table = read_true_particles(particles, {}, 1.0)
            vectors = read_vectors(embeddings, len(table), particles)
            known = read_true_particles(truth, where, truth_scale)
            matched = match_particles(table, known, radius, (particles, truth))
            if (matched < 0).any():
                run.warn(f"{(matched < 0).sum()} particles are unknown to the truth and left out.")
            values = label_values(known, label, truth)[matched[matched >= 0]]
            content = _evaluate_embedding(vectors[matched >= 0], values, classes, centres, seed, embeddings)
            write_json(run.path(RESULT), content)
        result = read_json(run.path(RESULT))
    print(_embedding_table(result))
    return result


def _evaluate_embedding(
    vectors: np.ndarray, truth: np.ndarray, classes: int | None, centres: int | None, seed: int, path: Path
) -> dict:
    wanted = classes or len(np.unique(truth))
    distinct = len(np.unique(vectors, axis=0))
    if max(wanted, centres or 0) > distinct:
        raise InputError(
            f"{path}: {distinct} different vectors can't make {max(wanted, centres or 0)} clusters. Lower --classes or "
            "--centres."
        )
    if centres and centres < wanted:
        raise InputError(f"--centres {centres}: fewer than the {wanted} classes to make of them. Give more.")
    labels = cluster(vectors, wanted, seed, centres)
    scores = embedding_scores(vectors, truth, labels, seed)
    return {"kind": "embedding", "particles": len(vectors), "clusters": wanted, **scores}


def _embedding_table(result: dict) -> str:
    summary = _aligned(
        [
            ("particles", f"{result['particles']}, {result['clusters']} clusters"),
            ("k-means accuracy", f"{_number(result['accuracy'])} (clusters matched to classes one to one)"),
            ("NMI, ARI", f"{_number(result['nmi'])}, {_number(result['ari'])}"),
            ("silhouette", f"{_number(result['silhouette'])} (true classes)"),
            ("diagonal dominance", _number(result["diagonal_dominance"])),
        ]
    )
    names = [str(name) for name in result["classes"]]
    width = max(6, *map(len, names))
    header = "cosine".ljust(width) + "".join(f" {name:>{width}}" for name in names)
    rows = [
        name.ljust(width) + "".join(f" {_number(value, 2):>{width}}" for value in row)
        for name, row in zip(names, result["cosine"])
    ]
    return "\n".join([summary, "", header, *rows])


def _picks_table(result: dict) -> str:
    return _aligned(
        [
            ("micrographs", result["micrographs"]),
            ("true particles", result["particles"]),
            ("picks", result["picks"]),
            ("average precision", _number(result["average_precision"])),
            (
                "best F1",
                f"{_number(result['best_f1'])} (precision {_number(result['best_precision'])}, recall "
                f"{_number(result['best_recall'])}, at score {_number(result['best_threshold'])})",
            ),
            (
                "F1 of all picks",
                f"{_number(result['f1'])} (precision {_number(result['precision'])}, recall "
                f"{_number(result['recall'])})",
            ),
            (
                "centre error",
                f"{_number(result['median_error'], 2)} px median, {_number(result['rms_error'], 2)} px rms",
            ),
        ]
    )


def _classes_table(result: dict) -> str:
    summary = _aligned(
        [
            ("particles", f"{result['particles']} ({result['junk']} junk, {result['unassigned']} in no class)"),
            ("classes", f"{result['classes']} ({result['smallest_class']} to {result['largest_class']} particles)"),
            ("purity by species", _number(result["purity"])),
            ("NMI, ARI", f"{_number(result['nmi'])}, {_number(result['ari'])}"),
            ("junk", f"recall {_number(result['junk_recall'])}, precision {_number(result['junk_precision'])}"),
            (
                "angular spread",
                f"{_number(result['spread'], 1)} deg, {_number(result['spread_mirror'], 1)} deg modulo mirror",
            ),
        ]
    )
    header = f"{'class':>5} {'size':>6} {'species':>7} {'purity':>6} {'spread':>6} {'mirror':>6}"
    rows = [
        f"{row['class']:>5} {row['size']:>6} {row['species'] or 'junk':>7} {_number(row['purity'], 2):>6} "
        f"{_number(row.get('spread'), 1):>6} {_number(row.get('spread_mirror'), 1):>6}"
        for row in result["per_class"]
    ]
    return "\n".join([summary, "", header, *rows])


def _aligned(rows: list[tuple]) -> str:
    return "\n".join(f"{label:<18} {value}" for label, value in rows)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
