"""The stage ``train`` and its command: outputs in each mode, resuming, models used again, bad input."""

import json

import numpy as np
import pytest
import torch
from test_embedding_prepare import blobs, particle_set

from siamese2d_engine.cli.main import main
from siamese2d_engine.devices import set_threads
from siamese2d_engine.embedding import centring_network, inference, stage, training
from siamese2d_engine.embedding.elbow import elbow
from siamese2d_engine.embedding.inference import embed, load_embedding_model
from siamese2d_engine.embedding.prepare import rotate
from siamese2d_engine.embedding.settings import default_epochs
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.models import save_model
from siamese2d_engine.io.particles import read_particles

WIDTH = 24
SPECIES = [[(0, 0), (5, 0)], [(-4, -3), (4, -3), (0, 5)], [(-6, 0), (6, 0), (0, 0), (0, 6)]]
QUICK = ("--working-box", "16", "--dimensions", "6", "--batch-size", "16", "--threads", "1")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Little training of the centring; the number of threads is put back."""
    monkeypatch.setattr(centring_network, "STEPS", 20)
    monkeypatch.setattr(centring_network, "BATCH", 32)
    before = torch.get_num_threads()
    yield
    set_threads(before)


def draw(n=60, seed=0, noise=0.4, scale=1.0, width=WIDTH):
    """Images of three shapes in random rotations, and which shape each is."""
    generator = torch.Generator().manual_seed(seed)
    species = torch.arange(n) % 3
    shapes = torch.stack([blobs(width, [(x * scale, y * scale) for x, y in c], 2.0 * scale) for c in SPECIES])
    angles = 2 * torch.pi * torch.rand(n, generator=generator)
    images = rotate(shapes[species], angles, torch.zeros(n, dtype=torch.bool))
    return images + noise * torch.randn(images.shape, generator=generator), species.numpy()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, species = draw()
    particle_set(tmp_path, images, rlnClassNumber=species + 1)
    return tmp_path


def train(*arguments, out="out"):
    return main(["train", "--particles", "particles.star", "--out", out, *QUICK, *arguments])


def record(out="out"):
    with open(f"{out}/training.json") as stream:
        return json.load(stream)


@pytest.mark.parametrize("mode, network, rounds", [
    ("self-supervised", "steerable", 1), ("self-supervised", "original", 1), ("contrastive", "original", 2),
    ("contrastive", "steerable", 2), ("triplet", "steerable", 1),
])
def test_every_mode_writes_what_is_documented(folder, mode, network, rounds):
    assert train("--mode", mode, "--network", network, "--epochs", "2", "--rounds", "2", "--classes", "3") == 0
    content = record()
    assert (content["mode"], content["network"]) == (mode, network)
    expected = [(r, e) for r in range(1, rounds + 1) for e in (1, 2)]
    assert [(e["round"], e["epoch"]) for e in content["epochs"]] == expected
    assert all(np.isfinite(e["loss"]) and np.isfinite(e["validation_loss"]) for e in content["epochs"])
    assert content["best_epoch"] in (1, 2)
    assert [row["k"] for row in content["elbow"]] == [2, 3, 4, 6, 8, 12]
    vectors = np.load("out/embeddings.npy")
    assert vectors.shape == (60, 6) and vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == (mode != "contrastive")
    model = load_embedding_model("out/embedding.safetensors")
    assert (model.mode, model.network_name, model.dimensions) == (mode, network, 6)
    assert model.preparation.box == WIDTH and model.preparation.pixel_size == 3.0
    assert not (folder / "out/checkpoint.safetensors").exists()
    again = embed("out/embedding.safetensors", read_particles("particles.star"), "cpu", report=lambda message: None)
    np.testing.assert_allclose(again, vectors, atol=2e-5)


def separation(vectors, species):
    """Mean distance of shapes over mean distance within a shape; 1 where they are mixed."""
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    same = species[:, None] == species[None]
    return distances[~same].mean() / distances[same & ~np.eye(len(species), dtype=bool)].mean()


@pytest.mark.parametrize("mode, floor", [("self-supervised", 1.5), ("triplet", 2.0), ("contrastive", 1.5)])
def test_unseen_particles_group_by_shape(folder, mode, floor):
    rate = ("--learning-rate", "2e-3")
    assert train("--mode", mode, "--epochs", "15", "--rounds", "1", "--classes", "3", "--patience", "15", *rate) == 0
    images, species = draw(seed=9)
    unseen = particle_set(folder / "unseen", images)
    vectors = embed("out/embedding.safetensors", unseen, report=lambda message: None)
    assert separation(vectors, species) > floor


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("mode, saves", [("self-supervised", 2), ("triplet", 2), ("contrastive", 2), ("contrastive", 3),
                                         ("contrastive", 5)])
def test_a_killed_training_goes_on_to_the_same_answer(folder, monkeypatch, mode, saves):
    options = ("--mode", mode, "--epochs", "3", "--rounds", "2", "--classes", "3")
    assert train(*options, out="whole") == 0
    save, count = training._save, 0

    def save_then_stop(*arguments):
        nonlocal count
        save(*arguments)
        count += 1
        if count == saves:
            raise Stopped

    monkeypatch.setattr(training, "_save", save_then_stop)
    with pytest.raises(Stopped):
        train(*options, out="stopped")
    monkeypatch.setattr(training, "_save", save)
    assert (folder / "stopped/checkpoint.safetensors").exists()
    assert train(*options, out="stopped") == 0
    assert record("stopped") == record("whole")
    np.testing.assert_array_equal(np.load("stopped/embeddings.npy"), np.load("whole/embeddings.npy"))


def test_same_seed_same_answer_other_seed_other_answer(folder):
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert train("--epochs", "1", "--seed", seed, out=out) == 0
    a, b, c = (np.load(f"{out}/embeddings.npy") for out in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_training_goes_on_from_a_model(folder):
    assert train("--epochs", "4", out="first") == 0
    start = "first/embedding.safetensors"
    assert train("--mode", "triplet", "--epochs", "1", "--learning-rate", "1e-7", "--model", start, out="second") == 0
    # A rate of nearly zero leaves the weights; batch statistics move a little.
    first, second = (load_embedding_model(f"{out}/embedding.safetensors") for out in ("first", "second"))
    torch.testing.assert_close(second.network.filters.weights, first.network.filters.weights, atol=1e-5, rtol=0)
    torch.testing.assert_close(second.profile, first.profile)
    assert second.mode == "triplet"
    assert train("--mode", "contrastive", "--classes", "3", "--rounds", "1", "--epochs", "1", "--model", start,
                 out="third") == 0


def test_training_stops_when_nothing_is_gained(folder):
    assert train("--mode", "triplet", "--epochs", "40", "--patience", "1", "--learning-rate", "0.05") == 0
    content = record()
    losses = [epoch["validation_loss"] for epoch in content["epochs"]]
    assert len(losses) < 40
    assert content["best_epoch"] == int(np.argmin(losses)) + 1 == len(losses) - 1


def test_particles_at_another_scale_get_like_vectors(folder, capsys):
    assert train("--mode", "triplet", "--epochs", "15", "--patience", "15") == 0
    # Twice the pixels of half the size.
    images, species = draw(seed=4, noise=0.4, scale=2.0, width=2 * WIDTH)
    particles = particle_set(folder / "fine", images, 1.5)
    messages = []
    vectors = embed("out/embedding.safetensors", particles, report=messages.append)
    assert any("rescaled" in message for message in messages)
    assert separation(vectors, species) > 2
    with pytest.raises(InputError, match="coarser"):
        embed("out/embedding.safetensors", particle_set(folder / "coarse", images, 9.0), report=messages.append)


def test_embedding_does_not_depend_on_chunks_and_batches(folder, monkeypatch):
    assert train("--epochs", "1") == 0
    particles = read_particles("particles.star")
    messages = []
    whole = embed("out/embedding.safetensors", particles, report=messages.append)
    assert len(messages) == 1 and "no CTF" in messages[0]
    monkeypatch.setattr(inference, "CHUNK", 13)
    parts = embed("out/embedding.safetensors", particles, batch_size=5, report=messages.append)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert len(messages) == 2


def test_alignment_columns_are_used_in_triplet_mode(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images, species = draw()
    zeros = np.zeros(len(images))
    particle_set(tmp_path, images, rlnClassNumber=species + 1, rlnAnglePsi=zeros + 30, rlnOriginXAngst=zeros,
                 rlnOriginYAngst=zeros)
    assert train("--mode", "triplet", "--epochs", "1", out="triplet") == 0
    assert "aligned by their columns" in capsys.readouterr().out
    assert load_embedding_model("triplet/embedding.safetensors").aligned
    unaligned = particle_set(tmp_path / "other", images)
    messages = []
    embed("triplet/embedding.safetensors", unaligned, report=messages.append)
    assert any("centred only" in message for message in messages)
    assert train("--epochs", "1", out="views") == 0
    assert not load_embedding_model("views/embedding.safetensors").aligned


def fails(capsys, *arguments):
    assert train(*arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_too_few_particles(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    particle_set(tmp_path, draw(12)[0])
    message = fails(capsys)
    assert "particles.star: 12 particles are too few" in message and "at least 20" in message


@pytest.mark.filterwarnings("ignore:Data array contains:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value, what", [(np.nan, "not finite"), (3.0, "constant")])
def test_bad_particle(tmp_path, monkeypatch, capsys, value, what):
    monkeypatch.chdir(tmp_path)
    images = draw()[0]
    images[17] = value
    particle_set(tmp_path, images)
    message = fails(capsys)
    assert "row 18" in message and what in message and "Remove this particle" in message


@pytest.mark.parametrize("classes, what, way_out", [
    (None, "no column rlnClassNumber", "--mode self-supervised"),
    ([1] * 60, "all particles are in class 1", "at least two classes"),
    ([1] * 30 + [2] * 29 + [7], "single particle (7)", "merge"),
    ([1] * 56 + [2] * 2 + [3] * 2, "fewer than two classes with three", "more particles"),
    ([1] * 59 + ["what"], "row 60", "Mend"),
])
def test_unusable_classes(tmp_path, monkeypatch, capsys, classes, what, way_out):
    monkeypatch.chdir(tmp_path)
    particle_set(tmp_path, draw()[0], **({"rlnClassNumber": classes} if classes else {}))
    message = fails(capsys, "--mode", "triplet")
    assert "particles.star" in message and what in message and way_out in message


def test_bad_options(folder, capsys):
    assert "--classes 31: more than half of the 60" in fails(capsys, "--mode", "contrastive", "--classes", "31")
    assert "--batch-size 4" in fails(capsys, "--batch-size", "4", "--overwrite")
    assert "--mask-diameter 2" in fails(capsys, "--mask-diameter", "2", "--overwrite")
    with pytest.raises(SystemExit):
        train("--working-box", "33")


def test_files_that_are_no_embedding_are_refused(folder, capsys):
    save_model("picker.safetensors", {"kind": "picker"}, {"w": torch.zeros(1)})
    assert "'embedding' model is needed" in fails(capsys, "--model", "picker.safetensors")
    save_model("old.safetensors", {"kind": "embedding", "architecture": "original"}, {"w": torch.zeros(1)})
    assert "doesn't fit this version" in fails(capsys, "--model", "old.safetensors", "--overwrite")


def test_loss_that_explodes_is_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(training, "_train_epoch", lambda *arguments: float("nan"))
    assert "Lower --learning-rate" in fails(capsys)


def test_elbow_of_three_groups():
    random = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    rows = elbow((centres[random.integers(0, 3, 90)] + random.normal(size=(90, 2))).astype(np.float32), seed=0)
    best = max(rows, key=lambda row: row["silhouette"])
    assert best["k"] == 3 and best["inertia"] == pytest.approx(2.0, rel=0.3)
    inertia = [row["inertia"] for row in rows]
    assert inertia == sorted(inertia, reverse=True)
    # Identical vectors make a single group.
    assert elbow(np.zeros((40, 3), np.float32), seed=0) == []


def test_small_sets_get_more_epochs():
    assert default_epochs(1000, 250) == 112 and default_epochs(10**6, 250) == 5


def test_few_particles_just_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    particle_set(tmp_path, draw(stage.FEWEST_PARTICLES)[0])
    assert train("--epochs", "2") == 0
    assert np.isfinite(np.load("out/embeddings.npy")).all()
