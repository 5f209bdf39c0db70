"""Clustering into aligned 2D classes."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import SetOfAverages, SetOfClasses2D
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import CLASSIFY
from siamese2d.convert import readAverages, readClasses, writeParticles
from siamese2d.objects import modelExists
from siamese2d.protocols.protocol_base import EXPERT, Siamese2DProtBase, validateNotEmpty
from siamese2d.protocols.protocol_train_embedding import validateMask, warnOtherScale


class ClassifyOutput(enum.Enum):
    outputClasses = SetOfClasses2D
    outputAverages = SetOfAverages


class Siamese2DProtClassify(Siamese2DProtBase):
    """Sorts particles into 2D classes: the embedding proposes which belong together, alignment to averages decides."""

    _label = "classify 2D"
    _possibleOutputs = ClassifyOutput
    STAGE = CLASSIFY

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", important=True,
                      label="Input particles", help="Particles to classify, bright on dark.")
        form.addParam("inputEmbedding", params.PointerParam, pointerClass="EmbeddingModel", allowsNull=True,
                      important=True, label="Embedding",
                      help="A trained embedding, of particles with the same box and pixel size. Without it the "
                           "classes start at random.")
        form.addParam("numberOfClasses", params.IntParam, default=-1, label="Number of classes",
                      help="-1 takes one for every 100 particles, from 10 to 100. More classes separate rare views and "
                           "junk better, but their averages are noisier.")
        form.addParam("maskDiameter", params.FloatParam, default=-1, label="Mask diameter (Å)",
                      help="Diameter of the circle around the centre that counts. -1 takes 0.8 of the box. Give a "
                           "value a little larger than the particle when its neighbours show in the averages.")
        form.addParam("mirror", params.BooleanParam, default=True, label="Match mirror images?",
                      help="Yes: a particle may be mirrored to fit its class, so views from opposite sides share a "
                           "class. No keeps them apart, e.g. to see the two hands of a view.")
        form.addParam("maxShift", params.FloatParam, default=-1, expertLevel=EXPERT, label="Largest shift (Å)",
                      help="How far particles may lie from the centre of the box. -1 takes 0.08 of the box. Enlarge it "
                           "for imprecise coordinates; a small value is faster.")
        form.addParam("maxResolution", params.FloatParam, default=-1, expertLevel=EXPERT, label="Finest detail (Å)",
                      help="Resolution up to which particles are compared. -1 takes what the particle's size and the "
                           "pixel size allow. Give a coarser value when classes follow noise.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        particles = self.inputParticles.get()
        writeParticles(self.getInputPath("particles.star"), particles, withCtf=not particles.isPhaseFlipped(),
                       micrographPixelSize=_micrographPixelSize(particles))

    def _createOutput(self):
        classes = self._createSetOfClasses2D(self.inputParticles)
        readClasses(self.getStagePath(), classes)
        if classes.isEmpty():
            raise ValidationException("No particle was put in a class. Check that the particles are not blank, and "
                                      "look at the log.")
        averages = self._createSetOfAverages()
        averages.copyInfo(self.inputParticles.get())
        averages.setHasCTF(False)
        readAverages(self.getStagePath(), averages)
        self._defineOutputs(**{ClassifyOutput.outputClasses.name: classes,
                               ClassifyOutput.outputAverages.name: averages})
        for output in (classes, averages):
            self._defineSourceRelation(self.inputParticles, output)
            if self.inputEmbedding.get() is not None:
                self._defineSourceRelation(self.inputEmbedding, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        particles, embedding = self.inputParticles.get(), self.inputEmbedding.get()
        errors = validateNotEmpty("Input particles", particles)
        if particles is not None and not errors and self.numberOfClasses.get() > particles.getSize():
            errors.append(f"*Number of classes*: more than there are particles, {particles.getSize()}. Give fewer, or "
                          "-1.")
        if self.numberOfClasses.get() == 0:
            errors.append("*Number of classes* must be 1 or more, or -1 to choose it by the number of particles.")
        if embedding is not None and not modelExists(embedding):
            errors.append(f"*Embedding*: its file {embedding.getFileName()} is gone. Train it again.")
        return errors if errors or particles is None else validateMask(self.maskDiameter.get(), particles)

    def _warnings(self):
        particles = self.inputParticles.get()
        lines = super()._warnings() + warnOtherScale("Embedding", self.inputEmbedding.get(), particles)
        if particles is not None and particles.isPhaseFlipped():
            lines.append("The phases of these particles were flipped before, so their CTF is not used: averages are "
                         "plain means.")
        return lines

    def _resultSummary(self):
        classes, total = self.outputClasses, self.inputParticles.get().getSize()
        inClasses = sum(cls.getSize() for cls in classes.iterItems())
        lines = [f"{inClasses} particles in {classes.getSize()} classes."]
        return lines + ([f"{total - inClasses} particles could not be classified; "
                         f"{self.getStagePath('set_apart.star')} lists them."] if inClasses < total else [])

    def _methods(self):
        return ["Particles were clustered by a Siamese embedding, aligned in plane to their class averages and "
                "re-assigned."]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        arguments = ["--particles", self.getInputPath("particles.star"),
                     "--mirror" if self.mirror.get() else "--no-mirror"]
        if self.inputEmbedding.get() is not None:
            arguments += ["--model", self.inputEmbedding.get().getFileName()]
        for option, value in (("--classes", self.numberOfClasses.get()), ("--mask-diameter", self.maskDiameter.get()),
                              ("--max-shift", self.maxShift.get()), ("--max-resolution", self.maxResolution.get())):
            arguments += [option, value] if value > 0 else []
        return arguments


def _micrographPixelSize(particles):
    """Pixel size of the micrographs that the particles' coordinates belong to; None where they are not known."""
    coordinates = particles.getCoordinates() if particles.hasCoordinates() else None
    return coordinates.getMicrographs().getSamplingRate() if coordinates is not None else None
