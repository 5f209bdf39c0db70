"""Keeping the good classes."""

import enum

import pyworkflow.protocol.params as params
from pwem.constants import ALIGN_NONE
from pwem.objects import Class2D, SetOfAverages, SetOfClasses2D, SetOfParticles
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException

from siamese2d.gallery.class_list import SetFileError, read_class_list
from siamese2d.gallery.criteria import Criteria, parse_numbers
from siamese2d.protocols.protocol_base import EXPERT


class SelectClassesOutput(enum.Enum):
    outputClasses = SetOfClasses2D
    outputAverages = SetOfAverages
    outputParticles = SetOfParticles


class Siamese2DProtSelectClasses(EMProtocol):
    """Keeps the classes that meet thresholds, or those that were chosen in the class gallery, and their particles."""

    _label = "select 2D classes"
    _possibleOutputs = SelectClassesOutput

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputClasses", params.PointerParam, pointerClass="SetOfClasses2D,SetOfAverages", important=True,
                      label="2D classes", help="Classes of any program. Of averages alone, averages come out; of "
                                               "classes, their averages and particles too.")
        form.addParam("classNumbers", params.StringParam, default="", label="Class numbers",
                      help="Numbers and ranges, e.g. 1-5,8,13; the wand opens the class gallery to click them. Empty "
                           "leaves the choice to the thresholds, which need nobody to look, so they suit workflows "
                           "that run by themselves. A class must meet all that is asked for. When unsure look at "
                           "the classes.")
        form.addParam("minSize", params.IntParam, default=-1, label="Smallest size",
                      help="Particles that a class must have. -1 does not ask. When unsure keep -1: rare views "
                           "are small classes, too.")
        form.addParam("maxResolution", params.FloatParam, default=-1, label="Coarsest resolution (Å)",
                      help="A class must be resolved to this or better; where the resolution is not known it is not "
                           "kept. -1 does not ask. When unsure, sort the gallery by resolution and look where good "
                           "classes end.")
        form.addParam("minQuality", params.FloatParam, default=-1, expertLevel=EXPERT, label="Lowest quality",
                      help="Quality score that a class must have: of this plugin, or RELION's class score. -1 does "
                           "not ask. When unsure sort the gallery by quality and look where to cut.")

    # --------------------------- INSERT steps functions --------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.selectStep, needsGPU=False)

    # --------------------------- STEPS functions ---------------------------------------
    def selectStep(self):
        problems = self._problems()
        if problems:
            raise ValidationException(" ".join(problems))
        source, kept = self.inputClasses.get(), self.getKept()
        outputs = self._selectClasses(source, kept) if isinstance(source, SetOfClasses2D) \
            else self._selectAverages(source, kept)
        self._defineOutputs(**outputs)
        for output in outputs.values():
            self._defineSourceRelation(self.inputClasses, output)

    def _selectClasses(self, source, kept):
        images = source.getImages()
        classes = self._createSetOfClasses2D(source.getImagesPointer())
        averages, particles = self._createSetOfAverages(), self._createSetOfParticles()
        for output in (averages, particles):
            output.copyInfo(images)
        averages.setAlignment(ALIGN_NONE)
        averages.setHasCTF(False)
        listed = read_class_list(source.getFileName())
        sizes = dict(zip(listed.ids.tolist(), listed.sizes.tolist()))
        for cls in source.iterItems():
            if cls.getObjId() in kept:
                particles.setAlignment(cls.getAlignment())
                # Scipion can't iterate over a class that never had a member, and its own count may be out of date.
                _copyClass(cls, cls if sizes[cls.getObjId()] else (), classes, averages, particles)
        outputs = {SelectClassesOutput.outputClasses.name: classes,
                   SelectClassesOutput.outputParticles.name: particles}
        if not averages.isEmpty():
            outputs[SelectClassesOutput.outputAverages.name] = averages
        return outputs

    def _selectAverages(self, source, kept):
        averages = self._createSetOfAverages()
        averages.copyInfo(source)
        for average in source.iterItems():
            if average.getObjId() in kept:
                averages.append(average)
        return {SelectClassesOutput.outputAverages.name: averages}

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        return self._problems() if self.inputClasses.get() is not None else []

    def _warnings(self):
        if self.inputClasses.get() is None or not self.inputClasses.get().isStreamOpen():
            return []
        return ["*2D classes*: the set is still growing: only what it holds when this protocol starts is used."]

    def _summary(self):
        if not self.isFinished():
            return ["The output is not ready yet."]
        total = self.inputClasses.get().getSize()
        if not self.hasAttribute(SelectClassesOutput.outputClasses.name):
            return [f"{self.outputAverages.getSize():,} of {total:,} averages kept."]
        inClasses = read_class_list(self.inputClasses.get().getFileName()).particles
        return [f"{self.outputClasses.getSize():,} of {total:,} classes kept, with "
                f"{self.outputParticles.getSize():,} of {inClasses:,} particles."]

    def _methods(self):
        asked = ["chosen by eye"] if self.classNumbers.get("") else []
        asked += [f"with {self._thresholdsText()}"] if not self._criteria().empty else []
        return [f"2D classes {' and '.join(asked)} were kept."]

    # --------------------------- UTILS functions ---------------------------------------
    def getKept(self):
        """Numbers of the classes that are kept."""
        good = self._criteria().accepted(read_class_list(self.inputClasses.get().getFileName()))
        numbers = parse_numbers(self.classNumbers.get(""))
        return set(good.tolist()) & set(numbers) if numbers else set(good.tolist())

    def _problems(self):
        """Why nothing sensible can come out: errors of the form, also asked when the step starts."""
        source = self.inputClasses.get()
        try:
            classes = read_class_list(source.getFileName())
        except SetFileError as problem:
            return [f"*2D classes*: {problem}"]
        if not len(classes):
            return ["*2D classes*: the set is empty. Choose another, or run the protocol that makes it again."]
        if isinstance(source, SetOfClasses2D) and source.getImages() is None:
            return ["*2D classes*: the particles that were classified are not in this project any more."]
        errors = self._numberErrors(classes) + self._thresholdErrors(classes)
        if not errors and self._criteria().empty and not self.classNumbers.get("").strip():
            return ["Give class numbers, or at least one threshold."]
        if not errors and not self.getKept():
            errors = [f"No class would be kept: none of those that were asked for has {self._thresholdsText()}. Loosen "
                      "the thresholds."]
        return errors

    def _numberErrors(self, classes):
        try:
            numbers = parse_numbers(self.classNumbers.get(""))
        except ValueError as problem:
            return [f"*Class numbers*: {problem}."]
        missing = sorted(set(numbers) - set(classes.ids[classes.enabled].tolist()))
        return [f"*Class numbers*: {missing[0]} is not among the (enabled) classes, which have numbers from "
                f"{classes.ids.min()} to {classes.ids.max()}."] if missing else []

    def _thresholdErrors(self, classes):
        return [f"The {name} of these classes is not known, so no threshold can be set on it. Give -1, or choose "
                "classes whose program tells it." for name in self._criteria().unknown(classes)]

    def _criteria(self):
        return Criteria(*(value.get() if value.get() is not None and value.get() >= 0 else None
                          for value in (self.minSize, self.maxResolution, self.minQuality)))

    def _thresholdsText(self):
        criteria = self._criteria()
        return " and ".join(text for value, text in (
            (criteria.min_size, f"at least {criteria.min_size} particles"),
            (criteria.max_resolution, f"a resolution of {criteria.max_resolution} Å or better"),
            (criteria.min_quality, f"a quality of {criteria.min_quality} or more")) if value is not None)


def _copyClass(source, members, classes, averages, particles):
    """Append one class with its enabled members, its average and its particles to the outputs."""
    copied = Class2D()
    copied.copyInfo(source)
    copied.setObjId(source.getObjId())
    classes.append(copied)
    for particle in members:
        if particle.isEnabled():
            copied.append(particle)
            particles.append(particle)
    classes.update(copied)
    if source.hasRepresentative() and source.getRepresentative().getFileName():
        averages.append(_average(source, averages))


def _average(source, averages):
    average = source.getRepresentative().clone()
    average.setObjId(source.getObjId())
    average.setClassId(source.getObjId())
    averages.setSamplingRate(average.getSamplingRate() or source.getSamplingRate())
    # What the program told about the class (size, resolution, scores of any plugin) goes with its average.
    for name, value in source.getAttributesToStore():
        if name.startswith(("_siamese2d", "_rln", "_xmipp", "_cm")):
            setattr(average, name, value.clone())
    return average
