"""Extraction of particle images."""

import enum
import math

import pyworkflow.protocol.params as params
from pwem.objects import SetOfParticles
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import EXTRACT, ITEM_ID
from siamese2d.convert import (MicrographsOfCoordinates, coordinateScale, ctfsOfMicrographs, readParticles,
                               writeCoordinates, writeMicrographs)
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import EXPERT, isOpen, validateNotEmpty
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtStreamingBase
from siamese2d.star import readTable
from siamese2d.streams import Subset, itemIds, mayGrow

SAME_AS_PICKING, OTHER = 0, 1
EDGES = ["drop", "pad"]
# Space around a particle for its alignment and for the signal that defocus spreads.
BOX_PER_DIAMETER = 1.5
# Pixels of an image below which nothing can be aligned.
MIN_BOX = 16


class ExtractOutput(enum.Enum):
    outputParticles = SetOfParticles


class Siamese2DProtExtract(Siamese2DProtStreamingBase):
    """Cuts normalized particle images out of micrographs."""

    _label = "extract particles"
    _possibleOutputs = ExtractOutput
    STAGE = EXTRACT
    ITEM_NAME = "coordinates"
    LARGEST_BATCH = 20000

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates", important=True,
                      label="Input coordinates", help="Centres of the particles.")
        form.addParam("micrographsSource", params.EnumParam, choices=["same as picking", "other"],
                      default=SAME_AS_PICKING, display=params.EnumParam.DISPLAY_HLIST, important=True,
                      label="Micrographs source",
                      help="*other*: cut the particles from other micrographs, such as those before downsampling. They "
                           "are matched by name, and a difference in pixel size is taken into account. When unsure "
                           "take *other* and the micrographs with full detail if they were downsampled for picking.")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", allowsNull=True,
                      important=True, condition=f"micrographsSource == {OTHER}", label="Other micrographs",
                      help="The micrographs to cut the particles from.")
        form.addParam("inputCTF", params.PointerParam, pointerClass="SetOfCTF", allowsNull=True, label="CTF",
                      help="CTF of the micrographs, so that class averages can be corrected for it. Without it "
                           "averages are plain means. Particles of micrographs that have no CTF in it are left out; "
                           "while it grows, they wait for "
                           "theirs. When unsure give it.")
        form.addParam("boxSize", params.IntParam, default=-1, label="Box size (px)",
                      help="Width of the images in pixels of the micrographs, before downsampling. -1 takes "
                           f"{BOX_PER_DIAMETER} times the particle diameter (the box size of the coordinates). Make it "
                           "larger for data of high defocus. When unsure press the wand.")
        form.addParam("downsample", params.FloatParam, default=1.0, label="Downsample by",
                      help="Factor by which the images get smaller (Fourier cropping). 2D classes need no more than "
                           "about 64 to 128 pixels; 1 keeps the size. When unsure take the factor that gives about "
                           "100.")
        form.addParam("invert", params.BooleanParam, default=True, label="Invert contrast?",
                      help="Particles must be bright on dark. Yes for cryo-EM micrographs as recorded; No for negative "
                           "stain, or when the micrographs were inverted before. When unsure look at the particles "
                           "that come out: they must be bright.")
        form.addParam("edge", params.EnumParam, choices=["leave out", "fill with noise"], default=0, expertLevel=EXPERT,
                      label="Particles at the edge",
                      help="What happens to particles whose box reaches over the edge of the micrograph. Fill when "
                           "particles are few. When unsure leave them out.")
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _growingInputs(self):
        sets = [self.inputCoordinates.get(), self.getMicrographs(), self.inputCTF.get()]
        return [items for items in sets if items is not None]

    def _mayGrow(self, taken):
        coordinates, *others = self._growingInputs()
        # With all coordinates taken, what else may come is of no use.
        return mayGrow(coordinates, self) or (
            len(itemIds(coordinates)) > len(taken) and any(mayGrow(items, self) for items in others))

    def _readyItems(self, ids):
        """Coordinates whose micrograph, and its CTF where one is asked for, are there."""
        ctfs = self._ctfs() if self.inputCTF.get() is not None else None
        present = MicrographsOfCoordinates(self.getMicrographs(), ctfs)
        return [item.getObjId() for item in Subset(self.inputCoordinates.get(), ids) if present.of(item)]

    def _writeBatch(self, batch, ids):
        micrographs, coordinates = self.getMicrographs(), Subset(self.inputCoordinates.get(), ids)
        present = MicrographsOfCoordinates(micrographs)
        used = Subset(micrographs, {present.of(coordinate)[0] for coordinate in coordinates})
        writeMicrographs(self.getInputPath(batch, "micrographs.star"), used, self._ctfs())
        writeCoordinates(self.getInputPath(batch, "coordinates.star"), coordinates, micrographs)

    def _publishBatch(self, batch):
        name, used = ExtractOutput.outputParticles.name, self.getInputPath(batch, "micrographs.star")
        output = self._output(name, self._newOutput)
        micrographs = Subset(self.getMicrographs(), [row[ITEM_ID] for row in readTable(used, "micrographs")])
        readParticles(self.getStagePath(batch, "particles.star"), self.inputCoordinates.get(), micrographs, output)
        self._publish(name, output, self._defineRelations)

    def _completeOutputs(self):
        if not self.getBatches():
            raise ValidationException("None of the coordinates can be extracted: they lie on other micrographs, or "
                                      "these have no CTF in the given set. Choose the micrographs on which the "
                                      "particles were picked, or others with the same names, and their CTF or none.")

    def _newOutput(self):
        output = self._createSetOfParticles()
        output.getAcquisition().copyInfo(self.getMicrographs().getAcquisition())
        output.setCoordinates(self.inputCoordinates)
        output.setHasCTF(bool(self._ctfs()))
        return output

    def _defineRelations(self, output):
        for _, pointer in self.iterInputPointers():
            self._defineSourceRelation(pointer, output)

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
        return validateNotEmpty("Other micrographs", self.getMicrographs()) or (
            self._validateBox() if self._arePlaced() else [])

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
        if self.inputCTF.get() is not None and self._arePlaced() and not any(map(isOpen, self._growingInputs())):
            without = self.getMicrographs().getSize() - len(self._ctfs())
            lines += [f"{without} micrographs have no CTF in the given set; their particles are left out."] \
                if without > 0 else []
        return lines

    def _costWarnings(self):
        if not self._arePlaced() or self.micrographsSource.get() == OTHER and self.inputMicrographs.get() is None \
                or self.boxSize.get() <= 0 and not self.inputCoordinates.get().getBoxSize():
            return []
        pixels = self.inputCoordinates.get().getSize() * (self.getBoxSize() / max(self.downsample.get(), 1)) ** 2
        return costs.space(pixels, "For 2D classes images of about 100 px are enough: raise *Downsample by*.")

    def _resultSummary(self):
        output = self.outputParticles
        lost = self.inputCoordinates.get().getSize() - output.getSize() if self.isFinished() else 0
        lines = [f"{output.getSize()} particles, {output.getXDim()} px of {output.getSamplingRate():.3f} Å."]
        return lines + ([f"{lost} coordinates gave no particle (at the edge, or on micrographs that are left out)."]
                        if lost else [])

    def _methods(self):
        return [f"Particles were extracted in boxes of {self.getBoxSize()} pixels"
                + (f" and downsampled by {self.downsample.get():g}." if self.downsample.get() > 1 else ".")] \
            if self._arePlaced() else []

    # --------------------------- UTILS functions ---------------------------------------
    def _arePlaced(self):
        """Whether the micrographs of the coordinates are known: not in a workflow before they were made."""
        return self.inputCoordinates.get() is not None and self.inputCoordinates.get().getMicrographs() is not None

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

    def _batchArguments(self, batch):
        return ["--micrographs", self.getInputPath(batch, "micrographs.star"),
                "--coordinates", self.getInputPath(batch, "coordinates.star"), "--box", self.getBoxSize(),
                "--downsample", self.downsample.get(), "--invert" if self.invert.get() else "--no-invert",
                "--edge", self._choice("edge", EDGES)]
