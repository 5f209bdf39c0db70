"""``siamese2d-engine train``."""

import argparse
from dataclasses import asdict
from pathlib import Path

from siamese2d_engine.cli import common
from siamese2d_engine.embedding.networks import NETWORKS
from siamese2d_engine.embedding.presets import PRESETS, resolve
from siamese2d_engine.embedding.recipe_views import VIEWS
from siamese2d_engine.embedding.settings import (
    COMPARISONS,
    FILTERS,
    FIRST_LABELS,
    LOSSES,
    MODES,
    OPTIMIZERS,
    SCHEDULES,
    Architecture,
    Settings,
)
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.particles import read_particles
from siamese2d_engine.runs import Run

NAME = "train"
HELP = "Train a Siamese embedding of particle images."
# Arguments that are settings: their values go by the same names, and None leaves the choice to the preset and the mode.
FIELDS = set(Settings.__dataclass_fields__) | set(Architecture.__dataclass_fields__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("input")
    source.add_argument("--particles", type=Path, required=True, metavar="STAR", help="particles, bright on dark")
    source.add_argument("--pixel-size", type=common.positive_float, default=None, metavar="A",
                        help="angstroms per pixel, where neither the STAR file nor the stacks say")
    source.add_argument("--model", type=Path, default=None, metavar="START",
                        help="a model to continue from; its network and preparation are kept")
    source.add_argument("--backbone", type=Path, default=None, metavar="WEIGHTS",
                        help="a residual network trained on photographs, .pth as torchvision distributes it or "
                        ".safetensors: a ResNet-50 for that network, a ResNet-18 for such first labels. Without it the "
                        "run says what it takes instead")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--preset", choices=tuple(PRESETS), default=None,
                        help="set what is below together; options given explicitly win. aligned-classes: on the "
                        "particles of classify, learns to place new ones without alignment. The others are published "
                        "recipes to compare with: for own data the plain defaults are better")
    _add_similarity(parser.add_argument_group("what is similar"))
    _add_network(parser.add_argument_group("network"))
    _add_training(parser.add_argument_group("training"))
    common.add_run_arguments(parser)


def run(args: argparse.Namespace) -> None:
    # Scikit-learn and pytorch-metric-learning take seconds to import, which the other sub-commands should not pay.
    from siamese2d_engine.embedding.stage import train_embedding

    device = common.prepare(args)
    particles = read_particles(args.particles, args.pixel_size)
    given = {name: value for name, value in vars(args).items() if name in FIELDS and name != "seed"}
    settings, architecture = resolve(args.preset, given, len(particles), args.seed)
    _check(settings, architecture, args.backbone)
    parameters = {**asdict(settings), **asdict(architecture), "pixel_size": args.pixel_size}
    inputs = [args.particles, *(path for path in (args.model, args.backbone) if path)]
    with Run(args.out, NAME, parameters, inputs, args.overwrite) as stage_run:
        if not stage_run.finished:
            train_embedding(stage_run, particles, args.particles, settings, architecture, device, args.model,
                            args.backbone)


def _add_similarity(similar: argparse._ArgumentGroup) -> None:
    similar.add_argument("--mode", choices=MODES, default=None,
                         help="self-supervised (default): two random views of a particle, the best without classes; "
                         "contrastive: members of a k-means cluster, in rounds, for clear images or with --model; "
                         "triplet: members of the class that the STAR file gives in rlnClassNumber")
    similar.add_argument("--loss", choices=tuple(name for names in LOSSES.values() for name in names), default=None,
                         help="the first of those of the mode by default: nt-xent or simsiam (self-supervised), "
                         "contrastive, triplet or supervised-contrastive (triplet)")
    similar.add_argument("--margin", type=common.positive_float, default=None,
                         help="distance at which different particles are at rest: 2 in contrastive, 0.5 (squared, "
                         "between vectors of length 1) in triplet mode")
    similar.add_argument("--comparisons", choices=COMPARISONS, default=None,
                         help="contrastive and triplet: among all particles of a step (batch, default), or of pairs "
                         "and triplets that are drawn singly, as the original recipes do")
    similar.add_argument("--classes", type=common.positive_int, default=None, metavar="K",
                         help=f"clusters of the contrastive mode: {Settings.classes}")
    similar.add_argument("--rounds", type=common.positive_int, default=None,
                         help=f"rounds of clustering and training of the contrastive mode: {Settings.rounds}")
    similar.add_argument("--first-labels", choices=FIRST_LABELS, default=None,
                         help="features for the first clusters of the contrastive mode: invariant to in-plane "
                         "rotation (default), principal components of pixels, for particles that are aligned already, "
                         "or of a ResNet-18 (--backbone)")
    similar.add_argument("--views", choices=VIEWS, default=None,
                         help="what is trained on. halves (default): random views with half of the noise each; plain: "
                         "the images themselves; noisy: with more noise; patches: turned, cropped and jittered, as "
                         "MiLoPYP does. All but the first overfit sooner")
    similar.add_argument("--shift", type=common.fraction, default=None, metavar="F",
                         help=f"largest random shift of a view of halves as a fraction of the box ({Settings.shift}), "
                         "beside the centring; raise it to 0.02 or 0.04 when particles of one view separate by their "
                         "position")


def _add_network(network: argparse._ArgumentGroup) -> None:
    network.add_argument("--network", choices=tuple(NETWORKS), default=None,
                         help="steerable (default): invariant to rotation and mirroring. The others must learn "
                         "rotations. original: the small convolutional one of the first Siamese recipe; resnet50: "
                         "frozen, with a dense head; resnet18: with a 3 x 3 stem")
    network.add_argument("--dimensions", type=common.positive_int, default=None, metavar="D",
                         help="length of the vectors: 32; original 20, resnet50 256, resnet18 128")
    network.add_argument("--hidden", type=common.positive_int, nargs="+", default=None, metavar="WIDTH",
                         help="widths of the dense layers of resnet50 before the last: 512 256")
    network.add_argument("--filters", choices=FILTERS, default=None,
                         help="what the filters of steerable start from: random, or, in triplet mode on the particles "
                         "of an aligned classification, the averages of their classes, which then also centre "
                         "particles")
    network.add_argument("--working-box", type=_working_box, default=None, metavar="PX",
                         help="pixels of the Fourier-cropped images that the network sees "
                         f"({Architecture.working_box}); noise rules beyond 32 to 48")
    network.add_argument("--mask-diameter", type=common.positive_float, default=None, metavar="A",
                         help="diameter of the soft mask; by default the whole box. Set it when neighbours reach into "
                              "the box")
    network.add_argument("--ignore-ctf", dest="phase_flip", action="store_false", default=None,
                         help="do not flip phases, for particles that are flipped already")
    network.add_argument("--centre", action=argparse.BooleanOptionalAction, default=None,
                         help="move particles to their centre first; on unless a preset says otherwise. Turn it off "
                         "for particles that are centred already")


def _add_training(training: argparse._ArgumentGroup) -> None:
    training.add_argument("--epochs", type=common.positive_int, default=None,
                          help="epochs (of each round); by default about 450 steps, and 20 in contrastive mode")
    training.add_argument("--batch-size", type=common.positive_int, default=None,
                          help=f"particles of a step ({Settings.batch_size}), or pairs or triplets that are drawn "
                          "singly; larger ones hold harder comparisons")
    training.add_argument("--optimizer", choices=OPTIMIZERS, default=None,
                          help="adam (default), or sgd with momentum as MiLoPYP")
    training.add_argument("--schedule", choices=SCHEDULES, default=None,
                          help="of the rate: up and down (cosine, default), or constant")
    training.add_argument("--learning-rate", type=common.positive_float, default=None,
                          help="highest rate: 1e-2, in contrastive and triplet mode 5e-3; 5e-4 for the original "
                          "network, 1e-4 resnet50, 1e-3 resnet18. Lower it when the loss jumps")
    training.add_argument("--patience", type=common.positive_int, default=None, metavar="EPOCHS",
                          help=f"stop after so many epochs ({Settings.patience}) without progress on held-out "
                          "particles")
    training.add_argument("--memory", type=common.positive_float, default=None, metavar="GB",
                          help=f"memory for the particles that are trained on ({Settings.memory:g}), of each process; "
                          "of a larger set a random part is trained on, and all are embedded")
    training.add_argument("--plot", action=argparse.BooleanOptionalAction, default=None,
                          help="place up to 2,000 particles in a plane by PCA and t-SNE (map in training.json); on in "
                          "presets")


def _check(settings: Settings, architecture: Architecture, backbone: Path | None) -> None:
    if settings.batch_size < 8:
        raise InputError(f"--batch-size {settings.batch_size}: too small for comparisons within a batch. Give 8 or "
                         "more.")
    if settings.loss not in LOSSES[settings.mode]:
        raise InputError(f"--loss {settings.loss}: not of the mode {settings.mode}, which has "
                         f"{' and '.join(LOSSES[settings.mode])}. Choose one of these, or another --mode.")
    if settings.mode == "self-supervised" and settings.views == "plain":
        raise InputError("--views plain: two equal views of a particle teach nothing. Choose other views for the "
                         "self-supervised mode.")
    if architecture.filters == "averages" and not architecture.centre:
        raise InputError("--no-centre: averages centre particles. Leave this option, or choose --filters random.")
    if architecture.network == "resnet50" and settings.loss == "simsiam":
        raise InputError("--loss simsiam: trains whole networks, not the head of the frozen resnet50. Choose "
                         "--network resnet18, or --loss nt-xent.")
    wanted = architecture.network == "resnet50" or (settings.mode, settings.first_labels) == ("contrastive", "resnet18")
    if backbone and not wanted:
        raise InputError(f"--backbone {backbone}: nothing here uses it. Choose --network resnet50 or, in contrastive "
                         "mode, --first-labels resnet18.")


def _working_box(text: str) -> int:
    value = common.positive_int(text)
    if value % 2 or not 16 <= value <= 128:
        raise argparse.ArgumentTypeError(f"'{text}' is not an even number from 16 to 128")
    return value
