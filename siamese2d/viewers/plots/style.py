"""What all the plots share: colours that colour-blind readers can tell apart, quiet axes, and how an image is shown."""

import math
import re

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

# Okabe and Ito's palette (Color Universal Design, 2008).
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, MUTED, BARS, FAINT = "#222222", "#666666", "#BBBBBB", "#DDDDDD"

RC = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}

# Scores are drawn over grey images, where the dark end of a map would be lost.
SCORES = ListedColormap(colormaps["plasma"](np.linspace(0.15, 0.97, 256)), name="scores")


def style() -> rc_context:
    """The look of all figures, as a context manager around their making."""
    return rc_context(RC)


def prepare(figure: Figure | None, width: float, height: float) -> Figure:
    """An empty figure with automatic layout: the one given, cleared and resized, or a new one.

    Parameters
    ----------
    figure : Figure or None
        Figure to draw into; None makes one that belongs to no window.
    width, height : float
        Size in inches.
    """
    if figure is None:
        figure = Figure()
    figure.clear()
    figure.set_size_inches(width, height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    figure.set_facecolor("white")
    return figure


def show_image(axes: Axes, image: np.ndarray, saturate: float = 0.5, **kwargs):
    """Draw a grey image without ticks, its contrast stretched between percentiles.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    image : ndarray, `(h, w)`
        Grey values; those that are not finite are left blank. Row 0 is drawn at the top.
    saturate : float
        Percent of the pixels drawn black, and as many drawn white.
    **kwargs
        Passed to ``Axes.imshow``.

    Returns
    -------
    AxesImage
    """
    low, high = contrast_limits(image, saturate)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(image, cmap="gray", vmin=low, vmax=high, **kwargs)


def contrast_limits(image: np.ndarray, saturate: float = 0.5) -> tuple[float, float]:
    """Grey values to draw as black and as white: percentiles of the finite pixels, never equal."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(finite, [saturate, 100 - saturate])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def shrink(image: np.ndarray, largest: int = 1000) -> tuple[np.ndarray, int]:
    """Average blocks of pixels until no side is longer than `largest`.

    Parameters
    ----------
    image : ndarray, `(h, w)`
        Grey values.
    largest : int
        Longest side wanted, in pixels.

    Returns
    -------
    small : ndarray, `(h // factor, w // factor)`
        Rows and columns that fill no block are left out.
    factor : int
        Pixels along the side of a block.
    """
    factor = max(1, math.ceil(max(image.shape) / largest))
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[:height * factor, :width * factor].reshape(height, factor, width, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32), factor


def smooth(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian low-pass of standard deviation `sigma` pixels; borders are mirrored.

    Parameters
    ----------
    image : ndarray, `(h, w)`
        Grey values, finite.
    sigma : float
        In pixels; 0 or less returns the image as it is.
    """
    if sigma <= 0:
        return image
    for axis in (0, 1):
        reach = min(int(4 * sigma + 1), image.shape[axis] - 1)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        padding = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(image, padding, mode="reflect").astype(np.float64)
        image = np.apply_along_axis(np.convolve, axis, padded, kernel / kernel.sum(), mode="valid")
    return image.astype(np.float32)


def say(axes: Axes, message: str) -> None:
    """Write a message in place of a plot that has nothing to show."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, wrap(message, 52), transform=axes.transAxes, ha="center", va="center", color=MUTED)


def wrap(text: str, width: int) -> str:
    """Break a text into lines of at most `width` characters, after spaces and after the slashes of paths."""
    lines = [""]
    for piece in re.split(r"(?<=[ /])", text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
