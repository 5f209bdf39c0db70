"""Wizards that show what the training of a model measured: the picker's threshold, the number of classes."""

import os

from pwem.wizards import EmWizard
from pyworkflow.gui.dialog import showError, showInfo

from siamese2d.objects import modelExists
from siamese2d.protocols import Siamese2DProtClassify, Siamese2DProtPick
from siamese2d.viewers.run_files import RunFileError, RunFolder
from siamese2d.wizards.choice_plots import ClassCountPlot, ThresholdPlot, elbow_of
from siamese2d.wizards.curve_dialog import CurveDialog

THRESHOLD_STEP = 0.001


class Siamese2DThresholdWizard(EmWizard):
    """Score threshold on the curve of precision and recall that the picker's training measured."""

    _targets = [(Siamese2DProtPick, ["threshold"])]

    def show(self, form, *params):
        title, present = "Score threshold", form.protocol.threshold.get()
        training = _trainingOf(form, title, form.protocol.inputPicker.get(), "picker")
        if training is None:
            return
        curve = training.get("precision_recall") or []
        if len(curve) < 2:
            showInfo(title, "This picker has no curve: none of the marked particles was found again. Leave the field "
                            "empty, "
                            "and choose the threshold in the viewer after picking.", form.root)
            return
        start = present if present is not None else training.get("threshold", 0.5)
        thresholds = [point["threshold"] for point in curve]
        dialog = CurveDialog(form.root, title, title, start, (min(thresholds), max(thresholds), THRESHOLD_STEP),
                             lambda figure: ThresholdPlot(training, figure))
        if dialog.resultYes():
            form.setVar("threshold", round(dialog.value, 3))


class Siamese2DClassCountWizard(EmWizard):
    """Number of classes from the elbow and the silhouette of the embedding."""

    _targets = [(Siamese2DProtClassify, ["numberOfClasses"])]

    def show(self, form, *params):
        title, present = "Number of classes", form.protocol.numberOfClasses.get()
        training = _trainingOf(form, title, form.protocol.inputEmbedding.get(), "embedding")
        if training is None:
            return
        rows = training.get("elbow") or []
        if not rows:
            showInfo(title, "This embedding has no elbow: it was trained on too few particles. -1 takes one class for "
                            "every "
                            "100 particles, from 10 to 100.", form.root)
            return
        best = max(rows, key=lambda row: row["silhouette"])["k"]
        start = present if present and present > 0 else max(best, elbow_of(rows))
        dialog = CurveDialog(form.root, title, title, start, (rows[0]["k"], rows[-1]["k"], 1),
                             lambda figure: ClassCountPlot(rows, figure))
        if dialog.resultYes():
            form.setVar("numberOfClasses", int(dialog.value))


def _trainingOf(form, title, model, name):
    """What the training of a model wrote beside it; None when that can't be had, which the user has then been told."""
    if model is None:
        showInfo(title, f"Choose the {name} first: its training measured what is to be seen here.", form.root)
    elif not modelExists(model):
        showError(title, f"The file of this {name}, {model.getFileName()}, is gone. Train it again.", form.root)
    else:
        try:
            return RunFolder(os.path.dirname(model.getFileName())).read_json("training.json")
        except RunFileError as problem:
            showError(title, str(problem), form.root)
    return None
