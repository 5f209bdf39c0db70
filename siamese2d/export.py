"""Particles with all that Scipion knows of them, as one STAR file, for what leaves the project."""

import os

from pwem.objects import Particle, SetOfClasses2D
from pyworkflow.object import Scalar

from siamese2d.constants import ATTR_CONFIDENCE, ITEM_ID
from siamese2d.convert import (CLASS, IMAGE, MICROGRAPH, OPTICS_GROUP, X, Y, ctfToRow, exactPosition, transformToRow)
from siamese2d.star import parseTable, writeTables

# Of items: names that RELION's plugin gives to what it keeps. Of acquisitions: names of imported movies.
GROUP_ATTRIBUTE = "_rlnOpticsGroup"
ACQUISITION_COLUMNS = {"opticsGroupName": "rlnOpticsGroupName", "beamTiltX": "rlnBeamTiltX",
                       "beamTiltY": "rlnBeamTiltY", "mtfFile": "rlnMtfFileName", "_voltage": "rlnVoltage",
                       "_sphericalAberration": "rlnSphericalAberration", "_amplitudeContrast": "rlnAmplitudeContrast"}


def writeEverything(path, source):
    """Write particles, or members of 2D classes, with optics groups, CTF, alignment, class and every other attribute.

    Image files get absolute names, because other programs start in other folders.

    Parameters
    ----------
    path : str
        STAR file to write.
    source : SetOfParticles or SetOfClasses2D
        Disabled items are left out.

    Returns
    -------
    int
        Number of particles written.
    """
    particles = source.getImages() if isinstance(source, SetOfClasses2D) else source
    optics = _Optics(particles)
    rows = [_row(particle, classId, aligned, optics) for particle, classId, aligned in _items(source)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    # An attribute that some items lack is missing there, not 0.
    rows = [{column: row.get(column, "<NA>") for column in columns} for row in rows]
    writeTables(path, {"optics": optics.rows(), "particles": rows})
    return len(rows)


def micrographPixelSize(particles):
    """Pixel size of the micrographs that the particles' coordinates belong to; None where it is not known."""
    coordinates = particles.getCoordinates() if particles.hasCoordinates() else None
    micrographs = coordinates.getMicrographs() if coordinates is not None else None
    return micrographs.getSamplingRate() if micrographs is not None else None


def _items(source):
    """Particles with their class and whether they are aligned to it."""
    if not isinstance(source, SetOfClasses2D):
        for particle in source.iterItems():
            if particle.isEnabled():
                yield particle, particle.getClassId(), source.hasAlignment2D()
        return
    for cls in source.iterItems():
        if cls.isEnabled():
            for particle in cls.iterItems():
                if particle.isEnabled():
                    yield particle, cls.getObjId(), cls.hasAlignment2D()


def _row(particle, classId, aligned, optics):
    index, fileName = particle.getLocation()
    row = {IMAGE: f"{max(index, 1):06d}@{os.path.abspath(fileName)}", OPTICS_GROUP: optics.number(particle),
           ITEM_ID: particle.getObjId()}
    if particle.hasCTF():
        row.update(ctfToRow(particle.getCTF()))
    if aligned and particle.hasTransform():
        row.update(transformToRow(particle.getTransform(), particle.getSamplingRate()))
    if classId:
        row[CLASS] = classId
    if particle.hasCoordinate():
        row.update(_coordinateRow(particle, optics.micrographPixelSize))
    return {**_otherAttributes(particle), **row}


def _coordinateRow(particle, pixelSize):
    coordinate = particle.getCoordinate()
    scale = particle.getSamplingRate() / pixelSize if pixelSize else 1
    x, y = exactPosition(coordinate)
    return {MICROGRAPH: coordinate.getMicName() or str(coordinate.getMicId()), X: x * scale, Y: y * scale}


def _otherAttributes(particle):
    """What a plain particle does not have: columns of RELION, scores of any program."""
    row = {}
    for name, value in particle.getAttributesToStore():
        if name not in _PLAIN and isinstance(value, Scalar) and value.get() is not None and name != GROUP_ATTRIBUTE:
            row["rlnMaxValueProbDistribution" if name == ATTR_CONFIDENCE else name.lstrip("_")] = value.get()
    return row


_PLAIN = {name for name, _ in Particle().getAttributesToStore()}


class _Optics:
    """Optics groups: those that RELION's plugin keeps as text on the set, else one for each acquisition."""

    def __init__(self, particles):
        self.micrographPixelSize = micrographPixelSize(particles)
        self._common = {"rlnImagePixelSize": particles.getSamplingRate(), "rlnImageSize": particles.getXDim(),
                        "rlnImageDimensionality": 2}
        info = particles.getAcquisition().opticsGroupInfo.get() if particles.getAcquisition() is not None else None
        kept = list(parseTable(info.splitlines(), "optics")) if info else []
        self._kept = {int(row[OPTICS_GROUP]): row for row in kept}
        self._made = {}

    def number(self, particle):
        number = int(particle.getAttributeValue(GROUP_ATTRIBUTE, 0) or (1 if len(self._kept) == 1 else 0))
        if number in self._kept:
            return number
        key = tuple(_acquisitionRow(particle.getAcquisition()).items())
        return self._made.setdefault(key, max(self._kept, default=0) + len(self._made) + 1)

    def rows(self):
        made = [{"rlnOpticsGroupName": f"opticsGroup{number}", **dict(key), OPTICS_GROUP: number}
                for key, number in self._made.items()]
        rows = [{**row, **self._common} for row in [*self._kept.values(), *made]]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        return [{column: row.get(column, "<NA>") for column in columns} for row in rows]


def _acquisitionRow(acquisition):
    if acquisition is None:
        return {}
    values = {column: acquisition.getAttributeValue(name) for name, column in ACQUISITION_COLUMNS.items()}
    return {column: value for column, value in values.items() if value not in (None, "")}
