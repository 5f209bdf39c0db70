"""Picking without labels: by size, or by templates."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import SetOfCoordinates

from siamese2d.constants import PICK_UNLABELED
from siamese2d.convert import readCoordinates, writeMicrographs, writeTemplates
from siamese2d.protocols.protocol_base import Siamese2DProtBase, validateNotEmpty
from siamese2d.protocols.protocol_train_picker import validateDiameter

CONTRASTS = ["dark", "bright"]


class PickUnlabeledOutput(enum.Enum):
    outputCoordinates = SetOfCoordinates


class Siamese2DProtPickUnlabeled(Siamese2DProtBase):
    """Finds particles by their size, or by templates, before anything is marked or trained.

    Its picks are first labels: extract and classify them, select the good classes, and train a picker on these.
    """

    _label = "pick without labels"
    _possibleOutputs = PickUnlabeledOutput
    STAGE = PICK_UNLABELED

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs", help="Micrographs to pick, normalized or not.")
        form.addParam("diameter", params.FloatParam, default=None, allowsNull=True, important=True,
                      label="Particle diameter (Å)",
                      help="About the diameter of the particle; the mean one where it is elongated.")
        form.addParam("largestDiameter", params.FloatParam, default=-1, label="Largest diameter (Å)",
                      help="-1 when all particles are about the same size. For particles of several sizes give the "
                           "largest here and the smallest above.")
        form.addParam("contrast", params.EnumParam, choices=CONTRASTS, default=0, label="Particles are",
                      help="*dark*, as in cryo-EM micrographs, or *bright*, as in negative stain and inverted images.")
        form.addParam("inputTemplates", params.PointerParam, pointerClass="SetOfAverages,SetOfClasses2D",
                      allowsNull=True, label="Templates",
                      help="Class averages to look for, bright on dark; a few different views are enough. Empty looks "
                           "for blobs of the diameter, and then for what the best of them look like.")
        form.addParam("threshold", params.FloatParam, default=None, allowsNull=True, label="Score threshold",
                      help="Score from which a candidate is taken for a particle, in standard deviations of the noise. "
                           "Empty takes the one that separates the candidates best. Raise it for fewer and surer "
                           "picks; continuing the run with another threshold does not score again.")
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        writeMicrographs(self.getInputPath("micrographs.star"), self.inputMicrographs.get())
        if self.inputTemplates.get() is not None:
            writeTemplates(self.getInputPath("templates.star"), self.inputTemplates.get())

    def _createOutput(self):
        micrographs = self.inputMicrographs.get()
        output = self._createSetOfCoordinates(self.inputMicrographs)
        output.setBoxSize(round(max(self.getDiameters()) / micrographs.getSamplingRate()))
        readCoordinates(self.getStagePath("coordinates.star"), self.getInputPath("micrographs.star"), micrographs,
                        output)
        self._defineOutputs(**{PickUnlabeledOutput.outputCoordinates.name: output})
        self._defineSourceRelation(self.inputMicrographs, output)
        if self.inputTemplates.get() is not None:
            self._defineSourceRelation(self.inputTemplates, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        micrographs, templates = self.inputMicrographs.get(), self.inputTemplates.get()
        errors = validateNotEmpty("Input micrographs", micrographs) + validateNotEmpty("Templates", templates)
        diameters = self.getDiameters()
        if not diameters or diameters[0] <= 0:
            errors.append("*Particle diameter*: give it in angstroms, about.")
        elif diameters[-1] < diameters[0]:
            errors.append("*Largest diameter* is smaller than *Particle diameter*. -1 is for particles of one size.")
        elif templates is not None and len(diameters) > 1:
            errors.append("*Largest diameter*: must be -1 with templates, which are of one size.")
        if self.threshold.get() is not None and self.threshold.get() < 0:
            errors.append("*Score threshold* must be 0 or more; empty finds one.")
        if errors or micrographs is None:
            return errors
        errors = validateDiameter("Particle diameter", diameters[0], micrographs)
        return errors or validateDiameter("Largest diameter", diameters[-1], micrographs)

    def _resultSummary(self):
        output, micrographs = self.outputCoordinates, self.inputMicrographs.get()
        return [f"{output.getSize()} particles in {micrographs.getSize()} micrographs "
                f"({output.getSize() / max(micrographs.getSize(), 1):.0f} each), score "
                f"{self.getReport('picking.json')['threshold']:.2f} or more."]

    def _methods(self):
        if self.inputTemplates.get() is not None:
            return ["Particles were picked by normalised cross-correlation with class averages [Roseman2003]."]
        return ["Particles were picked without labels, by a difference of Gaussians and a rotationally averaged filter "
                "learned from the best picks [Lindeberg1998]."]

    def _citations(self):
        return ["Lindeberg1998", "Roseman2003"]

    # --------------------------- UTILS functions ---------------------------------------
    def getDiameters(self):
        """Diameters in angstroms: none, one, or the smallest and the largest."""
        largest = [self.largestDiameter.get()] if self.largestDiameter.get() > 0 else []
        return [] if self.diameter.get() is None else [self.diameter.get(), *largest]

    def _engineArguments(self):
        arguments = ["--micrographs", self.getInputPath("micrographs.star"), "--diameter", *self.getDiameters(),
                     "--contrast", self._choice("contrast", CONTRASTS)]
        if self.inputTemplates.get() is not None:
            arguments += ["--templates", self.getInputPath("templates.star"),
                          "--template-pixel-size", self._templatePixelSize()]
        return arguments if self.threshold.get() is None else arguments + ["--threshold", self.threshold.get()]

    def _templatePixelSize(self):
        return self.inputTemplates.get().getSamplingRate()
