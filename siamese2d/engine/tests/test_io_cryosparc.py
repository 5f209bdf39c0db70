""".cs files: what is read, carried and written, passthrough files, damaged and hostile files, a real file."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.cryosparc import read_tables, write_particles_cs
from siamese2d_engine.io.cs_file import LONGEST_HEADER, read_cs, write_cs
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.io.particles import ctf_parameters, read_particles, write_particles
from siamese2d_engine.io.references import read_references
from siamese2d_engine.io.star import read_star


def particle_fields():
    """Four particles as a 2D classification leaves them, with fields that RELION has no column for."""
    return {
        "uid": np.array([2**64 - 1, 5, 2**63 + 3, 9], np.uint64),
        "blob/path": np.array(["J3/extract/s.mrc"] * 4),
        "blob/idx": np.array([1, 0, 3, 2], np.uint32),
        "blob/shape": np.full((4, 2), 8, np.uint32),
        "blob/psize_A": np.full(4, 2.0, np.float32),
        "blob/sign": np.array([-1, -1, -1, -1], np.float32),
        "ctf/exp_group_id": np.array([7, 3, 7, 3], np.uint32),
        "ctf/accel_kv": np.full(4, 300, np.float32),
        "ctf/cs_mm": np.full(4, 2.7, np.float32),
        "ctf/amp_contrast": np.full(4, 0.1, np.float32),
        "ctf/df1_A": np.array([1e4, 2e4, 3e4, 1.5e4], np.float32),
        "ctf/df2_A": np.array([9e3, 1.9e4, 2.9e4, 1.4e4], np.float32),
        "ctf/df_angle_rad": np.array([0, np.pi / 4, np.pi / 2, -1], np.float32),
        "ctf/phase_shift_rad": np.array([0, 0, np.pi / 2, 0], np.float32),
        "ctf/tilt_A": np.array([[2700, 0], [0, -5400], [2700, 0], [0, -5400]], np.float32),
        "ctf/trefoil_A": np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32),
        "alignments2D/pose": np.array([0, np.pi / 2, -np.pi / 3, 3], np.float32),
        "alignments2D/shift": np.array([[1, -2], [0.5, 0], [0, 3], [2, 2]], np.float32),
        "alignments2D/psize_A": np.full(4, 4.0, np.float32),
        "alignments2D/class": np.array([0, 2, 1, 0], np.uint32),
        "alignments2D/class_posterior": np.array([1, 0.5, 1e-7, 0.25], np.float32),
        "alignments2D/split": np.array([0, 1, 1, 0], np.uint32),
        "alignments3D/pose": np.arange(12, dtype=np.float32).reshape(4, 3) / 10,
        "alignments3D/split": np.array([1, 0, 0, 1], np.uint32),
        "pick_stats/ncc_score": np.array([0.5, 0.25, 0.75, 1e-8], np.float32),
    }


PASSTHROUGH = {
    "uid": np.array([77, 9, 5, 2**63 + 3, 2**64 - 1], np.uint64),
    "location/micrograph_path": np.array([f"J1/motion/m{n}.mrc" for n in range(5)]),
    "location/micrograph_shape": np.full((5, 2), (3000, 4000), np.uint32),
    "location/center_x_frac": np.array([0.1, 0.2, 0.25, 0.5, 0.75], np.float32),
    "location/center_y_frac": np.array([0.1, 0.5, 0.25, 0.5, 0.125], np.float32),
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A cryoSPARC project with one job; paths in its files start at the project's folder."""
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "P1" / "J3"
    images = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    write_mrc(job / "extract" / "s.mrc", images, 2.0)
    write_cs(job / "particles.cs", particle_fields())
    write_cs(job / "J3_passthrough_particles.cs", PASSTHROUGH)
    other = {name: values[:2] for name, values in PASSTHROUGH.items()}
    write_cs(job / "J3_passthrough_templates.cs", other | {"blob/res_A": np.zeros(2, np.float32)})
    return tmp_path / "P1", images


def test_every_value_becomes_what_relion_calls_it(project):
    particles = read_particles(project[0] / "J3" / "particles.cs")
    table, optics = particles.table, particles.optics
    assert (particles.box, particles.pixel_size) == (8, 2.0)
    assert optics["rlnOpticsGroup"].tolist() == [3, 7] and table["rlnOpticsGroup"].tolist() == [7, 3, 7, 3]
    # 2700 A of shift by 2.7 mm is 0.1 mrad.
    np.testing.assert_allclose(optics[["rlnBeamTiltX", "rlnBeamTiltY"]], [[0, -0.2], [0.1, 0]], rtol=1e-6)
    np.testing.assert_allclose(table["rlnDefocusAngle"], [0, 45, 90, np.degrees(-1)], rtol=1e-6)
    np.testing.assert_allclose(table["rlnAnglePsi"], [0, 90, -60, np.degrees(3)], rtol=1e-6)
    assert table["rlnOriginXAngst"].tolist() == [4, 2, 0, 8] and table["rlnOriginYAngst"].tolist() == [-8, 0, 12, 8]
    assert table["rlnClassNumber"].tolist() == [1, 3, 2, 1] and table["rlnRandomSubset"].tolist() == [2, 1, 1, 2]
    assert ctf_parameters(particles).phase_shift.tolist() == pytest.approx([0, 0, np.pi / 2, 0])


def test_passthrough_rows_are_found_by_uid_and_other_outputs_left_alone(project):
    table = read_particles(project[0] / "J3" / "particles.cs").table
    assert table["rlnMicrographName"].tolist() == [f"J1/motion/m{n}.mrc" for n in (4, 2, 3, 1)]
    assert table["rlnCoordinateX"].tolist() == pytest.approx([3000, 1000, 2000, 800])
    assert table["rlnCoordinateY"].tolist() == pytest.approx([375, 750, 1500, 1500])
    assert "cs__blob__res_A" not in table


def test_images_are_found_in_the_project_and_dark_ones_become_bright(project):
    particles = read_particles(project[0] / "J3" / "particles.cs")
    np.testing.assert_array_equal(particles.images.read([0, 2]), -project[1][[1, 3]])
    np.testing.assert_array_equal(particles.subset([3]).images.read(0), -project[1][[2]])


def test_nothing_is_lost_through_star_and_back(project):
    """cryoSPARC, STAR as a stage of the engine writes it, cryoSPARC: the same fields, types and values."""
    source = project[0] / "J3" / "particles.cs"
    particles = read_particles(source)
    write_particles("stage/particles.star", particles.table, particles.optics)
    again = read_particles("stage/particles.star")
    np.testing.assert_array_equal(again.images.read(range(4)), particles.images.read(range(4)))
    write_particles_cs("back.cs", again.table, again.optics, again.box)
    before, after = read_cs(source), read_cs("back.cs")
    assert set(before) <= set(after)
    for name, values in before.items():
        if name == "alignments2D/shift":
            # Written in pixels of the images, not of those that were aligned.
            values, after[name] = values * 4, after[name] * 2
        if name == "alignments2D/psize_A":
            continue
        assert after[name].dtype.kind == values.dtype.kind, name
        if values.dtype.kind == "f":
            np.testing.assert_allclose(after[name], values, rtol=2e-6, atol=1e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(after[name], values, err_msg=name)


def test_exposure_groups_that_relion_can_not_number(project):
    fields = particle_fields() | {"ctf/exp_group_id": np.array([0, 3, 0, 3], np.uint32)}
    write_cs("zero.cs", fields | {"blob/path": np.array(["P1/J3/extract/s.mrc"] * 4)})
    particles = read_particles("zero.cs")
    assert particles.optics["rlnOpticsGroup"].tolist() == [1, 2]
    write_particles_cs("back.cs", particles.table, particles.optics, 8)
    assert read_cs("back.cs")["ctf/exp_group_id"].tolist() == [0, 3, 0, 3]


def test_without_spherical_aberration_the_tilt_travels_in_angstroms(project):
    fields = particle_fields() | {"ctf/cs_mm": np.zeros(4, np.float32)}
    write_cs("noCs.cs", fields | {"blob/path": np.array(["P1/J3/extract/s.mrc"] * 4)})
    particles = read_particles("noCs.cs")
    assert "rlnBeamTiltX" not in particles.optics
    write_particles_cs("back.cs", particles.table, particles.optics, 8)
    np.testing.assert_array_equal(read_cs("back.cs")["ctf/tilt_A"], fields["ctf/tilt_A"])


def test_identifiers_of_particles_that_have_none_are_the_same_in_every_export(project):
    table = pd.DataFrame({"rlnImageName": ["000001@a.mrcs", "000002@a.mrcs", "000001@a.mrcs"], "rlnOpticsGroup": 1})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.0]})
    first = write_particles_cs("1.cs", table, optics, 8)["uid"]
    assert len(set(first.tolist())) == 3
    np.testing.assert_array_equal(write_particles_cs("2.cs", table, optics, 8)["uid"], first)
    assert write_particles_cs("3.cs", table.iloc[[1]], optics, 8)["uid"] == first[1]


def test_micrographs(project):
    write_mrc(project[0] / "J1" / "a.mrc", np.zeros((6, 9)), 1.0)
    write_cs(project[0] / "J1" / "micrographs.cs", {
        "uid": np.array([3], np.uint64), "micrograph_blob/path": np.array(["J1/a.mrc"]),
        "micrograph_blob/idx": np.zeros(1, np.uint32), "micrograph_blob/shape": np.array([[6, 9]], np.uint32),
        "micrograph_blob/psize_A": np.array([1.25], np.float32), "ctf/df1_A": np.array([1e4], np.float32),
        "mscope_params/total_dose_e_per_A2": np.array([50], np.float32)})
    micrographs = read_micrographs(project[0] / "J1" / "micrographs.cs")
    assert micrographs.paths[0].exists() and micrographs.pixel_sizes.tolist() == [1.25]
    assert micrographs.table["rlnDefocusU"].tolist() == [1e4]
    assert micrographs.table["cs__mscope_params__total_dose_e_per_A2"].tolist() == [50]


def test_coordinates_and_averages(project):
    write_cs("locations.cs", PASSTHROUGH)
    assert read_coordinates("locations.cs")["rlnCoordinateY"].tolist() == pytest.approx([300, 1500, 750, 1500, 375])
    write_cs("templates.cs", {"uid": np.array([1, 2], np.uint64), "blob/path": np.array(["P1/J3/extract/s.mrc"] * 2),
                              "blob/idx": np.array([3, 0], np.uint32)})
    np.testing.assert_array_equal(read_references(Path("templates.cs")).images, project[1][[3, 0]])


class Bomb:
    """Unpickled, it would make a folder."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("content", [
    pytest.param(lambda: pickle.dumps(Bomb()), id="pickle"),
    pytest.param(lambda: np_bytes(np.array([Bomb()], dtype=object)), id="array of objects"),
    pytest.param(lambda: np_bytes(np.array([(1, Bomb())], dtype=[("uid", "u8"), ("blob/path", "O")])),
                 id="field of objects"),
])
def test_objects_are_refused_and_never_made(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("bad.cs").write_bytes(content())
    with pytest.raises(InputError, match="bad.cs"):
        read_tables("bad.cs")
    assert not Path("exploded").exists()


def np_bytes(array):
    np.save("array.npy", array, allow_pickle=True)
    return Path("array.npy").read_bytes()


def header_bytes(text, version=b"\x01\x00"):
    text = text.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text


@pytest.mark.parametrize("content, words", [
    (b"", "not a .cs file"),
    (b"CSDAT" + bytes(100), "not a .cs file.*cryosparc-tools"),
    (header_bytes("{'descr': [('uid', '<u8')], 'fortran_order': False, 'shape': (10000000000000,)}"), "truncated"),
    (header_bytes("{'descr': [('uid', '<u8'), ('a', 'S2000000000')], 'fortran_order': False, 'shape': (9,)}"),
     "truncated"),
    (header_bytes("{'descr': [('uid', '<u8')], 'fortran_order': False, 'shape': (-1,)}"), "bad.cs"),
    (header_bytes("{'descr': '<u8', 'fortran_order': False, 'shape': (0,)}"), "not a table"),
    (header_bytes("{'descr': [('uid', '<u8')], 'fortran_order': False, 'shape': ()}"), "not a table"),
    (header_bytes("(" * 60000), "not a .cs file"),
    (header_bytes("-" * 60000 + "1"), "not a .cs file"),
    (header_bytes("__import__('os').mkdir('exploded')"), "not a .cs file"),
    (b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little"), "not a .cs file.*header of 4294967295 bytes"),
    (b"\x93NUMPY\x03\x00" + bytes(50), "not a .cs file.*version"),
])
def test_damaged_and_hostile_headers(tmp_path, monkeypatch, content, words):
    monkeypatch.chdir(tmp_path)
    Path("bad.cs").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_tables("bad.cs")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("change, words", [
    ({"uid": None}, "no field uid"),
    ({"uid": np.array([1, 2, 2, 3], np.uint64)}, "two rows have the same uid"),
    ({"blob/path": None}, "neither images"),
    ({"ctf/df1_A": np.zeros((4, 2), np.float32)}, "ctf/df1_A is not one number"),
    ({"alignments2D/class": np.array(["a"] * 4)}, "alignments2D/class is not one number"),
    ({"odd name/x": np.zeros(4)}, "'odd name' has a name"),
    ({"ctf/when": np.zeros(4, "M8[s]")}, "ctf/when has the type"),
])
def test_fields_that_make_no_sense(project, change, words):
    fields = {name: values for name, values in (particle_fields() | change).items() if values is not None}
    write_cs("odd.cs", fields)
    with pytest.raises(InputError, match=words):
        read_particles("odd.cs")


def test_a_table_without_rows(project):
    write_cs("none.cs", {name: values[:0] for name, values in particle_fields().items()})
    with pytest.raises(InputError, match="none.cs: the file has no rows"):
        read_particles("none.cs")


def test_a_truncated_file_and_one_that_shrinks_while_it_is_read(project, monkeypatch):
    write_cs("short.cs", particle_fields())
    size = Path("short.cs").stat().st_size
    real = np.fromfile
    monkeypatch.setattr(np, "fromfile", lambda stream, dtype, count: real(stream, dtype, count - 1))
    with pytest.raises(InputError, match="short.cs: the file became shorter"):
        read_cs("short.cs")
    monkeypatch.undo()
    os.truncate(project[0].parent / "short.cs", size - 3)
    with pytest.raises(InputError, match="short.cs: .* truncated"):
        read_cs(project[0].parent / "short.cs")


def test_headers_of_jobs_with_many_alignments(tmp_path):
    many = {f"alignments_class_{n}/cross_cor": np.zeros(2, np.float32) for n in range(600)}
    write_cs(tmp_path / "many.cs", {"uid": np.array([1, 2], np.uint64), "blob/path": np.array(["a"] * 2), **many})
    assert 10_000 < (tmp_path / "many.cs").stat().st_size < LONGEST_HEADER
    assert len(read_cs(tmp_path / "many.cs")) == 602


def test_a_real_file_of_cryosparc_and_its_relion_twin():
    if "SIAMESE2D_TEST_DATA" not in os.environ:
        pytest.skip("SIAMESE2D_TEST_DATA is not set")
    folder = Path(os.environ["SIAMESE2D_TEST_DATA"]) / "particles" / "empiar10076_LSU_7"
    ours, theirs = read_particles(folder / "empiar_10076_7.cs"), read_particles(folder / "empiar_10076_7.star")
    columns = ["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    np.testing.assert_allclose(ours.table[columns], theirs.table[columns], rtol=1e-5)
    assert ours.pixel_size == pytest.approx(theirs.pixel_size, rel=1e-5)
    # This file calls its particles dark on light.
    np.testing.assert_array_equal(ours.images.read(range(7)), -theirs.images.read(range(7)))
    assert read_star(folder / "empiar_10076_7.star")[""]["rlnVoltage"].iloc[0] == ours.optics["rlnVoltage"].iloc[0]


def test_a_real_file_goes_through_star_and_back(tmp_path, monkeypatch):
    if "SIAMESE2D_TEST_DATA" not in os.environ:
        pytest.skip("SIAMESE2D_TEST_DATA is not set")
    monkeypatch.chdir(tmp_path)
    particles = Path(os.environ["SIAMESE2D_TEST_DATA"]).absolute() / "particles"
    source = particles / "empiar10076_LSU_7" / "empiar_10076_7.cs"
    particles = read_particles(source)
    write_particles("particles.star", particles.table, particles.optics)
    again = read_particles("particles.star")
    write_particles_cs("back.cs", again.table, again.optics, again.box)
    before, after = np.load(source, allow_pickle=False), np.load("back.cs", allow_pickle=False)
    for name in before.dtype.names:
        assert after.dtype[name].kind == before.dtype[name].kind, name
        if before.dtype[name].base.kind == "f":
            np.testing.assert_allclose(after[name], before[name], rtol=2e-6, atol=1e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
