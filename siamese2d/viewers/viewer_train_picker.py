"""Viewer of the training of a picker."""

from siamese2d.protocols import Siamese2DProtTrainPicker
from siamese2d.viewers.plots.picker_training import plot_picker_training, plot_precision_recall
from siamese2d.viewers.viewer_base import StageViewer


class Siamese2DTrainPickerViewer(StageViewer):
    """Training curves, and the precision and recall of the trained picker."""

    _label = "results of train picker"
    _targets = [Siamese2DProtTrainPicker]
    PLOTS = {
        "showTraining": (
            "Training curves",
            "The loss falls and the average precision on labels that were kept back rises. When it falls again "
            "while the loss goes on falling, the picker learns its labels by heart; the best epoch is the one "
            "that is kept."),
        "showPrecisionRecall": (
            "Precision and recall",
            "What a higher or a lower threshold gains and costs. Not all particles are marked, so the precision is "
            "estimated from the expected number of particles."),
    }

    def _showTraining(self):
        training = self.folder.read_json("training.json")
        return self.plot("training", lambda figure: plot_picker_training(
            training.get("epochs", []), training.get("best_epoch"), figure))

    def _showPrecisionRecall(self):
        training = self.folder.read_json("training.json")
        return self.plot("precision and recall", lambda figure: plot_precision_recall(
            training.get("precision_recall") or [], training.get("threshold"),
            training.get("held_out_average_precision"), training.get("held_out_labels", 0), figure))
