"""Picking with a trained picker."""

import pyworkflow.protocol.params as params

from siamese2d.constants import PICK
from siamese2d.objects import modelExists
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import validateNotEmpty
from siamese2d.protocols.protocol_picking_base import Siamese2DProtPickingBase
from siamese2d.protocols.protocol_train_picker import validateDiameter


class Siamese2DProtPick(Siamese2DProtPickingBase):
    """Finds particles in micrographs with a trained picker."""

    _label = "pick particles"
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
                      help="The trained picker; any that was trained on the same kind of particle.")
        form.addParam("threshold", params.FloatParam, default=None, allowsNull=True, label="Score threshold",
                      help="Probability from which a candidate is taken for a particle, 0 to 1. Empty takes the one "
                           "that training found best on held-out labels. Raise it when there are too many false picks, "
                           "lower it when particles are missed; continuing the run with another threshold does not "
                           "score again. The wand shows what each threshold gains and costs. When unsure leave it "
                           "empty.")
        self._defineParallel(form)

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

    def _costWarnings(self):
        micrographs = self.inputMicrographs.get()
        seconds = costs.scoreSeconds(micrographs, self.inputPicker.get().getDiameter())
        return costs.hours(self, seconds * micrographs.getSize(), "More threads make it shorter.")

    def _resultSummary(self):
        return [f"{self._countSummary()}, box {self.outputCoordinates.getBoxSize()} px."]

    def _methods(self):
        return ["Particles were picked with a network trained on marked particles and unlabeled micrographs "
                "[Bepler2019]."]

    def _citations(self):
        return ["Bepler2019"]

    # --------------------------- UTILS functions ---------------------------------------
    def getPickedBox(self):
        """Size of the boxes in pixels of the micrographs: the particle's diameter."""
        return round(self.inputPicker.get().getDiameterPixels(self.inputMicrographs.get().getSamplingRate()))

    def _batchArguments(self, batch):
        arguments = ["--micrographs", self.getInputPath(batch, "micrographs.star"), "--model",
                     self.inputPicker.get().getFileName()]
        return arguments if self.threshold.get() is None else arguments + ["--threshold", self.threshold.get()]
