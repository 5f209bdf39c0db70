"""The demo: what it takes of a person's own files, and that its chain fits the protocols.

Its report is tested on the finished chain of ``test_protocols``.
"""

import csv
import os
from pathlib import Path
from unittest import mock

import mrcfile
import numpy as np
from PIL import Image
from pwem.protocols.protocol_classes_selector import OUTPUT_NAME
from pyworkflow.project import Manager

from siamese2d.tests.demo import demoModule, needsDemo
from siamese2d.tests.layer import FolderTest

ROWS = [("a", "A", 10, 20), ("a", "A", 11, 21), ("a", "B", 12, 22), ("b.png", "A", 13, 23), ("b", "B", 14, 24)]


@needsDemo
class TestOwnInput(FolderTest):
    def setUp(self):
        super().setUp()
        self.data = Path(self.folder, "data")
        self.data.mkdir()
        for index, name in enumerate("ab"):
            Image.fromarray(np.full((8, 12), 100 + index, np.uint8)).save(self.data / f"{name}.png")

    def own(self, coordinates=None, diameter=0.0, pixelSize=1.5):
        return demoModule("inputs").own(self.data, pixelSize, coordinates, diameter, Path(self.folder, "work"))

    def writePicks(self, rows=ROWS):
        with open(self.data / "picks.csv", "w", newline="") as stream:
            csv.writer(stream).writerows([("micrograph", "annotator", "x", "y"), *rows])

    def rowsOf(self, path):
        with open(path, newline="") as stream:
            return [(row["micrograph"], row["annotator"], row["x"]) for row in csv.DictReader(stream)]

    def testLabelsOfTheFirstHalfTrainAndThoseOfTheOtherMeasure(self):
        self.writePicks()
        found = self.own()
        self.assertCountEqual(self.rowsOf(found.labels), [("a", "A", "10"), ("a", "A", "11")])
        self.assertEqual(found.test_micrographs, ["b"])
        self.assertEqual({name: self.rowsOf(path) for name, path in found.truths.items()},
                         {"A": [("b", "A", "13")], "B": [("b", "B", "14")]})

    def testPicturesBecomeMrcThatScipionImports(self):
        self.writePicks()
        folder, pattern = os.path.split(self.own().pattern)
        self.assertEqual(pattern, "*.mrc")
        for name, value in (("a", 100), ("b", 101)):
            with mrcfile.open(os.path.join(folder, f"{name}.mrc")) as mrc:
                self.assertEqual((mrc.data.shape, mrc.data[3, 4]), ((8, 12), value))
                self.assertAlmostEqual(float(mrc.voxel_size.x), 1.5, places=5)

    def testWithoutLabelsADiameterIsEnough(self):
        found = self.own(diameter=120.0)
        self.assertIsNone(found.labels)
        self.assertEqual((found.diameter, found.test_micrographs), (120.0, ["a", "b"]))

    def testWhatIsMissingIsSaid(self):
        with self.assertRaisesRegex(SystemExit, "no coordinates there. Pass DIAMETER"):
            self.own()
        with self.assertRaisesRegex(SystemExit, "Pass PIXEL_SIZE"):
            self.own(diameter=120.0, pixelSize=None)
        with self.assertRaisesRegex(SystemExit, "missing.csv: the file does not exist"):
            self.own(coordinates=Path("missing.csv"))
        self.writePicks([("b", "A", 1, 2)])
        with self.assertRaisesRegex(SystemExit, "no labels on a to a"):
            self.own()


@needsDemo
class TestChainOfTheDemo(FolderTest):
    """Protocols as the demo sets them up; none is launched."""

    def chain(self, labels):
        """Parameters and protocol of each stage."""
        workflow = demoModule("workflow")
        manager = Manager()
        name = f"siamese2d_demo_test_{os.getpid()}"
        project = manager.createProject(name)
        self.addCleanup(manager.deleteProject, name)
        self.addCleanup(project.closeMapper)
        source = demoModule("inputs").DemoInput("*.mrc", 2.0, labels, 150.0, [])
        with mock.patch.object(workflow, "_launch", lambda project, protocol, stage: protocol), \
                mock.patch.object(project, "newProtocol", wraps=project.newProtocol) as made:
            runs = workflow.run_chain(project, source, 24)
        return {stage: (protocol, call.kwargs) for (stage, protocol), call in zip(runs.items(), made.call_args_list)}

    def assertFits(self, stages):
        """Parameters are those of the forms, and inputs point to outputs that their producers have."""
        for stage, (protocol, parameters) in stages.items():
            for name, value in parameters.items():
                self.assertIsNotNone(protocol.getParam(name), f"{stage}: no parameter {name}")
                self.assertEqual(getattr(protocol, name).get(), value)
            for name, pointer in protocol.iterInputAttributes():
                # Scipion's selector of classes lists none.
                declared = pointer.getObjValue()._possibleOutputs or ()
                outputs = [str(output.name) for output in declared] or [OUTPUT_NAME]
                self.assertIn(pointer.getExtended(), outputs, f"{stage}: {name}")

    def testWithLabels(self):
        stages = self.chain(Path("labels.star"))
        self.assertFits(stages)
        self.assertEqual(list(stages)[:4], ["import micrographs", "normalize", "import labels", "train picker"])

    def testWithoutLabels(self):
        stages = self.chain(None)
        self.assertFits(stages)
        self.assertEqual(stages["select classes"][1]["firstNElements"], 6)

    def testReportKnowsTheStages(self):
        stages = {*self.chain(Path("labels.star")), *self.chain(None)}
        measured = stages - {"import micrographs", "import labels", "select classes"}
        self.assertEqual(set(demoModule("report").STAGES), measured)
