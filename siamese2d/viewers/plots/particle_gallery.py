"""Particle images in a grid."""

import numpy as np
from matplotlib.figure import Figure

from .grid import MIN_COLUMNS, ImageSheet
from .style import style

COLUMNS = 10


def plot_particle_gallery(images: np.ndarray, numbers, total: int, title: str = "Particles", subtitle: str = "",
                          captions=None, pixel_size: float | None = None, slots: int | None = None,
                          figure: Figure | None = None) -> Figure:
    """Particle images in reading order, each with its number.

    Parameters
    ----------
    images : ndarray, `(n, h, w)`
        The images to show.
    numbers : sequence of int, `(n,)`
        What is written in the corner of each: its number, counted from 1.
    total : int
        Number of particles there are.
    title : str
        Heading.
    subtitle : str
        Added to the line under the heading that says which particles are shown.
    captions : sequence of str, optional
        A line under each image.
    pixel_size : float, optional
        Angstroms per pixel; when given, a scale bar is drawn on the first image.
    slots : int, optional
        Tiles to leave room for, when there can be more than now; as many as there are images when not given.
    figure : Figure, optional
        Figure to draw into.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there is nothing to show or the lengths disagree.
    """
    images = np.asarray(images)
    if images.ndim != 3 or not len(images):
        raise ValueError(f"images must be a stack (n, h, w) of at least one particle, not {images.shape}")
    if len(images) != len(numbers) or (captions is not None and len(captions) != len(images)):
        raise ValueError(f"{len(images)} images, but {len(numbers)} numbers and "
                         f"{len(images) if captions is None else len(captions)} captions")
    height, width = images.shape[-2:]
    line = f"{len(images):,} of {total:,}, box {width} x {height} px"
    if pixel_size:
        line += f", {pixel_size:.3g} Å per pixel"
    with style():
        slots = slots or len(images)
        sheet = ImageSheet(figure, slots, min(COLUMNS, max(MIN_COLUMNS, slots)), 0 if captions is None else 1, title,
                           line + (f"; {subtitle}" if subtitle else ""))
        for position, image in enumerate(images):
            sheet.add_image(position, image, "" if captions is None else captions[position],
                            corner=f"{numbers[position]:,}", saturate=0.5)
        if pixel_size:
            sheet.add_scale_bar(width, pixel_size)
        return sheet.finish()
