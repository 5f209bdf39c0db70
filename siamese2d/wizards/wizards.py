"""Wizards of the forms: the small buttons that find a value from the input."""

from functools import partial

import numpy as np
from pwem.wizards import EmWizard
from pyworkflow.exceptions import ValidationException
from pyworkflow.gui.dialog import showError, showInfo

from siamese2d.convert import coordinateScale, exactPosition
from siamese2d.coordinate_files import readPositions, stemOf
from siamese2d.gallery.class_list import SetFileError, read_class_list
from siamese2d.labels import Labels
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtImportCoordinates, Siamese2DProtPickUnlabeled,
                                 Siamese2DProtTrainEmbedding, Siamese2DProtTrainPicker)
from siamese2d.protocols.protocol_extract import BOX_PER_DIAMETER
from siamese2d.viewers.gallery.pictures import read_picture
from siamese2d.viewers.run_files import RunFileError, image_or_reason, read_particles
from siamese2d.wizards.box_size import good_box
from siamese2d.wizards.circle_dialog import CircleDialog, Page

# Pixels, when the marked particles have no box size.
DEFAULT_BOX = 100
# Of the smaller side of a micrograph, where nothing is known of the particle.
DEFAULT_PART = 0.1
MICROGRAPHS = 20
PARTICLES = 200
SINGLE_PARTICLES = 12
SINGLE_AVERAGES = 24
# Of the box, the mask that the engine takes by itself.
DEFAULT_MASK = 0.8
MASK_HINT = ("The circle should hold the whole particle and a little more, and leave out its neighbours. A mask that "
             "cuts the "
             "particle does more harm than one that is too large.")
CLICK_HINT = "Click on particles to put circles on them; the right button takes a circle away."


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

    _targets = [(Siamese2DProtTrainPicker, ["diameter", "smallestDiameter"])]

    def show(self, form, *params):
        marked, variable = form.protocol.inputCoordinates.get(), _variable(form)
        if marked is None or not Labels(marked).getSize():
            showInfo("Particle diameter", "Choose the marked particles first.", form.root)
            return
        labels = Labels(marked)
        try:
            pages = micrographPages(marked) if labels.areCoordinates() else particlePages(labels.getImages())
        except RunFileError as problem:
            showError("Particle diameter", str(problem), form.root)
            return
        usual = labels.getDiameter() or DEFAULT_BOX * labels.getPixelSize()
        askDiameter(form, variable, "Particle diameter", pages, labels.getPixelSize(),
                    _present(form, variable) or usual, 3 * usual)


class Siamese2DMicrographDiameterWizard(EmWizard):
    """Particle diameter by circles that are clicked on micrographs, or lie where a file of coordinates says."""

    _targets = [(Siamese2DProtPickUnlabeled, ["diameter", "largestDiameter"]),
                (Siamese2DProtImportCoordinates, ["diameter"])]

    def show(self, form, *params):
        micrographs, variable = form.protocol.inputMicrographs.get(), _variable(form)
        if micrographs is None or not micrographs.getSize():
            showInfo("Particle diameter", "Choose the micrographs first.", form.root)
            return
        try:
            pages = plainPages(micrographs, _positionsInFile(form.protocol))
        except ValidationException as problem:
            showError("Particle diameter", str(problem), form.root)
            return
        width = min(micrographs.getDim()[:2]) * micrographs.getSamplingRate()
        start = _present(form, variable) or _present(form, "diameter") or DEFAULT_PART * width
        askDiameter(form, variable, "Particle diameter", pages, micrographs.getSamplingRate(), start,
                    max(5 * DEFAULT_PART * width, 1.5 * start), CLICK_HINT, clickable=True)


class Siamese2DMaskWizard(EmWizard):
    """Mask diameter by a circle on class averages where there are any, else on the mean of particles."""

    _targets = [(Siamese2DProtClassify, ["maskDiameter"]), (Siamese2DProtAssign, ["maskDiameter"]),
                (Siamese2DProtTrainEmbedding, ["maskDiameter"])]

    def show(self, form, *params):
        particles, averages = _imagesOf(form.protocol)
        if averages is None and (particles is None or not particles.getSize()):
            showInfo("Mask diameter", "Choose the particles first." if _wantsParticles(form.protocol)
                     else "Choose the 2D classes first.", form.root)
            return
        try:
            pages, pixelSize, width = averagePages(averages) if averages is not None else \
                (particlePages(particles), particles.getSamplingRate(), _width(particles))
        except (RunFileError, SetFileError) as problem:
            showError("Mask diameter", str(problem), form.root)
            return
        if particles is not None and particles.getSize():
            width = min(width, _width(particles))
        askDiameter(form, "maskDiameter", "Mask diameter", pages, pixelSize,
                    _present(form, "maskDiameter") or DEFAULT_MASK * width, width, MASK_HINT)


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


def plainPages(micrographs, positions):
    """The first micrographs, with the positions (by stem of the file) that are known; else one circle in the middle.

    Those with positions come first.
    """
    width, height, _ = micrographs.getDim()
    middle = np.array([[width // 2, height // 2]])
    items = [(micrograph.getMicName() or micrograph.getFileName(), micrograph.getFileName())
             for micrograph in micrographs.iterItems()]
    items.sort(key=lambda item: -len(positions.get(stemOf(item[0]), ())))
    return [Page(name, partial(image_or_reason, path), np.array(positions.get(stemOf(name), middle)))
            for name, path in items[:MICROGRAPHS]]


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
    return _imagePages(images, images.mean(axis=0), f"mean of the first {len(images)} particles",
                       [f"particle {number}" for number in range(1, len(images[:SINGLE_PARTICLES]) + 1)])


def averagePages(classes):
    """The brightest values of class averages, then single ones, the largest classes first.

    Parameters
    ----------
    classes : SetOfClasses2D or SetOfAverages
        Disabled ones are left out.

    Returns
    -------
    tuple
        Pages, angstroms per pixel, and the width of the images in angstroms.

    Raises
    ------
    SetFileError, RunFileError
        If the set or its images can't be read, or there is no average.
    """
    listed = read_class_list(classes.getFileName())
    rows = [row for row in np.argsort(-np.nan_to_num(listed.sizes), kind="stable")
            if listed.enabled[row] and listed.pictures[row] is not None][:SINGLE_AVERAGES]
    if not rows:
        raise RunFileError("There are no class averages to look at. Choose classes whose program wrote them, or type "
                           "the "
                           "diameter.")
    images = np.stack([read_picture(listed.pictures[row]) for row in rows])
    pixelSize = listed.pixel_size or classes.getSamplingRate()
    sizes = ["" if np.isnan(listed.sizes[row]) else f", {listed.sizes[row]:,.0f} particles" for row in rows]
    names = [f"class {listed.ids[row]}{size}" for row, size in zip(rows, sizes)]
    # The mean would hide the ends of elongated particles, which lie in other directions in every class.
    pages = _imagePages(images, images.max(axis=0), f"brightest of {len(images)} class averages", names)
    return pages, pixelSize, images.shape[2] * pixelSize


def _imagePages(images, together, name, names):
    """A page of all images together, and one for each name of the first ones."""
    centre = np.array([[images.shape[2] // 2, images.shape[1] // 2]])
    singles = [Page(single, lambda image=image: image, centre) for single, image in zip(names, images)]
    return [Page(name, lambda: together, centre), *singles]


def askDiameter(form, variable, title, pages, pixelSize, start, largest, hint="", clickable=False):
    """Let the user choose a diameter with circles, and put it into the form."""
    if not pages:
        showInfo(title, "There is no micrograph to look at: the marked particles lie on none of the set.", form.root)
        return
    dialog = CircleDialog(form.root, title, pages, pixelSize, start, largest, hint, clickable)
    if dialog.resultYes():
        form.setVar(variable, round(dialog.diameter, 1))


def _variable(form):
    """Name of the diameter whose button was pressed: Scipion's form says which, where a wizard has several."""
    return getattr(form, "wizParamName", "diameter")


def _present(form, variable):
    """A positive value that is in the form; None where there is none."""
    value = getattr(form.protocol, variable).get()
    return value if value is not None and value > 0 else None


def _imagesOf(protocol):
    """Particles of the form, and classes whose averages show them; None for what there is not."""
    if isinstance(protocol, Siamese2DProtTrainEmbedding):
        return protocol.getParticles(), protocol.inputClasses.get() if protocol.needsClasses() else None
    classes = protocol.inputClasses.get() if isinstance(protocol, Siamese2DProtAssign) else None
    return protocol.inputParticles.get(), classes


def _wantsParticles(protocol):
    return not (isinstance(protocol, Siamese2DProtTrainEmbedding) and protocol.needsClasses())


def _width(particles):
    return particles.getXDim() * particles.getSamplingRate()


def _positionsInFile(protocol):
    """Positions by stem of their micrograph, of a form that asks for a file of them; none where it is not chosen."""
    if not isinstance(protocol, Siamese2DProtImportCoordinates) or not protocol.coordinatesFile.get("").strip():
        return {}
    positions = {}
    for stem, x, y in readPositions(protocol.coordinatesFile.get().strip()):
        positions.setdefault(stem, []).append((x, y))
    return positions


def _micrographsOf(protocol):
    return protocol.getMicrographs() if protocol.inputCoordinates.get() is not None else None
