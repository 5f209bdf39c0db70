"""The simulated microscope: random defocus, and CTF parameters as columns of a table."""

from __future__ import annotations

import numpy as np
import pandas as pd

from siamese2d_engine.ctf import CtfParameters

VOLTAGE, CS, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.1
DEFOCUS_RANGE = (10000.0, 25000.0)  # angstroms
LARGEST_ASTIGMATISM = 600.0  # angstroms, defocus u - defocus v


def random_ctf(count: int, rng: np.random.Generator) -> CtfParameters:
    """CTF parameters of `count` micrographs: random underfocus and astigmatism, 300 kV."""
    defocus = rng.uniform(*DEFOCUS_RANGE, size=count)
    astigmatism = rng.uniform(0, LARGEST_ASTIGMATISM, size=count)
    return CtfParameters(
        defocus_u=defocus + astigmatism / 2,
        defocus_v=defocus - astigmatism / 2,
        astigmatism_angle=rng.uniform(0, np.pi, size=count),
        voltage=VOLTAGE,
        cs=CS,
        amplitude_contrast=AMPLITUDE_CONTRAST,
        phase_shift=0.0,
    )


def defocus_columns(ctf: CtfParameters) -> dict[str, np.ndarray]:
    """RELION's defocus columns of each row."""
    return {
        "rlnDefocusU": ctf.defocus_u,
        "rlnDefocusV": ctf.defocus_v,
        "rlnDefocusAngle": np.degrees(ctf.astigmatism_angle),
    }


def optics_table(**columns: float) -> pd.DataFrame:
    """RELION 3.1 optics table of one group, with further columns such as the pixel size."""
    row = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnVoltage": VOLTAGE,
        "rlnSphericalAberration": CS,
        "rlnAmplitudeContrast": AMPLITUDE_CONTRAST,
    }
    return pd.DataFrame([row | columns])
