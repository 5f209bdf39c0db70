"""Clustering into aligned 2D classes."""

import pyworkflow.protocol.params as params

from siamese2d.constants import CLASSIFY
from siamese2d.objects import modelExists
from siamese2d.protocols.protocol_base import validateNotEmpty
from siamese2d.protocols.protocol_classes_base import Siamese2DProtClassesBase
from siamese2d.protocols.protocol_train_embedding import validateMask, warnOtherScale


class Siamese2DProtClassify(Siamese2DProtClassesBase):
    """Sorts particles into 2D classes: the embedding proposes which belong together, alignment to averages decides."""

    _label = "classify 2D"
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
        self._defineImageParams(
            form, "Give a value a little larger than the particle when its neighbours show in the averages.",
            "Yes: a particle may be mirrored to fit its class, so views from opposite sides share a class. No keeps them "
            "apart, e.g. to see the two hands of a view.")
        self._defineSeedParam(form)
        self._defineParallel(form)

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

    def _methods(self):
        return ["Particles were clustered by a Siamese embedding, aligned in plane to their class averages and "
                "re-assigned."]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        arguments = ["--particles", self.getInputPath("particles.star"), *self._imageArguments()]
        if self.inputEmbedding.get() is not None:
            arguments += ["--model", self.inputEmbedding.get().getFileName()]
        number = self.numberOfClasses.get()
        return arguments + (["--classes", number] if number > 0 else [])
