"""Picking with a trained picker."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import SetOfCoordinates

from siamese2d.constants import PICK
from siamese2d.convert import readCoordinates, writeMicrographs
from siamese2d.objects import modelExists
from siamese2d.protocols.protocol_base import Siamese2DProtBase, validateNotEmpty


class PickOutput(enum.Enum):
    outputCoordinates = SetOfCoordinates


class Siamese2DProtPick(Siamese2DProtBase):
    """Finds particles in micrographs with a trained picker."""

    _label = "pick particles"
    _possibleOutputs = PickOutput
    STAGE = PICK

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs",
                      help="Micrographs to pick, treated as those that the picker was trained on: same normalization, same "
                           "pixel size.")
        form.addParam("inputPicker", params.PointerParam, pointerClass="PickerModel", important=True, label="Picker",
                      help="The trained picker.")
        form.addParam("threshold", params.FloatParam, default=None, allowsNull=True, label="Score threshold",
                      help="Particles with a lower score are left out. Empty takes the one that training found best on "
                           "held-out labels. Raise it when there are too many false picks, lower it when particles are "
                           "missed; the viewer shows scores and counts.")
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        writeMicrographs(self.getInputPath("micrographs.star"), self.inputMicrographs.get())

    def _createOutput(self):
        micrographs = self.inputMicrographs.get()
        output = self._createSetOfCoordinates(self.inputMicrographs)
        output.setBoxSize(round(self.inputPicker.get().getDiameterPixels(micrographs.getSamplingRate())))
        readCoordinates(self.getStagePath("coordinates.star"), self.getInputPath("micrographs.star"), micrographs, output)
        self._defineOutputs(**{PickOutput.outputCoordinates.name: output})
        self._defineSourceRelation(self.inputMicrographs, output)
        self._defineSourceRelation(self.inputPicker, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        errors = validateNotEmpty("Input micrographs", self.inputMicrographs.get())
        picker = self.inputPicker.get()
        if picker is not None and not modelExists(picker):
            errors.append(f"*Picker*: its file {picker.getFileName()} is gone. Train the picker again.")
        return errors or self._validatePixelSize()

    def _validatePixelSize(self):
        micrographs, picker = self.inputMicrographs.get(), self.inputPicker.get()
        if micrographs is None or picker is None:
            return []
        ratio = micrographs.getSamplingRate() / picker.getPixelSize()
        if abs(ratio - 1) <= PIXEL_SIZE_TOLERANCE:
            return []
        return [f"*Input micrographs* have {micrographs.getSamplingRate():.3f} Å/px, but the picker was trained at "
                f"{picker.getPixelSize():.3f} Å/px. Normalize the micrographs with the downsampling that its training "
                "micrographs had."]

    def _resultSummary(self):
        output, micrographs = self.outputCoordinates, self.inputMicrographs.get()
        return [f"{output.getSize()} particles in {micrographs.getSize()} micrographs "
                f"({output.getSize() / max(micrographs.getSize(), 1):.0f} each), box {output.getBoxSize()} px."]

    def _methods(self):
        return ["Particles were picked with a network trained by positive-unlabeled learning [Bepler2019]."]

    def _citations(self):
        return ["Bepler2019"]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        arguments = ["--micrographs", self.getInputPath("micrographs.star"), "--model",
                     self.inputPicker.get().getFileName()]
        return arguments if self.threshold.get() is None else arguments + ["--threshold", self.threshold.get()]


# Pixel sizes of the same data come rounded differently from different programs.
PIXEL_SIZE_TOLERANCE = 0.05
