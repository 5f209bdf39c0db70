"""Box sizes that suit a particle and the Fourier transform."""

import math


def good_box(smallest: float) -> int:
    """The next even size, from `smallest` pixels on, whose prime factors are 2, 3 and 5: fast to transform.

    Raises
    ------
    ValueError
        If `smallest` is not a positive number.
    """
    if not (math.isfinite(smallest) and smallest > 0):
        raise ValueError(f"a box of {smallest} pixels is not possible")
    # A relative 1e-9 keeps rounding errors of the caller from adding two pixels.
    size = max(2 * math.ceil(smallest * (1 - 1e-9) / 2), 2)
    while not _is_fast(size):
        size += 2
    return size


def _is_fast(size: int) -> bool:
    for factor in (2, 3, 5):
        while size % factor == 0:
            size //= factor
    return size == 1
