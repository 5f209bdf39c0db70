"""Viewer of particles that were picked without labels."""

from siamese2d.protocols import Siamese2DProtPickUnlabeled
from siamese2d.viewers.viewer_pick import Siamese2DPickViewer


class Siamese2DPickUnlabeledViewer(Siamese2DPickViewer):
    """Micrographs with their picks, and a threshold to try; scores are standard deviations of the noise."""

    _label = "results of pick without labels"
    _targets = [Siamese2DProtPickUnlabeled]

    def _diameter(self):
        return max(self.protocol.getDiameters()) / self.protocol.inputMicrographs.get().getSamplingRate()
