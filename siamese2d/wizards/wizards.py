"""Wizards of the forms: the small buttons that find a value from the input."""

from functools import partial

import numpy as np
from pwem.wizards import EmWizard
from pyworkflow.gui.dialog import showError, showInfo

from siamese2d.convert import coordinateScale, exactPosition
from siamese2d.labels import Labels
from siamese2d.protocols import Siamese2DProtClassify, Siamese2DProtExtract, Siamese2DProtTrainPicker
from siamese2d.protocols.protocol_extract import BOX_PER_DIAMETER
from siamese2d.viewers.run_files import RunFileError, image_or_reason, read_particles
from siamese2d.wizards.box_size import good_box
from siamese2d.wizards.circle_dialog import CircleDialog, Page

# Pixels, when the marked particles have no box size.
DEFAULT_BOX = 100
MICROGRAPHS = 20
PARTICLES = 200
SINGLE_PARTICLES = 12


class Siamese2DBoxSizeWizard(EmWizard):
    """Box size from the size of the particles: half as wide again, and fast to transform."""

    _targets = [(Siamese2DProtExtract, ["boxSize"])]

    def show(self, form, *params):
        protocol = form.protocol
        try:
            form.setVar("boxSize", suggestBox(protocol.inputCoordinates.get(), _micrographsOf(protocol)))
        except MissingInput as problem:
            showInfo("Box size", str(problem), form.root)


class Siamese2DDiameterWizard(EmWizard):
    """Particle diameter by circles around the marked particles, or on the images that were cut out around them."""

    _targets = [(Siamese2DProtTrainPicker, ["diameter"])]

    def show(self, form, *params):
        marked = form.protocol.inputCoordinates.get()
        labels = Labels(marked)
        if marked is None or not labels.getSize():
            showInfo("Particle diameter", "Choose the marked particles first.", form.root)
            return
        try:
            pages = micrographPages(marked) if labels.areCoordinates() else particlePages(labels.getImages())
        except RunFileError as problem:
            showError("Particle diameter", str(problem), form.root)
            return
        present = form.protocol.diameter.get()
        usual = labels.getDiameter() or DEFAULT_BOX * labels.getPixelSize()
        askDiameter(form, "diameter", "Particle diameter", pages, labels.getPixelSize(),
                    present if present and present > 0 else usual, 3 * usual)


class Siamese2DMaskWizard(EmWizard):
    """Mask diameter by a circle on the mean of some particles and on single ones."""

    _targets = [(Siamese2DProtClassify, ["maskDiameter"])]

    def show(self, form, *params):
        particles = form.protocol.inputParticles.get()
        if particles is None or not particles.getSize():
            showInfo("Mask diameter", "Choose the particles first.", form.root)
            return
        width = particles.getXDim() * particles.getSamplingRate()
        present = form.protocol.maskDiameter.get()
        start = present if present and present > 0 else 0.9 * width
        try:
            pages = particlePages(particles)
        except RunFileError as problem:
            showError("Mask diameter", str(problem), form.root)
            return
        askDiameter(form, "maskDiameter", "Mask diameter", pages, particles.getSamplingRate(), start, width)


class MissingInput(Exception):
    """An input of the form that a wizard needs is not chosen yet; the message says which."""


def suggestBox(coordinates, micrographs):
    """Box size for particles of the size of the coordinates' box, in pixels of `micrographs`.

    Raises
    ------
    MissingInput
        If the coordinates are not chosen or have no box size.
    """
    if coordinates is None or micrographs is None:
        raise MissingInput("Choose the coordinates first, and the other micrographs if the particles come from those.")
    if not coordinates.getBoxSize():
        raise MissingInput("The coordinates have no box size, so the size of the particles is not known. Type the box "
                           f"size: about {BOX_PER_DIAMETER:g} times the particle's diameter.")
    return good_box(BOX_PER_DIAMETER * coordinates.getBoxSize() * coordinateScale(coordinates, micrographs))


def micrographPages(coordinates):
    """The micrographs with the most coordinates, and where those are."""
    positions = {}
    for coordinate in coordinates.iterItems():
        positions.setdefault(coordinate.getMicId(), []).append(exactPosition(coordinate))
    micrographs = {micrograph.getObjId(): (micrograph.getMicName(), micrograph.getFileName())
                   for micrograph in coordinates.getMicrographs().iterItems()}
    fullest = sorted((key for key in positions if key in micrographs), key=lambda key: -len(positions[key]))
    return [Page(micrographs[key][0], partial(image_or_reason, micrographs[key][1]), np.array(positions[key]))
            for key in fullest[:MICROGRAPHS]]


def particlePages(particles):
    """The mean of the first particles, then single ones; the circle is in the middle of the box.

    Raises
    ------
    RunFileError
        If the images can't be read.
    """
    names = []
    for particle in particles.iterItems(limit=PARTICLES):
        index, fileName = particle.getLocation()
        names.append(f"{max(index, 1)}@{fileName}")
    images = read_particles(names)
    centre = np.array([[images.shape[2] // 2, images.shape[1] // 2]])
    mean = Page(f"mean of the first {len(images)} particles", lambda: images.mean(axis=0), centre)
    singles = [Page(f"particle {number}", lambda image=image: image, centre)
               for number, image in enumerate(images[:SINGLE_PARTICLES], start=1)]
    return [mean, *singles]


def askDiameter(form, variable, title, pages, pixelSize, start, largest):
    """Let the user choose a diameter with circles, and put it into the form."""
    if not pages:
        showInfo(title, "There is no micrograph to look at: the marked particles lie on none of the set.", form.root)
        return
    dialog = CircleDialog(form.root, title, pages, pixelSize, start, largest)
    if dialog.resultYes():
        form.setVar(variable, round(dialog.diameter, 1))


def _micrographsOf(protocol):
    return protocol.getMicrographs() if protocol.inputCoordinates.get() is not None else None
