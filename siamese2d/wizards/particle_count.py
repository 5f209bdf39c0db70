"""Particles per micrograph for a form: some micrographs are picked without labels, and the user looks."""

import os
import shutil
import subprocess
import tempfile

import numpy as np
from pwem.wizards import EmWizard
from pyworkflow.exceptions import ValidationException
from pyworkflow.gui.dialog import showError, showInfo

from siamese2d import Plugin, quoteArguments
from siamese2d.constants import PICK_UNLABELED
from siamese2d.convert import MICROGRAPH, X, Y, writeLabels, writeMicrographs
from siamese2d.labels import Labels
from siamese2d.protocols import Siamese2DProtTrainPicker
from siamese2d.protocols.protocol_pick_unlabeled import CONTRASTS
from siamese2d.streams import Subset
from siamese2d.viewers.run_files import RunFileError, RunFolder, read_table
from siamese2d.wizards.count_dialog import CountDialog, PickedMicrograph, PickedSample

SAMPLE = 6
SCORE = "rlnAutopickFigureOfMerit"
PATIENCE = 300
TITLE = "Particles per micrograph"


class Siamese2DParticleCountWizard(EmWizard):
    """Picks a few micrographs without labels, and shows how many particles that finds."""

    _targets = [(Siamese2DProtTrainPicker, ["expectedParticles"])]

    def show(self, form, *params):
        protocol = form.protocol
        problem = missingInput(protocol)
        if problem:
            showInfo(TITLE, problem, form.root)
            return
        form.root.config(cursor="watch")
        form.root.update_idletasks()
        try:
            sample = pickSample(protocol.inputMicrographs.get(), Labels(protocol.inputCoordinates.get()),
                                protocol.getDiameter(), max(protocol.getBinThreads(), 1))
        except (RunFileError, ValidationException) as failure:
            showError(TITLE, str(failure), form.root)
            return
        finally:
            form.root.config(cursor="")
        if not len(sample.scores):
            showInfo(TITLE, "Picking without labels finds nothing on these micrographs. Leave -1: training estimates "
                            "the "
                            "number from the marked particles.", form.root)
            return
        dialog = CountDialog(form.root, TITLE, sample)
        if dialog.resultYes():
            form.setVar("expectedParticles", max(1, round(dialog.count)))


def missingInput(protocol):
    """What has to be chosen in the form before anything can be counted; empty when nothing."""
    micrographs, marked = protocol.inputMicrographs.get(), protocol.inputCoordinates.get()
    if micrographs is None or not micrographs.getSize():
        return "Choose the micrographs first."
    if marked is None or not Labels(marked).getSize():
        return "Choose the marked particles first."
    if not protocol.getDiameter():
        return "The marked particles have no box size: give the particle diameter first."
    return ""


def pickSample(micrographs, labels, diameter, threads=1):
    """Pick some micrographs without labels, those with marked particles first.

    Parameters
    ----------
    micrographs : SetOfMicrographs
    labels : Labels
        Marked particles.
    diameter : float
        Angstroms.
    threads : int
        Of the engine.

    Returns
    -------
    PickedSample
        Of dark or of bright particles, whichever finds more of the marked ones.

    Raises
    ------
    ValidationException
        If the engine can't pick them; the message is its own.
    """
    folder = tempfile.mkdtemp(prefix="siamese2d-")
    try:
        marked = _markedPlaces(os.path.join(folder, "marked.star"), labels, micrographs)
        chosen = chooseMicrographs([(mic.getObjId(), mic.getFileName()) for mic in micrographs.iterItems()], marked)
        star = os.path.join(folder, "micrographs.star")
        writeMicrographs(star, Subset(micrographs, chosen))
        samples = (_sampleOf(_pick(star, diameter, contrast, folder, threads), list(chosen.values()), marked,
                             diameter, micrographs.getSamplingRate()) for contrast in CONTRASTS)
        dark = next(samples)
        if 2 * dark.found(dark.threshold) >= dark.marked:
            return dark
        return max(dark, next(samples), key=lambda sample: sample.found(sample.threshold))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def chooseMicrographs(micrographs, marked, number=SAMPLE):
    """Ids and files of some micrographs: evenly spaced among those with marked particles, then among the others.

    Parameters
    ----------
    micrographs : list of (int, str)
        Ids and files.
    marked : dict
        Its keys are the files that have marked particles.
    number : int
        How many.
    """
    having = [item for item in micrographs if item[1] in marked]
    others = [item for item in micrographs if item[1] not in marked]
    chosen = _spread(having, number)
    return dict(chosen + _spread(others, number - len(chosen)))


def _spread(items, number):
    if number <= 0 or not items:
        return []
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(number, len(items))).round().astype(int))]


def _markedPlaces(path, labels, micrographs):
    """Positions `(n, 2)` of the marked particles by file of their micrograph."""
    writeLabels(path, labels, micrographs)
    table = read_table(path)
    return _places(table) if table else {}


def _places(table):
    places = np.column_stack([table[X], table[Y]]).astype(float)
    return {name: places[table[MICROGRAPH] == name] for name in np.unique(table[MICROGRAPH].astype(str))}


def _pick(star, diameter, contrast, folder, threads):
    """The folder that the engine has written."""
    out = os.path.join(folder, contrast)
    arguments = quoteArguments([PICK_UNLABELED, "--micrographs", star, "--diameter", diameter, "--contrast", contrast,
                                "--out", out, "--threads", threads])
    try:
        done = subprocess.run(f"{Plugin.getProgram()} {arguments}", shell=True, env=Plugin.getEnviron(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ValidationException("Picking a few micrographs takes longer than "
                                  f"{PATIENCE // 60} minutes here. Leave -1: training estimates the number.") from None
    if done.returncode:
        raise ValidationException(done.stderr.strip().split("error: ")[-1] or "The engine could not pick.")
    return RunFolder(out)


def _sampleOf(folder, files, marked, diameter, pixelSize):
    table, nothing = folder.read_table("candidates.star"), np.zeros((0, 2))
    places = _places(table) if table else {}
    scores = {name: table[SCORE][table[MICROGRAPH] == name] for name in places}
    picked = [PickedMicrograph(os.path.basename(path), path, places.get(path, nothing),
                               scores.get(path, np.zeros(0)), marked.get(path, nothing)) for path in files]
    return PickedSample(picked, diameter, pixelSize, folder.read_json("picking.json")["threshold"])
