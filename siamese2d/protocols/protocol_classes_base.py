"""What the protocols that put particles into 2D classes share: parameters of the images, and their outputs."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import SetOfAverages, SetOfClasses2D, SetOfParticles

from siamese2d.convert import readAverages, readClasses, readSetApart, writeParticles
from siamese2d.protocols.protocol_base import EXPERT, Siamese2DProtBase


class ClassesOutput(enum.Enum):
    outputClasses = SetOfClasses2D
    outputAverages = SetOfAverages
    outputSetApart = SetOfParticles


class Siamese2DProtClassesBase(Siamese2DProtBase):
    """Particles in, classes, their averages and the particles that are in none out."""

    _possibleOutputs = ClassesOutput

    # --------------------------- DEFINE param functions --------------------------------
    def _defineImageParams(self, form, maskHelp, mirrorHelp, shiftHelp):
        form.addParam("maskDiameter", params.FloatParam, default=-1, label="Mask diameter (Å)",
                      help="Diameter of the circle around the centre that counts. -1 takes 0.8 of the box. " + maskHelp)
        form.addParam("mirror", params.BooleanParam, default=True, label="Match mirror images?", help=mirrorHelp)
        form.addParam("setApart", params.BooleanParam, default=True, expertLevel=EXPERT,
                      label="Set apart what fits nowhere?",
                      help="Yes: particles that match their class no better than noise does, and those unlike the "
                           "others (more signal beside their class's, such as neighbours or ice, less of its detail, "
                           "far off the centre), go into *outputSetApart* instead of a class. Where nothing is wrong, "
                           "that is a few of a thousand. No puts every particle into a class. When unsure take Yes: "
                           "the set can be joined again.")
        form.addParam("maxShift", params.FloatParam, default=-1, expertLevel=EXPERT, label="Largest shift (Å)",
                      help="How far particles may lie from the centre of the box. " + shiftHelp)
        form.addParam("maxResolution", params.FloatParam, default=-1, expertLevel=EXPERT, label="Finest detail (Å)",
                      help="Resolution up to which particles are compared. -1 takes what the particle's size and the "
                           "pixel size allow. Give a coarser value when classes follow noise. When "
                           "unsure keep -1.")

    # --------------------------- STEPS functions ---------------------------------------
    def _writeParticles(self, path, particles):
        writeParticles(path, particles, withCtf=not particles.isPhaseFlipped(),
                       micrographPixelSize=_micrographPixelSize(particles))

    def _newClasses(self):
        return self._createSetOfClasses2D(self.inputParticles)

    def _newAverages(self):
        averages = self._createSetOfAverages()
        averages.copyInfo(self.inputParticles.get())
        averages.setHasCTF(False)
        return averages

    def _newSetApart(self):
        apart = self._createSetOfParticles("_apart")
        apart.copyInfo(self.inputParticles.get())
        return apart

    def _fill(self, folder, classes, averages, apart):
        """Read what the engine wrote about particles into the three output sets; those without items are left out."""
        readClasses(folder, classes)
        readAverages(folder, classes, averages)
        readSetApart(folder, self.inputParticles.get(), apart)
        outputs = zip(ClassesOutput, (classes, averages, apart))
        return {output.name: items for output, items in outputs if not items.isEmpty()}

    def _defineRelations(self, output):
        for _, source in self.iterInputPointers():
            self._defineSourceRelation(source, output)

    # --------------------------- INFO functions ----------------------------------------
    def _warnings(self):
        particles = self.inputParticles.get()
        lines = super()._warnings()
        if particles is not None and particles.isPhaseFlipped():
            lines.append("The phases of these particles were flipped before, so their CTF is not used: averages are "
                         "plain means.")
        return lines

    def _resultSummary(self):
        classes, apart = self.outputClasses, getattr(self, ClassesOutput.outputSetApart.name, ())
        inClasses = sum(cls.getSize() for cls in classes.iterItems())
        lines = [f"{inClasses} particles in {classes.getSize()} classes."]
        return lines + ([f"{len(apart)} particles are in no class; *outputSetApart* holds them with the reason."]
                        if len(apart) else [])

    # --------------------------- UTILS functions ---------------------------------------
    def _imageArguments(self):
        """Arguments of the parameters that `_defineImageParams` adds."""
        arguments = ["--mirror" if self.mirror.get() else "--no-mirror",
                     "--set-apart" if self.setApart.get() else "--no-set-apart"]
        for option, value in (("--mask-diameter", self.maskDiameter.get()), ("--max-shift", self.maxShift.get()),
                              ("--max-resolution", self.maxResolution.get())):
            arguments += [option, value] if value > 0 else []
        return arguments


def _micrographPixelSize(particles):
    """Pixel size of the micrographs that the particles' coordinates belong to; None where they are not known."""
    coordinates = particles.getCoordinates() if particles.hasCoordinates() else None
    # In a workflow that was scheduled as a whole, a protocol sees the outputs of its own inputs, but not of theirs.
    micrographs = coordinates.getMicrographs() if coordinates is not None else None
    return micrographs.getSamplingRate() if micrographs is not None else None
