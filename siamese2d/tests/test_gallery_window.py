"""The gallery's windows on a display, driven by events of mouse and keyboard."""

import os
import sqlite3
import time
import unittest
from types import SimpleNamespace
from unittest import mock

import numpy as np
from pwem.objects import SetOfClasses2D
from pyworkflow.gui.dialog import RESULT_CANCEL, RESULT_YES

from siamese2d.constants import ATTR_CONFIDENCE
from siamese2d.gallery.class_list import Members, read_class_list
from siamese2d.gallery.model import GalleryModel
from siamese2d.tests.class_sets import PIXEL_SIZE, ClassSets, fillClasses
from siamese2d.tests.layer import WindowTest
from siamese2d.viewers.gallery.choice_dialog import ChoiceDialog, choose
from siamese2d.viewers.gallery.gallery_window import Actions, GalleryWindow
from siamese2d.viewers.gallery.members_window import MembersWindow
from siamese2d.viewers.gallery.pictures import Look, read_picture
from siamese2d.wizards import Siamese2DClassNumbersWizard

SHIFT, CONTROL = 0x1, 0x4


class GalleryTest(ClassSets, WindowTest):
    def open(self, sizes=(3, 1, 2, 2), number=10, actions=None, **values):
        """The window of a new set, all its images drawn."""
        classes = self.makeClasses(sizes=sizes, number=number, **values)
        self.path = classes.getFileName()
        model = GalleryModel(read_class_list(self.path), number)
        window = GalleryWindow(self.root, "test", model, actions or Actions())
        self.settle(window)
        return window

    def settle(self, window):
        """Wait until all on the screen is drawn."""
        self.wait(lambda: window.grid.complete or not window.grid.keys)

    def event(self, window, kind, key, state=0, offset=(20, 20)):
        left, top, _, _ = window.grid.box(window.grid.keys.index(key))
        canvas = window.grid.canvas
        canvas.event_generate(kind, x=left + offset[0], y=int(top - canvas.canvasy(0)) + offset[1], state=state)

    def click(self, window, key, state=0):
        self.event(window, "<ButtonPress-1>", key, state)
        self.event(window, "<ButtonRelease-1>", key, state)

    def texts(self, window):
        canvas = window.grid.canvas
        return [canvas.itemcget(item, "text") for item in canvas.find_all() if canvas.type(item) == "text"]

    def images(self, window):
        canvas = window.grid.canvas
        return [item for item in canvas.find_all() if canvas.type(item) == "image"]


class TestGalleryWindow(GalleryTest):
    def testShowsEveryAverageWithItsWords(self):
        window = self.open(resolutions=[9.0, 8.0, 7.0, 6.0])
        self.assertEqual([1, 3, 4, 2], window.grid.keys)
        self.assertEqual(4, len(self.images(window)))
        self.assertIn("3 · 30.0%", self.texts(window))
        self.assertIn("7.0 Å", self.texts(window))
        self.assertEqual("4 classes of 8 particles; 2 particles in no class; 3 Å per pixel",
                         window._heading.cget("text"))

    def testClicks(self):
        window = self.open()
        self.click(window, 3)
        self.assertEqual([3], window.model.selection.ids)
        self.click(window, 2, SHIFT)
        self.assertEqual([2, 3, 4], window.model.selection.ids)
        self.click(window, 4, CONTROL)
        self.assertEqual([2, 3], window.model.selection.ids)
        self.assertIn("2 of 4 classes, 3 of 10 particles (30.0%)", window._status.cget("text"))

    def testRubberBand(self):
        window = self.open()
        for state, expected in ((0, [1, 3, 4]), (CONTROL, [1])):
            first = 1 if not state else 3
            self.event(window, "<ButtonPress-1>", first, state, offset=(60, 60))
            self.event(window, "<B1-Motion>", 4, state | 0x100, offset=(30, 80))
            self.event(window, "<ButtonRelease-1>", 4, state, offset=(30, 80))
            self.assertEqual(expected, window.model.selection.ids)

    def testKeyboard(self):
        window = self.open()
        canvas = window.grid.canvas
        canvas.focus_force()
        self.root.update()
        canvas.event_generate("<Right>")
        canvas.event_generate("<space>")
        self.assertEqual([3], window.model.selection.ids)
        canvas.event_generate("<End>")
        canvas.event_generate("<space>", state=SHIFT)
        self.assertEqual([2, 3, 4], window.model.selection.ids)
        for key, expected in (("<Control-i>", [1]), ("<Control-z>", [2, 3, 4]), ("<Control-a>", [1, 2, 3, 4]),
                              ("<Escape>", [])):
            window.root.event_generate(key)
            self.assertEqual(expected, window.model.selection.ids)

    def testDoubleClickOpensTheMembersAndKeepsTheSelection(self):
        opened = []
        window = self.open(actions=Actions(open_members=lambda number, _parent: opened.append(number)))
        window.model.selection.toggle(3)
        self.click(window, 3)
        self.click(window, 3)
        self.wait(lambda: opened)
        self.assertEqual(([3], [3]), (opened, window.model.selection.ids))

    def testAveragesAloneSayThatTheyHaveNoMembers(self):
        window = GalleryWindow(self.root, "test", GalleryModel(read_class_list(self.makeAverages().getFileName())),
                               Actions())
        self.settle(window)
        window._opened(1)
        self.assertIn("averages alone", window._hint.cget("text"))
        self.assertFalse(window.thresholds.winfo_exists())

    def testThresholds(self):
        window = self.open(resolutions=[9.0, 8.0, 7.0, 6.0])
        window.thresholds.set(size=2, resolution=8)
        window.thresholds.apply()
        self.assertEqual([3, 4], window.model.selection.ids)
        window.thresholds._fields["size"].insert(0, "x")
        window.thresholds.apply()
        self.assertEqual([3, 4], window.model.selection.ids)

    def testOrder(self):
        window = self.open(resolutions=[9.0, 8.0, 7.0, None])
        window.sort_by("resolution")
        self.assertEqual([3, 2, 1, 4], window.grid.keys)
        window.sort_by("similarity")
        self.wait(lambda: window.model.similarity_known)
        self.assertEqual({1, 2, 3, 4}, set(window.grid.keys))
        self.assertEqual(1, window.grid.keys[0])

    def testOnlyWhatIsOnTheScreenIsRead(self):
        window = self.open(sizes=[1] * 60, number=60)
        shown = len(self.images(window))
        self.assertTrue(20 < shown < 60, shown)
        self.assertEqual(shown, len(window.grid._pictures))
        window.grid.canvas.event_generate("<End>")
        self.settle(window)
        self.assertIn(60, [window.grid.keys[position] for position in window.grid._drawn])
        self.assertNotIn(0, window.grid._drawn)

    def testLook(self):
        window = self.open()
        for look in (Look(200, 2.0, 12.0), Look(64)):
            window.grid.set_look(look)
            self.settle(window)
            self.wait(lambda: not window.grid._settling)
            self.settle(window)
            self.assertEqual(4, len(self.images(window)))
            left, top, right, bottom = window.grid.box(0)
            self.assertEqual((look.side, look.side), (right - left, bottom - top))

    def testMissingStackIsShownInItsPlace(self):
        window = self.open()
        os.remove("averages.mrcs")
        window.grid.read_again()
        self.settle(window)
        self.assertEqual(4, self.texts(window).count("file missing"))
        self.event(window, "<Motion>", 3)
        self.assertIn("averages.mrcs is missing", window._hint.cget("text"))
        window.say("done")
        window.grid.canvas.event_generate("<Leave>")
        self.assertEqual("done", window._hint.cget("text"))
        window.sort_by("similarity")
        self.wait(lambda: window.model.similarity_known)
        self.click(window, 3)
        self.assertEqual([3], window.model.selection.ids)

    def setStreamState(self, state):
        with sqlite3.connect(self.path) as connection:
            connection.execute("INSERT OR REPLACE INTO Properties VALUES ('_streamState', ?)", (str(state),))

    def testSetThatIsStillGrowing(self):
        kept = []
        window = self.open(actions=Actions(keep=lambda numbers, _parent: kept.append(numbers) or "done"))
        window.actions.reload = lambda: GalleryModel(read_class_list(self.path), 10)
        self.click(window, 4)
        for state, told in ((SetOfClasses2D.STREAM_OPEN, True), (SetOfClasses2D.STREAM_CLOSED, False)):
            self.setStreamState(state)
            window.reload()
            self.settle(window)
            self.assertEqual(told, "still growing" in window._notice.cget("text"))
            self.assertEqual(told, bool(window._notice.winfo_manager()))
            window.keep()
        self.assertEqual([[4], [4]], kept)

    def testSetThatIsBeingWritten(self):
        window = self.open()
        window.actions.reload = lambda: GalleryModel(read_class_list(self.path), 10)
        self.click(window, 3)
        with mock.patch("siamese2d.gallery.class_list.LOCK_SECONDS", 0.05):
            writer = sqlite3.connect(self.path, isolation_level="EXCLUSIVE")
            writer.execute("BEGIN EXCLUSIVE")
            window.reload()
            writer.rollback()
            writer.close()
        self.assertIn("if a protocol is writing it, look again later", window._hint.cget("text"))
        self.assertEqual(([1, 3, 4, 2], [3]), (window.grid.keys, window.model.selection.ids))

    def testMembersOfAClassThatIsGone(self):
        window = self.open()
        members = Members(self.path)
        window.actions.open_members = lambda number, parent: MembersWindow(parent, "gone", members, 99, PIXEL_SIZE)
        window._opened(1)
        self.assertIn("has no class 99 any more", window._hint.cget("text"))
        self.assertEqual(4, len(self.images(window)))

    def testClassesWithoutAverages(self):
        window = self.open(averages=None)
        self.assertEqual(4, self.texts(window).count("no average"))
        self.assertIn("4 of 4 classes have no average", window._notice.cget("text"))

    def testNothingSelectedKeepsNothing(self):
        kept = []
        window = self.open(actions=Actions(keep=lambda numbers, _parent: kept.append(numbers) or "done"))
        self.assertTrue(window._keep.instate(["disabled"]))
        window.keep()
        self.assertIn("Nothing is selected", window._hint.cget("text"))
        self.click(window, 4)
        window._keep.invoke()
        self.assertEqual(([[4]], "done"), (kept, window._hint.cget("text")))

    def testRefusalLeavesTheSelection(self):
        def refuse(_numbers, _parent):
            raise OSError("the disk is full")

        window = self.open(actions=Actions(keep=refuse))
        self.click(window, 4)
        window.keep()
        self.assertIn("the disk is full", window._hint.cget("text"))
        self.assertEqual([4], window.model.selection.ids)

    def testReloadWhileAveragesAreCompared(self):
        window = self.open()
        window.actions.reload = lambda: GalleryModel(read_class_list(self.path), 10)
        window.sort_by("similarity")
        window.reload()
        self.wait(lambda: window.model.similarity_known)
        self.assertEqual({1, 2, 3, 4}, set(window.grid.keys))

    def testClosingWhileWorkIsLeft(self):
        errors = []
        self.root.report_callback_exception = lambda *problem: errors.append(problem)
        self.addCleanup(delattr, self.root, "report_callback_exception")
        window = self.open()
        window.sort_by("similarity")
        window.grid.set_look(Look(80))
        window.root.destroy()
        for _ in range(20):
            self.root.update()
            time.sleep(0.01)
        self.assertEqual([], errors)

    def testReloadKeepsSelectionAndOrder(self):
        window = self.open(sizes=(3, 1), number=4)
        grown = self.emptySet(SetOfClasses2D)
        particles = self.makeParticles(number=9)
        grown.getImagesPointer().set(particles)
        path = fillClasses(grown, particles, [3, 1, 5]).getFileName()
        window.actions.reload = lambda: GalleryModel(read_class_list(path), 9)
        self.click(window, 2)
        window.sort_by("class number")
        window.reload()
        self.settle(window)
        self.assertEqual(([1, 2, 3], [2]), (window.grid.keys, window.model.selection.ids))
        os.remove(path)
        window.actions.reload = lambda: GalleryModel(read_class_list(path), 9)
        window.reload()
        self.assertIn("is missing", window._hint.cget("text"))
        self.assertEqual([1, 2, 3], window.grid.keys)


class TestChoiceDialog(GalleryTest):
    def choose(self, act):
        """What the dialog returns when `act(dialog)` is done in it."""
        self.root.deiconify()
        self.root.update()

        def find():
            dialogs = [child for child in self.root.winfo_children() if isinstance(child, ChoiceDialog)]
            if dialogs and dialogs[0].winfo_viewable():
                act(dialogs[0])
            else:
                self.root.after(20, find)

        self.root.after(20, find)
        return choose(self.root, "Agreement", "Compare with:", ["a", "b"])

    def testFirstIsOfferedAndAnotherCanBeTaken(self):
        self.assertEqual("a", self.choose(lambda dialog: dialog._handleResult(RESULT_YES)))
        self.assertEqual("b", self.choose(lambda dialog: (dialog._list.current(1), dialog._handleResult(RESULT_YES))))

    def testCancel(self):
        self.assertIsNone(self.choose(lambda dialog: dialog._handleResult(RESULT_CANCEL)))


class TestWizard(GalleryTest):
    def form(self, numbers):
        classes = self.makeClasses(sizes=(3, 1, 2))
        form = SimpleNamespace(root=self.root, setVar=mock.Mock(), protocol=mock.Mock())
        form.protocol.inputClasses.get.return_value = classes
        form.protocol.classNumbers.get.return_value = numbers
        return form

    def testWhatIsKeptGoesIntoTheForm(self):
        for typed, selected in (("2-3", [2, 3]), ("x", [])):
            form = self.form(typed)
            window = Siamese2DClassNumbersWizard().show(form)
            self.settle(window)
            self.assertEqual(selected, window.model.selection.ids)
            window.model.selection.replace([1, 2])
            window.keep()
            self.wait(lambda: not window.root.winfo_exists())
            form.setVar.assert_called_once_with("classNumbers", "1-2")

    def testWithoutInput(self):
        form = self.form("")
        form.protocol.inputClasses.get.return_value = None
        with mock.patch("siamese2d.wizards.class_numbers.showInfo") as said:
            self.assertIsNone(Siamese2DClassNumbersWizard().show(form))
        self.assertIn("Choose the 2D classes first", said.call_args.args[1])


class TestMembersWindow(GalleryTest):
    def open(self, sizes=(4, 0), number=6, class_id=1):
        classes = self.makeClasses(sizes=sizes, number=number)
        self.classes = classes
        window = MembersWindow(self.root, f"Class {class_id}", Members(classes.getFileName()), class_id, PIXEL_SIZE)
        self.settle(window)
        return window

    def testLeastCertainFirst(self):
        window = self.open()
        confidence = {item.getObjId(): getattr(item, ATTR_CONFIDENCE).get() for item in self.classes[1]}
        self.assertEqual(sorted(confidence, key=confidence.get), window.grid.keys)
        self.assertEqual(["60%", "70%", "80%", "90%"], [text for text in self.texts(window) if "%" in text])
        self.assertEqual(4, len(self.images(window)))

    def testMembersAreAligned(self):
        window = self.open()
        member = next(item.clone() for item in self.classes[1] if item.getObjId() == window.grid.keys[0])
        image = read_picture(member.getLocation())
        # The set's transform mirrors x about the centre, box // 2.
        np.testing.assert_allclose(image[:, 1:][:, ::-1], window._read(member.getObjId())[:, 1:], atol=1e-5)

    def testEmptyClass(self):
        window = self.open(class_id=2)
        self.assertEqual([], window.grid.keys)
        self.assertEqual("This class is empty.", window._hint.cget("text"))

    def testMissingStack(self):
        window = self.open()
        os.remove("stack.mrcs")
        window.grid.read_again()
        self.settle(window)
        self.assertEqual(4, self.texts(window).count("file missing"))


if __name__ == "__main__":
    unittest.main()
