"""The HTML report: one file with everything inside, whatever the set is like."""

import base64
import io
import json
import os
import unittest
from html.parser import HTMLParser
from unittest import mock

import matplotlib

matplotlib.use("Agg")

from PIL import Image
from pwem.protocols import ProtImportParticles

import siamese2d.viewers as viewers
from siamese2d.constants import VERSION
from siamese2d.tests.test_gallery_project import GalleryProjectTest
from siamese2d.viewers.report.html_report import Report, ReportClass, render_report
from siamese2d.viewers.viewer_gallery import write_class_report


class Page(HTMLParser):
    """Images, links and text of a page; complains about tags that are not closed."""

    VOID = {"meta", "img"}

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.words, self.open = [], [], [], []
        self.feed(text)
        if self.open:
            raise ValueError(f"not closed: {self.open}")

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise ValueError(f"{tag} closed where another was open")

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data.strip())

    def text(self):
        return "\n".join(word for word in self.words if word)


class TestPage(unittest.TestCase):
    def testEverythingIsEscaped(self):
        nasty = "<script>alert('1 & \"2\"')</script>"
        page = Page(render_report(Report(nasty, [nasty], [nasty], [ReportClass(1, nasty, (nasty, nasty))],
                                         [(nasty, b"x")], [(nasty, [(nasty, nasty)])],
                                         [(nasty, "javascript:alert(1)")])))
        self.assertGreaterEqual(page.text().count(nasty), 9)
        self.assertEqual([], page.links)

    def testEmptyReport(self):
        self.assertEqual("nothing\nnothing", Page(render_report(Report("nothing"))).text())


class TestClassReport(GalleryProjectTest):
    def write(self, classes):
        path = write_class_report(self.proj, classes)
        with open(path, encoding="utf-8") as file:
            return Page(file.read())

    def testEverythingIsInside(self):
        os.makedirs(self.owner.getStagePath(), exist_ok=True)
        with open(self.owner.getStagePath("classification.json"), "w") as file:
            json.dump({"frc_threshold": 0.143,
                       "frc": [{"class": 1, "frequency": [0.02, 0.04], "frc": [1.0, 0.1]}]}, file)
        with open(self.owner.getStagePath("run.json"), "w") as file:
            json.dump({"status": "finished", "command": "/secret/siamese2d-engine classify", "wall_seconds": 61.0,
                       "cpu_seconds": 120.0, "version": "9.8.7", "started": "2030-01-01",
                       "warnings": ["No CTF."]}, file)
        page = self.write(self.owner.outputClasses)
        pictures = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in page.images]
        self.assertEqual([(128, 128)] * 4, [picture.size for picture in pictures[:4]])
        self.assertEqual(5, len(pictures))
        self.assertNotIn("/secret", page.text())
        for words in ("4 classes of 6 particles, 1 empty", "3 · 37.5%", "7.0 Å", "Number of classes",
                      "siamese2d 9.8.7",
                      "00:01:01, 00:02:00 of CPU", "No CTF.", f"siamese2d {VERSION}, pwem", "Bepler et al."):
            self.assertIn(words, page.text())
        self.assertTrue(all(link.startswith("http") for link in page.links) and page.links)
        self.assertEqual(["1", "4", "2", "3"], [word for word in page.words if word in "1234" and word][:4])

    def testOtherProgramsAndMissingStacks(self):
        other = self.classified(ProtImportParticles)
        os.remove(other._getExtraPath("averages.mrcs"))
        page = self.write(other.outputClasses)
        self.assertEqual([], page.images)
        self.assertEqual(4, page.text().count("averages.mrcs is missing"))
        self.assertIn("pwem - import particles", page.text())

    def testGalleryWritesItInSlicesInTheOrderThatIsShown(self):
        view, = viewers.AClassGalleryViewer(project=self.proj)._visualize(self.owner.outputClasses)
        view.window = mock.Mock(model=view._model)
        view._model.order_name = "class number"
        parent, turns = mock.Mock(), []
        parent.after.side_effect = lambda _ms, act: turns.append(act)
        with mock.patch("webbrowser.open") as opened:
            self.assertIn("Writing", view._report(parent))
            while turns:
                turns.pop()()
        self.assertIn("which can be mailed", view.window.say.call_args.args[0])
        with open(opened.call_args.args[0].removeprefix("file://"), encoding="utf-8") as file:
            page = Page(file.read())
        self.assertEqual(["1", "2", "3", "4"], [word for word in page.words if word in ("1", "2", "3", "4")][:4])

    def testFormWritesAndOpensIt(self):
        viewer = viewers.Siamese2DClassifyViewer(project=self.proj, protocol=self.owner)
        viewer.setProtocol(self.owner)
        with mock.patch("webbrowser.open") as opened:
            view, = viewer._views("showReport")
        address, = opened.call_args.args
        self.assertTrue(os.path.exists(address.removeprefix("file://")))
        self.assertIn("outputClasses.html", view.getMessage())


if __name__ == "__main__":
    unittest.main()
