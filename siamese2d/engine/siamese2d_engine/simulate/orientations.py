"""Orientations in RELION's convention.

The rotation matrix ``A(rot, tilt, psi) = Rz(psi) Ry(tilt) Rz(rot)`` (ZYZ, each factor turning the frame: ``Rz(a) =
[[cos a, sin a, 0], [-sin a, cos a, 0], [0, 0, 1]]``) takes a point of the volume to the frame of the image: its rows
are the image's x axis, the image's y axis and the viewing direction, written in the volume's axes. The projection
integrates along the third row. The same ``psi`` is the one of the 2D alignment ``x' = R(psi) (x + origin)``.
"""

from __future__ import annotations

import numpy as np


def rotation_matrices(angles: np.ndarray) -> np.ndarray:
    """Rotation matrices of Euler angles.

    Parameters
    ----------
    angles
        ``(n, 3)`` rot, tilt, psi in radians.

    Returns
    -------
    ndarray
        ``(n, 3, 3)``.
    """
    rot, tilt, psi = np.asarray(angles, dtype=np.float64).reshape(-1, 3).T
    return _about_z(psi) @ _about_y(tilt) @ _about_z(rot)


def view_directions(rot: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Viewing directions ``(n, 3)`` as unit vectors ``(x, y, z)`` in the volume's frame; angles in radians."""
    rot, tilt = np.asarray(rot, dtype=np.float64), np.asarray(tilt, dtype=np.float64)
    return np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=-1)


def random_angles(count: int, rng: np.random.Generator) -> np.ndarray:
    """Euler angles ``(count, 3)`` in radians, orientations uniform over all rotations."""
    rot, psi = rng.uniform(-np.pi, np.pi, size=(2, count))
    tilt = np.arccos(rng.uniform(-1, 1, size=count))
    return np.stack([rot, tilt, psi], axis=1)


def _about_z(angle: np.ndarray) -> np.ndarray:
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, s, zero, -s, c, zero, zero, zero, one], axis=1).reshape(-1, 3, 3)


def _about_y(angle: np.ndarray) -> np.ndarray:
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, zero, -s, zero, one, zero, s, zero, c], axis=1).reshape(-1, 3, 3)
