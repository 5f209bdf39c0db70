"""``siamese2d-engine train-picker``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.coordinates import read_coordinates
from siamese2d_engine.io.micrographs import read_micrographs
from siamese2d_engine.picking.network import ARCHITECTURES
from siamese2d_engine.picking.objectives import DEFAULT_WEIGHTS, OBJECTIVES
from siamese2d_engine.picking.settings import FEW_LABELS, FROM_SCRATCH, FROM_WEIGHTS, Settings
from siamese2d_engine.picking.stage import train_picker
from siamese2d_engine.runs import Run

NAME = "train-picker"
HELP = "Train a particle picker on some labelled coordinates and whole micrographs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("input")
    common.add_micrographs(inputs)
    inputs.add_argument("--coordinates", type=Path, required=True, metavar="FILE",
                        help="some particles in pixels of these micrographs, 10 or more (100 are plenty), not "
                        "necessarily all of them: STAR, CSV or TSV")
    inputs.add_argument("--model", type=Path, default=None, metavar="START",
                        help="a picker to continue from; without it training starts from the weights that come with "
                        "the engine")
    inputs.add_argument("--from-scratch", action="store_true",
                        help="start from random weights; try it for particles that look like nothing in the shipped "
                        "weights' simulated micrographs, such as filaments. There are none for the small and the "
                        "large network")
    particle = parser.add_argument_group("particle")
    particle.add_argument("--diameter", type=common.positive_float, nargs="+", default=None, metavar="A",
                          help="particle diameter in angstroms, the longest for elongated ones; by default estimated "
                          "from the labels. Give it when the estimate in training.json is far off. Two numbers, the "
                          "smallest and the largest, for particles of several sizes: labels of all of them are "
                          "learned, and picks may lie as close as the smallest allow")
    particle.add_argument("--expected-particles", type=common.positive_float, default=Settings.expected, metavar="N",
                          help="particles in an average micrograph; by default estimated from the labels. Give it when "
                          "the estimate in training.json is far off")
    objective = parser.add_argument_group("objective")
    objective.add_argument("--objective", choices=tuple(OBJECTIVES), default=Settings.objective,
                           help="what to make of unlabeled pixels: pn takes all for background, which ranks best as "
                           "long as particles cover little of the micrographs; nnpu and pu correct for hidden "
                           "particles, ge-binomial and ge-kl hold their number to the expected one: try these where "
                           "particles are so dense that most of the background is particles")
    weights = ", ".join(f"{name} {weight:g}" for name, weight in DEFAULT_WEIGHTS.items())
    objective.add_argument("--penalty-weight", type=common.positive_float, default=Settings.weight, metavar="W",
                           help=f"weight of the penalty of the two ge objectives (by default {weights}); lower it when "
                           "the expected number is uncertain")
    objective.add_argument("--autoencoder", type=common.non_negative_float, default=Settings.autoencoder,
                           metavar="GAMMA", help="weight of reconstructing the picture from the features; 10 / labels "
                           "may help with few labels and --from-scratch, not with the shipped weights")
    objective.add_argument("--warm-up", type=common.fraction, default=Settings.warm_up, metavar="F",
                           help="share of the epochs, at the start, in which unlabeled pixels are taken for "
                           "background; without it the objectives other than pn tend to discover contamination")
    network = parser.add_argument_group("network")
    fields = ", ".join(f"{name} {a.receptive_field / 20:.1f}" for name, a in ARCHITECTURES.items())
    network.add_argument("--network", choices=tuple(ARCHITECTURES), default=Settings.network,
                         help=f"receptive field in particle diameters: {fields}; the small one is faster and blind to "
                         "surroundings such as carbon. Not used with --model")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=common.positive_int, default=Settings.epochs,
                          help=f"most epochs, by default {FROM_WEIGHTS[0]}, with fewer than 20 labels {FEW_LABELS[0]}, "
                          f"from random weights {FROM_SCRATCH[0]}; raise it for large or difficult sets")
    training.add_argument("--steps", type=common.positive_int, default=Settings.steps, help="steps of an epoch")
    training.add_argument("--windows", type=common.positive_int, default=Settings.windows,
                          help="windows around labels in a step")
    training.add_argument("--crops", type=common.positive_int, default=Settings.crops,
                          help="crops of unlabeled micrographs in a step")
    training.add_argument("--sample", type=common.positive_int, default=Settings.sample, metavar="N",
                          help="unlabeled pixels whose number of particles is compared with the binomial distribution")
    training.add_argument("--learning-rate", type=common.positive_float, default=Settings.learning_rate,
                          help=f"highest rate of Adam, by default {FROM_WEIGHTS[1]:g}, with fewer than 20 labels "
                          f"{FEW_LABELS[1]:g}, from random weights {FROM_SCRATCH[1]:g}; lower it when training "
                          "diverges")
    training.add_argument("--weight-decay", type=common.non_negative_float, default=Settings.weight_decay,
                          help="decay of the weights per unit of learning rate")
    training.add_argument("--held-out", type=common.fraction, default=Settings.held_out, metavar="F",
                          help="share of the labels kept for choosing the epoch and the threshold: whole micrographs "
                          "where four or more are labelled; none are kept of fewer than 20 labels")
    training.add_argument("--patience", type=common.positive_int, default=Settings.patience, metavar="EPOCHS",
                          help="stop after so many epochs without progress on held-out labels")
    common.add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    if args.model and args.from_scratch:
        raise InputError("--model and --from-scratch contradict each other. Give one of them.")
    if args.diameter and (len(args.diameter) > 2 or args.diameter[0] > args.diameter[-1]):
        raise InputError("--diameter: give one number, or two: the smallest and the largest.")
    device = common.prepare(args)
    settings = Settings(
        diameter=args.diameter[-1] if args.diameter else None,
        smallest=args.diameter[0] if args.diameter and len(args.diameter) > 1 else None,
        expected=args.expected_particles, objective=args.objective, weight=args.penalty_weight,
        autoencoder=args.autoencoder, network=args.network, from_scratch=args.from_scratch, epochs=args.epochs,
        steps=args.steps, warm_up=args.warm_up,
        windows=args.windows, crops=args.crops, sample=args.sample, learning_rate=args.learning_rate,
        weight_decay=args.weight_decay, patience=args.patience, held_out=args.held_out, seed=args.seed,
    )
    inputs = [*args.micrographs, args.coordinates, *([args.model] if args.model else [])]
    with Run(args.out, NAME, {**asdict(settings), "pixel_size": args.pixel_size}, inputs, args.overwrite) as stage_run:
        if not stage_run.finished:
            micrographs = read_micrographs(args.micrographs, args.pixel_size)
            train_picker(stage_run, micrographs, read_coordinates(args.coordinates), settings, device, args.model)
