"""Which classes are good: thresholds, and lists of class numbers as text."""

from dataclasses import dataclass

import numpy as np

from siamese2d.gallery.class_list import ClassList


@dataclass(frozen=True)
class Criteria:
    """Thresholds that a class must meet, all of them; None asks for nothing.

    Attributes
    ----------
    min_size : float or None
        Members, at least.
    max_resolution : float or None
        Angstroms, at most; a class whose resolution is not known fails.
    min_quality : float or None
        Score, at least; a class whose score is not known fails.
    """

    min_size: float | None = None
    max_resolution: float | None = None
    min_quality: float | None = None

    def accepted(self, classes: ClassList) -> np.ndarray:
        """Ids of the classes that meet all thresholds; disabled classes never do."""
        good = classes.enabled.copy()
        # Comparisons with NaN are false, so what is not known is not good.
        for threshold, passes in ((self.min_size, classes.sizes >= _number(self.min_size)),
                                  (self.max_resolution, classes.resolutions <= _number(self.max_resolution)),
                                  (self.min_quality, classes.qualities >= _number(self.min_quality))):
            if threshold is not None:
                good &= passes
        return classes.ids[good]

    def unknown(self, classes: ClassList) -> list[str]:
        """Properties that a threshold asks for and no class of the set has."""
        return [name for name, threshold, values in (
            ("size", self.min_size, classes.sizes), ("resolution", self.max_resolution, classes.resolutions),
            ("quality", self.min_quality, classes.qualities))
            if threshold is not None and len(classes) and np.isnan(values).all()]

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return self.min_size is None and self.max_resolution is None and self.min_quality is None


def format_numbers(numbers) -> str:
    """Numbers as text, runs of neighbours as ranges: ``1-3,7``."""
    numbers = sorted({int(number) for number in numbers})
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_numbers(text: str) -> list[int]:
    """The numbers that :func:`format_numbers` wrote, or a person: separated by commas or blanks, ascending.

    Raises
    ------
    ValueError
        If a part of it is no number and no range; the message names that part.
    """
    numbers: set[int] = set()
    for part in text.replace(" - ", "-").replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"'{part}' is neither a number nor a range such as 3-7")
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def _number(threshold: float | None) -> float:
    return np.nan if threshold is None else threshold
