"""New particles into the 2D classes of others."""

import os

import pyworkflow.protocol.params as params
from pwem.objects import SetOfImages

from siamese2d.constants import ASSIGN
from siamese2d.convert import writeTemplates
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import validateNotEmpty
from siamese2d.protocols.protocol_classes_base import ClassesOutput, Siamese2DProtClassesBase
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtStreamingBase
from siamese2d.protocols.protocol_train_embedding import validateMask
from siamese2d.streams import Subset

# What the engine measures of the first particles: noise, and the scale of the averages.
CALIBRATION = "calibration.safetensors"


class Siamese2DProtAssign(Siamese2DProtStreamingBase, Siamese2DProtClassesBase):
    """Puts new particles into existing 2D classes, without classifying again.

    A coarse comparison with all averages proposes poses, a fine one decides. The classes may come from any program;
    they keep their numbers, averages and frames.
    """

    _label = "assign to 2D classes"
    STAGE = ASSIGN
    ITEM_NAME = "particles"
    # The noise that particles are compared with is measured on the first batch: fewer would say little about it. What
    # fits nowhere is told from the usual in each batch.
    SMALLEST_BATCH, FIRST_BATCH, LARGEST_BATCH = 500, 500, 20000

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", important=True,
                      label="Input particles", help="Particles to assign, bright on dark; for instance those that were "
                                                    "picked after the classification.")
        form.addParam("inputClasses", params.PointerParam, pointerClass="SetOfClasses2D,SetOfAverages", important=True,
                      label="Classes", help="2D classes or averages of any program, bright on dark, centred. Disabled "
                                            "ones are not used. Averages of another box or pixel size are resampled.")
        self._defineImageParams(
            form, "When unsure take that of the classification; the wand shows it on the averages.",
            "Yes: a particle may be mirrored to fit its class. No for classes that were made without mirroring, such as "
            "those of RELION. When unsure take what the classification had.",
            "-1 takes 0.08 of the box. Enlarge it for imprecise coordinates; a small value is faster. When unsure keep "
            "-1.")
        form.addParam("newAverages", params.BooleanParam, default=False, label="New averages?",
                      help="Yes: the classes get averages of their new members, with their resolution, instead of the "
                           "given ones. Takes about as long as the assignment. While particles still arrive, the given "
                           "ones are shown; when all are there, all are assigned once more, at once. When unsure take "
                           "No: the new members are then told by averages that you know.")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _growingInputs(self):
        return [self.inputParticles.get()]

    def _isInParts(self):
        # Averages are made of all members.
        return self.newAverages.get() and not all(map(self._isWhole, self.getBatches()))

    def _writeBatch(self, batch, ids):
        self._writeParticles(self.getInputPath(batch, "particles.star"), Subset(self.inputParticles.get(), ids))
        writeTemplates(self.getInputPath(batch, "classes.star"), self.inputClasses.get())

    def _publishBatch(self, batch):
        makers = (self._newClasses, self._newAverages, self._newSetApart)
        sets = (self._output(output.name, maker) for output, maker in zip(ClassesOutput, makers))
        for name, output in self._fill(self.getStagePath(batch), *sets).items():
            self._publish(name, output, self._defineRelations)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        particles, classes = self.inputParticles.get(), self.inputClasses.get()
        errors = validateNotEmpty("Input particles", particles) + validateNotEmpty("Classes", classes)
        if not errors and classes is not None and not _averageFiles(classes):
            errors.append("*Classes*: they have no averages. Choose classes whose program wrote them, or a set of "
                          "averages.")
        return errors if errors or particles is None else validateMask(self.maskDiameter.get(), particles)

    def _warnings(self):
        lines, particles, classes = super()._warnings(), self.inputParticles.get(), self.inputClasses.get()
        if particles is not None and classes is not None and _averageFiles(classes):
            given = (_average(classes).getDim()[0], _pixelSize(classes))
            present = (particles.getXDim(), particles.getSamplingRate())
            if given[0] != present[0] or abs(given[1] / present[1] - 1) > 1e-3:
                lines.append(f"*Classes*: the averages have {given[0]} px of {given[1]:.3f} Å, the particles {present[0]} "
                             f"px of {present[1]:.3f} Å. The averages are resampled.")
        return lines

    def _costWarnings(self):
        number = self.inputParticles.get().getSize()
        seconds = number * (costs.ASSIGN + costs.ASSIGN_CLASS * self.inputClasses.get().getSize())
        return costs.hours(self, seconds * (2 if self.newAverages.get() else 1),
                           "Fewer classes, a small *Largest shift* and no new averages make it shorter.")

    def _methods(self):
        return ["Particles were aligned in plane to given class averages, from low to high resolution, and put into the "
                "most likely class; those that matched it no better than noise [Efron2004] and those unlike the others "
                "(more signal beside their class's, less of its detail, far off the centre) were set apart."]

    def _citations(self):
        return ["Efron2004"]

    # --------------------------- UTILS functions ---------------------------------------
    def _batchArguments(self, batch):
        arguments = ["--particles", self.getInputPath(batch, "particles.star"),
                     "--classes", self.getInputPath(batch, "classes.star"),
                     "--classes-pixel-size", _pixelSize(self.inputClasses.get()), *self._imageArguments()]
        arguments += ["--new-averages"] if self.newAverages.get() and self._isWhole(batch) else []
        first = self._calibratedBatch()
        return arguments + (["--calibration", self.getStagePath(first, CALIBRATION)] if first not in (None, batch) else [])

    def _calibratedBatch(self):
        """The batch that the noise was measured on; None as long as there is none."""
        return next((batch for batch in self.getBatches() if os.path.exists(self.getStagePath(batch, CALIBRATION))), None)


def _average(classes):
    first = classes.getFirstItem()
    return first.getRepresentative() if hasattr(first, "getRepresentative") else first


def _averageFiles(classes):
    average = _average(classes)
    return average is not None and bool(average.getFileName())


def _pixelSize(classes):
    """Angstroms per pixel of the averages."""
    own = classes if isinstance(classes, SetOfImages) else classes.getImages()
    return _average(classes).getSamplingRate() or own.getSamplingRate()
