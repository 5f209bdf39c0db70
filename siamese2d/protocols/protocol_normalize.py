"""Normalization of micrographs."""

import enum

import pyworkflow.protocol.params as params
from pwem.objects import SetOfMicrographs
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import NORMALIZE
from siamese2d.convert import readMicrographs, writeMicrographs
from siamese2d.protocols.protocol_base import Siamese2DProtBase, validateNotEmpty

METHODS = ["joint", "each", "affine"]


class NormalizeOutput(enum.Enum):
    outputMicrographs = SetOfMicrographs


class Siamese2DProtNormalize(Siamese2DProtBase):
    """Brings micrographs to one grey scale with a mixture of two Gaussians (particle and background) fitted to the
    whole set, and makes them smaller for picking.
    """

    _label = "normalize micrographs"
    _possibleOutputs = NormalizeOutput
    STAGE = NORMALIZE

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs", help="Micrographs to normalize.")
        form.addParam("method", params.EnumParam, choices=["joint (whole set)", "each micrograph alone", "affine"],
                      default=0, label="Method",
                      help="*joint*: one mixture of two Gaussians for the whole set, with a gain for every micrograph; "
                           "best when all come from one session.\n*each*: a mixture for every micrograph; choose it "
                           "when they differ much, e.g. several sessions or grids.\n*affine*: zero mean and unit "
                           "variance; choose it when the summary of the others shows fits that failed.")
        form.addParam("downsample", params.FloatParam, default=1.0, label="Downsample by",
                      help="Factor by which the micrographs get smaller (Fourier cropping); 1 keeps the size. Picking "
                           "is fast and accurate at 4 to 8 Å/px.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        writeMicrographs(self.getInputPath("micrographs.star"), self.inputMicrographs.get())

    def _createOutput(self):
        original = self.inputMicrographs.get()
        output = self._createSetOfMicrographs()
        output.copyInfo(original)
        readMicrographs(self.getStagePath("micrographs.star"), original, output)
        if output.isEmpty():
            raise ValidationException("No micrograph could be normalized; the log says why for each of them.")
        self._defineOutputs(**{NormalizeOutput.outputMicrographs.name: output})
        self._defineTransformRelation(self.inputMicrographs, output)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        errors = validateNotEmpty("Input micrographs", self.inputMicrographs.get())
        if self.downsample.get() < 1:
            errors.append("*Downsample by* must be 1 or more: micrographs are made smaller, never larger.")
        return errors

    def _resultSummary(self):
        output = self.outputMicrographs
        return [f"{output.getSize()} micrographs normalized ({METHODS[self.method.get()]}), "
                f"{output.getSamplingRate():.3f} Å/px."]

    def _methods(self):
        return ["Micrographs were normalized with a mixture of two Gaussians as in [Bepler2019]."] \
            if METHODS[self.method.get()] != "affine" else ["Micrographs were scaled to zero mean and unit variance."]

    def _citations(self):
        return ["Bepler2019"]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        return ["--micrographs", self.getInputPath("micrographs.star"), "--method", self._choice("method", METHODS),
                "--downsample", self.downsample.get()]
