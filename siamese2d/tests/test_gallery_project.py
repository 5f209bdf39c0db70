"""The gallery in a project: which viewer opens which set, and the protocol that keeps the good classes."""

import os
import sqlite3
from unittest import mock

import matplotlib

matplotlib.use("Agg")

import pyworkflow.tests as pwtests
from pwem import Domain
from pwem.objects import Particle
from pwem.protocols import ProtImportParticles
from pyworkflow.exceptions import ValidationException
from pyworkflow.viewer import MessageView

import siamese2d.protocols as protocols
import siamese2d.viewers as viewers
from siamese2d.gallery.class_list import read_class_list
from siamese2d.tests.class_sets import PIXEL_SIZE, fillClasses
from siamese2d.tests.layer import SetAssertions, setAcquisition, writeMrc
from siamese2d.viewers.viewer_gallery import GalleryView, launch_selection

SIZES, RESOLUTIONS, QUALITIES = [3, 1, 0, 2], [9.0, 20.0, None, 7.0], [0.1, 0.2, 0.3, 0.4]


class GalleryProjectTest(SetAssertions, pwtests.BaseTest):
    @classmethod
    def setUpClass(cls):
        pwtests.setupTestProject(cls)
        cls.owner = cls.classified(protocols.Siamese2DProtClassify)

    @classmethod
    def classified(cls, kind, count=8):
        """A protocol of a class with particles, classes of `SIZES` and averages."""
        protocol = cls.newProtocol(kind)
        cls.proj.saveProtocol(protocol)
        os.makedirs(protocol._getExtraPath(), exist_ok=True)
        particles = protocol._createSetOfParticles()
        particles.setSamplingRate(PIXEL_SIZE)
        setAcquisition(particles)
        stack, averages = protocol._getExtraPath("stack.mrcs"), protocol._getExtraPath("averages.mrcs")
        writeMrc(stack, [[[number] * 12] * 12 for number in range(1, count + 1)])
        for number in range(1, count + 1):
            particle = Particle(location=(number, stack), objId=10 * number)
            particle.setSamplingRate(PIXEL_SIZE)
            particles.append(particle)
        protocol._defineOutputs(outputParticles=particles)
        classes = protocol._createSetOfClasses2D(particles)
        classes.getImagesPointer().set(protocol)
        classes.getImagesPointer().setExtended("outputParticles")
        fillClasses(classes, particles, SIZES, RESOLUTIONS, QUALITIES, averages)
        images = protocol._createSetOfAverages()
        images.copyInfo(particles)
        for cls2d in classes.iterItems():
            average = cls2d.getRepresentative().clone()
            average.setObjId(cls2d.getObjId())
            images.append(average)
        protocol._defineOutputs(outputClasses=classes, outputAverages=images)
        return protocol

    def select(self, output="outputClasses", **parameters):
        """The protocol with its input and parameters, saved."""
        protocol = self.newProtocol(protocols.Siamese2DProtSelectClasses)
        protocol.inputClasses.set(self.owner)
        protocol.inputClasses.setExtended(output)
        for name, value in parameters.items():
            getattr(protocol, name).set(value)
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        return protocol

    def refused(self, *words, **parameters):
        """The form and the step refuse these parameters with the same words."""
        protocol = self.select(**parameters)
        errors = protocol.validate()
        self.assertEqual(1, len(errors), errors)
        for word in words:
            self.assertIn(word, errors[0])
        with self.assertRaisesRegex(ValidationException, words[0]):
            protocol.selectStep()


class TestSelectClasses(GalleryProjectTest):
    def testNumbers(self):
        protocol = self.select(classNumbers="1,3-4")
        self.assertEqual([], protocol.validate())
        protocol.selectStep()
        self.assertSet(protocol.outputClasses, 3)
        self.assertSet(protocol.outputParticles, 5, PIXEL_SIZE, (12, 12))
        self.assertSet(protocol.outputAverages, 3, PIXEL_SIZE, (12, 12))
        self.assertEqual([10, 20, 30, 50, 60], [item.getObjId() for item in protocol.outputParticles])

    def testEverythingIsCarriedAlong(self):
        protocol = self.select(minSize=2)
        protocol.selectStep()
        found, source = (read_class_list(owner.outputClasses.getFileName()) for owner in (protocol, self.owner))
        rows = source.rows_of([1, 4])
        self.assertEqual([1, 4], found.ids.tolist())
        for name in ("sizes", "resolutions", "qualities"):
            self.assertEqual(getattr(source, name)[rows].tolist(), getattr(found, name).tolist())
        self.assertEqual([source.pictures[row] for row in rows], found.pictures)
        self.assertEqual(self.owner.outputParticles.getFileName(), protocol.outputClasses.getImages().getFileName())
        averages = read_class_list(protocol.outputAverages.getFileName())
        self.assertEqual(([9.0, 7.0], [0.1, 0.4]), (averages.resolutions.tolist(), averages.qualities.tolist()))
        particle, original = protocol.outputClasses[4].getFirstItem(), self.owner.outputClasses[4].getFirstItem()
        self.assertEqual(original.getObjDict(), particle.getObjDict())
        kept = {item.getObjId(): item.getObjDict() for item in protocol.outputParticles}
        self.assertEqual(original.getObjDict(), kept[original.getObjId()])
        self.assertTrue(protocol.outputParticles.hasAlignment2D())
        self.assertFalse(protocol.outputAverages.hasAlignment())

    def testThresholds(self):
        for parameters, expected in (({"maxResolution": 9.0}, [1, 4]), ({"minQuality": 0.2, "minSize": 1}, [2, 4]),
                                     ({"maxResolution": 30.0, "minQuality": 0.3}, [4]),
                                     ({"minSize": 1, "classNumbers": "2-4"}, [2, 4])):
            protocol = self.select(**parameters)
            protocol.selectStep()
            self.assertEqual(expected, [item.getObjId() for item in protocol.outputClasses])

    def testAverages(self):
        protocol = self.select(output="outputAverages", classNumbers="2")
        protocol.selectStep()
        self.assertEqual(["outputAverages"], [name for name, _ in protocol.iterOutputAttributes()])
        self.assertEqual([2], [item.getObjId() for item in protocol.outputAverages])

    def testWhatIsRefused(self):
        self.refused("Give class numbers, or at least one threshold")
        self.refused("Give class numbers", classNumbers=" ")
        self.refused("No class would be kept", "at least 5 particles and a resolution of 3.0 Å", "Loosen", minSize=5,
                     maxResolution=3.0)
        self.refused("No class would be kept", "at least 2 particles", minSize=2, classNumbers="2-3")
        self.refused("'x' is neither a number", classNumbers="1,x")
        self.refused("9 is not among", "from 1 to 4", classNumbers="1,9")
        self.refused("The resolution of these classes is not known", output="outputAverages", maxResolution=9.0)

    def testDisabledClassesAreLeftOut(self):
        owner = self.classified(protocols.Siamese2DProtClassify)
        path = owner.outputClasses.getFileName()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE Objects SET enabled = 0 WHERE id = 1")
        protocol = self.select(minSize=1)
        protocol.inputClasses.set(owner)
        protocol.inputClasses.setExtended("outputClasses")
        protocol.selectStep()
        self.assertEqual([2, 4], [item.getObjId() for item in protocol.outputClasses])
        self.assertEqual(3, protocol.outputParticles.getSize())

    def testLaunchedFromTheGallery(self):
        with mock.patch.object(self.proj, "launchProtocol") as launched:
            protocol = launch_selection(self.proj, None, self.owner.outputClasses, [4, 1], "the good ones")
        self.assertIs(protocol, launched.call_args.args[0])
        self.assertEqual(("1,4", "the good ones", "outputClasses", self.owner.getObjId()),
                         (protocol.classNumbers.get(), protocol.getObjLabel(), protocol.inputClasses.getExtended(),
                          protocol.inputClasses.getObjValue().getObjId()))
        self.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        stored = self.proj.getProtocol(protocol.getObjId())
        self.assertEqual(["2 of 4 classes kept, with 5 of 6 particles."], stored.summary())
        self.assertEqual(5, stored.outputParticles.getSize())


class TestGalleryViewers(GalleryProjectTest):
    def testOwnOutputsOpenInTheGallery(self):
        for output in (self.owner.outputClasses, self.owner.outputAverages):
            found = Domain.findViewers(output, "tkinter")
            self.assertEqual(viewers.AClassGalleryViewer, found[0])
            self.assertNotIn(viewers.Siamese2DGalleryViewer, found)

    def testOutputsOfOthersHaveTheGalleryInTheirList(self):
        other = self.classified(ProtImportParticles)
        for output in (other.outputClasses, other.outputAverages):
            found = Domain.findViewers(output, "tkinter")
            self.assertIn(viewers.Siamese2DGalleryViewer, found)
            self.assertNotIn(viewers.AClassGalleryViewer, found)
        self.assertNotIn(viewers.Siamese2DGalleryViewer, Domain.findViewers(other.outputParticles, "tkinter"))

    def testAnalyzeResultsOfASelection(self):
        protocol = self.select(minSize=2)
        viewer_class, = Domain.findViewers(protocol, "tkinter")
        self.assertEqual(viewers.Siamese2DSelectClassesViewer, viewer_class)
        view, = viewer_class(project=self.proj)._visualize(protocol)
        self.assertIn("Nothing has been kept yet", view.getMessage())
        protocol.selectStep()
        view, = viewer_class(project=self.proj)._visualize(protocol)
        self.assertIsInstance(view, GalleryView)

    def testSetWhoseFileIsGone(self):
        owner = self.classified(ProtImportParticles)
        os.remove(owner.outputClasses.getFileName())
        view, = viewers.Siamese2DGalleryViewer(project=self.proj)._visualize(owner.outputClasses)
        self.assertIsInstance(view, MessageView)
        self.assertIn("is missing", view.getMessage())

    def testClassifyViewerOpensTheGallery(self):
        viewer = viewers.Siamese2DClassifyViewer(project=self.proj, protocol=self.owner)
        viewer.setProtocol(self.owner)
        view, = viewer._getVisualizeDict()["showGallery"]("showGallery")
        self.assertIsInstance(view, GalleryView)
        self.assertIn("outputClasses", view._title())


if __name__ == "__main__":
    import unittest
    unittest.main()
