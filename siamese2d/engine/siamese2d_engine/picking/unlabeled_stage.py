"""The stage ``pick-unlabeled``: particles by their size, or by templates, without labels and without a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import read_json, write_json
from siamese2d_engine.io.coordinates import SCORE, X, Y
from siamese2d_engine.io.images import image_shape
from siamese2d_engine.io.micrographs import NAME, MicrographSet
from siamese2d_engine.io.star import read_star, write_star
from siamese2d_engine.normalize.parallel import bounded_threads, parallel_map
from siamese2d_engine.picking.blob_picker import FLOOR, BlobPicker, learn_blobs
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.oddities import Usual
from siamese2d_engine.picking.output import joined, write_picks
from siamese2d_engine.picking.template_picker import TemplatePicker, learn_templates
from siamese2d_engine.picking.templates import read_templates, turned_templates
from siamese2d_engine.picking.unlabeled_threshold import separating_score
from siamese2d_engine.picking.unlabeled_view import View, read_view
from siamese2d_engine.progress import progress
from siamese2d_engine.runs import Run

DIAMETER = "siamese2dDiameter"
# Micrographs that the picker learns from: so many, and fewer where they are large.
SAMPLE = 12
SAMPLE_PIXELS = 2**24
# About the ratio of neighbouring diameters in a range of sizes.
SIZE_STEP = 1.3

Picker = BlobPicker | TemplatePicker


@dataclass(frozen=True)
class Settings:
    """What determines the candidates beside the micrographs.

    Attributes
    ----------
    smallest, largest : float
        Diameters of the particles, angstroms; equal for one size.
    contrast : str
        One of `unlabeled_view.CONTRASTS`.
    templates : str or None
        File of templates; None looks for blobs.
    template_pixel_size : float or None
        Angstroms; None for that of the file.
    """

    smallest: float
    largest: float
    contrast: str = "dark"
    templates: str | None = None
    template_pixel_size: float | None = None

    @property
    def diameters(self) -> tuple[float, ...]:
        """Sizes to look for, angstroms, in equal ratios."""
        if self.largest == self.smallest:
            return (self.smallest,)
        steps = max(1, round(np.log(self.largest / self.smallest) / np.log(SIZE_STEP)))
        return tuple(np.geomspace(self.smallest, self.largest, steps + 1).tolist())


def check_settings(settings: Settings) -> None:
    """Raise InputError for diameters that contradict each other."""
    if settings.largest < settings.smallest:
        raise InputError(f"--diameter {settings.smallest:g} {settings.largest:g}: the smallest comes first.")
    if settings.templates and settings.largest > settings.smallest:
        raise InputError("--templates: give one --diameter, that of the particle in the templates.")


def pick_unlabeled(run: Run, micrographs: MicrographSet, settings: Settings, threshold: float | None = None,
                   threads: int = 1) -> None:
    """Pick particles into the run's folder: ``candidates.star``, ``coordinates.star``, ``picking.json``.

    Keeps ``appearance.json`` (what was learned from some of the micrographs) and ``candidates/<stem>.star`` to resume
    from.

    Parameters
    ----------
    threshold : float, optional
        Smallest score of a picked particle; by default the score that separates candidates best.

    Raises
    ------
    InputError
        If no micrograph can be picked, or templates or diameters do not suit them.
    """
    check_settings(settings)
    picker = _picker(run, micrographs, settings)
    threads, numbers = bounded_threads(threads, micrographs.paths), range(len(micrographs))
    found = parallel_map(lambda i: _candidates(run, micrographs, i, picker, settings), numbers, threads)
    tables = list(progress(found, "pick", total=len(micrographs)))
    candidates = joined(tables)
    for table in tables:
        if isinstance(table, InputError):
            run.warn(str(table))
    used = separating_score(candidates[SCORE].to_numpy()) if threshold is None else threshold
    write_picks(run, micrographs.names, tables, candidates, used, FLOOR,
                "Lower --threshold, or check --diameter and --contrast.")
    run.results["threshold_given"] = threshold


def _picker(run: Run, micrographs: MicrographSet, settings: Settings) -> Picker:
    """The picker, learned once and kept: a resumed run picks by the same."""
    path = run.path("appearance.json")
    if path.exists():
        return _from_json(read_json(path), settings)
    views = _sample(micrographs, settings)
    if settings.templates:
        picker = learn_templates(views, *_templates(settings))
    else:
        picker = learn_blobs(views, settings.diameters)
    write_json(path, _to_json(picker))
    return _from_json(read_json(path), settings)


def _templates(settings: Settings) -> tuple[np.ndarray, float]:
    """Templates, and working pixels per pixel of theirs."""
    images, pixel_size = read_templates(Path(settings.templates), settings.template_pixel_size)
    width = min(images.shape[1:]) * pixel_size
    if width < settings.smallest:
        raise InputError(f"{settings.templates}: templates of {width:.0f} A are smaller than --diameter "
                         f"{settings.smallest:g}. Check the diameter, or pass --template-pixel-size.")
    return images, pixel_size * WORKING_DIAMETER / settings.smallest


def _sample(micrographs: MicrographSet, settings: Settings) -> list[View]:
    """Views of some micrographs, evenly spaced; those that can't be read are reported when they are picked."""
    order = np.unique(np.linspace(0, len(micrographs) - 1, min(SAMPLE, len(micrographs))).round().astype(int))
    views, pixels, first_error = [], 0, None
    for i in progress(order, "learn"):
        try:
            view = _view(micrographs, i, settings)
        except InputError as error:
            first_error = first_error or error
            continue
        views.append(view)
        pixels += view.flat.size
        if pixels > SAMPLE_PIXELS:
            break
    if not views:
        raise InputError(f"None of {len(order)} micrographs could be used to learn from. {first_error}")
    return views


def _view(micrographs: MicrographSet, i: int, settings: Settings) -> View:
    return read_view(micrographs.paths[i], float(micrographs.pixel_sizes[i]), settings.diameters, settings.contrast)


def _candidates(run: Run, micrographs: MicrographSet, i: int, picker: Picker,
                settings: Settings) -> pd.DataFrame | InputError:
    """Candidates of one micrograph, or why there are none."""
    path = run.path("candidates", f"{micrographs.names[i]}.star")
    try:
        if not path.exists():
            view = _view(micrographs, i, settings)
            shape = image_shape(micrographs.paths[i])
            table = _table(str(micrographs.table[NAME].iloc[i]), picker.pick(view), view, shape, settings)
            write_star(path, {"coordinates": table})
        table = next(iter(read_star(path).values()))
    except InputError as error:
        return error
    return table.astype({NAME: str, X: float, Y: float, SCORE: float, DIAMETER: float})


def _table(name: str, found: np.ndarray, view: View, shape: Sequence[int], settings: Settings) -> pd.DataFrame:
    xy = np.clip(view.to_micrograph(found[:, :2]), -0.5, np.array(shape)[::-1] - 0.5)
    return pd.DataFrame({NAME: [name] * len(xy), X: xy[:, 0].round(2), Y: xy[:, 1].round(2),
                         SCORE: found[:, 2].round(4),
                         DIAMETER: (found[:, 3] * settings.smallest / WORKING_DIAMETER).round(2)})


def _to_json(picker: Picker) -> dict:
    usual = picker.usual
    content = {"usual": None if usual is None else {"median": usual.median.tolist(), "width": usual.width.tolist()}}
    if isinstance(picker, BlobPicker):
        content["diameters"] = list(picker.diameters)
        content["filters"] = [None if kernel is None else kernel.tolist() for kernel in picker.filters]
    return content


def _from_json(content: dict, settings: Settings) -> Picker:
    stored = content["usual"]
    usual = None if stored is None else Usual(np.array(stored["median"]), np.array(stored["width"]))
    if settings.templates:
        images, factor = _templates(settings)
        return TemplatePicker(turned_templates(images, factor, WORKING_DIAMETER), usual)
    filters = tuple(None if kernel is None else np.array(kernel, dtype=np.float32) for kernel in content["filters"])
    return BlobPicker(tuple(content["diameters"]), filters, usual)
