"""Make the weights that the picker starts from, out of simulated micrographs.

    python -m siamese2d_engine.picking.pretrain --out medium.safetensors

takes about 20 minutes on one core. Stopped, or with ``--until``, it leaves ``OUT.checkpoint`` and the same command
goes on from there; the result depends on nothing but the options.
"""

import argparse
from pathlib import Path

import torch

from siamese2d_engine.cli import common
from siamese2d_engine.devices import set_threads
from siamese2d_engine.picking.model import save_weights
from siamese2d_engine.picking.network import ARCHITECTURES
from siamese2d_engine.picking.pretrain.scenes import make_scenes
from siamese2d_engine.picking.pretrain.training import CHECKED, average_precision, begin, load, save, train_epoch
from siamese2d_engine.progress import work


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m siamese2d_engine.picking.pretrain", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the weights go")
    parser.add_argument("--network", choices=tuple(ARCHITECTURES), default="medium")
    parser.add_argument("--epochs", type=common.positive_int, default=24)
    parser.add_argument("--until", type=common.positive_int, default=None, metavar="EPOCH",
                        help="stop after this epoch, to go on later")
    parser.add_argument("--seed", type=common.positive_int, default=1)
    parser.add_argument("--threads", type=common.positive_int, default=1)
    args = parser.parse_args()
    set_threads(args.threads)
    pretrain(args.out, args.network, args.epochs, args.until or args.epochs, args.seed)


def pretrain(out: Path, network: str, epochs: int, until: int, seed: int) -> None:
    """Train up to the epoch `until` of `epochs` and write the weights."""
    state, checkpoint = begin(network, seed), out.with_name(f"{out.name}.checkpoint")
    if checkpoint.exists():
        load(checkpoint, state)
    checked = make_scenes(seed, -1, CHECKED)
    with work("pretrain", epochs, "epoch", done=state.epoch) as meter:
        while state.epoch < min(epochs, until):
            loss = train_epoch(state, epochs, seed)
            save(checkpoint, state)
            meter.advance(detail=f"loss {loss:.4f}, average precision on other micrographs "
                                 f"{average_precision(state.average, checked):.3f}")
    save_weights(out, state.average, {"epoch": state.epoch, "epochs": epochs, "seed": seed})


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    main()
