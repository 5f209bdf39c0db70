"""The order of the passes: few classes at low resolution first, then more classes and finer detail.

Starting with all classes at once gets stuck: most then describe mixtures of views. With few classes on few rings the
images fall into place first; each division then starts from aligned members.
"""

from dataclasses import dataclass, replace
from enum import Enum

# Cycles between the search's shifts on its last ring: half of that away, the correlation is still close to its peak.
SHIFT_CYCLES = 0.25
# The same where all shifts are searched, to find the right place rather than the exact one.
WIDE_CYCLES = 0.33
# From this number of classes on, an image is compared with the likely ones only.
MANY_CLASSES = 20
# With fewer classes, an image and its mirror image are never kept together to be told apart later.
FEW_CLASSES = 4


class Search(Enum):
    """What a pass tries: shifts around each image's present one and likely classes, or all of both.

    ``UNCERTAIN`` is all while poses are uncertain.
    """

    NEAR = "near"
    UNCERTAIN = "uncertain"
    ALL = "all"


@dataclass(frozen=True)
class Step:
    """One pass and what comes before it.

    Attributes
    ----------
    classes
        Number of classes; where it grows, classes are divided before the pass.
    rings, doubtful_rings
        Rings compared, and while poses are uncertain.
    mirror
        Keep an image and its mirror image in one class; where it ends, each class becomes two.
    search
        Shifts and classes tried.
    fineness
        The step of the shifts is divided by this.
    candidates
        Classes compared with each image where not all are; 0 for all.
    replace
        Dissolve and divide classes before the pass.
    """

    classes: int
    rings: int
    doubtful_rings: int
    mirror: bool
    search: Search = Search.NEAR
    fineness: float = 1.0
    candidates: int = 0
    replace: bool = False


@dataclass(frozen=True)
class Recipe:
    """Numbers behind the schedule.

    Attributes
    ----------
    first_classes
        Classes to begin with, about.
    coarse, doubtful, last
        Rings until the classes are complete; the same after the first classes as long as poses are uncertain, because little
        signal or noise at low frequency leaves few rings too little to tell; and rings of the last passes.
    start, grow, finish
        Passes with the first classes, after each division, and at the last rings.
    replacements
        How often classes are replaced after the classes are complete.
    candidates
        Classes compared with each image once there are many.
    """

    first_classes: int = 7
    coarse: int = 10
    doubtful: int = 13
    last: int = 16
    start: int = 6
    grow: int = 3
    finish: int = 2
    replacements: int = 2
    candidates: int = 12


def schedule(classes: int, rings: int, mirror: bool, recipe: Recipe) -> list[Step]:
    """Steps for a number of classes.

    Where mirror images are to be kept apart, they are told apart late: half as many classes of both come first, so that
    twice as many images find each average.

    Parameters
    ----------
    classes
        Wanted in the end.
    rings
        That the data have.
    mirror
        Whether an image and its mirror image belong together in the end.
    recipe
        See `Recipe`.
    """
    folded = mirror or classes >= FEW_CLASSES
    complete = classes if mirror or not folded else (classes + 1) // 2
    coarse, doubtful, last = (min(wanted, rings) for wanted in (recipe.coarse, recipe.doubtful, recipe.last))
    numbers = growth(complete, recipe.first_classes)
    steps = [Step(numbers[0], coarse, coarse, folded, Search.ALL)] * recipe.start
    for number in numbers:
        step = Step(number, coarse, doubtful, folded, Search.UNCERTAIN, candidates=_few(number, recipe))
        # Images that went astray find out of it by a search of everything.
        everything = [replace(step, search=Search.ALL, candidates=0), step]
        renewal = [replace(step, replace=True)] if number > 2 else []
        if number == numbers[0]:
            steps += [*renewal, step]
        else:
            steps += [step] * recipe.grow + [*renewal, step, *everything]
    steps += [*renewal, *everything] * recipe.replacements
    few = _few(classes, recipe)
    if folded and not mirror:
        steps += [Step(classes, coarse, coarse, False, candidates=few)] * recipe.grow
    steps += [Step(classes, last, last, mirror, candidates=few)] * recipe.finish
    return steps + [Step(classes, last, last, mirror, fineness=fineness, candidates=1) for fineness in (2, 4)]


def _few(classes: int, recipe: Recipe) -> int:
    return recipe.candidates if classes > MANY_CLASSES else 0


def growth(classes: int, first: int) -> list[int]:
    """Numbers of classes, each about twice the one before; the first is at most about `first`."""
    numbers = [classes]
    while numbers[0] > first:
        numbers.insert(0, (numbers[0] + 1) // 2)
    return numbers
