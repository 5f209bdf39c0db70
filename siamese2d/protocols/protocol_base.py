"""What all protocols share: input tables, one engine command, outputs, and how they speak to the user."""

import glob
import json
import os
import time
from subprocess import CalledProcessError

import pyworkflow.protocol.constants as cons
import pyworkflow.protocol.params as params
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException

from siamese2d import Plugin
from siamese2d.constants import TORCH_BUILD

EXPERT = cons.LEVEL_ADVANCED
# Warnings of the engine that a summary repeats.
WARNINGS = 5
# File of the engine about a run.
RECORD = "run.json"
# Seconds after which the summary says how old the progress is that it shows.
OLD_PROGRESS = 120


class Siamese2DProtBase(EMProtocol):
    """Writes its inputs as STAR files, runs one sub-command of the engine and reads what that wrote.

    A subclass says how its inputs are written (`_convertInput`), with which arguments the engine runs
    (`_engineArguments`) and what comes out (`_createOutput`). Nothing is kept on the object between steps: a resumed
    run finds all it needs in the protocol's folder.
    """

    _label = None
    # Sub-command of the engine, and name of its folder in extra/.
    STAGE = None
    # Whether its work can be shared by several GPUs.
    SEVERAL_GPUS = False

    # --------------------------- DEFINE param functions --------------------------------
    def _defineGpuParams(self, form):
        form.addHidden(params.USE_GPU, params.BooleanParam, default=Plugin.asksForGpu(),
                       label="Use GPU for execution",
                       help="Set to No to compute on the processor. There is no silent change from one to the other: a "
                            "GPU that is asked for and not there is an error. Change it where the job runs on another "
                            "machine than this form. When unsure keep it.")
        form.addHidden(params.GPU_LIST, params.StringParam, default="0", label="GPU",
                       help=("Numbers of the GPUs to use, such as 0 1: they share the work. " if self.SEVERAL_GPUS else
                             "Number of the one GPU to use. ") +
                            "Change it when another job runs on GPU 0. When unsure take 0.")

    def _defineSeedParam(self, form):
        form.addParam("seed", params.IntParam, default=0, expertLevel=EXPERT, label="Random seed",
                      help="The same seed gives the same result. Change it to see how much of a result is chance. "
                           "When unsure keep it.")

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
        self._runEngine(command, self.getStagePath())

    def createOutputStep(self):
        self._createOutput()

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        return self._validateGpu() + self._validateInputs()

    def _validateInputs(self):
        """Errors of the form that are cheap to find."""
        return []

    def _warnings(self):
        openSets = [pointer for _, pointer in self.iterInputPointers()
                    if isOpen(pointer.get()) and not self.worksInStreaming()]
        growing = [f"{self.getObjectTag(pointer)} is still growing: only the items that it holds when this protocol "
                   "starts are used." for pointer in openSets]
        # What a form without its inputs would cost is not known.
        return growing + (self._costWarnings() if self._hasInputs() else [])

    def _costWarnings(self):
        """Lines about choices that cost hours or fill the disk; asked when all inputs are set and not empty."""
        return []

    def _summary(self):
        if self.isFinished():
            return self._resultSummary() + self._warningSummary()
        return (self._progressSummary() if self.isRunning() else []) or ["The output is not ready yet."]

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
        return readReport(self.getStagePath(name))

    def iterInputPointers(self):
        """Names and pointers of the inputs that are set."""
        return [(name, pointer) for name, pointer in self.iterInputAttributes()
                if pointer.isPointer() and pointer.get() is not None]

    def _hasInputs(self):
        required = [name for name, param in self.getDefinition().iterParams()
                    if isinstance(param, params.PointerParam) and not param.allowsNull
                    and self.evalParamCondition(name)]
        pointers = dict(self.iterInputPointers())
        return all(name in pointers for name in required) and all(_size(pointer.get()) for pointer in pointers.values())

    def _inputKey(self):
        # As an argument of the step it makes a resumed run write the tables again when the input has changed.
        return [f"{name}:{pointer.getUniqueId()}:{_size(pointer.get())}" for name, pointer in self.iterInputPointers()]

    def _engineCommand(self):
        return self._command(self._engineArguments(), self.getStagePath())

    def _command(self, arguments, folder):
        # The folder belongs to this protocol alone, so a run with other parameters may replace what is in it.
        processes = self._processes()
        command = [self.STAGE, *arguments, "--out", folder, "--overwrite",
                   "--threads", max(self.getBinThreads() // processes, 1)]
        if self.hasAttribute("seed"):
            command += ["--seed", self.seed.get()]
        if self.allowsGpu():
            command += ["--device", "cuda:%(GPU)s" if self.usesGpu() else "cpu"]
        return [str(part) for part in command]

    def _choice(self, name, values):
        """The engine's word for an enumerated parameter."""
        return values[self.getAttributeValue(name)]

    def _processes(self):
        """Processes that the engine runs in: one for each GPU."""
        return max(len(self.getGpuList()), 1) if self.usesGpu() and self.SEVERAL_GPUS else 1

    def _runEngine(self, command, folder):
        try:
            Plugin.runEngine(self, command, self._processes())
        except CalledProcessError as error:
            record = readReport(os.path.join(folder, RECORD))
            raise ValidationException(self._failureMessage(error.returncode, record)) from None

    def _failureMessage(self, status, record):
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
        if not gpus or len(gpus) > 1 and not self.SEVERAL_GPUS:
            return [f"*GPU*: give the number of one GPU, not '{self.gpuList.get()}'."]
        if len(set(gpus)) < len(gpus):
            return [f"*GPU*: '{self.gpuList.get()}' names a GPU twice. Give each number once."]
        # A queue gives the job its own machine and numbers its GPUs from 0; what this machine has is no answer there.
        if self.useQueue():
            return []
        return [problem for gpu in gpus for problem in _missingDevice(f"cuda:{gpu}")]

    def _progressSummary(self):
        """How far the engine is, outermost work first; nothing while it does not run."""
        # A stage that works in batches has a folder for each.
        paths = [path for folder in ("", "*") for path in glob.glob(self.getStagePath(folder, "progress.json"))]
        try:
            written, path = max((os.path.getmtime(path), path) for path in paths)
            with open(path) as report:
                lines = [f"{level['label']}: {level['text']}" for level in json.load(report)["work"]]
        except (FileNotFoundError, ValueError):
            # There is none, or the engine has just removed it.
            return []
        age = time.time() - written
        return lines + ([f"(This was {age / 60:.0f} minutes ago.)"] if age > OLD_PROGRESS else [])

    def _runRecords(self):
        """What the engine recorded about its runs."""
        return [self.getReport(RECORD)]

    def _warningSummary(self):
        records = self._runRecords()
        failed = sum(record.get("results", {}).get("failed", 0) for record in records)
        warnings = [warning for record in records for warning in record.get("warnings", [])]
        lines = [f"{failed} micrographs failed and are not in the output."] if failed else []
        lines += [f"Warning: {warning}" for warning in warnings[:WARNINGS]]
        more = len(warnings) - WARNINGS
        return lines + ([f"... and {more} more warnings; the log has all."] if more > 0 else [])


def readReport(path):
    """A JSON file of the engine, or an empty dictionary before it is there."""
    if not os.path.exists(path):
        return {}
    with open(path) as report:
        return json.load(report)


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


def isOpen(item):
    """Whether an input is a set that may still grow, as far as this object knows."""
    return hasattr(item, "isStreamOpen") and item.isStreamOpen()


def _size(item):
    return len(item) if hasattr(item, "__len__") else 1
