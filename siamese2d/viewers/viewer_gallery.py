"""Opens the class gallery on sets of any plugin, and launches what it asks for in the project."""

import os
import webbrowser
from urllib.parse import quote

from pwem.objects import SetOfAverages, SetOfClasses2D
from pyworkflow.gui.dialog import askString
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from siamese2d.gallery.class_list import Members, SetFileError, read_class_list
from siamese2d.gallery.criteria import format_numbers
from siamese2d.gallery.model import GalleryModel
from siamese2d.protocols import Siamese2DProtSelectClasses
from siamese2d.viewers.agreement_view import AgreementView, other_classes, short_name
from siamese2d.viewers.gallery.choice_dialog import choose
from siamese2d.viewers.gallery.gallery_window import Actions, GalleryWindow
from siamese2d.viewers.gallery.members_window import MembersWindow
from siamese2d.viewers.gallery.time_slices import TimeSlices
from siamese2d.viewers.project_runs import launch, output_of
from siamese2d.viewers.report.class_report import build_report, report_picture, write_report

OWN_RUNS = "_Siamese2DProt"


class Siamese2DGalleryViewer(Viewer):
    """Class averages to look at, sort and select; works on the classes and averages of any plugin."""

    _name = "siamese2d class gallery"
    _environments = [DESKTOP_TKINTER]
    _targets = [SetOfClasses2D, SetOfAverages]

    @classmethod
    def can_handle_this_instance(cls, instance):
        return not _is_own(instance)

    def _visualize(self, obj, **kwargs):
        try:
            return [GalleryView(self, obj)]
        except SetFileError as problem:
            return [self.errorMessage(str(problem), "Class gallery")]


class AClassGalleryViewer(Siamese2DGalleryViewer):
    """The same for what this plugin made.

    Scipion sorts the viewers of a set by their names and opens the first; its own metadata viewer is ``AMDViewer``.
    """

    @classmethod
    def can_handle_this_instance(cls, instance):
        return _is_own(instance)


class Siamese2DSelectClassesViewer(Viewer):
    """The gallery of the classes, or averages, that were kept."""

    _name = "siamese2d class gallery"
    _environments = [DESKTOP_TKINTER]
    _targets = [Siamese2DProtSelectClasses]

    def _visualize(self, obj, **kwargs):
        outputs = dict(obj.iterOutputAttributes())
        kept = next((outputs[name] for name in ("outputClasses", "outputAverages") if name in outputs), None)
        if kept is None:
            return [self.infoMessage("Nothing has been kept yet: look again when this run has finished.",
                                     "Class gallery")]
        return Siamese2DGalleryViewer._visualize(self, kept)


class GalleryView(View):
    """The gallery of one set of a project.

    Parameters
    ----------
    viewer : pyworkflow.viewer.Viewer
        Knows the project and the window that it was opened from.
    classes : SetOfClasses2D or SetOfAverages

    Raises
    ------
    SetFileError
        If the set can't be read.
    """

    def __init__(self, viewer: Viewer, classes):
        self._viewer, self._classes = viewer, classes
        self._path = classes.getFileName()
        self._model = self._read()
        self.window: GalleryWindow | None = None

    def show(self):
        """Open the window."""
        actions = Actions(reload=self._read, keep=self._keep, others=self._others())
        if self._model.classes.has_members:
            actions.open_members = self._open_members
        self.window = GalleryWindow(self._viewer.getTkRoot(), f"Class gallery: {self._title()}", self._model, actions)

    def _others(self):
        compare = [("Compare…", self._compare)] if self._model.classes.has_members else []
        return [("HTML report", self._report), *compare]

    def _report(self, parent):
        model, pictures = self.window.model, {}

        def collect(number, picture):
            pictures[number] = picture
            self.window.say(f"Writing the report: {len(pictures):,} of {len(model.classes):,} classes …")
            if len(pictures) == len(model.classes):
                self.window.say(open_report(write_class_report(self._viewer.getProject(), self._classes, model,
                                                               pictures)))

        if not len(model.classes):
            return "There is nothing to report yet."
        TimeSlices(parent, lambda number: report_picture(model, number), collect).want(model.classes.ids.tolist())
        return "Writing the report …"

    def _compare(self, parent):
        view = ask_and_compare(self._viewer.getProject(), self._classes, parent)
        if isinstance(view, str):
            return view
        view.show()
        return view.summary().replace("\n", "; ")

    def _read(self) -> GalleryModel:
        # An own object of the same file: the one that the project holds may have read the set before it had grown.
        return GalleryModel(read_class_list(self._path), _classified(self._classes))

    def _title(self):
        owner, name = output_of(self._viewer.getProject(), self._classes)
        return f"{owner.getRunName()}, {name}" if owner is not None else self._path

    def _open_members(self, number, parent):
        MembersWindow(parent, f"Class {number}", Members(self._path), number, self._model.classes.pixel_size)

    def _keep(self, numbers, parent):
        noun = "classes" if self._model.classes.has_members else "averages"
        label = askString("Keep selected", "Name of the new run:", parent, entryWidth=46,
                          defaultValue=f"select {len(numbers)} of {len(self._model.classes)} {noun}")
        if not label:
            return ""
        launch_selection(self._viewer.getProject(), self._viewer.getParent(), self._classes, numbers, label)
        return f"'{label}' was started: it is in the project's tree, and has its outputs when it has finished."


def write_class_report(project, classes, model: GalleryModel | None = None, pictures: dict | None = None) -> str:
    """Write the report on a set into the project's folder ``Reports``, which no run owns, so none deletes it.

    Parameters
    ----------
    project : pyworkflow.project.Project
    classes : SetOfClasses2D or SetOfAverages
    model, pictures : GalleryModel, dict of int to (bytes or str), optional
        The classes in the order to report, and their pictures, where they are known already.

    Returns
    -------
    str
        Path of the page.

    Raises
    ------
    SetFileError
        If the set can't be read.
    """
    if model is None:
        model = GalleryModel(read_class_list(classes.getFileName()), _classified(classes))
    if pictures is None:
        pictures = {number: report_picture(model, number) for number in model.classes.ids.tolist()}
    owner, output = output_of(project, classes)
    if owner is None:
        name = title = os.path.splitext(os.path.basename(classes.getFileName()))[0]
    else:
        title = f"{owner.getRunName()}: {output}"
        name = f"{os.path.basename(owner.getWorkingDir())}_{output}"
    path = os.path.join("Reports", f"{name}.html")
    write_report(path, build_report(model, pictures, owner, title))
    return path


def open_report(path: str) -> str:
    """Show a report in the browser; returns what to tell."""
    webbrowser.open(f"file://{quote(os.path.abspath(path))}")
    return f"The report is {path} in the project's folder: one file, which can be mailed."


def ask_and_compare(project, classes, parent) -> AgreementView | str:
    """Let the user choose other classes of the project, and compare.

    Returns
    -------
    AgreementView or str
        Why there is none: no other classes, they can't be read, or the user thought better of it ("").
    """
    others = other_classes(project, classes)
    if not others:
        return "There are no other 2D classes in this project to compare with."
    chosen = choose(parent, "Agreement", "Compare with the classes of:", list(others))
    if chosen is None:
        return ""
    try:
        return AgreementView((short_name(project, classes), short_name(project, others[chosen])),
                             (classes.getFileName(), others[chosen].getFileName()))
    except SetFileError as problem:
        return str(problem)


def launch_selection(project, window, classes, numbers, label: str):
    """Start the protocol that makes the subset, so that the choice is part of the project's history.

    Parameters
    ----------
    project : pyworkflow.project.Project
    window : pyworkflow.gui.Window or None
        Window from which the gallery was opened; the project's own window, where there is one, shows the new run.
    classes : SetOfClasses2D or SetOfAverages
    numbers : iterable of int
        Ids of the classes to keep.
    label : str
        Name of the run.

    Returns
    -------
    Siamese2DProtSelectClasses
    """
    return launch(project, window, Siamese2DProtSelectClasses, label, {"inputClasses": classes},
                  {"classNumbers": format_numbers(numbers)})


def _classified(classes):
    """Particles that were classified, None where that is not known."""
    images = classes.getImages() if isinstance(classes, SetOfClasses2D) else None
    return images.getSize() if images is not None else None


def _is_own(instance):
    # Scipion names the folder of a run after its protocol's class.
    return OWN_RUNS in os.path.dirname(instance.getFileName() or "")
