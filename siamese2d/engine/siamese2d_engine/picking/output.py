"""What picking leaves in a run's folder, with a trained network or without."""

from collections.abc import Sequence

import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import write_json
from siamese2d_engine.io.coordinates import SCORE, write_coordinates
from siamese2d_engine.runs import Run


def joined(tables: Sequence[pd.DataFrame | InputError]) -> pd.DataFrame:
    """Candidates of all micrographs.

    Parameters
    ----------
    tables
        Of each micrograph its candidates, or why there are none.

    Raises
    ------
    InputError
        If no micrograph could be picked.
    """
    usable = [table for table in tables if not isinstance(table, InputError)]
    if not usable:
        raise InputError(f"None of the {len(tables)} micrographs could be picked. {tables[0]}")
    return pd.concat(usable, ignore_index=True)


def write_picks(run: Run, names: Sequence[str], tables: Sequence[pd.DataFrame | InputError], candidates: pd.DataFrame,
                threshold: float, floor: float, advice: str) -> None:
    """Write ``candidates.star``, ``coordinates.star`` and ``picking.json``.

    Parameters
    ----------
    names, tables
        Of the micrographs; see `joined`.
    candidates
        The joined tables.
    threshold
        Smallest score of a picked particle.
    floor
        Smallest score of a candidate.
    advice
        What to do when nothing is picked.
    """
    picked = candidates[candidates[SCORE] >= threshold]
    if picked.empty:
        run.warn(f"No candidate scores {threshold:.3g} or more. {advice}")
    write_coordinates(run.path("candidates.star"), candidates)
    write_coordinates(run.path("coordinates.star"), picked)
    records = [_record(name, table, threshold) for name, table in zip(names, tables)]
    write_json(run.path("picking.json"), {"threshold": threshold, "floor": floor, "candidates": len(candidates),
                                          "particles": len(picked), "micrographs": records})
    run.results.update(threshold=threshold, particles=len(picked), candidates=len(candidates),
                       failed=sum(isinstance(table, InputError) for table in tables))


def _record(name: str, table: pd.DataFrame | InputError, threshold: float) -> dict:
    if isinstance(table, InputError):
        return {"name": name, "status": "failed", "message": str(table), "candidates": 0, "particles": 0}
    return {"name": name, "status": "finished", "message": "", "candidates": len(table),
            "particles": int((table[SCORE] >= threshold).sum())}
