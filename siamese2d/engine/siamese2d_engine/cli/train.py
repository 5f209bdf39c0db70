"""``siamese2d-engine train``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.embedding.networks import NETWORKS
from siamese2d_engine.embedding.settings import FIRST_LABELS, MODES, Architecture, Settings, default_epochs
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.runs import Run

NAME = "train"
HELP = "Train a Siamese embedding of particle images."
# What suits each network and mode; the rates and sizes of the original network are those of its recipe.
LEARNING_RATES = {
    "steerable": {"self-supervised": 1e-2, "contrastive": 5e-3, "triplet": 5e-3},
    "original": {"self-supervised": 5e-4, "contrastive": 5e-4, "triplet": 5e-4},
}
DIMENSIONS = {"steerable": Architecture.dimensions, "original": 20}
MARGINS = {"self-supervised": 0.0, "contrastive": 2.0, "triplet": 0.5}
CONTRASTIVE_EPOCHS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("input")
    source.add_argument("--particles", type=Path, required=True, metavar="STAR", help="particles, bright on dark")
    source.add_argument("--pixel-size", type=common.positive_float, default=None, metavar="A",
                        help="angstroms per pixel, where neither the STAR file nor the stacks say")
    source.add_argument("--model", type=Path, default=None, metavar="START",
                        help="a model to continue from; its network and preparation are kept")
    similar = parser.add_argument_group("what is similar")
    similar.add_argument("--mode", choices=MODES, default="self-supervised",
                         help="self-supervised: two random views of a particle, the best without classes; contrastive: "
                         "members of a k-means cluster, in rounds, for clear images or with --model; triplet: members "
                         "of the class that the STAR file gives in rlnClassNumber")
    similar.add_argument("--margin", type=common.positive_float, default=None,
                         help="distance at which different particles are at rest: 2 in contrastive, 0.5 (squared, "
                         "between vectors of length 1) in triplet mode")
    similar.add_argument("--classes", type=common.positive_int, default=Settings.classes, metavar="K",
                         help="clusters of the contrastive mode")
    similar.add_argument("--rounds", type=common.positive_int, default=Settings.rounds,
                         help="rounds of clustering and training of the contrastive mode")
    similar.add_argument("--first-labels", choices=FIRST_LABELS, default=Settings.first_labels,
                         help="features for the first clusters of the contrastive mode: invariant to in-plane "
                         "rotation, or principal components of pixels, for particles that are aligned already")
    similar.add_argument("--plain-views", action="store_true",
                         help="contrastive and triplet: train on the images themselves, as the original recipes do, "
                         "not on random views with half of the noise each; overfits sooner")
    similar.add_argument("--shift", type=common.fraction, default=Settings.shift, metavar="F",
                         help="largest random shift of a view as a fraction of the box, beside the centring; raise it "
                         "to 0.02 or 0.04 when particles of one view separate by their position")
    network = parser.add_argument_group("network")
    network.add_argument("--network", choices=tuple(NETWORKS), default=Architecture.network,
                         help="steerable: invariant to rotation and mirroring; original: the small convolutional "
                         "network of the first Siamese recipe, which must learn rotations")
    network.add_argument("--dimensions", type=common.positive_int, default=None, metavar="D",
                         help="length of the vectors: 32, of the original network 20")
    network.add_argument("--working-box", type=_working_box, default=Architecture.working_box, metavar="PX",
                         help="pixels of the Fourier-cropped images that the network sees; noise rules beyond 32 to 48")
    network.add_argument("--mask-diameter", type=common.positive_float, default=None, metavar="A",
                         help="diameter of the soft mask; by default the whole box. Set it when neighbours reach into "
                              "the box")
    network.add_argument("--ignore-ctf", action="store_true",
                         help="do not flip phases, for particles that are flipped already")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=common.positive_int, default=None,
                          help="epochs (of each round); by default about 450 steps, and 20 in contrastive mode")
    training.add_argument("--batch-size", type=common.positive_int, default=Settings.batch_size,
                          help="particles of a step; larger ones hold harder comparisons")
    training.add_argument("--learning-rate", type=common.positive_float, default=None,
                          help="highest rate of Adam: 1e-2, in contrastive and triplet mode 5e-3; 5e-4 for the "
                          "original network. Lower it when the loss jumps")
    training.add_argument("--patience", type=common.positive_int, default=Settings.patience, metavar="EPOCHS",
                          help="stop after so many epochs without progress on held-out particles")
    common.add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    # Scikit-learn and pytorch-metric-learning take seconds to import, which the other sub-commands should not pay.
    from siamese2d_engine.embedding.stage import train_embedding

    device = common.prepare(args)
    particles = read_particles(args.particles, args.pixel_size)
    batch_size = args.batch_size
    if batch_size < 8:
        raise InputError(f"--batch-size {batch_size}: too small for comparisons within a batch. Give 8 or more.")
    epochs = args.epochs or (CONTRASTIVE_EPOCHS if args.mode == "contrastive" else
                             default_epochs(len(particles), batch_size))
    settings = Settings(
        mode=args.mode, epochs=epochs, batch_size=batch_size,
        learning_rate=args.learning_rate or LEARNING_RATES[args.network][args.mode],
        margin=args.margin or MARGINS[args.mode],
        shift=args.shift, random_views=not args.plain_views, classes=args.classes, rounds=args.rounds,
        first_labels=args.first_labels, patience=args.patience, seed=args.seed,
    )
    architecture = Architecture(args.network, args.dimensions or DIMENSIONS[args.network], args.working_box,
                                not args.ignore_ctf, args.mask_diameter)
    parameters = {**asdict(settings), **asdict(architecture), "pixel_size": args.pixel_size}
    inputs = [args.particles] + ([args.model] if args.model else [])
    with Run(args.out, NAME, parameters, inputs, args.overwrite) as stage_run:
        if not stage_run.finished:
            train_embedding(stage_run, particles, args.particles, settings, architecture, device, args.model)


def _working_box(text: str) -> int:
    value = common.positive_int(text)
    if value % 2 or not 16 <= value <= 128:
        raise argparse.ArgumentTypeError(f"'{text}' is not an even number from 16 to 128")
    return value
