"""Classes without mirrored members: RELION averages as if there were none, and cryoSPARC's alignments have none."""

import numpy as np
import pandas as pd

CLASS, FLIP = "rlnClassNumber", "rlnIsFlip"
MIRROR_OF = "siamese2dMirrorOf"


def split_mirrored(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[int, int]]:
    """Put mirrored particles into classes of their own, whose averages are the mirror images.

    A mirrored particle is aligned to its class by ``F R(psi) (x + origin)``, ``F`` the mirror; without ``F`` the same
    psi and origin align it to the mirrored average.

    Parameters
    ----------
    table : DataFrame
        Particles; without classes or mirrored ones it comes back as it is.

    Returns
    -------
    table : DataFrame
        No ``rlnIsFlip``; the class that a particle comes from in ``siamese2dMirrorOf``, 0 where it was not mirrored.
    new : dict of int to int
        Number of each new class by the class it mirrors.
    """
    if FLIP not in table or CLASS not in table:
        return table, {}
    mirrored = table[FLIP].to_numpy(float) > 0.5
    # Particles in no class have none or 0.
    numbers = table[CLASS].fillna(0).to_numpy(int)
    first = int(numbers.max()) + 1
    new = {int(number): place for place, number in enumerate(np.unique(numbers[mirrored]), start=first)}
    table = table.drop(columns=[FLIP])
    if new:
        renamed = np.where(mirrored, pd.Series(numbers).map(new).fillna(0).to_numpy(int), numbers)
        table = table.assign(**{CLASS: renamed, MIRROR_OF: np.where(mirrored, numbers, 0)})
    return table, new


def mirror(images: np.ndarray) -> np.ndarray:
    """Mirror images ``(..., h, w)`` in x about the pixel ``w // 2``."""
    flipped = images[..., ::-1]
    return np.roll(flipped, 1, axis=-1) if images.shape[-1] % 2 == 0 else flipped
