"""Circles of one diameter over an image, to choose that diameter with the eyes."""

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from .style import ORANGE, prepare, say, show_image, shrink, smooth, style

# Enough smoothing to see particles in a raw micrograph, in shares of the diameter.
LOW_PASS_OF_DIAMETER = 0.06
FIGURE_INCHES = (7.2, 7.4)


class CirclesPlot:
    """An image with circles whose diameter can be changed.

    Parameters
    ----------
    image : ndarray, `(h, w)`, or str
        Grey values, or why there are none.
    name : str
        What to call it.
    positions : ndarray, `(n, 2)`
        Centres of the circles, pixels (x, y).
    pixel_size : float
        Angstroms per pixel.
    diameter : float
        Of the circles, angstroms.
    figure : Figure, optional
        Figure to draw into.
    """

    def __init__(self, image: np.ndarray | str, name: str, positions: np.ndarray, pixel_size: float, diameter: float,
                 figure: Figure | None = None):
        self._pixel_size, self._name, self.diameter = pixel_size, name, diameter
        self._circles = None
        with style():
            self.figure = prepare(figure, *FIGURE_INCHES)
            self._axes = self.figure.subplots()
            self._title = self._axes.set_title("", fontsize=10)
            if isinstance(image, str):
                say(self._axes, image)
            else:
                self._draw(image, np.asarray(positions, dtype=float).reshape(-1, 2))
            self.set_diameter(diameter)

    def set_diameter(self, diameter: float) -> None:
        """Change the diameter of all circles, in angstroms."""
        self.diameter = diameter
        pixels = diameter / self._pixel_size
        self._title.set_text(f"{self._name}\n{diameter:,.0f} Å = {pixels:,.1f} px")
        if self._circles is not None:
            # A collection of ellipses can't be resized before matplotlib 3.9.
            self._circles.remove()
            self._add_circles(self._circles.get_offsets(), pixels)

    def set_positions(self, positions: np.ndarray) -> None:
        """Change where the circles are, `(n, 2)` pixels (x, y)."""
        if self._circles is not None:
            self._circles.set_offsets(positions)

    def _draw(self, image: np.ndarray, positions: np.ndarray) -> None:
        small, factor = shrink(image)
        height, width = image.shape
        extent = (-0.5, small.shape[1] * factor - 0.5, small.shape[0] * factor - 0.5, -0.5)
        sigma = LOW_PASS_OF_DIAMETER * self.diameter / self._pixel_size / factor
        show_image(self._axes, smooth(small, sigma), extent=extent, interpolation="bicubic")
        self._axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
        self._add_circles(positions, self.diameter / self._pixel_size)

    def _add_circles(self, positions: np.ndarray, pixels: float) -> None:
        self._circles = EllipseCollection(
            [pixels], [pixels], [0], units="xy", offsets=positions, offset_transform=self._axes.transData,
            facecolors="none", edgecolors=ORANGE, linewidths=1.4)
        self._axes.add_collection(self._circles, autolim=False)
