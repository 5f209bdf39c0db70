"""The whole chain through Scipion's own machinery, on small simulated micrographs."""

import io
import os
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import mrcfile
import numpy as np
from PIL import Image
from pwem.objects import SetOfCTF
from pwem.protocols import ProtImportMicrographs
from pyworkflow.utils import cleanPath

from siamese2d import Plugin
from siamese2d.constants import ATTR_CONFIDENCE, ATTR_QUALITY, ATTR_RESOLUTION, ATTR_SCORE
from siamese2d.convert import rowToCtf
from siamese2d.objects import EmbeddingModel, PickerModel
from siamese2d.protocols import (Siamese2DProtClassify, Siamese2DProtExtract, Siamese2DProtImportCoordinates,
                                 Siamese2DProtNormalize, Siamese2DProtPick, Siamese2DProtTrainEmbedding,
                                 Siamese2DProtTrainPicker)
from siamese2d.protocols.protocol_extract import OTHER
from siamese2d.protocols.protocol_train_embedding import FEWEST_MEMBERS, TRIPLET
from siamese2d.protocols.protocol_train_picker import NETWORKS
from siamese2d.star import readTable, writeTables
from siamese2d.tests.demo import demoModule, needsDemo
from siamese2d.tests.layer import ChainTest, SetAssertions
from siamese2d.tests.warps import correlation, warpByMatrix

PIXEL, SIZE, MICROGRAPHS, DIAMETER, CLASSES = 8.0, 384, 4, 180.0, 4


class TestChain(ChainTest, SetAssertions):
    settings = dict(micrographs=MICROGRAPHS, size=SIZE, pixel_size=PIXEL, diameter=DIAMETER,
                    particles_per_micrograph=40, labels=50, species=2, snr=0.5)

    def _run_micrographs(self):
        protocol = self.run_(ProtImportMicrographs, filesPath=os.path.join(self.simulation, "micrographs"),
                             filesPattern="*.mrc", samplingRate=PIXEL, voltage=300.0, sphericalAberration=2.7,
                             amplitudeContrast=0.1)
        self.assertFinished(protocol)
        self._addCtf(protocol)
        return protocol

    def _addCtf(self, protocol):
        """The simulated CTF as an output, as a program for CTF estimation would leave it."""
        rows = {os.path.basename(row["rlnMicrographName"]): row
                for row in readTable(os.path.join(self.simulation, "micrographs.star"), "micrographs")}
        path = protocol._getPath("ctfs.sqlite")
        cleanPath(path)
        ctfs = SetOfCTF(filename=path)
        ctfs.setMicrographs(protocol.outputMicrographs)
        for mic in protocol.outputMicrographs:
            ctf = rowToCtf(rows[os.path.basename(mic.getFileName())])
            ctf.setMicrograph(mic.clone())
            ctfs.append(ctf)
        protocol._defineOutputs(outputCTF=ctfs)
        protocol._store()
        self.project._storeProtocol(protocol)

    def _run_labels(self):
        return self.run_(Siamese2DProtImportCoordinates,
                         inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         coordinatesFile=os.path.join(self.simulation, "training_coordinates.star"), diameter=DIAMETER)

    def _run_normalize(self):
        return self.run_(Siamese2DProtNormalize, inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         downsample=2.0)

    def _run_trainPicker(self):
        return self.run_(Siamese2DProtTrainPicker, inputMicrographs=(self.stage("normalize"), "outputMicrographs"),
                         inputCoordinates=(self.stage("labels"), "outputCoordinates"), numberOfThreads=2, epochs=3,
                         network=NETWORKS.index("small"))

    def _run_pick(self):
        return self.run_(Siamese2DProtPick, inputMicrographs=(self.stage("normalize"), "outputMicrographs"),
                         inputPicker=(self.stage("trainPicker"), "outputPicker"))

    def _run_extract(self):
        return self.run_(Siamese2DProtExtract, inputCoordinates=(self.stage("pick"), "outputCoordinates"),
                         micrographsSource=OTHER, inputMicrographs=(self.stage("micrographs"), "outputMicrographs"),
                         inputCTF=(self.stage("micrographs"), "outputCTF"))

    def _run_trainEmbedding(self):
        return self.run_(Siamese2DProtTrainEmbedding, inputParticles=(self.stage("extract"), "outputParticles"),
                         numberOfThreads=2)

    def _run_classify(self):
        return self.run_(Siamese2DProtClassify, inputParticles=(self.stage("extract"), "outputParticles"),
                         inputEmbedding=(self.stage("trainEmbedding"), "outputEmbedding"), numberOfClasses=CLASSES,
                         numberOfThreads=2)

    # --------------------------- the stages, in the order of the chain -----------------
    def testNormalize(self):
        protocol = self.stage("normalize")
        output, original = protocol.outputMicrographs, self.stage("micrographs").outputMicrographs
        self.assertSet(output, size=MICROGRAPHS, pixelSize=2 * PIXEL, dimensions=(SIZE // 2, SIZE // 2))
        self.assertFilesInside([mic.getFileName() for mic in output], protocol._getExtraPath("normalize"))
        self.assertEqual([(m.getObjId(), m.getMicName()) for m in output],
                         [(m.getObjId(), m.getMicName()) for m in original])
        self.assertEqual(output.getAcquisition().getVoltage(), 300.0)

    def testNormalizedImagesAreTheirOriginals(self):
        """Every output must look like the input with the same id, which a mix-up of the rows would break."""
        originals = {m.getObjId(): readMrc(m.getFileName()) for m in self.stage("micrographs").outputMicrographs}
        for mic in self.stage("normalize").outputMicrographs:
            small = readMrc(mic.getFileName())
            match = {item: np.corrcoef(binned(image).ravel(), small.ravel())[0, 1] for item, image in originals.items()}
            self.assertEqual(max(match, key=match.get), mic.getObjId(), match)

    def testTrainPicker(self):
        protocol = self.stage("trainPicker")
        picker = protocol.outputPicker
        self.assertIsInstance(picker, PickerModel)
        self.assertFilesInside(list(picker.getFiles()), protocol._getExtraPath("train-picker"))
        self.assertAlmostEqual(picker.getPixelSize(), 2 * PIXEL, places=4)
        # Scipion keeps the box of the labels in whole pixels.
        self.assertAlmostEqual(picker.getDiameter(), DIAMETER, delta=PIXEL)
        self.assertIn("PickerModel (diameter", str(picker))

    def testPick(self):
        protocol = self.stage("pick")
        output = protocol.outputCoordinates
        self.assertSet(output)
        self.assertGreater(output.getSize(), MICROGRAPHS)
        self.assertEqual(output.getBoxSize(), round(protocol.inputPicker.get().getDiameter() / (2 * PIXEL)))
        for coordinate in output:
            self.assertTrue(np.isfinite(getattr(coordinate, ATTR_SCORE).get()))

    def testPicksAreWhereTheParticlesAre(self):
        """Most picks lie on a particle of the truth; an axis upside down or swapped would leave almost none."""
        truth = {}
        for row in readTable(os.path.join(self.simulation, "truth.star")):
            position = [float(row["rlnCoordinateX"]), float(row["rlnCoordinateY"])]
            truth.setdefault(os.path.basename(row["rlnMicrographName"]), []).append(position)
        near = []
        for coordinate in self.stage("pick").outputCoordinates:
            distances = np.array(truth[coordinate.getMicName()]) - 2 * np.array(coordinate.getPosition())
            near.append(np.hypot(*distances.T).min() * PIXEL < DIAMETER / 2)
        self.assertGreater(np.mean(near), 0.5)

    def testExtract(self):
        protocol = self.stage("extract")
        output = protocol.outputParticles
        box = protocol.getBoxSize()
        self.assertSet(output, pixelSize=PIXEL, dimensions=(box, box))
        self.assertGreaterEqual(box * PIXEL, 1.5 * DIAMETER - 2 * PIXEL)
        self.assertTrue(output.hasCTF())
        self.assertTrue(output.hasCoordinates())
        self.assertFilesInside(list(output.getFiles()), protocol._getExtraPath("extract"))

    def testExtractedCtfIsThatOfTheMicrograph(self):
        defocus = {ctf.getObjId(): ctf.getDefocusU() for ctf in self.stage("micrographs").outputCTF}
        for particle in self.stage("extract").outputParticles:
            self.assertAlmostEqual(particle.getCTF().getDefocusU(), defocus[particle.getMicId()], places=2)

    def testExtractedPixelsAreThoseOfTheMicrograph(self):
        """Each image is its micrograph around its coordinate, inverted: found again through Scipion's objects alone."""
        micrographs = {m.getObjId(): readMrc(m.getFileName()) for m in self.stage("micrographs").outputMicrographs}
        box = self.stage("extract").getBoxSize()
        for number, particle in enumerate(self.stage("extract").outputParticles):
            if number % 20:
                continue
            x, y = particle.getCoordinate().getPosition()
            index, fileName = particle.getLocation()
            left, top = x - box // 2, y - box // 2
            window = micrographs[particle.getMicId()][top + 2:top + box - 2, left + 2:left + box - 2]
            image = readMrc(fileName)[index - 1]
            parts = [image[2 + dy:box - 2 + dy, 2 + dx:box - 2 + dx] for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
            self.assertGreater(max(np.corrcoef(-window.ravel(), part.ravel())[0, 1] for part in parts), 0.95)

    def testTrainEmbedding(self):
        protocol = self.stage("trainEmbedding")
        embedding = protocol.outputEmbedding
        self.assertIsInstance(embedding, EmbeddingModel)
        self.assertFilesInside(list(embedding.getFiles()), protocol._getExtraPath("train"))
        self.assertEqual(embedding.getBoxSize(), self.stage("extract").outputParticles.getXDim())
        self.assertIn("self-supervised", str(embedding))

    def testClassify(self):
        protocol = self.stage("classify")
        classes, averages = protocol.outputClasses, protocol.outputAverages
        particles = self.stage("extract").outputParticles
        box = particles.getXDim()
        self.assertSet(averages, size=classes.getSize(), pixelSize=PIXEL, dimensions=(box, box))
        self.assertLessEqual(classes.getSize(), CLASSES)
        members = [particle.getObjId() for cls in classes.iterItems() for particle in cls]
        self.assertEqual(len(members), len(set(members)))
        self.assertTrue(set(members) <= {particle.getObjId() for particle in particles})
        self.assertGreaterEqual(min(cls.getObjId() for cls in classes.iterItems()), 1)
        representatives = [cls.getRepresentative().getFileName() for cls in classes.iterItems()]
        self.assertFilesInside(representatives + list(averages.getFiles()), protocol._getExtraPath("classify"))

    def testClassAttributes(self):
        for cls in self.stage("classify").outputClasses.iterItems():
            self.assertTrue(cls.hasAlignment2D())
            self.assertTrue(cls.hasAttribute(ATTR_RESOLUTION) and cls.hasAttribute(ATTR_QUALITY))
            for particle in cls:
                self.assertTrue(0 <= getattr(particle, ATTR_CONFIDENCE).get() <= 1)

    def testAveragesAreThoseOfTheTransforms(self):
        """Averaging the members by Scipion's transforms gives each class average: the alignment arrives as meant."""
        for cls in self.stage("classify").outputClasses.iterItems():
            aligned = [warpByMatrix(readMrc(p.getFileName())[p.getIndex() - 1], p.getTransform().getMatrix())
                       for p in cls]
            if len(aligned) < 10:
                continue
            index, fileName = cls.getRepresentative().getLocation()
            self.assertGreater(correlation(np.mean(aligned, axis=0), readMrc(fileName)[index - 1]), 0.6)

    def testTripletOnClasses(self):
        protocol = self.run_(Siamese2DProtTrainEmbedding, mode=TRIPLET, numberOfThreads=2,
                             inputClasses=(self.stage("classify"), "outputClasses"))
        self.assertFinished(protocol)
        self.assertEqual(protocol.outputEmbedding.getMode(), "triplet")
        classOf = {row["siamese2dItemId"]: row["rlnClassNumber"]
                   for row in readTable(protocol.getInputPath("particles.star"), "particles")}
        expected = {str(particle.getObjId()): str(cls.getObjId())
                    for cls in self.stage("classify").outputClasses.iterItems() if cls.getSize() >= FEWEST_MEMBERS
                    for particle in cls}
        self.assertEqual(classOf, expected)

    # --------------------------- what users read ---------------------------------------
    def testTextsOfFinishedProtocols(self):
        for name in ("normalize", "trainPicker", "pick", "extract", "trainEmbedding", "classify"):
            protocol = self.stage(name)
            self.assertTrue(protocol.summary()[0])
            self.assertNotIn("Error", " ".join(protocol.summary()))
            self.assertTrue(protocol.methods())
            self.assertTrue(protocol.citations())

    def testRecordBesideEveryOutput(self):
        for name in ("normalize", "trainPicker", "pick", "extract", "trainEmbedding", "classify"):
            record = self.stage(name).getReport("run.json")
            self.assertEqual(record["status"], "finished")
            self.assertIn(record["stage"], record["command"])

    @needsDemo
    def testReportOfTheDemo(self):
        """The demo finds every stage's record, picks and classes where the protocols left them."""
        report, inputs = demoModule("report"), demoModule("inputs")
        names = {"normalize": "normalize", "train picker": "trainPicker", "pick": "pick", "extract": "extract",
                 "train embedding": "trainEmbedding", "classify": "classify"}
        runs = {label: self.stage(name) for label, name in names.items()}
        truth = Path(self.simulation, "truth.star")
        # The micrographs that were picked are half as large.
        halved = [{**row, **{axis: float(row[axis]) / 2 for axis in ("rlnCoordinateX", "rlnCoordinateY")}}
                  for row in readTable(str(truth))]
        writeTables("halved.star", {"truth": halved})
        micrographs = [os.path.splitext(mic.getMicName())[0] for mic in runs["normalize"].outputMicrographs]
        source = inputs.DemoInput("", 2 * PIXEL, None, DIAMETER, micrographs, {"truth": Path("halved.star")}, truth)
        with redirect_stdout(io.StringIO()) as printed:
            report.print_time_and_memory(runs)
            results = report.evaluate(engineScript(), runs, source, Path("report"))
            report.print_accuracy(results)
        self.assertGreater(results["picks against truth"]["average_precision"], 0.5)
        self.assertGreater(results["classes"]["purity"], 0.5)
        lines = {label: line.split() for label in runs for line in printed.getvalue().splitlines()
                 if line.startswith(f"{label:<22}")}
        for label, protocol in runs.items():
            record = protocol.getReport("run.json")
            self.assertEqual(lines[label][-2:], [f"{record['cpu_seconds']:.0f}", f"{record['peak_memory_mb']:.0f}"])
        self.assertIn("average precision", printed.getvalue())
        with Image.open(report.save_picture(runs, Path("averages.png"))) as picture:
            self.assertGreater(np.asarray(picture.convert("L")).std(), 10)


class TestDamage(ChainTest, SetAssertions):
    """Bad data that the form can't see."""

    settings = dict(micrographs=3, size=256, pixel_size=PIXEL, diameter=DIAMETER, particles_per_micrograph=10,
                    labels=10, species=1)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.copies = os.path.abspath("copies")
        shutil.copytree(os.path.join(cls.simulation, "micrographs"), cls.copies)
        cls.imported = cls.run_(ProtImportMicrographs, filesPath=cls.copies, filesPattern="*.mrc", samplingRate=PIXEL)

    def normalize(self, damage, *numbers):
        """Normalize the micrographs after `damage` was done to the files of these."""
        self.assertFinished(self.imported)
        shutil.copytree(os.path.join(self.simulation, "micrographs"), self.copies, dirs_exist_ok=True)
        for number in numbers:
            damage(os.path.join(self.copies, f"simulated_{number:03d}.mrc"))
        return self.run_(Siamese2DProtNormalize, inputMicrographs=(self.imported, "outputMicrographs"))

    def testOneFailedMicrographIsReportedAndLeftOut(self):
        protocol = self.normalize(cutInHalf, 2)
        self.assertFinished(protocol)
        self.assertSet(protocol.outputMicrographs, size=2)
        self.assertEqual([mic.getObjId() for mic in protocol.outputMicrographs], [1, 3])
        summary = " ".join(protocol.summary())
        self.assertIn("1 micrographs failed", summary)
        self.assertIn("simulated_002", summary)

    def testAllFailedIsAnErrorThatSaysWhy(self):
        protocol = self.normalize(cutInHalf, 1, 2, 3)
        self.assertTrue(protocol.isFailed())
        self.assertFalse(protocol.hasAttribute("outputMicrographs"))
        self.assertIn("simulated_00", protocol.getErrorMessage())
        self.assertNotIn("non-zero exit status", protocol.getErrorMessage())

    def testMissingFilesAreNamed(self):
        protocol = self.normalize(os.remove, 1, 2, 3)
        self.assertTrue(protocol.isFailed())
        self.assertIn("simulated_001.mrc", protocol.getErrorMessage())


def engineScript():
    """A program that runs the engine in its environment, whichever kind that is."""
    path = os.path.abspath("engine.sh")
    with open(path, "w") as script:
        script.write(f'#!/usr/bin/env bash\n{Plugin.getProgram()} "$@"\n')
    os.chmod(path, 0o755)
    return path


def cutInHalf(path):
    """Leave the first half of a file."""
    os.truncate(path, os.path.getsize(path) // 2)


def readMrc(path):
    """Pixels of an MRC file, which may be read-only."""
    with mrcfile.open(path, mode="r", permissive=True) as mrc:
        return np.array(mrc.data, dtype=np.float64)


def binned(image):
    """Image of half the size, by averages of 2 x 2 pixels."""
    return image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))
