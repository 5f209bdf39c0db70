"""``siamese2d-engine``: one sub-command per stage."""

import argparse
import contextlib
import io
import sys
from importlib import import_module

from siamese2d_engine import __version__, distributed
from siamese2d_engine.errors import InputError, explanation

# Modules by sub-command. Only the one that is asked for is imported: some stages need no torch, which takes seconds.
COMMANDS = {name: name.replace("-", "_") for name in (
    "normalize", "pick-unlabeled", "train-picker", "pick", "extract", "train", "classify", "assign",
    "simulate", "evaluate",
    "export", "check")}
# Those whose work several processes share.
SHARED = ("train-picker", "pick", "train", "classify", "assign")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not of options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Parser with all sub-commands, or `only` one.

    Each module in `COMMANDS` brings NAME, HELP, add_arguments and run.
    """
    parser = argparse.ArgumentParser(
        prog="siamese2d-engine",
        description="From cryo-EM micrographs to aligned 2D classes, on RELION STAR and MRC files.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="stages", metavar="COMMAND", required=True)
    wanted = [only] if only else COMMANDS
    for module in (import_module(f"siamese2d_engine.cli.{COMMANDS[name]}") for name in wanted):
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP,
                                      formatter_class=HelpFormatter)
        module.add_arguments(command)
        command.set_defaults(run_command=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one sub-command.

    Returns
    -------
    int
        0 on success, 2 on bad input (one message on standard error, no traceback).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = arguments[0] if arguments and arguments[0] in COMMANDS else None
    args = _parsed(asked, arguments)
    try:
        if distributed.world() > 1 and asked not in SHARED:
            raise InputError(f"{asked} runs as one process: start it without torchrun. Those that share their work are "
                             f"{', '.join(SHARED)}.")
        with distributed.session():
            args.run_command(args)
    except KeyboardInterrupt:
        return _fail("interrupted. Start the same command again to continue.")
    except Exception as error:
        message = explanation(error)
        if message is None:
            raise
        return _fail(message)
    return 0


def _parsed(asked: str | None, arguments: list[str]) -> argparse.Namespace:
    quiet = contextlib.nullcontext() if distributed.is_main() else contextlib.redirect_stderr(io.StringIO())
    with quiet:
        return build_parser(asked).parse_args(arguments)


def _fail(message: str) -> int:
    print(f"siamese2d-engine: error: {message}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
