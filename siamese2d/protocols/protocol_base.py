"""What all protocols share: input tables, one engine command, outputs, and how they speak to the user."""

import json
import os
from subprocess import CalledProcessError

import pyworkflow.protocol.constants as cons
import pyworkflow.protocol.params as params
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException

from siamese2d import Plugin
from siamese2d.constants import TORCH_BUILD, TORCH_CPU

EXPERT = cons.LEVEL_ADVANCED
# Warnings of the engine that a summary repeats.
WARNINGS = 5


class Siamese2DProtBase(EMProtocol):
    """Writes its inputs as STAR files, runs one sub-command of the engine and reads what that wrote.

    A subclass says how its inputs are written (`_convertInput`), with which arguments the engine runs
    (`_engineArguments`) and what comes out (`_createOutput`). Nothing is kept on the object between steps: a resumed
    run finds all it needs in the protocol's folder.
    """

    _label = None
    # Sub-command of the engine, and name of its folder in extra/.
    STAGE = None

    # --------------------------- DEFINE param functions --------------------------------
    def _defineGpuParams(self, form):
        form.addHidden(params.USE_GPU, params.BooleanParam, default=Plugin.getVar(TORCH_BUILD) != TORCH_CPU,
                       label="Use GPU for execution",
                       help="Set to No to compute on the processor. There is no silent change from one to the other: a "
                            "GPU that is asked for and not there is an error.")
        form.addHidden(params.GPU_LIST, params.StringParam, default="0", label="GPU",
                       help="Number of the one GPU to use. Change it when another job runs on GPU 0.")

    def _defineSeedParam(self, form):
        form.addParam("seed", params.IntParam, default=0, expertLevel=EXPERT, label="Random seed",
                      help="The same seed gives the same result. Change it to see how much of a result is chance.")

    def _defineParallel(self, form):
        form.addParallelSection(threads=4, mpi=0)

    # --------------------------- INSERT steps functions --------------------------------
    def _insertAllSteps(self):
        self._insertFunctionStep(self.convertInputStep, self._inputKey(), needsGPU=False)
        self._insertFunctionStep(self.runEngineStep, self._engineCommand(), needsGPU=self.usesGpu())
        self._insertFunctionStep(self.createOutputStep, needsGPU=False)

    # --------------------------- STEPS functions ---------------------------------------
    def convertInputStep(self, inputKey):
        os.makedirs(self.getInputPath(), exist_ok=True)
        self._convertInput()

    def runEngineStep(self, command):
        try:
            Plugin.runEngine(self, command)
        except CalledProcessError as error:
            raise ValidationException(self._failureMessage(error.returncode)) from None

    def createOutputStep(self):
        self._createOutput()

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        return self._validateGpu() + self._validateInputs()

    def _validateInputs(self):
        """Errors of the form that are cheap to find."""
        return []

    def _warnings(self):
        openSets = [pointer for _, pointer in self.iterInputPointers() if _isOpen(pointer.get())]
        return [f"{self.getObjectTag(pointer)} is still growing: only the items that it holds when this protocol "
                "starts are used." for pointer in openSets]

    def _summary(self):
        if not self.isFinished():
            return ["The output is not ready yet."]
        return self._resultSummary() + self._warningSummary()

    def _resultSummary(self):
        """What came out, in the user's terms."""
        return []

    # --------------------------- UTILS functions ---------------------------------------
    def getInputPath(self, *paths):
        """File among the tables that are written for the engine."""
        return self._getExtraPath("input", *paths)

    def getStagePath(self, *paths):
        """File among those that the engine writes."""
        return self._getExtraPath(self.STAGE, *paths)

    def getReport(self, name):
        """A JSON file of the engine, or an empty dictionary before it is there."""
        path = self.getStagePath(name)
        if not os.path.exists(path):
            return {}
        with open(path) as report:
            return json.load(report)

    def iterInputPointers(self):
        """Names and pointers of the inputs that are set."""
        return [(name, pointer) for name, pointer in self.iterInputAttributes()
                if pointer.isPointer() and pointer.get() is not None]

    def _inputKey(self):
        # As an argument of the step it makes a resumed run write the tables again when the input has changed.
        return [f"{name}:{pointer.getUniqueId()}:{_size(pointer.get())}" for name, pointer in self.iterInputPointers()]

    def _engineCommand(self):
        # The folder belongs to this protocol alone, so a run with other parameters may replace what is in it.
        command = [self.STAGE, *self._engineArguments(), "--out", self.getStagePath(), "--overwrite",
                   "--threads", max(self.numberOfThreads.get(), 1)]
        if self.hasAttribute("seed"):
            command += ["--seed", self.seed.get()]
        if self.allowsGpu():
            command += ["--device", "cuda:%(GPU)s" if self.usesGpu() else "cpu"]
        return [str(part) for part in command]

    def _choice(self, name, values):
        """The engine's word for an enumerated parameter."""
        return values[self.getAttributeValue(name)]

    def _failureMessage(self, status):
        record = self.getReport("run.json")
        if record.get("status") == "failed" and record.get("message"):
            return record["message"]
        if record.get("status") == "running" and (status < 0 or status > 128):
            return (f"The engine was stopped from outside (status {status}); when nobody did that, the machine ran out "
                    "of memory. Continue the protocol to go on where it was.")
        return f"The engine ended with status {status}. Its last lines in the log (run.stderr) say why."

    def _validateGpu(self):
        if not self.usesGpu():
            return []
        gpus = self.getGpuList()
        if len(gpus) != 1:
            return [f"*GPU*: give the number of one GPU, not '{self.gpuList.get()}'."]
        # A queue gives the job its own machine and numbers its GPUs from 0; what this machine has is no answer there.
        if self.useQueue():
            return []
        return _missingDevice(f"cuda:{gpus[0]}")

    def _warningSummary(self):
        record = self.getReport("run.json")
        failed, warnings = record.get("results", {}).get("failed", 0), record.get("warnings", [])
        lines = [f"{failed} micrographs failed and are not in the output."] if failed else []
        lines += [f"Warning: {warning}" for warning in warnings[:WARNINGS]]
        more = len(warnings) - WARNINGS
        return lines + ([f"... and {more} more warnings; the log has all."] if more > 0 else [])


def validateNotEmpty(label, items):
    """An error for a set without items."""
    return [f"*{label}*: the set is empty. Choose another, or run the protocol that makes it again."] \
        if items is not None and len(items) == 0 else []


def _missingDevice(device):
    try:
        devices = Plugin.handshake()["devices"]
    except ValidationException:
        # The broken environment is reported by the plugin's own check.
        return []
    if device in devices:
        return []
    return [f"*GPU*: {device} is not there; the environment sees {', '.join(devices)}. Choose another GPU, or set *Use "
            f"GPU* to No. If this machine has that GPU, the environment holds a CPU build of torch: set {TORCH_BUILD} "
            "to cuda and build it again."]


def _isOpen(item):
    return hasattr(item, "isStreamOpen") and item.isStreamOpen()


def _size(item):
    return len(item) if hasattr(item, "__len__") else 1
