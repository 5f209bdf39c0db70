"""Assignment end to end: planted classes and poses of new particles are found, and what fits nowhere is set apart."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import affine_transform

from siamese2d_engine.classify import assign_stage
from siamese2d_engine.classify.assign_stage import Settings, assign_particles
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import read_particles, write_particles
from siamese2d_engine.io.star import read_star, write_star
from siamese2d_engine.runs import Run

BOX, PIXEL, CPU = 40, 4.0, torch.device("cpu")
N, VIEWS, WIDTH = 90, 3, 1.8
NUMBERS = [4, 2, 9]


def blobs():
    """Blobs of each view: positions (views, 6, 2) in pixels and amplitudes (views, 6)."""
    rng = np.random.default_rng(7)
    return rng.uniform(-8, 8, (VIEWS, 6, 2)), rng.uniform(0.5, 1.5, (VIEWS, 6))


def draw(centres, amplitudes, box=BOX, scale=1.0):
    """Image of Gaussian blobs; `scale` new pixels are one old pixel."""
    y, x = np.mgrid[:box, :box] - box // 2
    squared = (x - scale * centres[:, 0, None, None]) ** 2 + (y - scale * centres[:, 1, None, None]) ** 2
    return (amplitudes[:, None, None] * np.exp(-squared / (2 * (scale * WIDTH) ** 2))).sum(0)


def plant(n, noise, seed=0):
    """Noisy images of the views with random rotations, shifts and mirrors, their views, and where their blobs lie."""
    rng = np.random.default_rng(seed)
    centres, amplitudes = blobs()
    view = np.arange(n) % VIEWS
    angle, shift, mirrored = rng.uniform(-np.pi, np.pi, n), rng.uniform(-2, 2, (n, 2)), rng.random(n) < 0.5
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
    placed = centres[view] * np.where(mirrored, -1, 1)[:, None, None] ** np.array([1, 0])
    placed = np.einsum("nab,npb->npa", turn, placed) + shift[:, None]
    images = np.stack([draw(p, a) for p, a in zip(placed, amplitudes[view])])
    return images + noise * rng.normal(size=images.shape), view, placed


def write_set(folder, images, pixel_size=PIXEL):
    folder.mkdir(parents=True, exist_ok=True)
    write_mrc(folder / "stack.mrcs", images, pixel_size)
    table = pd.DataFrame({"rlnImageName": [f"{i:06d}@stack.mrcs" for i in range(1, len(images) + 1)],
                          "rlnOpticsGroup": 1, "siamese2dItemId": np.arange(len(images)) * 3 + 5})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"], "rlnImagePixelSize": [pixel_size]})
    write_particles(folder / "particles.star", table, optics)
    return folder / "particles.star"


def write_averages(folder, images, pixel_size=PIXEL, numbers=NUMBERS, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    write_mrc(folder / "averages.mrcs", np.asarray(images), pixel_size)
    names = [f"{i:06d}@averages.mrcs" for i in range(1, len(images) + 1)]
    table = pd.DataFrame({"rlnReferenceImage": names, "rlnClassNumber": numbers[:len(images)], **columns})
    write_star(folder / "classes.star", {"classes": table})
    return folder / "classes.star"


def views(**options):
    return np.stack([draw(c, a, **options) for c, a in zip(*blobs())])


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Particles, and the averages of their views in another scale."""
    folder = tmp_path_factory.mktemp("given")
    images, view, placed = plant(N, 0.5)
    return {"star": write_set(folder / "particles", images), "images": images, "view": view, "placed": placed,
            "classes": write_averages(folder / "classes", 17 * views(), rlnEstimatedResolution=[12.5, 13.5, 14.5],
                                      siamese2dQuality=[0.5, 0.6, 0.7])}


def assign(star, classes, out, calibration=None, **settings):
    with Run(out, "assign", settings, [star, classes]) as run:
        assign_particles(run, star, read_particles(star), classes, calibration, Settings(**settings), CPU)
    return run


@pytest.fixture(scope="module")
def finished(given, tmp_path_factory):
    out = tmp_path_factory.mktemp("assign") / "out"
    return out, assign(given["star"], given["classes"], out)


def particles_of(out):
    return read_star(out / "particles.star")["particles"]


def placed_in_class(given, table):
    psi = np.radians(table["rlnAnglePsi"].to_numpy())
    origin = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / PIXEL
    turn = np.stack([np.stack([np.cos(psi), -np.sin(psi)], 1), np.stack([np.sin(psi), np.cos(psi)], 1)], 1)
    aligned = np.einsum("nab,npb->npa", turn, given["placed"] + origin[:, None])
    aligned[table["rlnIsFlip"].to_numpy() == 1, :, 0] *= -1
    return aligned


def test_particles_get_the_number_of_their_view(given, finished):
    table = particles_of(finished[0])
    assert (table["siamese2dItemId"] == np.arange(N) * 3 + 5).all()
    assert table["rlnClassNumber"].tolist() == [NUMBERS[view] for view in given["view"]]
    assert table["rlnMaxValueProbDistribution"].between(0.9, 1).all()
    assert (table["siamese2dFit"] > 5).all()


def test_poses_put_particles_onto_the_given_averages(given, finished):
    """Not only onto each other: the frame of the class stays."""
    error = placed_in_class(given, particles_of(finished[0])) - blobs()[0][given["view"]]
    assert np.sqrt((error ** 2).sum(-1).mean()) < 0.5          # pixels
    assert np.abs(error.mean((0, 1))).max() < 0.1


def test_parts_with_one_calibration_are_assigned_as_the_whole(given, finished, tmp_path):
    whole = particles_of(finished[0])
    star = write_set(tmp_path / "in", given["images"][:30])
    assign(star, given["classes"], tmp_path / "out", finished[0] / "calibration.safetensors")
    part, same = particles_of(tmp_path / "out"), whole[whole["siamese2dItemId"] < 30 * 3 + 5]
    assert part["rlnClassNumber"].tolist() == same["rlnClassNumber"].tolist()
    for column, tolerance in (("rlnAnglePsi", 1e-3), ("rlnOriginXAngst", 1e-4), ("siamese2dFit", 1e-3)):
        np.testing.assert_allclose(part[column], same[column], atol=tolerance)
    # Measured on its own, the noise is another.
    assign(star, given["classes"], tmp_path / "alone")
    alone = particles_of(tmp_path / "alone")["siamese2dFit"].to_numpy()
    assert np.abs(alone - same["siamese2dFit"].to_numpy()).max() > 0.01


def test_calibration_of_other_images_is_refused(given, finished, tmp_path):
    with pytest.raises(InputError, match="calibration.safetensors: made with images, a mask or a resolution"):
        assign(given["star"], given["classes"], tmp_path / "out", finished[0] / "calibration.safetensors",
               max_resolution=30.0)
    with pytest.raises(InputError, match="nowhere"):
        assign(given["star"], given["classes"], tmp_path / "other", tmp_path / "nowhere")


def test_clean_particles_are_placed_exactly(given, tmp_path):
    images, view, placed = plant(12, 1e-3, seed=3)
    assign(write_set(tmp_path / "in", images), given["classes"], tmp_path / "out")
    error = placed_in_class({"placed": placed}, particles_of(tmp_path / "out")) - blobs()[0][view]
    assert np.sqrt((error ** 2).sum(-1)).max() < 0.15


def test_averages_themselves_stay_where_they_are(given, tmp_path):
    assign(write_set(tmp_path / "in", views()), given["classes"], tmp_path / "out")
    table = particles_of(tmp_path / "out")
    assert table["rlnClassNumber"].tolist() == NUMBERS and (table["rlnIsFlip"] == 0).all()
    assert np.abs(table["rlnAnglePsi"]).max() < 1
    assert np.abs(table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy()).max() < 0.1 * PIXEL


def test_written_transforms_re_average_to_the_classes(given, finished):
    table = particles_of(finished[0])
    averages = mrcfile.read(finished[0] / "classes.mrcs")
    centre = BOX // 2
    inside = np.hypot(*(np.mgrid[:BOX, :BOX] - centre)) < 14
    for place, number in enumerate(NUMBERS):
        total = np.zeros((BOX, BOX))
        for row in np.flatnonzero(table["rlnClassNumber"] == number):
            psi = np.radians(table["rlnAnglePsi"][row])
            origin = np.array([table["rlnOriginXAngst"][row], table["rlnOriginYAngst"][row]]) / PIXEL
            forward = np.array([[np.cos(psi), -np.sin(psi)], [np.sin(psi), np.cos(psi)]])
            if table["rlnIsFlip"][row]:
                forward = np.diag([-1, 1]) @ forward
            back = np.linalg.inv(forward)
            # affine_transform wants input = matrix @ output + offset with (row, column) = (y, x).
            matrix = back[::-1, ::-1]
            offset = centre - matrix @ [centre, centre] - origin[::-1]
            total += affine_transform(given["images"][row], matrix, offset, order=3)
        assert np.corrcoef(total[inside], averages[place][inside])[0, 1] > 0.95


def test_tables_of_the_given_classes(given, finished):
    out, run = finished
    classes = read_star(out / "classes.star")["classes"]
    assert classes["rlnClassNumber"].tolist() == NUMBERS
    assert classes["siamese2dClassSize"].tolist() == [N // VIEWS] * VIEWS
    assert classes["rlnEstimatedResolution"].tolist() == [12.5, 13.5, 14.5]
    assert classes["siamese2dQuality"].tolist() == [0.5, 0.6, 0.7]
    np.testing.assert_allclose(mrcfile.read(out / "classes.mrcs"), 17 * views(), rtol=1e-5, atol=1e-5)
    record = json.loads((out / "classification.json").read_text())
    assert record["frc"] == [] and record["history"][0]["classes"] == VIEWS
    assert run.results == {"particles": N, "set_apart": 0, "classes": VIEWS}
    assert not (out / assign_stage.BLOCKS).exists()


def test_new_averages_are_those_of_the_members(given, tmp_path):
    assign(given["star"], given["classes"], tmp_path / "out", new_averages=True)
    inside = np.hypot(*(np.mgrid[:BOX, :BOX] - BOX // 2)) < 14
    for average, view in zip(mrcfile.read(tmp_path / "out" / "classes.mrcs"), views()):
        assert np.corrcoef(average[inside], view[inside])[0, 1] > 0.95
    assert read_star(tmp_path / "out" / "classes.star")["classes"]["rlnEstimatedResolution"].between(8, 40).all()
    frc = json.loads((tmp_path / "out" / "classification.json").read_text())["frc"]
    assert [curve["class"] for curve in frc] == NUMBERS


def test_killed_run_continues_with_the_same_answer(given, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(assign_stage, "BLOCK", 32)
    real, calls = assign_stage._Found.save, []

    def save_then_die(found, path):
        real(found, path)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(assign_stage._Found, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        assign(given["star"], given["classes"], tmp_path / "out")
    assign(given["star"], given["classes"], tmp_path / "out")
    assert len(set(calls)) == len(calls) == 3
    pd.testing.assert_frame_equal(particles_of(tmp_path / "out"), particles_of(finished[0]), rtol=1e-3, atol=1e-3)


def test_a_stack_of_averages_is_numbered_from_1(given, tmp_path):
    run = assign(given["star"], given["classes"].parent / "averages.mrcs", tmp_path / "out")
    assert particles_of(tmp_path / "out")["rlnClassNumber"].tolist() == [view + 1 for view in given["view"]]
    assert "rlnEstimatedResolution" not in read_star(tmp_path / "out" / "classes.star")["classes"]
    assert any("no CTF" in warning for warning in run.warnings)


@pytest.mark.parametrize("box, scale", [(60, 1.5), (30, 0.75), (48, 1.0), (41, 1.0)])
def test_averages_of_another_box_and_pixel_size(given, tmp_path, box, scale):
    classes = write_averages(tmp_path / "classes", views(box=box, scale=scale), PIXEL / scale)
    run = assign(given["star"], classes, tmp_path / "out")
    table = particles_of(tmp_path / "out")
    assert (table["rlnClassNumber"] == np.array(NUMBERS)[given["view"]]).mean() > 0.97
    error = placed_in_class(given, table) - blobs()[0][given["view"]]
    assert np.sqrt(np.median((error ** 2).sum(-1))) < 0.5
    assert any("resampled" in warning for warning in run.warnings)
    np.testing.assert_allclose(mrcfile.read(tmp_path / "out" / "classes.mrcs"), views(), atol=0.02)


def test_without_mirrors_no_particle_is_flipped(given, tmp_path):
    assign(given["star"], given["classes"], tmp_path / "out", mirror=False)
    assert (particles_of(tmp_path / "out")["rlnIsFlip"] == 0).all()


def test_an_empty_average_keeps_its_number_and_gets_nothing(given, tmp_path):
    images = views()
    images[1] = 0
    assign(given["star"], write_averages(tmp_path / "classes", images), tmp_path / "out")
    classes = read_star(tmp_path / "out" / "classes.star")["classes"]
    assert classes["rlnClassNumber"].tolist() == NUMBERS and classes["siamese2dClassSize"][1] == 0
    assert set(particles_of(tmp_path / "out")["rlnClassNumber"]) == {NUMBERS[0], NUMBERS[2]}


def test_bad_particles_are_set_apart(given, tmp_path):
    images = given["images"][:20].copy()
    images[3, 5, 5] = np.nan
    images[11] = 2.0
    run = assign(write_set(tmp_path / "in", images), given["classes"], tmp_path / "out")
    table, apart = particles_of(tmp_path / "out"), read_star(tmp_path / "out" / "set_apart.star")["particles"]
    assert len(table) == 18 and apart["siamese2dItemId"].tolist() == [14, 38]
    assert apart["siamese2dReason"].tolist() == ["not_finite", "constant"]
    assert any("2 of 20" in warning for warning in run.warnings)


def test_noise_and_blots_are_set_apart_and_all_rows_are_kept(given, tmp_path):
    rng = np.random.default_rng(5)
    images, view, _ = plant(400, 1.0, seed=9)
    images[:80] = rng.normal(size=(80, BOX, BOX))
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    images[80:100] += 3 * np.exp(-((x - 9) ** 2 + (y + 7) ** 2) / 50)
    run = assign(write_set(tmp_path / "in", images), given["classes"], tmp_path / "out")
    kept, apart = particles_of(tmp_path / "out"), read_star(tmp_path / "out" / "set_apart.star")["particles"]
    assert len(kept) + len(apart) == 400
    reasons = dict(zip((apart["siamese2dItemId"] - 5) // 3, apart["siamese2dReason"]))
    assert sum(reasons.get(row) == "matches_no_class" for row in range(80)) > 70
    assert sum(reasons.get(row) == "unlike_others" for row in range(80, 100)) > 15
    assert sum(row >= 100 for row in reasons) < 8
    assert apart["rlnClassNumber"].isin(NUMBERS).all()
    assert any("fit nowhere" in warning for warning in run.warnings)

    assign(tmp_path / "in" / "particles.star", given["classes"], tmp_path / "all", set_apart=False)
    assert len(particles_of(tmp_path / "all")) == 400


def test_nearly_nothing_is_set_apart_where_nothing_is_wrong(given, tmp_path):
    images, _, _ = plant(600, 1.0, seed=11)
    assign(write_set(tmp_path / "in", images), given["classes"], tmp_path / "out")
    assert len(particles_of(tmp_path / "out")) > 590


def test_all_particles_bad_is_an_error(given, tmp_path):
    with pytest.raises(InputError, match="All 3 particles are constant"):
        assign(write_set(tmp_path / "in", np.ones((3, BOX, BOX))), given["classes"], tmp_path / "out")


@pytest.mark.parametrize("images, pixel_size, settings, message", [
    (np.zeros((2, BOX, BOX)), PIXEL, {}, "all averages are empty"),
    (np.full((2, BOX, BOX), np.nan), PIXEL, {}, "average of class 4 holds values that are not finite"),
    (np.eye(24)[None], PIXEL, {}, "less than the mask"),
    (np.ones((1, BOX, BOX - 2)), PIXEL, {}, "not square"),
    (np.eye(BOX)[None], PIXEL, {"mask_diameter": 500.0}, "larger than the box"),
    (np.eye(BOX)[None], PIXEL, {"max_resolution": 150.0}, "too coarse"),
])
def test_averages_and_settings_that_do_not_fit(given, tmp_path, images, pixel_size, settings, message):
    with pytest.raises(InputError, match=message):
        assign(given["star"], write_averages(tmp_path / "classes", images, pixel_size), tmp_path / "out", **settings)


def test_pixel_size_of_the_averages_must_be_known(given, tmp_path):
    path = tmp_path / "averages.mrcs"
    write_mrc(path, views(), PIXEL)
    with mrcfile.open(path, mode="r+") as mrc:
        mrc.header.cella = (0, 0, 0)
    with pytest.raises(InputError, match="--classes-pixel-size"):
        assign(given["star"], path, tmp_path / "out")
    assign(given["star"], path, tmp_path / "known", classes_pixel_size=PIXEL)
    assert len(particles_of(tmp_path / "known")) == N


def test_two_classes_with_one_number(given, tmp_path):
    with pytest.raises(InputError, match="differ from class to class"):
        assign(given["star"], write_averages(tmp_path / "classes", views(), numbers=[1, 1, 2]), tmp_path / "out")
