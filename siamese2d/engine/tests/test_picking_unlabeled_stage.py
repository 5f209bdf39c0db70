"""``pick-unlabeled`` as a command: picks and truth, sizes, contrast, templates, thresholds, resume, bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.evaluate.picks import score_picks
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.star import read_star
from siamese2d_engine.picking import unlabeled_stage
from siamese2d_engine.picking.template_picker import learn_templates
from siamese2d_engine.picking.unlabeled_view import read_view

X, Y, SCORE, NAME = "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnMicrographName"
DIAMETER = "siamese2dDiameter"
SHAPE = (300, 320)
PIXEL_SIZE = 2.0


def micrograph(seed, sizes=(20.0,), shape=SHAPE):
    """Dark discs in noise, on a slope, beside a strip of carbon on the right and a dot of gold; and where they are."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    centres = [(x * 52 + rng.uniform(14, 38), y * 50 + rng.uniform(12, 36), rng.choice(sizes))
               for x in range(5) for y in range(6) if rng.random() < 0.6]
    image = rng.normal(100, 10, size=shape) + 0.02 * columns
    image[:, 270:] = 80 + 3 * (image[:, 270:] - 100)
    for x, y, size in centres:
        image -= 14 * np.clip(size / 2 - np.hypot(columns - x, rows - y), 0, 2) / 2
    image -= 150 * np.exp(-(np.hypot(columns - 264, rows - 290) / 2) ** 2)
    return image.astype(np.float32), np.array(centres)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, truth = tmp_path_factory.mktemp("data"), {}
    for i in range(4):
        image, truth[f"m{i}"] = micrograph(i)
        write_mrc(folder / "mics" / f"m{i}.mrc", image, PIXEL_SIZE)
    return folder, truth


def pick(folder, out, *more, diameter=("40",)):
    return main(["pick-unlabeled", "--micrographs", str(folder / "mics"), "--out", str(out), "--threads", "1",
                 "--diameter", *diameter, *more])


def table(path):
    return next(iter(read_star(path).values())).astype({X: float, Y: float, SCORE: float, DIAMETER: float})


def judged(path, truth, radius=6):
    rows = [table(path)[table(path)[NAME].str.contains(name)] for name in truth]
    return score_picks([r[[X, Y]].to_numpy() for r in rows], [r[SCORE].to_numpy() for r in rows],
                       [centres[:, :2] for centres in truth.values()], radius)


@pytest.fixture(scope="module")
def picked(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("picks") / "out"
    assert pick(data[0], out) == 0
    return out


def test_particles_are_found_beside_carbon_and_gold(data, picked):
    scores = judged(picked / "candidates.star", data[1])
    assert scores.average_precision > 0.97 and scores.median_error < 1
    chosen = judged(picked / "coordinates.star", data[1])
    assert chosen.best_f1 > 0.9


def test_record_and_tables_agree(picked):
    record = json.loads((picked / "picking.json").read_text())
    candidates, chosen = table(picked / "candidates.star"), table(picked / "coordinates.star")
    assert len(chosen) == (candidates[SCORE] >= record["threshold"]).sum() == record["particles"] < len(candidates)
    assert [m["name"] for m in record["micrographs"]] == [f"m{i}" for i in range(4)]
    assert sum(m["particles"] for m in record["micrographs"]) == len(chosen)
    assert (candidates[DIAMETER] == 40).all()


def test_no_particle_is_picked_twice(picked):
    for _, rows in table(picked / "candidates.star").groupby(NAME):
        xy = rows[[X, Y]].to_numpy()
        distances = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy))
        assert distances.min() >= 0.6 * 20 - 0.05


def test_inverted_micrographs_give_the_same_picks_as_bright_particles(data, picked, tmp_path):
    for i in range(4):
        write_mrc(tmp_path / "mics" / f"m{i}.mrc", 500 - micrograph(i)[0], PIXEL_SIZE)
    assert pick(tmp_path, tmp_path / "out", "--contrast", "bright") == 0
    mine, other = table(tmp_path / "out" / "coordinates.star"), table(picked / "coordinates.star")
    np.testing.assert_allclose(mine[[X, Y, SCORE]], other[[X, Y, SCORE]], atol=0.02)


def test_particles_of_two_sizes(tmp_path):
    truth = {}
    for i in range(4):
        image, truth[f"m{i}"] = micrograph(10 + i, sizes=(20.0, 34.0))
        write_mrc(tmp_path / "mics" / f"m{i}.mrc", image, PIXEL_SIZE)
    assert pick(tmp_path, tmp_path / "out", diameter=("40", "68")) == 0
    found = table(tmp_path / "out" / "coordinates.star")
    assert judged(tmp_path / "out" / "candidates.star", truth).average_precision > 0.9
    sizes = {20.0: [], 34.0: []}
    for name, centres in truth.items():
        rows = found[found[NAME].str.contains(name)]
        for x, y, size in centres:
            distance = np.hypot(rows[X] - x, rows[Y] - y)
            if distance.min() < 6:
                sizes[size].append(rows[DIAMETER].iloc[int(distance.argmin())])
    assert set(found[DIAMETER]) == {40.0, 52.15, 68.0}
    assert np.mean(sizes[20.0]) + 10 < np.mean(sizes[34.0])


def test_templates_find_what_they_show(data, tmp_path):
    rows, columns = np.mgrid[:32, :32] - 16
    write_mrc(tmp_path / "classes.mrcs", (np.hypot(rows, columns) <= 9)[None].astype(np.float32), PIXEL_SIZE)
    assert pick(data[0], tmp_path / "out", "--templates", str(tmp_path / "classes.mrcs")) == 0
    scores = judged(tmp_path / "out" / "candidates.star", data[1])
    assert scores.average_precision > 0.95 and scores.median_error < 1


def test_tiles_do_not_change_the_picks(data):
    rows, columns = np.mgrid[:32, :32] - 16
    template = (np.hypot(rows, columns) <= 9)[None].astype(np.float32)
    views = [read_view(data[0] / "mics" / "m0.mrc", PIXEL_SIZE, (40.0,), "dark")]
    picker = learn_templates(views, template, 1.0)
    whole, tiled = picker.pick(views[0]), replace(picker, tile=64).pick(views[0])
    assert len(whole) > 10
    np.testing.assert_allclose(tiled, whole, atol=1e-2)


def test_another_threshold_only_filters(data, picked, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(picked, out)
    monkeypatch.setattr(unlabeled_stage, "read_view", lambda *args: pytest.fail("scored again"))
    assert pick(data[0], out, "--threshold", "8") == 0
    assert len(table(out / "coordinates.star")) == (table(picked / "candidates.star")[SCORE] >= 8).sum()
    assert pick(data[0], out) == 0
    assert (out / "coordinates.star").read_text() == (picked / "coordinates.star").read_text()


def test_same_command_again_does_nothing(data, picked):
    before = (picked / "coordinates.star").stat().st_mtime_ns
    assert pick(data[0], picked) == 0
    assert (picked / "coordinates.star").stat().st_mtime_ns == before


def test_killed_run_continues_to_the_same_result(data, picked, tmp_path, monkeypatch):
    out, calls, read = tmp_path / "out", [], unlabeled_stage.read_view

    def kill(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return read(*args)

    monkeypatch.setattr(unlabeled_stage, "read_view", kill)
    assert pick(data[0], out) == 2
    assert not (out / "candidates.star").exists()
    assert pick(data[0], out) == 0
    # Four to learn from, four to pick, one of which was the one that was stopped.
    assert len(calls) == 4 + 4 + 1
    assert (out / "candidates.star").read_text() == (picked / "candidates.star").read_text()


def test_damaged_micrograph_is_reported_skipped_and_tried_again(data, tmp_path):
    shutil.copytree(data[0] / "mics", tmp_path / "mics")
    (tmp_path / "mics" / "m1.mrc").write_bytes(b"broken" * 100)
    assert pick(tmp_path, tmp_path / "out", "--pixel-size", "2") == 0
    record = json.loads((tmp_path / "out" / "picking.json").read_text())
    assert [m["status"] for m in record["micrographs"]] == ["finished", "failed", "finished", "finished"]
    assert "m1.mrc" in record["micrographs"][1]["message"]
    shutil.copy(data[0] / "mics" / "m1.mrc", tmp_path / "mics")
    assert pick(tmp_path, tmp_path / "out", "--pixel-size", "2") == 0
    record = json.loads((tmp_path / "out" / "picking.json").read_text())
    assert {m["status"] for m in record["micrographs"]} == {"finished"}


def test_noise_and_small_images_do_no_harm(tmp_path):
    write_mrc(tmp_path / "mics" / "a.mrc", np.random.default_rng(0).normal(size=(50, 60)), PIXEL_SIZE)
    write_mrc(tmp_path / "mics" / "b.mrc", np.random.default_rng(1).normal(size=(40, 40)), PIXEL_SIZE)
    assert pick(tmp_path, tmp_path / "out", "--threshold", "99") == 0
    assert json.loads((tmp_path / "out" / "picking.json").read_text())["particles"] == 0


@pytest.mark.parametrize("diameter, more, words", [
    (("4",), [], "at least 8"),
    (("4000",), [], "more than this image"),
    (("60", "40"), [], "the smallest comes first"),
    (("40", "50", "60"), [], "one number, or two"),
    (("40", "60"), ["--templates", "TEMPLATES"], "one --diameter"),
    (("80",), ["--templates", "TEMPLATES"], "smaller than --diameter"),
])
def test_unsuitable_settings_are_refused(data, tmp_path, capsys, diameter, more, words):
    write_mrc(tmp_path / "templates.mrcs", np.random.default_rng(0).normal(size=(1, 32, 32)), PIXEL_SIZE)
    more = [str(tmp_path / "templates.mrcs") if part == "TEMPLATES" else part for part in more]
    assert pick(data[0], tmp_path / "out", *more, diameter=diameter) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "coordinates.star").exists()
