"""The loop without a mark by hand: picks, classes, a selection of them, a picker trained on it."""

import os

import numpy as np
from pwem.protocols import ProtClassesSelector, ProtImportMicrographs

from siamese2d.convert import exactPosition
from siamese2d.protocols import (Siamese2DProtClassify, Siamese2DProtExtract, Siamese2DProtPick,
                                 Siamese2DProtPickUnlabeled, Siamese2DProtTrainPicker)
from siamese2d.protocols.protocol_train_picker import NETWORKS
from siamese2d.star import readTable
from siamese2d.tests.layer import ChainTest, SetAssertions

PIXEL, SIZE, MICROGRAPHS, DIAMETER, CLASSES, SELECTED = 8.0, 384, 3, 180.0, 4, 2


class TestLoop(ChainTest, SetAssertions):
    settings = dict(micrographs=MICROGRAPHS, size=SIZE, pixel_size=PIXEL, diameter=DIAMETER,
                    particles_per_micrograph=40, labels=10, species=1, snr=0.5)

    def _run_micrographs(self):
        return self.run_(ProtImportMicrographs, filesPath=os.path.join(self.simulation, "micrographs"),
                         filesPattern="*.mrc", samplingRate=PIXEL)

    def _run_blobs(self):
        return self.run_(Siamese2DProtPickUnlabeled, diameter=DIAMETER,
                         inputMicrographs=(self.stage("micrographs"), "outputMicrographs"))

    def _run_extract(self):
        return self.run_(Siamese2DProtExtract, inputCoordinates=(self.stage("blobs"), "outputCoordinates"),
                         downsample=1.5)

    def _run_classify(self):
        return self.run_(Siamese2DProtClassify, inputParticles=(self.stage("extract"), "outputParticles"),
                         numberOfClasses=CLASSES, numberOfThreads=2)

    def _run_select(self):
        """What a user does by eye: the particles of some of the classes."""
        return self.run_(ProtClassesSelector, inputClasses=(self.stage("classify"), "outputClasses"),
                         firstNElements=SELECTED)

    def _run_trainPicker(self):
        return self.run_(Siamese2DProtTrainPicker, inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         inputCoordinates=(self.stage("select"), "output"), numberOfThreads=2, epochs=4,
                         network=NETWORKS.index("small"))

    def _run_pick(self):
        return self.run_(Siamese2DProtPick, inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         inputPicker=(self.stage("trainPicker"), "outputPicker"))

    def _run_templates(self):
        return self.run_(Siamese2DProtPickUnlabeled, diameter=DIAMETER,
                         inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         inputTemplates=(self.stage("classify"), "outputAverages"))

    def shareOnParticles(self, coordinates):
        """Share of coordinates that lie on a particle of the truth, and share of the particles that they lie on."""
        truth = {}
        for row in readTable(os.path.join(self.simulation, "truth.star")):
            position = [float(row["rlnCoordinateX"]), float(row["rlnCoordinateY"])]
            truth.setdefault(os.path.basename(row["rlnMicrographName"]), []).append(position)
        hits, found = [], set()
        for coordinate in coordinates:
            distances = np.hypot(*(np.array(truth[coordinate.getMicName()]) - exactPosition(coordinate)).T)
            hits.append(distances.min() * PIXEL < 0.4 * DIAMETER)
            found.add((coordinate.getMicName(), int(distances.argmin())) if hits[-1] else None)
        return np.mean(hits), len(found - {None}) / sum(map(len, truth.values()))

    def testBlobsAreParticles(self):
        output = self.stage("blobs").outputCoordinates
        self.assertSet(output)
        self.assertEqual(output.getBoxSize(), round(DIAMETER / PIXEL))
        precision, recall = self.shareOnParticles(output)
        self.assertGreater(precision, 0.7)
        self.assertGreater(recall, 0.5)

    def testTemplatesAreParticles(self):
        precision, recall = self.shareOnParticles(self.stage("templates").outputCoordinates)
        self.assertGreater(precision, 0.7)
        self.assertGreater(recall, 0.5)

    def testLabelsAreWhereTheSelectedParticlesWerePicked(self):
        """Through extraction with another pixel size, classification and selection, positions come back the same."""
        selected = {particle.getObjId() for particle in self.stage("select").output}
        self.assertLess(len(selected), self.stage("extract").outputParticles.getSize())
        picked = {coordinate.getObjId(): (coordinate.getMicName(), *exactPosition(coordinate))
                  for coordinate in self.stage("blobs").outputCoordinates}
        rows = list(readTable(self.stage("trainPicker").getInputPath("coordinates.star")))
        self.assertEqual({int(row["siamese2dItemId"]) for row in rows}, selected)
        files = {mic.getFileName(): mic.getMicName() for mic in self.stage("micrographs").outputMicrographs}
        for row in rows:
            name, x, y = picked[int(row["siamese2dItemId"])]
            self.assertEqual(files[row["rlnMicrographName"]], name)
            self.assertAlmostEqual(float(row["rlnCoordinateX"]), x, places=3)
            self.assertAlmostEqual(float(row["rlnCoordinateY"]), y, places=3)

    def testDiameterOfThePickerIsThatOfThePicks(self):
        self.assertAlmostEqual(self.stage("trainPicker").outputPicker.getDiameter(), DIAMETER, delta=PIXEL)

    def testPickerOfTheSelectionPicks(self):
        self.assertGreater(self.shareOnParticles(self.stage("pick").outputCoordinates)[0], 0.5)

    def testClassesAreLabelsToo(self):
        """The same positions from the classes themselves, without running the engine."""
        protocol = self.prepare(Siamese2DProtTrainPicker,
                                inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                                inputCoordinates=(self.stage("classify"), "outputClasses"))
        self.assertEqual(protocol.validate(), [])
        self.project.saveProtocol(protocol)
        protocol.makePathsAndClean()
        protocol.convertInputStep("")
        rows = list(readTable(protocol.getInputPath("coordinates.star")))
        members = {particle.getObjId() for cls in self.stage("classify").outputClasses.iterItems() for particle in cls}
        self.assertEqual({int(row["siamese2dItemId"]) for row in rows}, members)

    def testTextsOfFinishedProtocols(self):
        for name in ("blobs", "templates"):
            protocol = self.stage(name)
            self.assertIn("particles in 3 micrographs", protocol.summary()[0])
            self.assertTrue(protocol.methods())
            self.assertTrue(protocol.citations())
