"""STAR files: tables by block name, read and written by the starfile library, with errors a user can act on."""

import os
from pathlib import Path

import pandas as pd
import starfile

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path

TEXT_COLUMNS = (
    "rlnMicrographName", "rlnImageName", "rlnImageOriginalName", "rlnOpticsGroupName", "rlnCtfImage", "rlnGroupName",
    "rlnMtfFileName", "rlnReferenceImage",
)


def read_star(path: str | os.PathLike) -> dict[str, pd.DataFrame]:
    """Read all blocks of a STAR file.

    Returns
    -------
    dict of str to DataFrame
        By block name without ``data_`` (the single block of RELION 3.0 files is named ``""``). A simple block (no loop)
        becomes a table of one row.

    Raises
    ------
    InputError
        If the file is missing, is not STAR, or a row has another number of values than the columns.
    """
    path = Path(path)
    try:
        _check_rows(path)
        blocks = starfile.read(path, always_dict=True, parse_as_string=list(TEXT_COLUMNS))
    except FileNotFoundError as error:
        raise InputError(f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}.") \
            from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable STAR file ({_first_line(error)}).") from error
    if not blocks:
        raise InputError(f"{path}: no data block found; this is not a STAR file, or it is empty.")
    return {name: _as_table(block) for name, block in blocks.items()}


def write_star(path: str | os.PathLike, blocks: dict[str, pd.DataFrame]) -> None:
    """Write tables as loops of one STAR file, atomically."""
    with atomic_path(path) as partial:
        starfile.write(blocks, partial, float_format="%.6f", sep=" ", na_rep="<NA>")


def _as_table(block) -> pd.DataFrame:
    return pd.DataFrame([block]) if isinstance(block, dict) else block


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_rows(path: Path) -> None:
    """Name the first row of a loop whose number of values differs from the number of its columns."""
    columns, in_loop = 0, False
    with open(path, errors="strict") as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if text.startswith("data_"):
                in_loop, columns = False, 0
            elif text.startswith("loop_"):
                in_loop, columns = True, 0
            elif in_loop and text.startswith("_"):
                columns += 1
            elif in_loop and text and not text.startswith("#"):
                if "\0" in text:
                    raise InputError(f"{path}, line {number}: not text. The file is damaged; write it again.")
                values = len(_split(text))
                if values != columns:
                    raise InputError(f"{path}, line {number}: {values} values for {columns} columns. The file is "
                                     "truncated or damaged there; mend or remove this row.")


def _split(row: str) -> list[str]:
    """Values of a row; a '#' starts a comment, quotes hold a value together."""
    if "'" not in row and '"' not in row:
        return row.split(" #")[0].split()
    values, value, quote = [], "", ""
    for character in row + " ":
        if quote:
            quote = "" if character == quote else quote
            value += character
        elif character in "'\"" and not value:
            quote, value = character, character
        elif character.isspace():
            if value:
                values.append(value)
            value = ""
        else:
            value += character
    return values + ([value] if value else [])
