"""Files for RELION and cryoSPARC outside of the project."""

import os

import pyworkflow.protocol.params as params
from pwem.objects import SetOfClasses2D

from siamese2d.constants import EXPORT
from siamese2d.convert import writeTemplates
from siamese2d.export import writeEverything
from siamese2d.protocols.protocol_base import Siamese2DProtBase, validateNotEmpty

FORMATS = ["relion", "cryosparc"]
TABLES = ["particles.star", "particles.csg"]


class Siamese2DProtExport(Siamese2DProtBase):
    """Writes particles, 2D classes and their alignments for RELION (STAR) or cryoSPARC (.cs).

    RELION's own export leaves out the classes and takes shifts for unrotated ones; it can not write mirrored members.
    """

    _label = "export particles and classes"
    STAGE = EXPORT

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles,SetOfClasses2D",
                      important=True, label="Particles or 2D classes",
                      help="Classes bring their number, averages and alignment; the particles of disabled classes are "
                           "left out. Members that are mirrored go into classes of their own, whose averages are "
                           "mirrored too, because neither program has mirrored alignments.")
        form.addParam("format", params.EnumParam, choices=["RELION (STAR)", "cryoSPARC (.cs)"], default=0,
                      label="Format",
                      help="RELION: particles.star, classes.star and classes.mrcs. cryoSPARC: particles.csg and "
                           "templates.csg, which its job Import Result Group takes. Image files are named, not "
                           "copied, so they must be readable where the other program runs. When unsure take RELION's, "
                           "which most programs read.")

    # --------------------------- STEPS functions ---------------------------------------
    def _convertInput(self):
        source = self.inputParticles.get()
        writeEverything(self.getInputPath("particles.star"), source)
        if _hasAverages(source):
            writeTemplates(self.getInputPath("classes.star"), source)

    def _createOutput(self):
        """Nothing comes back into the project."""

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        return validateNotEmpty("Particles or 2D classes", self.inputParticles.get())

    def _resultSummary(self):
        count = self.getReport("run.json")["results"]["particles"]
        return [f"{count} particles in {os.path.abspath(self.getStagePath(TABLES[self.format.get()]))}"]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineArguments(self):
        arguments = ["--particles", self.getInputPath("particles.star"), "--format", self._choice("format", FORMATS)]
        if _hasAverages(self.inputParticles.get()):
            arguments += ["--classes", self.getInputPath("classes.star")]
        return arguments


def _hasAverages(source):
    if not isinstance(source, SetOfClasses2D):
        return False
    average = source.getFirstItem().getRepresentative()
    return average is not None and bool(average.getFileName())
