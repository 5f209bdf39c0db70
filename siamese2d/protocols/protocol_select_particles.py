"""Keeping the particles of a list."""

import enum
import shutil

import pyworkflow.protocol.params as params
from pwem.objects import SetOfParticles
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException

from siamese2d.gallery.particle_list import read_particle_list
from siamese2d.protocols.protocol_base import validateNotEmpty

LIST = "particles.txt"


class SelectParticlesOutput(enum.Enum):
    outputParticles = SetOfParticles


class Siamese2DProtSelectParticles(EMProtocol):
    """Keeps the particles whose ids a file lists, as the map of an embedding writes it for a region."""

    _label = "select particles"
    _possibleOutputs = SelectParticlesOutput

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", important=True,
                      label="Input particles", help="The set that the ids belong to.")
        form.addParam("listFile", params.FileParam, important=True, label="File of particle ids",
                      help="Text with one id (of Scipion's item) in each line; lines that begin with # say what they "
                           "are. *Keep selected* in the map of an embedding writes one into the project's folder "
                           "Selections and starts this protocol; a script can write one too.")

    # --------------------------- INSERT steps functions --------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.selectStep, needsGPU=False)

    # --------------------------- STEPS functions ---------------------------------------
    def selectStep(self):
        ids = self._readList(self.listFile.get())
        source, output = self.inputParticles.get(), self._createSetOfParticles()
        output.copyInfo(source)
        for particle in source.iterItems():
            if particle.getObjId() in ids and particle.isEnabled():
                output.append(particle)
        if output.isEmpty():
            raise ValidationException(f"{self.listFile.get()}: none of its {len(ids):,} ids is among the input "
                                      "particles. Choose the set that they belong to.")
        # What was chosen stays with the run, whatever becomes of the file.
        shutil.copyfile(self.listFile.get(), self._getExtraPath(LIST))
        self._defineOutputs(**{SelectParticlesOutput.outputParticles.name: output})
        self._defineSourceRelation(self.inputParticles, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        errors = validateNotEmpty("Input particles", self.inputParticles.get())
        try:
            self._readList(self.listFile.get())
        except ValidationException as problem:
            errors.append(f"*File of particle ids*: {problem}.")
        return errors

    def _warnings(self):
        if self.inputParticles.get() is None or not self.inputParticles.get().isStreamOpen():
            return []
        return ["*Input particles*: the set is still growing: only what it holds when this protocol starts is used."]

    def _summary(self):
        if not self.isFinished():
            return ["The output is not ready yet."]
        ids, about = read_particle_list(self._getExtraPath(LIST))
        kept = self.outputParticles.getSize()
        lines = [f"{kept:,} of {self.inputParticles.get().getSize():,} particles kept."]
        if kept < len(ids):
            lines.append(f"{len(ids) - kept:,} ids of the list are not in the set, or disabled there.")
        return lines + about

    def _methods(self):
        return ["Particles that were chosen by hand were kept."]

    # --------------------------- UTILS functions ---------------------------------------
    def _readList(self, path):
        if not path:
            raise ValidationException("choose it")
        try:
            return read_particle_list(path.strip())[0]
        except ValueError as problem:
            raise ValidationException(str(problem)) from problem
