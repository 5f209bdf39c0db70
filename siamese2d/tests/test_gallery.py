"""What the class gallery knows, without a window: sets of Scipion read by queries, order, selection, rendering."""

import os
import sqlite3
import time
import unittest
from unittest import mock

import mrcfile
import numpy as np
from pwem.objects import Class2D, SetOfClasses2D

from siamese2d.gallery import order
from siamese2d.gallery.class_list import Members, SetFileError, read_assignment, read_class_list
from siamese2d.gallery.criteria import Criteria, format_numbers, parse_numbers
from siamese2d.gallery.model import GalleryModel
from siamese2d.viewers.gallery.pictures import Look, low_pass, read_picture, render
from siamese2d.gallery.selection import Selection
from siamese2d.star import writeTables
from siamese2d.tests.class_sets import PIXEL_SIZE, ClassSets
from siamese2d.tests.layer import FolderTest, writeMrc
from siamese2d.viewers.gallery.time_slices import SLICE_SECONDS, TimeSlices
from siamese2d.viewers.plots.alignment import align, transform_image
from siamese2d.viewers.run_files import RunFileError


class TestClassList(ClassSets, FolderTest):
    def testClasses(self):
        found = read_class_list(self.makeClasses(resolutions=[9.5, 20.0, 7.0], qualities=[0.1, 0.2, 0.3]).getFileName())
        self.assertEqual([1, 2, 3], found.ids.tolist())
        self.assertEqual([3, 1, 2], found.sizes.tolist())
        self.assertEqual([9.5, 20.0, 7.0], found.resolutions.tolist())
        self.assertEqual([0.1, 0.2, 0.3], found.qualities.tolist())
        self.assertEqual([(1, "averages.mrcs"), (2, "averages.mrcs"), (3, "averages.mrcs")], found.pictures)
        self.assertEqual((PIXEL_SIZE, True, False, 6), (found.pixel_size, found.has_members, found.streaming,
                                                        found.particles))

    def testAverages(self):
        found = read_class_list(self.makeAverages().getFileName())
        self.assertEqual(([1, 2, 3], False, PIXEL_SIZE), (found.ids.tolist(), found.has_members, found.pixel_size))
        self.assertTrue(np.isnan(found.sizes).all() and np.isnan(found.resolutions).all())
        self.assertEqual((2, "averages alone.mrcs"), found.pictures[1])

    def testScoresOfOtherPrograms(self):
        classes = self.makeClasses()
        path = classes.getFileName()
        classes.close()
        with sqlite3.connect(path) as connection:
            for column, label, value in (("c90", "_rlnEstimatedResolution", 8.0),
                                         ("c91", "_rlnPredictedClassScore", 0.7)):
                connection.execute(f"ALTER TABLE Objects ADD COLUMN {column} REAL DEFAULT {value}")
                connection.execute("INSERT INTO Classes (label_property, column_name) VALUES (?, ?)", (label, column))
        found = read_class_list(path)
        self.assertEqual(([8.0] * 3, [0.7] * 3), (found.resolutions.tolist(), found.qualities.tolist()))

    def relionClasses(self, model=True, accuracies=(2.5, 999.0, 1.0)):
        """What RELION's plugin makes of a 2D classification, beside the model file that it was read from."""
        classes = self.makeClasses(averages="run_it025_classes.mrcs")
        path = classes.getFileName()
        classes.close()
        with sqlite3.connect(path) as connection:
            for column, label in (("c90", "_rlnClassDistribution"), ("c91", "_rlnAccuracyRotations"),
                                  ("c92", "_rlnAccuracyTranslationsAngst")):
                connection.execute(f"ALTER TABLE Objects ADD COLUMN {column} REAL DEFAULT 0.3")
                connection.execute("INSERT INTO Classes (label_property, column_name) VALUES (?, ?)", (label, column))
            for number, accuracy in enumerate(accuracies, start=1):
                connection.execute("UPDATE Objects SET c91 = ? WHERE id = ?", (accuracy, number))
        if model:
            writeTables("run_it025_model.star", {
                "model_general": [{"rlnReferenceDimensionality": 2}],
                "model_classes": [{"rlnReferenceImage": f"{number:06d}@Class2D/run_it025_classes.mrcs",
                                   "rlnClassDistribution": 0.3, "rlnEstimatedResolution": value}
                                  for number, value in ((3, 7.5), (1, 12.0), (2, "inf"))]})
        return path

    def testClassesOfRelion(self):
        found = read_class_list(self.relionClasses())
        np.testing.assert_array_equal([12.0, np.nan, 7.5], found.resolutions)
        np.testing.assert_array_equal([2.5, np.nan, 1.0], found.accuracies)
        self.assertEqual(["size", "resolution", "rotation accuracy", "class number", "similarity"],
                         order.available_orders(found))
        for name in ("resolution", "rotation accuracy"):
            self.assertEqual([3, 1, 2], order.sort_ids(found, name).tolist())
        self.assertEqual([3, 1], sorted(Criteria(max_resolution=12.0).accepted(found).tolist(), reverse=True))
        self.assertEqual("12.0 Å · 2.5°", GalleryModel(found).caption(1)[1])

    def testClassesOfRelionWithoutTheModelFile(self):
        for broken in (False, True):
            path = self.relionClasses(model=False)
            if broken:
                with open("run_it025_model.star", "w") as text:
                    text.write("data_model_classes\n\nloop_\n_rlnReferenceImage #1\n_rlnEstimatedResolution #2\nx 3\n")
            found = read_class_list(path)
            self.assertTrue(np.isnan(found.resolutions).all())
            self.assertNotIn("resolution", order.available_orders(found))

    def testClassesWithoutAverages(self):
        found = read_class_list(self.makeClasses(averages=None).getFileName())
        self.assertEqual([None] * 3, found.pictures)
        self.assertIn("3 of 3 classes have no average", " ".join(GalleryModel(found).notices()))

    def testSetThatIsStillGrowing(self):
        particles = self.makeParticles(number=4)
        classes = self.emptySet(SetOfClasses2D)
        classes.getImagesPointer().set(particles)
        classes.setStreamState(classes.STREAM_OPEN)
        cls = Class2D(objId=4)
        cls.copyInfo(particles)
        classes.append(cls)
        for particle in [particle.clone() for particle in particles][:3]:
            cls.append(particle)
        # The class's own row still says that it is empty, as between two updates of a stream.
        cls.write(properties=False)
        classes.write()
        found = read_class_list(classes.getFileName())
        self.assertEqual(([3], True), (found.sizes.tolist(), found.streaming))
        self.assertIn("still growing", " ".join(GalleryModel(found).notices()))

    def testDisabledClassCanNotBeSelected(self):
        classes = self.makeClasses()
        path = classes.getFileName()
        classes.close()
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE Objects SET enabled = 0 WHERE id = 2")
        model = GalleryModel(read_class_list(path))
        model.selection.replace([1, 2, 3])
        self.assertEqual([1, 3], model.selection.ids)
        self.assertIn("disabled by hand", model.describe(2))

    def testMembersLeastCertainFirst(self):
        classes = self.makeClasses(sizes=(4, 2))
        members = Members(classes.getFileName())
        found = members.of(1)
        first = classes[1]
        expected = {particle.getObjId(): particle.getLocation() for particle in first}
        self.assertEqual([0.6, 0.7, 0.8, 0.9], found.confidence.tolist())
        self.assertEqual(set(expected), set(found.ids.tolist()))
        places = members.places(1, found.ids[:2])
        self.assertEqual([expected[number] for number in found.ids[:2].tolist()], [place for place, _ in places])
        np.testing.assert_array_equal(np.diag([-1.0, 1.0, -1.0, 1.0]), places[0][1])
        self.assertEqual((None, 4), (members.places(1, [99])[0][0], len(members.places(1, [99])[0][1])))

    def testAssignment(self):
        classes = self.makeClasses(sizes=(3, 1, 2))
        particles, labels = read_assignment(classes.getFileName())
        expected = {particle.getObjId(): cls.getObjId() for cls in classes.iterItems() for particle in cls}
        self.assertEqual(expected, dict(zip(particles.tolist(), labels.tolist())))

    def testEmptyClass(self):
        path = self.makeClasses(sizes=(2, 0, 1)).getFileName()
        self.assertEqual([2, 0, 1], read_class_list(path).sizes.tolist())
        self.assertEqual(0, len(Members(path).of(2).ids))
        self.assertEqual([1, 1, 3], read_assignment(path)[1].tolist())

    def testFilesThatAreNoSets(self):
        with self.assertRaisesRegex(SetFileError, "no.sqlite: the file of this set is missing"):
            read_class_list("no.sqlite")
        with open("text#?.sqlite", "w") as file:
            file.write("hello " * 500)
        with self.assertRaisesRegex(SetFileError, "can't be read"):
            read_class_list("text#?.sqlite")
        with self.assertRaisesRegex(SetFileError, "has no class 77"):
            Members(self.makeClasses().getFileName()).of(77)

    def testReadingChangesNothing(self):
        path = self.makeClasses().getFileName()
        before = os.stat(path).st_mtime_ns
        os.chmod(path, 0o444)
        read_class_list(path)
        self.assertEqual(before, os.stat(path).st_mtime_ns)


class TestSelection(unittest.TestCase):
    def testToggleAndUndo(self):
        selection = Selection(range(1, 7))
        for number in (3, 5, 3):
            selection.toggle(number)
        self.assertEqual([5], selection.ids)
        selection.undo()
        self.assertEqual([3, 5], selection.ids)
        selection.invert()
        self.assertEqual([1, 2, 4, 6], selection.ids)
        for _ in range(9):
            selection.undo()
        self.assertEqual([], selection.ids)

    def testRangeFollowsTheOrderShown(self):
        selection, shown = Selection(range(1, 7)), [6, 1, 5, 2, 4, 3]
        selection.toggle(1)
        selection.extend(4, shown)
        self.assertEqual([1, 2, 4, 5], selection.ids)
        selection.toggle(4)
        selection.extend(5, shown)
        self.assertEqual([1], selection.ids)

    def testRangeWithoutBeginningIsAClick(self):
        selection = Selection([1, 2])
        selection.extend(2, [1, 2])
        self.assertEqual([2], selection.ids)

    def testWhatIsNotThereIsNotSelected(self):
        selection = Selection([1, 2])
        selection.add([2, 3])
        self.assertEqual([2], selection.ids)
        self.assertTrue(2 in selection and 3 not in selection)
        selection.remove([2, 9])
        self.assertEqual(0, len(selection))


class TestCriteria(ClassSets, FolderTest):
    def testAllThresholdsMustBeMet(self):
        found = read_class_list(self.makeClasses(sizes=(3, 1, 2), resolutions=[9.0, 5.0, None],
                                                 qualities=[0.1, 0.2, 0.3]).getFileName())
        for criteria, expected in ((Criteria(min_size=2), [1, 3]), (Criteria(max_resolution=9.0), [1, 2]),
                                   (Criteria(min_quality=0.2), [2, 3]), (Criteria(2, 9.0, 0.1), [1]),
                                   (Criteria(4), [])):
            self.assertEqual(expected, criteria.accepted(found).tolist())
        self.assertEqual([], Criteria(1, 1.0, 1.0).unknown(found))

    def testThresholdOnWhatIsNotKnown(self):
        found = read_class_list(self.makeAverages().getFileName())
        self.assertEqual(["size", "quality"], Criteria(min_size=1, min_quality=0.5).unknown(found))
        self.assertEqual([], Criteria(min_size=1).accepted(found).tolist())

    def testNumbersAsText(self):
        for numbers, text in (([], ""), ([7], "7"), ([3, 1, 2, 9, 8, 2], "1-3,8-9"), ([1, 3, 5], "1,3,5")):
            self.assertEqual(text, format_numbers(numbers))
            self.assertEqual(sorted(set(numbers)), parse_numbers(text))
        self.assertEqual([1, 2, 3, 7], parse_numbers(" 1 - 3  7,"))
        for wrong in ("a", "1-", "3--4", "1.5", "-2"):
            with self.assertRaisesRegex(ValueError, "neither a number nor a range"):
                parse_numbers(wrong)


class TestOrder(ClassSets, FolderTest):
    def testOrders(self):
        classes = self.makeClasses(sizes=(3, 1, 2), resolutions=[9.0, None, 7.0])
        found = read_class_list(classes.getFileName())
        self.assertEqual(["size", "resolution", "class number", "similarity"], order.available_orders(found))
        for name, expected in (("size", [1, 3, 2]), ("resolution", [3, 1, 2]), ("class number", [1, 2, 3])):
            self.assertEqual(expected, order.sort_ids(found, name).tolist())
        self.assertEqual([1, 3, 2], order.sort_ids(found, "resolution", descending=True).tolist())
        self.assertEqual([2, 3, 1], order.sort_ids(found, "size", descending=True).tolist())

    def testFeaturesDoNotSeeRotationsAndMirrors(self):
        y, x = np.mgrid[:48, :48] - 24
        image = np.exp(-((x - 6) ** 2 + y ** 2) / 20) + 0.6 * np.exp(-((x + 4) ** 2 + (y - 7) ** 2) / 12)
        other = np.exp(-(x ** 2 / 60 + y ** 2 / 10))
        moved = align(image, 73, (0, 0), True)
        same = order.features(image) @ order.features(moved)
        self.assertGreater(same, 0.98)
        self.assertLess(order.features(image) @ order.features(other), same - 0.1)
        self.assertEqual(0, np.abs(order.features(np.full((20, 20), 3.0))).max())

    def testNeighboursAreAlike(self):
        generator = np.random.default_rng(0)
        groups = np.repeat(np.arange(5), 8)
        points = 10 * np.eye(5)[groups] + generator.normal(0, 0.3, (40, 5))
        shuffled = generator.permutation(40)
        path = order.similarity_order(points[shuffled])
        self.assertEqual(list(range(40)), sorted(path.tolist()))
        self.assertEqual(4, np.count_nonzero(np.diff(groups[shuffled][path])))

    def testPathOnALineIsTheLine(self):
        values = np.random.default_rng(1).permutation(30).astype(float)
        values = np.concatenate([[0.0], values[values > 0]])[:, None]
        path = order.similarity_order(values)
        self.assertEqual(29, np.abs(np.diff(values[path, 0])).sum())
        self.assertEqual([0, 1], order.similarity_order(np.eye(2)).tolist())
        self.assertEqual([], order.similarity_order(np.empty((0, 3))).tolist())


class TestPictures(FolderTest):
    def testReading(self):
        writeMrc("a.mrcs", np.arange(3)[:, None, None] * np.ones((3, 8, 8)))
        self.assertEqual(1, read_picture((2, "a.mrcs"))[0, 0])
        self.assertEqual(2, read_picture((3, "a.mrcs:mrcs"))[0, 0])
        for location, said in ((None, "has no average"), ((1, "gone.mrcs"), "gone.mrcs is missing"),
                               ((1, "gone.stk"), "gone.stk is missing"), ((9, "a.mrcs"), "a.mrcs can't be read")):
            with self.assertRaisesRegex(RunFileError, said):
                read_picture(location)

    def testFormatsThatScipionReads(self):
        from pwem.emlib.image import ImageHandler
        image = np.random.default_rng(0).normal(size=(10, 10)).astype(np.float32)
        mrcfile.write("b.mrc", image)
        ImageHandler().convert("b.mrc", "b.spi")
        np.testing.assert_allclose(image, read_picture((1, "b.spi")), rtol=1e-5)
        with open("bad.spi", "wb") as file:
            file.write(b"x" * 5000)
        with self.assertRaisesRegex(RunFileError, "bad.spi can't be read"):
            read_picture((1, "bad.spi"))

    def testContrastStretchesAroundTheMiddle(self):
        image = np.linspace(0, 1, 64 * 64).reshape(64, 64)
        plain, strong = (render(image, Look(64, contrast), None).astype(int) for contrast in (1.0, 2.0))
        self.assertLessEqual(plain[0, 0], 1)
        self.assertGreaterEqual(plain[-1, -1], 254)
        middle = np.abs(plain - 127.5) < 60
        np.testing.assert_allclose(127.5 + 2 * (plain[middle] - 127.5), strong[middle], atol=4)
        self.assertGreater((strong == 0).mean(), 0.2)

    def testOddImages(self):
        for image in (np.full((9, 9), np.nan), np.zeros((9, 9)), np.ones((4, 30)), np.eye(300)):
            shown = render(image, Look(32, low_pass=8.0), None)
            self.assertEqual(((32, 32), np.uint8), (shown.shape, shown.dtype))

    def testLowPassHalvesItsPeriod(self):
        y, x = np.mgrid[:64, :64]
        for period, factor in ((16, 0.5), (8, 0.5 ** 4), (64, 0.5 ** (1 / 16))):
            wave = np.cos(2 * np.pi * x / period).astype(np.float32)
            np.testing.assert_allclose(factor * wave, low_pass(wave, 16.0), atol=1e-5)
        self.assertIs(wave, low_pass(wave, 1.5))

    def testTransformIsTheAlignment(self):
        image = np.random.default_rng(0).normal(size=(21, 21)).astype(np.float32)
        np.testing.assert_allclose(image, transform_image(image, np.eye(4)))
        np.testing.assert_allclose(image, transform_image(image, np.zeros((4, 4))))
        quarter = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        # Content at (x, y) goes to (-y, x), so what is at row y', column x' was at (y', -x').
        np.testing.assert_allclose(np.rot90(image, -1), transform_image(image, quarter), atol=1e-5)
        shifted = np.eye(4)
        shifted[:2, 3] = 2, -3
        np.testing.assert_allclose(image[3:, :-2], transform_image(image, shifted)[:-3, 2:], atol=1e-5)


class TestModel(ClassSets, FolderTest):
    def model(self, **values):
        classes = self.makeClasses(sizes=(3, 0, 2), resolutions=[9.0, None, 7.0], qualities=[0.1, 0.2, 0.3], **values)
        return GalleryModel(read_class_list(classes.getFileName()), classes.getImages().getSize())

    def testWords(self):
        model = self.model()
        self.assertEqual("3 classes of 5 particles, 1 empty; 3 particles in no class; 3 Å per pixel", model.heading())
        self.assertEqual(("3 · 37.5%", "9.0 Å · q 0.10"), model.caption(1))
        self.assertEqual(("empty", "q 0.20"), model.caption(2))
        self.assertEqual("Class 3 · 2 particles · 25.0% · resolution 7.00 Å · quality 0.300", model.describe(3))
        self.assertEqual("0 of 3 classes, 0 of 8 particles (0.0%) selected", model.status())
        self.assertEqual([], model.notices())
        model.select_where(Criteria(min_size=2, max_resolution=8.0))
        self.assertEqual("1 of 3 classes, 2 of 8 particles (25.0%) selected", model.status())

    def testAverages(self):
        model = GalleryModel(read_class_list(self.makeAverages(1).getFileName()))
        self.assertEqual("1 average; 3 Å per pixel", model.heading())
        self.assertEqual(("", ""), model.caption(1))
        self.assertEqual("0 of 1 average selected", model.status())

    def testEmptySet(self):
        classes = self.emptySet(SetOfClasses2D)
        classes.getImagesPointer().set(self.makeParticles())
        classes.write()
        model = GalleryModel(read_class_list(classes.getFileName()))
        self.assertEqual(("An empty set", ["There is nothing in this set yet."]), (model.heading(), model.notices()))
        self.assertEqual([], list(model.order))

    def testOrderBySimilarityComesWhenItIsKnown(self):
        model = self.model()
        model.order_name = "similarity"
        self.assertEqual(([1, 2, 3], False), (list(model.order), model.similarity_known))
        model.set_similarity([3, 1, 2])
        self.assertEqual([3, 1, 2], list(model.order))
        model.descending = True
        self.assertEqual([2, 1, 3], list(model.order))


class TestTimeSlices(unittest.TestCase):
    """In a made-up event loop."""

    def setUp(self):
        self.timers, self.done = {}, []

    def bind(self, _event, act, add=None):
        self.destroyed = act

    def after(self, _ms, act):
        self.timers[len(self.timers)] = act
        return len(self.timers) - 1

    def after_cancel(self, timer):
        self.timers[timer] = None

    def turn(self):
        act = self.timers[len(self.timers) - 1]
        if act is not None:
            act()

    def slices(self, compute):
        return TimeSlices(self, compute, lambda job, result: self.done.append((job, result)))

    def testResultsAndErrors(self):
        self.slices(lambda job: 1 // job).want([1, 0])
        self.turn()
        (first, one), (second, error) = self.done
        self.assertEqual((1, 1, 0), (first, one, second))
        self.assertIsInstance(error, ZeroDivisionError)

    def testOneSliceIsShort(self):
        self.slices(lambda _job: time.sleep(SLICE_SECONDS)).want(range(3))
        for done in (1, 2, 3):
            self.turn()
            self.assertEqual(done, len(self.done))

    def testWhatIsNoLongerWantedIsDropped(self):
        slices = self.slices(lambda _job: time.sleep(SLICE_SECONDS))
        slices.want([1, 2, 3])
        self.turn()
        slices.want([9])
        self.turn()
        self.assertEqual([1, 9], [job for job, _ in self.done])
        slices.want([4])
        slices.close()
        self.turn()
        self.assertEqual(2, len(self.done))

    def testNothingIsDoneForAWindowThatIsGone(self):
        slices = self.slices(lambda job: job)
        slices.want([1])
        self.destroyed(mock.Mock(widget=self))
        self.turn()
        self.assertEqual([], self.done)

    def testDeliveryMayAskForMore(self):
        slices = TimeSlices(self, lambda job: job, lambda job, _result: job == 1 and slices.want([2]) or
                            self.done.append(job))
        slices.want([1, 5])
        self.turn()
        self.assertEqual([1, 2], self.done)


if __name__ == "__main__":
    unittest.main()
