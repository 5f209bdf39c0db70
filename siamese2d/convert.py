"""Between Scipion sets and the engine's STAR files.

Every row carries the objId of its item in the column ``siamese2dItemId`` and is found again by it, never by position.
"""

import contextlib
import gc
import os

import numpy as np

import pyworkflow.object as pwobj
from pwem.objects import Coordinate, CTFModel, Particle, Transform
from pyworkflow.exceptions import ValidationException

from siamese2d.constants import (ATTR_CLASS_SIZE, ATTR_CONFIDENCE, ATTR_FIT, ATTR_QUALITY, ATTR_REASON, ATTR_RESOLUTION,
                                 ATTR_SCORE, ITEM_ID)
from siamese2d.star import readTable, writeTables
from siamese2d.streams import Subset

MICROGRAPH = "rlnMicrographName"
IMAGE = "rlnImageName"
X, Y = "rlnCoordinateX", "rlnCoordinateY"
CLASS = "rlnClassNumber"
RESOLUTION, QUALITY = "rlnEstimatedResolution", "siamese2dQuality"
OPTICS_GROUP = "rlnOpticsGroup"


# --------------------------- to the engine ----------------------------------------------
def writeMicrographs(path, micrographs, ctfs=None):
    """Write a set of micrographs as STAR with optics groups.

    Parameters
    ----------
    path : str
        STAR file to write.
    micrographs : SetOfMicrographs
        Disabled ones are left out.
    ctfs : dict of str to CTFModel, optional
        CTF by micrograph name. Micrographs without one get no CTF columns only if none has one; else they are left out.

    Returns
    -------
    int
        Number of micrographs written.
    """
    optics = _OpticsGroups("rlnMicrographPixelSize")
    rows = []
    for mic in _enabled(micrographs):
        if ctfs and mic.getMicName() not in ctfs:
            continue
        row = {MICROGRAPH: mic.getFileName(), OPTICS_GROUP: optics.number(mic), ITEM_ID: mic.getObjId()}
        rows.append({**row, **ctfToRow(ctfs[mic.getMicName()])} if ctfs else row)
    writeTables(path, {"optics": optics.rows(), "micrographs": rows})
    return len(rows)


def writeCoordinates(path, coordinates, micrographs):
    """Write coordinates in the pixels of `micrographs`, which may be other than those they were marked on.

    Micrographs are the same if their names (``micName``) are, else if their ids are.

    Parameters
    ----------
    path : str
        STAR file to write.
    coordinates : SetOfCoordinates
        Centres, row 0 of the file being y = 0.
    micrographs : SetOfMicrographs
        Micrographs on which the engine will use them; coordinates of others are left out.

    Returns
    -------
    int
        Number of coordinates written.
    """
    items = ((coordinate.getObjId(), coordinate) for coordinate in _enabled(coordinates))
    return _writePositions(path, items, coordinateScale(coordinates, micrographs), micrographs)


def writeLabels(path, labels, micrographs):
    """Write marked particles as coordinates in the pixels of `micrographs`; as `writeCoordinates`.

    Parameters
    ----------
    path : str
        STAR file to write.
    labels : Labels
        Those without a position are left out.
    micrographs : SetOfMicrographs
        Micrographs on which the engine will use them; labels on others are left out.

    Returns
    -------
    int
        Number of labels written.
    """
    items = ((itemId, coordinate) for itemId, coordinate in labels if coordinate is not None)
    return _writePositions(path, items, labels.getPixelSize() / micrographs.getSamplingRate(), micrographs)


def _writePositions(path, items, scale, micrographs):
    present = MicrographsOfCoordinates(micrographs)
    rows = []
    for itemId, coordinate in items:
        micrograph = present.of(coordinate)
        if micrograph is not None:
            x, y = exactPosition(coordinate)
            rows.append({MICROGRAPH: micrograph[1], X: x * scale, Y: y * scale, ITEM_ID: itemId})
    writeTables(path, {"coordinates": rows})
    return len(rows)


def writeTemplates(path, templates):
    """Write the images of averages, or of the representatives of 2D classes, as a STAR file of references.

    Each has its id as the number of its class, and its resolution and quality where it knows them.

    Returns
    -------
    int
        Number of images written.
    """
    rows = []
    for item in _enabled(templates):
        index, fileName = (item if isinstance(item, Particle) else item.getRepresentative()).getLocation()
        row = {"rlnReferenceImage": f"{max(index, 1):06d}@{fileName}", CLASS: item.getObjId()}
        known = {RESOLUTION: item.getAttributeValue(ATTR_RESOLUTION), QUALITY: item.getAttributeValue(ATTR_QUALITY)}
        rows.append({**row, **{column: value for column, value in known.items() if value is not None}})
    rows = _withSameColumns(rows)
    writeTables(path, {"classes": rows})
    return len(rows)


def writeParticles(path, particles, withCtf=True, micrographPixelSize=None):
    """Write particles as STAR with optics groups, CTF, 2D alignment and class, as far as they have them.

    Parameters
    ----------
    path : str
        STAR file to write.
    particles : SetOfParticles
        Disabled ones are left out.
    withCtf : bool
        Write the CTF. Wrong for images whose phases were flipped, which no longer have this CTF.
    micrographPixelSize : float, optional
        Angstroms per pixel of the micrographs; with it, the particles' coordinates are written too.

    Returns
    -------
    int
        Number of particles written.
    """
    items = ((particle, particle.getClassId()) for particle in _enabled(particles))
    return _writeParticleRows(path, particles, items, particles.hasAlignment2D(), withCtf, micrographPixelSize)


def writeClassMembers(path, classes, withCtf=True, fewest=1):
    """Write the particles of 2D classes, with the class they are in as ``rlnClassNumber`` and their alignment to it.

    Parameters
    ----------
    path : str
        STAR file to write.
    classes : SetOfClasses2D
        Disabled ones are left out.
    withCtf : bool
        Write the CTF.
    fewest : int
        Classes with fewer members are left out.

    Returns
    -------
    int
        Number of particles written.
    """
    members = [(cls.getObjId(), cls.hasAlignment2D(), [particle.clone() for particle in _enabled(cls)])
               for cls in _enabled(classes)]
    members = [(number, aligned, particles) for number, aligned, particles in members if len(particles) >= fewest]
    items = ((particle, number) for number, _, particles in members for particle in particles)
    aligned = bool(members) and all(aligned for _, aligned, _ in members)
    return _writeParticleRows(path, classes.getImages(), items, aligned, withCtf, None)


def _writeParticleRows(path, particles, items, aligned, withCtf, micrographPixelSize):
    box = particles.getXDim()
    optics = _OpticsGroups("rlnImagePixelSize", rlnImageSize=box, rlnImageDimensionality=2)
    withCtf = withCtf and particles.hasCTF()
    rows = []
    for particle, classId in items:
        index, fileName = particle.getLocation()
        row = {IMAGE: f"{max(index, 1):06d}@{fileName}", OPTICS_GROUP: optics.number(particle),
               ITEM_ID: particle.getObjId()}
        if withCtf:
            row.update(ctfToRow(particle.getCTF()))
        if aligned:
            row.update(transformToRow(particle.getTransform(), particle.getSamplingRate()))
        if micrographPixelSize and particle.hasCoordinate():
            row.update(_particleCoordinateRow(particle, micrographPixelSize))
        if classId:
            row[CLASS] = classId
        rows.append(row)
    writeTables(path, {"optics": optics.rows(), "particles": _withSameColumns(rows)})
    return len(rows)


def coordinateScale(coordinates, micrographs):
    """Factor from the pixels that coordinates were marked in to those of other micrographs."""
    return markedPixelSize(coordinates) / micrographs.getSamplingRate()


def markedPixelSize(coordinates):
    """Angstroms per pixel of the micrographs that coordinates were marked on.

    Raises
    ------
    ValidationException
        If these are not there: in a workflow that is scheduled as a whole, they may be made later.
    """
    micrographs = coordinates.getMicrographs()
    if micrographs is None:
        raise ValidationException("The micrographs that the coordinates were marked on are not there: the protocol "
                                  "that makes them has not made them yet, or they were deleted. Run it, and continue "
                                  "this protocol.")
    return micrographs.getSamplingRate()


def exactPosition(coordinate):
    """Position with its fraction of a pixel: Scipion stores whole pixels, and the rounding error beside them."""
    x, y = coordinate.getPosition()
    return (x - coordinate.getAttributeValue("xFrac", 0.0), y - coordinate.getAttributeValue("yFrac", 0.0))


def setExactPosition(coordinate, x, y):
    """Set a position that is not whole; the counterpart of `exactPosition`."""
    coordinate.setPosition(round(x), round(y))
    coordinate.xFrac = pwobj.Float(round(x) - x)
    coordinate.yFrac = pwobj.Float(round(y) - y)


def ctfToRow(ctf):
    """Columns of a CTF: defocus in angstroms, angles in degrees."""
    row = {"rlnDefocusU": float(ctf.getDefocusU()), "rlnDefocusV": float(ctf.getDefocusV()),
           "rlnDefocusAngle": float(ctf.getDefocusAngle())}
    if ctf.hasPhaseShift():
        row["rlnPhaseShift"] = float(ctf.getPhaseShift())
    return row


def rowToCtf(row):
    """CTF of a row, or None where it has none."""
    if "rlnDefocusU" not in row:
        return None
    ctf = CTFModel()
    ctf.setStandardDefocus(float(row["rlnDefocusU"]), float(row["rlnDefocusV"]), float(row.get("rlnDefocusAngle", 0)))
    if "rlnPhaseShift" in row:
        ctf.setPhaseShift(float(row["rlnPhaseShift"]))
    return ctf


def ctfsOfMicrographs(ctfs):
    """CTF by micrograph name; fits that their program marked as failed are left out."""
    return {ctf.getMicrograph().getMicName(): ctf.clone() for ctf in _enabled(ctfs) if not _isFailed(ctf)}


def _isFailed(ctf):
    wrong = CTFModel()
    wrong.setWrongDefocus()
    return ctf.getDefocusU() is None or ctf.getDefocusU() == wrong.getDefocusU()


# --------------------------- alignment ---------------------------------------------------
def alignmentMatrix(psi, originX, originY, flip, pixelSize):
    """Scipion's 2D transform of RELION's alignment parameters.

    The aligned image has content at ``x' = F R(psi) (x + origin)``, `x` measured from the box centre.

    Parameters
    ----------
    psi : float
        In-plane angle, degrees.
    originX, originY : float
        Shift before the rotation, angstroms.
    flip : bool
        Whether the result is mirrored in x (``F``).
    pixelSize : float
        Angstroms per pixel.

    Returns
    -------
    ndarray
        ``(4, 4)``, shifts in pixels. A mirrored image is turned over in space, so the third axis changes sign too and
        the determinant stays 1.
    """
    angle = np.deg2rad(psi)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:2, 3] = matrix[:2, :2] @ [originX / pixelSize, originY / pixelSize]
    return np.diag([-1.0, 1.0, -1.0, 1.0]) @ matrix if flip else matrix


def alignmentParameters(matrix, pixelSize):
    """RELION's alignment parameters of a 2D transform; the inverse of `alignmentMatrix`.

    Returns
    -------
    tuple
        ``(psi, originX, originY, flip)`` in degrees and angstroms, psi between -180 and 180.
    """
    linear, shift = np.array(matrix)[:2, :2], np.array(matrix)[:2, 3]
    flip = np.linalg.det(linear) < 0
    if flip:
        linear, shift = np.diag([-1, 1]) @ linear, np.diag([-1, 1]) @ shift
    originX, originY = linear.T @ shift * pixelSize
    return float(np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0]))), float(originX), float(originY), bool(flip)


def transformToRow(transform, pixelSize):
    """Alignment columns of a 2D transform."""
    psi, originX, originY, flip = alignmentParameters(transform.getMatrix(), pixelSize)
    return {"rlnAnglePsi": psi, "rlnOriginXAngst": originX, "rlnOriginYAngst": originY, "rlnIsFlip": int(flip)}


def rowToTransform(row, pixelSize):
    """2D transform of a row's alignment columns."""
    return Transform(matrix=alignmentMatrix(float(row["rlnAnglePsi"]), float(row["rlnOriginXAngst"]),
                                            float(row["rlnOriginYAngst"]), bool(int(float(row.get("rlnIsFlip", 0)))),
                                            pixelSize))


# --------------------------- from the engine ---------------------------------------------
# Outputs may grow: what they hold already is not appended again.
def readMicrographs(path, original, output):
    """Append the micrographs that the engine wrote to `output`, each with the id and properties of its original.

    Parameters
    ----------
    path : str
        The engine's ``micrographs.star``.
    original : SetOfMicrographs
        The set that was written for the engine.
    output : SetOfMicrographs
        Gets the sampling rate of the file and its micrographs.

    Raises
    ------
    ValidationException
        If the micrographs differ in pixel size; a set has only one.
    """
    rows = {int(row[ITEM_ID]): row for row in readTable(path, "micrographs")}
    sizes = {float(row["rlnMicrographPixelSize"]) for row in readTable(path, "optics")}
    sizes |= {output.getSamplingRate()} if output.getSize() else set()
    if max(sizes) - min(sizes) > 1e-3 * min(sizes):
        raise ValidationException(f"{path}: the micrographs differ in pixel size ({min(sizes):.4f} to {max(sizes):.4f} "
                                  "A). Split the input set by micrograph size and run each part alone.")
    output.setSamplingRate(min(sizes))
    for mic in Subset(original, _missing(rows, output)):
        written = mic.clone()
        written.setFileName(rows[mic.getObjId()][MICROGRAPH])
        written.setSamplingRate(min(sizes))
        output.append(written)


def readCoordinates(path, micrographStar, micrographs, output):
    """Append picked coordinates to `output`, with their scores.

    Parameters
    ----------
    path : str
        The engine's ``coordinates.star``.
    micrographStar : str
        The table of micrographs that was written for the engine; it tells which id a file name stands for.
    micrographs : SetOfMicrographs
        The micrographs that were picked.
    output : SetOfCoordinates
        Set to fill.
    """
    idOf = {row[MICROGRAPH]: int(row[ITEM_ID]) for row in readTable(micrographStar, "micrographs")}
    new = _missing(idOf.values(), output, "_micId")
    micrographOf = {mic.getObjId(): mic.clone() for mic in Subset(micrographs, new)}
    for row in readTable(path):
        if idOf[row[MICROGRAPH]] not in new:
            continue
        coordinate = Coordinate()
        setExactPosition(coordinate, float(row[X]), float(row[Y]))
        coordinate.setMicrograph(micrographOf[idOf[row[MICROGRAPH]]])
        setattr(coordinate, ATTR_SCORE, pwobj.Float(float(row["rlnAutopickFigureOfMerit"])))
        output.append(coordinate)


def readParticles(path, coordinates, micrographs, output):
    """Append extracted particles to `output`, each with the id of its coordinate, its CTF and its coordinate.

    Parameters
    ----------
    path : str
        The engine's ``particles.star``.
    coordinates : SetOfCoordinates
        The set that was written for the engine.
    micrographs : SetOfMicrographs
        The micrographs that the particles were cut from.
    output : SetOfParticles
        Gets the sampling rate of the file and its particles. Scipion's convention: a particle's coordinate is in the
        particle's own pixels.
    """
    pixelSize = float(next(readTable(path, "optics"))["rlnImagePixelSize"])
    output.setSamplingRate(pixelSize)
    scale = markedPixelSize(coordinates) / pixelSize
    rows = {int(row[ITEM_ID]): row for row in readTable(path, "particles")}
    acquisitions = {mic.getMicName(): mic.getAcquisition().clone() for mic in micrographs}
    for coordinate in Subset(coordinates, _missing(rows, output)):
        output.append(_extractedParticle(rows[coordinate.getObjId()], coordinate, scale, pixelSize, acquisitions))


def _extractedParticle(row, coordinate, scale, pixelSize, acquisitions):
    particle = Particle()
    particle.setObjId(coordinate.getObjId())
    particle.setLocation(*imageLocation(row[IMAGE]))
    particle.setSamplingRate(pixelSize)
    particle.setCTF(rowToCtf(row))
    particle.setMicId(coordinate.getMicId())
    if coordinate.getMicName() in acquisitions:
        particle.setAcquisition(acquisitions[coordinate.getMicName()])
    x, y = exactPosition(coordinate)
    scaled = coordinate.clone()
    setExactPosition(scaled, x * scale, y * scale)
    particle.setCoordinate(scaled)
    return particle


def readClasses(folder, classes):
    """Fill a SetOfClasses2D from the engine's ``particles.star``, ``classes.star`` and ``classes.mrcs``.

    Members get the 2D transform and the confidence; new classes their average, resolution and quality, all their size.

    Parameters
    ----------
    folder : str
        The engine's folder.
    classes : SetOfClasses2D
        Its images must be the set that was written for the engine. It is written and closed.

    Returns
    -------
    int
        Number of particles that are in no class.
    """
    rows = {int(row[ITEM_ID]): row for row in readTable(os.path.join(folder, "particles.star"), "particles")}
    classRows = {int(row[CLASS]): row for row in readTable(os.path.join(folder, "classes.star"))}
    members = {item: row for item, row in rows.items() if int(row[CLASS]) in classRows}
    with _collectorPaused():
        _appendMembers(members, classRows, classes)
        classes.write()
        classes.close()
    return len(rows) - len(members)


def _appendMembers(rows, classRows, classes):
    before = [cls.getObjId() for cls in classes.iterItems()]
    if before:
        # Only after this iteration do the items leave out what is not stored, and append finds its columns.
        classes.enableAppend()
    present = {item for number in before for item in _present(rows, classes[number])}
    new = Subset(classes.getImages(), set(rows) - present)
    pixelSize = classes.getImages().getSamplingRate()

    def updateParticle(particle, _):
        row = rows[particle.getObjId()]
        particle.setClassId(int(row[CLASS]))
        particle.setTransform(rowToTransform(row, pixelSize))
        setattr(particle, ATTR_CONFIDENCE, pwobj.Float(float(row["rlnMaxValueProbDistribution"])))
        if "siamese2dFit" in row:
            setattr(particle, ATTR_FIT, pwobj.Float(_finite(row["siamese2dFit"])))

    def updateClass(cls):
        cls.setAlignment2D()
        row = classRows[cls.getObjId()]
        average = cls.getRepresentative()
        average.setLocation(*imageLocation(row["rlnReferenceImage"]))
        average.setSamplingRate(pixelSize)
        setClassAttributes(cls, row)

    if not len(new):
        return
    classes.classifyItems(updateItemCallback=updateParticle, updateClassCallback=updateClass, iterParams=new.query())
    for number in before:
        cls = classes[number]
        setattr(cls, ATTR_CLASS_SIZE, pwobj.Integer(cls.getSize()))
        classes.update(cls)


@contextlib.contextmanager
def _collectorPaused():
    """Keeps Python from collecting class objects, whose end closes the connection that all classes of a set share."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def readSetApart(folder, particles, output):
    """Append the particles that are in no class to `output`, with the reason and the number of the nearest class.

    Parameters
    ----------
    folder : str
        The engine's folder.
    particles : SetOfParticles
        The set that was written for the engine.
    output : SetOfParticles
        Set to fill.
    """
    path = os.path.join(folder, "set_apart.star")
    if not os.path.exists(path):
        return
    rows = {int(row[ITEM_ID]): row for row in readTable(path, "particles")}
    for particle in Subset(particles, _missing(rows, output)):
        row, apart = rows[particle.getObjId()], particle.clone()
        apart.setClassId(int(float(row.get(CLASS, 0))))
        setattr(apart, ATTR_REASON, pwobj.String(row["siamese2dReason"]))
        setattr(apart, ATTR_FIT, pwobj.Float(_finite(row.get("siamese2dFit", 0))))
        output.append(apart)


def readAverages(folder, classes, averages):
    """Append the averages of the classes that have members, numbered as the classes, to a SetOfAverages.

    Parameters
    ----------
    folder : str
        The engine's folder.
    classes : SetOfClasses2D
        The classes as `readClasses` filled them; the averages get their sizes.
    averages : SetOfAverages
        Set to fill; averages that it holds get the new sizes.
    """
    sizes = {cls.getObjId(): cls.getSize() for cls in classes.iterItems()}
    new = _missing(sizes, averages)
    for row in readTable(os.path.join(folder, "classes.star")):
        number = int(row[CLASS])
        if number not in sizes:
            continue
        average = averages[number] if number not in new else Particle()
        if number in new:
            average.setObjId(number)
            average.setClassId(number)
            average.setLocation(*imageLocation(row["rlnReferenceImage"]))
            setClassAttributes(average, row)
        setattr(average, ATTR_CLASS_SIZE, pwobj.Integer(sizes[number]))
        (averages.append if number in new else averages.update)(average)


def setClassAttributes(item, row):
    """Set size, resolution (angstroms) and quality of a class on the class or on its average."""
    setattr(item, ATTR_CLASS_SIZE, pwobj.Integer(int(float(row["siamese2dClassSize"]))))
    setattr(item, ATTR_RESOLUTION, pwobj.Float(_finite(row.get(RESOLUTION, "nan"))))
    setattr(item, ATTR_QUALITY, pwobj.Float(_finite(row.get(QUALITY, "nan"))))


def imageLocation(name):
    """``(index, file)`` of RELION's ``index@file``."""
    index, _, fileName = name.partition("@")
    return int(index), fileName


class MicrographsOfCoordinates:
    """Finds the micrograph that a coordinate belongs to: by the micrograph's name, else by its id.

    Parameters
    ----------
    micrographs : SetOfMicrographs
        Disabled ones are left out.
    ctfs : dict of str to CTFModel, optional
        CTF by micrograph name; with it, micrographs that have none are left out.
    """

    def __init__(self, micrographs, ctfs=None):
        self._byName, self._byId = {}, {}
        for mic in _enabled(micrographs):
            if ctfs is None or mic.getMicName() in ctfs:
                self._byName[mic.getMicName()] = self._byId[mic.getObjId()] = mic.getObjId(), mic.getFileName()

    def of(self, coordinate):
        """Id and file of the micrograph; None where it is not there."""
        if coordinate.getMicName():
            return self._byName.get(coordinate.getMicName())
        return self._byId.get(coordinate.getMicId())


# --------------------------- inside ------------------------------------------------------
class _OpticsGroups:
    """Optics groups of images, found while their rows are written, numbered from 1 in order of appearance."""

    def __init__(self, pixelSizeColumn, **common):
        self._pixelSizeColumn = pixelSizeColumn
        self._common = common
        self._numbers = {}

    def number(self, image):
        acquisition = image.getAcquisition()
        key = (_opticsName(acquisition), *(_acquisitionValues(acquisition).items()), float(image.getSamplingRate()))
        return self._numbers.setdefault(key, len(self._numbers) + 1)

    def rows(self):
        return [self._row(key, number) for key, number in self._numbers.items()]

    def _row(self, key, number):
        name, *values, pixelSize = key
        return {"rlnOpticsGroupName": name or f"opticsGroup{number}", OPTICS_GROUP: number, **dict(values),
                self._pixelSizeColumn: pixelSize, **self._common}


def _opticsName(acquisition):
    # Imported movies and RELION's own sets carry the name of their optics group on the acquisition.
    return acquisition.getAttributeValue("opticsGroupName", "") if acquisition is not None else ""


def _acquisitionValues(acquisition):
    if acquisition is None or acquisition.getVoltage() is None:
        return {}
    return {"rlnVoltage": float(acquisition.getVoltage()),
            "rlnSphericalAberration": float(acquisition.getSphericalAberration() or 0),
            "rlnAmplitudeContrast": float(acquisition.getAmplitudeContrast() or 0)}


def _particleCoordinateRow(particle, micrographPixelSize):
    coordinate = particle.getCoordinate()
    scale = particle.getSamplingRate() / micrographPixelSize
    x, y = exactPosition(coordinate)
    return {MICROGRAPH: coordinate.getMicName() or str(coordinate.getMicId()), X: x * scale, Y: y * scale}


def _withSameColumns(rows):
    # Joined sets may have the optional columns only on some items; a table must have them on all or on none.
    if not rows:
        return rows
    common = [column for column in rows[0] if all(column in row for row in rows)]
    return [{column: row[column] for column in common} for row in rows]


def _enabled(items):
    return (item for item in items.iterItems() if item.isEnabled())


def _present(ids, items, label="id"):
    """Those of some values of `label` that a set of items holds."""
    if not len(ids) or not items.getSize():
        return set()
    low, high = min(ids), max(ids)
    return set(items.getUniqueValues(label, where=f"{label}>={low} AND {label}<={high}")) & set(ids)


def _missing(ids, items, label="id"):
    return set(ids) - _present(ids, items, label)


def _finite(text):
    value = float(text)
    return value if np.isfinite(value) else None
