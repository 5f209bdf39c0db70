"""Viewers and wizards on made-up runs: what the figures show, and what is said when something is missing."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from types import SimpleNamespace
from unittest import mock

import matplotlib

matplotlib.use("Agg")

import mrcfile
import numpy as np
import pyworkflow.tests as pwtests
from matplotlib.backend_bases import KeyEvent, MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from pwem import Domain
from pwem.objects import Coordinate, Micrograph
from pyworkflow.viewer import MessageView

import siamese2d.protocols as protocols
import siamese2d.viewers as viewers
import siamese2d.wizards as wizards
from siamese2d.objects import PickerModel
from siamese2d.star import writeTables
from siamese2d.viewers import run_files
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.class_files import members_of
from siamese2d.viewers.plots.alignment import align
from siamese2d.viewers.plots.circles import CirclesPlot
from siamese2d.viewers.plots.class_averages import plot_class_averages
from siamese2d.viewers.plots.cosines import plot_cosines
from siamese2d.viewers.plots.embedding import plot_cluster_count, plot_embedding_map, principal_plane
from siamese2d.viewers.plots.grid import round_length
from siamese2d.viewers.plots.normalization import components_of, normalized_components, plot_normalization
from siamese2d.viewers.plots.particle_gallery import plot_particle_gallery
from siamese2d.viewers.plots.style import contrast_limits, shrink, smooth, wrap
from siamese2d.viewers.viewer_base import StageViewer, position_of
from siamese2d.wizards.box_size import good_box
from siamese2d.wizards.wizards import MissingInput, micrographPages, suggestBox

PIXEL_SIZE = 2.0
MICROGRAPH = (96, 120)
BOX = 16


def texts(figure):
    """All that is written in a figure, as one string."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def saved_size(figure):
    """Bytes of the figure as PNG: it can really be drawn."""
    with tempfile.TemporaryFile() as stream:
        figure.savefig(stream, format="png")
        return stream.tell()


def histogram(values):
    counts, edges = np.histogram(values, 50)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


class TestPlots(unittest.TestCase):
    """The pure functions, from arrays to figures."""

    def setUp(self):
        self.generator = np.random.default_rng(0)

    def test_class_averages_are_sorted_by_size_with_share_and_resolution(self):
        averages = np.stack([np.full((8, 8), value, dtype=float) for value in (1, 2, 3)])
        averages[:, 0, 0] += 1
        figure = plot_class_averages(averages, [10, 60, 20], [9.0, 6.5, np.nan], unassigned=10)
        sheet, = figure.axes
        self.assertEqual([2, 3, 1], [int(image.get_array()[1, 1]) for image in sheet.images])
        captions = [text.get_text() for text in sheet.texts if "%" in text.get_text()]
        self.assertEqual(["60  ·  60.0%\n6.5 Å", "20  ·  20.0%", "10  ·  10.0%\n9.0 Å"], captions)
        self.assertIn("90 particles in 3 classes; 10 particles in no class", texts(figure))
        self.assertGreater(saved_size(figure), 1000)

    def test_class_averages_are_numbered_and_paged(self):
        averages, sizes = self.generator.normal(size=(7, 8, 8)), [1, 7, 2, 6, 3, 5, 0]
        last = plot_class_averages(averages, sizes, first=4, count=4)
        corners = [text.get_text() for text in last.axes[0].texts if text.get_text().isdigit()]
        self.assertEqual(["3", "1", "7"], corners)
        self.assertIn("empty", texts(last))
        self.assertIn("shown: 5 to 7 by size", texts(last))
        full = plot_class_averages(averages, sizes, first=0, count=4)
        self.assertEqual(full.get_size_inches().tolist(), last.get_size_inches().tolist())

    def test_class_averages_refuse_what_does_not_belong_together(self):
        averages = np.zeros((3, 8, 8))
        with self.assertRaisesRegex(ValueError, "3 averages, but 2 sizes"):
            plot_class_averages(averages, [1, 2])
        with self.assertRaisesRegex(ValueError, "at least one class"):
            plot_class_averages(np.zeros((0, 8, 8)), [])
        with self.assertRaisesRegex(ValueError, "no class at position 3"):
            plot_class_averages(averages, [1, 2, 3], first=3)

    def test_captions_do_not_overlap(self):
        figure = plot_class_averages(self.generator.normal(size=(9, 8, 8)), [1_234_567] * 9, [12.3] * 9)
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text()]
        overlapping = [(a, b) for a in range(len(boxes)) for b in range(a) if boxes[a].overlaps(boxes[b])]
        self.assertEqual([], overlapping)

    def test_gallery_shows_every_image_once(self):
        images = self.generator.normal(size=(12, 8, 8))
        figure = plot_particle_gallery(images, range(51, 63), 1062, captions=[f"{n} %" for n in range(12)], slots=50,
                                       pixel_size=PIXEL_SIZE)
        self.assertEqual(12, len(figure.axes[0].images))
        self.assertIn("12 of 1,062, box 8 x 8 px, 2 Å per pixel", texts(figure))
        self.assertIn("11 %", texts(figure))
        with self.assertRaisesRegex(ValueError, "at least one particle"):
            plot_particle_gallery(images[:0], [], 0)

    def test_gaussians_match_the_histogram_they_were_fitted_to(self):
        values = np.concatenate([self.generator.normal(2, 0.5, 3000), self.generator.normal(6, 1.0, 7000)])
        record = {"name": "a", "status": "finished", "fit": "shared", "alpha": 2.0, "mu": [1, 3], "sigma": [0.25, 0.5],
                  "rho": 0.7, "component": 1, "before": histogram(values), "after": histogram(values - 6)}
        components = components_of(record)
        np.testing.assert_allclose([(0.3, 2, 0.5), (0.7, 6, 1.0)], components)
        np.testing.assert_allclose([(0.3, -4, 0.5), (0.7, 0, 1)], normalized_components(components, 1))
        figure = plot_normalization(record, np.ones((8, 8)), "b.mrc is missing.")
        before = figure.axes[2]
        bars, total = before.patches[0].get_data(), before.lines[-1]
        heights = np.interp((bars.edges[1:] + bars.edges[:-1]) / 2, *total.get_data())
        self.assertLess(np.abs(heights - bars.values).max(), 0.04)
        self.assertIn("b.mrc is missing.", texts(figure))

    def test_gaussians_of_a_downsampled_image_are_not_drawn_over_the_file(self):
        values = self.generator.normal(size=1000)
        record = {"name": "a", "status": "finished", "alpha": 1.0, "mu": [0, 1], "sigma": [1, 1], "rho": 0.5,
                  "component": 0, "before": histogram(values), "after": histogram(values)}
        image = np.ones((8, 8))
        figure = plot_normalization(record, image, image, downsampled=True)
        self.assertEqual([0, 3], [len(axes.lines) for axes in figure.axes[2:]])
        self.assertIn("fitted after downsampling", texts(figure))

    def test_failed_micrograph_is_shown_with_its_message(self):
        record = {"name": "a", "status": "failed", "message": "All pixels are 0."}
        figure = plot_normalization(record, np.zeros((8, 8)), "a.mrc is missing.")
        self.assertIn("a: failed. All pixels are 0.", texts(figure))
        self.assertIn("No histogram.", texts(figure))
        self.assertGreater(saved_size(figure), 1000)

    def test_principal_plane_is_that_of_the_singular_value_decomposition(self):
        embeddings = self.generator.normal(size=(50, 4)) * [1, 5, 2, 0.1]
        points = principal_plane(embeddings)
        centred = embeddings - embeddings.mean(axis=0)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(np.abs(centred @ axes[:2].T), np.abs(points.places), atol=1e-9)
        shares = singular[:2] ** 2 / (singular ** 2).sum()
        for share, name in zip(shares, points.axis_names):
            self.assertIn(f"({share:.0%}", name)
        self.assertEqual(list(range(50)), points.rows.tolist())

    def test_map_leaves_out_embeddings_that_are_not_finite(self):
        embeddings = self.generator.normal(size=(30, 3))
        embeddings[4] = np.nan
        figure = plot_embedding_map(principal_plane(embeddings), *embeddings.shape, np.arange(30.0), "defocus (µm)")
        self.assertEqual(29, len(figure.axes[0].collections[0].get_offsets()))
        self.assertNotIn(4.0, figure.axes[0].collections[0].get_array())
        self.assertIn("29 of 30 particles, 3 dimensions", texts(figure))
        self.assertIn("no finite embeddings", texts(plot_embedding_map(principal_plane(embeddings[4:5]), 1, 3)))

    def test_number_of_classes_that_was_taken_is_marked(self):
        rows = [{"k": k, "inertia": 1 / k, "silhouette": silhouette} for k, silhouette in ((2, 0.1), (4, 0.3))]
        for axes in plot_cluster_count(rows, 24).axes:
            self.assertEqual([24, 24], list(axes.lines[-1].get_xdata()))
            self.assertIn("classification: k = 24", texts(axes))
            self.assertIn("highest silhouette: k = 4", texts(axes))

    def test_cosines_are_written_where_they_are_known(self):
        figure = plot_cosines([[0.8, -0.1], [-0.1, None]], [3, 7], 0.9)
        axes = figure.axes[0]
        self.assertEqual(["0.80", "-0.10", "-0.10"], [text.get_text() for text in axes.texts])
        self.assertEqual(["3", "7"], [label.get_text() for label in axes.get_xticklabels()])
        self.assertIn("diagonal dominance 0.90", texts(figure))
        self.assertEqual((-0.8, 0.8), axes.images[0].get_clim())
        self.assertEqual(0, len(plot_cosines(np.eye(13).tolist(), range(13)).axes[0].texts))
        self.assertIn("no classes to compare", texts(plot_cosines([], [])).replace("\n", " "))

    def test_alignment_moves_content_as_the_convention_says(self):
        image = np.zeros((17, 17))
        x, y = 3, -2
        image[8 + y, 8 + x] = 1
        for psi, origin, flip in ((90, (1, 0), False), (90, (1, 0), True), (180, (0, 2), False), (0, (-3, 2), True)):
            angle = np.radians(psi)
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            expected = rotation @ (np.array([x, y]) + origin)
            expected[0] *= -1 if flip else 1
            found = np.unravel_index(np.argmax(align(image, psi, origin, flip)), image.shape)
            self.assertEqual(tuple(np.round(expected[::-1]).astype(int) + 8), tuple(int(i) for i in found))

    def test_circles_have_the_diameter_in_pixels(self):
        plot = CirclesPlot(np.ones((50, 60)), "a", np.array([[10, 20], [30, 40]]), PIXEL_SIZE, 40)
        plot.set_diameter(24)
        circles, = plot.figure.axes[0].collections
        plot.figure.canvas.draw()
        np.testing.assert_allclose([12], 2 * circles._widths)
        np.testing.assert_allclose([[10, 20], [30, 40]], circles.get_offsets())
        titles = [text for text in map(Text.get_text, plot.figure.findobj(Text)) if "Å" in text]
        self.assertEqual(["a\n24 Å = 12.0 px"], titles)

    def test_shrink_averages_blocks(self):
        image = np.arange(35, dtype=float).reshape(5, 7)
        small, factor = shrink(image, 4)
        self.assertEqual(2, factor)
        np.testing.assert_allclose(small[1, 2], image[2:4, 4:6].mean())
        self.assertEqual((2, 3), small.shape)

    def test_smooth_is_a_gaussian_and_keeps_constants(self):
        np.testing.assert_allclose(np.full((9, 12), 3.0), smooth(np.full((9, 12), 3.0), 2.0), rtol=1e-6)
        point = np.zeros((41, 41))
        point[20, 20] = 1
        blurred = smooth(point, 2.0)
        np.testing.assert_allclose(np.exp(-(3 ** 2 + 1) / 8), blurred[23, 21] / blurred[20, 20], rtol=1e-5)

    def test_contrast_of_odd_images(self):
        self.assertEqual((4.5, 5.5), contrast_limits(np.full((3, 3), 5.0)))
        self.assertEqual((0.0, 1.0), contrast_limits(np.full((3, 3), np.nan)))
        low, high = contrast_limits(np.array([[np.nan, 1, 2, 3]]), 0)
        self.assertEqual((1, 3), (low, high))

    def test_long_messages_break_after_spaces_and_slashes(self):
        self.assertEqual("Runs/1/extra/\na.mrc is\nmissing.", wrap("Runs/1/extra/a.mrc is missing.", 14))

    def test_scale_bar_has_a_round_length(self):
        self.assertEqual([20, 50, 100, 0.5], [round_length(length) for length in (49.9, 50, 199, 0.9)])

    def test_plots_need_neither_scipion_nor_scipy(self):
        code = ("import sys\n"
                "for name in ('pyworkflow', 'pwem', 'scipy', 'siamese2d'): sys.modules[name] = None\n"
                "import numpy as np\n"
                "from plots.class_averages import plot_class_averages\n"
                "plot_class_averages(np.zeros((2, 4, 4)), [1, 2]).savefig(sys.argv[1])\n")
        with tempfile.TemporaryDirectory() as folder:
            picture = os.path.join(folder, "a.png")
            subprocess.run([sys.executable, "-c", code, picture], check=True, cwd=os.path.dirname(viewers.__file__))
            self.assertGreater(os.path.getsize(picture), 1000)


class TestBrowser(unittest.TestCase):
    """Turning pages."""

    def setUp(self):
        self.figure = Figure()
        FigureCanvasAgg(self.figure)

    def _draw(self, page, figure):
        figure.clear()
        figure.set_size_inches(4, 3)
        figure.add_axes((0, 0, 1, 1)).set_title(f"content {page}")

    def test_pages_turn_in_a_circle(self):
        browser = Browser(self.figure, 3, self._draw, start=2, noun="micrograph")
        self.assertIn("micrograph 3\nof 3", texts(self.figure))
        browser.turn(+1)
        self.assertIn("content 0", texts(self.figure))
        browser.turn(-1)
        self.assertIn("content 2", texts(self.figure))

    def test_buttons_and_keys_turn_one_page(self):
        browser = Browser(self.figure, 3, self._draw)
        for press, expected in ((lambda: self._click("Next"), 1), (lambda: self._click("Next"), 2),
                                (lambda: self._click("Previous"), 1), (lambda: self._key("right"), 2),
                                (lambda: self._key("left"), 1), (lambda: self._key("x"), 1)):
            press()
            self.assertEqual(expected, browser.page)

    def test_window_keeps_its_size(self):
        browser = Browser(self.figure, 3, self._draw)
        self.figure.set_size_inches(9, 8)
        browser.turn(1)
        self.assertEqual([9, 8], self.figure.get_size_inches().tolist())

    def test_page_that_can_not_be_read_says_so_and_the_others_stay(self):
        def draw(page, figure):
            if page == 1:
                raise run_files.RunFileError("b.mrcs is missing.")
            self._draw(page, figure)

        browser = Browser(self.figure, 2, draw)
        browser.turn(+1)
        self.assertIn("b.mrcs is missing.", texts(self.figure))
        browser.turn(+1)
        self.assertIn("content 0", texts(self.figure))

    def test_one_page_needs_no_buttons(self):
        Browser(self.figure, 1, self._draw)
        self.assertNotIn("Next", texts(self.figure))

    def _click(self, label):
        axes = next(axes for axes in self.figure.axes if label in [text.get_text() for text in axes.texts])
        x, y = axes.transAxes.transform((0.5, 0.5))
        for name in ("button_press_event", "button_release_event"):
            event = MouseEvent(name, self.figure.canvas, x, y, button=1)
            self.figure.canvas.callbacks.process(name, event)

    def _key(self, key):
        event = KeyEvent("key_press_event", self.figure.canvas, key)
        self.figure.canvas.callbacks.process("key_press_event", event)


class TestRunFiles(unittest.TestCase):
    """Reading: bad files end in one sentence that names them."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = run_files.RunFolder(scratch.name)

    def write(self, name, content):
        with open(self.folder.file(name), "wb") as stream:
            stream.write(content)
        return self.folder.file(name)

    def assertSays(self, pattern, function, *args):
        with self.assertRaisesRegex(run_files.RunFileError, pattern):
            function(*args)

    def test_what_is_missing_depends_on_how_the_run_went(self):
        for record, said in ((None, "not been run yet"), ({"status": "running"}, "not finished: a.json"),
                             ({"status": "failed", "message": "The disk is full."}, "failed: The disk is full."),
                             ({"status": "finished"}, "a.json is missing, although")):
            if record is not None:
                self.write("run.json", json.dumps(record).encode())
            self.assertSays(said, self.folder.read_json, "a.json")

    def test_damaged_files_are_named(self):
        whole = self.folder.file("whole.mrc")
        mrcfile.write(whole, np.zeros((8, 8), np.float32))
        with open(whole, "rb") as stream:
            cut = self.write("cut.mrc", stream.read(1100))
        self.assertSays("cut.mrc can't be read", run_files.read_micrograph, cut)
        self.assertSays("cut.mrc can't be read", run_files.read_stack, cut, [0])
        for name in ("text.mrc", "text.tif", "text.png"):
            self.assertSays(f"{name} can't be read", run_files.read_micrograph, self.write(name, b"hello"))
        self.assertSays("no.mrc is missing", run_files.read_micrograph, self.folder.file("no.mrc"))
        self.assertSays("bad.json can't be read", run_files.read_json, self.write("bad.json", b"{"))
        self.assertSays("binary.star can't be read", run_files.read_table, self.write("binary.star", b"\xff\xfe\x00"))
        short = self.write("short.star", b"data_\n\nloop_\n_a #1\n_b #2\n1 2\n3\n")
        self.assertSays("short.star can't be read", run_files.read_table, short)
        self.assertSays("has no column rlnX", run_files.column, {}, "rlnX", "a.star")

    def test_stack_with_too_few_images(self):
        path = self.folder.file("a.mrcs")
        mrcfile.write(path, np.zeros((2, 8, 8), np.float32))
        self.assertSays("a.mrcs can't be read", run_files.read_particles, [f"3@{path}"])
        self.assertSays("is not the name of an image", run_files.read_particles, [f"x@{path}"])

    def test_particles_come_in_the_order_asked_for_from_files_that_can_not_be_written(self):
        for name, value in (("a.mrcs", 0), ("b.mrcs", 10)):
            stack = value + np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 4, 4), np.float32)
            mrcfile.write(self.folder.file(name), stack)
            os.chmod(self.folder.file(name), 0o444)
        names = [f"{index}@{self.folder.file(name)}" for index, name in ((3, "a.mrcs"), (1, "b.mrcs"), (1, "a.mrcs"))]
        before = os.stat(self.folder.file("a.mrcs")).st_mtime_ns
        images = run_files.read_particles(names)
        self.assertEqual([2, 10, 0], images[:, 0, 0].tolist())
        self.assertEqual(before, os.stat(self.folder.file("a.mrcs")).st_mtime_ns)

    def test_columns_are_numbers_where_all_values_are(self):
        path = self.write("a.star", b'data_x\n\nloop_\n_n #1\n_t #2\n1.5 "a b"\nnan 3\n')
        table = run_files.read_table(path)
        np.testing.assert_array_equal([1.5, np.nan], table["n"])
        self.assertEqual(["a b", "3"], table["t"].tolist())

    def test_micrograph_by_number_or_name(self):
        names = ["grid1_007", "grid2_001"]
        self.assertEqual([0, 1, 1, 0], [position_of(wanted, names) for wanted in (None, "2", "grid2", " 1 ")])
        self.assertSays("no micrograph 'x'", position_of, "x", names)
        self.assertSays("no micrograph '9'", position_of, "9", ["a", "b"])


class TestViewers(pwtests.BaseTest):
    """The viewers of a real project, on runs that are made up file by file."""

    @classmethod
    def setUpClass(cls):
        pwtests.setupTestProject(cls)
        cls.generator = np.random.default_rng(0)

    def protocol(self, kind, **inputs):
        protocol = self.newProtocol(kind)
        for name, (parent, output) in inputs.items():
            getattr(protocol, name).set(parent)
            getattr(protocol, name).setExtended(output)
        self.proj.saveProtocol(protocol)
        os.makedirs(protocol.getStagePath(), exist_ok=True)
        os.makedirs(protocol.getInputPath(), exist_ok=True)
        return protocol

    def open(self, viewer_class, protocol, **choices):
        viewer = viewer_class(project=self.proj, protocol=protocol)
        viewer.setProtocol(protocol)
        for name, value in choices.items():
            getattr(viewer, name).set(value)
        return viewer

    def figure(self, viewer, name):
        view, = viewer._getVisualizeDict()[name](name)
        self.assertNotIsInstance(view, MessageView, getattr(view, "_msg", ""))
        figure = view.getFigure()
        self.assertGreater(saved_size(figure), 5000)
        self.addCleanup(view.close)
        return figure

    def message(self, viewer, name):
        view, = viewer._getVisualizeDict()[name](name)
        self.assertIsInstance(view, MessageView)
        return view.getMessage()

    def writeJson(self, path, content):
        with open(path, "w") as stream:
            json.dump(content, stream)

    def test_every_protocol_has_its_viewer_and_every_wizard_is_found(self):
        # What is exported are files for other programs.
        stages = [name for name in protocols.__all__
                  if hasattr(getattr(protocols, name), "STAGE") and name != "Siamese2DProtExport"]
        self.assertGreaterEqual(len(stages), 6)
        for name in stages:
            found = Domain.findViewers(getattr(protocols, name)(), "tkinter")
            self.assertEqual([name.replace("Prot", "") + "Viewer"], [viewer.__name__ for viewer in found])
        for kind, parameter in ((protocols.Siamese2DProtExtract, "boxSize"),
                                (protocols.Siamese2DProtTrainPicker, "diameter"),
                                (protocols.Siamese2DProtClassify, "maskDiameter"),
                                (protocols.Siamese2DProtSelectClasses, "classNumbers")):
            self.assertIn(parameter, Domain.findWizards(kind(), "tkinter"))
            self.assertTrue(kind().hasAttribute(parameter))

    def test_every_button_of_a_run_that_has_not_begun_says_so(self):
        stages = [getattr(viewers, name) for name in viewers.__all__ if issubclass(getattr(viewers, name), StageViewer)]
        self.assertEqual(8, len(stages))
        for viewer_class in stages:
            viewer = self.open(viewer_class, self.protocol(viewer_class._targets[0]))
            for button in viewer.PLOTS:
                self.assertTrue(viewer.hasAttribute(button))
                self.assertIn("not been run yet", self.message(viewer, button))

    def test_model_opens_the_viewer_of_its_training(self):
        trained = self.protocol(protocols.Siamese2DProtTrainPicker)
        trained._defineOutputs(outputPicker=PickerModel(filename="p.safetensors", diameter=30.0, pixelSize=PIXEL_SIZE))
        model = self.proj.getProtocol(trained.getObjId()).outputPicker
        viewer_class, = Domain.findViewers(model, "tkinter")
        with mock.patch.object(viewers.Siamese2DTrainPickerViewer, "visualize") as opened:
            viewer_class(project=self.proj).visualize(model)
        self.assertEqual(trained.getObjId(), opened.call_args.args[0].getObjId())

    # --------------------------- normalize ---------------------------------------------
    def normalized(self):
        protocol = self.protocol(protocols.Siamese2DProtNormalize)
        records, rows = [], []
        for number, name in enumerate(("mic a", "mic_b", "mic_c"), start=1):
            values = self.generator.normal(5, 2, MICROGRAPH).astype(np.float32)
            original = protocol._getExtraPath(f"{name}.mrc")
            mrcfile.write(original, values)
            rows.append({"rlnMicrographName": original, "siamese2dItemId": number})
            if name == "mic_c":
                records.append({"name": name, "status": "failed", "message": "The file is truncated."})
                continue
            os.makedirs(protocol.getStagePath("micrographs"), exist_ok=True)
            mrcfile.write(protocol.getStagePath("micrographs", f"{name}.mrc"), (values - 5) / 2)
            records.append({"name": name, "status": "finished", "message": "", "fit": "shared", "mu": [4, 5],
                            "sigma": [1, 2], "rho": 0.9, "component": 1, "alpha": 1.0 + 0.1 * number,
                            "before": histogram(values), "after": histogram((values - 5) / 2)})
        writeTables(protocol.getInputPath("micrographs.star"), {"micrographs": rows})
        self.writeJson(protocol.getStagePath("normalization.json"),
                       {"method": "joint", "downsample": 1.0, "micrographs": records})
        return protocol

    def test_normalize(self):
        protocol = self.normalized()
        viewer = self.open(viewers.Siamese2DNormalizeViewer, protocol, micrograph="mic_b")
        figure = self.figure(viewer, "showMicrographs")
        self.assertIn("mic_b    gain 1.2", texts(figure))
        self.assertEqual([1, 1], [len(axes.images) for axes in figure.axes[:2]])
        figure.siamese2d_browser.turn(+1)
        self.assertIn("mic_c: failed. The file is truncated.", texts(figure))
        self.assertIn("mic_c.mrc is", texts(figure).replace("\n", " "))
        gains = self.figure(viewer, "showGains").axes[0]
        np.testing.assert_allclose([1.1, 1.2, np.nan], gains.lines[0].get_ydata())
        self.assertIn("2 micrographs, 1 failed", texts(gains.figure))

    def test_normalize_bad_input(self):
        protocol = self.normalized()
        viewer = self.open(viewers.Siamese2DNormalizeViewer, protocol, micrograph="nowhere")
        self.assertIn("no micrograph 'nowhere'", self.message(viewer, "showMicrographs"))
        self.writeJson(protocol.getStagePath("normalization.json"), {"micrographs": []})
        self.assertIn("no micrograph", self.message(viewer, "showGains"))

    # --------------------------- picking -----------------------------------------------
    def test_train_picker(self):
        protocol = self.protocol(protocols.Siamese2DProtTrainPicker)
        viewer = self.open(viewers.Siamese2DTrainPickerViewer, protocol)
        epochs = [{"epoch": epoch, "loss": 1 / epoch, "penalty": 0.5, "held_out_average_precision": precision}
                  for epoch, precision in ((1, 0.2), (2, 0.71), (3, 0.6))]
        self.writeJson(protocol.getStagePath("training.json"), {
            "epochs": epochs, "best_epoch": 2, "threshold": 0.4, "prior": 0.1,
            "held_out_labels": 20, "held_out_average_precision": 0.72,
            "precision_recall": [{"threshold": score, "precision": precision, "recall": recall}
                                 for score, precision, recall in ((0.8, 1.0, 0.2), (0.4, 0.8, 0.7), (0.1, 0.3, 1.0))]})
        loss, precision = self.figure(viewer, "showTraining").axes
        np.testing.assert_allclose([1, 1 / 2, 1 / 3], loss.lines[0].get_ydata())
        self.assertIn("best epoch 2: 0.710", texts(precision.figure))
        self.assertEqual(([2], [0.71]), tuple(map(list, precision.lines[-1].get_data())))
        curve = self.figure(viewer, "showPrecisionRecall").axes[0]
        self.assertEqual(([0.7], [0.8]), tuple(map(list, curve.lines[-1].get_data())))
        self.assertIn("threshold 0.4: precision 0.80, recall 0.70", texts(curve.figure))
        self.assertIn("average precision 0.720", texts(curve.figure))
        self.assertIn("on 20 held-out labels", texts(curve.figure))

    def test_train_picker_without_held_out_labels(self):
        protocol = self.protocol(protocols.Siamese2DProtTrainPicker)
        viewer = self.open(viewers.Siamese2DTrainPickerViewer, protocol)
        epochs = [{"epoch": 1, "loss": 1.0, "penalty": 0.5, "held_out_average_precision": None}]
        self.writeJson(protocol.getStagePath("training.json"), {
            "epochs": epochs, "best_epoch": 1, "threshold": 0.4, "precision_recall": [],
            "held_out_labels": 0, "held_out_average_precision": None})
        self.assertIn("no labels were held out", texts(self.figure(viewer, "showTraining")).replace("\n", " "))
        self.assertIn("no label was found again", texts(self.figure(viewer, "showPrecisionRecall")).replace("\n", " "))

    def picked(self, scores):
        """A pick run on two micrographs; `scores` of candidates, alternately on the first and the second."""
        source = self.protocol(protocols.Siamese2DProtNormalize)
        micrographs, rows = source._createSetOfMicrographs(), []
        micrographs.setSamplingRate(PIXEL_SIZE)
        for number in (1, 2):
            path = source._getExtraPath(f"mic{number}.mrc")
            mrcfile.write(path, self.generator.normal(size=MICROGRAPH).astype(np.float32))
            micrograph = Micrograph(path)
            micrograph.setMicName(os.path.basename(path))
            micrographs.append(micrograph)
            rows.append({"rlnMicrographName": path, "siamese2dItemId": number})
        source._defineOutputs(outputMicrographs=micrographs)
        trained = self.protocol(protocols.Siamese2DProtTrainPicker)
        trained._defineOutputs(outputPicker=PickerModel(filename="p.safetensors", diameter=30.0, pixelSize=PIXEL_SIZE))
        protocol = self.protocol(protocols.Siamese2DProtPick, inputMicrographs=(source, "outputMicrographs"),
                                 inputPicker=(trained, "outputPicker"))
        writeTables(protocol.getInputPath("micrographs.star"), {"micrographs": rows})
        writeTables(protocol.getStagePath("candidates.star"), {"coordinates": [
            {"rlnMicrographName": rows[k % 2]["rlnMicrographName"], "rlnCoordinateX": 10.0 * k, "rlnCoordinateY": 20.0,
             "rlnAutopickFigureOfMerit": float(score)} for k, score in enumerate(scores)]})
        self.writeJson(protocol.getStagePath("picking.json"), {"threshold": 0.5, "micrographs": []})
        return protocol

    def test_pick_counts_follow_the_limits(self):
        viewer = self.open(viewers.Siamese2DPickViewer, self.picked([0.9, 0.6, 0.3, 0.8, 0.7, 0.2]))
        figure = self.figure(viewer, "showPicks")
        browser = figure.siamese2d_browser
        circles, = figure.axes[0].findobj(EllipseCollection)
        self.assertEqual([[0, 20], [40, 20]], circles.get_offsets().tolist())
        np.testing.assert_allclose([0.9, 0.7], circles.get_array())
        np.testing.assert_allclose([7.5], circles._widths)
        self.assertIn("picks on this micrograph\n4 on all micrographs\nwith a score of 0.5 or more", texts(figure))
        browser.slider.set_val((0.25, 0.9))
        self.assertEqual((3, 5), (browser.plot.kept_here, browser.plot.kept))
        self.assertIn("5 on all micrographs", texts(figure))
        browser.slider.set_val((0.25, 0.75))
        self.assertIn("3 on all micrographs\nwith a score of 0.25 to 0.75", texts(figure))
        np.testing.assert_allclose([0.3, 0.7], circles.get_array())
        browser.turn(+1)
        self.assertEqual((1, 3), (browser.plot.kept_here, browser.plot.kept))
        self.assertEqual(((0.25, 0.75), (0.25, 0.75)), (browser.plot.limits, browser.slider.val))
        self.assertIn("mic2", texts(figure))

    def test_stroke_over_the_histogram_of_scores(self):
        figure = self.figure(self.open(viewers.Siamese2DPickViewer, self.picked([0.9, 0.6, 0.3, 0.8])), "showPicks")
        browser = figure.siamese2d_browser
        places = browser.plot.histogram.transData.transform([(0.5, 10), (0.55, 10), (0.85, 10)])
        for name, (x, y) in (("button_press_event", places[0]), ("motion_notify_event", places[1]),
                             ("motion_notify_event", places[2]), ("button_release_event", places[2])):
            figure.canvas.callbacks.process(name, MouseEvent(name, figure.canvas, x, y, button=1))
        np.testing.assert_allclose((0.5, 0.85), browser.limits, atol=0.01)
        self.assertEqual(2, browser.plot.kept)

    def test_precision_and_recall_follow_the_threshold(self):
        protocol = self.picked([0.9, 0.6, 0.3, 0.8])
        self.assertNotIn("precision", texts(self.figure(self.open(viewers.Siamese2DPickViewer, protocol), "showPicks")))
        training = protocol.inputPicker.getObjValue()
        record = {"held_out_labels": 0, "precision_recall": [
            {"threshold": score, "precision": precision, "recall": recall}
            for score, precision, recall in ((0.8, 1.0, 0.2), (0.4, 0.8, 0.6))]}
        self.writeJson(training.getStagePath("training.json"), record)
        # On the labels that it was trained with, a picker is too good.
        self.assertNotIn("precision", texts(self.figure(self.open(viewers.Siamese2DPickViewer, protocol), "showPicks")))
        self.writeJson(training.getStagePath("training.json"), {**record, "held_out_labels": 9})
        figure = self.figure(self.open(viewers.Siamese2DPickViewer, protocol), "showPicks")
        browser = figure.siamese2d_browser
        for low, said in ((0.4, "precision 0.80, recall 0.60"), (0.6, "precision 0.90, recall 0.40")):
            browser.slider.set_val((low, 0.9))
            self.assertIn(f"estimated: {said}", texts(figure))
        np.testing.assert_allclose([[0.4], [0.9]], browser.plot._point.get_data())
        # The estimate knows no upper limit.
        browser.slider.set_val((0.6, 0.7))
        self.assertNotIn("estimated:", texts(figure))

    def test_limits_become_a_new_output(self):
        protocol = self.picked([0.9, 0.6, 0.3, 0.8])
        figure = self.figure(self.open(viewers.Siamese2DPickViewer, protocol), "showPicks")
        browser = figure.siamese2d_browser
        browser.keep()
        self.assertIn("not in the project yet", texts(figure))
        kept = []
        browser._keep = lambda low, high: kept.append((low, high)) or ""
        browser.keep()
        browser.slider.set_val((0.35, 0.7))
        browser.keep()
        self.assertEqual([(0.5, None), (0.35, 0.7)], [(low, high and round(high, 6)) for low, high in kept])

    def test_picks_without_labels_have_the_largest_diameter(self):
        trained = self.picked([5.0, 7.0])
        protocol = self.protocol(protocols.Siamese2DProtPickUnlabeled,
                                 inputMicrographs=(trained.inputMicrographs.getObjValue(), "outputMicrographs"))
        protocol.diameter.set(30.0)
        protocol.largestDiameter.set(44.0)
        viewer = self.open(viewers.Siamese2DPickUnlabeledViewer, protocol)
        self.assertEqual(44.0 / PIXEL_SIZE, viewer._diameter())

    def test_pick_without_candidates_and_without_image(self):
        protocol = self.picked([])
        os.remove(protocol.inputMicrographs.get().getFirstItem().getFileName())
        viewer = self.open(viewers.Siamese2DPickViewer, protocol)
        shown = texts(self.figure(viewer, "showPicks")).replace("\n", " ")
        self.assertIn("There are no candidates.", shown)
        self.assertIn("mic1.mrc is missing", shown)

    def test_pick_table_of_another_program(self):
        protocol = self.picked([0.5])
        writeTables(protocol.getStagePath("candidates.star"), {"coordinates": [{"rlnMicrographName": "a"}]})
        viewer = self.open(viewers.Siamese2DPickViewer, protocol)
        self.assertIn("has no column rlnCoordinateX", self.message(viewer, "showPicks"))

    # --------------------------- particles ---------------------------------------------
    def writeStack(self, protocol, count):
        stack = protocol.getStagePath("a stack.mrcs")
        images = np.arange(count, dtype=np.float32)[:, None, None] + self.generator.random((count, BOX, BOX))
        mrcfile.write(stack, images.astype(np.float32), overwrite=True)
        return [f"{index:06d}@{stack}" for index in range(1, count + 1)]

    def test_extract(self):
        protocol = self.protocol(protocols.Siamese2DProtExtract)
        rows = [{"rlnImageName": name} for name in self.writeStack(protocol, 60)]
        writeTables(protocol.getStagePath("particles.star"), {
            "optics": [{"rlnOpticsGroup": 1, "rlnImagePixelSize": PIXEL_SIZE}], "particles": rows})
        viewer = self.open(viewers.Siamese2DExtractViewer, protocol)
        figure = self.figure(viewer, "showParticles")
        self.assertIn("50 of 60, box 16 x 16 px, 2 Å per pixel", texts(figure))
        figure.siamese2d_browser.turn(+1)
        self.assertEqual(list(range(50, 60)), [int(image.get_array().min()) for image in figure.axes[0].images])
        os.remove(protocol.getStagePath("a stack.mrcs"))
        self.assertIn("a stack.mrcs is missing", self.message(viewer, "showParticles"))
        writeTables(protocol.getStagePath("particles.star"), {"particles": []})
        self.assertIn("no particle", self.message(viewer, "showParticles"))

    def test_train_embedding(self):
        protocol = self.protocol(protocols.Siamese2DProtTrainEmbedding)
        self.writeJson(protocol.getStagePath("training.json"), {
            "epochs": [{"epoch": 1, "round": 1, "loss": 3.0, "validation_loss": 3.5},
                       {"epoch": 1, "round": 2, "loss": 2.0, "validation_loss": 2.5},
                       {"epoch": 2, "round": 2, "loss": 1.0, "validation_loss": 2.6}],
            "best_epoch": 1,
            "elbow": [{"k": k, "inertia": inertia, "silhouette": silhouette}
                      for k, inertia, silhouette in ((2, 9, 0.2), (4, 5, 0.4), (8, 4, 0.3))]})
        viewer = self.open(viewers.Siamese2DTrainEmbeddingViewer, protocol)
        losses = self.figure(viewer, "showTraining").axes[0]
        self.assertEqual([[3, 2, 1], [3.5, 2.5, 2.6]], [list(line.get_ydata()) for line in losses.lines[:2]])
        self.assertEqual([2, 2], list(losses.lines[2].get_xdata()))
        self.assertEqual([1.5, 1.5], list(losses.lines[3].get_xdata()))
        self.assertIn("best epoch: 2; the 1 after it was no better", texts(losses.figure))
        elbow, silhouette = self.figure(viewer, "showClusterCount").axes
        self.assertEqual(([4], [0.4]), tuple(map(list, silhouette.lines[-1].get_data())))
        self.assertIn("no classes to compare", texts(self.figure(viewer, "showCosines")).replace("\n", " "))

    # --------------------------- classes -----------------------------------------------
    def classified(self):
        protocol = self.protocol(protocols.Siamese2DProtClassify)
        labels = [2] * 7 + [1] * 2 + [0]
        confidences = [0.9, 0.8, 0.1, 0.7, 0.6, 0.5, 0.4, 0.9, 0.9, 0.0]
        writeTables(protocol.getStagePath("particles.star"), {
            "optics": [{"rlnOpticsGroup": 1, "rlnImagePixelSize": PIXEL_SIZE}],
            "particles": [{"rlnImageName": name, "rlnClassNumber": label, "rlnAnglePsi": 0.0, "rlnOriginXAngst": 0.0,
                           "rlnOriginYAngst": 0.0, "rlnIsFlip": 0, "rlnMaxValueProbDistribution": confidence}
                          for name, label, confidence in zip(self.writeStack(protocol, 10), labels, confidences)]})
        writeTables(protocol.getStagePath("set_apart.star"), {"particles": [{"rlnImageName": "1@x.mrcs"}] * 2})
        averages = protocol.getStagePath("classes.mrcs")
        mrcfile.write(averages, self.generator.normal(size=(2, BOX, BOX)).astype(np.float32))
        writeTables(protocol.getStagePath("classes.star"), {"classes": [
            {"rlnReferenceImage": f"{number:06d}@{averages}", "rlnClassNumber": number, "siamese2dClassSize": size,
             "rlnClassDistribution": size / 10, "rlnEstimatedResolution": resolution}
            for number, size, resolution in ((1, 2, 30.0), (2, 7, 12.0))]})
        frequency = [0.02, 0.04, 0.06]
        self.writeJson(protocol.getStagePath("classification.json"), {
            "frc_threshold": 0.143,
            "history": [
                {"pass": 1, "changed": 0.5, "frequency": 0.05, "classes": 1, "rings": 10, "log_likelihood": 4.0},
                {"pass": 2, "changed": 0.4, "frequency": 0.05, "classes": 1, "rings": 10, "log_likelihood": 5.0},
                {"pass": 3, "changed": 0.1, "frequency": 0.05, "classes": 2, "rings": 10, "log_likelihood": 7.0},
                {"pass": 4, "changed": 0.1, "frequency": 0.1, "classes": 2, "rings": 16, "log_likelihood": 9.0}],
            "grouping": [{"k": k, "loss": 4.0 - k, "silhouette": value}
                         for k, value in ((1, None), (2, 0.3), (3, 0.1), (4, None))],
            "frc": [{"class": number, "frequency": frequency, "frc": [1.0, 0.5, 0.1 * number]} for number in (1, 2)]})
        return protocol

    def test_classify_what_other_numbers_of_classes_cost(self):
        viewer = self.open(viewers.Siamese2DClassifyViewer, self.classified())
        heldOut, loss, silhouette = self.figure(viewer, "showGrouping").axes
        # The last pass of each number on the usual rings; each class has the same probability beforehand.
        self.assertEqual([1, 2], list(heldOut.lines[0].get_xdata()))
        np.testing.assert_allclose([5, 7 - np.log(2)], heldOut.lines[0].get_ydata())
        np.testing.assert_allclose([3, 2, 1, 0], loss.lines[0].get_ydata())
        np.testing.assert_allclose([np.nan, 0.3, 0.1, np.nan], silhouette.lines[0].get_ydata())
        self.assertEqual([2, 2], list(loss.lines[1].get_xdata()))
        self.assertIn("highest: 2 classes", [text.get_text() for text in silhouette.get_legend().get_texts()])

    def test_classify_without_fine_classes_has_no_curve(self):
        protocol = self.classified()
        self.writeJson(protocol.getStagePath("classification.json"), {"frc_threshold": 0.5, "grouping": []})
        viewer = self.open(viewers.Siamese2DClassifyViewer, protocol)
        self.assertIn("No fine classes were made", texts(self.figure(viewer, "showGrouping")))

    def test_classify_averages_frc_and_convergence(self):
        viewer = self.open(viewers.Siamese2DClassifyViewer, self.classified(), classNumber=2)
        averages = self.figure(viewer, "showAverages")
        captions = [text.get_text() for text in averages.axes[0].texts if "%" in text.get_text()]
        self.assertEqual(["7  ·  58.3%\n12.0 Å", "2  ·  16.7%\n30.0 Å"], captions)
        self.assertIn("3 particles in no class", texts(averages))
        curves = self.figure(viewer, "showFrc").axes[0]
        named = next(line for line in curves.lines if line.get_label() == "class 2")
        np.testing.assert_allclose([1.0, 0.5, 0.2], named.get_ydata())
        changed, likelihood, resolution, classes = self.figure(viewer, "showConvergence").axes
        np.testing.assert_allclose([0.5, 0.4, 0.1, 0.1], changed.lines[0].get_ydata())
        np.testing.assert_allclose([20, 20, 20, 10], resolution.lines[0].get_ydata())
        np.testing.assert_allclose([4, 5, 7, 9], likelihood.lines[0].get_ydata())
        np.testing.assert_allclose([1, 1, 2, 2], classes.lines[0].get_ydata())

    def test_classify_members_least_certain_first(self):
        protocol = self.classified()
        viewer = self.open(viewers.Siamese2DClassifyViewer, protocol)
        figure = self.figure(viewer, "showMembers")
        self.assertIn("Members of class 2", texts(figure))
        rows = [round(float(image.get_array().min())) for image in figure.axes[0].images]
        self.assertEqual([2, 6, 5, 4, 3, 1, 0], rows)
        captions = [text.get_text() for text in figure.axes[0].texts if text.get_text().endswith("%")]
        self.assertEqual(["10%", "40%", "50%", "60%", "70%", "80%", "90%"], captions)
        viewer.classNumber.set(5)
        self.assertIn("Class 5 has no particles", self.message(viewer, "showMembers"))
        os.remove(protocol.getStagePath("a stack.mrcs"))
        viewer.classNumber.set(1)
        self.assertIn("a stack.mrcs is missing", self.message(viewer, "showMembers"))

    def test_assign_without_new_averages_has_no_curves(self):
        protocol = self.protocol(protocols.Siamese2DProtAssign)
        viewer = self.open(viewers.Siamese2DAssignViewer, protocol)
        self.assertNotIn("showConvergence", viewer.PLOTS)
        self.writeJson(protocol.getStagePath("classification.json"), {"frc_threshold": 0.5, "frc": []})
        self.assertIn("averages are those of the given classes", self.message(viewer, "showFrc"))

    def test_classify_missing_averages(self):
        protocol = self.classified()
        os.remove(protocol.getStagePath("classes.mrcs"))
        viewer = self.open(viewers.Siamese2DClassifyViewer, protocol)
        self.assertIn("classes.mrcs is missing", self.message(viewer, "showAverages"))

    def test_shift_of_members_is_in_pixels_of_the_particles(self):
        protocol = self.classified()
        folder = run_files.RunFolder(protocol.getStagePath())
        table = folder.read_table("particles.star", "particles")
        table["rlnOriginXAngst"][:] = 2 * PIXEL_SIZE
        plain = run_files.read_particles([table["rlnImageName"][7]])[0]
        moved = members_of(table, 1, "particles.star", PIXEL_SIZE).images(folder, 0, 1)[0]
        np.testing.assert_allclose(plain[:, :-2], moved[:, 2:], rtol=1e-5)

    # --------------------------- wizards -----------------------------------------------
    def coordinates(self, box):
        source = self.picked([0.5])
        micrographs = source.inputMicrographs.get()
        coordinates = source._createSetOfCoordinates(source.inputMicrographs)
        coordinates.setBoxSize(box)
        for micrograph, count in zip(micrographs.iterItems(), (1, 3)):
            for number in range(count):
                coordinate = Coordinate(x=10 + number, y=20)
                coordinate.setMicrograph(micrograph)
                coordinates.append(coordinate)
        source._defineOutputs(outputCoordinates=coordinates)
        return coordinates

    def test_box_sizes_are_even_and_fast(self):
        sizes = [good_box(size) for size in (1, 13, 63.9, 75, 97, 150 + 1e-9, 151)]
        self.assertEqual([2, 16, 64, 80, 100, 150, 160], sizes)
        with self.assertRaisesRegex(ValueError, "not possible"):
            good_box(0)

    def test_box_size_wizard(self):
        coordinates = self.coordinates(box=40)
        form = SimpleNamespace(root=None, setVar=mock.Mock(), protocol=mock.Mock())
        form.protocol.inputCoordinates.get.return_value = coordinates
        form.protocol.getMicrographs.return_value = coordinates.getMicrographs()
        wizards.Siamese2DBoxSizeWizard().show(form)
        form.setVar.assert_called_once_with("boxSize", 60)

    def test_box_size_without_what_it_needs(self):
        with self.assertRaisesRegex(MissingInput, "Choose the coordinates"):
            suggestBox(None, None)
        coordinates = self.coordinates(box=0)
        with self.assertRaisesRegex(MissingInput, "no box size"):
            suggestBox(coordinates, coordinates.getMicrographs())

    def test_diameter_wizard_starts_with_the_fullest_micrograph(self):
        pages = micrographPages(self.coordinates(box=40))
        self.assertEqual(["mic2.mrc", "mic1.mrc"], [page.name for page in pages])
        self.assertEqual([[10, 20], [11, 20], [12, 20]], pages[0].positions.tolist())
        self.assertEqual(MICROGRAPH, pages[0].read().shape)


if __name__ == "__main__":
    unittest.main()
