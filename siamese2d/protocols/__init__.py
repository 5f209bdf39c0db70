"""One protocol per stage of the engine."""

from siamese2d.protocols.protocol_assign import Siamese2DProtAssign
from siamese2d.protocols.protocol_classify import Siamese2DProtClassify
from siamese2d.protocols.protocol_export import Siamese2DProtExport
from siamese2d.protocols.protocol_extract import Siamese2DProtExtract
from siamese2d.protocols.protocol_filter_picks import Siamese2DProtFilterPicks
from siamese2d.protocols.protocol_import_coordinates import Siamese2DProtImportCoordinates
from siamese2d.protocols.protocol_normalize import Siamese2DProtNormalize
from siamese2d.protocols.protocol_pick import Siamese2DProtPick
from siamese2d.protocols.protocol_pick_unlabeled import Siamese2DProtPickUnlabeled
from siamese2d.protocols.protocol_select_classes import Siamese2DProtSelectClasses
from siamese2d.protocols.protocol_select_particles import Siamese2DProtSelectParticles
from siamese2d.protocols.protocol_train_embedding import Siamese2DProtTrainEmbedding
from siamese2d.protocols.protocol_train_picker import Siamese2DProtTrainPicker

__all__ = ["Siamese2DProtAssign", "Siamese2DProtClassify", "Siamese2DProtExport", "Siamese2DProtExtract",
           "Siamese2DProtFilterPicks", "Siamese2DProtImportCoordinates", "Siamese2DProtNormalize",
           "Siamese2DProtPick", "Siamese2DProtPickUnlabeled", "Siamese2DProtSelectClasses",
           "Siamese2DProtSelectParticles", "Siamese2DProtTrainEmbedding", "Siamese2DProtTrainPicker"]
