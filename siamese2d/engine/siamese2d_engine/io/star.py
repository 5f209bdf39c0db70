"""STAR files: tables by block name, with errors a user can act on.

The dialect is RELION's: blocks of one loop or of single values, one row per line. Beyond it, values may be quoted, so
that names with spaces, ``#`` or quotes survive. The starfile library (0.5.13) does not serve here: it changes
``it's.mrc`` to ``it"s.mrc``, reads ``a#b.mrc`` as ``a``, and writes the time into every file.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path

# Columns that stay text even when all their values look like numbers.
TEXT_COLUMNS = (
    "rlnMicrographName",
    "rlnImageName",
    "rlnImageOriginalName",
    "rlnOpticsGroupName",
    "rlnCtfImage",
    "rlnGroupName",
    "rlnMtfFileName",
    "rlnReferenceImage",
)
MISSING = "<NA>"
# Tables of cryoSPARC have some hundreds; each costs time even without rows.
MOST_COLUMNS = 4000
# A quote ends a value only before a space, so that "it's" needs no care; an unquoted # begins a comment.
QUOTED = {quote: re.compile(rf"{quote}(?=\s|$)") for quote in "'\""}
PLAIN = re.compile(r"\S+")
SPACE = re.compile(r"\s*")
# In values that would not read back as they are.
SPECIAL = re.compile(r"""\s|^['"#_]|^data_|^loop_""")


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
    blocks = _parse(path, _lines(path))
    if not blocks:
        raise InputError(f"{path}: no data block found; this is not a STAR file, or it is empty.")
    return {name: block.table() for name, block in {block.name: block for block in blocks}.items()}


def write_star(path: str | os.PathLike, blocks: dict[str, pd.DataFrame]) -> None:
    """Write tables as loops of one STAR file, atomically. The same tables give the same bytes."""
    with atomic_path(path) as partial:
        with open(partial, "w", encoding="utf-8") as stream:
            for name, table in blocks.items():
                stream.write(f"\n# version 30001\n\ndata_{name}\n\nloop_\n")
                stream.writelines(f"_{column} #{number}\n" for number, column in enumerate(table.columns, start=1))
                stream.writelines(" ".join(row) + "\n" for row in zip(*(_texts(table[column]) for column in table)))
                stream.write("\n")


@dataclass
class _Block:
    """One data block while it is read; the columns are the keys of a dictionary, which keeps their order."""

    name: str
    columns: dict[str, None] = field(default_factory=dict)
    rows: list[list[str]] = field(default_factory=list)
    is_loop: bool = False

    def table(self) -> pd.DataFrame:
        values = zip(*self.rows) if self.rows else ([] for _ in self.columns)
        return pd.DataFrame({column: _column(column, list(texts)) for column, texts in zip(self.columns, values)})


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: the file does not exist. Check the path; it is taken relative to {Path.cwd()}."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable STAR file ({error}). Give a text file in STAR format.") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}, line {line}: not text. The file is damaged; write it again.")
    return text.split("\n")


def _parse(path: Path, lines: Iterable[str]) -> list[_Block]:
    blocks: list[_Block] = []
    for number, line in enumerate(lines, start=1):
        values = _split(line)
        if not values:
            continue
        if values[0].startswith("data_") and len(values) == 1:
            blocks.append(_Block(values[0][len("data_") :]))
        elif blocks:
            _add_line(blocks[-1], line.lstrip(), values, f"{path}, line {number}")
    return blocks


def _add_line(block: _Block, line: str, values: list[str], where: str) -> None:
    """Take a line that is neither empty nor the start of a block."""
    if line.startswith("loop_") and len(values) == 1:
        block.columns, block.rows, block.is_loop = {}, [], True
    elif line.startswith("_") and not (block.is_loop and block.rows):
        _add_name(block, values, where)
    elif block.is_loop:
        if len(values) != len(block.columns):
            raise InputError(
                f"{where}: {len(values)} values for {len(block.columns)} columns. The file is truncated or "
                "damaged there; mend or remove this row."
            )
        block.rows.append(values)


def _add_name(block: _Block, values: list[str], where: str) -> None:
    """Take a line with a column's name, in a simple block with its value."""
    name = values[0][1:]
    if name in block.columns:
        raise InputError(f"{where}: the column {name} occurs twice in this block. Remove one of them.")
    if len(block.columns) == MOST_COLUMNS:
        raise InputError(f"{where}: more than {MOST_COLUMNS} columns. This is no table of particles or micrographs.")
    block.columns[name] = None
    if not block.is_loop:
        if len(values) != 2:
            raise InputError(
                f"{where}: {name} has {len(values) - 1} values instead of one. The file is truncated or "
                "damaged there; mend this line."
            )
        block.rows = block.rows or [[]]
        block.rows[0].append(values[1])


def _split(line: str) -> list[str]:
    """Values of a line without quotes and comments."""
    if "'" not in line and '"' not in line and "#" not in line:
        return line.split()
    ends = {quote: [match.start() for match in pattern.finditer(line)] for quote, pattern in QUOTED.items()}
    values, place = [], SPACE.match(line).end()
    while place < len(line) and line[place] != "#":
        end = _closing(ends.get(line[place], ()), place)
        if end is None:
            match = PLAIN.match(line, place)
            value, place = match[0], match.end()
        else:
            value, place = line[place + 1 : end], end + 1
        values.append(value)
        place = SPACE.match(line, place).end()
    return values


def _closing(ends: list[int], place: int) -> int | None:
    """Where the quote that opens at `place` is closed."""
    after = bisect_right(ends, place)
    return ends[after] if after < len(ends) else None


def _column(name: str, texts: list[str]) -> pd.Series:
    """Numbers where all values are numbers or missing, else text."""
    numbers = None if name in TEXT_COLUMNS else _numbers(texts)
    return pd.Series([None if text == MISSING else text for text in texts] if numbers is None else numbers)


def _numbers(texts: list[str]) -> np.ndarray | None:
    """Whole numbers, else floats, else None. Python would read 1_000 as a number; in a table it is a name."""
    if "_" in "".join(texts):
        return None
    if MISSING in texts:
        texts = ["nan" if text == MISSING else text for text in texts]
    # cryoSPARC's identifiers need all 64 bits.
    for kind, dtype in ((int, np.int64), (int, np.uint64), (float, np.float64)):
        try:
            return np.array(list(map(kind, texts)), dtype=dtype)
        except (ValueError, OverflowError):
            continue
    return None


def _texts(column: pd.Series) -> list[str]:
    missing = column.isna().to_numpy()
    if column.dtype.kind == "f":
        texts = _decimals(column.to_numpy(float))
    elif column.dtype.kind == "b":
        texts = [str(int(value)) for value in column.to_numpy()]
    elif column.dtype.kind in "iu":
        texts = list(map(str, column.tolist()))
    else:
        texts = [_quoted(str(value)) for value in column]
    return [MISSING if absent else text for text, absent in zip(texts, missing)] if missing.any() else texts


def _decimals(values: np.ndarray) -> list[str]:
    """Six decimals, as RELION writes; nine digits where six decimals would lose more than a millionth of the value."""
    with np.errstate(invalid="ignore"):
        small = np.abs(values - np.round(values, 6)) > 1e-6 * np.abs(values)
    return [f"{value:.9g}" if more else f"{value:.6f}" for value, more in zip(values.tolist(), small.tolist())]


def _quoted(text: str) -> str:
    """A value that reads back the same; line breaks become spaces."""
    if text and not SPECIAL.search(text):
        return text
    text = re.sub(r"\s", " ", text)
    return f"'{text}'" if '"' in text else f'"{text}"'
