"""Inputs that grow while a protocol runs: worked through in batches, or waited for until there is enough."""

import glob
import json
import os
import time

import numpy as np

import pyworkflow.protocol.params as params
from pyworkflow.exceptions import ValidationException
from pyworkflow.object import Set
from pyworkflow.protocol import ProtStreamingBase
from pyworkflow.utils import cleanPath

from siamese2d.protocols.protocol_base import EXPERT, RECORD, Siamese2DProtBase, isOpen, readReport
from siamese2d.streams import itemIds, madeAt, mayGrow

BATCH = "batch_{:05d}"
# Files beside the tables of a batch: what it holds, and with which arguments its result got into the outputs.
ITEMS, PUBLISHED = "items.json", "published.json"
# Scipion's main thread, the one that looks for new items, and the one that works.
FEWEST_THREADS = 3
GROWING = "growing"
# Time between two looks of those that wait for enough.
LOOK_SECONDS = 5


class Siamese2DProtStreamingBase(ProtStreamingBase, Siamese2DProtBase):
    """Works through inputs that may still grow, and lets its outputs grow.

    What has newly arrived becomes a batch: tables in ``extra/input/batch_00001/`` and one command of the engine, which
    writes into ``extra/<stage>/batch_00001/``. An input that is closed is one batch. All that a resumed run must know
    is in these folders and in the outputs.

    A subclass says which inputs may grow (`_growingInputs`; batches are made of the items of the first one), how the
    tables of a batch are written (`_writeBatch`), with which arguments the engine runs (`_batchArguments`), and how its
    result is appended to the outputs (`_publishBatch`); what these hold already must be left out.
    """

    # What the items of a batch are called, and how many of them a batch holds while the input grows.
    ITEM_NAME = "micrographs"
    SMALLEST_BATCH, LARGEST_BATCH = 1, 50
    # How many the first one holds at least, whatever the user takes for the smallest batch.
    FIRST_BATCH = 1

    # --------------------------- DEFINE param functions --------------------------------
    def _defineStreamingParams(self, form):
        super()._defineStreamingParams(form)
        first = f"The first batch holds at least {self.FIRST_BATCH}. " if self.FIRST_BATCH > 1 else ""
        form.addParam("smallestBatch", params.IntParam, default=self.SMALLEST_BATCH, expertLevel=EXPERT,
                      label=f"Smallest batch ({self.ITEM_NAME})",
                      help=f"While the input grows, new {self.ITEM_NAME} are processed together as soon as there are "
                           "so many; every batch costs 2 to 3 s for starting the program. Those that come while a batch "
                           f"is processed are the next one. {first}A closed input is one batch. When unsure keep "
                           f"{self.SMALLEST_BATCH}.")

    def _defineParallel(self, form):
        self._defineStreamingParams(form)
        form.addParallelSection(threads=FEWEST_THREADS, mpi=0, binThreads=4)

    # --------------------------- STEPS functions ---------------------------------------
    def stepsGeneratorStep(self):
        """Makes batches of what arrives until nothing more can come."""
        last = []
        with self._lock:
            self._forgetOtherInputs()
            if self._isInParts() and not self._mayGrow(self._takenItems()):
                self._forgetBatches()
            self._reopenOutputs()
            taken = self._takenItems()
        for batch in self._unfinishedBatches():
            last = self._insertBatch(batch, last)
        while not any(step.isFailed() for step in self._steps):
            with self._lock:
                self._refuseOtherInputs()
                # Asked before looking: what arrives in between is found by the next look.
                growing = self._mayGrow(taken)
                waits = self._isBusy() and (growing or self._isInParts())
                if not growing and not waits and self._isInParts():
                    self._forgetBatches()
                    taken = self._takenItems()
                new = [] if waits else self._newItems(taken, growing)
                batch = self._makeBatch(new, isWhole=not growing and not len(taken)) if len(new) else None
            if batch:
                taken = np.concatenate([taken, new])
                last = self._insertBatch(batch, last)
            if not growing and not waits:
                self._insertFunctionStep(self.closeOutputStep, prerequisites=last, needsGPU=False)
                return
            time.sleep(max(self.streamingSleepOnWait.get(), 1))

    def processBatchStep(self, batch):
        arguments = self._resultArguments(batch)
        if self._runBatch(batch):
            with self._lock:
                self._refuseOtherInputs()
                self._publishBatch(batch)
                self._closeInputs()
                _writeJson(self.getInputPath(batch, PUBLISHED), arguments)

    def closeOutputStep(self):
        with self._lock:
            self._completeOutputs()
            self._closeOutputSet()

    def _insertBatch(self, batch, last):
        # One after the other: outputs come in the order of the inputs, and the engine uses all threads anyway.
        return [self._insertFunctionStep(self.processBatchStep, batch, prerequisites=last, needsGPU=self.usesGpu())]

    def _isBusy(self):
        # The first step is the one that asks.
        return any(step.isNew() or step.isRunning() for step in self._steps[1:])

    def _runBatch(self, batch):
        """Whether the engine made something of the batch; a bad one stops the protocol only if it is the first."""
        try:
            self._runEngine(self._engineCommand(batch), self.getStagePath(batch))
        except ValidationException as problem:
            if self._record(batch).get("error") != "InputError" or not self._hasPublished():
                raise
            self.warning(f"{batch} is left out: {problem}")
            return False
        return True

    def _isInParts(self):
        """Whether what was made of several batches must be made again of all items at once, when all are there."""
        return False

    def _completeOutputs(self):
        """Called when all is processed, before the outputs are closed."""

    # --------------------------- batches -----------------------------------------------
    def getBatches(self):
        """Names of the batches so far."""
        return [os.path.basename(os.path.dirname(path)) for path in sorted(glob.glob(self.getInputPath("*", ITEMS)))]

    def getReport(self, name):
        """A JSON file of the engine, of the first batch that has it; an empty dictionary before it is there."""
        reports = (readReport(self.getStagePath(batch, name)) for batch in self.getBatches())
        return next((report for report in reports if report), {})

    def countTaken(self):
        """Number of input items that are in batches."""
        return sum(len(self._items(batch)) for batch in self.getBatches())

    def _isWhole(self, batch):
        """Whether a batch is all that a closed input holds."""
        return readReport(self.getInputPath(batch, ITEMS)).get("whole", True)

    def _items(self, batch):
        return readReport(self.getInputPath(batch, ITEMS))["items"]

    def _takenItems(self):
        return np.array([item for batch in self.getBatches() for item in self._items(batch)], dtype=np.int64)

    def _mayGrow(self, taken):
        """Whether items may come beside those that were taken."""
        return any(mayGrow(items, self) for items in self._growingInputs())

    def _newItems(self, taken, growing):
        """Ids for the next batch; none where there are too few while more may come."""
        new = np.setdiff1d(itemIds(self._growingInputs()[0]), taken)
        ready = self._readyItems(new) if len(new) else new
        self._closeInputs()
        if not growing:
            return ready
        fewest = max(self.smallestBatch.get(), 1 if len(taken) else self.FIRST_BATCH)
        return ready[:self.LARGEST_BATCH] if len(ready) >= fewest else []

    def _readyItems(self, ids):
        """Those of some new ids that can be processed."""
        return ids

    def _makeBatch(self, ids, isWhole=False):
        batch = BATCH.format(len(self.getBatches()) + 1)
        os.makedirs(self.getInputPath(batch), exist_ok=True)
        self._writeBatch(batch, ids)
        self._closeInputs()
        # Written last: it makes the batch.
        _writeJson(self.getInputPath(batch, ITEMS), {"inputs": self._inputKeys(), "whole": isWhole,
                                                     "items": np.array(ids).tolist()})
        return batch

    def _closeInputs(self):
        # An open connection would show the next look what there was before.
        for items in self._growingInputs():
            items.close()

    def _unfinishedBatches(self):
        """Batches whose result is not in the outputs, and those with failed micrographs, which are tried again."""
        batches = self.getBatches()
        published = {batch: readReport(self.getInputPath(batch, PUBLISHED)) for batch in batches}
        if any(published[batch] not in ({}, self._resultArguments(batch)) for batch in batches):
            # The parameters are others now: the outputs are made anew.
            cleanPath(*(self.getInputPath(batch, PUBLISHED) for batch in batches))
            return batches
        return [batch for batch in batches
                if not published[batch] or self._record(batch).get("results", {}).get("failed")]

    def _forgetOtherInputs(self):
        """Start from nothing when the inputs of the batches were others than those of now, or were made anew since."""
        if any(self._inputsOf(batch) != self._inputKeys() for batch in self.getBatches()):
            self._forgetBatches()

    def _forgetBatches(self):
        cleanPath(self.getInputPath(), self.getStagePath())

    def _refuseOtherInputs(self):
        """Stop when an input was made anew while this protocol works: its items are others, with the same ids."""
        now = self._inputKeys()
        # All batches were made of what the first one was made of.
        changed = [name for batch in self.getBatches()[:1] for name, made in self._inputsOf(batch)
                   if made and [name, made] not in now]
        if changed:
            raise ValidationException(
                f"{', '.join(changed)}: made anew while this protocol worked: the protocol that makes it was started "
                "from its beginning, or went on with other parameters. What came out here is of the former items, and "
                "nothing is added to it. Continue this protocol when the new items are there: it then begins anew with "
                "them.")

    def _inputsOf(self, batch):
        return readReport(self.getInputPath(batch, ITEMS))["inputs"]

    def _inputKeys(self):
        """What tells the inputs from others: which they are, and when those were made that grow."""
        names = [[pointer.getUniqueId(), None] for _, pointer in self.iterInputPointers()]
        return names + [[items.getFileName(), madeAt(items)] for items in self._growingInputs()]

    def _resultArguments(self, batch):
        """What the result depends on beside the batch's tables."""
        arguments = [str(argument) for argument in self._batchArguments(batch)]
        return {"arguments": arguments, "seed": self.getAttributeValue("seed", 0)}

    def _record(self, batch):
        return readReport(self.getStagePath(batch, RECORD))

    # --------------------------- outputs -----------------------------------------------
    def _hasPublished(self):
        return bool(glob.glob(self.getInputPath("*", PUBLISHED)))

    def _output(self, name, create):
        """An output to append to: as it is, or made by `create` when it holds nothing of this run yet."""
        output = getattr(self, name, None)
        if output is None or not self._hasPublished():
            return create()
        output.enableAppend()
        return output

    def _publish(self, name, output, relations):
        """Show an output that has grown; `relations` are called with it when it is new."""
        isNew = not self.hasAttribute(name)
        self._updateOutputSet(name, output, state=Set.STREAM_OPEN)
        if isNew:
            relations(getattr(self, name))
            self._store()

    def _reopenOutputs(self):
        # A run that was stopped has closed them.
        if self._mayGrow(self._takenItems()):
            for name, output in list(self.iterOutputAttributes()):
                self._updateOutputSet(name, output, state=Set.STREAM_OPEN)

    # --------------------------- INFO functions ----------------------------------------
    def _validate(self):
        return Siamese2DProtBase._validate(self) + self._validateStreaming()

    def _validateStreaming(self):
        growing = any(isOpen(pointer.get()) for _, pointer in self.iterInputPointers())
        if not growing or self.numberOfThreads.get() >= FEWEST_THREADS:
            return []
        return [f"*Scipion threads*: give {FEWEST_THREADS}, as the input is still growing: beside Scipion's own, one "
                "looks for what is new and one works."]

    def _summary(self):
        if self.isFinished() or not any(self.iterOutputAttributes()):
            return super()._summary()
        lines = self._progressSummary() if self.isRunning() else []
        return self._resultSummary() + ["The output is still growing."] + lines + self._warningSummary()

    def _runRecords(self):
        return [self._record(batch) for batch in self.getBatches()]

    # --------------------------- UTILS functions ---------------------------------------
    def _engineCommand(self, batch=BATCH.format(1)):
        return self._command(self._batchArguments(batch), self.getStagePath(batch))


class Siamese2DProtWaitingBase(Siamese2DProtBase):
    """Starts by itself when enough has arrived in inputs that still grow, and works on what is there then.

    What it took is in its tables; a resumed run goes on with these. To take what has come since, run it again. A
    subclass says what it waits for (`_awaited`): pairs of an input set and the number of items that it must hold while
    it grows.
    """

    @classmethod
    def worksInStreaming(cls):
        # Scipion starts only such protocols while their input is open.
        return True

    # --------------------------- DEFINE param functions --------------------------------
    def _defineWaitParam(self, form, name, items, default, help, condition=None):
        form.addParam(name, params.IntParam, default=default, expertLevel=EXPERT, condition=condition,
                      label=f"Wait for this many {items}",
                      help=f"While more {items} may come, the protocol waits until there are so many, and then takes "
                           f"what is there. {help} A closed input is taken as it is. When unsure keep "
                           f"{default}.")

    # --------------------------- STEPS functions ---------------------------------------
    def convertInputStep(self, inputKey):
        if GROWING in inputKey:
            os.makedirs(self.getInputPath(), exist_ok=True)
            open(self.getInputPath(GROWING), "w").close()
        while any(len(itemIds(items)) < number and growing for items, number, growing in self._waitedFor()):
            self.info("Waiting for more items.")
            time.sleep(LOOK_SECONDS)
        super().convertInputStep(inputKey)

    # --------------------------- UTILS functions ---------------------------------------
    def _waitedFor(self):
        # Whether it grows is asked before its items are counted.
        return ((items, number, mayGrow(items, self)) for items, number in self._awaited())

    def _inputKey(self):
        growing = any(isOpen(pointer.get()) for _, pointer in self.iterInputPointers())
        if growing or os.path.exists(self.getInputPath(GROWING)):
            return [GROWING] + [pointer.getUniqueId() for _, pointer in self.iterInputPointers()]
        return super()._inputKey()


def _writeJson(path, content):
    partial = f"{path}.partial"
    with open(partial, "w") as file:
        json.dump(content, file)
    os.replace(partial, path)
