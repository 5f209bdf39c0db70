"""Protocols that work while their inputs grow: a running chain that is fed, killed and continued, and its parts."""

import glob
import os
import shutil
import threading
import time
from unittest import mock

import mrcfile
import numpy as np
import psutil

from pwem.objects import Particle, SetOfAverages, SetOfClasses2D, SetOfCoordinates, SetOfMicrographs, SetOfParticles
from pwem.protocols import ProtImportMicrographs
from pyworkflow.object import Pointer, Set
from pyworkflow.protocol import MODE_RESUME

from siamese2d import convert
from siamese2d.constants import ATTR_CLASS_SIZE, ATTR_SCORE
from siamese2d.convert import exactPosition
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtImportCoordinates, Siamese2DProtNormalize, Siamese2DProtPick,
                                 Siamese2DProtTrainPicker, protocol_streaming_base)
from siamese2d.protocols.protocol_streaming_base import FEWEST_THREADS, GROWING, PUBLISHED
from siamese2d.protocols.protocol_train_picker import NETWORKS
from siamese2d.star import readTable, writeTables
from siamese2d.streams import Subset, isGrowing, itemIds
from siamese2d.tests.layer import ChainTest, FolderTest, SetAssertions, writeMrc
from siamese2d.tests.test_resume import waitForEnd
from siamese2d.viewers.class_files import count_unassigned, read_classes, read_particle_classes
from siamese2d.viewers.run_files import RunFolder

PIXEL, SIZE, MICROGRAPHS, DIAMETER, BOX = 8.0, 320, 6, 180.0, 34
PATIENCE = 180


class TestChain(ChainTest, SetAssertions):
    """Micrographs arrive in three bunches, the last with a damaged one; one protocol is killed, another one stopped."""

    settings = dict(micrographs=MICROGRAPHS, size=SIZE, pixel_size=PIXEL, diameter=DIAMETER, labels=30, species=1,
                    particles_per_micrograph=25, snr=1.0)

    # --------------------------- what the stream starts from ---------------------------
    def _run_micrographs(self):
        folder = os.path.join(self.simulation, "micrographs")
        damaged = os.path.join(folder, "simulated_007.mrc")
        shutil.copy(os.path.join(folder, "simulated_006.mrc"), damaged)
        protocol = self.run_(ProtImportMicrographs, filesPath=folder, filesPattern="*.mrc", samplingRate=PIXEL)
        os.truncate(protocol.outputMicrographs[7].getFileName(), 4096)
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
        self.feed(1, 2)
        chain["normalize"] = self.start(Siamese2DProtNormalize, smallestBatch=2,
                                        inputMicrographs=(self.stage("micrographs"), "outputGrowing"))
        chain["pick"] = self.start(Siamese2DProtPick, inputMicrographs=(chain["normalize"], "outputMicrographs"),
                                   inputPicker=(self.stage("picker"), "outputPicker"))
        chain["extract"] = self.start(Siamese2DProtExtract, inputCoordinates=(chain["pick"], "outputCoordinates"),
                                      boxSize=BOX)
        chain["assign"] = self.start(Siamese2DProtAssign, inputParticles=(chain["extract"], "outputParticles"),
                                     inputClasses=(self.stage("averages"), "outputAverages"), smallestBatch=1)
        type(self).early = {name: (protocol.getStatus(), [items.isStreamOpen() for _, items in outputsOf(protocol)])
                            for name, protocol in chain.items()}
        self.killAll(chain["pick"])
        self.project.stopProtocol(chain["assign"])
        self.feed(3, 4)
        self.resume(chain["pick"])
        self.waitForBatches(chain["extract"], 2)
        self.resume(chain["assign"])
        self.feed(5, 6, 7, last=True)
        waitForEnd(self.project)
        for protocol in chain.values():
            self.project._updateProtocol(protocol)
            self.assertFinished(protocol)
        return chain["assign"]

    def feed(self, *numbers, last=False):
        """Let micrographs arrive; the set is closed with the last ones."""
        imported = self.stage("micrographs")
        path = imported._getPath("growing.sqlite")
        growing = SetOfMicrographs(filename=path)
        growing.copyInfo(imported.outputMicrographs)
        growing.enableAppend()
        for number in numbers:
            growing.append(imported.outputMicrographs[number].clone())
        growing.setStreamState(Set.STREAM_CLOSED if last else Set.STREAM_OPEN)
        growing.write()
        growing.close()
        if not imported.hasAttribute("outputGrowing"):
            self.addOutput(imported, outputGrowing=growing)

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
        self.assertEqual([mic.getObjId() for mic in micrographs], [1, 2, 3, 4, 5, 6])
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
        self.assertIn("6 micrographs normalized", summary)
        self.assertIn("1 micrographs failed", summary)
        self.assertIn("simulated_007", summary)
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
                          inputPicker=(self.stage("picker"), "outputPicker"))
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
        whole = self.run_(Siamese2DProtExtract, inputCoordinates=(self.chain["pick"], "outputCoordinates"), boxSize=BOX)
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
        self.assertGreater(len(common), 0.95 * max(len(one), len(other)))
        # The noise is measured on the first batch, which is far too small for that here: some particles change their class.
        same = [item for item in common if one[item][0] == other[item][0]]
        self.assertGreater(len(same), 0.7 * len(common))
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
                         [f"simulated_00{number}" for number in range(1, 7)])
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


class TestWaiting(FolderTest):
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
        protocol = Siamese2DProtClassify(inputParticles=particles, waitForParticles=number)
        protocol.workingDir.set(self.folder)
        return protocol

    def runInThread(self, protocol):
        thread = threading.Thread(target=protocol.convertInputStep, args=[protocol._inputKey()], daemon=True)
        thread.start()
        return thread

    def taken(self, protocol):
        return len(list(readTable(protocol.getInputPath("particles.star"), "particles")))

    def testStartsWhenEnoughHasArrived(self):
        particles = self.growing(self.makeParticles(4))
        protocol = self.classify(particles, 6)
        thread = self.runInThread(protocol)
        thread.join(0.3)
        self.assertTrue(thread.is_alive())
        append(SetOfParticles, particles, 100, 101)
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
                              Siamese2DProtClassify, Siamese2DProtTrainPicker):
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

    def testNewAveragesNeedAllParticles(self):
        particles = self.makeParticles()
        particles.setStreamState(Set.STREAM_OPEN)
        averages = SetOfAverages(filename="averages.sqlite")
        averages.setSamplingRate(3.0)
        particle = next(particles.iterItems()).clone()
        averages.append(particle)
        averages.write()
        protocol = Siamese2DProtAssign(inputParticles=particles, inputClasses=averages, newAverages=True)
        protocol.workingDir.set(self.folder)
        self.assertIn("New averages", protocol._validateInputs()[0])


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

    def testOtherInputStartsFromNothing(self):
        micrographs = self.makeMicrographs(2)
        protocol = Siamese2DProtNormalize(inputMicrographs=micrographs)
        protocol.workingDir.set(self.folder)
        self.assertEqual(protocol._makeBatch([5, 6]), "batch_00001")
        self.assertEqual((protocol.getBatches(), protocol.countTaken()), (["batch_00001"], 2))
        protocol._forgetOtherInputs()
        self.assertEqual(protocol.getBatches(), ["batch_00001"])
        with mock.patch.object(protocol, "_inputNames", return_value=["another"]):
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
