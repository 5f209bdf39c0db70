"""Import of particle coordinates from a table."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import Coordinate, SetOfCoordinates
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException

from siamese2d.convert import setExactPosition
from siamese2d.coordinate_files import readPositions, stemOf


class ImportCoordinatesOutput(enum.Enum):
    outputCoordinates = SetOfCoordinates


class Siamese2DProtImportCoordinates(EMProtocol):
    """Imports coordinates from one STAR, CSV or TSV file that names the micrograph of every row."""

    _label = "import coordinates"
    _possibleOutputs = ImportCoordinatesOutput

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs",
                      help="The micrographs that the coordinates were marked on, at the size they were marked at.")
        form.addParam("coordinatesFile", params.FileParam, label="File of coordinates",
                      help="RELION STAR file, or CSV/TSV with the columns micrograph, x, y: pixels, the first row of "
                           "the image being y = 0. Micrographs are found by their file name without folder and "
                           "ending.")
        form.addParam("diameter", params.FloatParam, default=-1, label="Particle diameter (Å)",
                      help="Becomes the box size of the coordinates. With -1 the box size stays unknown, and the "
                           "training of a picker estimates the diameter. When unsure press the wand, which puts "
                           "circles where the file "
                           "says.")

    # --------------------------- INSERT steps functions --------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.importStep, needsGPU=False)

    # --------------------------- STEPS functions ---------------------------------------
    def importStep(self):
        micrographs = self.inputMicrographs.get()
        positions = self._positions()
        outside = _firstOutside(positions, micrographs)
        if outside:
            raise ValidationException(outside)
        output = self._createSetOfCoordinates(self.inputMicrographs)
        output.setBoxSize(self._boxSize())
        for mic in micrographs:
            for x, y in positions.get(_stem(mic), ()):
                coordinate = Coordinate()
                setExactPosition(coordinate, x, y)
                coordinate.setMicrograph(mic)
                output.append(coordinate)
        self._defineOutputs(**{ImportCoordinatesOutput.outputCoordinates.name: output})
        self._defineSourceRelation(self.inputMicrographs, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        if self.inputMicrographs.get() is None or not self.coordinatesFile.get():
            return []
        try:
            positions = self._positions()
        except ValidationException as problem:
            return [f"*File of coordinates*: {problem}"]
        if not any(_stem(mic) in positions for mic in self.inputMicrographs.get()):
            return [f"*File of coordinates*: it names micrographs such as '{next(iter(positions))}', the input has "
                    f"such as '{_stem(self.inputMicrographs.get().getFirstItem())}'; none is in both. Choose the "
                    "micrographs that were marked."]
        return []

    def _summary(self):
        if not self.isFinished():
            return ["The output is not ready yet."]
        return [f"{self.outputCoordinates.getSize()} coordinates."]

    # --------------------------- UTILS functions ---------------------------------------
    def _positions(self):
        """Positions by the stem of their micrograph."""
        positions = {}
        for stem, x, y in readPositions(self.coordinatesFile.get().strip()):
            positions.setdefault(stem, []).append((x, y))
        return positions

    def _boxSize(self):
        if self.diameter.get() <= 0:
            return 0
        return round(self.diameter.get() / self.inputMicrographs.get().getSamplingRate())


def _stem(mic):
    return stemOf(mic.getMicName() or mic.getFileName())


def _firstOutside(positions, micrographs):
    """A message when a coordinate lies outside of the images, which means another pixel size."""
    width, height, _ = micrographs.getDim()
    for mic in micrographs:
        for x, y in positions.get(_stem(mic), ()):
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                return (f"{mic.getFileName()}: the coordinate x {x:.1f}, y {y:.1f} lies outside of the image ({width} "
                        f"x {height} px). It was probably marked at another pixel size: choose the micrographs that it "
                        "was marked on.")
    return None
