"""The files of a classification, written alike by the stages ``classify`` and ``assign``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor

from siamese2d_engine.classify import quality
from siamese2d_engine.classify.prepare import CircularMask
from siamese2d_engine.classify.realspace import Alignment
from siamese2d_engine.io.atomic import write_json
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import ParticleSet, write_particles
from siamese2d_engine.io.star import write_star
from siamese2d_engine.runs import Run

SET_APART = "set_apart.star"
REASON = "siamese2dReason"
RESOLUTION, QUALITY = "rlnEstimatedResolution", "siamese2dQuality"


@dataclass(frozen=True)
class ClassImages:
    """Averages as they are written, and how far to trust them.

    Attributes
    ----------
    images
        ``(K, box, box)``.
    numbers
        Of the classes, ``(K,)``.
    correlation
        Fourier ring correlation of halves, ``(K, box // 2)``; None where it is not known.
    """

    images: Tensor
    numbers: np.ndarray
    correlation: Tensor | None


def write_classes(
    run: Run, classes: ClassImages, sizes: np.ndarray, pixel_size: float, before: pd.DataFrame | None = None
) -> None:
    """``classes.mrcs`` and ``classes.star``.

    Parameters
    ----------
    classes
        ``K`` of them.
    sizes
        Numbers of members, ``(K,)``.
    pixel_size
        Angstroms.
    before
        Rows of the classes whose averages these are: their resolution and quality, where known, hold without a
        correlation.
    """
    stack, count = run.path("classes.mrcs"), len(classes.images)
    write_mrc(stack, classes.images.cpu().numpy(), pixel_size)
    table = pd.DataFrame({
        "rlnReferenceImage": [f"{place:06d}@{stack}" for place in range(1, count + 1)],
        "rlnClassNumber": classes.numbers,
        "siamese2dClassSize": sizes,
        "rlnClassDistribution": sizes / max(1, sizes.sum()),
    })
    if classes.correlation is not None:
        table[RESOLUTION] = quality.resolution_at(classes.correlation, classes.images.shape[-1], pixel_size)
        table[QUALITY] = quality.quality(classes.correlation).cpu().numpy()
    elif before is not None:
        known = [column for column in (RESOLUTION, QUALITY) if column in before and before[column].notna().all()]
        table[known] = before[known]
    write_star(run.path("classes.star"), {"classes": table})


def write_members(
    run: Run, particles: ParticleSet, numbers: np.ndarray, alignment: Alignment, columns: dict[str, np.ndarray],
    reasons: np.ndarray, unusable: pd.DataFrame,
) -> None:
    """``particles.star``, and ``set_apart.star`` where there is something to set apart.

    Parameters
    ----------
    particles
        That were aligned, ``n`` of them.
    numbers
        Of their classes, ``(n,)``.
    alignment
        Of the particles.
    columns
        More columns of the table.
    reasons
        Why a particle is set apart, ``(n,)``; empty text for members.
    unusable
        Rows of particles that were not aligned, with the reason.
    """
    origins = alignment.origins * particles.pixel_size
    table = particles.table.assign(
        rlnClassNumber=numbers,
        rlnAnglePsi=np.degrees(alignment.psi),
        rlnOriginXAngst=origins[:, 0],
        rlnOriginYAngst=origins[:, 1],
        rlnIsFlip=alignment.flips.astype(int),
        **columns,
    )
    apart = reasons != ""
    write_particles(run.path("particles.star"), table[~apart], particles.optics)
    rows = table[apart].assign(**{REASON: reasons[apart]})
    if len(rows) + len(unusable):
        # Those that could not be aligned have no class and no pose; a table has no gaps.
        aligned = [name for name in rows if name not in unusable]
        joined = pd.concat([rows, unusable.assign(**{name: 0 for name in aligned})], ignore_index=True)
        write_particles(run.path(SET_APART), joined[[*particles.table, *(c for c in joined if c not in particles.table)]],
                        particles.optics)


def write_report(
    run: Run, mask: CircularMask, pixel_size: float, history: list[dict], classes: ClassImages,
    grouping: Sequence[dict] = (),
) -> None:
    """``classification.json``; the history's frequencies are in cycles per pixel, `grouping` is that of `State`."""
    frequencies = (np.arange(1, mask.box // 2 + 1) / (mask.box * pixel_size)).tolist()
    curves = [] if classes.correlation is None else classes.correlation.cpu().tolist()
    write_json(run.path("classification.json"), {
        "box": mask.box,
        "pixel_size": pixel_size,
        "mask_diameter": 2 * mask.radius * pixel_size,
        "frc_threshold": quality.THRESHOLD,
        "history": [{**record, "frequency": record["frequency"] / pixel_size} for record in history],
        "grouping": list(grouping),
        "frc": [{"class": int(number), "frequency": frequencies, "frc": curve}
                for number, curve in zip(classes.numbers, curves)],
    })


def wrapped(angles: np.ndarray) -> np.ndarray:
    """Angles in radians from -pi to pi."""
    return np.mod(angles + np.pi, 2 * np.pi) - np.pi


def unusable_rows(particles: ParticleSet, reasons: np.ndarray) -> pd.DataFrame:
    """Rows of the particles that have a reason, with it."""
    bad = reasons != ""
    return particles.table[bad].assign(**{REASON: reasons[bad]})
