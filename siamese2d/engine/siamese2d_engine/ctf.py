"""The contrast transfer function (CTF) of the microscope, at any points of Fourier space.

Sign convention (RELION's for particles): ``CTF = + sin(chi + phase shift + amplitude term)``. It is positive close to
the origin of Fourier space for positive defocus (underfocus), where it equals the amplitude contrast. So it describes
images with **bright** particles, which is what extraction with ``--invert`` writes, and averages corrected with it stay
bright. A micrograph as recorded, with dark particles, has the opposite sign.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from siamese2d_engine.errors import InputError


@dataclass
class CtfParameters:
    """CTF parameters of ``n`` images, each a float64 array ``(n,)``; single numbers are repeated for all images.

    Parameters
    ----------
    defocus_u, defocus_v
        Defocus along the two axes of astigmatism, angstroms, positive for underfocus.
    astigmatism_angle
        Angle of the ``defocus_u`` axis from x towards y (rows downwards as stored), radians.
    voltage
        Kilovolts.
    cs
        Spherical aberration, millimetres.
    amplitude_contrast
        Fraction, 0 to 1.
    phase_shift
        Phase shift of a phase plate, radians.

    Raises
    ------
    InputError
        When the lengths differ, the voltage is not positive or the amplitude contrast lies outside 0 to 1.
    """

    defocus_u: np.ndarray
    defocus_v: np.ndarray
    astigmatism_angle: np.ndarray
    voltage: np.ndarray
    cs: np.ndarray
    amplitude_contrast: np.ndarray
    phase_shift: np.ndarray

    def __post_init__(self) -> None:
        names = [field.name for field in fields(self)]
        values = [np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64)) for name in names]
        try:
            values = [value.copy() for value in np.broadcast_arrays(*values)]
        except ValueError as error:
            lengths = ", ".join(f"{name}: {value.shape}" for name, value in zip(names, values))
            raise InputError(f"CTF parameters must have one value for each image, but they have {lengths}.") from error
        for name, value in zip(names, values):
            setattr(self, name, value)
        if not (self.voltage > 0).all():
            raise InputError("The voltage of the microscope must be positive, in kilovolts.")
        if not ((self.amplitude_contrast >= 0) & (self.amplitude_contrast <= 1)).all():
            raise InputError("The amplitude contrast must lie between 0 and 1.")

    def __len__(self) -> int:
        return len(self.defocus_u)

    def subset(self, indices) -> CtfParameters:
        """The parameters of some images, by indices or a boolean mask."""
        return CtfParameters(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})


def wavelength(voltage: np.ndarray) -> np.ndarray:
    """Relativistic wavelength of electrons.

    Parameters
    ----------
    voltage
        Kilovolts, any shape.

    Returns
    -------
    ndarray
        Angstroms: ``h / sqrt(2 m e V (1 + e V / (2 m c^2)))``.
    """
    volts = np.asarray(voltage, dtype=np.float64) * 1e3
    return 12.2643247 / np.sqrt(volts * (1 + 0.978466e-6 * volts))


def _phase_coefficients(parameters: CtfParameters) -> np.ndarray:
    """Coefficients ``(n, 5)`` of the phase over the functions 1, s^2, kx^2 - ky^2, 2 kx ky and s^4."""
    lam = wavelength(parameters.voltage)
    mean = 0.5 * (parameters.defocus_u + parameters.defocus_v)
    half_difference = 0.5 * (parameters.defocus_u - parameters.defocus_v)
    cs_angstrom = parameters.cs * 1e7
    return np.stack(
        [
            parameters.phase_shift + np.arcsin(parameters.amplitude_contrast),
            np.pi * lam * mean,
            np.pi * lam * half_difference * np.cos(2 * parameters.astigmatism_angle),
            np.pi * lam * half_difference * np.sin(2 * parameters.astigmatism_angle),
            -0.5 * np.pi * cs_angstrom * lam**3,
        ],
        axis=1,
    )


def ctf_at(parameters: CtfParameters, kx: Tensor, ky: Tensor) -> Tensor:
    """CTF at given points of Fourier space.

    ``CTF(k) = sin(pi lambda z(a) s^2 - pi/2 Cs lambda^3 s^4 + phase_shift + asin(amplitude_contrast))`` with
    ``s = |k|``, ``a = atan2(ky, kx)`` and ``z(a) = (u + v + (u - v) cos(2 (a - astigmatism_angle))) / 2``
    (Mindell & Grigorieff 2003, J. Struct. Biol. 142, 334; with the phase shift, Rohou & Grigorieff 2015, J. Struct.
    Biol. 192, 216; both with the opposite overall sign). Since ``s^2 cos(2 (a - b)) = (kx^2 - ky^2) cos 2b + 2 kx ky
    sin 2b``, the phase of all images at all points is one matrix product.

    Parameters
    ----------
    parameters
        Of ``n`` images.
    kx, ky
        Spatial frequencies in 1/angstrom, both of any shape ``(...)``; they set the device and the precision.

    Returns
    -------
    Tensor
        ``(n, ...)``, bright particles on dark.
    """
    s2 = kx * kx + ky * ky
    basis = torch.stack([torch.ones_like(s2), s2, kx * kx - ky * ky, 2 * kx * ky, s2 * s2]).reshape(5, -1)
    coefficients = torch.as_tensor(_phase_coefficients(parameters)).to(kx)
    return torch.sin(coefficients @ basis).reshape(len(parameters), *kx.shape)


def frequency_grid(
    box: int, pixel_size: float, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Frequencies ``(kx, ky)`` in 1/angstrom of ``torch.fft.rfft2`` of a square image, each ``(box, box // 2 + 1)``."""
    kx = torch.fft.rfftfreq(box, pixel_size, device=device, dtype=dtype)
    ky = torch.fft.fftfreq(box, pixel_size, device=device, dtype=dtype)
    return kx.expand(box, -1), ky[:, None].expand(-1, box // 2 + 1)


def ctf_grid(
    parameters: CtfParameters,
    box: int,
    pixel_size: float,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """CTF images ``(n, box, box // 2 + 1)`` in the layout of ``torch.fft.rfft2``.

    Parameters
    ----------
    parameters
        Of ``n`` images.
    box
        Side of the square image, pixels.
    pixel_size
        Angstroms per pixel.
    device, dtype
        Of the result.
    """
    return ctf_at(parameters, *frequency_grid(box, pixel_size, device, dtype))
