"""The ``export`` stage: tables for RELION or cryoSPARC."""

from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.export.mirrors import MIRROR_OF, mirror, split_mirrored
from siamese2d_engine.io import cryosparc
from siamese2d_engine.io.coordinates import X, Y, group_by_micrograph
from siamese2d_engine.io.images import image_shape, write_mrc
from siamese2d_engine.io.micrographs import NAME, MicrographSet, micrograph_tables, resolve, stem_of
from siamese2d_engine.io.particles import IMAGE, ParticleSet, write_particles
from siamese2d_engine.io.references import References, read_references
from siamese2d_engine.io.star import write_star
from siamese2d_engine.runs import Run

RELION, CRYOSPARC = FORMATS = ("relion", "cryosparc")
CLASS = "rlnClassNumber"
SHAPE = "cs__location__micrograph_shape"


def export_particles(run: Run, source: Path, particles: ParticleSet, classes: Path | None, program: str) -> None:
    """Write particles with their classes and 2D alignments, and the averages.

    Parameters
    ----------
    run
        Where the files go: ``particles.star`` or ``particles.cs`` and ``particles.csg``; with classes also
        ``classes.mrcs`` and ``classes.star`` or ``templates.cs`` and ``templates.csg``.
    source
        The table that `particles` was read from.
    particles
        What to write. Mirrored members come into classes of their own (`siamese2d_engine.export.mirrors`).
    classes
        Averages, as `read_references` takes them.
    program
        'relion' or 'cryosparc'.

    Raises
    ------
    InputError
        If particles are in a class that `classes` does not have.
    """
    table, new = split_mirrored(particles.table)
    table, optics = _with_resolved_images(table, source), _complete(particles)
    if program == RELION:
        _warn_of_dark(run, table)
        table = _without_gaps(run, _with_linked_stacks(run, table))
        write_particles(run.path("particles.star"), table, optics)
    else:
        table = _with_shapes(table, source)
        fields = cryosparc.write_particles_cs(run.path("particles.cs"), table, optics, particles.box)
        cryosparc.write_group(run.path("particles.csg"), "particle", "particles.cs", fields, "siamese2d particles")
    if classes is not None:
        averages = _averages(read_references(classes), classes, table, new)
        _write_averages(run, averages, particles.pixel_size, program)
    run.results |= {"particles": len(table), "mirrored_classes": len(new)}


def export_micrographs(run: Run, micrographs: MicrographSet, program: str) -> None:
    """Write micrographs: ``micrographs.star``, or ``micrographs.cs`` and ``micrographs.csg``."""
    paths = [path.absolute() for path in micrographs.paths]
    tables = micrograph_tables(micrographs, paths, micrographs.pixel_sizes)
    if program == RELION:
        write_star(run.path("micrographs.star"), tables)
    else:
        shapes = np.array([image_shape(path) for path in micrographs.paths])
        fields = cryosparc.write_micrographs_cs(run.path("micrographs.cs"), tables["micrographs"], tables["optics"],
                                                shapes)
        cryosparc.write_group(run.path("micrographs.csg"), "exposure", "micrographs.cs", fields,
                              "siamese2d micrographs")
    run.results["micrographs"] = len(micrographs)


def export_coordinates(run: Run, coordinates: pd.DataFrame, micrographs: MicrographSet, program: str) -> None:
    """Write positions: ``coordinates.star`` and a file for each micrograph, or ``locations.cs`` and ``.csg``."""
    groups = group_by_micrograph(coordinates, micrographs)
    if program == RELION:
        _write_autopick(run, groups, micrographs)
    else:
        shapes = np.array([image_shape(path) for path in micrographs.paths])
        counts = [len(rows) for rows in groups]
        named = [rows.assign(**{NAME: str(path)}) for rows, path in zip(groups, micrographs.paths)]
        fields = cryosparc.write_coordinates_cs(
            run.path("locations.cs"), pd.concat(named, ignore_index=True), np.repeat(shapes, counts, axis=0),
            np.repeat(micrographs.pixel_sizes, counts))
        cryosparc.write_group(run.path("locations.csg"), "particle", "locations.cs", fields, "siamese2d picks")
    run.results["coordinates"] = sum(len(rows) for rows in groups)


def _write_autopick(run: Run, groups: list[pd.DataFrame], micrographs: MicrographSet) -> None:
    """RELION's extraction takes one table that names a table of positions for each micrograph."""
    names = []
    for rows, path in zip(groups, micrographs.paths):
        names.append(run.path("coordinates", f"{stem_of(path.name)}.star"))
        write_star(names[-1], {"": rows.drop(columns=[NAME])})
    write_star(run.path("coordinates.star"), {"coordinate_files": pd.DataFrame({
        NAME: [str(path.absolute()) for path in micrographs.paths],
        "rlnMicrographCoordinates": [str(name.absolute()) for name in names]})})


def _with_resolved_images(table: pd.DataFrame, source: Path) -> pd.DataFrame:
    parts = table[IMAGE].astype(str).str.extract(r"^(?:(\d+)@)?(.+)$")
    # Other programs start in other folders.
    places = {name: str(resolve(name, source).absolute()) for name in parts[1].unique()}
    return table.assign(**{IMAGE: parts[0].fillna("1").str.zfill(6) + "@" + parts[1].map(places)})


def _complete(particles: ParticleSet) -> pd.DataFrame:
    """Optics groups with what RELION asks of them."""
    optics = particles.optics.assign(rlnImageSize=particles.box, rlnImageDimensionality=2)
    return optics if "rlnImagePixelSize" in optics else optics.assign(rlnImagePixelSize=particles.pixel_size)


def _warn_of_dark(run: Run, table: pd.DataFrame) -> None:
    dark = int((table[cryosparc.SIGN] < 0).sum()) if cryosparc.SIGN in table else 0
    if dark:
        run.warn(f"{dark} of {len(table)} particles are dark on light in their stacks, which RELION can't know from a "
                 "table. Multiply the stacks by -1 (relion_image_handler --multiply_constant -1) before you refine "
                 "them.")


def _with_linked_stacks(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """RELION takes a file for a stack only if it ends with .mrcs: others get a link that does."""
    parts = table[IMAGE].str.partition("@")
    names = {name: name if name.endswith(".mrcs") else _link(run, number, Path(name))
             for number, name in enumerate(parts[2].unique(), start=1)}
    return table.assign(**{IMAGE: parts[0] + "@" + parts[2].map(names)})


def _link(run: Run, number: int, target: Path) -> str:
    link = run.path("stacks", f"{number:05d}_{target.stem}.mrcs")
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return str(link.absolute())


def _without_gaps(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    """RELION knows no missing values."""
    gaps = [column for column in table if table[column].isna().any()]
    if gaps:
        run.warn(f"Some particles have no {', '.join(gaps)}: RELION gets 0, or None for texts, where it is missing.")
    return table.fillna({column: 0 if table[column].dtype.kind in "iuf" else "None" for column in gaps})


def _with_shapes(table: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The size of each particle's micrograph, which cryoSPARC's positions are fractions of, where it is there."""
    if not {NAME, X, Y} <= set(table) or f"{SHAPE}__0" in table:
        return table
    shapes = {name: _shape_or_none(resolve(str(name), source)) for name in table[NAME].unique()}
    if None in shapes.values():
        return table
    return table.assign(**{f"{SHAPE}__{axis}": table[NAME].map(lambda name: shapes[name][axis]) for axis in (0, 1)})


def _shape_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return image_shape(path)
    except InputError:
        return None


def _averages(found: References, path: Path, table: pd.DataFrame, new: dict[int, int]) -> References:
    """The averages, followed by the mirror images that have members."""
    places = {int(number): place for place, number in enumerate(found.numbers)}
    present = table[CLASS][table[CLASS] >= 1] if CLASS in table else pd.Series(dtype=int)
    wanted = [int(number) for number in present.unique() if number not in new.values()]
    missing = sorted({*wanted, *new} - set(places))
    if missing:
        raise InputError(f"{path}: particles are in class {missing[0]}, which it does not have. Give the averages of "
                         "the classification that the particles come from.")
    origin = [places[number] for number in new]
    rows = pd.concat([found.table.assign(**{MIRROR_OF: 0}), found.table.iloc[origin].assign(**{MIRROR_OF: list(new)})])
    images = np.concatenate([found.images, mirror(found.images[origin])])
    numbers = np.concatenate([found.numbers, list(new.values())]).astype(int)
    members = pd.Series(numbers).map(present.value_counts()).fillna(0).to_numpy(int)
    rows = rows.assign(**{CLASS: numbers, "siamese2dClassSize": members,
                          "rlnClassDistribution": members / max(1, members.sum())})
    return References(images, numbers, found.pixel_size, rows.reset_index(drop=True))


def _write_averages(run: Run, averages: References, pixel_size: float, program: str) -> None:
    stack, pixel_size = run.path("classes.mrcs").absolute(), averages.pixel_size or pixel_size
    places = averages.numbers - 1
    # An image's place in the stack is the number of its class, even where numbers are missing: cryoSPARC knows no
    # other.
    images = np.zeros((places.max() + 1, *averages.images.shape[1:]), np.float32)
    images[places] = averages.images
    write_mrc(stack, images, pixel_size)
    rows = averages.table.assign(rlnReferenceImage=[f"{place + 1:06d}@{stack}" for place in places])
    if program == RELION:
        write_star(run.path("classes.star"), {"model_classes": rows})
    else:
        fields = cryosparc.write_templates_cs(run.path("templates.cs"), rows, stack, images.shape[-1], pixel_size)
        cryosparc.write_group(run.path("templates.csg"), "template", "templates.cs", fields, "siamese2d class averages")
