"""The two stages through the command line: files, picks, resume, thresholds, bad input."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.evaluate.picks import score_picks
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.models import load_model
from siamese2d_engine.io.star import read_star
from siamese2d_engine.picking import stage
from siamese2d_engine.picking.labels import class_prior

X, Y, SCORE, NAME = "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnMicrographName"
SHAPE = (200, 230)
# Quick training of a small network; particles are 20 pixels of 2 A wide, so nothing is resampled.
QUICK = ["--diameter", "40", "--network", "small", "--epochs", "4", "--steps", "10", "--crops", "1", "--windows", "8",
         "--learning-rate", "5e-3", "--threads", "1"]


def _micrograph(seed):
    """Dark blobs in noise; some lie at the border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SHAPE[0], :SHAPE[1]]
    centres = [(i * 46 + rng.uniform(0, 20), j * 44 + rng.uniform(0, 20)) for i in range(5) for j in range(5)
               if rng.random() < 0.7]
    image = rng.normal(100, 10, size=SHAPE)
    for x, y in centres:
        image -= 18 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.5 ** 2))
    return image.astype(np.float32), np.array(centres)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    truth = {}
    for i in range(6):
        image, truth[f"m{i}"] = _micrograph(i)
        write_mrc(folder / "mics" / f"m{i}.mrc", image, 2.0)
    rows = [(name, x, y) for name in ("m0", "m1", "m2", "m3") for x, y in truth[name][::2]]
    pd.DataFrame(rows, columns=["micrograph", "x", "y"]).to_csv(folder / "labels.csv", index=False)
    return folder, truth


def _train(folder, out, *more, labels=None):
    mics = [str(folder / "mics" / f"m{i}.mrc") for i in range(5)]
    return main(["train-picker", "--micrographs", *mics, "--coordinates", str(labels or folder / "labels.csv"),
                 "--out", str(out), *QUICK, *more])


def _pick(folder, model, out, *more):
    return main(["pick", "--micrographs", str(folder / "mics"), "--model", str(model / "picker.safetensors"),
                 "--out", str(out), "--threads", "1", *more])


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "train"
    assert _train(data[0], out, "--expected-particles", "18") == 0
    return out


@pytest.fixture(scope="module")
def picked(data, trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("picks") / "pick"
    assert _pick(data[0], trained, out) == 0
    return out


def _table(path):
    return next(iter(read_star(path).values())).astype({X: float, Y: float, SCORE: float})


def test_training_leaves_a_model_and_its_record(trained):
    record = json.loads((trained / "training.json").read_text())
    header, tensors = load_model(trained / "picker.safetensors", "picker")
    assert [e["epoch"] for e in record["epochs"]] == list(range(1, len(record["epochs"]) + 1))
    assert set(record["epochs"][0]) == {"epoch", "loss", "penalty", "held_out_average_precision"}
    assert record["prior"] == pytest.approx(class_prior(18, SHAPE[0] * SHAPE[1]), rel=1e-6)
    assert header["diameter"] == 40 and header["pixel_size"] == 2 and header["threshold"] == record["threshold"]
    assert record["precision_recall"] and set(record["precision_recall"][0]) == {"threshold", "precision", "recall"}
    assert not (trained / "checkpoint.pt").exists() and "head.weight" in tensors


def test_picks_of_an_unseen_micrograph_are_right(data, picked):
    table = _table(picked / "candidates.star")
    rows = table[table[NAME].str.contains("m5")]
    scores = score_picks([rows[[X, Y]].to_numpy()], [rows[SCORE].to_numpy()], [data[1]["m5"]], radius=6)
    assert scores.average_precision > 0.95 and scores.median_error < 1.5


def test_coordinates_are_the_candidates_above_the_threshold(trained, picked):
    threshold = json.loads((trained / "training.json").read_text())["threshold"]
    candidates, chosen = _table(picked / "candidates.star"), _table(picked / "coordinates.star")
    record = json.loads((picked / "picking.json").read_text())
    assert len(chosen) == (candidates[SCORE] >= threshold).sum() == record["particles"] < len(candidates)
    assert candidates[SCORE].between(stage.FLOOR, 1).all()
    assert [m["name"] for m in record["micrographs"]] == [f"m{i}" for i in range(6)]
    assert all(m["status"] == "finished" for m in record["micrographs"])


def test_no_particle_is_picked_twice(picked):
    for _, rows in _table(picked / "candidates.star").groupby(NAME):
        xy = rows[[X, Y]].to_numpy()
        distances = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)) + 1e9 * np.eye(len(xy))
        assert distances.min() >= 0.6 * 20 - 0.05


def test_another_threshold_only_filters(data, trained, picked, tmp_path, monkeypatch):
    out = tmp_path / "pick"
    shutil.copytree(picked, out)
    monkeypatch.setattr(stage, "find_candidates", lambda *args, **options: pytest.fail("scored again"))
    assert _pick(data[0], trained, out, "--threshold", "0.9") == 0
    chosen = _table(out / "coordinates.star")
    assert len(chosen) == (_table(picked / "candidates.star")[SCORE] >= 0.9).sum()
    assert json.loads((out / "run.json").read_text())["results"]["threshold"] == 0.9


def test_same_command_again_does_nothing(data, trained, picked):
    before = (picked / "coordinates.star").stat().st_mtime_ns
    assert _pick(data[0], trained, picked) == 0
    assert (picked / "coordinates.star").stat().st_mtime_ns == before


def test_killed_training_resumes_with_the_same_model(data, trained, tmp_path, monkeypatch):
    out = tmp_path / "train"
    report = stage._in_words

    def kill(record, *rest):
        report(record, *rest)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_in_words", kill)
    assert _train(data[0], out, "--expected-particles", "18") == 2
    assert not (out / "picker.safetensors").exists()
    monkeypatch.setattr(stage, "_in_words", report)
    assert _train(data[0], out, "--expected-particles", "18") == 0
    assert (out / "training.json").read_text() == (trained / "training.json").read_text()
    (_, mine), (_, other) = (load_model(f / "picker.safetensors", "picker") for f in (out, trained))
    assert all((mine[name] == other[name]).all() for name in other)


def test_killed_picking_resumes(data, trained, picked, tmp_path, monkeypatch):
    out, calls, find = tmp_path / "pick", [], stage.find_candidates

    def kill(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return find(*args, **options)

    monkeypatch.setattr(stage, "find_candidates", kill)
    assert _pick(data[0], trained, out) == 2
    assert not (out / "candidates.star").exists()
    assert _pick(data[0], trained, out) == 0
    assert len(calls) == 3 + 4
    assert (out / "candidates.star").read_text() == (picked / "candidates.star").read_text()


def test_damaged_micrograph_is_reported_skipped_and_tried_again(data, trained, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data[0], folder)
    (folder / "mics" / "m5.mrc").write_bytes(b"broken" * 100)
    assert _pick(folder, trained, tmp_path / "pick", "--pixel-size", "2") == 0
    record = json.loads((tmp_path / "pick" / "picking.json").read_text())
    assert [m["status"] for m in record["micrographs"]] == ["finished"] * 5 + ["failed"]
    assert "m5.mrc" in record["micrographs"][5]["message"]
    shutil.copy(data[0] / "mics" / "m5.mrc", folder / "mics")
    assert _pick(folder, trained, tmp_path / "pick", "--pixel-size", "2") == 0
    record = json.loads((tmp_path / "pick" / "picking.json").read_text())
    assert [m["status"] for m in record["micrographs"]] == ["finished"] * 6


def test_training_continues_from_a_model_and_estimates_the_number(data, trained, tmp_path):
    out = tmp_path / "train"
    assert _train(data[0], out, "--model", str(trained / "picker.safetensors"), "--epochs", "2", "--objective", "nnpu",
                  "--autoencoder", "0.1") == 0
    record = json.loads((out / "training.json").read_text())
    particles = np.mean([len(data[1][f"m{i}"]) for i in range(5)])
    assert record["expected_particles_estimated"]
    assert record["expected_particles"] == pytest.approx(particles, rel=0.35)
    assert record["epochs"][-1]["held_out_average_precision"] > 0.8


def test_few_labels_are_enough_to_run(data, tmp_path):
    labels = tmp_path / "few.csv"
    pd.read_csv(data[0] / "labels.csv").iloc[[0, 1, 10, 11, 20]].to_csv(labels, index=False)
    assert _train(data[0], tmp_path / "train", labels=labels) == 0
    record = json.loads((tmp_path / "train" / "training.json").read_text())
    assert record["held_out_labels"] == 0 and record["held_out_average_precision"] is None
    assert record["best_epoch"] == len(record["epochs"])


@pytest.mark.parametrize("content, more, words", [
    ("micrograph,x,y\n", [], "no coordinates"),
    ("micrograph,x,y\nm0,5000,10\n", [], "outside"),
    ("micrograph,x,y\nother,50,10\n", [], "belongs to these micrographs"),
    ("micrograph,x,y\nm0,50,10\n", ["--diameter", "4"], "at least 8"),
    ("micrograph,x,y\nm0,50,10\n", ["--diameter", "4000"], "more than this image"),
])
def test_unsuitable_labels_are_refused(data, tmp_path, capsys, content, more, words):
    labels = tmp_path / "labels.csv"
    labels.write_text(content)
    assert _train(data[0], tmp_path / "train", *more, labels=labels) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "train" / "picker.safetensors").exists()


def test_labels_of_other_micrographs_are_mentioned(data, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text((data[0] / "labels.csv").read_text() + "elsewhere,10,10\n")
    assert _train(data[0], tmp_path / "train", "--epochs", "1", labels=labels) == 0
    given = len(pd.read_csv(labels))
    assert f"1 of {given} coordinates belong to micrographs that were not given" in capsys.readouterr().out


def test_wrong_model_files_are_refused(data, trained, tmp_path, capsys):
    (tmp_path / "picker.safetensors").write_bytes(b"nonsense")
    assert _pick(data[0], tmp_path, tmp_path / "a") == 2
    assert "not a siamese2d model" in capsys.readouterr().err
    assert _pick(data[0], tmp_path / "nowhere", tmp_path / "b") == 2
    assert "does not exist" in capsys.readouterr().err


def test_wrong_pixel_size_is_noticed(data, trained, tmp_path, capsys):
    assert _pick(data[0], trained, tmp_path / "pick", "--pixel-size", "50") == 2
    assert "at least 8" in capsys.readouterr().err


def test_particles_of_two_sizes_may_lie_closer(tmp_path):
    rows, columns = np.mgrid[:SHAPE[0], :SHAPE[1]]
    labels = []
    for i in range(4):
        image = np.random.default_rng(i).normal(100, 10, size=SHAPE)
        # Pairs of small ones, nearer to each other than 0.6 diameters of the large ones.
        small = [(x, y) for x in (30, 40, 120, 130) for y in (40, 100, 160)]
        for x, y, width in [*((x, y, 2.2) for x, y in small), *((x, y, 4.5) for x in (80, 180) for y in (60, 140))]:
            image -= 40 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width ** 2))
            labels.append((f"m{i}", x, y))
        write_mrc(tmp_path / "mics" / f"m{i}.mrc", image.astype(np.float32), 2.0)
    pd.DataFrame(labels, columns=["micrograph", "x", "y"]).to_csv(tmp_path / "labels.csv", index=False)
    command = ["train-picker", "--micrographs", str(tmp_path / "mics"), "--coordinates", str(tmp_path / "labels.csv"),
               *QUICK, "--epochs", "6", "--diameter", "20", "40"]
    assert main([*command, "--out", str(tmp_path / "train")]) == 0
    header, _ = load_model(tmp_path / "train" / "picker.safetensors", "picker")
    assert header["diameter"] == 40 and header["smallest"] == 0.5
    assert _pick(tmp_path, tmp_path / "train", tmp_path / "pick") == 0
    table = _table(tmp_path / "pick" / "candidates.star")
    found = table[table[NAME].str.contains("m0")][[X, Y]].to_numpy()
    distances = np.hypot(*(found[:, None] - np.array(labels)[:16, 1:].astype(float)[None]).transpose(2, 0, 1))
    assert (distances.min(axis=0) < 4).all() and len(set(distances.argmin(axis=0))) == 16


def test_diameters_in_the_wrong_order_are_refused(data, tmp_path, capsys):
    assert _train(data[0], tmp_path / "train", "--diameter", "40", "20") == 2
    assert "the smallest and the largest" in capsys.readouterr().err
