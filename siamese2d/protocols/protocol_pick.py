"""Picking with a trained picker."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import SetOfCoordinates

from siamese2d.constants import PICK
from siamese2d.convert import readCoordinates, writeMicrographs
from siamese2d.objects import modelExists
from siamese2d.protocols.protocol_base import Siamese2DProtBase, validateNotEmpty
from siamese2d.protocols.protocol_train_picker import validateDiameter


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
                      help="Micrographs to pick, normalized as those that the picker was trained on. They may have "
                           "another pixel size.")
        form.addParam("inputPicker", params.PointerParam, pointerClass="PickerModel", important=True, label="Picker",
                      help="The trained picker.")
        form.addParam("threshold", params.FloatParam, default=None, allowsNull=True, label="Score threshold",
                      help="Probability from which a candidate is taken for a particle, 0 to 1. Empty takes the one "
                           "that training found best on held-out labels. Raise it when there are too many false picks, "
                           "lower it when particles are missed; continuing the run with another threshold does not "
                           "score again.")
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        writeMicrographs(self.getInputPath("micrographs.star"), self.inputMicrographs.get())

    def _createOutput(self):
        micrographs = self.inputMicrographs.get()
        output = self._createSetOfCoordinates(self.inputMicrographs)
        output.setBoxSize(round(self.inputPicker.get().getDiameterPixels(micrographs.getSamplingRate())))
        readCoordinates(self.getStagePath("coordinates.star"), self.getInputPath("micrographs.star"), micrographs,
                        output)
        self._defineOutputs(**{PickOutput.outputCoordinates.name: output})
        self._defineSourceRelation(self.inputMicrographs, output)
        self._defineSourceRelation(self.inputPicker, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        errors = validateNotEmpty("Input micrographs", self.inputMicrographs.get())
        picker = self.inputPicker.get()
        if picker is not None and not modelExists(picker):
            errors.append(f"*Picker*: its file {picker.getFileName()} is gone. Train the picker again.")
        if self.threshold.get() is not None and not 0 <= self.threshold.get() <= 1:
            errors.append("*Score threshold* is a probability, from 0 to 1; empty takes the picker's own.")
        if errors or picker is None or self.inputMicrographs.get() is None:
            return errors
        return validateDiameter("Picker", picker.getDiameter(), self.inputMicrographs.get())

    def _resultSummary(self):
        output, micrographs = self.outputCoordinates, self.inputMicrographs.get()
        return [f"{output.getSize()} particles in {micrographs.getSize()} micrographs "
                f"({output.getSize() / max(micrographs.getSize(), 1):.0f} each), box {output.getBoxSize()} px."]

    def _methods(self):
        return ["Particles were picked with a network trained on marked particles and unlabeled micrographs [Bepler2019]."]

    def _citations(self):
        return ["Bepler2019"]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        arguments = ["--micrographs", self.getInputPath("micrographs.star"), "--model",
                     self.inputPicker.get().getFileName()]
        return arguments if self.threshold.get() is None else arguments + ["--threshold", self.threshold.get()]
