"""Tables of STAR files as rows of plain values.

Scipion's own reader decides from a table's first row whether values are quoted, which breaks on file names with spaces
further down; the tables that cross to the engine are simple enough to be read and written here.
"""

import os
import shlex

from pyworkflow.exceptions import ValidationException


def writeTables(path, tables):
    """Write loops into one STAR file, which appears whole or not at all.

    Parameters
    ----------
    path : str
        File to write.
    tables : dict of str to list of dict
        Rows by block name; all rows of a table have the same columns.
    """
    partial = f"{path}.partial"
    with open(partial, "w") as star:
        for block, rows in tables.items():
            star.write(f"data_{block}\n\nloop_\n")
            columns = list(rows[0]) if rows else []
            star.writelines(f"_{column} #{number}\n" for number, column in enumerate(columns, start=1))
            star.writelines(" ".join(_asText(row[column]) for column in columns) + "\n" for row in rows)
            star.write("\n")
    os.replace(partial, path)


def readTable(path, block=None):
    """Read one loop of a STAR file.

    Parameters
    ----------
    path : str
        STAR file.
    block : str, optional
        Name without ``data_``; where it is None, the first block apart from ``optics``.

    Yields
    ------
    dict of str to str
        The values of a row by column.

    Raises
    ------
    ValidationException
        If the file or the block is missing.
    """
    if not os.path.exists(path):
        raise ValidationException(f"{path}: this table is missing. Start the protocol again to make it.")
    with open(path) as star:
        try:
            yield from parseTable(star, block)
        except LookupError:
            raise ValidationException(f"{path}: there is no table {block or ''} in this file. Start the protocol "
                                      "again to make it.") from None


def parseTable(lines, block=None):
    """Rows of one loop among the lines of a STAR file, as `readTable`; LookupError if the block is missing."""
    columns, inBlock, found = [], False, False
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        if line.startswith("data_"):
            if inBlock:
                return
            inBlock = line != "data_optics" if block is None else line == f"data_{block}"
            found, columns = found or inBlock, []
        elif inBlock and line.startswith("_"):
            columns.append(line.split()[0][1:])
        elif inBlock and columns:
            yield dict(zip(columns, _split(line)))
    if not found:
        raise LookupError(block)


def _asText(value):
    if isinstance(value, float):
        return f"{value:.6f}"
    text = str(value)
    return f'"{text}"' if not text or any(character.isspace() for character in text) else text


def _split(line):
    return shlex.split(line) if '"' in line or "'" in line else line.split()
