"""The window that compares two classifications."""

import math
import os

from pwem.objects import SetOfClasses2D
from pwem.viewers import EmPlotter
from pyworkflow.viewer import View

from siamese2d.gallery.agreement import compare
from siamese2d.gallery.class_list import read_assignment, read_class_list
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.gallery.pictures import read_picture
from siamese2d.viewers.plots.agreement import plot_confusion, plot_pairs
from siamese2d.viewers.run_files import RunFileError

PAIRS_PER_PAGE = 12


class AgreementView(View):
    """Table of common particles, then matched classes side by side, in one window with pages.

    Parameters
    ----------
    names : (str, str)
        What the two classifications are called.
    paths : (str, str)
        SQLite files of two SetOfClasses2D.

    Raises
    ------
    SetFileError
        If one can't be read.
    """

    def __init__(self, names: tuple[str, str], paths: tuple[str, str]):
        self._names = names
        self._classes = [read_class_list(path) for path in paths]
        self.agreement = compare(*(read_assignment(path) for path in paths))
        self.plotter = EmPlotter(windowTitle=f"Agreement of {names[0]} and {names[1]}")
        self.plotter.tightLayoutOn = False
        pages = 1 + math.ceil(len(self.agreement.partners) / PAIRS_PER_PAGE)
        Browser(self.plotter.getFigure(), pages, self._draw)

    def getFigure(self):
        """The figure of the window."""
        return self.plotter.getFigure()

    def show(self):
        """Open the window."""
        self.plotter.show()

    def close(self):
        """Close the window."""
        self.plotter.close()

    def summary(self) -> str:
        """The result in one line."""
        found = self.agreement
        text = f"{found.common:,} particles in both"
        for count, name in ((found.only_first, self._names[0]), (found.only_second, self._names[1])):
            text += f"; {count:,} only in {name}" if count else ""
        if found.common:
            text += (f"\nadjusted Rand index {found.rand_index:.3f} (1: the same, 0: chance); "
                     f"{found.matched / found.common:.0%} in matched classes")
        return text

    def _draw(self, page, figure):
        found = self.agreement
        if page == 0:
            plot_confusion(found.counts, found.rows, found.columns, self._names, self.summary(), figure)
            return
        partners = found.partners[(page - 1) * PAIRS_PER_PAGE:page * PAIRS_PER_PAGE]
        plot_pairs([self._pair(*pair) for pair in partners], self._names,
                   "the largest first; under each its particles, and the share of them that the other has too",
                   PAIRS_PER_PAGE, figure)

    def _pair(self, row, column):
        found = self.agreement
        shared = found.counts[row, column]
        sizes = found.counts[row].sum(), found.counts[:, column].sum()
        numbers = int(found.rows[row]), int(found.columns[column])
        captions = tuple(f"{size:,}\n{shared / size:.0%} shared" for size in sizes)
        return (*(_average(classes, number) for classes, number in zip(self._classes, numbers)), captions, numbers)


def other_classes(project, classes) -> dict[str, SetOfClasses2D]:
    """The other sets of 2D classes of a project by a name for the user."""
    found = {}
    for run in project.getRuns(refresh=False):
        for name, output in run.iterOutputAttributes():
            if isinstance(output, SetOfClasses2D) and output.getFileName() != classes.getFileName():
                found[f"{run.getRunName()}, {name} ({run.getObjId()})"] = output
    return found


def short_name(project, classes) -> str:
    """What a set of classes is called in a plot: the name of its run."""
    owner = project.getProtocol(classes.getObjParentId()) if classes.getObjParentId() else None
    return owner.getRunName() if owner is not None else os.path.basename(classes.getFileName())


def _average(classes, number):
    try:
        return read_picture(classes.pictures[int(classes.rows_of([number])[0])])
    except RunFileError:
        # The table of numbers is worth showing without pictures.
        return None
