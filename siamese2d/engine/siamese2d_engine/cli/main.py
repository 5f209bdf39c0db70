"""``siamese2d-engine``: one sub-command per stage."""

import argparse
import errno
import os
import sys
from importlib import import_module

from siamese2d_engine import __version__
from siamese2d_engine.errors import InputError

# Modules by sub-command. Only the one that is asked for is imported: some stages need no torch, which takes seconds.
COMMANDS = {name: name.replace("-", "_") for name in (
    "normalize", "pick-unlabeled", "train-picker", "pick", "extract", "train", "classify", "assign", "simulate", "evaluate",
    "check")}


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
    args = build_parser(asked).parse_args(arguments)
    try:
        args.run_command(args)
    except InputError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted. Start the same command again to continue.")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        return _fail(_disk_message(error))
    return 0


def _fail(message: str) -> int:
    print(f"siamese2d-engine: error: {message}", file=sys.stderr, flush=True)
    return 2


def _disk_message(error: OSError) -> str:
    where = error.filename or "the output folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: the disk is full ({os.strerror(error.errno)}). Free some space and start the same command again."
    return f"{where}: can't be read or written ({os.strerror(error.errno)}). Check its permissions, or choose another folder."


if __name__ == "__main__":
    sys.exit(main())
