"""The stages ``train-picker`` and ``pick``."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from siamese2d_engine import distributed
from siamese2d_engine.devices import seeded_generator
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import write_json
from siamese2d_engine.io.coordinates import SCORE, X, Y, group_by_micrograph
from siamese2d_engine.io.micrographs import NAME, MicrographSet
from siamese2d_engine.io.models import save_model
from siamese2d_engine.io.star import read_star, write_star
from siamese2d_engine.picking.calibration import fit_calibration, probability
from siamese2d_engine.picking.candidates import find_candidates, from_micrograph, to_micrograph
from siamese2d_engine.picking.contrast import are_bright
from siamese2d_engine.picking.diameter import estimate_diameter
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.gap import Gap, gap_at
from siamese2d_engine.picking.judge import Judge
from siamese2d_engine.picking.model import Picker, load_picker, load_weights, shipped_weights
from siamese2d_engine.picking.network import ARCHITECTURES, PickerNetwork
from siamese2d_engine.picking.output import joined, write_picks
from siamese2d_engine.picking.precision_recall import Ranking, average_precision, best_threshold, curve_points
from siamese2d_engine.picking.preparation import PreparedMicrograph, prepare_micrograph
from siamese2d_engine.picking.prior import starting_guess
from siamese2d_engine.picking.sampling import LabelledMicrograph, Sampler
from siamese2d_engine.picking.settings import Settings
from siamese2d_engine.picking.splitting import held_out_labels
from siamese2d_engine.picking.training import State, load_checkpoint, run_epochs, start
from siamese2d_engine.progress import progress, work
from siamese2d_engine.runs import Run

# Prepared micrographs are kept in memory; more unlabeled ones than this teach nothing new.
MOST_MICROGRAPHS = 200
# Labelled micrographs in which particles are counted when their number is not given.
MOST_COUNTED = 20
# Probability below which a candidate is not worth a row.
FLOOR = 1e-4
# Where the first weights come from.
MODEL, SHIPPED, RANDOM = "model", "shipped weights", "random weights"
NO_LABELS = np.zeros((0, 2))


def train_picker(run: Run, micrographs: MicrographSet, coordinates: pd.DataFrame, settings: Settings,
                 device: torch.device, model: Path | None = None) -> None:
    """Train a picker into the run's folder: ``picker.safetensors`` and ``training.json``.

    Parameters
    ----------
    micrographs : MicrographSet
        Those with labels, and others as further unlabeled data.
    coordinates : DataFrame
        Labelled particles in pixels of these micrographs; need not be complete.
    model : path, optional
        A picker to continue from.

    Raises
    ------
    InputError
        If labels, micrographs and diameter do not suit each other.
    """
    groups = group_by_micrograph(coordinates, micrographs)
    _warn_of_strangers(run, coordinates, groups)
    first = load_picker(model, device) if model else None
    starting_point = _starting_point(settings, model)
    settings = _filled(settings, first, micrographs, groups, starting_point)
    prepared, labels = _prepare_all(run, micrographs, groups, settings)
    training, judge = _divide(prepared, labels, settings)
    network = first.network if first else _new_network(settings, starting_point, prepared, labels, device)
    sampler = Sampler(training, network.architecture, hidden_radius=WORKING_DIAMETER / 2)
    state = start(network, settings, _density(prepared, settings))
    checkpoint = run.path("checkpoint.pt")
    if checkpoint.exists():
        load_checkpoint(checkpoint, state)
        print(f"train-picker: continues after epoch {len(state.epochs)}", flush=True)
    run_epochs(state, sampler, settings, checkpoint, judge, lambda record: _in_words(record, state, judge))
    _write_results(run, state, judge, settings, prepared, labels, starting_point)
    if distributed.is_main():
        checkpoint.unlink()


def _filled(settings: Settings, first: Picker | None, micrographs: MicrographSet, groups: list[pd.DataFrame],
            starting_point: str) -> Settings:
    """The settings with nothing left open: the diameter is that of the picker to continue from, else estimated."""
    diameter = settings.diameter
    if diameter is None:
        diameter = first.diameter if first else estimate_diameter(micrographs, groups)
        print(f"train-picker: particle diameter {diameter:g} A", flush=True)
    return settings.filled(starting_point == RANDOM, sum(map(len, groups)), diameter)


def _warn_of_strangers(run: Run, coordinates: pd.DataFrame, groups: list[pd.DataFrame]) -> None:
    strangers = len(coordinates) - sum(map(len, groups))
    if strangers:
        run.warn(f"{strangers} of {len(coordinates)} coordinates belong to micrographs that were not given; they are "
                 "not used.")


def _prepare_all(run: Run, micrographs: MicrographSet, groups: list[pd.DataFrame],
                 settings: Settings) -> tuple[list[PreparedMicrograph], list[np.ndarray]]:
    """Prepared micrographs and their labels in working pixels: all labelled ones, and others at random."""
    labelled = np.array([len(g) > 0 for g in groups])
    order = np.random.default_rng(settings.seed).permutation(np.flatnonzero(~labelled))
    others = order[:max(0, MOST_MICROGRAPHS - int(labelled.sum()))]
    prepared, labels, first_failure = [], [], None
    for i in progress(sorted([*np.flatnonzero(labelled), *others]), "prepare"):
        try:
            item = prepare_micrograph(micrographs.paths[i], float(micrographs.pixel_sizes[i]), settings.diameter)
        except InputError as error:
            first_failure = first_failure or str(error)
            run.warn(str(error))
            continue
        prepared.append(item)
        labels.append(from_micrograph(groups[i][[X, Y]].to_numpy(float), item.scale))
    if not any(map(len, labels)):
        raise InputError(f"None of the labelled micrographs can be used. {first_failure}")
    return prepared, labels


def _divide(prepared: list[PreparedMicrograph], labels: list[np.ndarray],
            settings: Settings) -> tuple[list[LabelledMicrograph], Judge]:
    """Micrographs to train on, and the judge with the held-out labels."""
    hidden = held_out_labels([len(xy) for xy in labels], settings.held_out, settings.seed)
    parts = [LabelledMicrograph(p.image, xy[~h], xy[h]) for p, xy, h in zip(prepared, labels, hidden)]
    guess = starting_guess([len(xy) for xy in labels], [p.image.size for p in prepared])
    census = [LabelledMicrograph(p.image, NO_LABELS, xy) for p, xy in zip(prepared, labels) if len(xy)][:MOST_COUNTED]
    if not any(h.any() for h in hidden):
        return parts, Judge(census, False, guess, census, _smallest(settings))
    # A micrograph with nothing but held-out labels is not trained on at all.
    training = [p for p in parts if len(p.labels) or not len(p.hidden)]
    return training, Judge([p for p in parts if len(p.hidden)], True, guess, census, _smallest(settings))


def _smallest(settings: Settings) -> float:
    """Diameter of the smallest particles over that of the largest."""
    return 1.0 if settings.smallest is None else settings.smallest / settings.diameter


def _density(prepared: list[PreparedMicrograph], settings: Settings) -> float | None:
    if settings.expected is None:
        return None
    return settings.expected / float(np.mean([p.image.size for p in prepared]))


def _starting_point(settings: Settings, model: Path | None) -> str:
    """Where the first weights come from; the shipped ones are for one architecture only."""
    if model is not None:
        return MODEL
    return RANDOM if settings.from_scratch or not shipped_weights(settings.network).exists() else SHIPPED


def _new_network(settings: Settings, starting_point: str, prepared: list[PreparedMicrograph], labels: list[np.ndarray],
                 device: torch.device) -> PickerNetwork:
    if starting_point == RANDOM:
        network = PickerNetwork(ARCHITECTURES[settings.network])
        network.initialise(seeded_generator(settings.seed, 0))
        return network.to(device)
    network = load_weights(shipped_weights(settings.network))
    if are_bright([p.image for p in prepared], labels):
        print("train-picker: particles are bright, the shipped weights are inverted", flush=True)
        network.invert()
    return network.to(device)


def _in_words(record: dict, state: State, judge: Judge) -> str:
    text = f"loss {record['loss']:.4g}"
    if not judge.has_held_out:
        return text
    return f"{text}, held-out average precision {judge.average_precision(record['found_at'], state.density):.3f}"


def _write_results(run: Run, state: State, judge: Judge, settings: Settings, prepared: list[PreparedMicrograph],
                   labels: list[np.ndarray], starting_point: str) -> None:
    network = state.average
    network.load_state_dict(state.best)
    logits = judge.ranking(network)
    survey = judge.survey(network, orientations=4)
    if not distributed.is_main():
        return
    density = survey.density if settings.expected is None else state.density
    expected = judge.expected(density)
    calibration = _calibration(survey.gap, logits, judge, expected)
    ranking = Ranking(probability(logits.scores, calibration), logits.hits, logits.labels)
    threshold = best_threshold(ranking, expected) if judge.has_held_out and not survey.gap else 0.5
    record = {
        "epochs": [_public(epoch, judge, density) for epoch in state.epochs],
        "best_epoch": state.best_epoch,
        "start": starting_point,
        "objective": settings.objective,
        "diameter": settings.diameter,
        "prior": judge.prior(density),
        "expected_particles": density * float(np.mean([p.image.size for p in prepared])),
        "expected_particles_estimated": settings.expected is None,
        "labels": sum(map(len, labels)),
        "held_out_labels": ranking.labels if judge.has_held_out else 0,
        "held_out_average_precision": _average_precision(ranking, expected) if judge.has_held_out else None,
        "threshold": threshold,
        "threshold_in_gap": survey.gap is not None,
        "precision_recall": curve_points(ranking, expected),
    }
    picker = Picker(network, settings.diameter, calibration, threshold, _smallest(settings))
    trained = {**asdict(settings), "best_epoch": state.best_epoch, "prior": record["prior"]}
    header = {**picker.header(), "training": trained, "precision_recall": record["precision_recall"]}
    save_model(run.path("picker.safetensors"), header, network.state_dict())
    write_json(run.path("training.json"), record)
    run.results.update({key: record[key] for key in ("best_epoch", "expected_particles", "threshold",
                                                     "held_out_average_precision")})


def _calibration(gap: Gap | None, logits: Ranking, judge: Judge, expected: float) -> tuple[float, float]:
    """By the gap, which is clearer than a few held-out labels; else by these; else by the number of particles alone."""
    if gap is None and judge.has_held_out:
        return fit_calibration(logits, expected)
    return (gap or gap_at(logits, expected)).calibration()


def _average_precision(ranking: Ranking, expected: float) -> float:
    return average_precision([int(i) + 1 for i in np.flatnonzero(ranking.hits)], ranking.labels, expected)


def _public(epoch: dict, judge: Judge, density: float) -> dict:
    held_out = judge.average_precision(epoch["found_at"], density) if judge.has_held_out else None
    return {"epoch": epoch["epoch"], "loss": epoch["loss"], "penalty": epoch["penalty"],
            "held_out_average_precision": held_out}


def pick(run: Run, micrographs: MicrographSet, picker: Picker, threshold: float | None = None) -> None:
    """Pick particles into the run's folder: ``candidates.star``, ``coordinates.star``, ``picking.json``.

    Scores of each micrograph are kept in ``candidates/<stem>.star``; another start only reads them.

    Parameters
    ----------
    picker : Picker
    threshold : float, optional
        Smallest score of a picked particle; by default the model's.

    Raises
    ------
    InputError
        If no micrograph can be picked.
    """
    threshold = picker.threshold if threshold is None else threshold
    paths = [run.path("candidates", f"{name}.star") for name in micrographs.names]
    failed = _score(run, micrographs, picker, paths)
    if not distributed.is_main():
        return
    tables = [failed[i] if i in failed else _read_candidates(run, path) for i, path in enumerate(paths)]
    write_picks(run, micrographs.names, tables, joined(tables), threshold, FLOOR,
                "Lower --threshold, or train the picker on labels of these micrographs.")


def _score(run: Run, micrographs: MicrographSet, picker: Picker, paths: list[Path]) -> dict[int, InputError]:
    """Write the candidates of the micrographs that have none yet, and say which failed; processes share them."""
    left = distributed.from_main(lambda: [i for i, path in enumerate(paths) if not path.exists()])
    mine, failed = distributed.share(left), {}
    with work("pick", len(paths) - len(left) + len(mine), "micrograph", done=len(paths) - len(left)) as meter:
        for i in mine:
            try:
                write_star(paths[i], {"coordinates": _candidates(micrographs, i, picker)})
            except InputError as error:
                run.warn(str(error))
                failed[i] = error
            meter.advance()
    main, *others = distributed.gather(failed)
    for error in (error for part in others for error in part.values()):
        run.warn(str(error))
    return {i: error for part in (main, *others) for i, error in part.items()}


def _candidates(micrographs: MicrographSet, i: int, picker: Picker) -> pd.DataFrame:
    prepared = prepare_micrograph(micrographs.paths[i], float(micrographs.pixel_sizes[i]), picker.diameter)
    found = find_candidates(picker.network, prepared.image, picker.floor_logit(FLOOR), smallest=picker.smallest)
    return _table(str(micrographs.table[NAME].iloc[i]), found, prepared, picker)


def _read_candidates(run: Run, path: Path) -> pd.DataFrame | InputError:
    try:
        table = next(iter(read_star(path).values()))
    except InputError as error:
        run.warn(str(error))
        return error
    return table.astype({NAME: str, X: float, Y: float, SCORE: float})


def _table(name: str, found: np.ndarray, prepared: PreparedMicrograph, picker: Picker) -> pd.DataFrame:
    xy = to_micrograph(found[:, :2], prepared.scale)
    return pd.DataFrame({NAME: [name] * len(xy), X: xy[:, 0].round(2), Y: xy[:, 1].round(2),
                         SCORE: probability(found[:, 2], picker.calibration).round(6)})
