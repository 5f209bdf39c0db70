"""The order of the passes: few classes at low resolution first, then more classes and finer detail.

Starting with all classes at once gets stuck: most then describe mixtures of views. With few classes on few rings the
images fall into place first; each division then starts from aligned members.
"""

from dataclasses import dataclass

# Cycles between the search's shifts on its last ring: half of that away, the correlation is still close to its peak.
SHIFT_CYCLES = 0.25
MANY_CLASSES = 20


@dataclass(frozen=True)
class Step:
    """One pass and what comes before it.

    Attributes
    ----------
    classes
        Number of classes; where it grows, classes are divided before the pass.
    rings
        Rings compared.
    wide
        Search all shifts, rather than around each image's present one.
    reach
        Radius of the search around the present shift, in steps.
    fineness
        The step of the shifts is divided by this.
    candidates
        Classes compared with each image; 0 for all.
    replace
        Dissolve and divide classes before the pass.
    best
        Poses kept for each image.
    """

    classes: int
    rings: int
    wide: bool = False
    reach: float = 1.0
    fineness: float = 1.0
    candidates: int = 0
    replace: bool = False
    best: int = 4


@dataclass(frozen=True)
class Recipe:
    """Numbers behind the schedule.

    Attributes
    ----------
    first_classes
        Classes to begin with, about.
    coarse, middle, last
        Rings of the first passes, of those after the classes are complete, and of the last ones.
    wide, start, grow, settle, finish
        Passes: with the first classes over all shifts, and around the present ones; after each division, at the middle rings, and at the last rings.
    replacements
        How often classes are replaced at each number of classes.
    candidates
        Classes compared with each image once there are many.
    """

    first_classes: int = 7
    coarse: int = 10
    middle: int = 10
    last: int = 16
    wide: int = 12
    start: int = 0
    grow: int = 4
    settle: int = 3
    finish: int = 3
    replacements: int = 1
    candidates: int = 12
    gw: int = 0


def schedule(classes: int, rings: int, recipe: Recipe) -> list[Step]:
    """Steps for a number of classes.

    Parameters
    ----------
    classes
        Wanted in the end.
    rings
        That the data have.
    recipe
        See `Recipe`.
    """
    coarse, middle, last = (min(r, rings) for r in (recipe.coarse, recipe.middle, recipe.last))
    numbers = growth(classes, recipe.first_classes)
    steps = [Step(numbers[0], coarse, wide=True)] * recipe.wide + [Step(numbers[0], coarse)] * recipe.start
    for position, number in enumerate(numbers):
        few = recipe.candidates if number > MANY_CLASSES else 0
        if position:
            steps += [Step(number, coarse, wide=recipe.gw>0)] + [Step(number, coarse, candidates=few,wide=recipe.gw>1)] * (recipe.grow - 1)
        if number > 2:
            steps += ([Step(number, coarse, replace=True,wide=recipe.gw>0)] + [Step(number, coarse, candidates=few)]) * recipe.replacements
    few = min(recipe.candidates, classes - 1)
    steps += [Step(classes, middle, candidates=few)] * recipe.settle
    steps += [Step(classes, last, candidates=few)] * recipe.finish
    steps += [Step(classes, last, fineness=f, reach=1.5, candidates=1) for f in (2, 4)]
    return steps


def growth(classes: int, first: int) -> list[int]:
    """Numbers of classes, each about twice the one before; the first is at most about `first`."""
    numbers = [classes]
    while numbers[0] > first:
        numbers.insert(0, (numbers[0] + 1) // 2)
    return numbers
