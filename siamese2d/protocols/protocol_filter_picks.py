"""Other thresholds for picks, without picking again."""

import enum
import glob

import pyworkflow.protocol.params as params
from pwem.objects import SetOfCoordinates
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import ATTR_SCORE, ITEM_ID
from siamese2d.convert import MICROGRAPH, readCoordinates
from siamese2d.protocols.protocol_base import validateNotEmpty
from siamese2d.protocols.protocol_pick import Siamese2DProtPick
from siamese2d.protocols.protocol_pick_unlabeled import Siamese2DProtPickUnlabeled
from siamese2d.star import readTable, writeTables

SCORE = "rlnAutopickFigureOfMerit"
# Scores of coordinates, ours first: of this plugin, of RELION and of Topaz.
SCORES = (ATTR_SCORE, "_rlnAutopickFigureOfMerit", "_topazScore")


class FilterPicksOutput(enum.Enum):
    outputCoordinates = SetOfCoordinates


class Siamese2DProtFilterPicks(EMProtocol):
    """Takes the picks of a run whose scores are within limits, out of all its candidates; nothing is picked again."""

    _label = "filter picks by score"
    _possibleOutputs = FilterPicksOutput

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputCoordinates", params.PointerParam, pointerClass="SetOfCoordinates", important=True,
                      label="Picked particles",
                      help="Picks of this plugin: all their candidates can be taken, also those below the threshold of "
                           "their run. Of other programs, picks that have a score: these can only become fewer.")
        form.addParam("minScore", params.FloatParam, default=None, allowsNull=True, label="Lowest score",
                      help="Score from which a candidate is taken. The window of the picks shows what a threshold does "
                           "and starts this protocol with *Keep as new output*. Empty does not ask; "
                           "when unsure look there.")
        form.addParam("maxScore", params.FloatParam, default=None, allowsNull=True, label="Highest score",
                      help="Score up to which a candidate is taken, e.g. to leave out ice that scores higher than any "
                           "particle. Empty does not ask. "
                           "When unsure leave it empty.")

    # --------------------------- INSERT steps functions --------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.filterStep, needsGPU=False)

    # --------------------------- STEPS functions ---------------------------------------
    def filterStep(self):
        source = self.inputCoordinates.get()
        output = self._createSetOfCoordinates(source.getMicrographs(asPointer=True))
        output.setBoxSize(source.getBoxSize())
        candidates, micrographs = self._candidateFiles()
        if candidates:
            self._fromCandidates(candidates, micrographs, output)
        else:
            self._fromScores(source, output)
        if output.isEmpty():
            raise ValidationException(f"No pick has a score of {self._limitsText()}. Widen the limits.")
        self._defineOutputs(**{FilterPicksOutput.outputCoordinates.name: output})
        self._defineSourceRelation(self.inputCoordinates, output)

    def _fromCandidates(self, candidates, micrographs, output):
        # A run on a growing set has a folder for each batch.
        kept = [row for path in candidates for row in readTable(path) if self._isWithin(float(row[SCORE]))]
        table = [{name: row[name] for name in (MICROGRAPH, ITEM_ID)} for path in micrographs
                 for row in readTable(path, "micrographs")]
        writeTables(self._getExtraPath("coordinates.star"), {"coordinates": kept})
        writeTables(self._getExtraPath("micrographs.star"), {"micrographs": table})
        readCoordinates(self._getExtraPath("coordinates.star"), self._getExtraPath("micrographs.star"),
                        output.getMicrographs(), output)

    def _fromScores(self, source, output):
        name = self._scoreName()
        for coordinate in source.iterItems():
            score = coordinate.getAttributeValue(name)
            if score is not None and self._isWithin(score) and coordinate.isEnabled():
                output.append(coordinate)

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        source, low, high = self.inputCoordinates.get(), self.minScore.get(), self.maxScore.get()
        errors = validateNotEmpty("Picked particles", source)
        if low is None and high is None:
            errors.append("Give the lowest score, or the highest.")
        elif low is not None and high is not None and low > high:
            errors.append("*Lowest score* is above *Highest score*.")
        if source is None or errors:
            return errors
        if not self._candidateFiles()[0] and self._scoreName() is None:
            errors.append("*Picked particles*: they have no score. Choose the picks of a program that gives one.")
        return errors

    def _warnings(self):
        if self.inputCoordinates.get() is None or not self.inputCoordinates.get().isStreamOpen():
            return []
        return ["*Picked particles*: the set is still growing: only what it holds when this protocol starts is used."]

    def _summary(self):
        if not self.isFinished():
            return ["The output is not ready yet."]
        return [f"{self.outputCoordinates.getSize():,} particles with a score of {self._limitsText()}; the input has "
                f"{self.inputCoordinates.get().getSize():,}."]

    def _methods(self):
        return [f"Picks with a score of {self._limitsText()} were kept."]

    # --------------------------- UTILS functions ---------------------------------------
    def _candidateFiles(self):
        """Tables of candidates of the run that picked, and of its micrographs; empty for other programs."""
        run = self.inputCoordinates.getObjValue()
        if not isinstance(run, (Siamese2DProtPick, Siamese2DProtPickUnlabeled)):
            return [], []
        return (sorted(glob.glob(run.getStagePath("**", "candidates.star"), recursive=True)),
                sorted(glob.glob(run.getInputPath("**", "micrographs.star"), recursive=True)))

    def _scoreName(self):
        first = self.inputCoordinates.get().getFirstItem()
        return next((name for name in SCORES if first.getAttributeValue(name) is not None), None)

    def _isWithin(self, score):
        low, high = self.minScore.get(), self.maxScore.get()
        return (low is None or score >= low) and (high is None or score <= high)

    def _limitsText(self):
        low, high = self.minScore.get(), self.maxScore.get()
        if low is not None and high is not None:
            return f"{low:.4g} to {high:.4g}"
        if low is not None:
            return f"{low:.4g} or more"
        return f"{high:.4g} or less" if high is not None else "any value"
