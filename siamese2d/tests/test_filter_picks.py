"""Other limits for the scores of picks, as a new output without picking again."""

import os
from unittest import mock

import pyworkflow.object as pwobj
import pyworkflow.tests as pwtests
from pwem.objects import Coordinate, Micrograph
from pwem.protocols import ProtImportCoordinates
from pyworkflow.exceptions import ValidationException

import siamese2d.protocols as protocols
from siamese2d.constants import ATTR_SCORE
from siamese2d.star import writeTables
from siamese2d.tests.layer import SetAssertions
from siamese2d.viewers.viewer_pick import launch_filter

SCORES = [0.9, 0.6, 0.3, 0.8, 0.1]
THRESHOLD, BOX_SIZE = 0.5, 24


class TestFilterPicks(SetAssertions, pwtests.BaseTest):
    @classmethod
    def setUpClass(cls):
        pwtests.setupTestProject(cls)
        source = cls.newProtocol(protocols.Siamese2DProtNormalize)
        cls.proj.saveProtocol(source)
        os.makedirs(source._getExtraPath(), exist_ok=True)
        micrographs = source._createSetOfMicrographs()
        micrographs.setSamplingRate(2.0)
        for number in (5, 6):
            micrograph = Micrograph(source._getExtraPath(f"mic{number}.mrc"))
            micrograph.setObjId(number)
            micrograph.setMicName(f"mic{number}")
            micrographs.append(micrograph)
        source._defineOutputs(outputMicrographs=micrographs)
        cls.source = source

    def picked(self, kind=protocols.Siamese2DProtPick, batches=("",), score=ATTR_SCORE):
        """A run with candidates of `SCORES`, alternately on both micrographs; those above the threshold come out."""
        protocol = self.newProtocol(kind)
        protocol.inputMicrographs.set(self.source)
        protocol.inputMicrographs.setExtended("outputMicrographs")
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        micrographs = [micrograph.clone() for micrograph in self.source.outputMicrographs]
        output = protocol._createSetOfCoordinates(protocol.inputMicrographs)
        output.setBoxSize(BOX_SIZE)
        rows = []
        for number, value in enumerate(SCORES):
            micrograph = micrographs[number % 2]
            rows.append({"rlnMicrographName": micrograph.getFileName(), "rlnCoordinateX": 10.5 + number,
                         "rlnCoordinateY": 20.0, "rlnAutopickFigureOfMerit": value})
            if value >= THRESHOLD:
                coordinate = Coordinate(x=10 + number, y=20)
                coordinate.setMicrograph(micrograph)
                setattr(coordinate, score, pwobj.Float(value))
                output.append(coordinate)
        protocol._defineOutputs(outputCoordinates=output)
        if hasattr(protocol, "getStagePath"):
            for number, batch in enumerate(batches):
                os.makedirs(protocol.getStagePath(batch), exist_ok=True)
                os.makedirs(protocol.getInputPath(batch), exist_ok=True)
                mine = range(len(micrographs)) if len(batches) == 1 else [number]
                writeTables(protocol.getStagePath(batch, "candidates.star"), {"coordinates": [
                    row for k, row in enumerate(rows) if k % 2 in mine]})
                writeTables(protocol.getInputPath(batch, "micrographs.star"), {"micrographs": [
                    {"rlnMicrographName": micrographs[k].getFileName(), "siamese2dItemId": micrographs[k].getObjId()}
                    for k in mine]})
        return protocol

    def filter(self, run, **limits):
        protocol = self.newProtocol(protocols.Siamese2DProtFilterPicks)
        protocol.inputCoordinates.set(run)
        protocol.inputCoordinates.setExtended("outputCoordinates")
        for name, value in limits.items():
            getattr(protocol, name).set(value)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        return protocol

    def scores(self, protocol):
        protocol.filterStep()
        return [round(item.getAttributeValue(ATTR_SCORE), 6) for item in protocol.outputCoordinates]

    def testLowerThresholdThanThatOfTheRun(self):
        for kind in (protocols.Siamese2DProtPick, protocols.Siamese2DProtPickUnlabeled):
            protocol = self.filter(self.picked(kind), minScore=0.2)
            self.assertEqual([], protocol.validate())
            self.assertEqual([0.9, 0.6, 0.3, 0.8], self.scores(protocol))
        self.assertEqual(BOX_SIZE, protocol.outputCoordinates.getBoxSize())
        self.assertEqual([5, 6, 5, 6], [item.getMicId() for item in protocol.outputCoordinates])
        self.assertEqual(self.source.outputMicrographs.getFileName(),
                         protocol.outputCoordinates.getMicrographs().getFileName())

    def testUpperLimit(self):
        run = self.picked()
        self.assertEqual([0.6, 0.3], self.scores(self.filter(run, minScore=0.3, maxScore=0.6)))
        self.assertEqual([0.1], self.scores(self.filter(run, maxScore=0.2)))

    def testRunThatPickedInBatches(self):
        self.assertEqual([0.3, 0.6, 0.8, 0.9], sorted(self.scores(self.filter(
            self.picked(batches=("batch_1", "batch_2")), minScore=0.2))))

    def testPicksOfOtherProgramsHaveTheirScores(self):
        protocol = self.filter(self.picked(ProtImportCoordinates, score="_topazScore"), minScore=0.7)
        self.assertEqual([], protocol.validate())
        protocol.filterStep()
        self.assertSet(protocol.outputCoordinates, 2)
        self.assertEqual([0.9, 0.8], [item.getAttributeValue("_topazScore") for item in protocol.outputCoordinates])

    def testWhatIsRefused(self):
        run = self.picked()
        for limits, said in (({}, "Give the lowest score, or the highest"),
                             ({"minScore": 0.6, "maxScore": 0.5}, "is above")):
            error, = self.filter(run, **limits).validate()
            self.assertIn(said, error)
        error, = self.filter(self.picked(ProtImportCoordinates, score="_other"), minScore=0.5).validate()
        self.assertIn("have no score", error)
        protocol = self.filter(run, minScore=0.95)
        with self.assertRaisesRegex(ValidationException, "No pick has a score of 0.95 or more"):
            protocol.filterStep()
        self.assertFalse(protocol.hasAttribute("outputCoordinates"))

    def testLaunchedFromTheWindow(self):
        run = self.picked()
        with mock.patch.object(self.proj, "launchProtocol") as launched:
            protocol = launch_filter(self.proj, None, run.outputCoordinates, (0.25, None), "more picks")
        self.assertIs(protocol, launched.call_args.args[0])
        self.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        stored = self.proj.getProtocol(protocol.getObjId())
        self.assertEqual("more picks", stored.getObjLabel())
        self.assertEqual(["4 particles with a score of 0.25 or more; the input has 3."], stored.summary())
        self.assertSet(stored.outputCoordinates, 4)


if __name__ == "__main__":
    import unittest
    unittest.main()
