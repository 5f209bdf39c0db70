"""Clustering into aligned 2D classes."""

import pyworkflow.protocol.params as params
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import CLASSIFY
from siamese2d.objects import modelExists
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import EXPERT, validateNotEmpty
from siamese2d.protocols.protocol_classes_base import ClassesOutput, Siamese2DProtClassesBase
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtWaitingBase
from siamese2d.protocols.protocol_train_embedding import validateMask, warnOtherScale


class Siamese2DProtClassify(Siamese2DProtWaitingBase, Siamese2DProtClassesBase):
    """Sorts particles into 2D classes: the embedding proposes which belong together, alignment to averages decides."""

    _label = "classify 2D"
    STAGE = CLASSIFY
    SEVERAL_GPUS = True

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", important=True,
                      label="Input particles", help="Particles to classify, bright on dark.")
        form.addParam("inputEmbedding", params.PointerParam, pointerClass="EmbeddingModel", allowsNull=True,
                      important=True, label="Embedding",
                      help="A trained embedding, of particles with the same box and pixel size. Without it the "
                           "classes start at random. When unsure go without.")
        form.addParam("numberOfClasses", params.IntParam, default=-1, label="Number of classes",
                      help="-1 takes one for every 100 particles, from 10 to 100. More classes separate rare views and "
                           "junk better, but their averages are noisier; the wand shows how many groups the embedding "
                           "holds. When unsure keep -1.")
        form.addParam("fineClasses", params.IntParam, default=-1, expertLevel=EXPERT, label="Fine classes",
                      help="So many classes are made first and then grouped by likeness: this keeps species and "
                           "conformations apart and finds particles that went astray. -1 makes five times the number "
                           "of classes, fewer where that would leave less than 12 particles in each; where poses are "
                           "unsure, no more than three times the number. 0 makes none. When unsure keep -1.")
        self._defineImageParams(
            form, "Give a value a little larger than the particle when its neighbours show in the averages; the wand "
                  "puts a circle on them. When unsure keep -1.",
            "Yes: a particle may be mirrored to fit its class, so views from opposite sides share a class. No keeps "
            "them apart, e.g. to see the two hands of a view. When unsure take Yes.",
            "-1 takes 0.12 of the box; no farther is searched than particles are found to lie. Give less when averages "
            "are drawn to neighbours. When unsure keep -1.")
        self._defineWaitParam(form, "waitForParticles", "particles", 5000,
                              "About 100 for every class are enough for good averages; *assign to 2D classes* puts "
                              "those that come later into these classes.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _awaited(self):
        return [(self.inputParticles.get(), self.waitForParticles.get())]

    def _convertInput(self):
        self._writeParticles(self.getInputPath("particles.star"), self.inputParticles.get())

    def _createOutput(self):
        outputs = self._fill(self.getStagePath(), self._newClasses(), self._newAverages(), self._newSetApart())
        if ClassesOutput.outputClasses.name not in outputs:
            raise ValidationException("No particle was put in a class. Check that the particles are not blank, and "
                                      "look at the log.")
        self._defineOutputs(**outputs)
        for output in outputs.values():
            self._defineRelations(output)

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
        return super()._warnings() + warnOtherScale("Embedding", self.inputEmbedding.get(), self.inputParticles.get())

    def _costWarnings(self):
        number = self.inputParticles.get().getSize()
        classes = self.numberOfClasses.get() if self.numberOfClasses.get() > 0 else min(max(number // 100, 10), 100)
        return costs.hours(self, number * (costs.CLASSIFY + costs.CLASSIFY_CLASS * classes),
                           "Shorter: classify a part of the particles, and give the others to *assign to 2D classes*.")

    def _methods(self):
        start = "" if self.inputEmbedding.get() is None else "clustered by a Siamese embedding, then "
        return [f"Particles were {start}aligned in plane and classified together against class averages of maximum "
                "likelihood, from few classes at low resolution to many."]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        arguments = ["--particles", self.getInputPath("particles.star"), *self._imageArguments()]
        if self.inputEmbedding.get() is not None:
            arguments += ["--model", self.inputEmbedding.get().getFileName()]
        if self.numberOfClasses.get() > 0:
            arguments += ["--classes", self.numberOfClasses.get()]
        return arguments + (["--fine-classes", self.fineClasses.get()] if self.fineClasses.get() >= 0 else [])
