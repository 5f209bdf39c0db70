"""Conversion between Scipion sets and STAR files, without running a protocol."""

import numpy as np
from scipy import ndimage

from pwem.emlib.image import ImageHandler
from pwem.objects import (Coordinate, SetOfAverages, SetOfClasses2D, SetOfCoordinates, SetOfMicrographs, SetOfParticles,
                          Transform)
from pyworkflow.exceptions import ValidationException
from pyworkflow.object import Float, Pointer

from siamese2d import convert
from siamese2d.constants import ATTR_CLASS_SIZE, ATTR_CONFIDENCE, ATTR_QUALITY, ATTR_RESOLUTION, ATTR_SCORE
from siamese2d.star import readTable, writeTables
from siamese2d.tests.layer import ACQUISITION, FolderTest, SetAssertions, makeCtf, writeMrc
from siamese2d.tests.warps import PIXEL, correlation, displace, makeTemplate, warpByMatrix

class TestStar(FolderTest):
    def testRoundTrip(self):
        rows = [{"rlnMicrographName": "plain.mrc", "value": 1.25, "number": 3},
                {"rlnMicrographName": "with space/mic 2.mrc", "value": -2.0, "number": 4}]
        writeTables("t.star", {"optics": [{"rlnOpticsGroup": 1}], "micrographs": rows})
        read = list(readTable("t.star", "micrographs"))
        self.assertEqual([row["rlnMicrographName"] for row in read], ["plain.mrc", "with space/mic 2.mrc"])
        self.assertEqual([float(row["value"]) for row in read], [1.25, -2.0])
        self.assertEqual(list(readTable("t.star", "optics")), [{"rlnOpticsGroup": "1"}])
        self.assertEqual(list(readTable("t.star")), read, "the optics groups are not what a file is about")

    def testForeignFormatting(self):
        with open("t.star", "w") as star:
            star.write("# made by something else\n\ndata_particles\n\nloop_ \n_a #1\n_b #2 \n  1   x\n2 'y z'\n\n"
                       "# version 30001\n\ndata_other\nloop_\n_c\n9\n")
        self.assertEqual(list(readTable("t.star", "particles")), [{"a": "1", "b": "x"}, {"a": "2", "b": "y z"}])

    def testMissingFileAndBlock(self):
        with self.assertRaisesRegex(ValidationException, "nowhere.star: this table is missing"):
            list(readTable("nowhere.star"))
        writeTables("t.star", {"optics": [{"a": 1}]})
        with self.assertRaisesRegex(ValidationException, "t.star: there is no table particles"):
            list(readTable("t.star", "particles"))


class TestAlignment(FolderTest):
    """The matrix must be the map of the developer guide, checked with warps that know nothing of it."""

    CASES = [(0.0, 0.0, 0.0, False), (90.0, 0.0, 0.0, False), (30.0, 5.0, -3.0, False), (-117.0, -4.0, 2.0, True),
             (0.0, 6.0, 1.0, True), (179.0, 0.5, 7.0, True)]

    def testPointByHand(self):
        # 90 degrees turn x into y; the shift comes before: (1, 0) + (2, 0) = (3, 0) -> (0, 3), mirrored (0, 3).
        matrix = convert.alignmentMatrix(90, 2 * PIXEL, 0, False, PIXEL)
        np.testing.assert_allclose(matrix @ [1, 0, 0, 1], [0, 3, 0, 1], atol=1e-12)
        matrix = convert.alignmentMatrix(0, 2 * PIXEL, 0, True, PIXEL)
        np.testing.assert_allclose((matrix @ [1, 5, 0, 1])[:2], [-3, 5], atol=1e-12)

    def testParametersComeBack(self):
        for case in self.CASES:
            back = convert.alignmentParameters(convert.alignmentMatrix(*case, PIXEL), PIXEL)
            np.testing.assert_allclose(back, case, atol=1e-9)

    def testDeterminantIsOne(self):
        for case in self.CASES:
            self.assertAlmostEqual(np.linalg.det(convert.alignmentMatrix(*case, PIXEL)), 1)

    def testWarpByMatrixAligns(self):
        template = makeTemplate()
        for case in self.CASES:
            particle = displace(template, *case)
            aligned = warpByMatrix(particle, convert.alignmentMatrix(*case, PIXEL))
            self.assertGreater(correlation(aligned, template), 0.99, case)

    def testAverageOfAlignedParticlesIsTheTemplate(self):
        template = makeTemplate()
        matrices = [convert.alignmentMatrix(*case, PIXEL) for case in self.CASES]
        particles = [displace(template, *case) for case in self.CASES]
        aligned = np.mean([warpByMatrix(p, m) for p, m in zip(particles, matrices)], axis=0)
        wrongWay = np.mean([warpByMatrix(p, np.linalg.inv(m)) for p, m in zip(particles, matrices)], axis=0)
        self.assertGreater(correlation(aligned, template), 0.99)
        self.assertLess(correlation(wrongWay, template), 0.95)

    def testScipionsRotationAndMirrorAgree(self):
        template = makeTemplate()
        for psi, _, _, flip in self.CASES:
            writeMrc("particle.mrc", displace(template, psi, 0, 0, flip))
            matrix = convert.alignmentMatrix(psi, 0, 0, flip, PIXEL)
            ImageHandler().convert("particle.mrc", "aligned.spi", transform=Transform(matrix=matrix))
            aligned = ImageHandler().read("aligned.spi").getData()
            self.assertGreater(correlation(aligned, template), 0.99, (psi, flip))

    def testScipionsShiftAgrees(self):
        """The warp of Scipion that shifts takes 3 x 3 matrices and turns about a point half a pixel from the centre."""
        spot = np.zeros((64, 64))
        spot[30:35, 40:45] = 1
        writeMrc("spot.mrc", spot)
        for case in self.CASES:
            matrix = convert.alignmentMatrix(*case, PIXEL)
            ImageHandler.applyTransform("spot.mrc", "moved.mrc", matrix[[0, 1, 3]][:, [0, 1, 3]], (64, 64), fillValue=0)
            moved = ndimage.center_of_mass(ImageHandler().read("moved.mrc").getData())
            np.testing.assert_allclose(np.array(moved[::-1]) - 32, (matrix @ [10, 0, 0, 1])[:2], atol=1.1)


class TestMicrographs(FolderTest, SetAssertions):
    def testIdentityAndOptics(self):
        micrographs = self.makeMicrographs()
        self.assertEqual(convert.writeMicrographs("m.star", micrographs), 3)
        rows = list(readTable("m.star", "micrographs"))
        self.assertEqual([row["siamese2dItemId"] for row in rows], ["5", "6", "7"])
        self.assertEqual(rows[0]["rlnMicrographName"], "micrographs/file0.mrc")
        optics = list(readTable("m.star", "optics"))
        self.assertEqual(len(optics), 1)
        self.assertEqual(float(optics[0]["rlnVoltage"]), ACQUISITION["voltage"])
        self.assertEqual(float(optics[0]["rlnMicrographPixelSize"]), 2.0)

    def testOpticsGroupsByAcquisition(self):
        micrographs = self.makeMicrographs()
        other = SetOfMicrographs(filename="other.sqlite")
        other.copyInfo(micrographs)
        for mic in micrographs:
            clone = mic.clone()
            if mic.getObjId() == 6:
                clone.setAcquisition(clone.getAcquisition().clone())
                clone.getAcquisition().setSphericalAberration(0.01)
            other.append(clone)
        convert.writeMicrographs("m.star", other)
        self.assertEqual([row["rlnOpticsGroup"] for row in readTable("m.star", "micrographs")], ["1", "2", "1"])
        self.assertEqual([float(row["rlnSphericalAberration"]) for row in readTable("m.star", "optics")], [2.7, 0.01])

    def testCtfLeavesOutMicrographsWithout(self):
        micrographs = self.makeMicrographs()
        ctfs = {"grid1_0": makeCtf(12000, phaseShift=90.0), "grid1_2": makeCtf(15000, phaseShift=80.0)}
        self.assertEqual(convert.writeMicrographs("m.star", micrographs, ctfs), 2)
        rows = list(readTable("m.star", "micrographs"))
        self.assertEqual([float(row["rlnDefocusU"]) for row in rows], [12200, 15200])
        self.assertEqual([float(row["rlnPhaseShift"]) for row in rows], [90, 80])

    def testReadBackKeepsIdsAndDropsFailed(self):
        micrographs = self.makeMicrographs()
        writeTables("done.star", {
            "optics": [{"rlnOpticsGroup": 1, "rlnMicrographPixelSize": 4.0}],
            "micrographs": [{"rlnMicrographName": "micrographs/file2.mrc", "siamese2dItemId": 7},
                            {"rlnMicrographName": "micrographs/file0.mrc", "siamese2dItemId": 5}]})
        output = SetOfMicrographs(filename="output.sqlite")
        output.copyInfo(micrographs)
        convert.readMicrographs("done.star", micrographs, output)
        output.write()
        self.assertSet(output, size=2, pixelSize=4.0)
        self.assertEqual([(m.getObjId(), m.getMicName(), m.getFileName(), m.getSamplingRate()) for m in output],
                         [(5, "grid1_0", "micrographs/file0.mrc", 4.0), (7, "grid1_2", "micrographs/file2.mrc", 4.0)])
        self.assertEqual(output.getAcquisition().getVoltage(), ACQUISITION["voltage"])

    def testMixedPixelSizesAreRefused(self):
        writeTables("done.star", {
            "optics": [{"rlnMicrographPixelSize": 4.0}, {"rlnMicrographPixelSize": 5.0}],
            "micrographs": [{"rlnMicrographName": "a.mrc", "siamese2dItemId": 5}]})
        with self.assertRaisesRegex(ValidationException, "done.star: the micrographs differ in pixel size"):
            convert.readMicrographs("done.star", self.makeMicrographs(), SetOfMicrographs(filename="output.sqlite"))


class TestCoordinates(FolderTest, SetAssertions):
    def testScaledToTheMicrographsTheyAreUsedOn(self):
        micrographs = self.makeMicrographs(pixelSize=2.0)
        coordinates = self.makeCoordinates(micrographs, [(0, 10, 20), (2, 31, 8)])
        smaller = self.makeMicrographs(pixelSize=4.0, name="smaller")
        self.assertEqual(convert.writeCoordinates("c.star", coordinates, smaller), 2)
        rows = list(readTable("c.star"))
        self.assertEqual([(float(r["rlnCoordinateX"]), float(r["rlnCoordinateY"])) for r in rows], [(5, 10), (15.5, 4)])
        self.assertEqual([r["rlnMicrographName"] for r in rows], ["smaller/file0.mrc", "smaller/file2.mrc"])

    def testMatchedByNameNotById(self):
        micrographs = self.makeMicrographs()
        coordinates = self.makeCoordinates(micrographs, [(0, 1, 2), (1, 3, 4)])
        renumbered = SetOfMicrographs(filename="renumbered.sqlite")
        renumbered.copyInfo(micrographs)
        for number, mic in enumerate(reversed([mic.clone() for mic in micrographs]), start=5):
            mic.setObjId(number)
            renumbered.append(mic)
        convert.writeCoordinates("c.star", coordinates, renumbered)
        self.assertEqual([r["rlnMicrographName"] for r in readTable("c.star")],
                         ["micrographs/file0.mrc", "micrographs/file1.mrc"])

    def testDisabledAndForeignAreLeftOut(self):
        micrographs = self.makeMicrographs()
        coordinates = self.makeCoordinates(micrographs, [(0, 1, 2), (1, 3, 4), (2, 5, 6)])
        second = coordinates[2].clone()
        second.setEnabled(False)
        coordinates.update(second)
        first = SetOfMicrographs(filename="first.sqlite")
        first.copyInfo(micrographs)
        for mic in micrographs:
            if mic.getObjId() != 7:
                first.append(mic.clone())
        self.assertEqual(convert.writeCoordinates("c.star", coordinates, first), 1)

    def testFractionsOfAPixelSurvive(self):
        micrographs = self.makeMicrographs()
        convert.writeMicrographs("m.star", micrographs)
        rows = [{"rlnMicrographName": "micrographs/file1.mrc", "rlnCoordinateX": 10.25, "rlnCoordinateY": 20.75,
                 "rlnAutopickFigureOfMerit": 1.5}]
        writeTables("picked.star", {"coordinates": rows})
        output = SetOfCoordinates(filename="picked.sqlite")
        output.setMicrographs(Pointer(value=micrographs))
        convert.readCoordinates("picked.star", "m.star", micrographs, output)
        output.write()
        self.assertSet(output, size=1)
        coordinate = output.getFirstItem()
        self.assertEqual(coordinate.getPosition(), (10, 21))
        self.assertEqual((coordinate.getMicId(), coordinate.getMicName()), (6, "grid1_1"))
        self.assertEqual(getattr(coordinate, ATTR_SCORE).get(), 1.5)
        convert.writeCoordinates("again.star", output, micrographs)
        row = next(readTable("again.star"))
        self.assertEqual((float(row["rlnCoordinateX"]), float(row["rlnCoordinateY"])), (10.25, 20.75))

    def testRowZeroIsYZero(self):
        """A bright spot near the first row, put there by hand, is where Scipion's y says."""
        image = np.zeros((40, 60))
        image[3, 50] = 100
        writeMrc("spot.mrc", image)
        read = ImageHandler().read("spot.mrc").getData()
        self.assertEqual(np.unravel_index(read.argmax(), read.shape), (3, 50))
        micrographs = self.makeMicrographs(1)
        convert.writeCoordinates("c.star", self.makeCoordinates(micrographs, [(0, 50, 3)]), micrographs)
        row = next(readTable("c.star"))
        self.assertEqual(image[int(float(row["rlnCoordinateY"])), int(float(row["rlnCoordinateX"]))], 100)


class TestParticles(FolderTest, SetAssertions):
    def testColumns(self):
        self.assertEqual(convert.writeParticles("p.star", self.makeParticles()), 6)
        rows = list(readTable("p.star", "particles"))
        self.assertEqual([row["siamese2dItemId"] for row in rows], ["2", "5", "8", "11", "14", "17"])
        self.assertEqual([row["rlnImageName"] for row in rows][:2], ["000006@stack.mrcs", "000005@stack.mrcs"])
        self.assertEqual([float(row["rlnDefocusU"]) for row in rows][:2], [10200, 10300])
        optics = next(readTable("p.star", "optics"))
        self.assertEqual((optics["rlnImageSize"], float(optics["rlnImagePixelSize"])), ("16", 3.0))

    def testWithoutCtf(self):
        convert.writeParticles("p.star", self.makeParticles(), withCtf=False)
        self.assertNotIn("rlnDefocusU", next(readTable("p.star", "particles")))

    def testAlignmentAndClassGoOut(self):
        source = self.makeParticles()
        particles = SetOfParticles(filename="aligned.sqlite")
        particles.copyInfo(source)
        particles.setAlignment2D()
        for number, particle in enumerate(source, start=1):
            aligned = particle.clone()
            aligned.setTransform(Transform(matrix=convert.alignmentMatrix(20.0 * number, 3.0, -6.0, number == 2, 3.0)))
            aligned.setClassId(number)
            particles.append(aligned)
        convert.writeParticles("p.star", particles)
        rows = list(readTable("p.star", "particles"))
        self.assertEqual([int(row["rlnClassNumber"]) for row in rows], [1, 2, 3, 4, 5, 6])
        self.assertEqual([int(row["rlnIsFlip"]) for row in rows], [0, 1, 0, 0, 0, 0])
        np.testing.assert_allclose([float(row["rlnAnglePsi"]) for row in rows], [20, 40, 60, 80, 100, 120], atol=1e-5)
        np.testing.assert_allclose([float(row["rlnOriginYAngst"]) for row in rows], -6, atol=1e-5)

    def testExtractedParticlesFindTheirCoordinates(self):
        micrographs = self.makeMicrographs(pixelSize=2.0)
        coordinates = self.makeCoordinates(micrographs, [(0, 10, 20), (1, 30, 8), (2, 11, 13)])
        writeMrc("out.mrcs", np.zeros((2, 8, 8)))
        writeTables("p.star", {
            "optics": [{"rlnOpticsGroup": 1, "rlnImagePixelSize": 4.0}],
            "particles": [
                {"rlnImageName": "2@out.mrcs", "siamese2dItemId": 3, "rlnDefocusU": 9000.0, "rlnDefocusV": 8000.0,
                 "rlnDefocusAngle": 10.0},
                {"rlnImageName": "1@out.mrcs", "siamese2dItemId": 1, "rlnDefocusU": 7000.0, "rlnDefocusV": 6000.0,
                 "rlnDefocusAngle": 20.0}]})
        output = SetOfParticles(filename="out.sqlite")
        output.setHasCTF(True)
        convert.readParticles("p.star", coordinates, micrographs, output)
        output.write()
        self.assertSet(output, size=2, pixelSize=4.0, dimensions=(8, 8))
        found = [(p.getObjId(), p.getLocation(), p.getMicId(), p.getCoordinate().getPosition(),
                  p.getCTF().getDefocusU()) for p in output]
        # Coordinates are in the pixels of the particles, as Scipion's own extraction of coordinates expects.
        self.assertEqual(found, [(1, (1, "out.mrcs"), 5, (5, 10), 7000.0), (3, (2, "out.mrcs"), 7, (6, 6), 9000.0)])
        convert.writeParticles("back.star", output, micrographPixelSize=2.0)
        rows = list(readTable("back.star", "particles"))
        self.assertEqual([(float(r["rlnCoordinateX"]), float(r["rlnCoordinateY"])) for r in rows], [(10, 20), (11, 13)])
        self.assertEqual([r["rlnMicrographName"] for r in rows], ["grid1_0", "grid1_2"])


class TestClasses(FolderTest, SetAssertions):
    def makeResult(self, particles):
        """What the engine would write: rows in reverse order, class 2 empty, one particle in no class."""
        writeMrc("classes.mrcs", np.random.default_rng(1).normal(size=(3, 16, 16)))
        ids = [particle.getObjId() for particle in particles][::-1]
        classOf = [1, 3, 1, 3, 3, 0]
        writeTables("particles.star", {"particles": [
            {"siamese2dItemId": item, "rlnClassNumber": number, "rlnAnglePsi": 10.0 * position, "rlnOriginXAngst": 3.0,
             "rlnOriginYAngst": -6.0, "rlnIsFlip": position % 2, "rlnMaxValueProbDistribution": 0.5 + position / 20}
            for position, (item, number) in enumerate(zip(ids, classOf))]})
        writeTables("classes.star", {"classes": [
            {"rlnReferenceImage": f"00000{number}@classes.mrcs", "rlnClassNumber": number, "siamese2dClassSize": size,
             "rlnClassDistribution": size / 6, "rlnEstimatedResolution": resolution, "siamese2dQuality": quality}
            for number, size, resolution, quality in [(1, 2, 12.5, 0.9), (2, 0, "inf", 0.0), (3, 3, 20.0, 0.4)]]})
        return dict(zip(ids, classOf))

    def testMembershipById(self):
        particles = self.makeParticles()
        expected = self.makeResult(particles)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        self.assertEqual(convert.readClasses(".", classes), 1)
        classes.write()
        self.assertSet(classes, size=2)
        found = {particle.getObjId(): cls.getObjId() for cls in classes.iterItems() for particle in cls}
        self.assertEqual(found, {item: number for item, number in expected.items() if number})

    def testAttributes(self):
        particles = self.makeParticles()
        self.makeResult(particles)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        convert.readClasses(".", classes)
        classes.write()
        stored = SetOfClasses2D(filename="classes.sqlite")
        sizes = {}
        for cls in stored.iterItems():
            attributes = [getattr(cls, name).get() for name in (ATTR_CLASS_SIZE, ATTR_RESOLUTION, ATTR_QUALITY)]
            sizes[cls.getObjId()] = (cls.getSize(), *attributes, cls.getRepresentative().getLocation())
            self.assertTrue(cls.hasAlignment2D())
            for particle in cls:
                self.assertTrue(particle.hasTransform())
                self.assertGreaterEqual(getattr(particle, ATTR_CONFIDENCE).get(), 0.5)
        self.assertEqual(sizes, {1: (2, 2, 12.5, 0.9, (1, "classes.mrcs")),
                                 3: (3, 3, 20.0, 0.4, (3, "classes.mrcs"))})

    def testTransformOfAMember(self):
        particles = self.makeParticles()
        self.makeResult(particles)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        convert.readClasses(".", classes)
        member = next(particle for cls in classes.iterItems() for particle in cls if particle.getObjId() == 14)
        expected = convert.alignmentMatrix(10.0, 3.0, -6.0, True, 3.0)
        np.testing.assert_allclose(member.getTransform().getMatrix(), expected)

    def testClassesGoOutWithTheirNumbers(self):
        particles = self.makeParticles()
        expected = self.makeResult(particles)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        convert.readClasses(".", classes)
        self.assertEqual(convert.writeClassMembers("members.star", classes), 5)
        rows = list(readTable("members.star", "particles"))
        self.assertEqual({int(r["siamese2dItemId"]): int(r["rlnClassNumber"]) for r in rows},
                         {item: number for item, number in expected.items() if number})
        angles = {int(row["siamese2dItemId"]): float(row["rlnAnglePsi"]) for row in rows}
        for row in readTable("particles.star"):
            if row["rlnClassNumber"] != "0":
                self.assertAlmostEqual(angles[int(row["siamese2dItemId"])], float(row["rlnAnglePsi"]), places=4)
        self.assertEqual(convert.writeClassMembers("members.star", classes, fewest=3), 3)

    def testAverages(self):
        particles = self.makeParticles()
        self.makeResult(particles)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        convert.readClasses(".", classes)
        averages = SetOfAverages(filename="averages.sqlite")
        averages.setSamplingRate(3.0)
        convert.readAverages(".", classes, averages)
        averages.write()
        self.assertSet(averages, size=2, pixelSize=3.0, dimensions=(16, 16))
        self.assertEqual([(a.getObjId(), a.getIndex(), getattr(a, ATTR_CLASS_SIZE).get()) for a in averages],
                         [(1, 1, 2), (3, 3, 3)])


class TestPosition(FolderTest):
    def testRoundedBesideItsError(self):
        coordinate = Coordinate()
        convert.setExactPosition(coordinate, 39.9, 40.2)
        self.assertEqual(coordinate.getPosition(), (40, 40))
        np.testing.assert_allclose(convert.exactPosition(coordinate), (39.9, 40.2))
        self.assertIsInstance(coordinate.xFrac, Float)
