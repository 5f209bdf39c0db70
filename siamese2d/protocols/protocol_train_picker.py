"""Training of a particle picker."""

import enum

import pyworkflow.protocol.params as params

from siamese2d.constants import TRAIN_PICKER
from siamese2d.convert import coordinateScale, farthestPosition, writeCoordinates, writeMicrographs
from siamese2d.objects import PickerModel, modelExists
from siamese2d.protocols.protocol_base import EXPERT, Siamese2DProtBase, validateNotEmpty

OBJECTIVES = ["ge-binomial", "ge-kl", "nnpu", "pu", "pn"]


class TrainPickerOutput(enum.Enum):
    outputPicker = PickerModel


class Siamese2DProtTrainPicker(Siamese2DProtBase):
    """Trains a particle picker from a few marked particles, all else being unlabeled, not negative."""

    _label = "train picker"
    _possibleOutputs = TrainPickerOutput
    STAGE = TRAIN_PICKER

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs",
                      help="Normalized micrographs, preferably downsampled. They may be more than those with marked "
                           "particles, and of another pixel size.")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates", important=True,
                      label="Marked particles",
                      help="Some particles, marked by hand or picked otherwise: 100 spread over several micrographs are a "
                           "good start. They need not be complete in any micrograph.")
        form.addParam("diameter", params.FloatParam, default=-1, label="Particle diameter (Å)",
                      help="Longest diameter of the particle. -1 takes the box size of the marked particles; give it when "
                           "that box is much larger than the particle.")
        form.addParam("expectedParticles", params.FloatParam, default=-1, label="Particles per micrograph",
                      help="About how many particles a micrograph holds. -1 lets the program estimate it. Give a number "
                           "when the picks come out far too many or too few; being wrong by half is no harm.")
        form.addParam("objective", params.EnumParam, choices=OBJECTIVES, default=0, expertLevel=EXPERT,
                      label="Objective",
                      help="How unlabeled windows count. *ge-binomial*: their number of particles must fit the expected "
                           "one; the best choice for few labels.\n*ge-kl*: the same by a simpler measure.\n*nnpu*, *pu*: "
                           "positive-unlabeled risk.\n*pn*: all unlabeled are negative; only when every particle of the "
                           "micrographs is marked.")
        form.addParam("startModel", params.PointerParam, pointerClass="PickerModel", allowsNull=True, expertLevel=EXPERT,
                      label="Start from picker",
                      help="Continue from a picker trained before, e.g. for the same particle on another grid.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        micrographs = self.inputMicrographs.get()
        writeMicrographs(self.getInputPath("micrographs.star"), micrographs)
        writeCoordinates(self.getInputPath("coordinates.star"), self.inputCoordinates.get(), micrographs)

    def _createOutput(self):
        picker = PickerModel(filename=self.getStagePath("picker.safetensors"), diameter=self.getDiameter(),
                             pixelSize=self.inputMicrographs.get().getSamplingRate(), summary=self._trainingLine())
        self._defineOutputs(**{TrainPickerOutput.outputPicker.name: picker})
        self._defineSourceRelation(self.inputMicrographs, picker)
        self._defineSourceRelation(self.inputCoordinates, picker)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        micrographs, coordinates = self.inputMicrographs.get(), self.inputCoordinates.get()
        errors = validateNotEmpty("Input micrographs", micrographs) + validateNotEmpty("Marked particles", coordinates)
        if errors or micrographs is None or coordinates is None:
            return errors
        if self.diameter.get() <= 0 and not coordinates.getBoxSize():
            errors.append("*Particle diameter*: the marked particles have no box size to take it from. Give it in angstroms.")
        if self.expectedParticles.get() == 0:
            errors.append("*Particles per micrograph* must be above 0, or -1 to estimate it.")
        start = self.startModel.get()
        if start is not None and not modelExists(start):
            errors.append(f"*Start from picker*: its file {start.getFileName()} is gone. Train it again.")
        return errors or self._validatePlacement(micrographs, coordinates)

    def _validatePlacement(self, micrographs, coordinates):
        """A wrong pixel size shows as particles outside of the images."""
        width, height, _ = micrographs.getDim()
        if self.getDiameter() / micrographs.getSamplingRate() > min(width, height):
            return [f"*Particle diameter*: {self.getDiameter():.0f} Å is larger than the micrographs ({width} x {height} px "
                    f"of {micrographs.getSamplingRate():.2f} Å). Check the diameter and the pixel size."]
        scale = coordinateScale(coordinates, micrographs)
        farthestX, farthestY = farthestPosition(coordinates)
        if farthestX * scale > width or farthestY * scale > height:
            return [f"*Marked particles*: some lie outside of the micrographs ({width} x {height} px). The pixel size of the "
                    f"micrographs they were marked on ({coordinates.getMicrographs().getSamplingRate():.3f} Å) or of the "
                    f"input micrographs ({micrographs.getSamplingRate():.3f} Å) is wrong: correct it where they were "
                    "imported."]
        return []

    def _resultSummary(self):
        return [str(self.outputPicker)]

    def _methods(self):
        return [f"A particle picker was trained on {self.inputCoordinates.get().getSize()} marked particles by "
                f"positive-unlabeled learning (objective {OBJECTIVES[self.objective.get()]}) [Bepler2019]."] \
            if self.inputCoordinates.get() is not None else []

    def _citations(self):
        return ["Bepler2019", "Kiryo2017"] if OBJECTIVES[self.objective.get()] == "nnpu" else ["Bepler2019"]

    # --------------------------- UTILS functions ---------------------------------------
    def getDiameter(self):
        """Particle diameter in angstroms: as given, else the box size of the marked particles."""
        if self.diameter.get() > 0:
            return self.diameter.get()
        coordinates = self.inputCoordinates.get()
        return coordinates.getBoxSize() * coordinates.getMicrographs().getSamplingRate()

    def _engineArguments(self):
        arguments = ["--micrographs", self.getInputPath("micrographs.star"),
                     "--coordinates", self.getInputPath("coordinates.star"),
                     "--diameter", round(self.getDiameter(), 3), "--objective", self._choice("objective", OBJECTIVES)]
        if self.expectedParticles.get() > 0:
            arguments += ["--expected-particles", self.expectedParticles.get()]
        if self.startModel.get() is not None:
            arguments += ["--model", self.startModel.get().getFileName()]
        return arguments

    def _trainingLine(self):
        report = self.getReport("training.json")
        best = next((epoch for epoch in report["epochs"] if epoch["epoch"] == report["best_epoch"]), None)
        precision = best and best.get("held_out_average_precision")
        line = f"best of {len(report['epochs'])} epochs: {report['best_epoch']}"
        return line if precision is None else f"{line}, average precision on held-out labels {precision:.3f}"
