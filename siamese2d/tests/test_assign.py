"""New particles into existing classes, through Scipion's own machinery."""

import os

import mrcfile
import numpy as np
from pwem.objects import Particle, SetOfAverages, SetOfClasses2D
from pwem.protocols import ProtImportMicrographs
from pyworkflow.object import Pointer

from siamese2d.constants import ATTR_CONFIDENCE, ATTR_FIT, ATTR_REASON
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtImportCoordinates)
from siamese2d.tests.layer import ChainTest, FolderTest, SetAssertions, writeMrc
from siamese2d.tests.warps import correlation, warpByMatrix

PIXEL, SIZE, MICROGRAPHS, DIAMETER, CLASSES = 8.0, 384, 6, 180.0, 3


class TestAssign(ChainTest, SetAssertions):
    settings = dict(micrographs=MICROGRAPHS, size=SIZE, pixel_size=PIXEL, diameter=DIAMETER,
                    particles_per_micrograph=40, labels=10, species=1, snr=1.0)

    def _run_micrographs(self):
        return self.run_(ProtImportMicrographs, filesPath=os.path.join(self.simulation, "micrographs"),
                         filesPattern="*.mrc", samplingRate=PIXEL)

    def _run_coordinates(self):
        return self.run_(Siamese2DProtImportCoordinates, diameter=DIAMETER,
                         inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         coordinatesFile=os.path.join(self.simulation, "truth.star"))

    def _run_extract(self):
        return self.run_(Siamese2DProtExtract, inputCoordinates=(self.stage("coordinates"), "outputCoordinates"))

    def _run_smaller(self):
        return self.run_(Siamese2DProtExtract, inputCoordinates=(self.stage("coordinates"), "outputCoordinates"),
                         downsample=1.5)

    def _run_classify(self):
        return self.run_(Siamese2DProtClassify, inputParticles=(self.stage("extract"), "outputParticles"),
                         numberOfClasses=CLASSES, numberOfThreads=2)

    def _run_assign(self):
        return self.run_(Siamese2DProtAssign, inputParticles=(self.stage("extract"), "outputParticles"),
                         inputClasses=(self.stage("classify"), "outputClasses"))

    def _run_assignSmaller(self):
        return self.run_(Siamese2DProtAssign, inputParticles=(self.stage("smaller"), "outputParticles"),
                         inputClasses=(self.stage("classify"), "outputAverages"), newAverages=True)

    def classOf(self, name):
        """Class number by particle, over all classes of a stage's output."""
        return {particle.getObjId(): cls.getObjId()
                for cls in self.stage(name).outputClasses.iterItems() for particle in cls}

    def testOutputs(self):
        protocol = self.stage("assign")
        particles = self.stage("extract").outputParticles
        self.assertSet(protocol.outputClasses, pixelSize=None)
        found = self.classOf("assign")
        apart = [particle.clone() for particle in getattr(protocol, "outputSetApart", ())]
        self.assertEqual(set(found) | {particle.getObjId() for particle in apart},
                         {particle.getObjId() for particle in particles})
        self.assertTrue(all(getattr(particle, ATTR_REASON).get() for particle in apart))
        self.assertLess(len(apart), 0.1 * len(particles))
        for cls in protocol.outputClasses.iterItems():
            self.assertTrue(cls.hasAlignment2D())
            for particle in cls:
                self.assertTrue(0 <= getattr(particle, ATTR_CONFIDENCE).get() <= 1)
                self.assertTrue(np.isfinite(getattr(particle, ATTR_FIT).get()))

    def testRepresentativesAreTheGivenAverages(self):
        given = {average.getObjId(): readAverage(average) for average in self.stage("classify").outputAverages}
        for cls in self.stage("assign").outputClasses.iterItems():
            np.testing.assert_allclose(readAverage(cls.getRepresentative()), given[cls.getObjId()], rtol=1e-5,
                                       atol=1e-6)

    def testSameParticlesGetTheirClassAgain(self):
        before, after = self.classOf("classify"), self.classOf("assign")
        same = [before[item] == after[item] for item in set(before) & set(after)]
        self.assertGreater(np.mean(same), 0.9)

    def testSmallerParticlesGetTheClassToo(self):
        before, after = self.classOf("classify"), self.classOf("assignSmaller")
        same = [before[item] == after[item] for item in set(before) & set(after)]
        self.assertGreater(np.mean(same), 0.85)

    def testTransformsMoveMembersOntoTheAverage(self):
        """By Scipion's matrix; with a wrong sign the mean of the members would not look like the average."""
        for name in ("assign", "assignSmaller"):
            for cls in self.stage(name).outputClasses.iterItems():
                moved = [warpByMatrix(readAverage(particle), particle.getTransform().getMatrix()) for particle in cls]
                if len(moved) >= 10:
                    average = readAverage(cls.getRepresentative())
                    self.assertGreater(correlation(np.mean(moved, axis=0), average), 0.8, name)

    def testTexts(self):
        protocol = self.stage("assign")
        self.assertIn("classes", protocol.summary()[0])
        self.assertTrue(protocol.methods())
        self.assertTrue(protocol.citations())
        self.assertIn("resampled", " ".join(self.stage("assignSmaller").warnings()))


class TestAssignForm(FolderTest):
    def averages(self, box=16, pixelSize=3.0):
        averages = SetOfAverages(filename=f"averages{box}.sqlite")
        averages.setSamplingRate(pixelSize)
        writeMrc(f"averages{box}.mrcs", np.random.default_rng(0).normal(size=(2, box, box)))
        for index in (1, 2):
            average = Particle()
            average.setLocation(index, f"averages{box}.mrcs")
            average.setSamplingRate(pixelSize)
            averages.append(average)
        averages.write()
        return averages

    def make(self, **parameters):
        protocol = Siamese2DProtAssign()
        protocol.useGpu.set(False)
        for name, value in parameters.items():
            getattr(protocol, name).set(value)
        return protocol

    def testGood(self):
        protocol = self.make(inputParticles=self.makeParticles(), inputClasses=self.averages())
        self.assertEqual(protocol._validateInputs(), [])
        self.assertEqual(protocol.warnings(), [])

    def testOtherScaleIsToldBefore(self):
        protocol = self.make(inputParticles=self.makeParticles(), inputClasses=self.averages(box=20))
        self.assertIn("resampled", " ".join(protocol.warnings()))

    def testClassesWithoutAverages(self):
        particles = self.makeParticles()
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        classes.classifyItems(updateItemCallback=lambda particle, _: particle.setClassId(1))
        classes.write()
        errors = self.make(inputParticles=particles, inputClasses=classes)._validateInputs()
        self.assertEqual(len(errors), 1)
        self.assertIn("no averages", errors[0])

    def testMaskLargerThanTheBox(self):
        protocol = self.make(inputParticles=self.makeParticles(), inputClasses=self.averages(), maskDiameter=100)
        self.assertIn("Mask diameter", protocol._validateInputs()[0])


def readAverage(image):
    index, path = image.getLocation()
    with mrcfile.open(path, permissive=True) as mrc:
        return np.array(mrc.data if mrc.data.ndim == 2 else mrc.data[index - 1], dtype=float)
