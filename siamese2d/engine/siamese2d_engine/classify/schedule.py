"""The order of the passes: few classes at low resolution first, then more classes and finer detail.

Starting with all classes at once gets stuck: most then describe mixtures of views. With few classes on few rings the
images fall into place first; each division then starts from aligned members. Then more classes than wanted are made and
those that look alike are grouped, more than once: images that went astray are searched for among the groups, which are
purer each time. Where poses are sure, the groups of many fine classes are the result, as these keep species and
conformations apart; where they are unsure, fine classes are fewer, each image is compared with all of them, and images
choose among the groups in the end.
"""

from dataclasses import dataclass, replace
from enum import Enum

# Cycles between the search's shifts on its last ring: half of that away, the correlation is still close to its peak.
SHIFT_CYCLES = 0.25
# The same where all shifts are searched, to find the right place rather than the exact one.
WIDE_CYCLES = 0.33
# From this number of classes on, an image is compared with the likely ones only.
MANY_CLASSES = 20
# Mean probability of the best class from which on poses are sure: neither all shifts nor all classes need be searched.
# From the second one on, fewer rings tell enough.
SURE, CERTAIN = 0.9, 0.95
# With fewer classes, an image and its mirror image are never kept together to be told apart later: views
# that have no mirror images in the set would share such classes, and a few of these leave no room to sort them out.
FEW_CLASSES = 8


class Search(Enum):
    """What a pass tries: shifts around each image's present one and likely classes, or all of both.

    ``UNCERTAIN`` is all while poses are unsure.
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
        Number of classes; where it grows, classes are divided before the pass, where it falls, they are grouped.
    rings, doubtful_rings
        Rings compared, and while poses are less than certain.
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
        Rings until the classes are complete; the same after the first classes as long as poses are less than certain,
        because little signal or noise at low frequency leaves few rings too little to tell; and rings of the last passes.
    start, grow, finish
        Passes with the first classes, after each division, and at the last rings.
    replacements
        How often classes are replaced after the classes are complete.
    candidates
        Classes compared with each image once there are many.
    sure_rounds
        How often fine classes are made where poses are sure.
    unsure_fine, unsure_rounds
        Where poses are unsure: fine classes for each wanted one, at most, and how often these are made.
    """

    first_classes: int = 7
    coarse: int = 10
    doubtful: int = 15
    last: int = 16
    start: int = 6
    grow: int = 3
    finish: int = 1
    replacements: int = 2
    candidates: int = 12
    sure_rounds: int = 3
    unsure_fine: int = 3
    unsure_rounds: int = 4


@dataclass(frozen=True)
class Schedule:
    """The passes.

    Attributes
    ----------
    first
        Until a pass with as many classes as wanted.
    sure, unsure
        The others where poses are sure or unsure then.
    """

    first: list[Step]
    sure: list[Step]
    unsure: list[Step]

    def steps(self, history: list[dict]) -> list[Step]:
        """All passes, by the records of those that were done."""
        done = len(self.first)
        return self.first + (self.sure if len(history) >= done and is_sure(history[:done]) else self.unsure)

    @property
    def rings(self) -> int:
        """Rings that the passes need."""
        return max(max(step.rings, step.doubtful_rings) for step in [*self.first, *self.sure, *self.unsure])


def is_sure(history: list[dict]) -> bool:
    """Whether poses were sure in the last pass."""
    return _confidence(history) >= SURE


def is_certain(history: list[dict]) -> bool:
    """Whether they were so sure that fewer rings are enough."""
    return _confidence(history) >= CERTAIN


def _confidence(history: list[dict]) -> float:
    return history[-1]["confidence"] if history else 0.0


def schedule(classes: int, fine: int, rings: int, mirror: bool, recipe: Recipe) -> Schedule:
    """Passes for a number of classes.

    Where mirror images are to be kept apart, they are told apart late: half as many classes of both come first, so that
    twice as many images find each average.

    Parameters
    ----------
    classes
        Wanted in the end.
    fine
        Made before, to be grouped; no more than `classes` for none.
    rings
        That the data have.
    mirror
        Whether an image and its mirror image belong together in the end.
    recipe
        See `Recipe`.
    """
    passes = _Passes(rings, mirror, mirror or classes >= FEW_CLASSES, recipe)
    complete, finest = passes.before_unfolding(classes), passes.before_unfolding(fine)
    start, *numbers = growth(complete, recipe.first_classes)
    grown = [step for number in numbers[:-1] for step in passes.grown(number)]
    last = passes.grown(complete) if numbers else []
    # What one pass with all the classes tells decides what follows.
    first = passes.beginning(start) + grown + last[:1]
    if fine <= classes:
        settled = last[1:] + passes.everything(complete) + passes.renewed(complete)
        plain = settled + passes.finished(classes) + passes.exact(classes)
        return Schedule(first, plain, plain)
    doubled = passes.doubled(complete, finest)
    rounds = (doubled + passes.regrouped(complete)) * (recipe.sure_rounds - 1) + doubled
    sure = rounds + passes.finished(fine) + passes.grouped(classes)
    some = passes.before_unfolding(min(fine, recipe.unsure_fine * classes))
    unsure = passes.sorted_out(complete, some) * recipe.unsure_rounds + passes.finished(classes)
    return Schedule(first, sure + passes.exact(classes), unsure + passes.exact(classes))


@dataclass(frozen=True)
class _Passes:
    """Passes for each purpose; ``folded`` keeps mirror images together until they are told apart, if they are to be."""

    rings: int
    mirror: bool
    folded: bool
    recipe: Recipe

    def before_unfolding(self, classes: int) -> int:
        return (classes + 1) // 2 if self.folded and not self.mirror else classes

    def beginning(self, classes: int) -> list[Step]:
        coarse = self._ring(self.recipe.coarse)
        searched = Step(classes, coarse, coarse, self.folded, Search.ALL)
        return [searched] * self.recipe.start + self.renewal(classes) + [self._usual(classes)]

    def grown(self, classes: int) -> list[Step]:
        step = self._usual(classes)
        return [step] * self.recipe.grow + self.renewal(classes) + [step]

    def renewal(self, classes: int) -> list[Step]:
        return [replace(self._usual(classes), replace=True)] if classes > 2 else []

    def everything(self, classes: int) -> list[Step]:
        """Images that went astray find out of it by a search of all."""
        step = self._usual(classes)
        return [replace(step, search=Search.ALL, candidates=0), step]

    def renewed(self, classes: int) -> list[Step]:
        """Classes in better places, once there are as many as wanted."""
        return (self.renewal(classes) + self.everything(classes)) * self.recipe.replacements

    def doubled(self, classes: int, wanted: int) -> list[Step]:
        """Fine classes: images are in the right place, and one pass after each division is enough."""
        return [replace(self._usual(number), search=Search.NEAR) for number in doublings(classes, wanted)]

    def regrouped(self, classes: int) -> list[Step]:
        """Group fine classes for the time being, and search everything with the groups."""
        step = self._usual(classes)
        return [replace(step, search=Search.NEAR, candidates=1), replace(step, search=Search.ALL, candidates=0)]

    def sorted_out(self, classes: int, wanted: int) -> list[Step]:
        """The same for unsure images, which are compared with all fine classes, on more rings.

        All shifts need not be searched each time: those found with the groups are about right.
        """
        steps = [replace(step, candidates=0) for step in self.doubled(classes, wanted)] + self.regrouped(classes)
        return [replace(step, rings=step.doubtful_rings) for step in steps]

    def finished(self, classes: int) -> list[Step]:
        """Tell mirror images apart if they are to be, and compare in detail."""
        coarse, few = self._ring(self.recipe.coarse), _few(classes, self.recipe)
        unfolded = self.folded and not self.mirror
        steps = [Step(classes, coarse, coarse, False, candidates=few)] * self.recipe.grow if unfolded else []
        return steps + [self._last(classes, few)] * self.recipe.finish

    def grouped(self, classes: int) -> list[Step]:
        """Sharpen the groups' averages; images stay in their groups."""
        return [self._last(classes, 1)]

    def exact(self, classes: int) -> list[Step]:
        return [replace(self._last(classes, 1), fineness=fineness) for fineness in (2, 4)]

    def _usual(self, classes: int) -> Step:
        return Step(classes, self._ring(self.recipe.coarse), self._ring(self.recipe.doubtful), self.folded,
                    Search.UNCERTAIN, candidates=_few(classes, self.recipe))

    def _last(self, classes: int, candidates: int) -> Step:
        rings = self._ring(self.recipe.last)
        return Step(classes, rings, rings, self.mirror, candidates=candidates)

    def _ring(self, wanted: int) -> int:
        return min(wanted, self.rings)


def _few(classes: int, recipe: Recipe) -> int:
    return recipe.candidates if classes > MANY_CLASSES else 0


def growth(classes: int, first: int) -> list[int]:
    """Numbers of classes, each about twice the one before; the first is at most about `first`."""
    numbers = [classes]
    while numbers[0] > first:
        numbers.insert(0, (numbers[0] + 1) // 2)
    return numbers


def doublings(classes: int, wanted: int) -> list[int]:
    """Numbers of classes from the one after `classes` up to `wanted`, each at most twice the one before."""
    numbers = []
    while classes < wanted:
        classes = min(2 * classes, wanted)
        numbers.append(classes)
    return numbers
