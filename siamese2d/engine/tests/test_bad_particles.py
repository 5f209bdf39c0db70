"""Particles as they should not be: ``train``, ``classify`` and ``assign`` refuse them, or work and say what they did.

What concerns one stage alone is in its own tests.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_embedding_prepare import particle_set
from test_embedding_stage import draw

from siamese2d_engine.cli.main import main
from siamese2d_engine.devices import set_threads
from siamese2d_engine.embedding import centring_network
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.particles import read_particles, write_particles
from siamese2d_engine.io.star import read_star, write_star

WIDTH, PIXEL, N = 24, 3.0, 60
TRAIN = ["--epochs", "1", "--working-box", "16", "--dimensions", "6", "--batch-size", "16"]
OPTIONS = {"train": TRAIN, "classify": ["--classes", "3"], "assign": ["--classes", "classes.star"]}
every_stage = pytest.mark.parametrize("stage", OPTIONS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Averages to assign to; little training of the centring; the number of threads is put back."""
    monkeypatch.setattr(centring_network, "STEPS", 5)
    monkeypatch.setattr(centring_network, "BATCH", 16)
    monkeypatch.chdir(tmp_path)
    write_mrc("averages.mrcs", draw(3, seed=1, noise=0.0)[0].numpy(), PIXEL)
    names = [f"{number:06d}@averages.mrcs" for number in (1, 2, 3)]
    write_star("classes.star", {"classes": pd.DataFrame({"rlnReferenceImage": names, "rlnClassNumber": [4, 2, 9]})})
    before = torch.get_num_threads()
    yield tmp_path
    set_threads(before)


def run(stage, *more):
    return main([stage, "--particles", "particles.star", "--out", "out", "--threads", "1", *OPTIONS[stage], *more])


def fails(capsys, stage, *more):
    assert run(stage, *more) == 2
    return capsys.readouterr().err


@every_stage
def test_mixed_boxes(folder, capsys, stage):
    particles = particle_set(folder, draw(N)[0])
    write_mrc("other.mrcs", draw(3, width=30)[0].numpy(), PIXEL)
    table = particles.table.copy()
    table.loc[5, "rlnImageName"] = "000002@other.mrcs"
    write_particles("particles.star", table, particles.optics)
    assert "other.mrcs: images of 30 pixels, but" in fails(capsys, stage)


@every_stage
def test_wrong_sampling(folder, capsys, stage):
    particles = particle_set(folder, draw(N)[0], PIXEL)
    assert "3 A wide by this file, but --pixel-size is 6" in fails(capsys, stage, "--pixel-size", "6")
    write_particles("particles.star", particles.table, particles.optics.assign(rlnImagePixelSize=0.0))
    assert "particles.star: a pixel size of 0 A" in fails(capsys, stage, "--overwrite")


@pytest.mark.parametrize("stage", ["classify", "assign"])
def test_identical_particles_get_one_class(folder, stage):
    particle_set(folder, draw(1)[0].expand(N, -1, -1))
    assert run(stage) == 0
    table = read_star("out/particles.star")["particles"]
    assert len(table) == N and table["rlnClassNumber"].nunique() == 1
    assert np.isfinite(table[["rlnAnglePsi", "rlnMaxValueProbDistribution"]].to_numpy(float)).all()


@pytest.mark.parametrize("mode", [["self-supervised"], ["contrastive", "--classes", "3", "--rounds", "2"]])
def test_identical_particles_get_one_vector(folder, capsys, mode):
    particle_set(folder, draw(1)[0].expand(N, -1, -1))
    assert run("train", "--mode", *mode) == 0
    assert np.ptp(np.load("out/embeddings.npy"), axis=0).max() < 1e-4
    assert "All particles have the same vector" in capsys.readouterr().out


@pytest.mark.parametrize("stage, options", [("classify", ["--classes", "1"]), ("assign", [])])
def test_one_particle(folder, stage, options):
    particle_set(folder, draw(1)[0])
    assert run(stage, *options) == 0
    assert len(read_star("out/particles.star")["particles"]) == 1


@pytest.mark.parametrize("recipe", [["--mode", "triplet"], ["--preset", "aligned-classes"]])
def test_labels_with_gaps(folder, recipe):
    images, species = draw(N)
    particle_set(folder, images, rlnClassNumber=np.array([5, 2, 9])[species], rlnAnglePsi=0.0, rlnOriginXAngst=0.0,
                 rlnOriginYAngst=0.0)
    assert run("train", *recipe) == 0
    with open("out/training.json") as stream:
        assert json.load(stream)["cosine"]["classes"] == [2, 5, 9]


def test_a_model_for_another_pixel_size(folder, capsys):
    particle_set(folder, draw(N)[0])
    assert run("train") == 0
    (folder / "out").rename("model")
    model = ["--model", "model/embedding.safetensors"]
    particle_set(folder, draw(N, scale=2.0, width=2 * WIDTH)[0], PIXEL / 2)
    assert run("classify", *model) == 0
    assert "rescaled" in capsys.readouterr().out
    assert len(read_particles("out/particles.star")) == N
    assert run("train", *model, "--overwrite") == 0
    particle_set(folder, draw(N)[0], 3 * PIXEL)
    assert "coarser" in fails(capsys, "classify", *model, "--overwrite")
