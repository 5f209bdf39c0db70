"""Viewer of particles that were picked without labels."""

from siamese2d.protocols import Siamese2DProtPickUnlabeled
from siamese2d.viewers.viewer_pick import Siamese2DPickViewer


class Siamese2DPickUnlabeledViewer(Siamese2DPickViewer):
    """The same for picks whose scores are standard deviations of the noise, which nothing was trained for."""

    _label = "results of pick without labels"
    _targets = [Siamese2DProtPickUnlabeled]

    def _diameter(self):
        return max(self.protocol.getDiameters()) / self.protocol.inputMicrographs.get().getSamplingRate()

    def _curve(self):
        return None
