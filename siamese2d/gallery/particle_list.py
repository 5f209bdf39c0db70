"""A text file that says which particles were chosen: lines with # say what they are, then one objId in each line."""

import os
from collections.abc import Iterable


def write_particle_list(path: str, ids: Iterable[int], about: list[str]) -> None:
    """Write the file, whole or not at all; folders are made.

    Parameters
    ----------
    path : str
    ids : iterable of int
    about : list of str
        Lines for a person: what was chosen, and from what.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as text:
        text.writelines(f"# {line}\n" for line in about)
        text.writelines(f"{int(item)}\n" for item in ids)
    os.replace(partial, path)


def read_particle_list(path: str) -> tuple[set[int], list[str]]:
    """The ids in the file, and the lines that say what they are.

    Raises
    ------
    ValueError
        If it can't be read, has a line that is no id, or no id at all; the message names file and line.
    """
    try:
        with open(path, encoding="utf-8") as text:
            lines = [line.strip() for line in text]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read ({error})") from error
    about = [line[1:].strip() for line in lines if line.startswith("#")]
    ids = set()
    for number, line in enumerate(lines, start=1):
        if line and not line.startswith("#"):
            if not line.isdigit():
                raise ValueError(f"{path}, line {number}: '{line}' is no id of a particle, which is a whole number")
            ids.add(int(line))
    if not ids:
        raise ValueError(f"{path} lists no particle")
    return ids, about


def free_name(folder: str, stem: str) -> str:
    """A path ``folder/stem_N.txt`` that is not taken."""
    number = 1
    while os.path.exists(os.path.join(folder, f"{stem}_{number}.txt")):
        number += 1
    return os.path.join(folder, f"{stem}_{number}.txt")
