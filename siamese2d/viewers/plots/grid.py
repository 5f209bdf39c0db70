"""Square images in a grid on one sheet measured in inches: captions never meet, and hundreds of tiles draw fast."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from .style import INK, MUTED, contrast_limits, prepare

TILE = 1.35
GAP = 0.06
MARGIN = 0.18
HEADER = 0.72
LINE = 0.165
MIN_COLUMNS, MAX_COLUMNS = 4, 20
LABEL_BOX = {"boxstyle": "round,pad=0.15", "facecolor": "black", "alpha": 0.6, "linewidth": 0}


def grid_columns(count: int) -> int:
    """Columns of a grid that is about twice as wide as high; never fewer than a heading needs."""
    return max(MIN_COLUMNS, min(MAX_COLUMNS, math.ceil(math.sqrt(1.8 * count))))


class ImageSheet:
    """A heading over a grid of square images with captions, all in one axes whose unit is the inch, y downwards.

    Parameters
    ----------
    figure : Figure or None
        Figure to draw into.
    count, columns : int
        Number of tiles, and how many go side by side.
    caption_lines : int
        Lines of text under each tile.
    title, subtitle : str
        Heading in bold, and the line below it.
    """

    def __init__(self, figure: Figure | None, count: int, columns: int, caption_lines: int, title: str, subtitle: str):
        self._columns = columns
        self._step = (TILE + GAP, TILE + GAP + caption_lines * LINE)
        self._size = (2 * MARGIN + columns * self._step[0] - GAP,
                      HEADER + MARGIN + math.ceil(count / columns) * self._step[1] - GAP)
        self.figure = prepare(figure, *self._size)
        self.figure.set_layout_engine("none")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, self._size[0]), ylim=(self._size[1], 0))
        self.axes.set_axis_off()
        self.axes.set_aspect("equal", anchor="NW")
        self._write(MARGIN, 0.16, title, fontsize=13, fontweight="bold")
        self._write(MARGIN, 0.44, subtitle, fontsize=9, color=MUTED)

    def add_image(self, position: int, image: np.ndarray, caption: str = "", corner: str = "", faint: bool = False,
                  saturate: float = 0.1) -> None:
        """Draw one image with its own contrast at a position of the grid, in reading order.

        Parameters
        ----------
        position : int
            0 is the upper left tile.
        image : ndarray, `(h, w)`
            Grey values, row 0 at the top.
        caption : str
            Text under the tile.
        corner : str
            Short text in the tile's upper left corner.
        faint : bool
            Write the caption in grey, for what matters less.
        saturate : float
            Percent of the pixels drawn black, and as many drawn white.
        """
        left, top = self._corner(position)
        low, high = contrast_limits(image, saturate)
        self.axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=(left, left + TILE, top + TILE, top))
        if caption:
            self._write(left + TILE / 2, top + TILE + 0.03, caption, ha="center", fontsize=8.5,
                        color=MUTED if faint else INK)
        if corner:
            self._write(left + 0.06, top + 0.06, corner, fontsize=7.5, color="white", bbox=LABEL_BOX)

    def add_scale_bar(self, width: int, pixel_size: float) -> None:
        """A white bar of a round length on the first tile, whose image is `width` pixels of `pixel_size` angstroms."""
        left, top = self._corner(0)
        length = round_length(width * pixel_size / 3)
        inches = length / (width * pixel_size) * TILE
        right, low = left + TILE - 0.1, top + TILE - 0.1
        self.axes.plot([right - inches, right], [low, low], color="white", linewidth=2.5, solid_capstyle="butt")
        text = f"{length / 10:g} nm" if length >= 1000 else f"{length:g} Å"
        self._write(right - inches / 2, low - 0.06, text, color="white", ha="center", va="bottom", fontsize=7.5,
                    bbox=LABEL_BOX)

    def add_frame(self, position: int, count: int) -> None:
        """A thin frame around tiles of one row that belong together, and their captions."""
        left, top = self._corner(position)
        width, height = count * self._step[0], self._step[1]
        self.axes.add_patch(Rectangle((left - GAP / 2, top - GAP / 2), width, height - GAP / 4, fill=False,
                                      edgecolor=MUTED, linewidth=0.8))

    def finish(self) -> Figure:
        """The figure, with the sheet's limits as they were before images were drawn on it."""
        self.axes.set(xlim=(0, self._size[0]), ylim=(self._size[1], 0))
        return self.figure

    def _corner(self, position: int) -> tuple[float, float]:
        row, column = divmod(position, self._columns)
        return MARGIN + column * self._step[0], HEADER + row * self._step[1]

    def _write(self, x: float, y: float, text: str, **kwargs) -> Text:
        return self.axes.text(x, y, text, **{"va": "top", **kwargs})


def round_length(length: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))
