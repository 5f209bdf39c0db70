"""The training loop: schedule, best epoch, early stopping, checkpoints, and that it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from siamese2d_engine.errors import InputError
from siamese2d_engine.picking import training
from siamese2d_engine.picking.judge import Judge
from siamese2d_engine.picking.network import Architecture, PickerNetwork
from siamese2d_engine.picking.objectives import OBJECTIVES
from siamese2d_engine.picking.sampling import LabelledMicrograph, Sampler
from siamese2d_engine.picking.settings import Settings

TINY = Architecture((8, 8, 8), (5, 3, 3), (1, 2, 1), (1, 1, 2))
SETTINGS = Settings(diameter=100, epochs=3, steps=4, crops=1, crop_outputs=32, windows=8, sample=200,
                    learning_rate=2e-3)
NONE = np.zeros((0, 2))


def _micrograph(seed, labels=6, particles=10, hide=False):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(140, 150)).astype(np.float32)
    rows, columns = np.mgrid[:140, :150]
    centres = np.array([(15 + 30 * (i % 5), 30 + 60 * (i // 5)) for i in range(particles)], dtype=float)
    for x, y in centres:
        image -= 2 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 32).astype(np.float32)
    shown = centres[:labels]
    return LabelledMicrograph(image, NONE if hide else shown, shown if hide else NONE)


def _setup(settings=SETTINGS, held_out=True):
    torch.manual_seed(0)
    network = PickerNetwork(TINY)
    network.initialise(torch.Generator().manual_seed(settings.seed))
    micrographs = [_micrograph(1), _micrograph(2)]
    hidden = [_micrograph(3, hide=True)]
    judge = Judge(hidden, held_out, 10 / (140 * 150), hidden)
    return training.start(network, settings, 10 / (140 * 150)), Sampler(micrographs, TINY, 10), judge


def _run(settings, folder, held_out=True, report=lambda record: None):
    state, sampler, judge = _setup(settings, held_out)
    training.run_epochs(state, sampler, settings, folder / "c.pt", judge, report)
    return state, judge


def test_learning_rate_rises_then_falls():
    rates = [training.learning_rate(i, 100, 2.0) for i in range(100)]
    top = int(np.argmax(rates))
    assert 18 <= top <= 21 and rates[top] == pytest.approx(2, rel=0.05)
    assert all(a < b for a, b in zip(rates[:top], rates[1:top + 1])) and rates[-1] < 0.03
    assert all(a > b for a, b in zip(rates[top:], rates[top + 1:]))


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_objective_learns_to_find_discs(tmp_path, objective):
    settings = replace(SETTINGS, objective=objective, epochs=6, steps=10, learning_rate=5e-3)
    state, judge = _run(settings, tmp_path)
    state.average.load_state_dict(state.best)
    assert judge.average_precision(judge.found_at(state.average), 10 / (140 * 150)) > 0.9


def test_resumed_training_gives_the_same_weights(tmp_path):
    settings = replace(SETTINGS, autoencoder=0.1)
    whole, _ = _run(settings, tmp_path)

    class Killed(Exception):
        pass

    def kill(record):
        if record["epoch"] == 1:
            raise Killed

    (tmp_path / "again").mkdir()
    with pytest.raises(Killed):
        _run(settings, tmp_path / "again", report=kill)
    state, sampler, judge = _setup(settings)
    training.load_checkpoint(tmp_path / "again" / "c.pt", state)
    assert len(state.epochs) == 1
    training.run_epochs(state, sampler, settings, tmp_path / "again" / "c.pt", judge, lambda record: None)
    assert state.epochs == whole.epochs and state.best_epoch == whole.best_epoch
    for name, tensor in whole.best.items():
        assert torch.equal(tensor, state.best[name])


def test_seeds_matter(tmp_path):
    a, _ = _run(replace(SETTINGS, epochs=1), tmp_path)
    b, _ = _run(replace(SETTINGS, epochs=1, seed=1), tmp_path)
    assert not torch.equal(a.best["head.weight"], b.best["head.weight"])


def test_damaged_checkpoint_is_reported(tmp_path):
    path = tmp_path / "c.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="c.pt"):
        training.load_checkpoint(path, _setup()[0])


def test_checkpoint_with_code_in_it_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    torch.save({"network": Settings(diameter=1)}, path)
    with pytest.raises(InputError, match="c.pt"):
        training.load_checkpoint(path, _setup()[0])


def _judged(found):
    """A state with one record for each list of ranks, and a judge of 20 labels."""
    state, _, _ = _setup()
    state.epochs = [{"epoch": i + 1, "found_at": ranks} for i, ranks in enumerate(found)]
    micrograph = LabelledMicrograph(np.zeros((10, 10), np.float32), NONE, np.zeros((20, 2)))
    state.density = 0.2
    return state, Judge([micrograph], True, 0.2, [])


def test_later_epochs_go_first_unless_clearly_worse():
    best, slightly, clearly = list(range(1, 21)), list(range(1, 20)), [3 * i for i in range(1, 15)]
    state, judge = _judged([best, slightly])
    assert training._is_progress(state, judge)
    state, judge = _judged([best, clearly])
    assert not training._is_progress(state, judge)


def test_training_stops_when_patience_ends_but_not_in_the_warm_up():
    settings = replace(SETTINGS, epochs=20, warm_up=0.5, patience=3)
    state, judge = _judged([[1]] * 12)
    state.best_epoch = 2
    assert not training.is_over(state, judge, settings)
    state.epochs.append({"epoch": 13, "found_at": [1]})
    assert training.is_over(state, judge, settings)


def test_without_held_out_labels_training_goes_to_the_end_and_keeps_the_last(tmp_path):
    state, _ = _run(replace(SETTINGS, patience=1), tmp_path, held_out=False)
    assert state.best_epoch == len(state.epochs) == SETTINGS.epochs


def test_divergence_is_reported(tmp_path):
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(InputError, match="--learning-rate"):
        _run(settings, tmp_path)


def test_autoencoder_reconstructs_better_with_training(tmp_path):
    settings = replace(SETTINGS, autoencoder=1.0, epochs=4, steps=15, learning_rate=5e-3)
    state, sampler, judge = _setup(settings)
    losses = [training.train_epoch(state, sampler, settings, 0.01)[0] for _ in range(4)
              if not state.epochs.append({"epoch": len(state.epochs) + 1, "found_at": []})]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def test_risks_are_scaled_to_weigh_positives_by_one():
    positive, unlabeled = torch.tensor([0.5, -0.5]), torch.tensor([-3.0, 1.0])
    for name in ("pn", "pu", "nnpu"):
        scaled = training.objective_loss(positive, unlabeled, 0.2, replace(SETTINGS, objective=name), None, False)
        assert scaled.item() == pytest.approx(OBJECTIVES[name](positive, unlabeled, 0.2).item() / 0.2)
    warm = training.objective_loss(positive, unlabeled, 0.2, SETTINGS, None, True)
    assert warm.item() == pytest.approx(OBJECTIVES["pn"](positive, unlabeled, 0.2).item() / 0.2)


def test_defaults_follow_the_starting_point_and_the_number_of_labels():
    open_settings = Settings()
    filled = {(scratch, labels): open_settings.filled(scratch, labels, 90.0)
              for scratch in (True, False) for labels in (10, 20)}
    assert {key: (s.epochs, s.learning_rate) for key, s in filled.items()} == {
        (True, 10): (10, 2e-3), (True, 20): (10, 2e-3), (False, 10): (5, 5e-4), (False, 20): (8, 1e-3)}
    assert replace(open_settings, epochs=3, learning_rate=0.1).filled(True, 10, 90.0) == \
        Settings(epochs=3, learning_rate=0.1, diameter=90.0)
