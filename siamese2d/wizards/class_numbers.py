"""Class numbers for a form, chosen in the class gallery."""

from pwem.wizards import EmWizard
from pyworkflow.gui.dialog import showError, showInfo

from siamese2d.gallery.class_list import SetFileError, read_class_list
from siamese2d.gallery.criteria import format_numbers, parse_numbers
from siamese2d.gallery.model import GalleryModel
from siamese2d.protocols import Siamese2DProtSelectClasses
from siamese2d.viewers.gallery.gallery_window import Actions, GalleryWindow

TITLE = "Class numbers"


class Siamese2DClassNumbersWizard(EmWizard):
    """Opens the gallery on the input; what is kept there goes into the form."""

    _targets = [(Siamese2DProtSelectClasses, ["classNumbers"])]

    def show(self, form, *params):
        classes = form.protocol.inputClasses.get()
        if classes is None:
            showInfo(TITLE, "Choose the 2D classes first.", form.root)
            return None
        try:
            model = GalleryModel(read_class_list(classes.getFileName()))
        except SetFileError as problem:
            showError(TITLE, str(problem), form.root)
            return None

        def take(numbers, window):
            form.setVar("classNumbers", format_numbers(numbers))
            window.after_idle(window.destroy)
            return "The form has these numbers now."

        try:
            model.selection.replace(parse_numbers(form.protocol.classNumbers.get("")))
        except ValueError:
            # What is typed there is no list yet: the gallery starts with nothing selected.
            model.selection.replace(())
        return GalleryWindow(form.root, TITLE, model, Actions(keep=take))
