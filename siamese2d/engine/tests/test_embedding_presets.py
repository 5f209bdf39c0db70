"""Presets: each sets its recipe, explicit options win, runs end to end; their networks, losses, draws and views."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_embedding_prepare import blobs, particle_set
from test_embedding_stage import Stopped, draw

from siamese2d_engine.cli.main import main
from siamese2d_engine.embedding import centring_network, resnet, training
from siamese2d_engine.embedding.backbone_network import FrozenResNet50, SimSiam, SmallResNet18
from siamese2d_engine.embedding.batches import random_triplets
from siamese2d_engine.embedding.inference import embed, load_embedding_model
from siamese2d_engine.embedding.losses import SupervisedContrastiveLoss, drawn_triplet_loss, simsiam_loss
from siamese2d_engine.embedding.map import two_step_map
from siamese2d_engine.embedding.prepare import to_images, to_spectra
from siamese2d_engine.embedding.presets import PRESETS, resolve
from siamese2d_engine.embedding.recipe_views import VIEWS, CachedViews, NoisyViews, PatchViews, PlainViews, make_views
from siamese2d_engine.embedding.resnet import BasicBlock, Bottleneck, ResNet, load_backbone, random_backbone
from siamese2d_engine.embedding.settings import LOSSES, Architecture, Settings
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.particles import read_particles

SMALL = ("--working-box", "16", "--epochs", "2", "--rounds", "2", "--threads", "1")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def vectors(n, d=5, seed=0):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, d)))


# ---------------------------------------------------------------- settings


def test_contrastive_original_is_its_recipe():
    settings, architecture = resolve("contrastive-original", {}, 5000, seed=3)
    assert (settings.mode, settings.comparisons, settings.views, settings.first_labels) == (
        "contrastive", "drawn", "plain", "resnet18")
    assert (settings.optimizer, settings.schedule, settings.learning_rate) == ("adam", "constant", 5e-4)
    assert (settings.batch_size, settings.epochs, settings.rounds, settings.classes) == (128, 20, 5, 4)
    assert settings.patience >= settings.epochs and settings.seed == 3
    assert (architecture.network, architecture.dimensions, architecture.centre) == ("original", 20, False)


@pytest.mark.parametrize("name, rate, margin, head, noise", [
    ("triplet-original", 1e-4, 0.5, (512, 256, 256), False),
    ("triplet-original-noise", 1e-5, 0.75, (256, 128, 128), True),
])
def test_triplet_originals_are_their_recipes(name, rate, margin, head, noise):
    settings, architecture = resolve(name, {}, 5000, seed=0)
    assert (settings.mode, settings.loss, settings.comparisons, settings.batch_size, settings.patience) == (
        "triplet", "triplet", "drawn", 8, 5)
    assert (settings.learning_rate, settings.margin, settings.optimizer) == (rate, margin, "adam")
    assert (settings.views == "noisy") == noise
    assert (architecture.network, architecture.working_box) == ("resnet50", 128)
    assert (*architecture.hidden, architecture.dimensions) == head


def test_aligned_classes_start_from_averages_and_only_in_triplet_mode():
    settings, architecture = resolve("aligned-classes", {}, 5000, seed=0)
    assert (settings.mode, settings.loss, architecture.filters) == ("triplet", "supervised-contrastive", "averages")
    assert resolve("aligned-classes", {"mode": "self-supervised"}, 5000, seed=0)[1].filters == "random"


def test_milopyp_is_its_recipe():
    settings, architecture = resolve("milopyp", {}, 5000, seed=0)
    assert (settings.mode, settings.loss, settings.views, settings.optimizer) == (
        "self-supervised", "simsiam", "patches", "sgd")
    assert (settings.learning_rate, settings.batch_size) == (1e-3, 256)
    assert (architecture.network, architecture.dimensions) == ("resnet18", 128)


ORIGINALS = [name for name in PRESETS if name != "aligned-classes"]


@pytest.mark.parametrize("name", ORIGINALS)
def test_explicit_options_win_over_a_preset(name):
    given = {"batch_size": 64, "learning_rate": 0.25, "network": "steerable", "dimensions": 7, "views": None,
             "optimizer": None}
    settings, architecture = resolve(name, given, 100, seed=0)
    assert (settings.batch_size, settings.learning_rate) == (64, 0.25)
    assert architecture == Architecture("steerable", 7, working_box=PRESETS[name]["working_box"], centre=False)
    assert settings.views == PRESETS[name]["views"] and settings.optimizer == PRESETS[name]["optimizer"]


def test_another_mode_than_the_presets_has_its_own_loss():
    settings, _ = resolve("milopyp", {"mode": "triplet"}, 100, seed=0)
    assert settings.loss == LOSSES["triplet"][0]


def test_without_a_preset_the_defaults_are_those_of_the_mode():
    settings, architecture = resolve(None, {}, 5000, seed=0)
    assert architecture == Architecture() and settings == Settings(margin=0.0, epochs=settings.epochs)
    assert resolve(None, {"mode": "triplet"}, 5000, 0)[0].learning_rate == 5e-3
    assert resolve(None, {"network": "original"}, 5000, 0)[1].dimensions == 20


# ---------------------------------------------------------------- networks


def state_as_torchvision(network):
    """Weights as for three colours with a classifier on top."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    colours = torch.randn(64, 3, 7, 7) * 0.1
    state["conv1.weight"] = colours
    return state | {"fc.weight": torch.zeros(1000, network.features), "fc.bias": torch.zeros(1000)}, colours


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_backbone_weights_by_torchvisions_names(tmp_path, ending):
    torch.manual_seed(0)
    state, colours = state_as_torchvision(ResNet(18))
    path = tmp_path / f"resnet18{ending}"
    torch.save(state, path) if ending == ".pth" else save_file(state, path)
    network = load_backbone(path, 18)
    x = torch.randn(2, 32, 32)
    torch.testing.assert_close(network.conv1(x[:, None]),
                               torch.nn.functional.conv2d(x[:, None].expand(-1, 3, -1, -1), colours, None, 2, 3),
                               atol=1e-4, rtol=1e-4)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    with pytest.raises(InputError, match="no weights of a ResNet-50"):
        load_backbone(path, 50)


def test_parameters_are_as_many_as_published():
    # torchvision's counts without the classifier and with three colours.
    for depth, count in ((18, 11_176_512), (50, 23_508_032)):
        own = sum(p.numel() for p in ResNet(depth).parameters())
        assert own + 2 * 64 * 49 == count


def test_weights_that_are_none(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_backbone(tmp_path / "none.pth", 18)
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(InputError, match="can't be read as weights"):
            load_backbone(tmp_path / name, 18)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no dictionary"):
        load_backbone(tmp_path / "list.pth", 18)


def test_random_backbone_has_features_of_ordinary_size():
    images = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0))
    features = random_backbone(50, images, seed=0)(images)
    assert torch.isfinite(features).all() and 0.05 < features.std() < 20
    torch.testing.assert_close(random_backbone(50, images, seed=0)(images), features)


def test_frozen_backbone_does_not_learn():
    network = FrozenResNet50(32, 6, hidden=(9, 7))
    assert [m.out_features for m in network.head if isinstance(m, torch.nn.Linear)] == [9, 7, 6]
    network.train()
    before = network.backbone.bn1.running_mean.clone()
    network(torch.randn(4, 32, 32)).sum().backward()
    torch.testing.assert_close(network.backbone.bn1.running_mean, before)
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.head.parameters())


def test_simsiam_trains_the_encoder_through_its_helpers():
    model = SimSiam(SmallResNet18(16, 8), 8)
    assert [m.out_features for m in model.projector if isinstance(m, torch.nn.Linear)] == [8, 8, 8]
    projections, predictions = model(torch.randn(6, 16, 16))
    simsiam_loss(projections.chunk(2), predictions.chunk(2)).backward()
    assert all(p.grad is not None for p in model.parameters())


# ---------------------------------------------------------------- losses and draws


def test_simsiam_loss_is_the_formula_and_stops_gradients():
    z1, z2, p1, p2 = (vectors(10, seed=s).requires_grad_() for s in range(4))

    def cosine(a, b):
        a, b = a.detach().numpy(), b.detach().numpy()
        return np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))

    loss = simsiam_loss((z1, z2), (p1, p2))
    assert loss.item() == pytest.approx(-(cosine(p1, z2) + cosine(p2, z1)) / 2)
    loss.backward()
    assert z1.grad is None and z2.grad is None and p1.grad is not None


def test_drawn_triplet_loss_is_the_formula():
    parts = [vectors(9, seed=s) for s in range(3)]
    a, p, n = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in parts)
    each = np.maximum(((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1) + 0.3, 0)
    assert 0 < (each > 0).sum() < 9
    assert float(drawn_triplet_loss(*parts, 0.3)) == pytest.approx(each.mean())


def test_supervised_contrastive_loss_is_the_formula():
    z, labels = vectors(12), np.array([0, 1, 2] * 4)
    unit = z.numpy() / np.linalg.norm(z.numpy(), axis=1, keepdims=True)
    similarity = unit @ unit.T / 0.2
    total = 0.0
    for a in range(12):
        others = [k for k in range(12) if k != a]
        log_sum = np.log(np.exp(similarity[a, others]).sum())
        positives = [k for k in others if labels[k] == labels[a]]
        total -= np.mean([similarity[a, p] - log_sum for p in positives])
    assert float(SupervisedContrastiveLoss(0.2)(z, torch.tensor(labels))) == pytest.approx(total / 12, rel=1e-6)


def test_triplets_are_of_their_classes():
    labels = torch.tensor(np.random.default_rng(0).integers(0, 5, 80))
    anchor, positive, negative = random_triplets(labels, 5000, torch.Generator().manual_seed(0))
    assert (labels[anchor] == labels[positive]).all() and (anchor != positive).all()
    assert (labels[anchor] != labels[negative]).all()
    assert len(negative.unique()) == len(positive.unique()) == 80


# ---------------------------------------------------------------- views


def spectra_of(n=300, width=24):
    return to_spectra(blobs(width, [(6, 0), (-2, 1)]).expand(n, -1, -1))


def test_noisy_views_add_noise_of_the_stated_size():
    spectra, mask = spectra_of(), torch.ones(24, 24)
    view = NoisyViews(mask).one(spectra, torch.Generator().manual_seed(0))
    assert float((view - to_images(spectra)).std()) == pytest.approx(0.5, rel=0.02)


def test_patch_views_stay_near_the_image_up_to_quarter_turns():
    spectra, mask = spectra_of(), torch.ones(24, 24)
    views, again = (PatchViews(mask).one(spectra, torch.Generator().manual_seed(0)) for _ in range(2))
    torch.testing.assert_close(views, again)
    plain = PlainViews(mask).plain(spectra)[0]
    candidates = torch.stack([turned for k in range(4) for turned in (plain.rot90(k), plain.rot90(k).flip(-1))])
    views, candidates = ((x - x.mean((-2, -1), keepdim=True)).flatten(1) for x in (views, candidates))
    fit = (views @ candidates.T) / views.norm(dim=1)[:, None] / candidates.norm(dim=1)
    assert fit.max(dim=1).values.mean() > 0.8
    assert len(fit.argmax(dim=1).unique()) == 8


def test_cached_views_draw_among_the_copies():
    features = torch.arange(6.0).reshape(2, 3, 1).expand(-1, -1, 4)
    views = CachedViews()
    torch.testing.assert_close(views.plain(features)[:, 0], torch.tensor([0.0, 3.0]))
    drawn = {tuple(views.one(features, torch.Generator().manual_seed(s))[:, 0].tolist()) for s in range(60)}
    assert drawn == {(a, b) for a in (0.0, 1.0, 2.0) for b in (3.0, 4.0, 5.0)}
    assert all(view.shape == (2, 4) for view in views.pair(features, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", VIEWS)
def test_every_view_has_the_shape_of_the_image_and_two_of_a_pair(name):
    views = make_views(name, torch.ones(24, 24), 0.5, turn=True)
    spectra, generator = spectra_of(3), torch.Generator().manual_seed(0)
    assert views.plain(spectra).shape == views.one(spectra, generator).shape == (3, 24, 24)
    first, second = views.pair(spectra, generator)
    assert first.shape == second.shape == (3, 24, 24)
    assert torch.equal(first, second) == (name == "plain")


def test_map_keeps_groups_together():
    random = np.random.default_rng(0)
    truth = np.arange(90) % 3
    result = two_step_map(10 * np.eye(6)[truth] + random.normal(size=(90, 6)), seed=0)
    places = np.stack([result["x"], result["y"]], axis=1)
    assert result["rows"] == list(range(90)) and result["explained"] == pytest.approx(1)
    centres = np.stack([places[truth == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == truth).all()
    assert two_step_map(np.zeros((30, 4)), seed=0)["x"] == [0.0] * 30


# ---------------------------------------------------------------- the command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # One block for each layer: as many parameters as needed to run, not to see.
    monkeypatch.setattr(resnet, "BLOCKS", {18: (BasicBlock, (1, 1, 1, 1)), 50: (Bottleneck, (1, 1, 1, 1))})
    monkeypatch.setattr(centring_network, "STEPS", 20)
    images, species = draw()
    particle_set(tmp_path, images, rlnClassNumber=species + 1)
    return tmp_path


def train(*arguments, out="out"):
    return main(["train", "--particles", "particles.star", "--out", out, *SMALL, *arguments])


def record(out="out"):
    with open(f"{out}/training.json") as stream:
        return json.load(stream)


@pytest.mark.parametrize("name, dimensions, warning", [
    ("contrastive-original", 20, "ResNet-18"), ("triplet-original", 256, "ResNet-50"),
    ("triplet-original-noise", 128, "ResNet-50"), ("milopyp", 128, None),
])
def test_presets_run_and_their_models_embed(folder, capsys, name, dimensions, warning):
    assert train("--preset", name, "--batch-size", "16") == 0
    output = capsys.readouterr().out
    assert (f"warning: No --backbone with the weights of a {warning}" in output) == (warning is not None)
    content = record()
    assert content["mode"] == PRESETS[name]["mode"] and content["network"] == PRESETS[name]["network"]
    saved = np.load("out/embeddings.npy")
    assert saved.shape == (60, dimensions)
    assert sorted(content["map"]["rows"]) == list(range(60)) and len(content["map"]["x"]) == 60
    cosine = content["cosine"]
    assert np.array(cosine["matrix"], dtype=float).shape == (len(cosine["classes"]),) * 2
    assert np.isfinite(cosine["diagonal_dominance"])
    model = load_embedding_model("out/embedding.safetensors")
    assert not model.centre
    again = embed("out/embedding.safetensors", read_particles("particles.star"), report=lambda message: None)
    np.testing.assert_allclose(again, saved, atol=1e-4)


def test_a_backbone_from_a_file_is_used_and_needs_no_warning(folder, capsys):
    torch.manual_seed(1)
    network = random_backbone(18, torch.randn(64, 16, 16), seed=1)
    torch.save(state_as_torchvision(network)[0], "resnet18.pth")
    assert train("--preset", "contrastive-original", "--backbone", "resnet18.pth", "--epochs", "1", "--no-plot") == 0
    assert "No --backbone" not in capsys.readouterr().out
    assert train("--preset", "contrastive-original", "--epochs", "1", "--no-plot", out="without") == 0
    assert not np.allclose(np.load("out/embeddings.npy"), np.load("without/embeddings.npy"))


@pytest.mark.parametrize("name, saves", [("triplet-original-noise", 1), ("milopyp", 1), ("contrastive-original", 3)])
def test_a_killed_preset_goes_on_to_the_same_answer(folder, monkeypatch, name, saves):
    options = ("--preset", name, "--batch-size", "16", "--no-plot")
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
    assert train(*options, out="stopped") == 0
    assert record("stopped") == record("whole")


def test_frozen_models_go_on_from_a_model(folder):
    assert train("--preset", "triplet-original", "--no-plot", out="first") == 0
    assert train("--preset", "triplet-original", "--model", "first/embedding.safetensors", "--no-plot",
                 out="second") == 0
    first, second = (load_embedding_model(f"{out}/embedding.safetensors").network for out in ("first", "second"))
    torch.testing.assert_close(first.backbone.conv1.weight, second.backbone.conv1.weight)
    assert not torch.equal(first.head[0].weight, second.head[0].weight)


@pytest.mark.parametrize("options, words", [
    (("--loss", "simsiam", "--mode", "triplet"), "--loss simsiam: not of the mode triplet"),
    (("--views", "plain"), "two equal views"),
    (("--network", "resnet50", "--loss", "simsiam"), "not the head of the frozen"),
    (("--backbone", "particles.star"), "nothing here uses it"),
    (("--preset", "triplet-original", "--backbone", "nowhere.pth"), "nowhere.pth"),
])
def test_bad_combinations(folder, capsys, options, words):
    assert train(*options) == 2
    assert words in capsys.readouterr().err


def test_supervised_contrastive_training_groups_by_class(folder):
    assert train("--mode", "triplet", "--loss", "supervised-contrastive", "--batch-size", "32", "--epochs", "6") == 0
    assert record()["cosine"]["diagonal_dominance"] > 0.3
