"""Readers of files get bytes that no program wrote: they refuse with an InputError, in time, and without asking for
memory.

Inputs are `EXAMPLES` for each reader: good files with bytes changed, cut, doubled or put in, headers of random numbers,
and plain random bytes; the same ones in every run.
"""

import io
import json
import resource
import signal
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from siamese2d_engine.embedding.inference import load_embedding_model
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.cryosparc import read_tables
from siamese2d_engine.io.cs_file import write_cs
from siamese2d_engine.io.images import image_shape, read_image, read_pixel_size, write_mrc
from siamese2d_engine.io.models import load_model
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.io.star import read_star, write_star
from siamese2d_engine.picking.model import load_picker

CPU = torch.device("cpu")
EXAMPLES = 200
# One input may take so long, and so much more memory than the process has when it comes.
SECONDS = 10
MEGABYTES = 512
FUZZ = settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@contextmanager
def bounded():
    """Memory and time that a reader may take; more of either is an error that no reader catches."""
    def late(*_):
        raise TimeoutError(f"more than {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEGABYTES * 2**20, before[1]))
    old = signal.signal(signal.SIGPROF, late)
    # Of this process's own work: a busy machine makes nobody late.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def refuses_or_reads(read, path, content):
    path.write_bytes(content)
    with bounded():
        try:
            read(path)
        except InputError as error:
            assert path.name in str(error) or path.stem in str(error)


# --------------------------- inputs ------------------------------------------------------
def damaged(good):
    """Good files with a few changes: `(place, length to remove, bytes to put in)`."""
    change = st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(
        st.binary(max_size=24), st.sampled_from([b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 16])))

    def apply(case):
        content, changes, near_start = case
        for place, length, new in changes:
            # Headers decide: half of the cases hit only those.
            at = int(place * (min(len(content), 256) if near_start else len(content)))
            content = content[:at] + new + content[at + length:]
        return content

    return st.tuples(st.sampled_from(good), st.lists(change, min_size=1, max_size=4), st.booleans()).map(apply)


def fuzz(good):
    """Damaged good files, cut ones, and random bytes."""
    cut = st.tuples(st.sampled_from(good), st.floats(0, 1)).map(lambda case: case[0][: int(case[1] * len(case[0]))])
    return st.one_of(damaged(good), damaged(good), cut, st.binary(max_size=300))


def written(folder, name, write):
    path = folder / name
    write(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def bytes_of(write):
    """What a writer of streams writes."""
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


PIXELS = (np.arange(24 * 20).reshape(24, 20) * 37 % 251).astype(np.uint8)
WIDE = PIXELS.astype(np.uint16) * 200


def mrc(mode, kind, nx=20, ny=24, nz=1, extended=0, order="<"):
    header = bytearray(1024)
    header[0:16] = struct.pack(f"{order}4i", nx, ny, nz, mode)
    header[28:40] = struct.pack(f"{order}3i", nx, ny, nz)
    header[40:52] = struct.pack(f"{order}3f", 30, 36, 1)
    header[92:96] = struct.pack(f"{order}i", extended)
    header[208:216] = b"MAP " + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    return bytes(header) + PIXELS.astype(order + kind).tobytes()


GOOD_MRC = [mrc(2, "f4"), mrc(1, "i2", order=">"), mrc(6, "u2"), mrc(0, "i1"), mrc(12, "f2")]
INTEGERS = st.one_of(st.integers(-3, 3), st.sampled_from([2**31 - 1, -2**31, 2**30, 46341, 65536, 20, 24]),
                     st.integers(-2**31, 2**31 - 1))
GOOD_TIFF = [
    bytes_of(lambda stream: tifffile.imwrite(stream, PIXELS)),
    bytes_of(lambda stream: tifffile.imwrite(stream, WIDE, byteorder=">", compression="zlib")),
    bytes_of(lambda stream: tifffile.imwrite(stream, WIDE, compression="lzw", predictor=True)),
    bytes_of(lambda stream: tifffile.imwrite(stream, WIDE.astype(np.float32), tile=(16, 16))),
    bytes_of(lambda stream: tifffile.imwrite(stream, PIXELS, bigtiff=True, compression="packbits")),
]
GOOD_PICTURES = [
    bytes_of(lambda stream: Image.fromarray(PIXELS).save(stream, "png")),
    bytes_of(lambda stream: Image.fromarray(WIDE).save(stream, "png")),
    bytes_of(lambda stream: Image.fromarray(np.stack([PIXELS] * 3, 2)).save(stream, "png")),
    bytes_of(lambda stream: Image.fromarray(PIXELS).save(stream, "jpeg")),
]
GOOD_STAR = [
    b"data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnImagePixelSize #3\n1 one 1.5\n\n"
    b"data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n_rlnDefocusU #3\n_note #4\n"
    b"000001@s.mrcs 1 1e4 'a b'\n000002@s.mrcs 1 2e4 \"it's\"\n000001@s.mrcs 1 <NA> x#y # comment\n",
    b"data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\na.mrc 1 2\nb.mrc 3.5 4e2\n",
    b"data_general\n_rlnImageName 1@s.mrcs\n_rlnVoltage 300\n_rlnDetectorPixelSize 5\n_rlnMagnification 50000\n",
]


# --------------------------- the readers -------------------------------------------------
def read_any_image(path):
    for read in (image_shape, read_pixel_size, read_image):
        try:
            read(path)
        except InputError:
            if read is read_image:
                raise


@FUZZ
@given(content=st.one_of(fuzz(GOOD_MRC), st.builds(mrc, st.sampled_from([0, 1, 2, 6, 12, 3, 4, 101, -1]),
                                                   st.sampled_from(["i1", "f4"]),
                                                    INTEGERS, INTEGERS, INTEGERS, INTEGERS)))
@example(content=mrc(2, "f4", 2**31 - 1, 2**31 - 1, 2**31 - 1))
@example(content=mrc(0, "i1", 46340, 46340, 2**31 - 1))
@example(content=mrc(2, "f4", extended=2**31 - 1))
def test_mrc(folder, content):
    refuses_or_reads(read_any_image, folder / "a.mrc", content)


def tiff_with(good, name, value):
    """A TIFF whose tag says something else."""
    with tifffile.TiffFile(io.BytesIO(good)) as tiff:
        place = tiff.pages[0].tags[name].valueoffset
        return good[:place] + struct.pack(f"{tiff.byteorder}I", value) + good[place + 4:]


@FUZZ
@given(content=fuzz(GOOD_TIFF))
@example(content=tiff_with(GOOD_TIFF[2], "StripByteCounts", 2**31 - 1))
@example(content=tiff_with(GOOD_TIFF[3], "TileWidth", 2**31 - 16))
@example(content=tiff_with(GOOD_TIFF[0], "ImageLength", 2**31 - 1))
def test_tiff(folder, content):
    refuses_or_reads(read_any_image, folder / "a.tif", content)


@FUZZ
@given(content=fuzz(GOOD_PICTURES))
def test_png_and_jpeg(folder, content):
    refuses_or_reads(read_any_image, folder / ("a.png" if content[:1] == b"\x89" else "a.jpg"), content)


def read_any_table(path):
    for read in (read_star, read_coordinates, read_particles):
        try:
            read(path)
        except InputError:
            if read is read_particles:
                raise


@FUZZ
@given(content=st.one_of(fuzz(GOOD_STAR), st.text(alphabet="data_lop \n\"'#_<NA>1.e-@x", max_size=200).map(str.encode)))
@example(content=b"data_a\nloop_\n_b\n" + b"'x " * 60_000)
@example(content=b"data_a\nloop_\n_b\n" + b"\"" * 120_000)
@example(content=b"data_a\nloop_\n" + b"".join(b"_c%d\n" % n for n in range(20_000)))
@example(content=b"data_a\nloop_\n" + b"".join(b"_c%d\n" % n for n in range(3_000)))
@example(content=b"data_a\n" * 20_000)
@example(content=b"data_particles\nloop_\n_rlnImageName\n_n\n99999999999999999999999@s.mrcs 1" + b"0" * 5000 + b"\n")
def test_star(folder, content):
    write_mrc(folder / "s.mrcs", np.zeros((2, 8, 8)), 1.0) if not (folder / "s.mrcs").exists() else None
    refuses_or_reads(read_any_table, folder / "a.star", content)


def cs(folder):
    fields = {"uid": np.array([1, 2**63, 3], np.uint64), "blob/path": np.array(["s.mrcs"] * 3),
              "blob/idx": np.array([0, 1, 0], np.uint32), "blob/psize_A": np.ones(3, np.float32),
              "ctf/tilt_A": np.zeros((3, 2), np.float32), "ctf/cs_mm": np.ones(3, np.float32),
              "alignments2D/shift": np.ones((3, 2), np.float32), "alignments2D/class": np.arange(3, dtype=np.uint32)}
    return written(folder, "good.cs", lambda path: write_cs(path, fields))


@st.composite
def cs_headers(draw):
    """Headers that are well formed and say anything."""
    kinds = st.sampled_from(["<u8", "<f4", "|S3", "|O", "<U2", "|V5", "<M8[s]", "|S999999999", "|b1", ">i2", "x",
                             "<c16"])
    names = st.sampled_from(["uid", "blob/path", "blob/idx", "blob/psize_A", "ctf/df1_A", "relion/x", "a b", "",
                             "alignments2D/class", "relion_optics/rlnOpticsGroup"])
    shape = st.one_of(st.just(()), st.tuples(st.sampled_from([0, 1, 2, 3, 2**40])))
    descr = draw(st.lists(st.builds(lambda name, kind, more: (name, kind, *([more] if more else [])), names, kinds,
                                         shape),
                          min_size=1, max_size=5))
    rows = draw(st.sampled_from([0, 1, 2, 10**6, 10**15, -1, 2**63]))
    text = repr({"descr": descr, "fortran_order": False, "shape": (rows,)}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + draw(st.binary(max_size=200))


@FUZZ
@given(data=st.data())
def test_cs(folder, data):
    write_mrc(folder / "s.mrcs", np.zeros((2, 8, 8)), 1.0) if not (folder / "s.mrcs").exists() else None
    content = data.draw(st.one_of(fuzz([cs(folder)]), cs_headers()))
    (folder / "good.cs").unlink(missing_ok=True)

    def read(path):
        read_tables(path)
        read_particles(path)

    refuses_or_reads(read, folder / "a.cs", content)


def safetensors(header, body=b"\0" * 32):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def model(header):
    """A model file with one tensor and this text as our header."""
    return safetensors({"__metadata__": {"siamese2d": header},
                        "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}})


def read_any_model(path):
    for read in (lambda path: load_model(path, "picker"), lambda path: load_picker(path, CPU), load_embedding_model):
        try:
            read(path)
        except InputError:
            if read is load_embedding_model:
                raise


JSON = st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=4) | st.integers(),
                    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(
                        ["kind", "architecture", "parameters", "preparation", "averages", "dimensions", "x"]), part,
                        max_size=4), max_leaves=8)


@FUZZ
@given(content=st.one_of(
    st.deferred(lambda: fuzz([model(json.dumps({"kind": "picker"})), model(json.dumps({"kind": "embedding"}))])),
    JSON.map(json.dumps).map(model), JSON.map(lambda value: safetensors({"__metadata__": value})),
    st.builds(lambda size, shape: safetensors({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}),
              st.integers(-1, 2**62), st.lists(st.integers(-1, 2**40), max_size=3))))
@example(content=model("[" * 100_000))
@example(content=model("{\"kind\":" * 50_000))
@example(content=struct.pack("<Q", 2**63) + b"{}")
@example(content=struct.pack("<Q", 99_999_999) + b"{}")
@example(content=model(json.dumps({"kind": "embedding", "architecture": "original",
                                   "parameters": {"dimensions": 2**40, "box": 64}, "preparation": {},
                                    "averages": 2**40})))
def test_model(folder, content):
    refuses_or_reads(read_any_model, folder / "a.safetensors", content)


def test_bounds_are_felt(folder):
    """The limits that the tests above rely on work."""
    with pytest.raises(MemoryError), bounded():
        np.ones(MEGABYTES * 2**20)
    with pytest.raises((MemoryError, RuntimeError)), bounded():
        torch.ones(MEGABYTES * 2**20)


def test_a_claim_of_gigabytes_is_refused_before_anything_is_unpacked(folder):
    """A few bytes that claim gigabytes."""
    stream = io.BytesIO()
    Image.new("1", (300, 300)).save(stream, "png", optimize=False)
    content = stream.getvalue()
    for place in (16, 20):
        content = content[:place] + struct.pack(">I", 44000) + content[place + 4:]
    path = folder / "bomb.png"
    path.write_bytes(content)
    with bounded(), pytest.raises(InputError, match="bomb.png"):
        read_image(path)
    claim = bytes_of(lambda out: tifffile.imwrite(out, PIXELS, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(claim)) as tiff:
        places = [tiff.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    for place in places:
        claim = claim[:place] + struct.pack("<H", 40000) + claim[place + 2:]
    (folder / "bomb.tif").write_bytes(claim)
    with bounded(), pytest.raises(InputError, match="bomb.tif"):
        read_image(folder / "bomb.tif")


def test_rows_of_many_quotes_take_linear_time(folder):
    """Looking for the end of each quote anew would take a thousand million steps."""
    row = "'a " * 40_000
    (folder / "quotes.star").write_text(f"data_a\nloop_\n_b\n{row}\n")
    with bounded(), pytest.raises(InputError, match="quotes.star, line 4: 40000 values"):
        read_star(folder / "quotes.star")


def test_tables_of_all_kinds_come_back(folder):
    """Whatever a table holds is read back the same."""
    table = pd.DataFrame({"text": ["a b", "it's", 'say "x"', "#1", "data_x", ""], "big": [2**64 - 1, 0, 1, 2, 3, 4],
                          "small": [1e-12, 1e-4, -3.25e-7, 0.0, 1.0, 1e20]})
    write_star(folder / "t.star", {"x": table})
    back = read_star(folder / "t.star")["x"]
    assert back["text"].tolist() == table["text"].tolist() and back["big"].tolist() == table["big"].tolist()
    np.testing.assert_allclose(back["small"], table["small"], rtol=1e-6)
