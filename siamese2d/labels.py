"""Marked particles, whichever set tells where they are: coordinates, particles, or the particles of 2D classes.

Particles that were kept after looking at their classes are the best labels that a picker can get. Scipion's convention:
a particle's coordinate is in pixels of the particle's own size, whatever micrograph it was cut from.
"""

from pwem.objects import SetOfClasses2D, SetOfCoordinates

from siamese2d.convert import markedPixelSize

LABEL_CLASSES = "SetOfCoordinates,SetOfParticles,SetOfClasses2D"


class Labels:
    """One interface to the sets of `LABEL_CLASSES`.

    Parameters
    ----------
    items : SetOfCoordinates, SetOfParticles or SetOfClasses2D
        Disabled items, and members of disabled classes, are left out.
    """

    def __init__(self, items):
        self._items = items

    def __iter__(self):
        """Pairs of the item's id and its Coordinate; the latter is None for particles that do not have one."""
        if self.areCoordinates():
            return ((item.getObjId(), item) for item in _enabled(self._items))
        return ((particle.getObjId(), particle.getCoordinate()) for particle in self._particles())

    def getSize(self):
        """Number of items, disabled ones included."""
        if isinstance(self._items, SetOfClasses2D):
            return sum(cls.getSize() for cls in self._items.iterItems())
        return self._items.getSize()

    def arePlaced(self):
        """Whether the images are known that the positions belong to: not in a workflow before they were made."""
        return not self.areCoordinates() or self._items.getMicrographs() is not None

    def getPixelSize(self):
        """Angstroms per pixel of the positions; an error where the images are not known."""
        if self.areCoordinates():
            return markedPixelSize(self._items)
        return self.getImages().getSamplingRate()

    def getDiameter(self):
        """Particle diameter in angstroms, from the box size of the coordinates; None where that is not known."""
        coordinates = self._items if self.areCoordinates() else self.getImages().getCoordinates()
        if coordinates is None or coordinates.getMicrographs() is None:
            return None
        return (coordinates.getBoxSize() or 0) * coordinates.getMicrographs().getSamplingRate() or None

    def havePositions(self):
        """Whether the items know where they are: false for particles that were imported without coordinates."""
        return any(coordinate is not None for _, coordinate in self)

    def farthestPosition(self):
        """Largest x and largest y, in pixels of `getPixelSize`."""
        positions = [coordinate.getPosition() for _, coordinate in self if coordinate is not None]
        return tuple(max(values) for values in zip(*positions))

    def areCoordinates(self):
        """Whether the set holds coordinates, no images."""
        return isinstance(self._items, SetOfCoordinates)

    def getImages(self):
        """The set of particles that the items are, or that the classes were made of."""
        return self._items.getImages() if isinstance(self._items, SetOfClasses2D) else self._items

    def _particles(self):
        if not isinstance(self._items, SetOfClasses2D):
            yield from _enabled(self._items)
            return
        for cls in _enabled(self._items):
            yield from _enabled(cls)


def _enabled(items):
    return (item for item in items.iterItems() if item.isEnabled())
