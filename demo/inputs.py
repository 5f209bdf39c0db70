"""What the demo starts from: simulated micrographs with their truth, or a person's own."""

import csv
import random
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
from PIL import Image

TRAINING_LABELS = 100
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg")
IMAGE_ENDINGS = (".mrc", ".tif", ".tiff", *PICTURE_ENDINGS)
SIMULATION = {"micrographs": 12, "size": 1024, "particles-per-micrograph": 110, "species": 3, "labels": TRAINING_LABELS,
              "pixel-size": 3.5, "diameter": 150}


@dataclass(frozen=True)
class DemoInput:
    """Input of the chain.

    Attributes
    ----------
    pattern : str
        Glob pattern of the micrographs.
    pixel_size : float
        Angstroms per pixel.
    labels : Path or None
        Coordinates to train the picker with (STAR or CSV); None finds particles by their diameter first.
    diameter : float
        Particle diameter in angstroms; 0 asks the picker to estimate it from the labels.
    test_micrographs : list of str
        Stems of the micrographs that no label comes from.
    truths : dict of str to Path
        Coordinates to measure the picks against, by the name of who marked them.
    species_truth : Path or None
        Table with species and orientations, for simulated particles only.
    """

    pattern: str
    pixel_size: float
    labels: Path | None
    diameter: float
    test_micrographs: list[str]
    truths: dict[str, Path] = field(default_factory=dict)
    species_truth: Path | None = None


def simulated(engine: str, folder: Path) -> DemoInput:
    """Simulate micrographs with the engine, unless the folder holds them already."""
    arguments = [str(part) for name, value in SIMULATION.items() for part in (f"--{name}", value)]
    subprocess.run([engine, "simulate", "micrographs", "--out", str(folder), *arguments], check=True)
    labels = folder / "training_coordinates.star"
    names = sorted(path.stem for path in (folder / "micrographs").glob("*.mrc"))
    truth = folder / "truth.star"
    return DemoInput(
        pattern=str(folder / "micrographs" / "*.mrc"),
        pixel_size=SIMULATION["pixel-size"],
        labels=labels,
        diameter=SIMULATION["diameter"],
        test_micrographs=[name for name in names if not _names(labels, name)],
        truths={"truth": truth},
        species_truth=truth,
    )


def own(data: Path, pixel_size: float | None, coordinates: Path | None, diameter: float, folder: Path) -> DemoInput:
    """A person's own micrographs, and labels where there are any.

    Labels are drawn from the first half of the micrographs (by name); the others are for measuring. With a column
    `annotator`, the first annotator's labels train, and the picks are measured against each annotator.
    """
    images = sorted(path for path in data.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    if not images:
        raise SystemExit(f"DATA={data}: no micrographs there ({', '.join(IMAGE_ENDINGS)}).")
    endings = sorted({path.suffix for path in images})
    if len(endings) > 1:
        raise SystemExit(f"DATA={data}: micrographs of several types ({', '.join(endings)}). Keep one type in the "
                         "folder.")
    stems = [path.stem for path in images]
    pixel_size = _pixel_size(pixel_size, images[0])
    folder.mkdir(parents=True, exist_ok=True)
    coordinates = coordinates or _find_coordinates(data)
    if coordinates is None:
        if not diameter:
            raise SystemExit(f"DATA={data}: no coordinates there. Pass DIAMETER in angstroms, to find particles by "
                             "their size first; or COORDINATES=FILE, a CSV file with the columns micrograph, x, y "
                             "(pixels of the micrographs, row 0 on top) and about 100 marked particles.")
        return DemoInput(pattern=_importable(data, images, pixel_size, folder), pixel_size=pixel_size, labels=None,
                         diameter=diameter, test_micrographs=stems)
    rows = _read_csv(coordinates)
    training = stems[: max(1, len(stems) // 2)]
    annotators = list(dict.fromkeys(row.get("annotator", "") for row in rows))
    candidates = [row for row in rows if row["micrograph"] in training and row.get("annotator", "") == annotators[0]]
    if not candidates:
        raise SystemExit(f"COORDINATES={coordinates}: no labels on {training[0]} to {training[-1]}. The picker is "
                         "trained on the first half of the micrographs by name; mark some particles there.")
    random.Random(0).shuffle(candidates)
    test = [stem for stem in stems if stem not in training] or training
    return DemoInput(
        pattern=_importable(data, images, pixel_size, folder),
        pixel_size=pixel_size,
        labels=_write_csv(folder / "labels.csv", candidates[:TRAINING_LABELS]),
        diameter=diameter,
        test_micrographs=test,
        truths={name or "your labels": _write_csv(folder / f"truth_{name or 'all'}.csv", [
            row for row in rows if row.get("annotator", "") == name and row["micrograph"] in test])
            for name in annotators},
    )


def _importable(data: Path, images: list[Path], pixel_size: float, folder: Path) -> str:
    """Glob pattern of the micrographs as Scipion can import them: it reads MRC and TIFF, so PNG and JPEG become MRC."""
    if images[0].suffix.lower() not in PICTURE_ENDINGS:
        return str(data / f"*{images[0].suffix}")
    converted = folder / "micrographs"
    converted.mkdir(parents=True, exist_ok=True)
    for image in images:
        with Image.open(image) as picture:
            grey = picture if picture.mode in ("L", "I", "F", "I;16", "I;16B", "I;16L") else picture.convert("L")
            pixels = np.asarray(grey, dtype=np.float32)
        with mrcfile.new(converted / f"{image.stem}.mrc", overwrite=True) as mrc:
            mrc.set_data(pixels)
            mrc.voxel_size = pixel_size
    return str(converted / "*.mrc")


def _names(star: Path, stem: str) -> bool:
    """Whether a STAR file mentions this micrograph."""
    return re.search(rf"\b{re.escape(stem)}\b", star.read_text()) is not None


def _find_coordinates(data: Path) -> Path | None:
    found = sorted([*data.glob("*.csv"), *data.parent.glob("*.csv")])
    return found[0] if found else None


def _read_csv(path: Path) -> list[dict]:
    if not path.is_file():
        raise SystemExit(f"COORDINATES={path}: the file does not exist.")
    with open(path, newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"micrograph", "x", "y"} <= set(rows[0]):
        raise SystemExit(f"COORDINATES={path}: needs a first line with the columns micrograph, x, y, and a row "
                         "per particle.")
    return [{**row, "micrograph": _stem(row["micrograph"])} for row in rows]


def _stem(name: str) -> str:
    """Name of a micrograph without folder and image ending; other dots belong to the name."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_ENDINGS else path.name


def _write_csv(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["micrograph", "x", "y"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def _pixel_size(given: float | None, image: Path) -> float:
    if given:
        return given
    if image.suffix.lower() == ".mrc":
        with mrcfile.open(image, mode="r", header_only=True) as mrc:
            if mrc.voxel_size.x > 0:
                return float(mrc.voxel_size.x)
    raise SystemExit(f"{image}: the file does not say its pixel size. Pass PIXEL_SIZE in angstroms, e.g. "
                     "PIXEL_SIZE=1.5.")
