"""Extraction of particle images."""

import enum
import math

import pyworkflow.protocol.params as params
from pwem.objects import SetOfParticles
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import EXTRACT
from siamese2d.convert import coordinateScale, ctfsOfMicrographs, readParticles, writeCoordinates, writeMicrographs
from siamese2d.protocols.protocol_base import EXPERT, Siamese2DProtBase, validateNotEmpty

SAME_AS_PICKING, OTHER = 0, 1
EDGES = ["drop", "pad"]
# Space around a particle for its alignment and for the signal that defocus spreads.
BOX_PER_DIAMETER = 1.5
# Pixels of an image below which nothing can be aligned.
MIN_BOX = 16


class ExtractOutput(enum.Enum):
    outputParticles = SetOfParticles


class Siamese2DProtExtract(Siamese2DProtBase):
    """Cuts normalized particle images out of micrographs."""

    _label = "extract particles"
    _possibleOutputs = ExtractOutput
    STAGE = EXTRACT

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates", important=True,
                      label="Input coordinates", help="Centres of the particles.")
        form.addParam("micrographsSource", params.EnumParam, choices=["same as picking", "other"],
                      default=SAME_AS_PICKING, display=params.EnumParam.DISPLAY_HLIST, important=True,
                      label="Micrographs source",
                      help="*other*: cut the particles from other micrographs, such as those before downsampling. They "
                           "are matched by name, and a difference in pixel size is taken into account.")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", allowsNull=True,
                      important=True, condition=f"micrographsSource == {OTHER}", label="Other micrographs",
                      help="The micrographs to cut the particles from.")
        form.addParam("inputCTF", params.PointerParam, pointerClass="SetOfCTF", allowsNull=True, label="CTF",
                      help="CTF of the micrographs, so that class averages can be corrected for it. Without it "
                           "averages are plain means. Particles of micrographs that have no CTF in it are left out.")
        form.addParam("boxSize", params.IntParam, default=-1, label="Box size (px)",
                      help="Width of the images in pixels of the micrographs, before downsampling. -1 takes "
                           f"{BOX_PER_DIAMETER} times the particle diameter (the box size of the coordinates). Make it "
                           "larger for data of high defocus.")
        form.addParam("downsample", params.FloatParam, default=1.0, label="Downsample by",
                      help="Factor by which the images get smaller (Fourier cropping). 2D classes need no more than "
                           "about 64 to 128 pixels; 1 keeps the size.")
        form.addParam("invert", params.BooleanParam, default=True, label="Invert contrast?",
                      help="Particles must be bright on dark. Yes for cryo-EM micrographs as recorded; No for negative "
                           "stain, or when the micrographs were inverted before.")
        form.addParam("edge", params.EnumParam, choices=["leave out", "fill with noise"], default=0, expertLevel=EXPERT,
                      label="Particles at the edge",
                      help="What happens to particles whose box reaches over the edge of the micrograph. Fill when "
                           "particles are few.")
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        micrographs = self.getMicrographs()
        written = writeMicrographs(self.getInputPath("micrographs.star"), micrographs, self._ctfs())
        if not written:
            raise ValidationException("None of the micrographs has a CTF in the given set. Choose the CTF of these "
                                      "micrographs, or none.")
        matched = writeCoordinates(self.getInputPath("coordinates.star"), self.inputCoordinates.get(), micrographs)
        if not matched:
            raise ValidationException("None of the coordinates lies on these micrographs. Choose the micrographs on "
                                      "which the particles were picked, or others with the same names.")

    def _createOutput(self):
        micrographs, coordinates = self.getMicrographs(), self.inputCoordinates.get()
        output = self._createSetOfParticles()
        output.getAcquisition().copyInfo(micrographs.getAcquisition())
        output.setCoordinates(self.inputCoordinates)
        output.setHasCTF(bool(self._ctfs()))
        readParticles(self.getStagePath("particles.star"), coordinates, micrographs, output)
        self._defineOutputs(**{ExtractOutput.outputParticles.name: output})
        self._defineSourceRelation(self.inputCoordinates, output)
        if self.micrographsSource.get() == OTHER:
            self._defineSourceRelation(self.inputMicrographs, output)
        if self.inputCTF.get() is not None:
            self._defineSourceRelation(self.inputCTF, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        coordinates = self.inputCoordinates.get()
        errors = validateNotEmpty("Input coordinates", coordinates) + validateNotEmpty("CTF", self.inputCTF.get())
        if self.micrographsSource.get() == OTHER and self.inputMicrographs.get() is None:
            errors.append("*Other micrographs*: choose them, or take the source *same as picking*.")
        if self.downsample.get() < 1:
            errors.append("*Downsample by* must be 1 or more: images are made smaller, never larger.")
        if errors or coordinates is None:
            return errors
        if self.boxSize.get() <= 0 and not coordinates.getBoxSize():
            return ["*Box size*: the coordinates have no box size to derive it from. Give it in pixels."]
        return validateNotEmpty("Other micrographs", self.getMicrographs()) or self._validateBox()

    def _validateBox(self):
        width, height, _ = self.getMicrographs().getDim()
        box = self.getBoxSize()
        if box > min(width, height):
            return [f"*Box size*: {box} px is larger than the micrographs ({width} x {height} px). Give a smaller one; "
                    "if the particle is not that large, check the pixel sizes."]
        if box % 2:
            return [f"*Box size*: {box} px is odd; boxes must be even. Take {box + 1}."]
        if box / self.downsample.get() < MIN_BOX:
            return [f"*Downsample by*: images of {box / self.downsample.get():.0f} px are too small to align (at least "
                    f"{MIN_BOX}). Give a smaller factor or a larger box."]
        return []

    def _warnings(self):
        lines = super()._warnings()
        if self.inputCTF.get() is not None:
            without = self.getMicrographs().getSize() - len(self._ctfs())
            lines += [f"{without} micrographs have no CTF in the given set; their particles are left out."] \
                if without > 0 else []
        return lines

    def _resultSummary(self):
        output = self.outputParticles
        lost = self.inputCoordinates.get().getSize() - output.getSize()
        lines = [f"{output.getSize()} particles, {output.getXDim()} px of {output.getSamplingRate():.3f} Å."]
        return lines + ([f"{lost} coordinates gave no particle (at the edge, or on micrographs that are left out)."]
                        if lost else [])

    def _methods(self):
        return [f"Particles were extracted in boxes of {self.getBoxSize()} pixels"
                + (f" and downsampled by {self.downsample.get():g}." if self.downsample.get() > 1 else ".")] \
            if self.inputCoordinates.get() is not None else []

    # --------------------------- UTILS functions ---------------------------------------
    def getMicrographs(self):
        """Micrographs to cut the particles from."""
        return self.inputMicrographs.get() if self.micrographsSource.get() == OTHER \
            else self.inputCoordinates.get().getMicrographs()

    def getBoxSize(self):
        """Box size in pixels of the micrographs: as given, else derived from the diameter, and even."""
        if self.boxSize.get() > 0:
            return self.boxSize.get()
        coordinates = self.inputCoordinates.get()
        diameter = coordinates.getBoxSize() * coordinateScale(coordinates, self.getMicrographs())
        return 2 * math.ceil(BOX_PER_DIAMETER * diameter / 2)

    def _ctfs(self):
        """CTF by micrograph name: of the given set, else what the micrographs carry."""
        if self.inputCTF.get() is not None:
            return ctfsOfMicrographs(self.inputCTF.get())
        return {mic.getMicName(): mic.getCTF().clone() for mic in self.getMicrographs() if mic.hasCTF()}

    def _engineArguments(self):
        return ["--micrographs", self.getInputPath("micrographs.star"),
                "--coordinates", self.getInputPath("coordinates.star"), "--box", self.getBoxSize(),
                "--downsample", self.downsample.get(), "--invert" if self.invert.get() else "--no-invert",
                "--edge", self._choice("edge", EDGES)]
