"""How far to trust an average: Fourier ring correlation of halves, resolution, a score, and a filter to match."""

import torch
from torch import Tensor

THRESHOLD = 0.5


def ring_numbers(box: int, device: torch.device | str = "cpu") -> Tensor:
    """Nearest ring of each point of ``torch.fft.rfft2``, ``(box, box // 2 + 1)``."""
    kx = torch.fft.rfftfreq(box, 1 / box, device=device)
    ky = torch.fft.fftfreq(box, 1 / box, device=device)
    return torch.hypot(ky[:, None], kx[None, :]).round().long()


def ring_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Fourier ring correlation of pairs of images.

    ``FRC(q) = Re sum F G* / sqrt(sum |F|^2 sum |G|^2)`` over each ring (Saxton & Baumeister 1982, J. Microsc. 127,
    127).

    Parameters
    ----------
    first, second
        ``(K, box, box)``.

    Returns
    -------
    Tensor
        ``(K, box // 2)`` for rings 1 .. box // 2; 0 where a ring of either is empty.
    """
    box = first.shape[-1]
    rings = ring_numbers(box, first.device)
    # Each point of the half plane but those of the first column (and of the last, in even boxes) stands for two.
    twice = torch.full_like(rings, 2, dtype=torch.float32)
    twice[:, 0] = 1
    if box % 2 == 0:
        twice[:, -1] = 1
    f, g = torch.fft.rfft2(first), torch.fft.rfft2(second)

    def over_rings(values: Tensor) -> Tensor:
        sums = torch.zeros(len(values), int(rings.max()) + 1, device=values.device)
        return sums.index_add_(1, rings.flatten(), (values * twice).flatten(1))[:, 1:box // 2 + 1]

    shared = over_rings((f * g.conj()).real)
    power = over_rings(f.abs() ** 2) * over_rings(g.abs() ** 2)
    return torch.where(power > 0, shared / power.clamp_min(1e-30).sqrt(), torch.zeros_like(shared)).clamp(-1, 1)


def resolution_at(correlation: Tensor, box: int, pixel_size: float, threshold: float = THRESHOLD) -> list[float]:
    """Resolution in angstroms at which each curve first falls below a threshold, between rings by a straight line.

    Parameters
    ----------
    correlation
        ``(K, box // 2)``, rings 1 .. box // 2.

    Returns
    -------
    list of float
        The box's width where the first ring is below already; the last ring's where none is.
    """
    results = []
    for curve in correlation.tolist():
        ring = next((i for i, value in enumerate(curve) if value < threshold), None)
        if ring is None:
            crossing = float(len(curve))
        elif ring == 0:
            crossing = 1.0
        else:
            above, below = curve[ring - 1], curve[ring]
            crossing = ring + (above - threshold) / (above - below)
        results.append(box * pixel_size / crossing)
    return results


def quality(correlation: Tensor) -> Tensor:
    """Score of each average from 0 to 1: the mean over the rings of what the halves share, ``(K,)``.

    It grows with the resolution and with the contrast over the noise, which is what a person looks for.
    """
    return correlation.clamp(0, 1).mean(1)


def filtered(averages: Tensor, correlation: Tensor) -> Tensor:
    """Averages ``(K, box, box)`` with each ring weighted by its reliability, ``2 FRC / (1 + FRC)``.

    That is the Wiener filter of the whole class from the correlation of its halves (Rosenthal & Henderson 2003, J. Mol.
    Biol. 333, 721). The curve is averaged over three rings and set to zero beyond the last ring.
    """
    box = averages.shape[-1]
    padded = torch.nn.functional.pad(correlation[:, None], (1, 1), mode="replicate")
    smooth = torch.nn.functional.avg_pool1d(padded, 3, stride=1)[:, 0].clamp(0, 1)
    weight = 2 * smooth / (1 + smooth)
    rings = ring_numbers(box, averages.device)
    table = torch.zeros(len(averages), int(rings.max()) + 1, device=averages.device)
    table[:, 1:weight.shape[1] + 1] = weight
    table[:, 0] = 1
    return torch.fft.irfft2(torch.fft.rfft2(averages) * table[:, rings], s=(box, box))
