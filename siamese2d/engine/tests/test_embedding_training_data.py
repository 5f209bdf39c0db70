"""Sets that do not fit into memory: a part is trained on, all are embedded, in parts of bounded size."""

import json

import numpy as np
import pytest
from test_embedding_prepare import particle_set
from test_embedding_stage import QUICK, draw

from siamese2d_engine.cli.main import main
from siamese2d_engine.embedding import centring_network, inference, training_data
from siamese2d_engine.embedding.inference import EmbeddingModel, embed, load_embedding_model
from siamese2d_engine.embedding.networks import build_network
from siamese2d_engine.embedding.prepare import Preparation
from siamese2d_engine.embedding.training_data import LEAST_MEMBERS, bytes_per_particle, trained_on
from siamese2d_engine.io.particles import read_particles

N, PART = 60, 41


@pytest.fixture
def model():
    network = build_network("steerable", {"working_box": 16, "dimensions": 6})
    return EmbeddingModel("steerable", {}, network, Preparation(24, 3.0, 16, False, 7.0), None, None, None,
                          True, False, True,
                          "triplet", {})


def gigabytes(model, particles):
    return (particles + 0.5) * bytes_per_particle(model) / 1e9


def test_all_are_trained_on_where_they_fit(model):
    assert trained_on(N, model, gigabytes(model, N), None, 0).tolist() == list(range(N))


def test_a_part_is_drawn_from_the_seed(model):
    rows = trained_on(N, model, gigabytes(model, PART), None, 0)
    assert len(rows) == PART and (np.diff(rows) > 0).all() and rows[-1] < N
    assert np.array_equal(rows, trained_on(N, model, gigabytes(model, PART), None, 0))
    assert not np.array_equal(rows, trained_on(N, model, gigabytes(model, PART), None, 1))


@pytest.mark.parametrize("seed", range(5))
def test_small_classes_keep_members(model, seed):
    labels = np.repeat([0, 1, 2], [50, 7, 3])[np.random.default_rng(seed).permutation(N)]
    rows = trained_on(N, model, gigabytes(model, 12), labels, seed)
    assert len(rows) == len(set(rows)) == 12
    assert (np.bincount(labels[rows]) >= LEAST_MEMBERS).all()


@pytest.mark.parametrize("mode", ["self-supervised", "contrastive", "triplet"])
def test_all_are_embedded_by_what_a_part_taught(tmp_path, monkeypatch, capsys, model, mode):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(centring_network, "STEPS", 5)
    # Small enough that more than one chunk, and less than all for the centring, are met.
    monkeypatch.setattr(inference, "CHUNK", 16)
    monkeypatch.setattr(training_data, "CHUNK", 16)
    monkeypatch.setattr(training_data, "CENTRED", 30)
    images, species = draw(N)
    particle_set(tmp_path, images, rlnClassNumber=species + 1)
    assert main(["train", "--particles", "particles.star", "--out", "out", *QUICK, "--mode", mode, "--epochs", "2",
                 "--rounds",
                 "2", "--classes", "3", "--memory", str(gigabytes(model, PART))]) == 0
    assert f"{PART} of {N} particles" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "training.json").read_text())["particles"] == PART
    vectors = np.load("out/embeddings.npy")
    again = embed("out/embedding.safetensors", read_particles("particles.star"), report=lambda message: None)
    assert vectors.shape == (N, 6)
    np.testing.assert_allclose(vectors, again, atol=1e-5)
    assert load_embedding_model("out/embedding.safetensors").training["particles"] == PART


def test_parts_are_centred_as_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(centring_network, "STEPS", 5)
    particle_set(tmp_path, draw(N)[0])
    monkeypatch.setattr(training_data, "CHUNK", 1000)
    command = ["train", "--particles", "particles.star", *QUICK, "--epochs", "1"]
    assert main([*command, "--out", "whole"]) == 0
    monkeypatch.setattr(training_data, "CHUNK", 7)
    assert main([*command, "--out", "parts"]) == 0
    np.testing.assert_allclose(np.load("parts/embeddings.npy"), np.load("whole/embeddings.npy"), atol=2e-3)
