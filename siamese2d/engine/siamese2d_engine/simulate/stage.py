"""The files of a simulation: images, tables, and the truth."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path, write_json
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.star import write_star
from siamese2d_engine.progress import progress
from siamese2d_engine.runs import Run
from siamese2d_engine.simulate.micrographs import (
    MicrographPlan,
    noise_generator,
    particle_box,
    plan_micrograph,
    render_micrograph,
)
from siamese2d_engine.simulate.optics import defocus_columns, optics_table
from siamese2d_engine.simulate.particles import (
    JUNK_KINDS,
    ParticleRenderer,
    ParticleTruth,
    default_diameter,
    make_volumes,
    plan_particles,
)
from siamese2d_engine.simulate.projection import FourierVolume
from siamese2d_engine.simulate.volumes import Volume, read_volume

TRAINING_SHARE = 2 / 3  # of the micrographs; labels are drawn from the first ones
SMALLEST_BOX = 16  # pixels
CLICK_JITTER = 1.0  # pixels, standard deviation along x and y


def simulate_micrographs_to(
    out: Path,
    *,
    micrographs: int,
    size: int,
    pixel_size: float,
    particles_per_micrograph: int,
    species: int,
    diameter: float,
    snr: float,
    labels: int,
    volume_paths: list[Path],
    seed: int,
    overwrite: bool = False,
) -> None:
    """Write simulated micrographs, their truth and some labelled coordinates into a run's folder.

    Files: ``micrographs.star``, ``micrographs/*.mrc``, ``truth.star`` (species from 1), ``training_coordinates.star``
    (from the first two thirds of the micrographs, with about 1 px of jitter), ``test_micrographs.star`` (the other
    third) and ``simulation.json``.

    Parameters
    ----------
    out
        Folder of the run.
    micrographs, size, pixel_size
        Number of square micrographs, their side in pixels, angstroms per pixel.
    particles_per_micrograph
        Wanted; fewer where there is no room.
    species
        Number of made-up proteins, when no `volume_paths` are given.
    diameter
        Of the largest made-up protein, angstroms.
    snr
        Variance of the signal in the particles' boxes over the variance of the noise.
    labels
        Number of training coordinates.
    volume_paths
        Density maps to project instead of made-up proteins.
    seed, overwrite
        As for every run.

    Raises
    ------
    InputError
        If particles are too large for the micrographs, or a map can't be read.
    """
    parameters = {
        "micrographs": micrographs,
        "size": size,
        "pixel_size": pixel_size,
        "species": species,
        "diameter": diameter,
        "particles_per_micrograph": particles_per_micrograph,
        "snr": snr,
        "labels": labels,
        "seed": seed,
    }
    if not volume_paths:
        _check_room(size, diameter, pixel_size)
    with Run(out, "simulate micrographs", parameters, volume_paths, overwrite) as run:
        if run.finished:
            return
        volumes = _volumes(volume_paths, species, diameter, pixel_size, seed)
        largest = max(volume.diameter for volume in volumes)
        _check_room(size, largest, pixel_size)
        plans = [
            plan_micrograph(i, size, pixel_size, particles_per_micrograph, len(volumes), largest, seed)
            for i in range(micrographs)
        ]
        names = [f"simulated_{i + 1:03d}" for i in range(micrographs)]
        paths = [run.path("micrographs", f"{name}.mrc") for name in names]
        transforms = [FourierVolume(volume.density, volume.voxel_size) for volume in volumes]
        for index in progress(range(micrographs), "simulate"):
            if len(plans[index].positions) < particles_per_micrograph:
                run.warn(
                    f"{names[index]}: room for {len(plans[index].positions)} of {particles_per_micrograph} particles."
                )
            if not paths[index].exists():
                generator = noise_generator(seed, index)
                image = render_micrograph(plans[index], transforms, size, pixel_size, largest, snr, generator)
                write_mrc(paths[index], image.numpy(), pixel_size)
        _write_micrograph_tables(run, plans, paths, pixel_size, labels, seed)
        run.results["particles"] = sum(len(plan.positions) for plan in plans)
        write_json(
            run.path("simulation.json"),
            {
                **parameters,
                "species": _species_summary(volumes),
                "micrographs": _micrograph_summary(plans, names),
            },
        )


def simulate_particles_to(
    out: Path,
    *,
    particles: int,
    box: int,
    pixel_size: float,
    species: int,
    snr: float,
    max_shift: float,
    ctf: bool,
    junk: float,
    coloured: bool,
    volume_paths: list[Path],
    seed: int,
    overwrite: bool = False,
) -> None:
    """Write a simulated particle stack and its truth into a run's folder.

    Files: ``particles.mrcs`` (bright on dark), ``particles.star``, ``truth.star`` (the same rows with
    ``siamese2dSpecies``, 0 for junk, angles and RELION's origins) and ``simulation.json``.

    Parameters
    ----------
    out
        Folder of the run.
    particles, box, pixel_size
        Number of images, their side in pixels, angstroms per pixel.
    species
        Number of made-up proteins, when no `volume_paths` are given.
    snr
        Variance of the signal over the box over the variance of the noise.
    max_shift
        Largest shift along x and y, angstroms.
    ctf, coloured
        Whether images have a CTF, and noise a spectrum.
    junk
        Fraction of images that show no single particle.
    volume_paths, seed, overwrite
        As for micrographs.

    Raises
    ------
    InputError
        If the box is too small, or a map can't be read.
    """
    if box < SMALLEST_BOX:
        raise InputError(
            f"--box {box}: images of less than {SMALLEST_BOX} pixels show no particle. Make the box larger."
        )
    parameters = {
        "particles": particles,
        "box": box,
        "pixel_size": pixel_size,
        "species": species,
        "snr": snr,
        "max_shift": max_shift,
        "ctf": ctf,
        "junk": junk,
        "noise": "coloured" if coloured else "white",
        "seed": seed,
    }
    with Run(out, "simulate particles", parameters, volume_paths, overwrite) as run:
        if run.finished:
            return
        volumes = _volumes(volume_paths, species, default_diameter(box, pixel_size), pixel_size, seed)
        truth = plan_particles(particles, len(volumes), max_shift / pixel_size, junk, ctf, seed)
        renderer = ParticleRenderer(truth, volumes, box, pixel_size, snr, coloured, seed)
        stack = run.path("particles.mrcs")
        _write_stack(stack, renderer, pixel_size)
        _write_particle_tables(run, truth, stack, box, pixel_size)
        run.results["particles"] = particles
        summary = {**parameters, "species": _species_summary(volumes), "junk_kinds": list(JUNK_KINDS)}
        write_json(run.path("simulation.json"), summary)


def _volumes(paths: list[Path], species: int, diameter: float, pixel_size: float, seed: int) -> list[Volume]:
    if paths:
        return [read_volume(path, pixel_size) for path in paths]
    return make_volumes(species, diameter, pixel_size, seed)


def _check_room(size: int, diameter: float, pixel_size: float) -> None:
    box = particle_box(diameter, pixel_size)
    if 2 * box > size:
        raise InputError(
            f"Particles in boxes of {box} pixels do not fit well into micrographs of {size} pixels. Make the images "
            "larger (--size), the pixels larger (--pixel-size), or the particles smaller (--diameter)."
        )


def _species_summary(volumes: list[Volume]) -> list[dict]:
    return [
        {"number": number, "name": volume.name, "diameter": round(volume.diameter, 2)}
        for number, volume in enumerate(volumes, start=1)
    ]


def _micrograph_summary(plans: list[MicrographPlan], names: list[str]) -> list[dict]:
    training = _training_count(len(plans))
    return [
        {
            "name": name,
            "role": "train" if index < training else "test",
            "particles": len(plan.positions),
            "defocus": round(float(plan.ctf.defocus_u[0] + plan.ctf.defocus_v[0]) / 2, 1),
            "carbon": plan.carbon is not None,
        }
        for index, (plan, name) in enumerate(zip(plans, names))
    ]


def _training_count(micrographs: int) -> int:
    return max(1, round(TRAINING_SHARE * micrographs))


def _write_micrograph_tables(
    run: Run, plans: list[MicrographPlan], paths: list[Path], pixel_size: float, labels: int, seed: int
) -> None:
    optics = optics_table(rlnMicrographPixelSize=pixel_size)
    rows = [
        {"rlnMicrographName": str(path), "rlnOpticsGroup": 1}
        | {name: values[0] for name, values in defocus_columns(plan.ctf).items()}
        for path, plan in zip(paths, plans)
    ]
    training_count = _training_count(len(paths))
    write_star(run.path("micrographs.star"), {"optics": optics, "micrographs": pd.DataFrame(rows)})
    if training_count < len(paths):
        tests = {"optics": optics, "micrographs": pd.DataFrame(rows[training_count:])}
        write_star(run.path("test_micrographs.star"), tests)
    truth = pd.concat([_truth_rows(path, plan) for path, plan in zip(paths, plans)], ignore_index=True)
    write_star(run.path("truth.star"), {"optics": optics, "particles": truth})
    training = truth[truth["rlnMicrographName"].isin([str(path) for path in paths[:training_count]])]
    coordinates = _labelled(training, labels, np.random.default_rng([seed, 7]))
    write_star(run.path("training_coordinates.star"), {"coordinates": coordinates})


def _truth_rows(path: Path, plan: MicrographPlan) -> pd.DataFrame:
    count = len(plan.positions)
    return pd.DataFrame(
        {
            "rlnMicrographName": str(path),
            "rlnCoordinateX": plan.positions[:, 0],
            "rlnCoordinateY": plan.positions[:, 1],
            "siamese2dSpecies": plan.species + 1,
            **_angle_columns(plan.angles),
            **{name: np.repeat(values, count) for name, values in defocus_columns(plan.ctf).items()},
            "rlnOpticsGroup": 1,
        }
    )


def _labelled(truth: pd.DataFrame, labels: int, rng: np.random.Generator) -> pd.DataFrame:
    """Some true coordinates as a person would click them, in the order of the micrographs."""
    chosen = np.sort(rng.permutation(len(truth))[:labels])
    table = truth.iloc[chosen][["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]].reset_index(drop=True)
    for column in ("rlnCoordinateX", "rlnCoordinateY"):
        table[column] += CLICK_JITTER * rng.normal(size=len(table))
    return table


def _angle_columns(angles: np.ndarray) -> dict[str, np.ndarray]:
    rot, tilt, psi = np.degrees(angles).T
    return {"rlnAngleRot": rot, "rlnAngleTilt": tilt, "rlnAnglePsi": psi}


def _write_stack(path: Path, renderer: ParticleRenderer, pixel_size: float) -> None:
    shape = (len(renderer.truth), renderer.box, renderer.box)
    with atomic_path(path) as partial:
        with mrcfile.new_mmap(partial, shape=shape, mrc_mode=2, overwrite=True) as file:
            chunks = progress(renderer.chunks(), "simulate", len(renderer.truth), "particle",
                              count=lambda chunk: len(chunk[1]))
            for start, images in chunks:
                file.data[start : start + len(images)] = images
            file.set_image_stack()
            file.voxel_size = pixel_size
            file.update_header_stats()


def _write_particle_tables(run: Run, truth: ParticleTruth, stack: Path, box: int, pixel_size: float) -> None:
    optics = optics_table(rlnImagePixelSize=pixel_size, rlnImageSize=box, rlnImageDimensionality=2)
    table = pd.DataFrame(
        {
            "rlnImageName": [f"{number:06d}@{stack}" for number in range(1, len(truth) + 1)],
            "rlnMicrographName": [f"simulated_{number + 1:03d}.mrc" for number in truth.micrographs],
            **({} if truth.ctf is None else defocus_columns(truth.ctf)),
            "rlnOpticsGroup": 1,
        }
    )
    write_star(run.path("particles.star"), {"optics": optics, "particles": table})
    origins = -truth.shifts * pixel_size
    known = table.assign(
        siamese2dSpecies=truth.species,
        siamese2dJunk=["particle" if kind < 0 else JUNK_KINDS[kind] for kind in truth.junk],
        **_angle_columns(truth.angles),
        rlnOriginXAngst=origins[:, 0],
        rlnOriginYAngst=origins[:, 1],
    )
    write_star(run.path("truth.star"), {"optics": optics, "particles": known})
