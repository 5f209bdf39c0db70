"""Protocols that work while their inputs grow: a running chain that is fed, killed and continued, and its parts."""

import glob
import json
import os
import shutil
import sqlite3
import threading
import time
from unittest import mock

import mrcfile
import numpy as np
import psutil
import pyworkflow

from pwem.objects import Particle, SetOfAverages, SetOfClasses2D, SetOfCoordinates, SetOfMicrographs, SetOfParticles
from pwem.protocols import ProtImportMicrographs
from pyworkflow.exceptions import ValidationException
from pyworkflow.object import Pointer, Set
from pyworkflow.protocol import MODE_RESUME

from siamese2d import convert
from siamese2d.constants import ATTR_CLASS_SIZE, ATTR_SCORE
from siamese2d.convert import exactPosition
from siamese2d.labels import Labels
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtImportCoordinates, Siamese2DProtNormalize, Siamese2DProtPick,
                                 Siamese2DProtPickUnlabeled, Siamese2DProtTrainEmbedding, Siamese2DProtTrainPicker,
                                 protocol_streaming_base)
from siamese2d.protocols.protocol_extract import EDGES
from siamese2d.protocols.protocol_streaming_base import FEWEST_THREADS, GROWING, PUBLISHED
from siamese2d.protocols.protocol_train_embedding import TRIPLET
from siamese2d.protocols.protocol_train_picker import NETWORKS
from siamese2d.star import readTable, writeTables
from siamese2d.streams import Subset, isGrowing, itemIds
from siamese2d.tests.class_sets import ClassSets
from siamese2d.tests.layer import ChainTest, FolderTest, SetAssertions, writeMrc
from siamese2d.tests.test_resume import waitForEnd
from siamese2d.viewers.class_files import count_unassigned, read_classes, read_particle_classes
from siamese2d.viewers.run_files import RunFolder

PIXEL, SIZE, MICROGRAPHS, DIAMETER, BOX = 8.0, 320, 8, 180.0, 34
# Whatever may be a particle, wherever it lies: assign begins with 500.
PICKING, EXTRACTION = {"threshold": 0.0}, {"boxSize": BOX, "edge": EDGES.index("pad")}
PATIENCE = 180


class TestChain(ChainTest, SetAssertions):
    """Micrographs arrive in three bunches, the last with a damaged one; one protocol is killed, two are stopped."""

    settings = dict(micrographs=MICROGRAPHS, size=SIZE, pixel_size=PIXEL, diameter=DIAMETER, labels=30, species=1,
                    particles_per_micrograph=25, snr=1.0)

    # --------------------------- what the stream starts from ---------------------------
    def _run_micrographs(self):
        folder = os.path.join(self.simulation, "micrographs")
        damaged = os.path.join(folder, "simulated_009.mrc")
        shutil.copy(os.path.join(folder, "simulated_008.mrc"), damaged)
        protocol = self.run_(ProtImportMicrographs, filesPath=folder, filesPattern="*.mrc", samplingRate=PIXEL)
        os.truncate(protocol.outputMicrographs[9].getFileName(), 4096)
        return protocol

    def _run_labels(self):
        return self.run_(Siamese2DProtImportCoordinates, diameter=DIAMETER,
                         inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         coordinatesFile=os.path.join(self.simulation, "training_coordinates.star"))

    def _run_picker(self):
        return self.run_(Siamese2DProtTrainPicker, inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         inputCoordinates=(self.stage("labels"), "outputCoordinates"), numberOfThreads=2, epochs=1,
                         network=NETWORKS.index("small"))

    def _run_averages(self):
        """Something that looks like a particle, and something that does not."""
        protocol = self.stage("picker")
        x, y = np.meshgrid(*[(np.arange(BOX) - BOX // 2) * PIXEL] * 2)
        disc = np.hypot(x, y) < 0.4 * DIAMETER
        writeMrc("averages.mrcs", [disc, disc * np.sin(x / 8)], PIXEL)
        averages = SetOfAverages(filename=protocol._getPath("averages.sqlite"))
        averages.setSamplingRate(PIXEL)
        for index in (1, 2):
            average = Particle()
            average.setLocation(index, "averages.mrcs")
            average.setSamplingRate(PIXEL)
            averages.append(average)
        self.addOutput(protocol, outputAverages=averages)
        return protocol

    # --------------------------- the stream --------------------------------------------
    def _run_stream(self):
        """Returns the last protocol of the chain; all of them are kept in `chain`."""
        chain = type(self).chain = {}
        self.stage("averages")
        self.feed(1, 2, 3, 4, 5)
        chain["normalize"] = self.start(Siamese2DProtNormalize, smallestBatch=2,
                                        inputMicrographs=(self.stage("micrographs"), "outputGrowing"))
        chain["pick"] = self.start(Siamese2DProtPick, inputMicrographs=(chain["normalize"], "outputMicrographs"),
                                   inputPicker=(self.stage("picker"), "outputPicker"), **PICKING)
        chain["extract"] = self.start(Siamese2DProtExtract, inputCoordinates=(chain["pick"], "outputCoordinates"),
                                      **EXTRACTION)
        chain["assign"] = self.start(Siamese2DProtAssign, inputParticles=(chain["extract"], "outputParticles"),
                                     inputClasses=(self.stage("averages"), "outputAverages"), smallestBatch=1)
        type(self).early = {name: (protocol.getStatus(), [items.isStreamOpen() for _, items in outputsOf(protocol)])
                            for name, protocol in chain.items()}
        self.killAll(chain["extract"])
        for name in ("pick", "assign"):
            self.project.stopProtocol(chain[name])
        self.feed(6, 7)
        # At once: those that follow find the outputs before them still closed.
        for name in ("pick", "extract", "assign"):
            self.resume(chain[name])
        self.waitForBatches(chain["extract"], 2)
        self.feed(8, 9, last=True)
        waitForEnd(self.project)
        for protocol in chain.values():
            self.project._updateProtocol(protocol)
            self.assertFinished(protocol)
        return chain["assign"]

    def feed(self, *numbers, last=False, output="outputGrowing"):
        """Let micrographs arrive; the set is closed with the last ones."""
        imported = self.stage("micrographs")
        path = imported._getPath(f"{output}.sqlite")
        growing = SetOfMicrographs(filename=path)
        growing.copyInfo(imported.outputMicrographs)
        growing.enableAppend()
        for number in numbers:
            growing.append(imported.outputMicrographs[number].clone())
        growing.setStreamState(Set.STREAM_CLOSED if last else Set.STREAM_OPEN)
        growing.write()
        growing.close()
        if not imported.hasAttribute(output):
            self.addOutput(imported, **{output: growing})

    def addOutput(self, protocol, **outputs):
        protocol._defineOutputs(**outputs)
        protocol._store()
        self.project._storeProtocol(protocol)

    def start(self, protocolClass, **parameters):
        """Launch a protocol with the fewest threads that a stream needs, and wait for its first batch."""
        protocol = self.prepare(protocolClass, numberOfThreads=FEWEST_THREADS, streamingSleepOnWait=1, **parameters)
        self.project.launchProtocol(protocol, wait=False)
        self.waitForBatches(protocol, 1)
        self.project._updateProtocol(protocol)
        return protocol

    def resume(self, protocol, wait=False):
        protocol.runMode.set(MODE_RESUME)
        self.project.launchProtocol(protocol, wait=wait)

    def killAll(self, protocol):
        """Kill the processes of a protocol without a chance to clean up."""
        for process in psutil.process_iter(["cmdline"]):
            if any(protocol.getDbPath() in part for part in process.info["cmdline"] or []):
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()

    def waitForBatches(self, protocol, number):
        """Wait until so many batches are in the outputs."""
        end = time.monotonic() + PATIENCE
        while len(glob.glob(protocol.getInputPath("*", PUBLISHED))) < number:
            self.assertLess(time.monotonic(), end, f"{protocol.getClassName()}: waited in vain for batch {number}")
            time.sleep(0.2)

    # --------------------------- an input that is made anew ----------------------------
    def testInputMadeAnewIsNoticed(self):
        """Items of two sets are never mixed: the protocol says what happened, and begins anew when it is continued."""
        self.feed(1, 2, output="outputAgain")
        protocol = self.start(Siamese2DProtNormalize, smallestBatch=1,
                              inputMicrographs=(self.stage("micrographs"), "outputAgain"))
        os.remove(protocol.inputMicrographs.get().getFileName())
        # Scipion notes whole seconds.
        time.sleep(1.1)
        self.feed(3, output="outputAgain")
        waitForEnd(self.project)
        self.project._updateProtocol(protocol)
        self.assertTrue(protocol.isFailed())
        self.assertIn("outputAgain.sqlite: made anew", protocol.getErrorMessage())
        self.assertEqual([mic.getObjId() for mic in protocol.outputMicrographs], [1, 2])
        protocol.outputMicrographs.close()
        self.feed(4, last=True, output="outputAgain")
        self.resume(protocol, wait=True)
        self.project._updateProtocol(protocol)
        self.assertFinished(protocol)
        self.assertSet(protocol.outputMicrographs, size=2)
        self.assertEqual([mic.getObjId() for mic in protocol.outputMicrographs], [3, 4])

    # --------------------------- while it ran ------------------------------------------
    def testOutputsGrowWhileTheProtocolsRun(self):
        self.stage("stream")
        for name, (status, isOpen) in self.early.items():
            self.assertEqual(status, "running", name)
            self.assertTrue(isOpen and all(isOpen), name)
        for name, protocol in self.chain.items():
            self.assertGreaterEqual(len(protocol.getBatches()), 3, name)

    # --------------------------- what came out -----------------------------------------
    def testAllAreThereOnce(self):
        """Nothing is lost and nothing is twice, with a kill and a stop in mid-stream; all sets are closed."""
        self.stage("stream")
        micrographs = self.chain["normalize"].outputMicrographs
        self.assertSet(micrographs, size=MICROGRAPHS, pixelSize=PIXEL)
        self.assertEqual([mic.getObjId() for mic in micrographs], list(range(1, MICROGRAPHS + 1)))
        coordinates, particles = self.chain["pick"].outputCoordinates, self.chain["extract"].outputParticles
        self.assertSet(coordinates)
        self.assertSet(particles, pixelSize=PIXEL, dimensions=(BOX, BOX))
        assigned = [particle.getObjId() for cls in self.chain["assign"].outputClasses.iterItems() for particle in cls]
        apart = [particle.getObjId() for particle in getattr(self.chain["assign"], "outputSetApart", ())]
        self.assertEqual(sorted(assigned + apart), [particle.getObjId() for particle in particles])
        for _, items in outputsOf(self.chain["assign"]):
            self.assertSet(items)

    def testDamagedMicrographIsReportedAndLeftOut(self):
        self.stage("stream")
        summary = " ".join(self.chain["normalize"].summary())
        self.assertIn(f"{MICROGRAPHS} micrographs normalized", summary)
        self.assertIn("1 micrographs failed", summary)
        self.assertIn("simulated_009", summary)
        for protocol in self.chain.values():
            self.assertNotIn("not ready", " ".join(protocol.summary()))
            self.assertNotIn("growing", " ".join(protocol.summary()))

    def testOneGreyScale(self):
        """The mixture of the first bunch is that of all."""
        self.stage("stream")
        protocol = self.chain["normalize"]
        folders = [RunFolder(protocol.getStagePath(batch)) for batch in protocol.getBatches()]
        shared = [folder.read_json("normalization.json")["shared"] for folder in folders]
        self.assertTrue(shared[0]["mu"])
        self.assertTrue(all(found == shared[0] for found in shared))

    def testPicksAreThoseOfTheClosedSet(self):
        """And continued with another threshold, micrographs are not scored again, but all picks are replaced."""
        self.stage("stream")
        whole = self.run_(Siamese2DProtPick, inputMicrographs=(self.chain["normalize"], "outputMicrographs"),
                          inputPicker=(self.stage("picker"), "outputPicker"), **PICKING)
        self.assertFinished(whole)
        self.assertEqual(len(whole.getBatches()), 1)
        self.assertEqual(self.picksOf(whole), self.picksOf(self.chain["pick"]))
        self.assertEqual(whole.summary()[0], self.chain["pick"].summary()[0])
        scored = {path: os.stat(path).st_mtime_ns for path in glob.glob(whole.getStagePath("*", "candidates", "*"))}
        self.assertEqual(len(scored), MICROGRAPHS)
        picks = self.picksOf(whole)
        whole.threshold.set(np.median([pick[-1] for pick in picks]))
        self.resume(whole, wait=True)
        self.project._updateProtocol(whole)
        self.assertFinished(whole)
        self.assertEqual(self.picksOf(whole), [pick for pick in picks if pick[-1] >= whole.threshold.get()])
        self.assertEqual({path: os.stat(path).st_mtime_ns for path in scored}, scored)

    def picksOf(self, protocol):
        picks = SetOfCoordinates(filename=protocol._getPath("coordinates.sqlite"))
        return sorted((item.getMicName(), *exactPosition(item), getattr(item, ATTR_SCORE).get()) for item in picks)

    def testParticlesAreThoseOfTheClosedSet(self):
        self.stage("stream")
        whole = self.run_(Siamese2DProtExtract, inputCoordinates=(self.chain["pick"], "outputCoordinates"),
                          **EXTRACTION)
        self.assertFinished(whole)
        self.assertEqual(len(whole.getBatches()), 1)
        self.assertEqual([self.describe(particle) for particle in whole.outputParticles],
                         [self.describe(particle) for particle in self.chain["extract"].outputParticles])
        for one, other in zip(whole.outputParticles, self.chain["extract"].outputParticles):
            np.testing.assert_array_equal(readImage(one), readImage(other))

    def describe(self, particle):
        return particle.getObjId(), particle.getMicId(), exactPosition(particle.getCoordinate())

    def testClassesAreThoseOfTheClosedSet(self):
        self.stage("stream")
        whole = self.run_(Siamese2DProtAssign, inputParticles=(self.chain["extract"], "outputParticles"),
                          inputClasses=(self.stage("averages"), "outputAverages"))
        self.assertFinished(whole)
        one, other = self.placesOf(whole), self.placesOf(self.chain["assign"])
        common = set(one) & set(other)
        # What fits nowhere is told from the usual: the later batches are too small for that.
        self.assertGreater(len(common), 0.8 * max(len(one), len(other)))
        same = [item for item in common if one[item][0] == other[item][0]]
        self.assertGreater(len(same), 0.9 * len(common))
        moved = [np.hypot(*np.subtract(one[item][1], other[item][1])) for item in same]
        self.assertLess(np.median(moved), PIXEL / 2)
        for protocol in (whole, self.chain["assign"]):
            sizes = {cls.getObjId(): cls.getSize() for cls in protocol.outputClasses.iterItems()}
            for items in (protocol.outputClasses, protocol.outputAverages):
                self.assertEqual({item.getObjId(): getattr(item, ATTR_CLASS_SIZE).get() for item in items}, sizes)

    def placesOf(self, protocol):
        """Class and origin in angstroms, by particle."""
        return {particle.getObjId(): (cls.getObjId(),
                                      convert.alignmentParameters(particle.getTransform().getMatrix(), PIXEL)[1:3])
                for cls in protocol.outputClasses.iterItems() for particle in cls}

    # --------------------------- viewers -----------------------------------------------
    def testViewersReadAllBatches(self):
        self.stage("stream")
        chain = {name: RunFolder(protocol.getStagePath()) for name, protocol in self.chain.items()}
        records = chain["normalize"].read_records("normalization.json", "micrographs")
        self.assertEqual(sorted(record["name"] for record in records if record["status"] == "finished"),
                         [f"simulated_00{number}" for number in range(1, MICROGRAPHS + 1)])
        for record in records:
            self.assertEqual(os.path.exists(chain["normalize"].file("micrographs", f"{record['name']}.mrc")),
                             record["status"] == "finished")
        candidates = chain["pick"].read_table("candidates.star")
        self.assertEqual(len(set(candidates["rlnMicrographName"])), MICROGRAPHS)
        images = chain["extract"].read_table("particles.star", "particles")["rlnImageName"]
        self.assertEqual(len(images), self.chain["extract"].outputParticles.getSize())
        classes = read_classes(chain["assign"])
        sizes = {cls.getObjId(): cls.getSize() for cls in self.chain["assign"].outputClasses.iterItems()}
        self.assertEqual({number: size for number, size in zip(classes.numbers, classes.sizes) if size}, sizes)
        members = read_particle_classes(chain["assign"])["rlnClassNumber"]
        self.assertEqual(len(members) + count_unassigned(chain["assign"]), len(images))


class TestWaiting(ClassSets, FolderTest):
    """Training that starts by itself."""

    def setUp(self):
        super().setUp()
        quick = mock.patch.object(protocol_streaming_base, "LOOK_SECONDS", 0.02)
        quick.start()
        self.addCleanup(quick.stop)

    def growing(self, items):
        items.setStreamState(Set.STREAM_OPEN)
        items.write()
        items.close()
        return items

    def classify(self, particles, number):
        return self.inFolder(Siamese2DProtClassify(inputParticles=particles, waitForParticles=number))

    def inFolder(self, protocol):
        protocol.workingDir.set(self.folder)
        return protocol

    def runInThread(self, protocol):
        thread = threading.Thread(target=protocol.convertInputStep, args=[protocol._inputKey()], daemon=True)
        thread.start()
        return thread

    def taken(self, protocol):
        return len(list(readTable(protocol.getInputPath("particles.star"), "particles")))

    def testStartsWhenEnoughHasArrived(self):
        self.checkStart(Siamese2DProtClassify)

    def testEmbeddingStartsWhenEnoughHasArrived(self):
        self.checkStart(Siamese2DProtTrainEmbedding)

    def checkStart(self, protocolClass):
        particles = self.growing(self.makeParticles(4))
        protocol = self.inFolder(protocolClass(inputParticles=particles, waitForParticles=6))
        self.assertEqual(protocol._validateInputs(), [])
        thread = self.runInThread(protocol)
        thread.join(0.3)
        self.assertTrue(thread.is_alive())
        append(SetOfParticles, particles, 100, 101)
        thread.join(20)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.taken(protocol), 6)

    def testEmbeddingOfClassesWaitsUntilTheyAreComplete(self):
        classes = self.growing(self.makeClasses((3, 3)))
        protocol = self.inFolder(Siamese2DProtTrainEmbedding(inputClasses=classes, mode=TRIPLET))
        thread = self.runInThread(protocol)
        thread.join(0.3)
        self.assertTrue(thread.is_alive())
        again = SetOfClasses2D(filename=classes.getFileName())
        again.setStreamState(Set.STREAM_CLOSED)
        again.write()
        again.close()
        thread.join(20)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.taken(protocol), 6)

    def testClosedInputIsTakenAsItIs(self):
        particles = self.growing(self.makeParticles(4))
        protocol = self.classify(particles, 6)
        thread = self.runInThread(protocol)
        append(SetOfParticles, particles, 100, state=Set.STREAM_CLOSED)
        thread.join(20)
        self.assertFalse(thread.is_alive())
        self.assertEqual(self.taken(protocol), 5)

    def testResumedRunKeepsWhatItTook(self):
        """The step's arguments stay the same when the input has grown or was closed, so it is not done again."""
        particles = self.growing(self.makeParticles(6))
        protocol = self.classify(particles, 6)
        before = protocol._inputKey()
        self.runInThread(protocol).join(20)
        self.assertIn(GROWING, before)
        append(SetOfParticles, particles, 100, state=Set.STREAM_CLOSED)
        particles.setStreamState(Set.STREAM_CLOSED)
        self.assertEqual(protocol._inputKey(), before)

    def testScipionStartsThemOnOpenInputs(self):
        for protocolClass in (Siamese2DProtNormalize, Siamese2DProtPick, Siamese2DProtExtract, Siamese2DProtAssign,
                              Siamese2DProtClassify, Siamese2DProtTrainPicker, Siamese2DProtTrainEmbedding):
            self.assertTrue(protocolClass.worksInStreaming(), protocolClass)


class TestForm(FolderTest):
    def testGrowingInputNeedsThreads(self):
        micrographs = self.makeMicrographs()
        protocol = Siamese2DProtNormalize(inputMicrographs=micrographs, numberOfThreads=2)
        self.assertEqual(protocol._validateStreaming(), [])
        micrographs.setStreamState(Set.STREAM_OPEN)
        self.assertIn("Scipion threads", protocol._validateStreaming()[0])
        protocol.numberOfThreads.set(FEWEST_THREADS)
        self.assertEqual(protocol._validateStreaming(), [])


class TestBatches(FolderTest):
    """Which items a batch takes."""

    def extract(self, coordinates, **inputs):
        protocol = Siamese2DProtExtract(inputCoordinates=coordinates, **inputs)
        protocol.workingDir.set(self.folder)
        return protocol

    def testCoordinatesWaitForTheirMicrograph(self):
        micrographs, later = self.makeMicrographs(3), self.makeMicrographs(2, name="later")
        coordinates = self.makeCoordinates(micrographs, [(0, 10, 10), (1, 20, 20), (2, 15, 15), (2, 30, 12)])
        protocol = self.extract(coordinates, micrographsSource=1, inputMicrographs=later)
        self.assertEqual(list(protocol._newItems(np.array([], dtype=int), growing=True)), [1, 2])
        self.assertEqual(list(protocol._newItems(np.array([1]), growing=True)), [2])
        later.setStreamState(Set.STREAM_OPEN)
        later.write()
        self.assertTrue(protocol._mayGrow(np.array([1, 2])))
        self.assertFalse(protocol._mayGrow(np.array([1, 2, 3, 4])), "all coordinates are taken")

    def testSmallestAndLargest(self):
        protocol = Siamese2DProtNormalize(inputMicrographs=self.makeMicrographs(5), smallestBatch=3)
        protocol.workingDir.set(self.folder)
        take = lambda taken, growing: list(protocol._newItems(np.array(taken, dtype=int), growing))
        self.assertEqual(take([], True), [5, 6, 7, 8, 9])
        self.assertEqual(take([5, 7, 8], True), [])
        self.assertEqual(take([5, 7, 8], False), [6, 9])
        with mock.patch.object(Siamese2DProtNormalize, "LARGEST_BATCH", 2):
            self.assertEqual(take([], True), [5, 6])
            self.assertEqual(take([], False), [5, 6, 7, 8, 9])

    def testFirstBatchOfAssign(self):
        """The noise is measured on it: it waits for more particles than those that follow."""
        particles = self.makeParticles(9)
        protocol = Siamese2DProtAssign(inputParticles=particles, smallestBatch=2)
        protocol.workingDir.set(self.folder)
        take = lambda taken, growing=True: len(protocol._newItems(np.array(taken, dtype=int), growing))
        with mock.patch.object(Siamese2DProtAssign, "FIRST_BATCH", 8):
            self.assertEqual(take([]), 9)
        self.assertEqual(take([]), 0)
        self.assertEqual(take([], growing=False), 9)
        self.assertEqual(take([2, 5]), 7)

    def testOtherInputStartsFromNothing(self):
        micrographs = self.makeMicrographs(2)
        protocol = Siamese2DProtNormalize(inputMicrographs=micrographs)
        protocol.workingDir.set(self.folder)
        self.assertEqual(protocol._makeBatch([5, 6]), "batch_00001")
        self.assertEqual((protocol.getBatches(), protocol.countTaken()), (["batch_00001"], 2))
        protocol._forgetOtherInputs()
        self.assertEqual(protocol.getBatches(), ["batch_00001"])
        with mock.patch.object(protocol, "_inputKeys", return_value=[["another", None]]):
            protocol._forgetOtherInputs()
        self.assertEqual(protocol.getBatches(), [])

    def testInputMadeAnew(self):
        micrographs = self.makeMicrographs(3)
        protocol = Siamese2DProtNormalize(inputMicrographs=micrographs)
        protocol.workingDir.set(self.folder)
        protocol._makeBatch([5, 6])
        append(SetOfMicrographs, micrographs, 20, 21)
        protocol._refuseOtherInputs()
        protocol._forgetOtherInputs()
        self.assertEqual(protocol.getBatches(), ["batch_00001"])
        with sqlite3.connect(micrographs.getFileName()) as connection:
            connection.execute("UPDATE Objects SET creation = datetime(creation, '+1 hours')")
        with self.assertRaisesRegex(ValidationException, "set0.sqlite: made anew"):
            protocol._refuseOtherInputs()
        os.remove(micrographs.getFileName())
        with self.assertRaisesRegex(ValidationException, "set0.sqlite: made anew"):
            protocol._refuseOtherInputs()
        self.assertFalse(protocol._mayGrow(protocol._takenItems()))
        self.assertEqual(list(protocol._newItems(np.array([], dtype=int), growing=False)), [])
        self.assertFalse(os.path.exists(micrographs.getFileName()))
        protocol._forgetOtherInputs()
        self.assertEqual(protocol.getBatches(), [])

    def testBatchWithoutItsListIsNone(self):
        """Killed while the tables were written: the same items are a batch again."""
        protocol = Siamese2DProtNormalize(inputMicrographs=self.makeMicrographs(2))
        protocol.workingDir.set(self.folder)
        protocol._makeBatch([5])
        os.remove(protocol.getInputPath("batch_00001", "items.json"))
        self.assertEqual(len(protocol._takenItems()), 0)
        self.assertEqual(protocol._makeBatch([5, 6]), "batch_00001")


class TestNewAverages(FolderTest):
    """Averages of the new members need all of them: what came in parts is done once more when all are there."""

    def testPartsAreJoinedAtTheEnd(self):
        particles = self.makeParticles(4)
        append(SetOfParticles, particles, 20)
        protocol = self.protocol(particles)
        news = iter([(21, 22), (23,), ()])

        def arrive(_):
            ids = next(news)
            append(SetOfParticles, particles, *ids, state=Set.STREAM_OPEN if ids else Set.STREAM_CLOSED)

        made = self.generate(protocol, arrive)
        first = [2, 5, 8, 11, 20]
        self.assertEqual(made, [(first, False), ([21, 22], False), ([23], False), (first + [21, 22, 23], True)])
        self.assertEqual(protocol.getBatches(), ["batch_00001"])
        # Continued, nothing is left to do.
        self.assertEqual(self.generate(protocol, arrive), [])

    def testClosedInputIsOneBatch(self):
        self.assertEqual(self.generate(self.protocol(self.makeParticles(2)), None), [([2, 5], True)])

    def protocol(self, particles):
        protocol = Siamese2DProtAssign(inputParticles=particles, inputClasses=particles, newAverages=True,
                                       smallestBatch=1)
        protocol.workingDir.set(self.folder)
        return protocol

    def generate(self, protocol, arrive):
        """Items of the batches that are made, and whether new averages are asked for."""
        made = []

        def process(batch, _):
            made.append((protocol._items(batch), "--new-averages" in protocol._batchArguments(batch)))
            with open(protocol.getInputPath(batch, PUBLISHED), "w") as file:
                json.dump(protocol._resultArguments(batch), file)

        with mock.patch.multiple(protocol, _insertBatch=process, _insertFunctionStep=mock.DEFAULT), \
                mock.patch.object(Siamese2DProtAssign, "FIRST_BATCH", 1), \
                mock.patch.object(protocol_streaming_base.time, "sleep", arrive):
            protocol.stepsGeneratorStep()
        return made


class TestScheduled(ChainTest, SetAssertions):
    """A whole chain is scheduled before anything has run: no protocol knows yet what the others will make."""

    settings = dict(micrographs=2, size=320, pixel_size=PIXEL, diameter=DIAMETER, labels=10, species=1,
                    particles_per_micrograph=25, snr=1.0)

    def _run_micrographs(self):
        return self.run_(ProtImportMicrographs, filesPath=os.path.join(self.simulation, "micrographs"),
                         filesPattern="*.mrc", samplingRate=PIXEL)

    def testChain(self):
        normalize = self.prepare(Siamese2DProtNormalize,
                                 inputMicrographs=(self.stage("micrographs"), "outputMicrographs"))
        self.project.saveProtocol(normalize)
        pick = self.prepare(Siamese2DProtPickUnlabeled, inputMicrographs=(normalize, "outputMicrographs"),
                            diameter=DIAMETER)
        self.project.saveProtocol(pick)
        extract = self.prepare(Siamese2DProtExtract, inputCoordinates=(pick, "outputCoordinates"))
        self.project.saveProtocol(extract)
        self.assertTrue(extract.validate())
        script = pyworkflow.getScheduleScript()
        with mock.patch.object(pyworkflow, "getScheduleScript", return_value=f"{script} --sleep_time 1"):
            for protocol in (normalize, pick, extract):
                self.project.scheduleProtocol(protocol)
        waitForEnd(self.project)
        for protocol in (normalize, pick, extract):
            self.project._updateProtocol(protocol)
            self.assertFinished(protocol)
        self.assertSet(extract.outputParticles)


class TestSets(FolderTest, SetAssertions):
    def testSubset(self):
        micrographs = self.makeMicrographs(6)
        some = Subset(micrographs, [9, 6, 50])
        self.assertEqual([mic.getObjId() for mic in some], [6, 9])
        self.assertEqual(some.getSamplingRate(), micrographs.getSamplingRate())
        self.assertEqual(list(Subset(micrographs, [])), [])

    def testGrowthIsThatOfTheFile(self):
        """The object of another process is older than the file."""
        micrographs = self.makeMicrographs(2)
        micrographs.setStreamState(Set.STREAM_OPEN)
        micrographs.write()
        micrographs.close()
        append(SetOfMicrographs, micrographs, 20)
        self.assertTrue(isGrowing(micrographs))
        self.assertEqual(list(itemIds(micrographs)), [5, 6, 20])
        append(SetOfMicrographs, micrographs, 15, state=Set.STREAM_CLOSED)
        self.assertTrue(micrographs.isStreamOpen())
        self.assertFalse(isGrowing(micrographs))
        self.assertEqual(list(itemIds(micrographs)), [5, 6, 15, 20])

    def testCoordinatesWithoutTheirMicrographs(self):
        """As a protocol sees them before the one that makes the micrographs has run."""
        micrographs = self.makeMicrographs(1)
        coordinates = self.makeCoordinates(micrographs, [(0, 10, 10)])
        coordinates._micrographsPointer.set(None)
        labels = Labels(coordinates)
        self.assertFalse(labels.arePlaced())
        self.assertIsNone(labels.getDiameter())
        picker = Siamese2DProtTrainPicker(inputMicrographs=micrographs, inputCoordinates=coordinates, diameter=20)
        self.assertEqual(picker._validateInputs(), [])
        extract = Siamese2DProtExtract(inputCoordinates=coordinates)
        for lines in (extract._validateInputs(), extract._warnings(), extract._costWarnings(), extract._methods()):
            self.assertEqual(lines, [])
        for act in (labels.getPixelSize, extract.getBoxSize,
                    lambda: convert.writeLabels("labels.star", labels, micrographs),
                    lambda: convert.writeCoordinates("coordinates.star", coordinates, micrographs)):
            with self.assertRaisesRegex(ValidationException, "are not there"):
                act()

    def testEmptySet(self):
        empty = SetOfCoordinates(filename="empty.sqlite")
        self.assertEqual(len(itemIds(empty)), 0)
        self.assertFalse(isGrowing(empty))
        empty.setStreamState(Set.STREAM_OPEN)
        self.assertTrue(isGrowing(empty))

    def testClassesGrow(self):
        """Two results after each other, the second one twice, as after a kill between writing and taking note."""
        particles = self.makeParticles(8)
        ids = [particle.getObjId() for particle in particles]
        writeMrc("classes.mrcs", np.random.default_rng(1).normal(size=(3, 16, 16)))
        self.writeResult("first", dict(zip(ids[:4], [1, 3, 1, 3])))
        self.writeResult("second", dict(zip(ids[4:], [2, 3, 2, 2])))
        for folder in ("first", "second", "second"):
            classes = SetOfClasses2D(filename="classes.sqlite")
            classes.setImages(Pointer(value=particles))
            averages = SetOfAverages(filename="averages.sqlite")
            averages.setSamplingRate(3.0)
            averages.enableAppend()
            convert.readClasses(folder, classes)
            convert.readAverages(folder, classes, averages)
            for items in (classes, averages):
                items.write()
                items.close()
        classes = SetOfClasses2D(filename="classes.sqlite")
        found = {cls.getObjId(): [particle.getObjId() for particle in cls] for cls in classes.iterItems()}
        self.assertEqual(found, {1: [ids[0], ids[2]], 2: [ids[4], ids[6], ids[7]], 3: [ids[1], ids[3], ids[5]]})
        for items in (classes, SetOfAverages(filename="averages.sqlite")):
            self.assertEqual({item.getObjId(): getattr(item, ATTR_CLASS_SIZE).get() for item in items.iterItems()},
                             {1: 2, 2: 3, 3: 3})
        self.assertEqual({cls.getObjId(): cls.getRepresentative().getIndex() for cls in classes.iterItems()},
                         {1: 1, 2: 2, 3: 3})

    def writeResult(self, folder, classOf):
        os.makedirs(folder)
        writeTables(os.path.join(folder, "particles.star"), {"particles": [
            {"siamese2dItemId": item, "rlnClassNumber": number, "rlnAnglePsi": 10.0, "rlnOriginXAngst": 3.0,
             "rlnOriginYAngst": 0.0, "rlnIsFlip": 0, "rlnMaxValueProbDistribution": 0.9}
            for item, number in classOf.items()]})
        writeTables(os.path.join(folder, "classes.star"), {"classes": [
            {"rlnReferenceImage": f"00000{number}@classes.mrcs", "rlnClassNumber": number,
             "siamese2dClassSize": list(classOf.values()).count(number)} for number in (1, 2, 3)]})


def append(setClass, items, *ids, state=Set.STREAM_OPEN):
    """Append copies of the first item to the file of a set, as its producer in another process does."""
    producer = setClass(filename=items.getFileName())
    producer.loadAllProperties()
    first = producer.getFirstItem().clone()
    producer.enableAppend()
    for item in ids:
        first.setObjId(item)
        producer.append(first)
    producer.setStreamState(state)
    producer.write()
    producer.close()


def outputsOf(protocol):
    """Names and sets of the outputs so far."""
    return [(name, items) for name, items in protocol.iterOutputAttributes() if isinstance(items, Set)]


def readImage(particle):
    index, path = particle.getLocation()
    with mrcfile.mmap(path, permissive=True) as mrc:
        return np.array(mrc.data[index - 1])
