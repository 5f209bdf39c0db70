"""Agreement of two classifications: numbers, plots, and how the viewers ask for it."""

import itertools
import unittest
from unittest import mock

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.text import Text

import siamese2d.viewers as viewers
from siamese2d.gallery.agreement import adjusted_rand_index, compare
from siamese2d.protocols import Siamese2DProtClassify
from siamese2d.tests.test_gallery_project import GalleryProjectTest
from siamese2d.viewers.agreement_view import AgreementView, other_classes

CHOOSE = "siamese2d.viewers.viewer_gallery.choose"


def rand_by_pairs(first, second):
    """Adjusted Rand index by looking at every pair."""
    together = [(first[i] == first[j], second[i] == second[j])
                for i, j in itertools.combinations(range(len(first)), 2)]
    both, one, other = (sum(test) for test in zip(*((a and b, a, b) for a, b in together)))
    expected = one * other / len(together)
    return (both - expected) / ((one + other) / 2 - expected)


def texts(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


class TestNumbers(unittest.TestCase):
    def testRandIndexAgainstAllPairs(self):
        generator = np.random.default_rng(0)
        for _ in range(5):
            first, second = generator.integers(0, 4, 40), generator.integers(0, 6, 40)
            second = np.where(generator.random(40) < 0.5, first, second)
            found = compare((np.arange(40), first), (np.arange(40), second))
            self.assertAlmostEqual(rand_by_pairs(first, second), found.rand_index, places=12)

    def testRandIndexAtItsEnds(self):
        self.assertEqual(1.0, adjusted_rand_index(np.diag([5, 3, 2])))
        self.assertEqual(1.0, adjusted_rand_index(np.array([[7]])))
        self.assertEqual(1.0, adjusted_rand_index(np.eye(4, dtype=int)))
        self.assertEqual(1.0, adjusted_rand_index(np.zeros((0, 0), dtype=int)))
        self.assertLess(adjusted_rand_index(np.array([[1, 1], [1, 1]])), 0)
        large = np.diag([400_000] * 5)
        self.assertEqual(1.0, adjusted_rand_index(large))

    def testParticlesAreMatchedByTheirIds(self):
        found = compare((np.array([1, 2, 3, 4, 5]), np.array([7, 7, 7, 8, 9])),
                        (np.array([2, 3, 4, 5, 6]), np.array([1, 1, 2, 2, 2])))
        self.assertEqual(([7, 8, 9], [1, 2]), (found.rows.tolist(), found.columns.tolist()))
        self.assertEqual([[2, 0], [0, 1], [0, 1]], found.counts.tolist())
        self.assertEqual((1, 1, 4, 3), (found.only_first, found.only_second, found.common, found.matched))
        self.assertEqual([[0, 0], [1, 1]], found.partners.tolist())

    def testMatchesShareAsManyAsPossible(self):
        # The largest overlap first would take 6 and leave 0; the best matching shares 5 + 4.
        counts = [[6, 5], [4, 0]]
        labels = [(row, column) for row in range(2) for column in range(2) for _ in range(counts[row][column])]
        first, second = np.array(labels).T
        found = compare((np.arange(15), first), (np.arange(15), second))
        self.assertEqual(9, found.matched)
        self.assertEqual([1, 0], found.columns.tolist())

    def testNothingInCommon(self):
        found = compare((np.array([1]), np.array([1])), (np.array([2]), np.array([1])))
        self.assertEqual((0, 0, 1, 1), (found.common, len(found.partners), found.only_first, found.only_second))


class TestViews(GalleryProjectTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.other = cls.classified(Siamese2DProtClassify)

    def testWindow(self):
        paths = self.owner.outputClasses.getFileName(), self.other.outputClasses.getFileName()
        view = AgreementView(("A", "B"), paths)
        self.addCleanup(view.close)
        self.assertIn("6 particles in both\nadjusted Rand index 1.000", texts(view.getFigure()))
        image, = view.getFigure().axes[0].images
        np.testing.assert_allclose(np.eye(3), np.nan_to_num(image.get_array().filled(0)))
        view.getFigure().siamese2d_browser.turn(+1)
        self.assertIn("Matched classes: A (left), B (right)", texts(view.getFigure()))
        self.assertEqual(6, len(view.getFigure().axes[0].images))
        self.assertIn("3\n100% shared", texts(view.getFigure()))

    def testDifferentParticles(self):
        with mock.patch("siamese2d.viewers.agreement_view.read_assignment", side_effect=[
                (np.array([1]), np.array([1])), (np.array([2]), np.array([1]))]):
            view = AgreementView(("A", "B"), (self.owner.outputClasses.getFileName(),
                                              self.other.outputClasses.getFileName()))
        self.addCleanup(view.close)
        self.assertIn("No particle is in both", texts(view.getFigure()).replace("\n", " "))
        self.assertIn("0 particles in both; 1 only in A; 1 only in B", texts(view.getFigure()))

    def testFormAsksForTheOtherClasses(self):
        viewer = viewers.Siamese2DClassifyViewer(project=self.proj, protocol=self.owner)
        viewer.setProtocol(self.owner)
        self.proj.getRuns()
        names = list(other_classes(self.proj, self.owner.outputClasses))
        self.assertEqual([f"{self.other.getRunName()}, outputClasses ({self.other.getObjId()})"], names)
        with mock.patch(CHOOSE, return_value=names[0]):
            view, = viewer._views("showAgreement")
        self.addCleanup(view.close)
        self.assertEqual(1.0, view.agreement.rand_index)
        with mock.patch(CHOOSE, return_value=None):
            self.assertEqual([], viewer._views("showAgreement"))
        with mock.patch("siamese2d.viewers.viewer_gallery.other_classes", return_value={}):
            view, = viewer._views("showAgreement")
        self.assertIn("no other 2D classes", view.getMessage())


if __name__ == "__main__":
    unittest.main()
