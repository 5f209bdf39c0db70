"""Wizards on a display, driven by mouse and slider, and what they say when something is missing."""

import json
import os
import unittest
from types import SimpleNamespace
from unittest import mock

import numpy as np
from pwem.objects import Particle, SetOfAverages, SetOfCoordinates
from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES
from pyworkflow.object import Pointer

import siamese2d.wizards as wizards
from siamese2d import Plugin
from siamese2d.labels import Labels
from siamese2d.objects import EmbeddingModel, PickerModel
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtImportCoordinates,
                                 Siamese2DProtPick, Siamese2DProtPickUnlabeled, Siamese2DProtTrainEmbedding,
                                 Siamese2DProtTrainPicker)
from siamese2d.protocols.protocol_train_embedding import TRIPLET
from siamese2d.tests.class_sets import PIXEL_SIZE, ClassSets
from siamese2d.tests.layer import WindowTest, writeMrc
from siamese2d.wizards.choice_plots import elbow_of
from siamese2d.wizards.count_dialog import PickedMicrograph, PickedSample
from siamese2d.wizards.figure_dialog import FigureDialog
from siamese2d.wizards.particle_count import chooseMicrographs, pickSample

# Precision falls and recall rises when the threshold is lowered.
CURVE = [{"threshold": threshold, "precision": precision, "recall": recall} for threshold, precision, recall in
         ((0.9, 1.0, 0.2), (0.6, 0.9, 0.6), (0.3, 0.8, 0.8), (0.1, 0.3, 0.9))]
ELBOW = [{"k": k, "inertia": inertia, "silhouette": silhouette} for k, inertia, silhouette in
         ((2, 1.0, 0.3), (3, 0.9, 0.4), (6, 0.3, 0.35), (12, 0.2, 0.2))]


class WizardTest(ClassSets, WindowTest):
    """Opens dialogs for real; what a test does in one is done after it is visible."""

    def form(self, protocolClass, variable, **parameters):
        protocol = protocolClass()
        for name, value in parameters.items():
            getattr(protocol, name).set(value)
        return SimpleNamespace(root=self.root, protocol=protocol, wizParamName=variable, setVar=mock.Mock())

    def drive(self, wizard, form, act=lambda dialog: None, result=RESULT_YES):
        """Run a wizard, do `act(dialog)` in its dialog and close that with a result; what the form was given."""
        self.root.deiconify()
        self.root.update()
        problems = []

        def find():
            dialogs = [child for child in self.root.winfo_children() if isinstance(child, FigureDialog)]
            if not dialogs or not dialogs[0].winfo_viewable():
                self.root.after(20, find)
                return
            try:
                self.root.update()
                act(dialogs[0])
                self.root.update()
            except Exception as problem:
                problems.append(problem)
            finally:
                dialogs[0]._handleResult(result)

        waiting = self.root.after(20, find)
        wizard().show(form)
        self.root.after_cancel(waiting)
        if problems:
            raise problems[0]
        return [call.args for call in form.setVar.call_args_list]

    def press(self, dialog, axes, x, y, kind="<ButtonPress-1>", state=0):
        """An event of the mouse at a place in the coordinates of axes."""
        dialog._canvas.draw()
        column, row = dialog._figure.axes[axes].transData.transform((x, y))
        widget = dialog._canvas.get_tk_widget()
        widget.event_generate(kind, x=round(column), y=round(dialog._figure.bbox.height - row), state=state)
        self.root.update()

    def said(self, wizard, form):
        """The one message that a wizard shows in place of its dialog."""
        module = wizard.__module__
        with mock.patch(f"{module}.showInfo") as info, mock.patch(f"{module}.showError") as error:
            wizard().show(form)
        form.setVar.assert_not_called()
        [call] = info.call_args_list + error.call_args_list
        return call.args[1]


class TestModelChoices(WizardTest):
    def trained(self, model, **training):
        os.makedirs("trained", exist_ok=True)
        model.setFileName("trained/model.safetensors")
        open(model.getFileName(), "w").close()
        if training:
            with open("trained/training.json", "w") as report:
                json.dump(training, report)
        return model

    def pickForm(self, **training):
        return self.form(Siamese2DProtPick, "threshold", inputPicker=self.trained(PickerModel(), **training))

    def classifyForm(self, **training):
        return self.form(Siamese2DProtClassify, "numberOfClasses",
                         inputEmbedding=self.trained(EmbeddingModel(), **training))

    def testThresholdByMouseAndSlider(self):
        form = self.pickForm(precision_recall=CURVE, threshold=0.5, held_out_labels=20)
        texts = []

        def act(dialog):
            self.assertEqual(0.5, dialog.value)
            self.press(dialog, 0, 0.58, 0.93)
            self.assertAlmostEqual(0.6, dialog.value)
            self.press(dialog, 0, 0.79, 0.82, "<Motion>", state=0x100)
            self.assertAlmostEqual(0.3, dialog.value)
            self.press(dialog, 0, 0.79, 0.82, "<ButtonRelease-1>")
            self.press(dialog, 0, 0.2, 1.0, "<Motion>")
            self.assertAlmostEqual(0.3, dialog.value)
            self.press(dialog, 1, 0.45, 0.5)
            self.assertAlmostEqual(0.45, dialog.value, delta=0.01)
            dialog.setValue(0.45)
            self.root.update()
            texts.append(dialog._text.cget("text"))

        self.assertEqual([("threshold", 0.45)], self.drive(wizards.Siamese2DThresholdWizard, form, act))
        # Half way between the points at 0.3 and 0.6.
        self.assertEqual(["From a score of 0.45 on, about 85 of 100 picks are particles (precision), and 70 of 100 "
                          "particles are picked (recall)."], texts)

    def testThresholdOfTheFormIsKept(self):
        form = self.pickForm(precision_recall=CURVE, threshold=0.5)
        form.protocol.threshold.set(0.2)
        self.assertEqual([("threshold", 0.2)], self.drive(wizards.Siamese2DThresholdWizard, form))
        form.setVar.reset_mock()
        self.assertEqual([], self.drive(wizards.Siamese2DThresholdWizard, form, result=RESULT_CANCEL))

    def testNoThresholdToChoose(self):
        wizard = wizards.Siamese2DThresholdWizard
        self.assertIn("Choose the picker first", self.said(wizard, self.form(Siamese2DProtPick, "threshold")))
        self.assertIn("there is nothing to show", self.said(wizard, self.pickForm()))
        self.assertIn("no curve", self.said(wizard, self.pickForm(precision_recall=[])))
        form = self.pickForm(precision_recall=CURVE)
        os.remove("trained/model.safetensors")
        self.assertIn("is gone", self.said(wizard, form))

    def testNumberOfClasses(self):
        form = self.classifyForm(elbow=ELBOW)

        def act(dialog):
            # The bend, as it is more than the highest silhouette's 3.
            self.assertEqual(6, dialog.value)
            self.press(dialog, 1, 8.2, 0.3)

        self.assertEqual([("numberOfClasses", 8)], self.drive(wizards.Siamese2DClassCountWizard, form, act))
        form = self.classifyForm(elbow=ELBOW)
        self.assertEqual([("numberOfClasses", 12)], self.drive(
            wizards.Siamese2DClassCountWizard, form, lambda dialog: dialog.setValue(40)))

    def testNoElbow(self):
        wizard = wizards.Siamese2DClassCountWizard
        self.assertIn("Choose the embedding first", self.said(wizard, self.form(Siamese2DProtClassify, "")))
        self.assertIn("no elbow", self.said(wizard, self.classifyForm(elbow=[])))
        with open("trained/training.json", "w") as report:
            report.write("{")
        self.assertIn("can't be read", self.said(wizard, self.classifyForm()))

    def testBendOfTheElbow(self):
        # Distances below the line from (2, 1) to (12, 0.2), by hand: 0, 0.02, 0.38, 0 of the height.
        self.assertEqual(6, elbow_of(ELBOW))
        self.assertEqual(2, elbow_of(ELBOW[:2]))
        self.assertEqual(2, elbow_of([{"k": k, "inertia": 1.0} for k in (2, 3, 4)]))


class TestCircles(WizardTest):
    def testMaskOnAverages(self):
        averages = self.makeAverages(count=3)
        form = self.form(Siamese2DProtAssign, "maskDiameter", inputParticles=self.makeParticles(box=10),
                         inputClasses=averages)
        names = []

        def act(dialog):
            names.extend(page.name for page in dialog._images)
            self.assertEqual(24.0, dialog.diameter)
            dialog.turn(+1)
            dialog.setValue(21)

        self.assertEqual([("maskDiameter", 21.0)], self.drive(wizards.Siamese2DMaskWizard, form, act))
        self.assertEqual(["brightest of 3 class averages", "class 1", "class 2", "class 3"], names)

    def testLargestClassesFirst(self):
        classes = self.makeClasses(sizes=(1, 4, 2))
        form = self.form(Siamese2DProtTrainEmbedding, "maskDiameter", mode=TRIPLET, inputClasses=classes)

        def act(dialog):
            self.assertEqual(["class 2, 4 particles", "class 3, 2 particles", "class 1, 1 particles"],
                             [page.name for page in dialog._images[1:]])
            brightest = dialog._images[0].read()
            np.testing.assert_array_equal(brightest, np.max([page.read() for page in dialog._images[1:]], axis=0))

        self.drive(wizards.Siamese2DMaskWizard, form, act, RESULT_CANCEL)
        form.setVar.assert_not_called()

    def testMaskOnParticles(self):
        form = self.form(Siamese2DProtClassify, "maskDiameter", inputParticles=self.makeParticles(), maskDiameter=30)
        self.assertEqual([("maskDiameter", 30.0)], self.drive(wizards.Siamese2DMaskWizard, form))

    def testNothingToMask(self):
        wizard = wizards.Siamese2DMaskWizard
        self.assertIn("Choose the particles", self.said(wizard, self.form(Siamese2DProtClassify, "maskDiameter")))
        self.assertIn("Choose the 2D classes", self.said(
            wizard, self.form(Siamese2DProtTrainEmbedding, "maskDiameter", mode=TRIPLET)))
        self.assertIn("no class averages", self.said(wizard, self.form(
            Siamese2DProtAssign, "maskDiameter", inputParticles=self.makeParticles(),
            inputClasses=self.makeClasses(averages=None))))
        empty = self.emptySet(SetOfAverages)
        empty.write()
        self.assertIn("no class averages", self.said(wizard, self.form(
            Siamese2DProtAssign, "maskDiameter", inputClasses=empty)))
        averages = self.makeAverages()
        os.remove("averages alone.mrcs")
        self.assertIn("is missing", self.said(wizard, self.form(
            Siamese2DProtAssign, "maskDiameter", inputClasses=averages)))

    def testCirclesAreClickedOnMicrographs(self):
        micrographs = self.makeMicrographs(size=(200, 300))
        form = self.form(Siamese2DProtPickUnlabeled, "largestDiameter", inputMicrographs=micrographs, diameter=40)

        def act(dialog):
            self.assertEqual(40, dialog.diameter)
            self.press(dialog, 0, 50, 60)
            self.press(dialog, 0, 250, 150)
            np.testing.assert_allclose(dialog._positions[0], [[150, 100], [50, 60], [250, 150]], atol=1)
            self.press(dialog, 0, 140, 90, "<ButtonPress-3>")
            np.testing.assert_allclose(dialog._positions[0], [[50, 60], [250, 150]], atol=1)
            dialog.turn(+1)
            self.press(dialog, 0, 10, 10, "<ButtonPress-3>")
            self.press(dialog, 0, 10, 10, "<ButtonPress-3>")
            self.assertEqual((0, 2), dialog._positions[1].shape)
            dialog.setValue(55)

        self.assertEqual([("largestDiameter", 55.0)],
                         self.drive(wizards.Siamese2DMicrographDiameterWizard, form, act))

    def testCirclesWhereAFileSays(self):
        with open("marks.csv", "w") as marks:
            marks.write("micrograph,x,y\ngrid1_1,10,20\ngrid1_1,30,15\n")
        form = self.form(Siamese2DProtImportCoordinates, "diameter", inputMicrographs=self.makeMicrographs(),
                         coordinatesFile="marks.csv")

        def act(dialog):
            self.assertEqual("grid1_1", dialog._images[0].name)
            np.testing.assert_array_equal(dialog._positions[0], [[10, 20], [30, 15]])

        self.drive(wizards.Siamese2DMicrographDiameterWizard, form, act)
        with open("marks.csv", "w") as marks:
            marks.write("micrograph,x,y\ngrid1_1,ten,20\n")
        self.assertIn("marks.csv", self.said(wizards.Siamese2DMicrographDiameterWizard,
                                             SimpleNamespace(**{**vars(form), "setVar": mock.Mock()})))

    def testNoMicrographs(self):
        self.assertIn("Choose the micrographs", self.said(
            wizards.Siamese2DMicrographDiameterWizard, self.form(Siamese2DProtPickUnlabeled, "diameter")))
        self.assertIn("Choose the marked particles", self.said(
            wizards.Siamese2DDiameterWizard, self.form(Siamese2DProtTrainPicker, "diameter")))


def sampleOf(scores, marked, others=(), diameter=20.0):
    """A sample of two equal micrographs whose candidates lie on a row, `marked` being the numbers of those marked."""
    places = np.array([[100.0 * number, 0] for number in range(len(scores))]).reshape(-1, 2)
    marks = np.concatenate([places[list(marked)] + 3, np.reshape(others, (-1, 2))])
    return PickedSample([PickedMicrograph(name, f"{name}.mrc", places, np.array(scores, dtype=float), marks)
                         for name in ("a", "b")], diameter, 1.0, 2.5)


class TestParticleCount(WizardTest):
    def testEstimateFromMarkedParticles(self):
        many = sampleOf(range(30, 0, -1), range(0, 24, 2))
        ratios = []
        for number in range(1, 25):
            share = number / 24
            score = 30 - 2 * ((number - 1) // 2)
            error = (share * (1 - share) / 24) ** 0.5
            ratios.append(2 * (31 - score) / (share - 0.5 * error) if share >= 0.3 else 99)
        self.assertEqual(sorted(2 * list(range(30, 0, -1)))[::-1][round(min(ratios)) - 1], many.best_threshold())
        self.assertEqual((24, 2), (many.found(0), many.found(30)))
        self.assertEqual(3.0, many.per_micrograph(28))

    def testFewMarksLowerTheSeparatingScore(self):
        self.assertEqual(2.5, sampleOf(range(9, 0, -1), (0, 1, 2)).best_threshold())
        # Scores at the marks: 9, 5 and 1, twice.
        self.assertEqual(1.0, sampleOf(range(9, 0, -1), (0, 4, 8)).best_threshold())

    def testMarksThatAreNotFoundLeaveTheSeparatingScore(self):
        for sample in (sampleOf(range(9, 0, -1), ()), sampleOf((3, 2, 1), (), others=[(5000, 0)] * 19),
                       sampleOf((), (), others=[(1, 1)] * 19)):
            self.assertEqual(2.5, sample.best_threshold())

    def testMicrographsWithMarksComeFirst(self):
        micrographs = [(number, f"m{number}") for number in range(20)]
        self.assertEqual({0: "m0", 5: "m5", 19: "m19"},
                         chooseMicrographs(micrographs, {"m0": 1, "m5": 1, "m19": 1}, 3))
        self.assertEqual([7, 0, 19], list(chooseMicrographs(micrographs, {"m7": 1}, 3)))
        self.assertEqual([2, 10, 18], list(chooseMicrographs(micrographs, {f"m{n}": 1 for n in range(2, 19)}, 3)))

    def testMissingInput(self):
        wizard, kind = wizards.Siamese2DParticleCountWizard, Siamese2DProtTrainPicker
        self.assertIn("Choose the micrographs", self.said(wizard, self.form(kind, "expectedParticles")))
        micrographs = self.makeMicrographs()
        self.assertIn("Choose the marked", self.said(wizard, self.form(
            kind, "expectedParticles", inputMicrographs=micrographs,
            inputCoordinates=self.makeCoordinates(micrographs, []))))
        self.assertIn("give the particle diameter", self.said(wizard, self.form(
            kind, "expectedParticles", inputMicrographs=micrographs,
            inputCoordinates=self.makeCoordinates(micrographs, [(0, 9, 9)], boxSize=0))))

    def testSliderCounts(self):
        form = self.form(Siamese2DProtTrainPicker, "expectedParticles", **self.blobs(bright=False))
        with mock.patch("siamese2d.wizards.particle_count.pickSample", return_value=sampleOf((9, 8, 2, 1), ())):
            def act(dialog):
                self.assertIn("2 particles in a micrograph, on average of 2", dialog._text.cget("text"))
                self.assertIn("a.mrc is missing", dialog._figure.axes[0].texts[-1].get_text())
                dialog.setValue(1.5)
            self.assertEqual([("expectedParticles", 3)],
                             self.drive(wizards.Siamese2DParticleCountWizard, form, act))

    def testEngineCountsBrightParticles(self):
        problems = Plugin.validateInstallation()
        if problems:
            self.skipTest(f"the engine can't run here: {problems[0]}")
        # Bright ones are looked for after dark ones were not found where the marks are.
        inputs = self.blobs(bright=True)
        sample = pickSample(inputs["inputMicrographs"], Labels(inputs["inputCoordinates"]), 48.0)
        self.assertEqual(6, sample.marked)
        self.assertGreaterEqual(sample.found(sample.best_threshold()), 5)
        self.assertAlmostEqual(16, sample.per_micrograph(sample.best_threshold()), delta=3)

    def testWhatTheEngineSays(self):
        inputs = self.blobs(bright=False)
        for mic in inputs["inputMicrographs"]:
            os.remove(mic.getFileName())
        form = self.form(Siamese2DProtTrainPicker, "expectedParticles", diameter=48, **inputs)
        failed = SimpleNamespace(returncode=2, stderr="siamese2d-engine: error: no micrograph can be read.\n")
        with mock.patch("siamese2d.wizards.particle_count.subprocess.run", return_value=failed):
            self.assertEqual("no micrograph can be read.", self.said(wizards.Siamese2DParticleCountWizard, form))

    def blobs(self, bright):
        """Two micrographs with 16 round particles each, 24 px wide, three of which are marked in each."""
        micrographs = self.makeMicrographs(number=2, size=(500, 500), name=f"blobs{bright}")
        rows, columns = np.mgrid[:500, :500]
        places = [(40 + 72 * (k % 4) + 7 * (k % 3), 40 + 72 * (k // 4) + 5 * (k % 2)) for k in range(16)]
        for seed, mic in enumerate([mic.clone() for mic in micrographs]):
            image = np.random.default_rng(seed).normal(size=(500, 500))
            for x, y in places:
                image += (3 if bright else -3) * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 6**2))
            writeMrc(mic.getFileName(), image, 2.0)
        marked = [(mic, *places[k]) for mic in (0, 1) for k in (0, 5, 10)]
        return {"inputMicrographs": micrographs, "inputCoordinates": self.makeCoordinates(micrographs, marked, 24)}


if __name__ == "__main__":
    unittest.main()
