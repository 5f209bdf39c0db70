"""Viewer of 2D classes."""

import math

from pyworkflow.protocol.params import IntParam

from siamese2d.gallery.class_list import SetFileError
from siamese2d.protocols import Siamese2DProtAssign, Siamese2DProtClassify
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.class_files import (CLASSES, PARTICLES, count_unassigned, members_of, pixel_size_of,
                                           read_classes, read_particle_classes)
from siamese2d.viewers.plots.class_averages import by_size, plot_class_averages
from siamese2d.viewers.plots.convergence import plot_convergence
from siamese2d.viewers.plots.frc import plot_frc
from siamese2d.viewers.plots.grouping import plot_grouping
from siamese2d.viewers.plots.particle_gallery import plot_particle_gallery
from siamese2d.viewers.run_files import RunFileError
from siamese2d.viewers.viewer_base import StageViewer, figure_of
from siamese2d.viewers.viewer_gallery import GalleryView, ask_and_compare, open_report, write_class_report

HISTORY = {
    "changed": "Share of the particles that changed class",
    "confidence": "Mean confidence of the assignments",
    "log_likelihood": "Mean log-likelihood of a particle",
    "resolution": "Finest resolution that is used (Å)",
    "classes": "Number of classes",
}
CLASSES_PER_PAGE, MEMBERS_PER_PAGE = 40, 50


class Siamese2DClassifyViewer(StageViewer):
    """Class averages, their members and resolution, and how the classification converged."""

    _label = "results of classify 2D"
    _targets = [Siamese2DProtClassify]
    PLOTS = {
        "showGallery": (
            "Class gallery",
            "All averages in a window: sort them, select the good ones by clicking or by thresholds, look at the "
            "members of each, and keep the selected ones as a subset."),
        "showAverages": (
            "Class averages",
            "The largest class first, with the number of its particles, its share and its resolution."),
        "showMembers": (
            "Members of a class",
            "Its particles, rotated and shifted onto the average, the least certain first: wrong ones stand "
            "there."),
        "showFrc": (
            "Fourier ring correlation",
            "Agreement between averages of two halves of each class; the resolution is read where it falls below "
            "the dotted line."),
        "showReport": (
            "Report as HTML",
            "One file with averages, sizes, curves, parameters, versions and citations, to keep or to mail. It is put "
            "into the project's folder Reports and opened in the browser."),
        "showAgreement": (
            "Agreement with other classes",
            "Compares with another 2D classification of the same particles in this project, e.g. of another program or "
            "with other parameters: adjusted Rand index, common particles of all pairs of classes, and matched classes "
            "side by side."),
        "showGrouping": (
            "How many classes?",
            "What other numbers of classes would lose or gain. A curve that is flat at the number that was taken says "
            "that fewer would do, a steep one asks for more. Views change gradually, so a clear best number is rare; "
            "the silhouette favours the number that was taken, as its classes were divided to make the fine ones."),
        "showConvergence": (
            "Convergence",
            "Few particles still change their class at the end of a run that was long enough."),
    }

    def _defineChoices(self, form):
        form.addParam("classNumber", IntParam, default=-1, label="Class",
                      help="Number in the corner of its average. Its members are shown, and its curve is coloured. -1 "
                           "is the largest class.")

    def _showGallery(self):
        try:
            return GalleryView(self, self._classes())
        except SetFileError as problem:
            raise RunFileError(str(problem)) from problem

    def _showReport(self):
        try:
            path = write_class_report(self.getProject(), self._classes())
        except SetFileError as problem:
            raise RunFileError(str(problem)) from problem
        return self.infoMessage(open_report(path), "Report")

    def _showAgreement(self):
        view = ask_and_compare(self.getProject(), self._classes(), self.getTkRoot())
        if view == "":
            return None
        if isinstance(view, str):
            raise RunFileError(view)
        return view

    def _showAverages(self):
        classes = read_classes(self.folder)
        unassigned = count_unassigned(self.folder)

        def draw(page, figure):
            plot_class_averages(classes.averages, classes.sizes, classes.resolutions, numbers=classes.numbers,
                                unassigned=unassigned, pixel_size=classes.pixel_size, first=page * CLASSES_PER_PAGE,
                                count=CLASSES_PER_PAGE, figure=figure)

        plotter = self.window("class averages")
        Browser(figure_of(plotter), math.ceil(len(classes.sizes) / CLASSES_PER_PAGE), draw)
        return plotter

    def _showMembers(self):
        number = self._chosenClass()
        folder, pixel_size = self.folder, pixel_size_of(self.folder)
        members = members_of(read_particle_classes(folder), number, folder.file(PARTICLES), pixel_size or 1.0)
        total = len(members.names)
        # A missing stack is told before a window opens.
        members.images(folder, 0, 1)

        def draw(page, figure):
            first = page * MEMBERS_PER_PAGE
            images = members.images(folder, first, MEMBERS_PER_PAGE)
            captions = [_percent(value) for value in members.confidence[first:first + MEMBERS_PER_PAGE]]
            plot_particle_gallery(images, range(first + 1, first + 1 + len(images)), total,
                                  f"Members of class {number}", "aligned, the least certain first", captions,
                                  pixel_size, min(MEMBERS_PER_PAGE, total), figure)

        plotter = self.window(f"class {number}")
        Browser(figure_of(plotter), math.ceil(total / MEMBERS_PER_PAGE), draw)
        return plotter

    def _showFrc(self):
        report = self.folder.read_json("classification.json")
        chosen = [self._chosenClass()]
        return self.plot("FRC", lambda figure: plot_frc(
            report.get("frc") or [], report["frc_threshold"], chosen, figure))

    def _showConvergence(self):
        history = [{**record, "resolution": 1 / record["frequency"] if record.get("frequency") else None}
                   for record in self.folder.read_json("classification.json").get("history") or []]
        return self.plot("convergence", lambda figure: plot_convergence(history, HISTORY, figure))

    def _showGrouping(self):
        report = self.folder.read_json("classification.json")
        rows, history = report.get("grouping") or [], report.get("history") or []
        chosen = len(read_classes(self.folder).numbers)
        return self.plot("number of classes", lambda figure: plot_grouping(rows, history, chosen, figure))

    def _classes(self):
        classes = getattr(self.protocol, "outputClasses", None)
        if classes is None:
            # Says whether the run failed, is under way or has not begun.
            self.folder.read_table(CLASSES)
            raise RunFileError("The classes are not in the project yet: look again when the run has finished.")
        return classes

    def _chosenClass(self):
        if self.classNumber.get() > 0:
            return self.classNumber.get()
        classes = read_classes(self.folder)
        return int(classes.numbers[by_size(classes.sizes)[0]])


class Siamese2DAssignViewer(Siamese2DClassifyViewer):
    """The classes that particles were assigned to, and their members."""

    _label = "results of assign to 2D classes"
    _targets = [Siamese2DProtAssign]
    # Nothing converges here, and nothing is grouped: the classes are given.
    PLOTS = {name: plot for name, plot in Siamese2DClassifyViewer.PLOTS.items()
             if name not in ("showConvergence", "showGrouping")}

    def _showFrc(self):
        if not self.folder.read_json("classification.json").get("frc"):
            raise RunFileError("The averages are those of the given classes. To measure the resolution of averages of "
                               "the assigned particles, run the protocol with *New averages?* set to Yes.")
        return super()._showFrc()


def _percent(confidence):
    return f"{confidence:.0%}" if math.isfinite(confidence) else ""
