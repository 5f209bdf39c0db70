"""Reading single images, and turning them into what a screen shows."""

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from siamese2d.viewers.plots.style import contrast_limits
from siamese2d.viewers.run_files import MRC_EXTENSIONS, RunFileError, read_stack

# Percent of the pixels that are black at contrast 1, and as many white.
SATURATED = 0.1


@dataclass(frozen=True)
class Look:
    """How images are shown.

    Attributes
    ----------
    side : int
        Pixels of the screen along an edge.
    contrast : float
        1 shows the whole range of grey values; 2 half of it, around its middle.
    low_pass : float
        Detail finer than this many angstroms (pixels where the pixel size is not known) is smoothed away; 0 keeps all.
    """

    side: int
    contrast: float = 1.0
    low_pass: float = 0.0


def read_picture(location: tuple[int, str] | None) -> np.ndarray:
    """One image, `(h, w)`, float32.

    Parameters
    ----------
    location : (int, str) or None
        Index from 1 and file; None for a class without an average.

    Raises
    ------
    RunFileError
        If there is none, or it can't be read; the message says why.
    """
    if location is None:
        raise RunFileError("This class has no average: its program wrote none.")
    index, path = location
    # Another program's notation: NAME.mrc:mrcs is NAME.mrc read as a stack.
    path = path.removesuffix(":mrcs").removesuffix(":mrc")
    if os.path.splitext(path)[1].lower() in MRC_EXTENSIONS or not os.path.exists(path):
        return read_stack(path, [index - 1])[0]
    return _read_other(index, path)


def render(image: np.ndarray, look: Look, pixel_size: float | None) -> np.ndarray:
    """Grey values from 0 to 255 for the screen, `(look.side, look.side)`; an oblong image is put in the middle.

    Parameters
    ----------
    image : ndarray, `(h, w)`
        Grey values; those that are not finite are shown as the mean.
    look : Look
    pixel_size : float or None
        Angstroms per pixel.
    """
    image = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(image)
    image = np.where(finite, image, image[finite].mean() if finite.any() else 0)
    if look.low_pass > 0:
        image = low_pass(image, look.low_pass / (pixel_size or 1.0))
    low, high = contrast_limits(image, SATURATED)
    middle, half = (low + high) / 2, (high - low) / 2 / look.contrast
    grey = np.clip((image - middle + half) * (255 / (2 * half)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((look.side, look.side), Image.Resampling.BOX)
    scale = look.side / max(picture.size)
    if scale > 1:
        picture = picture.resize([max(1, round(length * scale)) for length in picture.size],
                                 Image.Resampling.BILINEAR)
    return _centred(np.asarray(picture), look.side)


def low_pass(image: np.ndarray, period: float) -> np.ndarray:
    """Gaussian low-pass that halves the amplitude of waves of `period` pixels.

    Parameters
    ----------
    image : ndarray, `(h, w)`
    period : float
        Pixels; periods below 2 are finer than the image and change nothing.
    """
    if period < 2:
        return image
    frequencies = np.hypot(np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])[None])
    response = 2.0 ** -((frequencies * period) ** 2)
    return np.fft.irfft2(np.fft.rfft2(image) * response, s=image.shape).astype(np.float32)


def _centred(grey: np.ndarray, side: int) -> np.ndarray:
    if grey.shape == (side, side):
        return grey
    picture = np.zeros((side, side), dtype=np.uint8)
    top, left = (side - grey.shape[0]) // 2, (side - grey.shape[1]) // 2
    picture[top:top + grey.shape[0], left:left + grey.shape[1]] = grey
    return picture


def _read_other(index: int, path: str) -> np.ndarray:
    # Spider, Imagic, HDF and others: what Scipion itself reads.
    from pwem.emlib.image import ImageHandler
    try:
        return np.asarray(ImageHandler().read((index, path)).getData(), dtype=np.float32).reshape(
            ImageHandler().getDimensions(path)[1::-1])
    except Exception as error:
        raise RunFileError(f"{path} can't be read ({error}): it is damaged, or of a format that Scipion does not "
                           "know.") from error
