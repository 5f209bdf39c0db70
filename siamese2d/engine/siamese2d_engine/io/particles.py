"""Particle sets: the rows of a RELION STAR file (3.0 or 3.1) or a .cs file and their images, read lazily from
stacks."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.cryosparc import SIGN, read_tables
from siamese2d_engine.io.images import MrcLayout
from siamese2d_engine.io.micrographs import resolve
from siamese2d_engine.io.star import write_star

if TYPE_CHECKING:
    from siamese2d_engine.ctf import CtfParameters

IMAGE = "rlnImageName"
OPTICS_GROUP = "rlnOpticsGroup"
OPTICS_COLUMNS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
CTF_COLUMNS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
# Angstroms: beyond these, a pixel size is in another unit or a slip.
SMALLEST_PIXEL, LARGEST_PIXEL = 0.05, 1000.0
# Relative difference up to which two pixel sizes are the same.
SAME_PIXEL_SIZE = 1e-3


@dataclass(frozen=True)
class ParticleSet:
    """Particles as named by a table.

    Attributes
    ----------
    table : DataFrame
        One row per particle, at least `rlnImageName`; unknown columns are kept.
    optics : DataFrame
        Optics groups; made from the particles' columns for RELION 3.0 files.
    pixel_size : float
        Angstroms per pixel.
    images : ParticleImages
        The images, in the order of the rows.
    """

    table: pd.DataFrame
    optics: pd.DataFrame
    pixel_size: float
    images: "ParticleImages"

    def __len__(self) -> int:
        return len(self.table)

    @property
    def box(self) -> int:
        """Width of the square images in pixels."""
        return self.images.box

    def subset(self, rows) -> "ParticleSet":
        """The particles selected by a boolean mask or integer positions."""
        positions = np.arange(len(self))[np.asarray(rows)]
        return ParticleSet(self.table.iloc[positions].reset_index(drop=True), self.optics, self.pixel_size,
                           self.images.subset(positions))


class ParticleImages:
    """Images of particles, read from their stacks on demand.

    Parameters
    ----------
    stacks : list of Path
        Stack files.
    stack_of : ndarray of int
        For each particle, the position of its file in `stacks`.
    slice_of : ndarray of int
        For each particle, its image in that file, from 0.
    sign_of : ndarray of float32, optional
        For each particle, what its image is multiplied by.

    Raises
    ------
    InputError
        If a stack is missing or damaged, an image lies beyond its end, or the boxes differ or are not square.
    """

    def __init__(self, stacks: list[Path], stack_of: np.ndarray, slice_of: np.ndarray,
                 sign_of: np.ndarray | None = None):
        self._stacks = stacks
        self._stack_of = np.asarray(stack_of)
        self._slice_of = np.asarray(slice_of)
        self._sign_of = sign_of
        self._layouts = [_stack_layout(path) for path in stacks]
        self.box = _common_box(stacks, self._layouts)
        self._check_slices()

    def __len__(self) -> int:
        return len(self._stack_of)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, box, box)``."""
        return len(self), self.box, self.box

    @property
    def header_pixel_size(self) -> float | None:
        """Angstroms per pixel from the first stack's header; None where it does not say."""
        return self._layouts[0].pixel_size

    def subset(self, positions: np.ndarray) -> "ParticleImages":
        """The images at these positions."""
        # What is known of the stacks stays: reading their headers again for each of many parts takes long.
        part = copy.copy(self)
        part._stack_of, part._slice_of = self._stack_of[positions], self._slice_of[positions]
        part._sign_of = None if self._sign_of is None else self._sign_of[positions]
        return part

    def read(self, positions) -> np.ndarray:
        """Read images as float32, ``(k, box, box)``, in the order of `positions`."""
        positions = np.atleast_1d(np.asarray(positions, dtype=int))
        images = np.empty((len(positions), self.box, self.box), dtype=np.float32)
        stacks = self._stack_of[positions]
        for stack in np.unique(stacks):
            wanted = np.flatnonzero(stacks == stack)
            images[wanted] = self._layouts[stack].read(self._stacks[stack], self._slice_of[positions[wanted]])
        return images if self._sign_of is None else images * self._sign_of[positions, None, None]

    def chunks(self, size: int, rows: range | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ``(positions, images)`` of up to `size` particles, in order; of all, or of consecutive `rows`."""
        rows = range(len(self)) if rows is None else rows
        for start in range(rows.start, rows.stop, size):
            positions = np.arange(start, min(start + size, rows.stop))
            yield positions, self.read(positions)

    def _check_slices(self) -> None:
        lengths = np.array([layout.shape[0] for layout in self._layouts])
        beyond = np.flatnonzero((self._slice_of < 0) | (self._slice_of >= lengths[self._stack_of]))
        if len(beyond):
            row = beyond[0]
            stack = self._stack_of[row]
            raise InputError(f"{self._stacks[stack]}: particle row {row + 1} asks for image {self._slice_of[row] + 1}, "
                             f"but the stack holds {lengths[stack]}. The stack is truncated or belongs to another STAR "
                             "file.")


def read_particles(star_path: str | os.PathLike, pixel_size: float | None = None) -> ParticleSet:
    """Read a RELION 3.0 or 3.1 particle STAR file, or a .cs file of cryoSPARC.

    Parameters
    ----------
    star_path : path
        The STAR or .cs file.
    pixel_size : float, optional
        Angstroms per pixel for files that do not say it.

    Raises
    ------
    InputError
        If the file or a stack can't be read, the set is empty, or pixel sizes or boxes differ or can't be.
    """
    star_path = Path(star_path)
    blocks = read_tables(star_path)
    table = next((block for block in blocks.values() if IMAGE in block), None)
    if table is None:
        raise InputError(f"{star_path}: no column {IMAGE}. Give a STAR or .cs file of particles.")
    if table.empty:
        raise InputError(f"{star_path}: the set of particles is empty.")
    table = table.reset_index(drop=True)
    images = _images_of(table, star_path)
    if "optics" in blocks:
        optics = blocks["optics"]
        _check_groups(table, optics, star_path)
    else:
        table, optics = _optics_from_columns(table)
    return ParticleSet(table, optics, _pixel_size(table, optics, images, star_path, pixel_size), images)


def write_particles(star_path: str | os.PathLike, table: pd.DataFrame, optics: pd.DataFrame) -> None:
    """Write a RELION 3.1 particle STAR file."""
    write_star(star_path, {"optics": optics, "particles": table})


def ctf_parameters(particles: ParticleSet) -> CtfParameters | None:
    """CTF parameters of all particles; None where the table has none.

    Raises
    ------
    InputError
        If defocus is there but voltage or spherical aberration is not, or a value is not a number.
    """
    # Brings torch, which writing particles does without.
    from siamese2d_engine.ctf import CtfParameters

    table = particles.table
    if not set(CTF_COLUMNS[:1]) <= set(table):
        return None
    optics = particles.optics.set_index(OPTICS_GROUP)

    def column(name: str, default: float | None = None) -> np.ndarray:
        if name in table:
            values = table[name]
        elif name in optics:
            values = table[OPTICS_GROUP].map(optics[name])
        elif default is not None:
            values = pd.Series(np.full(len(table), default))
        else:
            raise InputError(f"The particles have a defocus but no {name}. Add it to their optics group, or ignore the "
                             "CTF.")
        values = pd.to_numeric(values, errors="coerce").to_numpy(float)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise InputError(f"Particle row {bad[0] + 1} ({table[IMAGE].iloc[bad[0]]}): {name} is not a number. Mend "
                             "the row, or ignore the CTF.")
        return values

    defocus_u = column("rlnDefocusU")
    return CtfParameters(
        defocus_u=defocus_u,
        defocus_v=column("rlnDefocusV") if "rlnDefocusV" in table else defocus_u,
        astigmatism_angle=np.radians(column("rlnDefocusAngle", 0.0)),
        voltage=column("rlnVoltage"),
        cs=column("rlnSphericalAberration"),
        amplitude_contrast=column("rlnAmplitudeContrast", 0.1),
        phase_shift=np.radians(column("rlnPhaseShift", 0.0)),
    )


def _images_of(table: pd.DataFrame, star_path: Path) -> ParticleImages:
    parts = table[IMAGE].astype(str).str.extract(r"^(?:0*(\d{1,9})@)?(.+)$")
    numbers = pd.to_numeric(parts[0]).fillna(1).astype(int).to_numpy()
    codes, names = pd.factorize(parts[1])
    # cryoSPARC's tables say of particles that are dark on light that their images must be multiplied by -1.
    signs = table[SIGN].to_numpy(np.float32) if SIGN in table and (table[SIGN] != 1).any() else None
    return ParticleImages([resolve(name, star_path) for name in names], codes, numbers - 1, signs)


def _stack_layout(path: Path) -> MrcLayout:
    if not path.exists():
        raise InputError(f"{path}: this particle stack does not exist. Paths are taken relative to {Path.cwd()}, then "
                         "to the STAR file; start the command from the project's folder.")
    return MrcLayout.of(path)


def _common_box(stacks: list[Path], layouts: list[MrcLayout]) -> int:
    first = layouts[0].shape[1:]
    for path, layout in zip(stacks, layouts):
        height, width = layout.shape[1:]
        if height != width:
            raise InputError(f"{path}: images of {width} x {height} pixels are not square. Extract the particles "
                             "again.")
        if (height, width) != first:
            raise InputError(f"{path}: images of {width} pixels, but {stacks[0]} has {first[1]}. All particles must "
                             "have one box size: extract or scale them to the same.")
    return first[0]


def _check_groups(table: pd.DataFrame, optics: pd.DataFrame, star_path: Path) -> None:
    if OPTICS_GROUP not in table or OPTICS_GROUP not in optics:
        raise InputError(f"{star_path}: the optics table is there but a column {OPTICS_GROUP} is missing. Write the "
                         "file again, with it in both tables.")
    unknown = np.flatnonzero(~table[OPTICS_GROUP].isin(optics[OPTICS_GROUP]))
    if len(unknown):
        raise InputError(f"{star_path}, particle row {unknown[0] + 1}: optics group "
                         f"{table[OPTICS_GROUP].iloc[unknown[0]]} is not in the optics table. Add it there.")


def _optics_from_columns(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Optics groups of a RELION 3.0 table: one for each combination of microscope parameters."""
    table = table.copy()
    if {"rlnDetectorPixelSize", "rlnMagnification"} <= set(table) and "rlnImagePixelSize" not in table:
        table["rlnImagePixelSize"] = table["rlnDetectorPixelSize"] * 1e4 / table["rlnMagnification"]
    columns = [c for c in (*OPTICS_COLUMNS, "rlnImagePixelSize") if c in table]
    groups = table.groupby(columns, sort=False).ngroup() if columns else pd.Series(np.zeros(len(table), int))
    table[OPTICS_GROUP] = groups.to_numpy() + 1
    optics = table.drop_duplicates(OPTICS_GROUP)[[OPTICS_GROUP, *columns]].reset_index(drop=True)
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{g}" for g in optics[OPTICS_GROUP]])
    return table.drop(columns=columns), optics


def _pixel_size(table: pd.DataFrame, optics: pd.DataFrame, images: ParticleImages, star_path: Path,
                given: float | None) -> float:
    if "rlnImagePixelSize" in optics:
        used = optics[optics[OPTICS_GROUP].isin(table[OPTICS_GROUP])]["rlnImagePixelSize"].to_numpy(float)
        where = "rlnImagePixelSize"
    else:
        used, where = np.array([given or images.header_pixel_size or 0.0]), "--pixel-size, or the stack's header"
        if not used[0]:
            raise InputError(f"{star_path}: the pixel size is not known. Pass --pixel-size in angstroms.")
    wrong = used[~((used >= SMALLEST_PIXEL) & (used <= LARGEST_PIXEL))]
    if len(wrong):
        raise InputError(f"{star_path}: a pixel size of {wrong[0]:g} A ({where}) can't be right. Give the true one, in "
                         "angstroms.")
    if np.ptp(used) > SAME_PIXEL_SIZE * used[0]:
        raise InputError(f"{star_path}: optics groups with different pixel sizes ({used.min():g} to {used.max():g} A). "
                         "Scale the particles to one pixel size first.")
    if given and abs(given - used[0]) > SAME_PIXEL_SIZE * used[0]:
        raise InputError(f"{star_path}: the pixels are {used[0]:g} A wide by this file, but --pixel-size is {given:g}. "
                         "Leave the option out, or correct the file.")
    return float(used[0])
