"""The map of an embedding: what a lasso takes, what is shown of it, and the subset that it makes."""

import json
import os
import unittest
from unittest import mock

import matplotlib

matplotlib.use("Agg")

import mrcfile
import numpy as np
import pyworkflow.tests as pwtests
from pwem.objects import Particle
from pyworkflow.viewer import MessageView

import siamese2d.protocols as protocols
import siamese2d.viewers as viewers
from siamese2d.gallery.particle_list import free_name, read_particle_list, write_particle_list
from siamese2d.objects import EmbeddingModel
from siamese2d.star import writeTables
from siamese2d.tests.layer import FolderTest, SetAssertions, WindowTest, setAcquisition, writeMrc
from siamese2d.viewers.embedding_map.map_model import COMPONENTS, T_SNE, MapModel
from siamese2d.viewers.embedding_map.map_view import MapView, launch_particles
from siamese2d.viewers.embedding_map.map_window import MapWindow
from siamese2d.viewers.embedding_map.particles import RunningMean
from siamese2d.viewers.plots import embedding
from siamese2d.viewers.plots.alignment import align
from siamese2d.viewers.run_files import RunFileError, RunFolder

BOX, PIXEL_SIZE = 12, 3.0
# Where the particles lie on both maps: two groups far apart, of four and of two.
PLACES = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [20, 0], [21, 0]], dtype=float)
LEFT, RIGHT, NOWHERE = ([[x, y] for x, y in ((-w, -w), (w, -w), (w, w), (-w, w))] for w in (5, 5, 5))
RIGHT = np.add(RIGHT, [20, 0])
NOWHERE = np.add(NOWHERE, [10, 100])


def writeRun(folder, stack, tsne=None, count=6):
    """The files of a training: particles in `stack` with ids 10, 11, ..., embedded as `PLACES` says."""
    os.makedirs(os.path.join(folder, "input"), exist_ok=True)
    os.makedirs(os.path.join(folder, "train"), exist_ok=True)
    writeTables(os.path.join(folder, "input", "particles.star"), {
        "optics": [{"rlnOpticsGroup": 1, "rlnImagePixelSize": PIXEL_SIZE}],
        "particles": [{"rlnImageName": f"{n + 1}@{stack}", "siamese2dItemId": 10 + n,
                       "rlnMicrographName": f"mic{n // 4}"} for n in range(count)]})
    np.save(os.path.join(folder, "train", "embeddings.npy"), PLACES)
    with open(os.path.join(folder, "train", "training.json"), "w") as report:
        json.dump({"map": tsne} if tsne else {}, report)


def writeClassification(folder):
    """Particles 10 to 13 in classes 7, 7, 4 and none; the others are not in it."""
    os.makedirs(folder, exist_ok=True)
    writeTables(os.path.join(folder, "particles.star"), {"particles": [
        {"siamese2dItemId": 13 - n, "rlnClassNumber": number, "rlnMaxValueProbDistribution": confidence,
         "rlnAnglePsi": 90.0, "rlnOriginXAngst": 2 * PIXEL_SIZE, "rlnOriginYAngst": 0.0, "rlnIsFlip": 1}
        for n, (number, confidence) in enumerate(((0, 0.1), (4, 0.5), (7, 0.3), (7, 0.9)))]})


class MapTest(FolderTest):
    """A run in the folder, with or without a classification."""

    def setUp(self):
        super().setUp()
        self.images = np.random.default_rng(0).normal(size=(6, BOX, BOX)).astype(np.float32)
        writeMrc("stack.mrcs", self.images)

    def model(self, classified=True, tsne=None, **options):
        writeRun("run", "stack.mrcs", tsne, **options)
        if classified:
            writeClassification("classified")
        classification = RunFolder("classified") if classified else None
        return MapModel(RunFolder("run/train"), RunFolder("run/input"), classification)


class TestMapModel(MapTest):
    def components(self, model, polygon):
        """A polygon of the plane of `PLACES` on the axes of the principal components."""
        points = model.points(COMPONENTS)
        # The components are the axes of PLACES up to a rotation, found here from the dots themselves.
        ones = np.ones((len(PLACES), 1))
        affine = np.linalg.lstsq(np.hstack([PLACES, ones]), points.places, rcond=None)[0]
        return points, np.hstack([np.asarray(polygon, dtype=float), np.ones((len(polygon), 1))]) @ affine

    def testLassoOnPrincipalComponents(self):
        model = self.model()
        self.assertEqual([COMPONENTS], model.layouts)
        points, polygon = self.components(model, LEFT)
        self.assertEqual("4 of 6 particles selected (66.7%)", model.lasso(points, polygon))
        self.assertEqual([10, 11, 12, 13], model.ids)
        points, polygon = self.components(model, RIGHT)
        model.lasso(points, polygon, "add")
        self.assertEqual(list(range(6)), model.rows.tolist())
        model.lasso(points, polygon, "remove")
        self.assertEqual([10, 11, 12, 13], model.ids)

    def testEmptyLassoChangesNothing(self):
        model = self.model()
        points, polygon = self.components(model, RIGHT)
        model.lasso(points, polygon)
        _, nowhere = self.components(model, NOWHERE)
        for empty in (nowhere, nowhere[:2], np.empty((0, 2))):
            self.assertIn("no particle inside", model.lasso(points, empty))
            self.assertEqual([14, 15], model.ids)

    def testParticlesThatAreNotDrawnOnTheTsneMapGoWithTheirNeighbours(self):
        model = self.model(tsne={"rows": [4, 0], "x": [5.0, -5.0], "y": [0.0, 0.0], "explained": 0.9})
        self.assertEqual([T_SNE, COMPONENTS], model.layouts)
        points = model.points(T_SNE)
        self.assertIn("t-SNE 1 (of 90% of the variance)", points.axis_names)
        self.assertIn("most similar", points.undrawn)
        model.lasso(points, np.array([[4, -1], [6, -1], [6, 1], [4, 1]]))
        self.assertEqual([14, 15], model.ids)
        model.lasso(points, np.array([[-4, -1], [-6, -1], [-6, 1], [-4, 1]]))
        self.assertEqual([10, 11, 12, 13], model.ids)

    def testOfManyOnlySomeAreDrawnAndAllAreTaken(self):
        with mock.patch.object(embedding, "MAX_POINTS", 4):
            model = self.model()
            points, polygon = self.components_of_some(model)
            first = points.rows.tolist()
            self.assertEqual((4, first), (len(first), model.points(COMPONENTS).rows.tolist()))
            self.assertIn("own places", points.undrawn)
            model.lasso(points, polygon)
        self.assertEqual(list(range(10, 16)), model.ids)

    def components_of_some(self, model):
        points = model.points(COMPONENTS)
        far = 1000
        return points, np.array([[-far, -far], [far, -far], [far, far], [-far, far]])

    def testEmbeddingsThatAreNotFiniteAreNeverTaken(self):
        self.model()
        places = PLACES.copy()
        places[1] = np.nan
        np.save("run/train/embeddings.npy", places)
        model = MapModel(RunFolder("run/train"), RunFolder("run/input"), None)
        points, polygon = self.components_of_some(model)
        model.lasso(points, polygon)
        self.assertEqual([10, 12, 13, 14, 15], model.ids)

    def testWithoutTsneMap(self):
        with self.assertRaisesRegex(RunFileError, "made no t-SNE map"):
            self.model().points(T_SNE)

    def testFilesThatDoNotBelongTogether(self):
        with self.assertRaisesRegex(RunFileError, "5 particles, but there are 6 embeddings"):
            self.model(count=5)

    def testGroupsLargestFirstWithTheLeastCertainFirst(self):
        model = self.model()
        groups = [(number, rows.tolist()) for number, rows in model.particles.groups(np.arange(6))]
        # Rows 4 and 5 were not classified; row 3 was found to be in no class.
        self.assertEqual([(7, [1, 0]), (4, [2]), (0, [3, 4, 5])], groups)
        self.assertEqual([(0, list(range(6)))], [(number, rows.tolist()) for number, rows in
                                                 self.model(classified=False).particles.groups(np.arange(6))])

    def testImagesAreAlignedWhereAClassGivesThePose(self):
        particles = self.model().particles
        self.assertEqual([True] * 3 + [False] * 3, [particles.aligned(row) for row in range(6)])
        np.testing.assert_allclose(align(self.images[2], 90.0, (2.0, 0.0), True), particles.image(2), rtol=1e-5)
        np.testing.assert_array_equal(self.images[3], particles.image(3))

    def testClassesOfTheTableItselfWithoutAClassification(self):
        self.model()
        writeTables("run/input/particles.star", {"optics": [{"rlnImagePixelSize": PIXEL_SIZE}], "particles": [
            {"rlnImageName": f"{n + 1}@stack.mrcs", "siamese2dItemId": 10 + n, "rlnClassNumber": 1 + n % 2}
            for n in range(6)]})
        particles = MapModel(RunFolder("run/train"), RunFolder("run/input"), None).particles
        self.assertEqual([1, 2, 1, 2, 1, 2], particles.classes.tolist())
        self.assertFalse(particles.aligned(0))

    def testMeanCountsWhatCanNotBeRead(self):
        mean = RunningMean()
        with self.assertRaisesRegex(RunFileError, "no image"):
            mean.mean()
        for image in (self.images[0], RunFileError("a.mrcs is missing."), self.images[1], np.ones((3, 3))):
            mean.add(image)
        self.assertEqual((2, 2), (mean.count, mean.failed))
        np.testing.assert_allclose(self.images[:2].mean(axis=0), mean.mean(), rtol=1e-5)
        mean = RunningMean()
        mean.add(RunFileError("a.mrcs is missing."))
        with self.assertRaisesRegex(RunFileError, "a.mrcs is missing"):
            mean.mean()

    def testColours(self):
        model = self.model()
        figure = model.draw(model.points(COMPONENTS), model.colors("class"))
        grey, coloured = figure.axes[0].collections[:2]
        self.assertEqual((3, 3), (len(grey.get_offsets()), len(coloured.get_offsets())))
        self.assertEqual(["7", "4"], [text.get_text() for text in figure.axes[0].get_legend().get_texts()])
        first, second, third = coloured.get_facecolors()
        self.assertTrue(np.allclose(first, second) and not np.allclose(first, third))
        np.testing.assert_allclose([0.9, 0.3, 0.5, 0.1, np.nan, np.nan], model.colors("confidence of the class").values)
        self.assertEqual(["mic0", "mic1"], model.colors("micrograph").names)
        self.assertIsNone(model.colors("nothing"))

    def testColoursThatAreNotKnown(self):
        for color, said in (("defocus", "no defocus to colour"), ("class in the input", "no class to colour"),
                            ("class", "in this project has used this embedding")):
            with self.assertRaisesRegex(RunFileError, said):
                self.model(classified=False).colors(color)


class TestMapWindow(MapTest, WindowTest):
    def open(self, keep=None, **options):
        window = MapWindow(self.root, "test", self.model(**options), keep)
        self.wait(lambda: window.canvas.get_tk_widget().winfo_width() > 100)
        window.canvas.draw()
        return window

    def drag(self, window, polygon, state=0):
        """Draw around a polygon of the plane of `PLACES` with the left button."""
        affine = np.linalg.lstsq(np.hstack([PLACES, np.ones((6, 1))]), window.points.places, rcond=None)[0]
        corners = np.hstack([np.asarray(polygon, dtype=float), np.ones((4, 1))]) @ affine
        widget = window.canvas.get_tk_widget()
        x, y = window.axes.transData.transform(corners).T
        pixels = [(int(a), int(widget.winfo_height() - b)) for a, b in zip(x, y)]
        widget.event_generate("<ButtonPress-1>", x=pixels[0][0], y=pixels[0][1], state=state)
        for px, py in [*pixels[1:], pixels[0]]:
            widget.event_generate("<B1-Motion>", x=px, y=py, state=state | 0x100)
        widget.event_generate("<ButtonRelease-1>", x=pixels[0][0], y=pixels[0][1], state=state | 0x100)
        self.wait(lambda: window.panel.complete)

    def texts(self, grid):
        canvas = grid.canvas
        return [canvas.itemcget(item, "text") for item in canvas.find_all() if canvas.type(item) == "text"]

    def around(self, first, last, margin=0.4):
        low, high = PLACES[first:last].min(axis=0) - margin, PLACES[first:last].max(axis=0) + margin
        return [low, (high[0], low[1]), high, (low[0], high[1])]

    def testLassoShowsAveragesAndMembers(self):
        window = self.open()
        self.drag(window, self.around(0, 4))
        self.assertEqual([10, 11, 12, 13], window.model.ids)
        self.assertEqual([7, 4, 0], window.panel.averages.keys)
        np.testing.assert_allclose(np.mean([window.model.particles.image(row) for row in (0, 1)], axis=0),
                                   window.panel.means[7].mean(), rtol=1e-4, atol=1e-6)
        self.assertIn("2 particles", self.texts(window.panel.averages))
        self.assertIn("in no class", self.texts(window.panel.averages))
        self.assertEqual([1, 0, 2, 3], window.panel.members.keys)
        self.assertEqual(["30%", "90%", "50%", "10%"],
                         [text for text in self.texts(window.panel.members) if "%" in text])
        self.assertEqual("4 of 6 particles selected (66.7%)", window._status.cget("text"))
        self.assertEqual(4, len(window._selected_dots.get_offsets()))

    def testClickOnAnAverageShowsTheParticlesOfItsClass(self):
        window = self.open()
        self.drag(window, self.around(0, 4))
        for number, expected in ((7, [1, 0]), (4, [2]), (4, [1, 0, 2, 3])):
            grid = window.panel.averages
            left, top, _, _ = grid.box(grid.keys.index(number))
            for kind in ("<ButtonPress-1>", "<ButtonRelease-1>"):
                grid.canvas.event_generate(kind, x=left + 9, y=top + 9)
            self.assertEqual(expected, window.panel.members.keys)
        self.drag(window, self.around(4, 6))
        self.assertEqual([4, 5], window.panel.members.keys)

    def testShiftAddsControlTakesAwayEscapeForgets(self):
        window = self.open()
        self.drag(window, self.around(0, 2))
        self.drag(window, self.around(4, 6), state=0x1)
        self.assertEqual([10, 11, 14, 15], window.model.ids)
        self.drag(window, self.around(5, 6), state=0x4)
        self.assertEqual([10, 11, 14], window.model.ids)
        window.root.event_generate("<Escape>")
        self.assertEqual([], window.model.ids)
        window.root.event_generate("<Control-z>")
        self.assertEqual([10, 11, 14], window.model.ids)

    def testEmptyLassoSaysSo(self):
        window = self.open()
        self.drag(window, self.around(0, 2))
        self.drag(window, [(8, 0.2), (9, 0.2), (9, 0.8), (8, 0.8)])
        self.assertIn("no particle inside", window._hint.cget("text"))
        self.assertEqual([10, 11], window.model.ids)

    def testWithoutClassesThereIsOnePlainMean(self):
        window = self.open(classified=False)
        self.drag(window, self.around(0, 4))
        self.assertEqual([0], window.panel.averages.keys)
        np.testing.assert_allclose(self.images[:4].mean(axis=0), window.panel.means[0].mean(), rtol=1e-4, atol=1e-6)
        self.assertIn("plain mean", window.panel._hint.cget("text"))

    def testMissingStack(self):
        os.remove("stack.mrcs")
        window = self.open()
        self.drag(window, self.around(0, 4))
        self.assertEqual(4, self.texts(window.panel.members).count("file missing"))
        self.assertEqual(3, self.texts(window.panel.averages).count("file missing"))
        self.assertEqual([10, 11, 12, 13], window.model.ids)

    def testColoursAndAxes(self):
        window = self.open(tsne={"rows": [4, 0], "x": [5.0, -5.0], "y": [0.0, 0.0], "explained": 0.9})
        self.assertEqual(T_SNE, window._layout.get())
        window.model.selection.replace([0])
        for color, layout, dots in (("class", COMPONENTS, 6), ("micrograph", T_SNE, 2)):
            window.show(color, layout)
            self.assertEqual((color, layout, dots),
                             (window._color.get(), window._layout.get(), len(window.points.rows)))
            self.assertEqual([10], window.model.ids)
        window.show("defocus", COMPONENTS)
        self.assertEqual("nothing", window._color.get())
        self.assertIn("no defocus to colour", window._hint.cget("text"))

    def testWheelZoomsAndDoubleClickGoesBack(self):
        window = self.open()
        widget, before = window.canvas.get_tk_widget(), window.axes.get_xlim()
        x, y = widget.winfo_width() // 3, widget.winfo_height() // 2
        widget.event_generate("<Button-4>", x=x, y=y)
        narrow = window.axes.get_xlim()
        self.assertAlmostEqual((before[1] - before[0]) / 1.25, narrow[1] - narrow[0])
        for kind in ("<ButtonPress-1>", "<ButtonRelease-1>") * 2:
            widget.event_generate(kind, x=x, y=y)
        np.testing.assert_allclose(before, window.axes.get_xlim())

    def testKeep(self):
        kept = []
        window = self.open(keep=lambda model, layout, _parent: kept.append((model.ids, layout)) or "done")
        self.assertTrue(window._keep.instate(["disabled"]))
        window.keep()
        self.assertIn("Nothing is selected", window._hint.cget("text"))
        self.drag(window, self.around(4, 6))
        window._keep.invoke()
        self.assertEqual(([([14, 15], COMPONENTS)], "done"), (kept, window._hint.cget("text")))
        with mock.patch.object(window, "_keep_action", side_effect=OSError("the disk is full")):
            window.keep()
        self.assertIn("the disk is full", window._hint.cget("text"))
        self.assertEqual([14, 15], window.model.ids)


class TestParticleList(FolderTest):
    def testWrittenAndRead(self):
        write_particle_list("a folder/list.txt", [3, 1, 2], ["three", "of many"])
        self.assertEqual(({1, 2, 3}, ["three", "of many"]), read_particle_list("a folder/list.txt"))

    def testBadFiles(self):
        for content, said in ((b"# nothing\n\n", "lists no particle"), (b"1\n2 3\n", "line 2: '2 3' is no id"),
                              (b"-1\n", "line 1"), (b"\xff\xfe", "can't be read")):
            with open("list.txt", "wb") as text:
                text.write(content)
            with self.assertRaisesRegex(ValueError, f"list.txt.*{said}"):
                read_particle_list("list.txt")
        with self.assertRaisesRegex(ValueError, "no.txt can't be read"):
            read_particle_list("no.txt")

    def testNamesAreNotTakenTwice(self):
        self.assertEqual(os.path.join(".", "a_1.txt"), free_name(".", "a"))
        write_particle_list("a_1.txt", [1], [])
        self.assertEqual(os.path.join(".", "a_2.txt"), free_name(".", "a"))


class TestSubset(SetAssertions, pwtests.BaseTest):
    """From the map to a set in a real project."""

    @classmethod
    def setUpClass(cls):
        pwtests.setupTestProject(cls)
        source = cls.newProtocol(protocols.Siamese2DProtExtract)
        cls.proj.saveProtocol(source)
        os.makedirs(source._getExtraPath(), exist_ok=True)
        stack = source._getExtraPath("stack.mrcs")
        mrcfile.write(stack, np.random.default_rng(0).normal(size=(6, BOX, BOX)).astype(np.float32))
        particles = source._createSetOfParticles()
        particles.setSamplingRate(PIXEL_SIZE)
        setAcquisition(particles)
        for number in range(6):
            particle = Particle(location=(number + 1, stack), objId=10 + number)
            particle.setSamplingRate(PIXEL_SIZE)
            particle.setEnabled(number != 3)
            particles.append(particle)
        source._defineOutputs(outputParticles=particles)
        cls.source, cls.training = source, cls.newProtocol(protocols.Siamese2DProtTrainEmbedding)
        cls.training.inputParticles.set(source)
        cls.training.inputParticles.setExtended("outputParticles")
        cls.proj.saveProtocol(cls.training)
        writeRun(cls.training._getExtraPath(), stack)
        cls.training._defineOutputs(outputEmbedding=EmbeddingModel(filename="e.safetensors", pixelSize=PIXEL_SIZE))

    def model(self):
        viewer = viewers.Siamese2DTrainEmbeddingViewer(project=self.proj, protocol=self.training)
        viewer.setProtocol(self.training)
        view, = viewer._getVisualizeDict()["showMap"]("showMap")
        self.assertIsInstance(view, MapView)
        return view.model

    def prepared(self, path):
        protocol = self.newProtocol(protocols.Siamese2DProtSelectParticles)
        protocol.inputParticles.set(self.source)
        protocol.inputParticles.setExtended("outputParticles")
        protocol.listFile.set(path)
        return protocol

    def testLaunchedFromTheMap(self):
        model = self.model()
        model.selection.replace([5, 0, 3])
        with mock.patch.object(self.proj, "launchProtocol") as launched:
            protocol = launch_particles(self.proj, None, self.training, model, COMPONENTS, "an island")
        self.assertIs(protocol, launched.call_args.args[0])
        self.assertEqual(("an island", "outputParticles", self.source.getObjId()),
                         (protocol.getObjLabel(), protocol.inputParticles.getExtended(),
                          protocol.inputParticles.getObjValue().getObjId()))
        self.launchProtocol(protocol, wait=True)
        self.assertTrue(protocol.isFinished(), protocol.getErrorMessage())
        stored = self.proj.getProtocol(protocol.getObjId())
        self.assertSet(stored.outputParticles, 2, PIXEL_SIZE, (BOX, BOX))
        self.assertEqual([10, 15], [item.getObjId() for item in stored.outputParticles])
        original = self.source.outputParticles[15]
        self.assertEqual(original.getObjDict(), stored.outputParticles[15].getObjDict())
        summary = stored.summary()
        self.assertEqual(["2 of 6 particles kept.", "1 ids of the list are not in the set, or disabled there."],
                         summary[:2])
        self.assertIn("3 of 6 particles, chosen on the embedding map (principal components)", summary[2])
        # What was chosen stays with the run when the list is removed.
        os.remove(stored.listFile.get())
        self.assertEqual(summary, stored.summary())

    def testClassificationThatUsedTheEmbeddingGoesBeforeOneOfTheSameParticles(self):
        self.assertTrue((self.model().particles.classes == 0).all())
        for embedding, number in ((None, 3), (self.training, 8), (None, 5)):
            classified = self.newProtocol(protocols.Siamese2DProtClassify)
            classified.inputParticles.set(self.source)
            classified.inputParticles.setExtended("outputParticles")
            if embedding:
                classified.inputEmbedding.set(embedding)
                classified.inputEmbedding.setExtended("outputEmbedding")
            self.proj.saveProtocol(classified)
            os.makedirs(classified.getStagePath())
            writeTables(classified.getStagePath("particles.star"), {"particles": [
                {"siamese2dItemId": 10, "rlnClassNumber": number}]})
            self.addCleanup(os.remove, classified.getStagePath("particles.star"))
            self.proj.getRuns()
            self.assertEqual([8 if embedding or number == 5 else 3, 0], self.model().particles.classes[:2].tolist())

    def testWhatIsRefused(self):
        write_particle_list("strangers.txt", [1, 2], [])
        protocol = self.prepared("strangers.txt")
        self.assertEqual([], protocol.validate())
        self.proj.saveProtocol(protocol)
        protocol.makePathsAndClean()
        with self.assertRaisesRegex(Exception, "none of its 2 ids is among the input"):
            protocol.selectStep()
        self.assertFalse(protocol.hasAttribute("outputParticles"))
        error, = self.prepared("no.txt").validate()
        self.assertIn("no.txt can't be read", error)

    def testOpenSet(self):
        write_particle_list("some.txt", [10], [])
        protocol = self.prepared("some.txt")
        self.assertEqual([], protocol._warnings())
        with mock.patch.object(type(self.source.outputParticles), "isStreamOpen", return_value=True):
            self.assertIn("still growing", protocol._warnings()[0])

    def testRunThatIsNotFinished(self):
        training = self.newProtocol(protocols.Siamese2DProtTrainEmbedding)
        self.proj.saveProtocol(training)
        viewer = viewers.Siamese2DTrainEmbeddingViewer(project=self.proj, protocol=training)
        viewer.setProtocol(training)
        view, = viewer._getVisualizeDict()["showMap"]("showMap")
        self.assertIsInstance(view, MessageView)
        self.assertIn("not been run yet", view.getMessage())


if __name__ == "__main__":
    unittest.main()
