"""Particle sets: RELION 3.0 and 3.1 tables, lazy images, CTF parameters, damaged input, real files."""

import os
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import ctf_parameters, read_particles, write_particles
from siamese2d_engine.io.star import read_star, write_star

OPTICS = pd.DataFrame(
    {
        "rlnOpticsGroup": [1, 2],
        "rlnOpticsGroupName": ["opticsGroup1", "opticsGroup2"],
        "rlnVoltage": [300.0, 200.0],
        "rlnSphericalAberration": [2.7, 2.0],
        "rlnAmplitudeContrast": [0.1, 0.07],
        "rlnImagePixelSize": [1.5, 1.5],
    }
)


def stack(path, count, box=8, seed=0):
    """Write random images and return them."""
    images = np.random.default_rng(seed).normal(size=(count, box, box)).astype(np.float32)
    write_mrc(path, images, 1.5)
    return images


def table(**changed):
    columns = {
        "rlnImageName": ["000002@one.mrcs", "000001@two.mrcs", "000001@one.mrcs", "000003@two.mrcs"],
        "rlnOpticsGroup": [1, 2, 2, 1],
        "rlnDefocusU": [10000.0, 20000.0, 30000.0, 15000.0],
        "rlnDefocusV": [9000.0, 19000.0, 29000.0, 14000.0],
        "rlnDefocusAngle": [0.0, 45.0, 90.0, -30.0],
        "siamese2dItemId": [11, 22, 33, 44],
    }
    return pd.DataFrame(columns | changed)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two stacks and particles.star that mixes them."""
    monkeypatch.chdir(tmp_path)
    stack(tmp_path / "one.mrcs", 2, seed=1)
    stack(tmp_path / "two.mrcs", 3, seed=2)
    write_particles(tmp_path / "particles.star", table(), OPTICS)
    return tmp_path


def expected_images(folder):
    with mrcfile.open(folder / "one.mrcs") as one, mrcfile.open(folder / "two.mrcs") as two:
        return np.stack([one.data[1], two.data[0], one.data[0], two.data[2]])


def test_relion_31(folder):
    particles = read_particles(folder / "particles.star")
    assert (len(particles), particles.box, particles.pixel_size) == (4, 8, 1.5)
    assert particles.table["siamese2dItemId"].tolist() == [11, 22, 33, 44]
    np.testing.assert_array_equal(particles.images.read(np.arange(4)), expected_images(folder))


def test_images_in_any_order_and_in_chunks(folder):
    images = read_particles(folder / "particles.star").images
    all_images = expected_images(folder)
    np.testing.assert_array_equal(images.read([3, 0, 3]), all_images[[3, 0, 3]])
    assert images.read(2).shape == (1, 8, 8) and images.shape == (4, 8, 8) and images.read([]).shape == (0, 8, 8)
    chunks = list(images.chunks(3))
    assert [positions.tolist() for positions, _ in chunks] == [[0, 1, 2], [3]]
    np.testing.assert_array_equal(np.concatenate([part for _, part in chunks]), all_images)
    assert all(part.dtype == np.float32 for _, part in chunks)


@pytest.mark.parametrize("rows", [[2, 0], np.array([True, False, True, False]), np.array([], dtype=int)])
def test_subsets_keep_rows_and_images_together(folder, rows):
    particles = read_particles(folder / "particles.star")
    part = particles.subset(rows)
    kept = np.arange(4)[rows]
    assert part.table["siamese2dItemId"].tolist() == [[11, 22, 33, 44][row] for row in kept]
    np.testing.assert_array_equal(part.images.read(np.arange(len(kept))), expected_images(folder)[kept])


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_kinds_of_stacks(folder, dtype, order):
    values = np.arange(2 * 8 * 8).reshape(2, 8, 8) % 100
    with mrcfile.new(folder / "one.mrcs", overwrite=True) as file:
        file.set_data(values.astype(dtype))
        file.set_image_stack()
    if order == ">":
        with mrcfile.open(folder / "one.mrcs") as file:
            header, data = file.header.copy(), file.data.copy()
        header = header.view(header.dtype.newbyteorder("<")).astype(header.dtype.newbyteorder(">"))
        header["machst"] = [0x11, 0x11, 0, 0]
        (folder / "one.mrcs").write_bytes(header.tobytes() + data.astype(data.dtype.newbyteorder(">")).tobytes())
    images = read_particles(folder / "particles.star").images.read([0, 2])
    np.testing.assert_array_equal(images, values[[1, 0]].astype(np.float32))


def test_ctf_parameters_come_from_the_optics_groups(folder):
    ctf = ctf_parameters(read_particles(folder / "particles.star"))
    assert ctf.voltage.tolist() == [300, 200, 200, 300] and ctf.cs.tolist() == [2.7, 2.0, 2.0, 2.7]
    assert ctf.amplitude_contrast.tolist() == [0.1, 0.07, 0.07, 0.1]
    np.testing.assert_allclose(ctf.astigmatism_angle, np.radians([0, 45, 90, -30]))
    assert ctf.defocus_u.tolist() == [10000, 20000, 30000, 15000] and ctf.phase_shift.tolist() == [0, 0, 0, 0]


def test_particles_without_defocus_have_no_ctf(folder):
    write_particles(folder / "p.star", table().drop(columns=["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]), OPTICS)
    assert ctf_parameters(read_particles(folder / "p.star")) is None


def test_defocus_without_voltage(folder):
    write_particles(folder / "p.star", table(), OPTICS.drop(columns="rlnVoltage"))
    with pytest.raises(InputError, match="no rlnVoltage"):
        ctf_parameters(read_particles(folder / "p.star"))


def test_a_defocus_that_is_no_number(folder):
    write_particles(folder / "p.star", table(rlnDefocusV=[1.0, np.nan, 3.0, 4.0]), OPTICS)
    with pytest.raises(InputError, match="row 2 .*rlnDefocusV is not a number"):
        ctf_parameters(read_particles(folder / "p.star"))


def test_relion_30_columns_become_optics_groups(folder):
    old = (
        table()
        .drop(columns="rlnOpticsGroup")
        .assign(
            rlnVoltage=[300.0, 200.0, 300.0, 200.0],
            rlnSphericalAberration=2.7,
            rlnAmplitudeContrast=0.1,
            rlnMagnification=50000.0,
            rlnDetectorPixelSize=7.0,
            rlnPhaseShift=90.0,
        )
    )
    write_star(folder / "old.star", {"": old})
    particles = read_particles(folder / "old.star")
    assert particles.pixel_size == pytest.approx(1.4)
    assert len(particles.optics) == 2 and particles.table["rlnOpticsGroup"].tolist() == [1, 2, 1, 2]
    ctf = ctf_parameters(particles)
    assert ctf.voltage.tolist() == [300, 200, 300, 200]
    np.testing.assert_allclose(ctf.phase_shift, np.pi / 2)
    write_particles(folder / "new.star", particles.table, particles.optics)
    again = read_particles(folder / "new.star")
    assert again.pixel_size == pytest.approx(1.4) and ctf_parameters(again).voltage.tolist() == [300, 200, 300, 200]
    assert again.table["siamese2dItemId"].tolist() == [11, 22, 33, 44]


def test_the_pixel_size_may_come_from_the_header_or_the_user(folder):
    write_particles(folder / "p.star", table(), OPTICS.drop(columns="rlnImagePixelSize"))
    assert read_particles(folder / "p.star").pixel_size == 1.5
    assert read_particles(folder / "p.star", pixel_size=2.0).pixel_size == 2.0
    for name, count in (("one.mrcs", 2), ("two.mrcs", 3)):
        write_mrc(folder / name, np.zeros((count, 8, 8)), 0.0)
    with pytest.raises(InputError, match="p.star: the pixel size is not known.*--pixel-size"):
        read_particles(folder / "p.star")
    with pytest.raises(InputError, match="p.star: a pixel size of 4000 A .*can't be right"):
        read_particles(folder / "p.star", pixel_size=4000.0)


def test_a_pixel_size_that_contradicts_the_file_is_refused(folder):
    write_particles(folder / "p.star", table(), OPTICS)
    assert read_particles(folder / "p.star", pixel_size=1.5001).pixel_size == 1.5
    with pytest.raises(InputError, match="p.star: the pixels are 1.5 A wide by this file, but --pixel-size is 3"):
        read_particles(folder / "p.star", pixel_size=3.0)


def test_unknown_columns_survive(folder):
    rich = table(someText=["a", "b c", "d", "e"], someNumber=[1.5, 2.5, 3.5, 4.5])
    write_particles(folder / "p.star", rich, OPTICS)
    particles = read_particles(folder / "p.star")
    assert particles.table["someText"].tolist() == ["a", "b c", "d", "e"]
    assert list(particles.table.columns) == list(rich.columns)


def test_a_single_image_file_needs_no_number(folder):
    with mrcfile.new(folder / "single.mrc") as file:
        file.set_data(np.full((8, 8), 3, dtype=np.float32))
    write_particles(folder / "p.star", table().iloc[:1].assign(rlnImageName="single.mrc"), OPTICS)
    assert (read_particles(folder / "p.star").images.read([0]) == 3).all()


def test_stacks_beside_the_star_file_are_found(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(read_particles(folder / "particles.star")) == 4


def test_an_image_beyond_the_end_of_its_stack(folder):
    stack(folder / "two.mrcs", 2)
    with pytest.raises(InputError, match="two.mrcs: particle row 4 asks for image 3, but the stack holds 2"):
        read_particles(folder / "particles.star")


def test_image_number_zero(folder):
    write_particles(folder / "p.star", table().iloc[:1].assign(rlnImageName="000000@one.mrcs"), OPTICS)
    with pytest.raises(InputError, match="particle row 1 asks for image 0"):
        read_particles(folder / "p.star")


def test_a_truncated_stack(folder):
    whole = (folder / "two.mrcs").read_bytes()
    (folder / "two.mrcs").write_bytes(whole[:-100])
    with pytest.raises(InputError, match="two.mrcs: .*truncated"):
        read_particles(folder / "particles.star")
    (folder / "two.mrcs").write_bytes(whole[:500])
    with pytest.raises(InputError, match="two.mrcs: .*truncated"):
        read_particles(folder / "particles.star")


def test_a_stack_that_is_no_image(folder):
    (folder / "one.mrcs").write_text("these are words, " * 200)
    with pytest.raises(InputError, match="one.mrcs"):
        read_particles(folder / "particles.star")


def test_a_missing_stack(folder):
    (folder / "one.mrcs").unlink()
    with pytest.raises(InputError, match="one.mrcs: this particle stack does not exist"):
        read_particles(folder / "particles.star")


def test_mixed_and_oblong_boxes(folder):
    stack(folder / "two.mrcs", 3, box=10)
    with pytest.raises(InputError, match="one box size"):
        read_particles(folder / "particles.star")
    write_mrc(folder / "two.mrcs", np.zeros((3, 8, 9)), 1.5)
    with pytest.raises(InputError, match="two.mrcs: .*not square"):
        read_particles(folder / "particles.star")


@pytest.mark.parametrize(
    "particles, optics, words",
    [
        (table().drop(columns="rlnImageName"), OPTICS, "no column rlnImageName"),
        (table(rlnOpticsGroup=[1, 2, 7, 1]), OPTICS, "particle row 3: optics group 7"),
        (table().drop(columns="rlnOpticsGroup"), OPTICS, "column rlnOpticsGroup is missing"),
        (table(), OPTICS.assign(rlnImagePixelSize=[1.0, 2.0]), "different pixel sizes"),
        (table(), OPTICS.assign(rlnImagePixelSize=[0.0, 0.0]), "pixel size of 0 A .rlnImagePixelSize. can't be right"),
        (table(), OPTICS.assign(rlnImagePixelSize=[1.5, -1.5]), "pixel size of -1.5 A"),
        (table(), OPTICS.assign(rlnImagePixelSize=[np.nan, 1.5]), "pixel size of nan A"),
        (table(), OPTICS.assign(rlnImagePixelSize=[4e-10, 4e-10]), "pixel size of 4e-10 A"),
    ],
)
def test_bad_tables_are_named(folder, particles, optics, words):
    write_particles(folder / "bad.star", particles, optics)
    with pytest.raises(InputError, match=f"bad.star.*{words}"):
        read_particles(folder / "bad.star")


def test_an_empty_set(folder):
    write_particles(folder / "empty.star", table().iloc[:0], OPTICS)
    with pytest.raises(InputError, match="empty.star: the set of particles is empty"):
        read_particles(folder / "empty.star")


# ---- real files


@pytest.fixture(scope="module")
def real():
    if "SIAMESE2D_TEST_DATA" not in os.environ:
        pytest.skip("SIAMESE2D_TEST_DATA is not set")
    return Path(os.environ["SIAMESE2D_TEST_DATA"]) / "particles"


@pytest.mark.parametrize(
    "star, stack_name, count, box, pixel_size, defocus",
    [
        ("betagal_aspire/sample_particles_relion31.star", "sample.mrcs", 17, 200, 1.4, 21186.804688),
        ("betagal_aspire/sample_particles_relion30.star", "sample.mrcs", 17, 200, 1.338, 21186.804688),
        ("empiar10076_LSU_7/empiar_10076_7.star", "empiar_10076_7.mrc", 7, 320, 1.31, 15301.1),
        ("microtubule_relion31_5/relion31.star", "relion31.mrcs", 5, 256, 2.806, 13108.082418),
        ("cryodrgn_toys_synthetic/toy_projections.star", "toy_projections.mrcs", 1000, 30, 1.0, 0.0),
    ],
)
def test_real_stacks(real, star, stack_name, count, box, pixel_size, defocus):
    particles = read_particles(real / star)
    assert (len(particles), particles.box) == (count, box)
    assert particles.pixel_size == pytest.approx(pixel_size, rel=1e-4)
    assert ctf_parameters(particles).defocus_u[0] == pytest.approx(defocus)
    with mrcfile.open((real / star).parent / stack_name, permissive=True) as file:
        np.testing.assert_array_equal(
            particles.images.read([count - 1, 0]), file.data[[count - 1, 0]].astype(np.float32)
        )


def test_real_tables_survive_a_round_trip(real, tmp_path):
    for star in sorted(real.glob("*/*.star")):
        blocks = read_star(star)
        write_star(tmp_path / "copy.star", blocks)
        copy = read_star(tmp_path / "copy.star")
        for name, before in blocks.items():
            pd.testing.assert_frame_equal(copy[name], before, atol=1e-6, check_dtype=False)


def test_a_table_of_a_stack_that_was_left_elsewhere(real):
    with pytest.raises(InputError, match="bin1_1.82A.mrcs: this particle stack does not exist"):
        read_particles(real / "ribosome_subtomo_tilts" / "sta_testing.star")
