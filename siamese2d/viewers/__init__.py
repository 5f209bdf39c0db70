"""Viewers of what every protocol makes."""

from siamese2d.viewers.viewer_classify import Siamese2DAssignViewer, Siamese2DClassifyViewer
from siamese2d.viewers.viewer_extract import Siamese2DExtractViewer
from siamese2d.viewers.viewer_gallery import (AClassGalleryViewer, Siamese2DGalleryViewer,
                                              Siamese2DSelectClassesViewer)
from siamese2d.viewers.viewer_model import Siamese2DModelViewer
from siamese2d.viewers.viewer_normalize import Siamese2DNormalizeViewer
from siamese2d.viewers.viewer_pick import Siamese2DPickViewer
from siamese2d.viewers.viewer_pick_unlabeled import Siamese2DPickUnlabeledViewer
from siamese2d.viewers.viewer_train_embedding import Siamese2DTrainEmbeddingViewer
from siamese2d.viewers.viewer_train_picker import Siamese2DTrainPickerViewer

__all__ = ["AClassGalleryViewer", "Siamese2DAssignViewer", "Siamese2DClassifyViewer",
           "Siamese2DExtractViewer", "Siamese2DGalleryViewer", "Siamese2DModelViewer", "Siamese2DNormalizeViewer",
           "Siamese2DPickUnlabeledViewer", "Siamese2DPickViewer", "Siamese2DSelectClassesViewer",
           "Siamese2DTrainEmbeddingViewer", "Siamese2DTrainPickerViewer"]
