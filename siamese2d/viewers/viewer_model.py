"""Viewer of trained models: opens what the training that made them has to show."""

from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from siamese2d.objects import EmbeddingModel, PickerModel
from siamese2d.viewers.viewer_train_embedding import Siamese2DTrainEmbeddingViewer
from siamese2d.viewers.viewer_train_picker import Siamese2DTrainPickerViewer

VIEWERS = {PickerModel: Siamese2DTrainPickerViewer, EmbeddingModel: Siamese2DTrainEmbeddingViewer}


class Siamese2DModelViewer(Viewer):
    """Opens the viewer of the training protocol of a model."""

    _name = "siamese2d training"
    _environments = [DESKTOP_TKINTER]
    _targets = list(VIEWERS)

    def visualize(self, obj, **kwargs):
        training = self.getProject().getProtocol(obj.getObjParentId())
        viewer_class = VIEWERS[type(obj)]
        viewer = viewer_class(project=self.getProject(), protocol=training, parent=self.formWindow)
        viewer.visualize(training, windows=kwargs.get("windows", self.formWindow))
