"""Normalization of micrographs."""

import enum
import os

import pyworkflow.protocol.params as params
from pwem.objects import SetOfMicrographs

from siamese2d.constants import NORMALIZE
from siamese2d.convert import readMicrographs, writeMicrographs
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import validateNotEmpty
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtStreamingBase
from siamese2d.streams import Subset

METHODS = ["joint", "each", "affine"]
# Files of the engine: its fit, and the report that other runs can take the fit from.
FIT, REPORT = "fit.json", "normalization.json"


class NormalizeOutput(enum.Enum):
    outputMicrographs = SetOfMicrographs


class Siamese2DProtNormalize(Siamese2DProtStreamingBase):
    """Brings micrographs to one grey scale with a mixture of two Gaussians (particle and background) fitted to the
    whole set, and makes them smaller for picking.
    """

    _label = "normalize micrographs"
    _possibleOutputs = NormalizeOutput
    STAGE = NORMALIZE
    # The joint fit is made on the first batch.
    SMALLEST_BATCH = 10

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs", help="Micrographs to normalize.")
        form.addParam("method", params.EnumParam, choices=["joint (whole set)", "each micrograph alone", "affine"],
                      default=0, label="Method",
                      help="*joint*: one mixture of two Gaussians for the whole set, with a gain for every micrograph; "
                           "best when all come from one session. While micrographs still arrive, the mixture is fitted "
                           "to the first batch, and those of later batches get a gain for the same mixture: one grey "
                           "scale for the whole session.\n*each*: a mixture for every micrograph; choose it "
                           "when they differ much, e.g. several sessions or grids.\n*affine*: zero mean and unit "
                           "variance; choose it when the summary of the others shows fits that failed. When unsure "
                           "take *joint*.")
        form.addParam("downsample", params.FloatParam, default=1.0, label="Downsample by",
                      help="Factor by which the micrographs get smaller (Fourier cropping); 1 keeps the size. Picking "
                           "is fast and accurate at 4 to 8 Å/px. When unsure take the factor that gives 4 Å/px, and "
                           "extract from the micrographs as they were.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _growingInputs(self):
        return [self.inputMicrographs.get()]

    def _writeBatch(self, batch, ids):
        writeMicrographs(self.getInputPath(batch, "micrographs.star"), Subset(self.inputMicrographs.get(), ids))

    def _publishBatch(self, batch):
        name, original = NormalizeOutput.outputMicrographs.name, self.inputMicrographs.get()
        output = self._output(name, self._newOutput)
        readMicrographs(self.getStagePath(batch, "micrographs.star"), original, output)
        self._publish(name, output, lambda shown: self._defineTransformRelation(self.inputMicrographs, shown))

    def _newOutput(self):
        output = self._createSetOfMicrographs()
        output.copyInfo(self.inputMicrographs.get())
        return output

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        errors = validateNotEmpty("Input micrographs", self.inputMicrographs.get())
        if self.downsample.get() < 1:
            errors.append("*Downsample by* must be 1 or more: micrographs are made smaller, never larger.")
        return errors

    def _costWarnings(self):
        micrographs = self.inputMicrographs.get()
        pixels = micrographs.getSize() * costs.pixelsOf(micrographs) / max(self.downsample.get(), 1) ** 2
        return costs.space(pixels, "For picking, 4 to 8 Å/px are enough: raise *Downsample by*.")

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
    def _batchArguments(self, batch):
        arguments = ["--micrographs", self.getInputPath(batch, "micrographs.star"),
                     "--method", self._choice("method", METHODS), "--downsample", self.downsample.get()]
        fitted = self._fittedBatch()
        return arguments + (["--shared", self.getStagePath(fitted, REPORT)] if fitted not in (None, batch) else [])

    def _fittedBatch(self):
        """The batch that the joint fit was made on; None as long as there is none."""
        return next((batch for batch in self.getBatches()
                     if all(os.path.exists(self.getStagePath(batch, name)) for name in (FIT, REPORT))), None) \
            if METHODS[self.method.get()] == "joint" else None
