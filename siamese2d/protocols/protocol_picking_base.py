"""What the pickers share: micrographs in, coordinates with scores out, also while micrographs still arrive."""

import enum

from pwem.objects import SetOfCoordinates

from siamese2d.convert import readCoordinates, writeMicrographs
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtStreamingBase
from siamese2d.streams import Subset


class PickOutput(enum.Enum):
    outputCoordinates = SetOfCoordinates


class Siamese2DProtPickingBase(Siamese2DProtStreamingBase):
    """Picks particles; a subclass adds the size of its boxes in pixels (`getPickedBox`)."""

    _possibleOutputs = PickOutput
    OUTPUT = PickOutput.outputCoordinates.name

    # --------------------------- STEPS functions ---------------------------------------
    def _growingInputs(self):
        return [self.inputMicrographs.get()]

    def _writeBatch(self, batch, ids):
        writeMicrographs(self.getInputPath(batch, "micrographs.star"), Subset(self.inputMicrographs.get(), ids))

    def _publishBatch(self, batch):
        output = self._output(self.OUTPUT, self._newOutput)
        readCoordinates(self.getStagePath(batch, "coordinates.star"), self.getInputPath(batch, "micrographs.star"),
                        self.inputMicrographs.get(), output)
        # The file of a set can't tell that it is open before it holds an item.
        if len(output):
            self._publish(self.OUTPUT, output, self._defineRelations)

    def _completeOutputs(self):
        if not self.hasAttribute(self.OUTPUT):
            self._publish(self.OUTPUT, self._newOutput(), self._defineRelations)

    def _newOutput(self):
        output = self._createSetOfCoordinates(self.inputMicrographs)
        output.setBoxSize(self.getPickedBox())
        return output

    def _defineRelations(self, output):
        for _, pointer in self.iterInputPointers():
            self._defineSourceRelation(pointer, output)

    # --------------------------- INFO functions ----------------------------------------
    def _countSummary(self):
        """How much was found in how many micrographs."""
        found, micrographs = self.outputCoordinates.getSize(), self.countTaken()
        return f"{found} particles in {micrographs} micrographs ({found / max(micrographs, 1):.0f} each)"
