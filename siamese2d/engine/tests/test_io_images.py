"""Reading every kind of image file, and refusing damaged ones; MRC headers are written out by hand."""

import os
import struct

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import image_shape, read_image, read_pixel_size, write_mrc

SHAPE = (5, 7)
VALUES = np.arange(35, dtype=float).reshape(SHAPE)


def mrc_bytes(pixels, mode, order="<", stamp=None, pixel_size=1.5, extended=b"", shape=None):
    """An MRC2014 file of one image, or a stack."""
    nz, ny, nx = shape or (1, *pixels.shape)
    header = bytearray(1024)
    header[0:16] = struct.pack(f"{order}4i", nx, ny, nz, mode)
    header[28:40] = struct.pack(f"{order}3i", nx, ny, nz)
    header[40:52] = struct.pack(f"{order}3f", nx * pixel_size, ny * pixel_size, nz * pixel_size)
    header[64:76] = struct.pack(f"{order}3i", 1, 2, 3)
    header[92:96] = struct.pack(f"{order}i", len(extended))
    header[208:212] = b"MAP "
    header[212:216] = (b"DD\0\0" if order == "<" else b"\x11\x11\0\0") if stamp is None else stamp
    return bytes(header) + extended + pixels.tobytes()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("mode, kind, values", [
    (0, "i1", VALUES - 20),
    (1, "i2", (VALUES - 20) * 900),
    (2, "f4", VALUES / 3 - 5),
    (6, "u2", VALUES * 1800),
    (12, "f2", VALUES / 4 - 3),
])
@pytest.mark.parametrize("stamp", [None, b"\0\0\0\0"])
@pytest.mark.parametrize("extended", [b"", b"x" * 160])
def test_every_mrc_mode_and_byte_order(tmp_path, order, mode, kind, values, stamp, extended):
    pixels = values.astype(order + kind)
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(pixels, mode, order, stamp, extended=extended))
    image = read_image(path)
    assert image.dtype == np.float32 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, pixels.astype(np.float32))
    assert image_shape(path) == SHAPE
    assert read_pixel_size(path) == pytest.approx(1.5)


def test_written_mrc_is_read_back_by_us_and_by_mrcfile(tmp_path):
    path = tmp_path / "deep/er/a.mrc"
    write_mrc(path, VALUES, 3.25)
    np.testing.assert_array_equal(read_image(path), VALUES)
    assert read_pixel_size(path) == pytest.approx(3.25)
    with mrcfile.open(path) as mrc:
        assert mrc.data.dtype == np.float32 and mrc.is_single_image()
        np.testing.assert_array_equal(mrc.data, VALUES)
    assert [p.name for p in path.parent.iterdir()] == ["a.mrc"]


def test_written_stack_is_a_stack_of_images(tmp_path):
    write_mrc(tmp_path / "a.mrcs", np.stack([VALUES] * 3), 2.0)
    assert mrcfile.validate(tmp_path / "a.mrcs")
    with mrcfile.open(tmp_path / "a.mrcs") as mrc:
        assert mrc.is_image_stack() and mrc.data.shape == (3, *SHAPE)
        assert mrc.voxel_size.x == mrc.voxel_size.y == 2.0


def test_stack_of_one_image_is_an_image_and_of_many_is_not(tmp_path):
    path = tmp_path / "a.mrcs"
    write_mrc(path, VALUES[None], 1.0)
    np.testing.assert_array_equal(read_image(path), VALUES)
    write_mrc(path, np.stack([VALUES] * 3), 1.0)
    with pytest.raises(InputError, match="a.mrcs.*single grey image"):
        read_image(path)


def test_unknown_pixel_size(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(VALUES.astype("<f4"), 2, pixel_size=0.0))
    assert read_pixel_size(path) is None
    path.write_bytes(mrc_bytes(VALUES.astype("<f4"), 2, pixel_size=float("nan")))
    assert read_pixel_size(path) is None


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f4", "f2"])
@pytest.mark.parametrize("order", "<>")
def test_tiff(tmp_path, kind, order):
    pixels = (VALUES * 7).astype(kind)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, byteorder=order)
    image = read_image(path)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, pixels.astype(np.float32))
    assert image_shape(path) == SHAPE
    assert read_pixel_size(path) is None


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_compressed_tiff(tmp_path, compression):
    pixels = np.random.default_rng(0).integers(0, 4000, (64, 48)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tiff", pixels, compression=compression)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), pixels)


def test_multi_page_tiff_is_not_an_image(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((4, 8, 9), dtype=np.uint16), photometric="minisblack")
    with pytest.raises(InputError, match="movie.tif.*single grey image"):
        read_image(tmp_path / "movie.tif")


@pytest.mark.parametrize("kind, factor", [("u1", 7), ("u2", 1800)])
def test_png(tmp_path, kind, factor):
    pixels = (VALUES * factor).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "a.PNG", format="png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.PNG"), pixels)
    assert image_shape(tmp_path / "a.PNG") == SHAPE


def test_colour_png_and_jpeg_become_grey(tmp_path):
    grey = np.tile((np.arange(64) * 3).astype(np.uint8), (64, 1))
    for name in ("a.png", "a.jpg"):
        Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / name)
        assert np.abs(read_image(tmp_path / name) - grey).max() <= 3
        assert image_shape(tmp_path / name) == (64, 64)


def good_files(folder):
    """One good file of each type, larger than its header."""
    pixels = np.random.default_rng(0).integers(0, 60000, (64, 64)).astype(np.uint16)
    write_mrc(folder / "a.mrc", pixels, 1.0)
    tifffile.imwrite(folder / "a.tif", pixels)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray((pixels // 256).astype(np.uint8)).save(folder / "a.jpg")
    return [folder / f"a.{ending}" for ending in ("mrc", "tif", "png", "jpg")]


# A PNG that lost only the end of its checksums still holds every pixel; 40 bytes are more than those.
@pytest.mark.parametrize("left", [0, 3, 500, 0.5, -1])
def test_truncated_files_are_refused_by_name(tmp_path, left):
    for path in good_files(tmp_path):
        size = path.stat().st_size
        os.truncate(path, left if left in (0, 3, 500) else int(size * left) if left > 0 else size - 40)
        with pytest.raises(InputError, match=path.name):
            read_image(path)


@pytest.mark.parametrize("content", [b"", b"this is text, not an image\n" * 100, bytes(4096), os.urandom(4096)])
def test_files_that_are_no_images_are_refused_by_name(tmp_path, content):
    for ending in ("mrc", "mrcs", "tif", "png", "jpg"):
        path = tmp_path / f"other.{ending}"
        path.write_bytes(content)
        for read in (read_image, image_shape):
            with pytest.raises(InputError, match=path.name):
                read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_by_name(tmp_path, value):
    pixels = VALUES.astype("<f4")
    pixels[2, 3] = value
    (tmp_path / "bad.mrc").write_bytes(mrc_bytes(pixels, 2))
    with pytest.raises(InputError, match="bad.mrc.*1 pixels are NaN or infinite"):
        read_image(tmp_path / "bad.mrc")


@pytest.mark.parametrize("mode", [3, 4, 7, -1, 101])
def test_modes_that_are_no_real_images_are_refused(tmp_path, mode):
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(VALUES.astype("<f4"), mode))
    with pytest.raises(InputError, match=f"a.mrc.*mode {mode}"):
        read_image(tmp_path / "a.mrc")


@pytest.mark.parametrize("shape", [(1, 0, 7), (1, -5, 7), (0, 5, 7), (1, 2**30, 2**30), (2**30, 5, 7)])
def test_impossible_sizes_are_refused_without_asking_for_memory(tmp_path, shape):
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(VALUES.astype("<f4"), 2, shape=shape))
    for read in (read_image, image_shape):
        with pytest.raises(InputError, match="a.mrc"):
            read(tmp_path / "a.mrc")


def test_missing_folder_or_unknown_ending_is_named(tmp_path):
    (tmp_path / "folder.mrc").mkdir()
    (tmp_path / "a.docx").write_bytes(b"x")
    for name in ("none.mrc", "folder.mrc", "a.docx"):
        for read in (read_image, image_shape):
            with pytest.raises(InputError, match=name):
                read(tmp_path / name)


def test_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.mrc"
    write_mrc(path, VALUES, 1.0)
    with pytest.raises(ValueError):
        write_mrc(path, np.array([["text"]]), 1.0)
    np.testing.assert_array_equal(read_image(path), VALUES)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mrc"]
