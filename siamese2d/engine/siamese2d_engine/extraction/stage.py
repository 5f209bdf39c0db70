"""The stage ``extract``: particle images around coordinates.

The box is cut at the nearest pixel and its pixels are copied, not interpolated. The coordinate is kept as given, so
that the particle's centre lies up to half a pixel beside the centre of its box, by the fractional part of the
coordinate, as in RELION; columns of an alignment, if the coordinates carry them, stay valid.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.extraction.background import background_mask, fill_outside, normalize_background
from siamese2d_engine.extraction.crop import box_corners, crop, is_inside
from siamese2d_engine.extraction.tables import optics_groups, particle_rows
from siamese2d_engine.io.atomic import read_json, write_json
from siamese2d_engine.io.coordinates import X, Y, group_by_micrograph
from siamese2d_engine.io.images import image_shape, read_image, write_mrc
from siamese2d_engine.io.micrographs import MicrographSet
from siamese2d_engine.io.particles import write_particles
from siamese2d_engine.normalize.parallel import parallel_map
from siamese2d_engine.normalize.resample import check_factor, fourier_crop
from siamese2d_engine.progress import progress
from siamese2d_engine.runs import Run

EDGES = ("drop", "pad")
SMALLEST_BOX = 8
# Boxes processed at once: bounds the memory for the full-size boxes and their masks.
CHUNK = 64


@dataclass(frozen=True)
class Settings:
    """How particles are extracted.

    Attributes
    ----------
    box : int
        Micrograph pixels; even to be downsampled.
    factor : float
        Downsampling, 1 or more.
    invert : bool
        Multiply by -1: turns dark particles bright.
    normalize : bool
        Background to mean 0 and standard deviation 1.
    background_radius : float
        Radius of the particle's disc, outside of which is background: a fraction of half the box up to 1, micrograph
        pixels above.
    ramp : bool
        Subtract a plane fitted to the background, as part of normalization.
    edge : str
        Boxes that reach over the edge of the micrograph: ``drop``, or ``pad`` with the mean of their background.
    """

    box: int
    factor: float = 1.0
    invert: bool = False
    normalize: bool = True
    background_radius: float = 0.75
    ramp: bool = True
    edge: str = "drop"

    @property
    def output_box(self) -> int:
        """Pixels of the images after downsampling, even."""
        return self.box if self.factor == 1 else 2 * int(self.box / (2 * self.factor) + 0.5)

    @property
    def scale(self) -> float:
        """New pixel size / old pixel size: the factor as far as an even box allows."""
        return self.box / self.output_box

    @property
    def radius(self) -> float:
        """Radius of the particle's disc in micrograph pixels."""
        return self.background_radius * (self.box / 2 if self.background_radius <= 1 else 1)


def extract_particles(run: Run, micrographs: MicrographSet, coordinates: pd.DataFrame, settings: Settings,
                      threads: int = 1) -> None:
    """Extract all particles into the run's folder.

    Writes ``stacks/<stem>.mrcs``, ``particles.star`` and ``extraction.json``; keeps ``records/<stem>.json`` to resume
    from.

    Raises
    ------
    InputError
        If the box does not suit the images, the coordinates do not suit the micrographs, or no particle is left.
    """
    check_settings(settings)
    if settings.box % 2:
        run.warn(f"the box of {settings.box} pixels is odd; RELION and others ask for even ones.")
    groups = group_by_micrograph(coordinates, micrographs)
    _check_box(micrographs, groups, settings)
    work = partial(_record, run, settings=settings)
    jobs = list(zip(micrographs.names, micrographs.paths, micrographs.pixel_sizes, groups))
    records = list(progress(parallel_map(lambda job: work(*job), jobs, threads), "extract", total=len(jobs)))
    _warn(run, records)
    table, optics = _tables(run, micrographs, groups, records, settings)
    write_particles(run.path("particles.star"), table, optics)
    summary = [{key: value for key, value in record.items() if key != "rows"} for record in records]
    write_json(run.path("extraction.json"),
               {"box": settings.output_box, "particles": len(table), "micrographs": summary})
    failed = sum(record["status"] == "failed" for record in records)
    run.results.update(particles=len(table), micrographs=len(records) - failed, failed=failed)


def check_settings(settings: Settings) -> None:
    """Raise InputError for a box, a downsampling or a background radius that can't work."""
    check_factor(settings.factor)
    box, small = settings.box, settings.output_box
    if box % 2 and settings.factor != 1:
        raise InputError(f"--box {box}: to be downsampled, the box must be even. Use {box + 1}.")
    if small < SMALLEST_BOX:
        raise InputError(f"--box {box} with --downsample {settings.factor:g} gives images of {small} pixels; at least "
                         f"{SMALLEST_BOX} are needed. Use a larger box or less downsampling.")
    if settings.normalize and settings.radius > box / 2:
        raise InputError(f"--background-radius {settings.background_radius:g}: a disc of {settings.radius:g} "
                         f"pixels does not fit into a box of {box}, no background is left around it. Use up to "
                         f"{box // 2}, or a fraction of half the box.")


def _check_box(micrographs: MicrographSet, groups: list[pd.DataFrame], settings: Settings) -> None:
    for path, rows in zip(micrographs.paths, groups):
        if rows.empty or not path.exists():
            continue
        try:
            height, width = image_shape(path)
        except InputError:
            # A damaged file is reported when its pixels are read, as one failed micrograph.
            continue
        if settings.box > min(height, width):
            largest = min(height, width) // 2 * 2
            raise InputError(f"{path}: the image of {width} x {height} pixels is smaller than the box (--box "
                             f"{settings.box}, in micrograph pixels). Use a box of at most {largest}.")


def _record(run: Run, name: str, path: Path, pixel_size: float, coordinates: pd.DataFrame, settings: Settings) -> dict:
    """Extract from one micrograph, or find it done; its entry of ``extraction.json`` with the rows that were taken."""
    kept, stack = run.path("records", f"{name}.json"), _stack_path(run, name)
    if kept.exists():
        record = read_json(kept)
        if stack.exists() or not record["particles"]:
            return record
    try:
        record, images = _extract(name, path, coordinates, settings)
    except InputError as error:
        return {"name": name, "status": "failed", "message": str(error), "particles": 0, "rows": []}
    if len(images):
        write_mrc(stack, images, pixel_size * settings.scale)
    write_json(kept, record)
    return record


def _stack_path(run: Run, name: str) -> Path:
    return run.path("stacks", f"{name}.mrcs")


def _extract(name: str, path: Path, coordinates: pd.DataFrame, settings: Settings) -> tuple[dict, np.ndarray]:
    box, small = settings.box, settings.output_box
    rows, corners = np.arange(len(coordinates)), box_corners(coordinates[X].to_numpy(), coordinates[Y].to_numpy(), box)
    image = read_image(path) if len(rows) else np.empty((0, 0), dtype=np.float32)
    inside = is_inside(corners, box, image.shape)
    if settings.edge == "drop":
        rows, corners = rows[inside], corners[inside]
    images, good = np.empty((len(rows), small, small), dtype=np.float32), np.ones(len(rows), dtype=bool)
    for start in range(0, len(rows), CHUNK):
        chunk = slice(start, start + CHUNK)
        images[chunk], good[chunk] = _process(*crop(image, corners[chunk], box), settings)
    at_edge = int((~inside).sum())
    return {
        "name": name,
        "status": "finished",
        "message": "",
        "particles": int(good.sum()),
        "dropped_at_edge": at_edge if settings.edge == "drop" else 0,
        "padded": at_edge if settings.edge == "pad" else 0,
        "dropped_without_noise": int((~good).sum()),
        "rows": rows[good].tolist(),
    }, images[good]


def _process(images: np.ndarray, valid: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Pad, downsample, invert and normalize cut-out boxes; the images, and which of them have noise."""
    if not valid.all():
        images = fill_outside(images, valid, background_mask(settings.box, settings.radius))
    small = settings.output_box
    if small != settings.box:
        images = fourier_crop(images, (small, small))
        nearest = np.floor(np.arange(small) * settings.scale + 0.5).astype(int)
        valid = valid[:, nearest[:, None], nearest]
    if settings.invert:
        images = -images
    if not settings.normalize:
        return images, np.ones(len(images), dtype=bool)
    return normalize_background(images, valid, background_mask(small, settings.radius / settings.scale), settings.ramp)


def _tables(run: Run, micrographs: MicrographSet, groups: list[pd.DataFrame], records: list[dict],
            settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    used = [i for i, record in enumerate(records) if record["particles"]]
    if not used:
        failed = next((record["message"] for record in records if record["status"] == "failed"), "")
        raise InputError("No particle could be extracted. " + (failed or (
            f"All {sum(map(len, groups))} boxes of {settings.box} pixels reach over the edge of their micrographs "
            "or hold no noise; use a smaller --box, or --edge pad.")))
    source = micrographs.subset(used)
    optics, numbers = optics_groups(source, source.pixel_sizes * settings.scale, settings.output_box)
    parts = [particle_rows(groups[i].iloc[records[i]["rows"]], micrographs.table.iloc[i],
                           _stack_path(run, micrographs.names[i]), number) for i, number in zip(used, numbers)]
    return pd.concat(parts, ignore_index=True), optics


def _warn(run: Run, records: list[dict]) -> None:
    for record in records:
        if record["status"] == "failed":
            run.warn(record["message"])
    at_edge = sum(record.get("dropped_at_edge", 0) for record in records)
    if at_edge:
        run.warn(f"{at_edge} particles reach over the edge of their micrograph and were left out; --edge "
                 "pad would keep them.")
    constant = sum(record.get("dropped_without_noise", 0) for record in records)
    if constant:
        run.warn(f"{constant} particles have a constant background and were left out.")
