"""The weights that come with the engine, how they are made, and training that starts from them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from siamese2d_engine.cli.main import main
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.images import write_mrc
from siamese2d_engine.io.models import load_model
from siamese2d_engine.picking.contrast import are_bright
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.model import load_weights, save_weights, shipped_weights
from siamese2d_engine.picking.network import ARCHITECTURES, Architecture, PickerNetwork
from siamese2d_engine.picking.pretrain import __main__ as command
from siamese2d_engine.picking.pretrain import scenes as scenes_module
from siamese2d_engine.picking.pretrain import training
from siamese2d_engine.picking.pretrain.particles import random_blob, random_particle
from siamese2d_engine.picking.pretrain.scenes import make_scenes
from siamese2d_engine.simulate.volumes import make_proteins

TINY = Architecture((8, 8, 8), (5, 3, 3), (1, 2, 1), (1, 1, 2))


def _discs(seed, sign=-1.0, shape=(220, 240)):
    """Noise with discs of the working diameter; their centres."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:shape[0], :shape[1]]
    centres = np.array([(30 + 45 * i + rng.uniform(-5, 5), 30 + 50 * j + rng.uniform(-5, 5))
                        for i in range(5) for j in range(4)])
    image = rng.normal(size=shape)
    for x, y in centres:
        image += sign * 1.5 / (1 + np.exp(np.hypot(columns - x, rows - y) - WORKING_DIAMETER / 2))
    return image.astype(np.float32), centres


def test_shipped_weights_are_small_and_fit_the_default_network():
    path = shipped_weights("medium")
    assert path.stat().st_size < 1_000_000
    network = load_weights(path)
    assert network.architecture == ARCHITECTURES["medium"]
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    network = PickerNetwork(TINY)
    save_weights(tmp_path / "w.safetensors", network, {"epochs": 0})
    assert load_weights(tmp_path / "w.safetensors").architecture == TINY
    with pytest.raises(InputError, match="kind"):
        load_model(tmp_path / "w.safetensors", "picker")
    network.architecture = ARCHITECTURES["medium"]
    save_weights(tmp_path / "x.safetensors", network, {})
    with pytest.raises(InputError, match="x.safetensors"):
        load_weights(tmp_path / "x.safetensors")


def test_inverted_network_sees_the_negative():
    network = PickerNetwork(TINY)
    network.initialise(torch.Generator().manual_seed(1))
    torch.nn.init.normal_(network.head.weight)
    images = torch.randn(2, 40, 40, generator=torch.Generator().manual_seed(2))
    before = network(-images)
    network.invert()
    assert torch.allclose(network(images), before, atol=1e-6)


def test_bright_particles_are_told_from_dark_ones():
    (dark, centres), (bright, others) = _discs(1, -1.0), _discs(2, 1.0)
    assert not are_bright([dark], [centres])
    assert are_bright([bright, dark], [others, centres[:0]])
    assert not are_bright([np.random.default_rng(3).normal(size=(220, 240))], [centres])
    assert not are_bright([bright], [others[:1]])


def test_scenes_depend_on_nothing_but_their_numbers(monkeypatch):
    monkeypatch.setattr(scenes_module, "CHAINS", 1)
    first, again, other = make_scenes(5, 0, 2), make_scenes(5, 0, 2), make_scenes(5, 1, 1)
    for a, b in zip(first, again):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels)
    assert not np.array_equal(first[0].image[:50, :50], other[0].image[:50, :50])


def test_particles_of_scenes_lie_at_their_labels(monkeypatch):
    monkeypatch.setattr(scenes_module, "CHAINS", 2)
    scenes = make_scenes(3, 0, 6)
    darkness = []
    for scene in scenes:
        assert len(scene.labels) and not len(scene.hidden)
        assert (scene.labels >= -0.5).all() and (scene.labels < np.array(scene.image.shape)[::-1] - 0.5).all()
        last = np.array(scene.image.shape)[::-1] - 10
        inner = scene.labels[((scene.labels > 10) & (scene.labels < last)).all(axis=1)]
        boxes = [scene.image[int(y) - 6:int(y) + 7, int(x) - 6:int(x) + 7].mean() for x, y in inner]
        darkness.append(np.mean(boxes))
    assert np.mean(darkness) < -0.1
    assert not are_bright([s.image for s in scenes], [s.labels for s in scenes])


def test_particles_fit_their_diameter():
    chains, rng = make_proteins(2, 1.0, 0), np.random.default_rng(1)
    for particle in (*(random_particle(chains, 150.0, rng) for _ in range(12)), random_blob(150.0, rng)):
        reach = np.linalg.norm(particle.positions, axis=1).max() + 2 * particle.sigma
        assert reach == pytest.approx(75, rel=1e-6)
        assert np.allclose(np.average(particle.positions, axis=0, weights=particle.weights), 0, atol=1e-6)


@pytest.fixture
def quick(monkeypatch):
    """A pretraining of seconds."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    scenes = [training.LabelledMicrograph(*_discs(seed), np.zeros((0, 2))) for seed in range(3)]
    monkeypatch.setattr(training, "make_scenes", lambda *args: scenes)
    monkeypatch.setattr(command, "make_scenes", lambda *args: scenes)
    monkeypatch.setattr(training, "STEPS", 15)
    monkeypatch.setattr(training, "HIGHEST_RATE", 1e-2)
    monkeypatch.setattr(training, "AVERAGING", 0.8)
    monkeypatch.setattr(training, "CROPS", 2)
    return scenes


def test_pretraining_learns_and_resumes_with_the_same_weights(quick, tmp_path):
    command.pretrain(tmp_path / "whole.safetensors", "tiny", 2, 2, 1)
    command.pretrain(tmp_path / "parts.safetensors", "tiny", 2, 1, 1)
    header, tensors = load_model(tmp_path / "parts.safetensors", "picker-weights")
    assert header["training"] == {"epoch": 1, "epochs": 2, "seed": 1}
    command.pretrain(tmp_path / "parts.safetensors", "tiny", 2, 2, 1)
    (_, whole), (_, parts) = (load_model(tmp_path / f"{n}.safetensors", "picker-weights") for n in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not torch.equal(whole["head.weight"], tensors["head.weight"])
    network = load_weights(tmp_path / "whole.safetensors")
    assert training.average_precision(network, quick) > 0.9


def _folder(tmp_path, sign):
    rows = []
    for i in range(3):
        image, centres = _discs(10 + i, sign)
        write_mrc(tmp_path / "mics" / f"m{i}.mrc", image, 2.0)
        rows += [(f"m{i}", x, y) for x, y in centres[:3]]
    pd.DataFrame(rows, columns=["micrograph", "x", "y"]).to_csv(tmp_path / "labels.csv", index=False)
    return ["train-picker", "--micrographs", str(tmp_path / "mics"), "--coordinates", str(tmp_path / "labels.csv"),
            "--diameter", "40", "--epochs", "1", "--steps", "1", "--learning-rate", "1e-9", "--threads", "1"]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_training_starts_from_the_shipped_weights(tmp_path, sign):
    assert main([*_folder(tmp_path, sign), "--out", str(tmp_path / "a")]) == 0
    _, mine = load_model(tmp_path / "a" / "picker.safetensors", "picker")
    shipped = load_weights(shipped_weights("medium")).state_dict()
    factor = {"convolutions.0.weight": -sign}
    for name, tensor in shipped.items():
        assert torch.allclose(mine[name], factor.get(name, 1.0) * tensor, atol=1e-5)
    assert json.loads((tmp_path / "a" / "training.json").read_text())["start"] == "shipped weights"


def test_training_from_scratch(tmp_path, capsys):
    command = _folder(tmp_path, -1.0)
    assert main([*command, "--out", str(tmp_path / "a"), "--from-scratch"]) == 0
    _, mine = load_model(tmp_path / "a" / "picker.safetensors", "picker")
    assert mine["head.weight"].abs().max() < 1e-5
    assert json.loads((tmp_path / "a" / "training.json").read_text())["start"] == "random weights"
    assert main([*command, "--out", str(tmp_path / "b"), "--network", "small"]) == 0
    assert json.loads((tmp_path / "b" / "training.json").read_text())["start"] == "random weights"
    model = str(tmp_path / "a" / "picker.safetensors")
    assert main([*command, "--out", str(tmp_path / "c"), "--model", model, "--from-scratch"]) == 2
    assert "contradict" in capsys.readouterr().err
