"""The summary while the engine runs: how far it is, from the small file that it keeps in its folder."""

import json
import os
import time

from pyworkflow.protocol import STATUS_FAILED, STATUS_RUNNING

from siamese2d.protocols import Siamese2DProtClassify
from siamese2d.tests.layer import FolderTest

PASSES, PARTICLES = "3/15 passes (20 %), 12 min left", "400/1000 particles (40 %), 2 s left, 300 particles/s"
NOT_READY = ["The output is not ready yet."]


class TestSummary(FolderTest):
    def protocol(self, status=STATUS_RUNNING):
        protocol = Siamese2DProtClassify()
        protocol.workingDir.set("run")
        protocol.setStatus(status)
        return protocol

    def write(self, work, *folder, age=0):
        folder = self.protocol().getStagePath(*folder)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "progress.json")
        with open(path, "w") as report:
            json.dump({"work": work}, report)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def testEveryLevelIsShown(self):
        self.write([{"label": "classify", "text": PASSES}, {"label": "align", "text": PARTICLES}])
        self.assertEqual(self.protocol().summary(), [f"classify: {PASSES}", f"align: {PARTICLES}"])

    def testTheNewestBatch(self):
        self.write([{"label": "pick", "text": "old"}], "batch_0001", age=30)
        self.write([{"label": "pick", "text": "new"}], "batch_0002")
        self.assertEqual(self.protocol().summary(), ["pick: new"])

    def testOldProgressSaysSo(self):
        self.write([{"label": "classify", "text": PASSES}], age=600)
        self.assertEqual(self.protocol().summary(), [f"classify: {PASSES}", "(This was 10 minutes ago.)"])

    def testNothingToShow(self):
        self.assertEqual(self.protocol().summary(), NOT_READY)
        self.write([])
        self.assertEqual(self.protocol().summary(), NOT_READY)

    def testHalfAFileIsNoTraceback(self):
        path = self.write([])
        with open(path, "w") as report:
            report.write('{"work": [')
        self.assertEqual(self.protocol().summary(), NOT_READY)

    def testWhatAKilledRunLeftIsNotShown(self):
        self.write([{"label": "classify", "text": PASSES}])
        self.assertEqual(self.protocol(STATUS_FAILED).summary(), NOT_READY)
