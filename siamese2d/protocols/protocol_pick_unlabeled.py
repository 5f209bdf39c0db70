"""Picking without labels: by size, or by templates."""

import pyworkflow.protocol.params as params

from siamese2d.constants import PICK_UNLABELED
from siamese2d.convert import writeTemplates
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import EXPERT, validateNotEmpty
from siamese2d.protocols.protocol_picking_base import Siamese2DProtPickingBase
from siamese2d.protocols.protocol_train_picker import validateDiameter

CONTRASTS = ["dark", "bright"]


class Siamese2DProtPickUnlabeled(Siamese2DProtPickingBase):
    """Finds particles by their size, or by templates, before anything is marked or trained.

    Its picks are first labels: extract and classify them, select the good classes, and train a picker on these.
    """

    _label = "pick without labels"
    STAGE = PICK_UNLABELED
    # What a particle looks like is learned from each batch.
    SMALLEST_BATCH = 10

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputMicrographs", params.PointerParam, pointerClass="SetOfMicrographs", important=True,
                      label="Input micrographs", help="Micrographs to pick, normalized or not.")
        form.addParam("diameter", params.FloatParam, default=None, allowsNull=True, important=True,
                      label="Particle diameter (Å)",
                      help="About the diameter of the particle; the mean one where it is elongated. When unsure "
                           "measure it: the wand opens the micrographs and puts circles on particles.")
        form.addParam("largestDiameter", params.FloatParam, default=-1, expertLevel=EXPERT,
                      label="Largest diameter (Å)",
                      help="-1 when all particles are about the same size. For particles of several sizes give the "
                           "largest here (the wand measures it) and the smallest above; that takes up to 15 times as "
                           "long. When unsure keep -1.")
        form.addParam("contrast", params.EnumParam, choices=CONTRASTS, default=0, label="Particles are",
                      help="*dark*, as in cryo-EM micrographs, or *bright*, as in negative stain and inverted images. "
                           "When unsure look at a micrograph.")
        form.addParam("inputTemplates", params.PointerParam, pointerClass="SetOfAverages,SetOfClasses2D",
                      allowsNull=True, label="Templates",
                      help="Class averages to look for, bright on dark; a few different views are enough. Empty looks "
                           "for blobs of the diameter, and then for what the best of them look like. When unsure leave "
                           "it empty, classify the picks, and come back with the good averages.")
        form.addParam("threshold", params.FloatParam, default=None, allowsNull=True, label="Score threshold",
                      help="Score from which a candidate is taken for a particle, in standard deviations of the noise. "
                           "Empty takes the one that separates the candidates best, those of the first batch while "
                           "micrographs still arrive. Raise it for fewer and surer "
                           "picks; continuing the run with another threshold does not score again. "
                           "When unsure leave it empty.")
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _writeBatch(self, batch, ids):
        super()._writeBatch(batch, ids)
        if self.inputTemplates.get() is not None:
            writeTemplates(self.getInputPath(batch, "templates.star"), self.inputTemplates.get())

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        micrographs, templates = self.inputMicrographs.get(), self.inputTemplates.get()
        errors = validateNotEmpty("Input micrographs", micrographs) + validateNotEmpty("Templates", templates)
        diameters = self.getDiameters()
        if not diameters or diameters[0] <= 0:
            errors.append("*Particle diameter*: give it in angstroms, about.")
        elif diameters[-1] < diameters[0]:
            errors.append("*Largest diameter* is smaller than *Particle diameter*. -1 is for particles of one size.")
        elif templates is not None and len(diameters) > 1:
            errors.append("*Largest diameter*: must be -1 with templates, which are of one size.")
        if self.threshold.get() is not None and self.threshold.get() < 0:
            errors.append("*Score threshold* must be 0 or more; empty finds one.")
        if errors or micrographs is None:
            return errors
        errors = validateDiameter("Particle diameter", diameters[0], micrographs)
        return errors or validateDiameter("Largest diameter", diameters[-1], micrographs)

    def _costWarnings(self):
        micrographs, several = self.inputMicrographs.get(), len(self.getDiameters()) > 1
        seconds = costs.pixelsOf(micrographs) * (costs.PICK_PIXEL_SIZES if several else costs.PICK_PIXEL)
        return costs.hours(self, seconds * micrographs.getSize(), "Downsampled micrographs make it shorter"
                           + (", and so does one diameter." if several else "."))

    def _resultSummary(self):
        return [f"{self._countSummary()}, score {self.getReport('picking.json')['threshold']:.2f} or more."]

    def _methods(self):
        if self.inputTemplates.get() is not None:
            return ["Particles were picked by normalised cross-correlation with class averages [Roseman2003]."]
        return ["Particles were picked without labels, by a difference of Gaussians and a rotationally averaged filter "
                "learned from the best picks [Lindeberg1998]."]

    def _citations(self):
        return ["Lindeberg1998", "Roseman2003"]

    # --------------------------- UTILS functions ---------------------------------------
    def getDiameters(self):
        """Diameters in angstroms: none, one, or the smallest and the largest."""
        largest = [self.largestDiameter.get()] if self.largestDiameter.get() > 0 else []
        return [] if self.diameter.get() is None else [self.diameter.get(), *largest]

    def getPickedBox(self):
        """Size of the boxes in pixels of the micrographs: the largest diameter."""
        return round(max(self.getDiameters()) / self.inputMicrographs.get().getSamplingRate())

    def _batchArguments(self, batch):
        arguments = ["--micrographs", self.getInputPath(batch, "micrographs.star"), "--diameter", *self.getDiameters(),
                     "--contrast", self._choice("contrast", CONTRASTS)]
        if self.inputTemplates.get() is not None:
            arguments += ["--templates", self.getInputPath(batch, "templates.star"),
                          "--template-pixel-size", self._templatePixelSize()]
        threshold = self._thresholdOf(batch)
        return arguments if threshold is None else arguments + ["--threshold", threshold]

    def _thresholdOf(self, batch):
        """As given; else None for the batch that finds one, and what that found for the others."""
        if self.threshold.get() is not None:
            return self.threshold.get()
        results = {name: self._record(name).get("results", {}) for name in self.getBatches()}
        finder = next((name for name, found in results.items()
                       if "threshold" in found and found["threshold_given"] is None), None)
        return None if finder in (None, batch) else results[finder]["threshold"]

    def _templatePixelSize(self):
        return self.inputTemplates.get().getSamplingRate()
