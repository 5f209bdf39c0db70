"""Training of a particle picker."""

import enum

import pyworkflow.protocol.params as params
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import TRAIN_PICKER
from siamese2d.convert import writeLabels, writeMicrographs
from siamese2d.labels import LABEL_CLASSES, Labels
from siamese2d.objects import PickerModel, modelExists
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import EXPERT, validateNotEmpty
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtWaitingBase

# Pixels of a particle below which the engine sees nothing.
SMALLEST_DIAMETER = 8
# Labels below which none can be held out to choose the epoch and the threshold.
FEWEST_LABELS = 20
# The engine's epochs, and the share of the labels that it keeps back to judge them.
USUAL_EPOCHS, HELD_OUT = 8, 0.2
NETWORKS = ["small", "medium", "large"]
OBJECTIVES = ["pn", "ge-binomial", "ge-kl", "nnpu", "pu"]


class TrainPickerOutput(enum.Enum):
    outputPicker = PickerModel


class Siamese2DProtTrainPicker(Siamese2DProtWaitingBase):
    """Trains a particle picker from a few marked particles, all else being unlabeled, not negative."""

    _label = "train picker"
    _possibleOutputs = TrainPickerOutput
    STAGE = TRAIN_PICKER
    SEVERAL_GPUS = True

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs",
                      help="Normalized micrographs. They may be more than those with marked particles, and of another "
                           "pixel size.")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass=LABEL_CLASSES, important=True,
                      label="Marked particles",
                      help="Some particles, marked by hand or picked otherwise: 10 to 100, spread over several "
                           "micrographs, are a good start. They need not be complete in any micrograph. Particles or 2D classes "
                           "that you selected will do as well: they know where they were cut out.")
        form.addParam("diameter", params.FloatParam, default=-1, label="Particle diameter (Å)",
                      help="Longest diameter of the particle. -1 takes the box size of the marked particles, or "
                           "estimates it from their images where they have none; give it when that box is much larger "
                           "than the particle. When unsure press the wand: it puts circles on the marked particles.")
        form.addParam("smallestDiameter", params.FloatParam, default=-1, expertLevel=EXPERT,
                      label="Smallest particle diameter (Å)",
                      help="For particles of several sizes: the diameter of the smallest, that above being the "
                           "largest. All of them should be among the marked particles. -1: all have one size. The "
                           "wand measures it. When unsure keep -1.")
        form.addParam("expectedParticles", params.FloatParam, default=-1, label="Particles per micrograph",
                      help="About how many particles a micrograph holds. -1 lets the program estimate it. Give a "
                           "number when the picks come out far too many or too few; being wrong by half is no harm. "
                           "The wand shows an estimate. When unsure keep -1.")
        form.addParam("objective", params.EnumParam, choices=OBJECTIVES, default=0, expertLevel=EXPERT,
                      label="Objective",
                      help="How unlabeled windows count. *pn*: as background; particles cover so little of a "
                           "micrograph that this works best as a rule.\n*ge-binomial*: their number of particles must "
                           "fit the expected one; try it where particles are so dense that many are missed.\n*ge-kl*: "
                           "the same by a simpler measure.\n*nnpu*, *pu*: positive-unlabeled risk. When "
                           "unsure keep *pn*.")
        form.addParam("autoencoder", params.FloatParam, default=0.0, expertLevel=EXPERT, label="Autoencoder weight",
                      help="Weight of reconstructing the image beside finding particles. 0 is without; 10 / number of "
                           "marked particles may help when those are few and training starts from random weights. When "
                           "unsure keep 0.")
        form.addParam("network", params.EnumParam, choices=NETWORKS, default=NETWORKS.index("medium"),
                      expertLevel=EXPERT, label="Network",
                      help="How far the network sees around a particle. *small* is faster and blind to surroundings "
                           "such as carbon; *large* for particles that are told by their neighbourhood. A picker to "
                           "start from brings its own. When unsure take *medium*.")
        form.addParam("epochs", params.IntParam, default=-1, expertLevel=EXPERT, label="Epochs",
                      help="Most epochs; training stops earlier when held-out labels are found no better. -1 takes 8, "
                           "with fewer than 20 marked particles 5, from random weights 10. Raise it for large or "
                           "difficult sets. When unsure keep -1.")
        form.addParam("shippedWeights", params.BooleanParam, default=True, expertLevel=EXPERT,
                      label="Start from the shipped weights",
                      help="Weights learned from simulated particles of many kinds need fewer marked particles. *No* "
                           "starts from random weights: try it for what looks like no globular particle, such as "
                           "filaments. There are none for the *small* and the *large* network. When unsure "
                           "take Yes.")
        form.addParam("startModel", params.PointerParam, pointerClass="PickerModel", allowsNull=True,
                      expertLevel=EXPERT, label="Start from picker",
                      help="Continue from a picker trained before, e.g. for the same particle on another grid; it "
                           "goes before the shipped weights. When unsure go without.")
        self._defineWaitParam(form, "waitForMicrographs", "micrographs", 20,
                              "Unlabeled ones teach what the background looks like, too.")
        self._defineWaitParam(form, "waitForParticles", "marked particles", 200,
                              "Matters for particles that a program picks or selects; marks made by hand are closed.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _awaited(self):
        return [(self.inputMicrographs.get(), self.waitForMicrographs.get()),
                (self.inputCoordinates.get(), self.waitForParticles.get())]

    def _convertInput(self):
        micrographs = self.inputMicrographs.get()
        writeMicrographs(self.getInputPath("micrographs.star"), micrographs)
        if not writeLabels(self.getInputPath("coordinates.star"), self._labels(), micrographs):
            raise ValidationException("None of the marked particles lies on the input micrographs. Choose the "
                                      "micrographs that they were marked on, or others with the same names.")

    def _createOutput(self):
        picker = PickerModel(filename=self.getStagePath("picker.safetensors"),
                             diameter=self.getReport("training.json")["diameter"],
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
        if self.epochs.get() < 1 and self.epochs.get() != -1 or self.autoencoder.get() < 0:
            errors.append("*Epochs* must be 1 or more, or -1, and *Autoencoder weight* 0 or more.")
        if self.smallestDiameter.get() > 0 and not self.smallestDiameter.get() <= self.diameter.get():
            errors.append("*Smallest particle diameter*: give *Particle diameter* too, that of the largest particles.")
        if self.expectedParticles.get() == 0:
            errors.append("*Particles per micrograph* must be above 0, or -1 to estimate it.")
        start = self.startModel.get()
        if start is not None and not modelExists(start):
            errors.append(f"*Start from picker*: its file {start.getFileName()} is gone. Train it again.")
        if not errors and not self._labels().havePositions():
            errors.append("*Marked particles*: these particles do not know where they were cut out (they were imported "
                          "without coordinates). Choose particles that were extracted in Scipion, or coordinates.")
        return errors or self._validatePlacement(micrographs, self._labels())

    def _validatePlacement(self, micrographs, labels):
        """A wrong pixel size shows as particles outside of the images."""
        width, height, _ = micrographs.getDim()
        errors = validateDiameter("Particle diameter", self.getDiameter(), micrographs) if self.getDiameter() else []
        if errors or not labels.arePlaced():
            return errors
        scale = labels.getPixelSize() / micrographs.getSamplingRate()
        farthestX, farthestY = labels.farthestPosition()
        if farthestX * scale > width or farthestY * scale > height:
            return [f"*Marked particles*: some lie outside of the micrographs ({width} x {height} px). The pixel size "
                    f"of the images they were marked on ({labels.getPixelSize():.3f} Å) or of the input micrographs "
                    f"({micrographs.getSamplingRate():.3f} Å) is wrong: correct it where they were imported."]
        return []

    def _warnings(self):
        lines = super()._warnings()
        if self.inputCoordinates.get() is not None and self._labels().getSize() < FEWEST_LABELS:
            lines.append(f"{self._labels().getSize()} marked particles are few: with fewer than {FEWEST_LABELS} the "
                         "precision-recall curve and the score threshold are rough. Look at the picks.")
        return lines

    def _costWarnings(self):
        micrographs, diameter = self.inputMicrographs.get(), self.getDiameter()
        if not diameter:
            return []
        # All marked micrographs are read, and those with held-out labels are searched in every epoch.
        marked = min(micrographs.getSize(), self._labels().getSize())
        epochs = self.epochs.get() if self.epochs.get() > 0 else USUAL_EPOCHS
        return costs.hours(self, marked * HELD_OUT * epochs * costs.scoreSeconds(micrographs, diameter),
                           "100 to 1,000 marked particles on up to 50 micrographs teach as much: take a part of them.")

    def _resultSummary(self):
        return [str(self.outputPicker)]

    def _methods(self):
        return [f"A particle picker was trained on {self._labels().getSize()} marked particles and the unlabeled rest "
                f"of the micrographs (objective {OBJECTIVES[self.objective.get()]}) [Bepler2019]."] \
            if self.inputCoordinates.get() is not None else []

    def _citations(self):
        return ["Bepler2019", "Kiryo2017"] if OBJECTIVES[self.objective.get()] == "nnpu" else ["Bepler2019"]

    # --------------------------- UTILS functions ---------------------------------------
    def getDiameter(self):
        """Particle diameter in angstroms: as given, else the box size of the marked particles; None to estimate it."""
        if self.diameter.get() > 0:
            return self.diameter.get()
        return self._labels().getDiameter()

    def _labels(self):
        return Labels(self.inputCoordinates.get())

    def _engineArguments(self):
        arguments = ["--micrographs", self.getInputPath("micrographs.star"),
                     "--coordinates", self.getInputPath("coordinates.star"),
                     "--objective", self._choice("objective", OBJECTIVES),
                     "--network", self._choice("network", NETWORKS), "--autoencoder", self.autoencoder.get()]
        if self.epochs.get() > 0:
            arguments += ["--epochs", self.epochs.get()]
        if self.getDiameter():
            smallest = [self.smallestDiameter.get()] if self.smallestDiameter.get() > 0 else []
            arguments += ["--diameter", *smallest, round(self.getDiameter(), 3)]
        if self.expectedParticles.get() > 0:
            arguments += ["--expected-particles", self.expectedParticles.get()]
        if self.startModel.get() is not None:
            arguments += ["--model", self.startModel.get().getFileName()]
        elif not self.shippedWeights.get():
            arguments += ["--from-scratch"]
        return arguments

    def _trainingLine(self):
        report = self.getReport("training.json")
        best = next((epoch for epoch in report["epochs"] if epoch["epoch"] == report["best_epoch"]), None)
        precision = best and best.get("held_out_average_precision")
        line = f"best of {len(report['epochs'])} epochs: {report['best_epoch']}"
        return line if precision is None else f"{line}, average precision on held-out labels {precision:.3f}"


def validateDiameter(label, diameter, micrographs):
    """Errors for particles of `diameter` angstroms that are too small or too large for these micrographs."""
    width, height, _ = micrographs.getDim()
    pixels = diameter / micrographs.getSamplingRate()
    if SMALLEST_DIAMETER <= pixels <= min(width, height):
        return []
    problem = f"at least {SMALLEST_DIAMETER} are needed" if pixels < SMALLEST_DIAMETER \
        else f"it is larger than the micrographs ({width} x {height} px)"
    return [f"*{label}*: a particle of {diameter:.0f} Å is {pixels:.1f} px wide at {micrographs.getSamplingRate():.2f} "
            f"Å/px; {problem}. Check the diameter, the pixel size and the downsampling."]
