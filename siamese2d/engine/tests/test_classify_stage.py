"""Classification end to end: planted classes and poses are found, and the written transforms re-average to the
classes."""

import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import affine_transform

from siamese2d_engine.classify import schedule, stage
from siamese2d_engine.classify.stage import Settings, classify_particles, number_of_classes, number_of_fine_classes
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import read_particles, write_particles
from siamese2d_engine.io.star import read_star
from siamese2d_engine.runs import Run

BOX, PIXEL, CPU = 40, 4.0, torch.device("cpu")
N, VIEWS = 120, 3


def templates():
    """Blobs of each view: positions (views, 6, 2) in pixels and amplitudes (views, 6)."""
    rng = np.random.default_rng(7)
    return rng.uniform(-8, 8, (VIEWS, 6, 2)), rng.uniform(0.5, 1.5, (VIEWS, 6))


def draw(centres, amplitudes):
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    squared = (x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2
    return (amplitudes[:, None, None] * np.exp(-squared / (2 * 1.8**2))).sum(0)


def write_set(folder, images, **columns):
    folder.mkdir(parents=True, exist_ok=True)
    write_mrc(folder / "stack.mrcs", images, PIXEL)
    table = pd.DataFrame({"rlnImageName": [f"{i:06d}@stack.mrcs" for i in range(1, len(images) + 1)],
                          "rlnOpticsGroup": 1, "siamese2dItemId": np.arange(len(images)) * 3 + 5, **columns})
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["a"], "rlnImagePixelSize": [PIXEL]})
    write_particles(folder / "particles.star", table, optics)
    return folder / "particles.star"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Noisy particles of three views with random rotations, shifts and mirrors, and where their blobs lie."""
    rng = np.random.default_rng(0)
    centres, amplitudes = templates()
    view = np.arange(N) % VIEWS
    angle, shift, mirrored = rng.uniform(-np.pi, np.pi, N), rng.uniform(-2, 2, (N, 2)), rng.random(N) < 0.5
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
    placed = centres[view] * np.where(mirrored, -1, 1)[:, None, None] ** np.array([1, 0])
    placed = np.einsum("nab,npb->npa", turn, placed) + shift[:, None]
    images = np.stack([draw(p, a) for p, a in zip(placed, amplitudes[view])])
    images += 0.5 * rng.normal(size=images.shape)
    star = write_set(tmp_path_factory.mktemp("planted"), images)
    return {"star": star, "view": view, "placed": placed, "images": images}


def classify(star, out, model=None, **settings):
    with Run(out, "classify", settings, [star]) as run:
        classify_particles(run, star, read_particles(star), Settings(**settings), model, CPU)
    return run


@pytest.fixture(scope="module")
def finished(planted, tmp_path_factory):
    out = tmp_path_factory.mktemp("classify") / "out"
    return out, classify(planted["star"], out, classes=VIEWS)


def particles_of(out):
    return read_star(out / "particles.star")["particles"]


def test_views_become_classes(planted, finished):
    table = particles_of(finished[0])
    assert len(table) == N
    assert (table["siamese2dItemId"] == np.arange(N) * 3 + 5).all()
    for number in range(1, VIEWS + 1):
        members = planted["view"][table["rlnClassNumber"] == number]
        assert len(members) == N // VIEWS and len(set(members)) == 1
    assert (table["rlnMaxValueProbDistribution"].between(0.9, 1)).all()


def test_views_become_classes_where_poses_are_unsure(planted, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "SURE", 1.1)
    classify(planted["star"], tmp_path / "out", classes=VIEWS)
    history = json.loads((tmp_path / "out" / "classification.json").read_text())["history"]
    # Fine classes were made and grouped in each round.
    numbers = [record["classes"] for record in history]
    assert max(numbers) == 3 * VIEWS
    assert sum(b < a for a, b in zip(numbers, numbers[1:])) == schedule.Recipe.unsure_rounds
    table = particles_of(tmp_path / "out")
    for number in range(1, VIEWS + 1):
        members = planted["view"][table["rlnClassNumber"] == number]
        assert len(members) == N // VIEWS and len(set(members)) == 1


def test_planted_rotations_and_shifts_are_recovered(planted, finished):
    table = particles_of(finished[0])
    psi = np.radians(table["rlnAnglePsi"].to_numpy())
    origin = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() / PIXEL
    turn = np.stack([np.stack([np.cos(psi), -np.sin(psi)], 1), np.stack([np.sin(psi), np.cos(psi)], 1)], 1)
    aligned = np.einsum("nab,npb->npa", turn, planted["placed"] + origin[:, None])
    aligned[table["rlnIsFlip"].to_numpy() == 1, :, 0] *= -1
    for view in range(VIEWS):
        members = aligned[planted["view"] == view]
        scatter = np.sqrt(((members - members.mean(0)) ** 2).sum(-1).mean())
        assert scatter < 0.5          # pixels, blobs of one view meet within this


def test_written_transforms_re_average_to_the_classes(planted, finished):
    out = finished[0]
    table = particles_of(out)
    averages = mrcfile.read(out / "classes.mrcs")
    centre = BOX // 2
    inside = np.hypot(*(np.mgrid[:BOX, :BOX] - centre)) < 14
    for number in range(1, VIEWS + 1):
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
            total += affine_transform(planted["images"][row], matrix, offset, order=3)
        correlation = np.corrcoef(total[inside], averages[number - 1][inside])[0, 1]
        assert correlation > 0.96


def test_tables_agree(finished):
    out, run = finished
    classes = read_star(out / "classes.star")["classes"]
    sizes = particles_of(out)["rlnClassNumber"].value_counts().sort_index()
    assert classes["siamese2dClassSize"].tolist() == sizes.tolist() == sorted(sizes, reverse=True)
    assert classes["rlnClassDistribution"].sum() == pytest.approx(1, abs=1e-5)
    assert classes["rlnEstimatedResolution"].between(2 * PIXEL, 25).all()
    assert classes["siamese2dQuality"].between(0.3, 1).all()
    record = json.loads((out / "classification.json").read_text())
    assert record["history"][-1]["classes"] == VIEWS
    assert len(record["frc"]) == VIEWS and len(record["frc"][0]["frc"]) == BOX // 2
    assert record["frc"][0]["frequency"][-1] == pytest.approx(0.5 / PIXEL)
    assert run.results["classes"] == VIEWS
    assert any("no CTF" in warning for warning in run.warnings)
    assert not (out / stage.STATE).exists()


def test_killed_run_continues_with_the_same_answer(planted, finished, tmp_path, monkeypatch):
    real, calls = stage.save_state, []

    def save_then_die(path, state):
        real(path, state)
        calls.append(state.step)
        if len(calls) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "save_state", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        classify(planted["star"], tmp_path / "out", classes=VIEWS)
    monkeypatch.setattr(stage, "save_state", real)
    classify(planted["star"], tmp_path / "out", classes=VIEWS)
    pd.testing.assert_frame_equal(particles_of(tmp_path / "out"), particles_of(finished[0]))


def test_samples_in_a_file_give_the_same_answer(planted, finished, tmp_path):
    classify(planted["star"], tmp_path / "out", classes=VIEWS, memory=1e-6)
    pd.testing.assert_frame_equal(particles_of(tmp_path / "out"), particles_of(finished[0]))
    assert not (tmp_path / "out" / stage.SAMPLES).exists()


def test_without_mirrors_no_particle_is_flipped(planted, tmp_path):
    classify(planted["star"], tmp_path / "out", classes=2 * VIEWS, mirror=False)
    assert (particles_of(tmp_path / "out")["rlnIsFlip"] == 0).all()


@pytest.mark.parametrize("mirror", [True, False])
def test_the_curve_is_that_of_the_last_fine_classes(planted, tmp_path, mirror):
    """Also where mirror images are told apart later, and there are more classes again."""
    classify(planted["star"], tmp_path / "out", classes=8, fine_classes=24, mirror=mirror)
    report = json.loads((tmp_path / "out" / "classification.json").read_text())
    numbers = [row["classes"] for row in report["history"]]
    fine = [before for before, after in zip(numbers, numbers[1:]) if after < before]
    assert len(fine) > 1 and report["grouping"][-1]["k"] == fine[-1]


def test_bad_particles_are_set_apart(planted, tmp_path):
    images = planted["images"][:20].copy()
    images[3, 5, 5] = np.nan
    images[11] = 2.0
    star = write_set(tmp_path / "in", images)
    run = classify(star, tmp_path / "out", classes=2)
    table, apart = particles_of(tmp_path / "out"), read_star(tmp_path / "out" / "set_apart.star")["particles"]
    assert len(table) == 18 and apart["siamese2dItemId"].tolist() == [14, 38]
    assert apart["siamese2dReason"].tolist() == ["not_finite", "constant"]
    assert any("2 of 20" in warning for warning in run.warnings)
    # The image paths hold from the working directory, though the table lies in another folder.
    assert len(read_particles(tmp_path / "out" / "particles.star").images.read([0])) == 1


def test_all_particles_bad_is_an_error(tmp_path):
    star = write_set(tmp_path / "in", np.ones((3, BOX, BOX)))
    with pytest.raises(InputError, match="All 3 particles are constant"):
        classify(star, tmp_path / "out", classes=1)


def test_more_classes_than_particles_is_an_error(planted, tmp_path):
    with pytest.raises(InputError, match="more classes than particles"):
        classify(planted["star"], tmp_path / "out", classes=N + 1)


def test_one_particle(planted, tmp_path):
    classify(write_set(tmp_path / "in", planted["images"][:1]), tmp_path / "out")
    assert particles_of(tmp_path / "out")["rlnClassNumber"].tolist() == [1]


def test_identical_particles(planted, tmp_path):
    classify(write_set(tmp_path / "in", np.repeat(planted["images"][:1], 12, axis=0)), tmp_path / "out", classes=3)
    table = particles_of(tmp_path / "out")
    assert len(table) == 12
    assert np.isfinite(table[["rlnAnglePsi", "rlnOriginXAngst", "rlnMaxValueProbDistribution"]].to_numpy(float)).all()


@pytest.mark.parametrize("settings, message", [
    ({"mask_diameter": 500.0}, "larger than the box"),
    ({"mask_diameter": 5.0}, "only"),
    ({"max_resolution": 150.0}, "too coarse"),
])
def test_settings_that_do_not_fit(planted, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        classify(planted["star"], tmp_path / "out", classes=2, **settings)


def test_default_number_of_fine_classes():
    assert number_of_fine_classes(5000, 50, None) == 250
    # Twelve particles each, two or more for each final class, else none.
    assert number_of_fine_classes(5000, 100, None) == 416
    assert number_of_fine_classes(5000, 208, None) == 416 and number_of_fine_classes(5000, 209, None) == 0
    assert number_of_fine_classes(5000, 1, None) == 0
    assert number_of_fine_classes(5000, 50, 0) == 0 and number_of_fine_classes(100, 50, 200) == 100


def test_default_number_of_classes():
    assert [number_of_classes(n, None) for n in (1, 20, 1700, 5000, 10**6)] == [1, 4, 17, 50, 100]


def test_embedding_clusters_are_the_starting_classes(planted, tmp_path, monkeypatch):
    vectors = np.eye(VIEWS, dtype=np.float32)[planted["view"]]
    monkeypatch.setattr(stage, "embed", lambda *args, **kwargs: vectors)
    run = Run(tmp_path, "classify", {})
    labels = stage.starting_labels(run, tmp_path / "m", read_particles(planted["star"]), VIEWS, 0, CPU)
    for cluster in range(VIEWS):
        assert len(set(planted["view"][labels.numpy() == cluster])) == 1
