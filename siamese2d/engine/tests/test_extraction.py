"""Extraction against reference crops, and its command: tables, CTF, edges, bad input, resuming."""

import json
import os
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.extraction.background import background_mask, fill_outside, normalize_background
from siamese2d_engine.extraction.crop import box_corners, crop, is_inside
from siamese2d_engine.extraction.stage import Settings
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import ctf_parameters, read_particles
from siamese2d_engine.io.star import read_star, write_star

NAMES = ("one", "two")
SHAPE = (90, 120)
X, Y = (60.0, 30.4, 80.5, 20.0), (45.0, 50.6, 40.49, 20.0)


def micrograph(seed):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (np.random.default_rng(seed).normal(size=SHAPE) + 0.03 * x - 0.01 * y + 7).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two micrographs with CTF in one STAR file, and four coordinates on each."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(NAMES):
        write_mrc(f"mics/{name}.mrc", micrograph(seed), 2.0)
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["g"], "rlnVoltage": [300.0],
                           "rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.07],
                           "rlnMicrographPixelSize": [2.0]})
    table = pd.DataFrame({"rlnMicrographName": [f"mics/{n}.mrc" for n in NAMES], "rlnOpticsGroup": 1,
                          "rlnDefocusU": [1e4, 2e4], "rlnDefocusV": [0.9e4, 1.9e4], "rlnDefocusAngle": [10.0, 20.0],
                          "siamese2dItemId": [1, 2]})
    write_star("mics.star", {"optics": optics, "micrographs": table})
    write_star("coords.star", {"": coordinates()})
    return tmp_path


def coordinates():
    return pd.concat([pd.DataFrame({
        "rlnMicrographName": f"mics/{name}.mrc", "rlnCoordinateX": X, "rlnCoordinateY": Y,
        "rlnAutopickFigureOfMerit": [0.9, 0.8, 0.7, 0.6], "siamese2dItemId": np.arange(4) + 10 * (i + 1),
    }) for i, name in enumerate(NAMES)], ignore_index=True)


def extract(*arguments, box="32", coords="coords.star", micrographs="mics.star", out="out"):
    return main(["extract", "--micrographs", micrographs, "--coordinates", coords, "--box", box, "--out", out,
                 "--threads", "2", *arguments])


def reference(image, x, y, box):
    """The centre pixel of the box is the pixel whose square holds the coordinate."""
    column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    return image[row - box // 2 : row + box // 2, column - box // 2 : column + box // 2]


def test_equals_a_reference_crop_exactly(folder):
    assert extract("--no-normalize") == 0
    particles = read_particles("out/particles.star")
    images = particles.images.read(np.arange(8))
    for i, image in enumerate(images):
        np.testing.assert_array_equal(image, reference(micrograph(i // 4), X[i % 4], Y[i % 4], 32))
    assert particles.pixel_size == 2.0
    with mrcfile.open("out/stacks/one.mrcs") as mrc:
        assert mrc.is_image_stack() and mrc.voxel_size.x == 2.0


def test_odd_boxes_have_their_centre_in_the_middle(folder, capsys):
    assert extract("--no-normalize", box="31") == 0
    images = read_particles("out/particles.star").images.read(np.arange(4))
    for image, x, y in zip(images, X, Y):
        column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
        np.testing.assert_array_equal(image, micrograph(0)[row - 15 : row + 16, column - 15 : column + 16])
    assert "31 pixels is odd" in capsys.readouterr().out


def test_table_carries_ctf_scores_and_identities(folder):
    assert extract("--downsample", "2") == 0
    blocks = read_star("out/particles.star")
    table, optics = blocks["particles"], blocks["optics"]
    assert table["siamese2dItemId"].tolist() == [10, 11, 12, 13, 20, 21, 22, 23]
    assert table["rlnAutopickFigureOfMerit"].tolist() == [0.9, 0.8, 0.7, 0.6] * 2
    np.testing.assert_allclose(table["rlnCoordinateX"], X * 2)
    assert table["rlnImageName"][5] == "000002@out/stacks/two.mrcs"
    assert table["rlnDefocusU"].tolist() == [1e4] * 4 + [2e4] * 4
    assert optics.iloc[0].to_dict() == {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnVoltage": 300, "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.07, "rlnMicrographOriginalPixelSize": 2.0, "rlnImagePixelSize": 4.0,
        "rlnImageSize": 16, "rlnImageDimensionality": 2,
    }
    ctf = ctf_parameters(read_particles("out/particles.star"))
    np.testing.assert_allclose(ctf.voltage, 300)
    np.testing.assert_allclose(ctf.astigmatism_angle[[0, 7]], np.radians([10, 20]))


def test_ctf_of_the_coordinate_wins(folder):
    write_star("coords.star", {"": coordinates().assign(rlnDefocusU=np.arange(8) * 100.0)})
    assert extract() == 0
    table = read_star("out/particles.star")["particles"]
    assert table["rlnDefocusU"].tolist() == [0, 100, 200, 300, 400, 500, 600, 700]
    assert table["rlnDefocusV"].tolist() == [0.9e4] * 4 + [1.9e4] * 4


def test_relion_30_micrographs_give_optics_groups(folder):
    table = read_star("mics.star")["micrographs"].drop(columns="rlnOpticsGroup")
    table = table.assign(rlnVoltage=[300.0, 200.0], rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1,
                         rlnDetectorPixelSize=5.0, rlnMagnification=25000.0)
    write_star("old.star", {"": table})
    assert extract(micrographs="old.star") == 0
    blocks = read_star("out/particles.star")
    assert blocks["optics"]["rlnVoltage"].tolist() == [300, 200]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == [1] * 4 + [2] * 4
    assert read_particles("out/particles.star").pixel_size == 2.0


def test_background_is_normalized(folder):
    assert extract() == 0
    images = read_particles("out/particles.star").images.read(np.arange(8))
    outside = background_mask(32, 12)
    for image in images:
        assert image[outside].mean() == pytest.approx(0, abs=1e-5)
        assert image[outside].std() == pytest.approx(1, abs=1e-5)


def test_inverting_is_the_negative(folder):
    assert extract() == 0
    assert extract("--invert", out="inverted") == 0
    for name in NAMES:
        plain, inverted = (mrcfile.read(f"{out}/stacks/{name}.mrcs") for out in ("out", "inverted"))
        np.testing.assert_allclose(inverted, -plain, atol=1e-5)


def test_ramp_is_the_least_squares_plane_of_the_background():
    images = np.stack([micrograph(s)[:32, :32] for s in range(3)])
    outside = background_mask(32, 10)
    found, good = normalize_background(images, np.ones_like(images, dtype=bool), outside, ramp=True)
    y, x = np.mgrid[:32, :32]
    functions = np.stack([np.ones(outside.sum()), x[outside], y[outside]], axis=1)
    for image, result in zip(images.astype(float), found):
        a, b, c = np.linalg.lstsq(functions, image[outside], rcond=None)[0]
        flat = image - a - b * x - c * y
        np.testing.assert_allclose(result, flat / flat[outside].std(), atol=1e-4)
    assert good.all()


def test_ramp_can_be_kept():
    image = (np.arange(32.0) * np.ones((32, 1)))[None].astype(np.float32)
    valid, outside = np.ones_like(image, dtype=bool), background_mask(32, 10)
    kept, good = normalize_background(image, valid, outside, ramp=False)
    assert good[0] and np.ptp(kept) > 2.5
    removed, good = normalize_background(image, valid, outside, ramp=True)
    assert not good[0] and not removed.any()


def test_downsampled_box_keeps_a_cosine_and_its_centre(folder):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wave = np.cos(2 * np.pi * (3 * (x - 60) + 2 * (y - 45)) / 48)
    for name in NAMES:
        write_mrc(f"mics/{name}.mrc", wave, 2.0)
    assert extract("--downsample", "2.9", "--no-normalize", box="48") == 0
    particles = read_particles("out/particles.star")
    assert particles.box == 16
    assert particles.pixel_size == pytest.approx(6.0)
    v, u = np.mgrid[:16, :16] - 8
    np.testing.assert_allclose(particles.images.read(0)[0], np.cos(2 * np.pi * (3 * u + 2 * v) / 16), atol=1e-5)


def test_boxes_at_the_edge_are_dropped_and_told(folder, capsys):
    assert extract(box="48") == 0
    table = read_star("out/particles.star")["particles"]
    assert table["siamese2dItemId"].tolist() == [10, 11, 12, 20, 21, 22]
    assert "2 particles reach over the edge" in capsys.readouterr().out
    records = json.loads(Path("out/extraction.json").read_text())["micrographs"]
    assert [(r["name"], r["particles"], r["dropped_at_edge"]) for r in records] == [("one", 3, 1), ("two", 3, 1)]


def test_a_box_that_just_fits_is_kept():
    corners = box_corners(np.array([16.0, 15.4, 104.4, 104.5]), np.array([16.0, 16.0, 74.4, 74.0]), 32)
    assert is_inside(corners, 32, SHAPE).tolist() == [True, False, True, False]
    assert corners[2].tolist() == [58, 88]


def test_boxes_at_the_edge_are_padded_with_the_background(folder):
    assert extract("--edge", "pad", "--no-normalize", box="48") == 0
    image = mrcfile.read("out/stacks/one.mrcs")[3]
    inside = micrograph(0)[:44, :44]
    np.testing.assert_array_equal(image[4:, 4:], inside)
    background = inside[background_mask(48, 18)[4:, 4:]].mean(dtype=float)
    np.testing.assert_allclose(np.r_[image[:4].ravel(), image[:, :4].ravel()], background, rtol=1e-6)
    assert extract("--edge", "pad", "--downsample", "2", box="48", out="normalized") == 0
    image = mrcfile.read("normalized/stacks/one.mrcs")[3]
    outside = background_mask(24, 9)[2:, 2:]
    assert not image[:2].any() and not image[:, :2].any()
    assert image[2:, 2:][outside].mean() == pytest.approx(0, abs=1e-5)
    assert image[2:, 2:][outside].std() == pytest.approx(1, abs=1e-5)


def test_crop_far_outside_is_empty_and_filling_survives_it():
    images, valid = crop(micrograph(0), np.array([[-40, 10], [10, 10]]), 32)
    assert not valid[0].any() and valid[1].all()
    filled = fill_outside(images, valid, background_mask(32, 12))
    assert not filled[0].any()
    np.testing.assert_array_equal(filled[1], images[1])
    assert normalize_background(images, valid, background_mask(32, 12), ramp=True)[1].tolist() == [False, True]


@pytest.mark.parametrize("arguments, box, message", [
    (("--downsample", "2"), "31", "must be even.*Use 32"),
    ((), "92", "mics/one.mrc.*smaller than the box.*at most 90"),
    (("--downsample", "8"), "32", "images of 4 pixels"),
    (("--downsample", "0.5"), "32", "1 or more"),
    (("--background-radius", "20"), "32", "does not fit into a box of 32"),
    ((), "90", "over the edge.*smaller --box"),
])
def test_bad_settings(folder, capsys, arguments, box, message):
    write_star("coords.star", {"": coordinates().assign(rlnCoordinateX=10.0)})
    assert extract(*arguments, box=box) == 2
    assert pd.Series([capsys.readouterr().err.replace("\n", " ")]).str.contains(message)[0]
    assert not Path("out/particles.star").exists()


def test_coordinates_outside_the_image_are_an_error(folder, capsys):
    write_star("coords.star", {"": coordinates().assign(rlnCoordinateX=500.0)})
    assert extract() == 2
    assert "outside this image" in capsys.readouterr().err


def test_constant_background_is_left_out(folder, capsys):
    image = micrograph(0)
    image[:45, :45] = 3.0
    write_mrc("mics/one.mrc", image, 2.0)
    assert extract() == 0
    assert read_star("out/particles.star")["particles"]["siamese2dItemId"].tolist() == [10, 11, 12, 20, 21, 22, 23]
    assert "1 particles have a constant background" in capsys.readouterr().out


def test_micrographs_without_particles_and_damaged_ones(folder, capsys):
    Path("mics/one.mrc").write_text("no image")
    assert extract() == 0
    assert "warning: mics/one.mrc" in capsys.readouterr().out
    assert read_star("out/particles.star")["particles"]["siamese2dItemId"].tolist() == [20, 21, 22, 23]
    write_mrc("mics/one.mrc", micrograph(0), 2.0)
    assert extract() == 0
    assert len(read_star("out/particles.star")["particles"]) == 8
    write_star("coords.star", {"": coordinates().iloc[:4]})
    assert extract(out="first") == 0
    assert len(read_star("first/particles.star")["particles"]) == 4
    assert not Path("first/stacks/two.mrcs").exists()
    for name in NAMES:
        os.truncate(f"mics/{name}.mrc", 3000)
    assert extract("--invert", out="second") == 2
    assert "mics/one.mrc" in capsys.readouterr().err


def test_killed_run_continues_to_the_same_result(folder):
    assert extract(box="48") == 0
    files = [*sorted(Path("out/stacks").iterdir()), Path("out/extraction.json"), Path("out/particles.star")]
    whole = {path: content(path) for path in files}
    record = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    for lost in ("stacks/one.mrcs", "extraction.json", "particles.star"):
        Path("out", lost).unlink()
    kept = Path("out/stacks/two.mrcs").stat().st_mtime_ns
    assert extract(box="48") == 0
    assert {path: content(path) for path in files} == whole
    assert Path("out/stacks/two.mrcs").stat().st_mtime_ns == kept


def content(path):
    """Bytes without time stamps."""
    if path.suffix == ".mrcs":
        return path.read_bytes()[1024:]
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("value, expected", [(0.75, 24.0), (1.0, 32.0), (20.0, 20.0)])
def test_background_radius_is_a_fraction_or_pixels(value, expected):
    assert Settings(box=64, background_radius=value).radius == expected


@pytest.mark.parametrize("box, factor, expected", [
    (64, 1, 64), (64, 2, 32), (200, 3, 66), (180, 4, 46), (64, 1.01, 64),
])
def test_output_box_is_even_and_gives_the_scale(box, factor, expected):
    settings = Settings(box=box, factor=factor)
    assert settings.output_box == expected
    assert settings.scale == box / expected
