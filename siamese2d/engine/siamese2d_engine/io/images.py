"""Reading micrographs (MRC, TIFF, PNG, JPEG) and writing MRC, as float32 arrays indexed [y, x]."""

import os
import struct
import warnings
from io import FileIO
from pathlib import Path

import mrcfile
import numpy as np
import tifffile
from PIL import Image

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path

MRC_ENDINGS = (".mrc", ".mrcs", ".map", ".st", ".rec")
TIFF_ENDINGS = (".tif", ".tiff")
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg")
IMAGE_ENDINGS = MRC_ENDINGS + TIFF_ENDINGS + PICTURE_ENDINGS
MRC_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
MRC_HEADER_BYTES = 1024

# A 16k x 16k detector is 0.27 Gpx; beyond this a header is taken for damaged rather than memory asked for.
LARGEST_IMAGE_PIXELS = 2**31
Image.MAX_IMAGE_PIXELS = LARGEST_IMAGE_PIXELS
# Deflate packs at most 1032 times; a header that needs more is damaged.
MOST_COMPRESSION = 1100


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a micrograph.

    Returns
    -------
    ndarray
        float32, ``(h, w)``, row 0 of the file first, all values finite.

    Raises
    ------
    InputError
        If the file is missing, truncated, not an image, not a single grey image, or holds NaN or infinity.
    """
    path = Path(path)
    image = _guarded(path, _reader(path))
    if image.ndim != 2:
        raise _not_one_image(path, image.shape)
    image = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(image).all():
        bad = int(image.size - np.isfinite(image).sum())
        raise InputError(f"{path}: {bad} pixels are NaN or infinite. Write the image again without them.")
    return image


def image_shape(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises
    ------
    InputError
        As `read_image`, as far as the header tells.
    """
    path = Path(path)
    return _guarded(path, _shape_reader(path))


def read_pixel_size(path: str | os.PathLike) -> float | None:
    """Angstroms per pixel from an MRC header; None where the file does not say."""
    path = Path(path)
    if path.suffix.lower() not in MRC_ENDINGS:
        return None
    return _guarded(path, lambda: MrcLayout.of(path)).pixel_size


def write_mrc(path: str | os.PathLike, array: np.ndarray, pixel_size: float) -> None:
    """Write an image ``(h, w)`` or a stack of images ``(n, h, w)`` as 32-bit MRC, atomically."""
    with atomic_path(path) as partial, mrcfile.new(partial, overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(array, dtype=np.float32))
        if array.ndim == 3:
            mrc.set_image_stack()
        mrc.voxel_size = pixel_size


class MrcLayout:
    """Where the pixels of an MRC file lie: read from the header, checked against the file's size.

    Attributes
    ----------
    shape : tuple of int
        ``(n, h, w)``.
    dtype : dtype
        With byte order.
    offset : int
        Bytes before the first pixel.
    pixel_size : float or None
        Angstroms per pixel; None where the header does not say.
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype, offset: int, pixel_size: float | None):
        self.shape, self.dtype, self.offset, self.pixel_size = shape, dtype, offset, pixel_size

    @classmethod
    def of(cls, path: Path) -> "MrcLayout":
        """Read the header (format: Cheng et al. 2015, MRC2014).

        Raises
        ------
        InputError
            If it is not an MRC header, the mode is not a real image's, or the file is shorter than the header says.
        """
        with open(path, "rb") as stream:
            header = stream.read(MRC_HEADER_BYTES)
        if len(header) < MRC_HEADER_BYTES:
            raise InputError(f"{path}: {len(header)} bytes are too few for an MRC header. The file is truncated; copy "
                             "it again.")
        order = _byte_order(path, header)
        nx, ny, nz, mode = struct.unpack(f"{order}4i", header[:16])
        mx = struct.unpack(f"{order}i", header[28:32])[0]
        length_x = struct.unpack(f"{order}f", header[40:44])[0]
        extended = struct.unpack(f"{order}i", header[92:96])[0]
        if mode not in MRC_MODES:
            raise InputError(f"{path}: MRC mode {mode} can't be read (only {sorted(MRC_MODES)}). Convert the image to "
                             "32-bit float.")
        if min(nx, ny, nz) < 1 or extended < 0 or nx * ny > LARGEST_IMAGE_PIXELS:
            raise InputError(f"{path}: the header says {nx} x {ny} x {nz} pixels; this is not an MRC image or it is "
                             "damaged.")
        layout = cls((nz, ny, nx), np.dtype(order + MRC_MODES[mode]), MRC_HEADER_BYTES + extended,
                     length_x / mx if mx > 0 and np.isfinite(length_x) and length_x > 0 else None)
        layout._check_size(path)
        return layout

    def _check_size(self, path: Path) -> None:
        needed = self.offset + int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        found = path.stat().st_size
        if found < needed:
            raise InputError(f"{path}: the file has {found} bytes but its header needs {needed}. It is truncated; copy "
                             "it again.")

    def read(self, path: Path, indices) -> np.ndarray:
        """Read images by their numbers, which count from 0, as float32, ``(k, h, w)``.

        Files are read, not mapped: one that is cut off while it is mapped kills the process without a message.

        Raises
        ------
        InputError
            If the file has gone or became shorter since its header was read.
        """
        indices = np.asarray(indices, dtype=int)
        images = np.empty((len(indices), *self.shape[1:]), dtype=np.float32)
        order = np.argsort(indices, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(indices[order]) != 1) + 1) if len(indices) else []
        try:
            with open(path, "rb", buffering=0) as stream:
                for run in runs:
                    images[run] = self._consecutive(path, stream, indices[run[0]], len(run))
        except OSError as error:
            raise InputError(f"{path}: can't be read any more ({error.strerror}). Start the same command again when "
                             "the file is back.") from error
        return images

    def _consecutive(self, path: Path, stream: FileIO, first: int, count: int) -> np.ndarray:
        size = self.shape[1] * self.shape[2] * self.dtype.itemsize
        values = np.empty(count * size, np.uint8)
        stream.seek(self.offset + int(first) * size)
        done = 0
        while done < len(values):
            read = stream.readinto(memoryview(values)[done:])
            if not read:
                raise InputError(f"{path}: the file became shorter while it was read. Start the same command again "
                                 "when it is complete.")
            done += read
        return values.view(self.dtype).reshape(count, *self.shape[1:])


def _byte_order(path: Path, header: bytes) -> str:
    """'<' or '>' from the machine stamp, else from which order makes sense of the header (old programs write no
    stamp)."""
    stamp = header[212:214]
    if stamp in (b"\x44\x44", b"\x44\x41"):
        return "<"
    if stamp == b"\x11\x11":
        return ">"
    for order in "<>":
        nx, ny, nz, mode = struct.unpack(f"{order}4i", header[:16])
        # Mode 0 reads the same in both orders; the sizes do not.
        if mode in MRC_MODES and min(nx, ny, nz) > 0 and nx * ny <= LARGEST_IMAGE_PIXELS:
            return order
    raise InputError(f"{path}: not an MRC file (no machine stamp, no sensible size and mode). Check the file's ending "
                     "and content.")


def _guarded(path: Path, read):
    """Run a reader and turn whatever it raises into an InputError that names the file."""
    if not path.exists():
        raise InputError(f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it. Ask its owner, or copy it.") from error
    except Exception as error:
        detail = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: can't be read as an image ({detail}). The file is truncated, damaged or of another "
                         "type; copy or write it again.") from error


def _not_one_image(path: Path, shape: tuple[int, ...]) -> InputError:
    return InputError(f"{path}: shape {shape} is not a single grey image. Average the frames of a movie first; save "
                      "colour pictures as grey.")


def _reader(path: Path):
    ending = _ending(path)
    if ending in MRC_ENDINGS:
        return lambda: _read_mrc(path)
    return (lambda: _read_tiff(path)) if ending in TIFF_ENDINGS else (lambda: _read_picture(path))


def _shape_reader(path: Path):
    ending = _ending(path)
    if ending in MRC_ENDINGS:
        return lambda: MrcLayout.of(path).shape[1:]
    return (lambda: _tiff_shape(path)) if ending in TIFF_ENDINGS else (lambda: _picture_shape(path))


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in IMAGE_ENDINGS:
        raise InputError(f"{path}: '{ending}' is not an image type that can be read ({', '.join(IMAGE_ENDINGS)}).")
    return ending


def _read_mrc(path: Path) -> np.ndarray:
    layout = MrcLayout.of(path)
    if layout.shape[0] > 1:
        raise _not_one_image(path, layout.shape)
    return layout.read(path, [0])[0]


def _read_tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        if len(series.shape) != 2:
            raise _not_one_image(path, series.shape)
        _check_claim(path, series.size, series.dtype.itemsize)
        for page in filter(None, series.pages):
            if page.is_tiled:
                _check_claim(path, page.tilewidth * page.tilelength, series.dtype.itemsize)
            if max(page.databytecounts, default=0) > path.stat().st_size:
                raise InputError(f"{path}: a part of the image is said to be larger than the file. It is damaged or "
                                 "truncated; copy it again.")
        return series.asarray()


def _check_claim(path: Path, pixels: int, bytes_per_pixel: int) -> None:
    """Refuse an image that claims more pixels than its file can hold, before memory is asked for."""
    if pixels > LARGEST_IMAGE_PIXELS or pixels * bytes_per_pixel > MOST_COMPRESSION * path.stat().st_size:
        raise InputError(f"{path}: its header says {pixels:,} pixels, which a file of {path.stat().st_size:,} bytes "
                         "does not hold. It is damaged or truncated; copy it again.")


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        _check_claim(path, picture.width * picture.height, len(picture.getbands()))
        # Modes of one channel hold intensities; others are converted by their luminance.
        grey = picture if picture.mode in ("L", "I", "F", "I;16", "I;16B", "I;16L") else picture.convert("L")
        return np.asarray(grey)


def _tiff_shape(path: Path) -> tuple[int, int]:
    with tifffile.TiffFile(path) as tiff:
        return tuple(tiff.pages[0].shape[:2])


def _picture_shape(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.height, picture.width
